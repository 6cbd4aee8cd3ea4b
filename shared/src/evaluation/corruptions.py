"""What each number detects and misses, on images corrupted in known ways: the table of docs/evaluation.md.

python -m ddpm_shared.evaluation.corruptions [--num-images 2000] [--out DIR]
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, get_args

import numpy as np
from PIL import Image, ImageFilter

from ddpm_shared import claims, command_line, datasets, files, images, streams
from ddpm_shared.config import RealImages, require
from ddpm_shared.config.help import default_is
from ddpm_shared.datasets import Split
from ddpm_shared.errors import choice
from ddpm_shared.evaluation import spaces
from ddpm_shared.evaluation.judge import Judge, require_enough
from ddpm_shared.evaluation.picture import ROWS
from ddpm_shared.evaluation.records import CorruptionRow
from ddpm_shared.images import Pixels
from ddpm_shared.records import folder

BLUR = 1.0  # pixels, standard deviation
NOISE = 20.0  # grey levels, standard deviation
MISSING = "Trouser"  # the class of Fashion-MNIST left out; of other data sets, the first
REPEATS = 10
SHIFT = 2  # pixels
SHOWN = 10  # images of each in the picture


def _random(order: int = 0) -> np.random.Generator:
    return streams.generator(0, streams.EVALUATION_CORRUPTION, order)


def blurred(pixels: Pixels) -> Pixels:
    """Each image under a Gaussian blur of BLUR pixels."""
    squeezed = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    filtered = [np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(BLUR))) for image in squeezed]
    return np.stack(filtered).reshape(pixels.shape)


def noisy(pixels: Pixels) -> Pixels:
    """Gaussian noise of NOISE grey levels on every pixel."""
    return np.clip(np.rint(pixels + _random().normal(0, NOISE, pixels.shape)), 0, 255).astype(np.uint8)


def moved(pixels: Pixels) -> Pixels:
    """Each image SHIFT pixels further down and to the right, on the background of all: what is usual at their edges."""
    result = np.empty_like(pixels)
    result[:] = np.median(np.concatenate([pixels[:, 0], pixels[:, :, 0]], axis=1), axis=(0, 1))  # black, or white
    result[:, SHIFT:, SHIFT:] = pixels[:, :-SHIFT, :-SHIFT]
    return result


def mirrored(pixels: Pixels) -> Pixels:
    """Each image left to right."""
    return np.ascontiguousarray(pixels[:, :, ::-1])


def swapped(pixels: Pixels) -> Pixels:
    """Red for blue: what reads RGB for BGR makes of each image."""
    return np.ascontiguousarray(pixels[..., ::-1])


def missing(split: Split) -> int | None:
    """The class that is left out; None where there are fewer than two."""
    if len(split.class_names) < 2:
        return None
    return split.class_names.index(MISSING) if MISSING in split.class_names else 0


def most(train: Split, test: Split) -> int:
    """How many images of each kind there can be."""
    left_out = missing(test)
    without = len(test.images) if left_out is None else int(np.count_nonzero(test.labels != left_out))
    return min(without, len(train.images))


def corrupted(train: Split, test: Split, count: int) -> dict[str, Pixels]:
    """Sets of `count` images by what was done to them; the first set is of real test images as they are.

    One lacks a class, where there are classes, and one has red for blue, where there are colours.
    """
    order = _random(1).permutation(len(test.images))
    real = test.images[order[:count]]
    left_out = missing(test)
    without = {}
    if left_out is not None:
        name = test.class_names[left_out]
        told = f"no {name.lower()}s" if name == MISSING else f"none of the class {name}"
        without = {told: test.images[order[test.labels[order] != left_out][:count]]}
    return {
        "test images": real,
        f"blurred by {BLUR:g} pixel": blurred(real),
        f"noise of {NOISE:g} grey levels": noisy(real),
        **without,
        f"each image {REPEATS} times": real[np.arange(count) // REPEATS],
        "copied training images": train.images[_random(2).permutation(len(train.images))[:count]],
        "mirrored": mirrored(real),
        f"moved by {SHIFT} pixels": moved(real),
        **({"red for blue": swapped(real)} if real.shape[-1] == 3 else {}),
    }


def table(judge: Judge, sets: dict[str, Pixels]) -> dict[str, CorruptionRow]:
    """The scores of each set, and the share of its images that are closer to training images than real ones are."""
    rows: dict[str, CorruptionRow] = {}
    for name, pixels in sets.items():
        _, distances = judge.nearest(pixels, f"nearest, {name}")
        scores = judge.scores(judge.extractor(pixels, f"features, {name}"))
        rows[name] = {**scores, **judge.memorised(pixels, distances)}
    return rows


def markdown(rows: dict[str, CorruptionRow]) -> str:
    """The table as Markdown."""
    shown = [(key, name) for key, name, better in ROWS if better]
    heads = [*(name for _, name in shown), "closer than real", "copies"]
    lines = [f"| | {' | '.join(heads)} |", "|---" * (1 + len(heads)) + "|"]
    for name, row in rows.items():
        cells = ["" if (value := row[key]) is None else f"{value:.3g}" for key, _ in shown]
        cells.append(f"{row['share_closer_than_99_percent_of_test_images']:.0%}")
        cells.append(f"{row['copies_of_training_images'] + row['copies_of_each_other']:,}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


@dataclass(frozen=True)
class Command:
    """Evaluate real images corrupted in known ways: print a table, write corruptions.json and corruptions.png."""

    num_images: int = 2000
    """Number of images of each kind."""
    out: Annotated[str | None, default_is("runs/corruptions/<utc>-<dataset>")] = None
    """Folder to write to."""
    data: RealImages = field(default_factory=RealImages)
    features: spaces.Kind = "auto"
    """Features to judge by. auto: those of a classifier where the data set has classes, else random ones."""


def main(argv: Sequence[str] | None = None) -> int:
    """Corrupt and judge as the flags say. Returns 0; raises UserError on bad input."""
    command = command_line.parse_flags(Command, argv, "ddpm_shared.evaluation.corruptions")
    choice("features", command.features, get_args(spaces.Kind))
    require_enough(command.num_images)
    train, test = datasets.load(command.data.dataset, command.data.data_dir, command.data.folder)
    there = most(train, test)
    without = "" if missing(test) is None else " without the class left out"
    require(command.num_images <= there, "--num-images", command.num_images, f"there are {there}{without}")
    sets = corrupted(train, test, command.num_images)
    judge = Judge(train, test, extractor=spaces.of(train, test, command.features))
    rows = table(judge, sets)
    out = folder.claim_output(command.out, "corruptions", train.name)
    with claims.writing(out):
        files.write_json(
            out / "corruptions.json", {"reference": train.name, "features": judge.extractor.name, "rows": rows}
        )
        shown = np.concatenate([pixels[:: len(pixels) // SHOWN][:SHOWN] for pixels in sets.values()])
        images.write_png(out / "corruptions.png", images.grid(shown, columns=SHOWN))
    print(f"{markdown(rows)}\n\n{out / 'corruptions.json'}, {out / 'corruptions.png'}, a row for each")
    return 0


if __name__ == "__main__":
    command_line.guard(main)
