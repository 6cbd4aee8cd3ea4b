"""Images to judge: the samples.npz of either framework, or anybody's array of the same kind."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddpm_shared import config, npz, reading, validation
from ddpm_shared.config import RealImages
from ddpm_shared.datasets import Split
from ddpm_shared.errors import UserError
from ddpm_shared.images import Pixels, to_pixels
from ddpm_shared.reading import name_of, one_line

WAY_OUT = "write it again with np.savez(file, images=...)"
ORIGIN = reading.MIB  # bytes; ours have some hundreds
MOST_LABELS = 2**31  # a label is below it


class Samples(NamedTuple):
    """What a file of images holds."""

    images: Pixels  # [N, H, W, C], C 1 or 3
    origin: dict[str, Any]  # as commands.sample wrote it; {} where there is none
    labels: NDArray[np.int64] | None  # [N], the classes asked for; None where there are none


def find(path: str | Path) -> Path:
    """The samples.npz that `path` stands for: itself, or one in that folder or in its folder samples/.

    Raises:
        UserError: there is none.
    """
    path = Path(path)
    if os.path.isfile(path):
        return path
    for file in (path / "samples.npz", path / "samples" / "samples.npz"):
        if os.path.isfile(file):
            return file
    if not os.path.isdir(path):
        raise UserError(f"there is no {name_of(path)}: give a samples.npz, or the folder of one")
    raise UserError(
        f"{name_of(path)} holds no samples.npz: draw images first, by make sample-torch or sample-tf with "
        f'ARGS="--checkpoint {path} --num-images 2000 --out {path / "samples"}"'
    )


def read(path: Path) -> Samples:
    """The images of a .npz file, their origin and their labels. Images in [-1, 1] become uint8, as samples do.

    Raises:
        UserError: not a .npz file, no array `images`, or one of the wrong shape, kind or range; labels that are not a
            number for each image.
    """
    arrays = npz.read(path, WAY_OUT, ("images", "origin", "labels"))
    if "images" not in arrays:
        raise UserError(f"{name_of(path)} holds no array `images`: {WAY_OUT}")
    images, origin = _pixels(arrays["images"], path), _origin(arrays.get("origin"), path)
    return Samples(images, origin, _labels(arrays.get("labels"), len(images), path))


def require_like(found: Samples, path: Path, split: Split) -> None:
    """Raise UserError if images are of another shape than those of a data set, or labels are none of its classes."""
    shape, expected = list(found.images.shape[1:]), list(split.images.shape[1:])
    if shape != expected:
        raise UserError(
            f"{name_of(path)}: images has shape {_shown(found.images)}, but must have [N, "
            f"{', '.join(map(str, expected))}], as {split.name} has: name the images' own data set by --dataset"
        )
    labels, classes = found.labels, len(split.class_names)
    if labels is None or not len(labels):
        return
    if not classes:
        raise UserError(f"{name_of(path)} has labels, but {split.name} has no classes: leave out the array `labels`")
    low, high = int(labels.min()), int(labels.max())
    if high >= classes:
        raise UserError(
            f"{name_of(path)}: labels go from {low} to {high}: give a class of 0 .. {classes - 1}, those of "
            f"{split.name}, for each image, or leave out the array `labels`"
        )


def data_of(found: Samples, path: Path) -> RealImages | None:
    """The data set that images were made of, as far as their origin says; None where it does not.

    Raises:
        UserError: one that is no data set.
    """
    data = found.origin.get("data")
    if data is None:
        return None
    told = config.from_dict({"data": data}, f"the origin of {name_of(path)}").data
    return RealImages(told.dataset, told.data_dir, told.folder)


def _shown(images: NDArray[Any]) -> str:
    return str(list(images.shape)) if images.ndim <= 8 else f"of {images.ndim} numbers"


def _pixels(images: NDArray[Any], path: Path) -> Pixels:
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or 0 in images.shape[1:]:
        raise UserError(
            f"{name_of(path)}: images has shape {_shown(images)}, but must have [N, height, width, 1 or 3], channels "
            "last"
        )
    kind = one_line(images.dtype, 40)
    if images.dtype == np.uint8:
        return images
    if not np.issubdtype(images.dtype, np.floating):
        raise UserError(f"{name_of(path)}: images is {kind}, but must be uint8 in 0 .. 255 or floats in [-1, 1]")
    low, high = (float(bound(images, initial=0)) for bound in (np.min, np.max))
    if not (-1 <= low <= high <= 1):  # nor is NaN
        raise UserError(
            f"{name_of(path)}: images is {kind} from {low:.4g} to {high:.4g}, but floats must be in [-1, 1]: "
            "clip them, or scale them to uint8 in 0 .. 255"
        )
    if low == 0:
        raise UserError(
            f"{name_of(path)}: images is {kind} from 0 to {high:.4g}, but -1 is black here: scale it by 2 x - 1"
        )
    return to_pixels(images)


def _labels(labels: NDArray[Any] | None, count: int, path: Path) -> NDArray[np.int64] | None:
    if labels is None:
        return None
    way_out = "give a class of 0 or more for each image, or leave out the array `labels`"
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        kind = f"{one_line(labels.dtype, 40)} of the shape {list(labels.shape)}"
        raise UserError(f"{name_of(path)}: labels is {kind}, but must be integers [{count}]: {way_out}")
    low, high = int(labels.min(initial=0)), int(labels.max(initial=0))
    if low < 0 or high >= MOST_LABELS:
        raise UserError(f"{name_of(path)}: labels go from {low} to {high}: {way_out}")
    return labels.astype(np.int64)


def _origin(text: NDArray[Any] | None, path: Path) -> dict[str, Any]:
    if text is None:
        return {}
    source, way_out = f"the origin of {name_of(path)}", "draw the images anew, or leave out the array `origin`"
    if text.dtype.kind != "U" or text.ndim or text.nbytes > ORIGIN:
        kind = f"{text.dtype.name} of the shape {list(text.shape)}"
        raise UserError(f"{source} is {kind}, but must be one text of at most {ORIGIN:,} bytes: {way_out}")
    with reading.refusing(lambda reason: f"{source} is no text ({reason}): {way_out}"):
        origin = str(text)
    return validation.checked(reading.parse_json(origin, source, way_out), "origin", source, "an origin", way_out)
