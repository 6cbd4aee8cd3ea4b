"""Images to judge: the samples.npz of either framework, or anybody's array of the same kind."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddpm_shared import npz, reading, validation
from ddpm_shared.datasets.fashion_mnist import CLASS_NAMES, SHAPE
from ddpm_shared.errors import UserError
from ddpm_shared.images import Pixels, to_pixels
from ddpm_shared.reading import name_of, one_line

WAY_OUT = "write it again with np.savez(file, images=...)"
ORIGIN = reading.MIB  # bytes; ours have some hundreds


class Samples(NamedTuple):
    """What a file of images holds."""

    images: Pixels  # [N, 28, 28, 1]
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
            class for each image.
    """
    arrays = npz.read(path, WAY_OUT, ("images", "origin", "labels"))
    if "images" not in arrays:
        raise UserError(f"{name_of(path)} holds no array `images`: {WAY_OUT}")
    images, origin = _pixels(arrays["images"], path), _origin(arrays.get("origin"), path)
    return Samples(images, origin, _labels(arrays.get("labels"), len(images), path))


def _pixels(images: NDArray[Any], path: Path) -> Pixels:
    if images.ndim != 4 or images.shape[1:] != SHAPE:
        raise UserError(
            f"{name_of(path)}: images has shape {list(images.shape)}, but must have [N, {', '.join(map(str, SHAPE))}]: "
            "the judge knows Fashion-MNIST only, channels last"
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
    way_out = f"give a class of 0 .. {len(CLASS_NAMES) - 1} for each image, or leave out the array `labels`"
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        kind = f"{one_line(labels.dtype, 40)} of the shape {list(labels.shape)}"
        raise UserError(f"{name_of(path)}: labels is {kind}, but must be integers [{count}]: {way_out}")
    low, high = int(labels.min(initial=0)), int(labels.max(initial=0))
    if low < 0 or high >= len(CLASS_NAMES):
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
