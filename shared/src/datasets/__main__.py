"""`make data`: fetch and verify a data set, and list its files."""

from ddpm_shared import command_line, datasets


def main(dataset: str = "auto", data_dir: str | None = None) -> int:
    """Fetch and verify a data set, and list its files.

    Args:
        dataset: auto, fashion-mnist or fashion-mnist-10k.
        data_dir: the folder of the full set's four IDX files, .gz or unzipped.
    """
    name, verified = datasets.fetch(dataset, data_dir)
    train, test = datasets.DATASETS[name].splits(verified)
    print(f"{name}: {len(train.images)} training and {len(test.images)} test images, verified")
    for path, file, _ in verified:
        print(f"  {path}\n    {file.content}, sha256 {file.sha256}")
    return 0


if __name__ == "__main__":
    command_line.guard(lambda: command_line.parse_flags(main, None, "ddpm_shared.datasets"))
