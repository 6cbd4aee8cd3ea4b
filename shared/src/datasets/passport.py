"""The passport of a data set: what is known of it, and what was measured of its images, once.

The measurements are cached under the data's hash. They are those that a process of continuous time is chosen by
(sigma_data, and the largest distance for sigma_max), and what a user should know before training: how many images of
each class, and how many of them twice.
"""

from typing import Any, TypedDict

import numpy as np

from ddpm_shared import cache, datasets
from ddpm_shared.datasets import measures
from ddpm_shared.datasets.source import Split
from ddpm_shared.reading import one_line


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
            "levels": measures.level_counts(train.images).astype(np.float64),
            "largest_distance": np.array(measures.largest_distance(train.images), np.float64),
            "duplicates": np.array(measures.duplicates(train.images, test.images), np.float64),
        },
        {"levels": (channels, 256), "largest_distance": (2,), "duplicates": (3,)},
        "passports",
    )
    counts = measured["levels"]
    mean, sigma_data, rms = measures.moments(counts.sum(axis=0))
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
        "channels": [{"mean": mean, "std": std} for mean, std, _ in map(measures.moments, counts)],
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


def text(passport: Passport) -> str:
    """A passport as lines for a terminal."""
    number, twice = passport["num_images"], passport["duplicates"]
    distance = f"{passport['largest_distance']:.2f}{'' if passport['largest_of_all'] else ' or more'}"
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
        "distance": f"{distance} between the two training images that are furthest apart (sigma_max is larger)",
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
