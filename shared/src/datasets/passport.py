"""The passport of a data set: what is known of it, and what was measured of its images, once.

The measurements are cached under the data's hash. They are those that a process of continuous time is chosen by
(sigma_data, and the largest distance for sigma_max), and what a user should know before training: how many images of
each class, and how many of them twice.
"""

import hashlib
import math
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from ddpm_shared import cache, datasets, images
from ddpm_shared.datasets.source import Split
from ddpm_shared.images import Pixels
from ddpm_shared.reading import one_line

LEVELS = np.arange(256) / 127.5 - 1  # of a pixel, in [-1, 1]
PRODUCTS = 10_000**2 * 32**2 * 3  # for the largest distance, at most: all pairs of 10,000 images of 32 x 32 x 3, twice
BLOCK, VALUES = 1000, 2**24  # images of a block, at most, and values
CLASSES, EXAMPLES, SIDE = 26, 8, 128  # of the sheet: classes, images of each, and pixels of an image's side, at most


class ClassCount(TypedDict):
    """A class and the number of its images."""

    name: str
    train: int
    test: int


class ChannelMoments(TypedDict):
    """Mean and standard deviation of a channel, pixels in [-1, 1]."""

    mean: float
    std: float


class Duplicates(TypedDict):
    """Images that are another's exact copy."""

    train: int  # training images that are a copy of an earlier one
    test: int  # test images that are a copy of an earlier one
    across: int  # test images that are a copy of a training image


class Passport(TypedDict):
    """A data set's passport. Pixels are in [-1, 1]; moments and distance are of the training images."""

    name: str
    facts: dict[str, Any] | None  # title, licence, citation, home, flip; None for the user's own
    shape: list[int]  # of an image: height, width, channels
    num_images: dict[str, int]  # of train and test
    classes: list[ClassCount]  # by label; empty where there are none
    mean: float
    sigma_data: float  # standard deviation of all values about the mean of all
    rms: float  # root of the mean square of all values
    channels: list[ChannelMoments]
    largest_distance: float  # Euclidean, between two images
    largest_of_all: bool  # False: it was sought as long as is sensible, and a further pair may be left
    duplicates: Duplicates
    horizontal_flip: bool  # whether training flips images, unless the user says otherwise
    sha256: dict[str, str]  # of train and test


def passport(train: Split, test: Split) -> Passport:
    """A data set's passport; measured the first time, under a progress bar, and read from the cache after that.

    Args:
        train: images [N, H, W, C] uint8.
        test: images [M, H, W, C] uint8.
    """
    channels = train.images.shape[-1]
    measured = cache.cached(
        "passport",
        ("1", train.sha256, test.sha256),
        lambda: {
            "levels": level_counts(train.images).astype(np.float64),
            "largest_distance": np.array(largest_distance(train.images), np.float64),
            "duplicates": np.array(duplicates(train.images, test.images), np.float64),
        },
        {"levels": (channels, 256), "largest_distance": (2,), "duplicates": (3,)},
        "passports",
    )
    counts = measured["levels"]
    mean, sigma_data, rms = _moments(counts.sum(axis=0))
    source = datasets.DATASETS.get(train.name)
    in_train, in_test, across = map(int, measured["duplicates"])
    return {
        "name": train.name,
        "facts": source.facts._asdict() if source else None,
        "shape": list(train.images.shape[1:]),
        "num_images": {split.split: len(split.images) for split in (train, test)},
        "classes": _classes(train, test),
        "mean": mean,
        "sigma_data": sigma_data,
        "rms": rms,
        "channels": [{"mean": mean, "std": std} for mean, std, _ in map(_moments, counts)],
        "largest_distance": float(measured["largest_distance"][0]),
        "largest_of_all": bool(measured["largest_distance"][1]),
        "duplicates": {"train": in_train, "test": in_test, "across": across},
        "horizontal_flip": datasets.flips(train.name),
        "sha256": {split.split: split.sha256 for split in (train, test)},
    }


def _classes(train: Split, test: Split) -> list[ClassCount]:
    names = train.class_names
    in_train, in_test = (np.bincount(split.labels, minlength=len(names)) for split in (train, test))
    return [{"name": name, "train": int(in_train[i]), "test": int(in_test[i])} for i, name in enumerate(names)]


def level_counts(pixels: Pixels) -> NDArray[np.int64]:
    """How often each grey level 0 .. 255 is there in [N, H, W, C] uint8: [C, 256]."""
    counts = np.zeros((pixels.shape[-1], 256), np.int64)
    rows = max(1, VALUES // math.prod(pixels.shape[1:]))
    for start in range(0, len(pixels), rows):
        for channel in range(pixels.shape[-1]):
            counts[channel] += np.bincount(pixels[start : start + rows, ..., channel].ravel(), minlength=256)
    return counts


def _moments(counts: NDArray[np.floating]) -> tuple[float, float, float]:
    """Mean, standard deviation and root of the mean square of pixels in [-1, 1], from the counts of their levels."""
    share = counts / counts.sum()
    mean = float(share @ LEVELS)
    return mean, math.sqrt(share @ (LEVELS - mean) ** 2), math.sqrt(share @ LEVELS**2)


def largest_distance(pixels: Pixels) -> tuple[float, bool]:
    """The largest Euclidean distance between two images in [-1, 1], and whether it is surely that.

    Two images cannot be further from each other than the sum of their distances to the mean image. So images are
    compared in the order of that distance, block by block, until no other pair can be further; or until PRODUCTS, when
    a further pair may be left. ||x - y||^2 = ||x||^2 + ||y||^2 - 2 x . y finds the pair in float32, and its distance is
    then computed in whole numbers: two pairs that differ by less than 1e-5 of their distance may be mistaken.

    Args:
        pixels: [N, H, W, C] uint8, N >= 1.

    Returns:
        The distance, 0 for one image; True if it is the largest of all.
    """
    mean = pixels.mean(axis=0, dtype=np.float64).ravel().astype(np.float32)
    size = max(1, min(BLOCK, VALUES // mean.size))

    def rows(indices: NDArray[np.int64]) -> NDArray[np.float32]:
        return pixels[indices].reshape(len(indices), -1).astype(np.float32) - mean

    every = np.arange(len(pixels))
    squares = np.concatenate([_squares(rows(every[i : i + size])) for i in range(0, len(pixels), size)])
    order = np.argsort(-squares, kind="stable")
    blocks = [order[i : i + size] for i in range(0, len(pixels), size)]
    radii = [math.sqrt(squares[block[0]]) for block in blocks]  # the largest in each
    largest, pair, left = -1.0, (0, 0), PRODUCTS
    for number, block in enumerate(tqdm(blocks, desc="distances", unit="block", leave=False)):
        x = rows(block)
        for other, radius in zip(blocks[number:], radii[number:], strict=True):
            if (radii[number] + radius) ** 2 < largest * (1 - 1e-5):
                break
            if left <= 0:
                return _distance(pixels, pair), False
            left -= len(block) * len(other) * mean.size
            between = squares[block][:, None] + squares[other] - 2 * (x @ rows(other).T)
            i, j = np.unravel_index(np.argmax(between), between.shape)
            if between[i, j] > largest:
                largest, pair = float(between[i, j]), (int(block[i]), int(other[j]))
    return _distance(pixels, pair), True


def _squares(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.einsum("nd,nd->n", rows, rows)


def _distance(pixels: Pixels, pair: tuple[int, int]) -> float:
    one, two = (pixels[index].astype(np.int64) for index in pair)
    return math.sqrt(int(((one - two) ** 2).sum())) / 127.5


def duplicates(train: Pixels, test: Pixels) -> tuple[int, int, int]:
    """Exact copies: training images of an earlier one, test images of an earlier one, test of training images."""
    in_train, in_test = (
        [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in pixels] for pixels in (train, test)
    )
    distinct = set(in_train)
    across = sum(digest in distinct for digest in in_test)
    return len(in_train) - len(distinct), len(in_test) - len(set(in_test)), across


def text(passport: Passport) -> str:
    """A passport as lines for a terminal."""
    number, twice = passport["num_images"], passport["duplicates"]
    at_most = "at most" if passport["largest_of_all"] else "or somewhat more at most"
    channels = "; ".join(f"{moments['mean']:.4f}, {moments['std']:.4f}" for moments in passport["channels"])
    facts = passport["facts"] or {}
    lines: dict[str, str] = {name: facts[name] for name in ("title", "licence", "citation", "home") if name in facts}
    lines |= {
        "image": "{} x {} x {}, height, width, channels".format(*passport["shape"]),
        "images": f"{number['train']} to train, {number['test']} to test",
        "classes": _class_lines(passport["classes"]),
        "in [-1, 1]": f"mean {passport['mean']:.4f}, standard deviation {passport['sigma_data']:.4f} (sigma_data), "
        f"root mean square {passport['rms']:.4f}",
        "channels": f"mean, standard deviation: {channels}",
        "distance": f"{passport['largest_distance']:.2f} {at_most}, between two training images (sigma_max is larger)",
        "copies": f"{twice['train']} in train, {twice['test']} in test, {twice['across']} in test of training images",
        "flip": f"{'on' if passport['horizontal_flip'] else 'off'} by default (--horizontal-flip)",
        "sha256": f"{passport['sha256']['train']} (train), {passport['sha256']['test']} (test)",
    }
    return "\n".join(f"  {name:<11}{line}" for name, line in lines.items())


def _class_lines(classes: list[ClassCount]) -> str:
    if not classes:
        return "none"
    sizes = {(entry["train"], entry["test"]) for entry in classes}
    if len(sizes) == 1:
        train, test = sizes.pop()
        names = ", ".join(one_line(entry["name"]) for entry in classes)
        return f"{len(classes)}, each with {train} images to train and {test} to test: {names}"
    each = ", ".join(f"{one_line(entry['name'])} {entry['train']} + {entry['test']}" for entry in classes)
    return f"{len(classes)}, with so many images to train + to test: {each}"


def sheet(split: Split) -> tuple[Pixels, str]:
    """A picture of the first images of each class, and what it shows in words.

    Of more than CLASSES classes, it has as many, at equal steps. Images of more than SIDE pixels are shrunk.
    """
    labels = split.labels if split.class_names else np.zeros(len(split.images), np.int64)
    present = np.unique(labels)
    shown = present[np.linspace(0, len(present) - 1, min(len(present), CLASSES)).astype(np.int64)]
    each = EXAMPLES if split.class_names else EXAMPLES**2
    chosen = np.concatenate([np.flatnonzero(labels == label)[:each] for label in shown])
    pixels = _shrunk(split.images[chosen])
    if not split.class_names:
        return images.grid(pixels), f"the first {len(chosen)} images"
    picture = images.by_class(pixels, labels[chosen], split.class_names)
    return (
        picture,
        f"the first images of {'' if len(shown) == len(present) else f'{len(shown)} of '}{len(present)} classes",
    )


def _shrunk(pixels: Pixels) -> Pixels:
    factor = math.ceil(max(pixels.shape[1:3]) / SIDE)
    if factor == 1:
        return pixels
    small = [np.asarray(Image.fromarray(image.squeeze()).reduce(factor)) for image in pixels]
    return np.stack(small).reshape(len(small), *small[0].shape[:2], pixels.shape[-1])
