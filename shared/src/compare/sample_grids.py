"""Two runs' grids of samples side by side, and where they differ.

Runs of one seed draw from the same noise, so their grids differ as far as their networks do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddpm_shared import images, pictures
from ddpm_shared.compare.records import GridDifference, PixelDifference
from ddpm_shared.errors import UserError
from ddpm_shared.images import Pixels


@dataclass(frozen=True)
class Grids:
    """A comparison of grids: its record in comparison.json, and the pictures by name: "a", "b", "difference"."""

    record: GridDifference
    pictures: Mapping[str, Pixels]


def compare(
    a: Path, b: Path, labels: tuple[str, str], config: Mapping[str, Any], class_names: Sequence[str] = ()
) -> Grids:
    """Compare the newest grid that both run folders hold under one name.

    Args:
        a: the baseline's folder.
        b: the other run's.
        labels: what to call them.
        config: the settings of either, as in metrics.json.
        class_names: of its data set, likewise.

    Returns:
        The record says what is absent, or: the file, how many pixels the images of a grid have, how many of them
        differ, by how many of 255 grey levels at most, and how many times the difference is amplified in its picture.
    """
    names = [{file.name for file in (folder / "samples").glob("step_*.png")} for folder in (a, b)]
    without = [label for label, of_run in zip(labels, names, strict=True) if not of_run]
    if without:
        return _absent(f"{' and '.join(without)} left no grid of samples")
    common = names[0] & names[1]
    if not common:
        return _absent(f"{labels[0]} and {labels[1]} drew no samples at a common step")
    name = max(common)  # step_<eight digits>.png
    try:
        first, second = (pictures.read_png(folder / "samples" / name, "left out") for folder in (a, b))
    except UserError as error:
        return _absent(f"a grid {name} cannot be read: {error}")
    if first.shape != second.shape:
        return _absent(f"the grids {name} have different shapes, {_shape(first)} and {_shape(second)} pixels")
    record, amplified = difference(first, second, _inside(first.shape, config, class_names))
    return Grids({"absent": None, "file": name, **record}, {"a": first, "b": second, "difference": amplified})


def difference(a: Pixels, b: Pixels, counted: NDArray[np.bool_] | None = None) -> tuple[PixelDifference, Pixels]:
    """How far apart pictures are, pixel by pixel: a pixel differs as much as the channel that differs most.

    Args:
        a: [..., C] uint8.
        b: uint8 of the same shape.
        counted: which pixels to count, [...] (default: all).

    Returns:
        The record: how many pixels, how many of them differ, by how many of 255 grey levels at most, and how many
        times the difference is amplified in its picture. The picture: |a - b|, amplified, of the same shape.
    """
    apart = np.abs(a.astype(np.int16) - b).astype(np.uint8)
    differences = apart.max(axis=-1) if counted is None else apart.max(axis=-1)[counted]
    largest = int(differences.max(initial=0))
    # So that nearly all can be seen: where a few pixels differ much and most by little, the few may turn plain white.
    usual = int(np.percentile(differences[differences > 0], 95)) if largest else 255
    amplification = 255 // usual
    amplified = np.minimum(apart.astype(np.int32) * amplification, 255).astype(np.uint8)
    record: PixelDifference = {
        "pixels": differences.size,
        "differing_pixels": int(np.count_nonzero(differences)),
        "largest_difference": largest,
        "amplification": amplification,
    }
    return record, amplified


def _absent(reason: str) -> Grids:
    record: GridDifference = {
        "absent": reason,
        "file": None,
        "pixels": None,
        "differing_pixels": None,
        "largest_difference": None,
        "amplification": None,
    }
    return Grids(record, {})


def _shape(pixels: Pixels) -> str:
    return f"{pixels.shape[1]} x {pixels.shape[0]}"


def _inside(shape: tuple[int, ...], config: Mapping[str, Any], class_names: Sequence[str]) -> NDArray[np.bool_]:
    """Which pixels of a grid of `shape` to count, [height, width]: those of its images once, none around them.

    A grid is larger than its images: images.grid draws each pixel several times over, and images.by_class a name
    beside each row. A picture that is no such grid is counted whole.
    """
    model, count = config.get("model", {}), config.get("training", {}).get("sample_images", 0)
    size, channels = model.get("image_size", 0), model.get("image_channels", 0)
    if not (size and channels and count):
        return np.ones(shape[:2], np.bool_)
    class_names = class_names if config.get("class_conditional") else ()
    black, white = (_grid(np.full((count, size, size, channels), level, np.uint8), class_names) for level in (0, 255))
    if black.shape != shape:
        return np.ones(shape[:2], np.bool_)
    first_copies = np.zeros(shape[:2], np.bool_)
    first_copies[:: images.SCALE, :: images.SCALE] = True  # GAP is a multiple of SCALE
    inside: NDArray[np.bool_] = (black != white)[..., 0] & first_copies
    return inside


def _grid(pixels: Pixels, class_names: Sequence[str]) -> Pixels:
    """The picture that a run draws of its samples."""
    if not class_names:
        return images.grid(pixels)
    return images.by_class(pixels, np.arange(len(pixels)) % len(class_names), class_names)
