"""`make data`: find a data set, print its passport, and draw examples of its classes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from ddpm_shared import command_line, datasets, images
from ddpm_shared.config import RealImages
from ddpm_shared.config.help import default_is
from ddpm_shared.datasets import passport, sheet


@dataclass(frozen=True)
class Command:
    """Find a data set, or download and verify it; print its passport, and draw examples of its classes."""

    data: RealImages = field(default_factory=RealImages)
    out: Annotated[str | None, default_is("runs/data/<data set>.png")] = None
    """PNG file of the examples."""


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the flags say. Returns 0; raises UserError on bad input, OSError on a full disk."""
    command = command_line.parse_flags(Command, argv, "ddpm_shared.datasets")
    data = command.data
    if data.dataset in datasets.OWN:
        train, test = datasets.load(data.dataset, data.data_dir, data.folder)
        print(f"{train.name}: {len(train.images)} training and {len(test.images)} test images")
    else:
        name, verified = datasets.fetch(data.dataset, data.data_dir)
        train, test = datasets.DATASETS[name].splits(verified)
        print(f"{name}: {len(train.images)} training and {len(test.images)} test images, verified")
        for path, file, _ in verified:
            print(f"  {path}\n    {file.content}, sha256 {file.sha256}")
    print(passport.text(passport.passport(train, test)))
    picture, shown = sheet.drawn(train)
    out = Path(command.out) if command.out else Path("runs/data") / f"{train.name}.png"
    images.write_png(out, picture)
    print(f"{out}: {shown}")
    return 0


if __name__ == "__main__":
    command_line.guard(main)
