"""Images to judge: the samples.npz of either framework, or anybody's array of the same kind."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddpm_shared import npz, reading, validation
from ddpm_shared.datasets.fashion_mnist import SHAPE
from ddpm_shared.errors import UserError
from ddpm_shared.images import Pixels, to_pixels
from ddpm_shared.reading import name_of, one_line

WAY_OUT = "write it again with np.savez(file, images=...)"
ORIGIN = reading.MIB  # bytes; ours have some hundreds


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


def read(path: Path) -> tuple[Pixels, dict[str, Any]]:
    """The images of a .npz file and their origin, as commands.sample wrote it ({} where there is none).

    Returns:
        [N, 28, 28, 1] uint8; floats in [-1, 1] are scaled to 0 .. 255 and rounded, as samples are.

    Raises:
        UserError: not a .npz file, no array `images`, or one of the wrong shape, kind or range.
    """
    arrays = npz.read(path, WAY_OUT, ("images", "origin"))
    if "images" not in arrays:
        raise UserError(f"{name_of(path)} holds no array `images`: {WAY_OUT}")
    images, origin = arrays["images"], _origin(arrays.get("origin"), path)
    if images.ndim != 4 or images.shape[1:] != SHAPE:
        raise UserError(
            f"{name_of(path)}: images has shape {list(images.shape)}, but must have [N, {', '.join(map(str, SHAPE))}]: "
            "the judge knows Fashion-MNIST only, channels last"
        )
    kind = one_line(images.dtype, 40)
    if images.dtype == np.uint8:
        return images, origin
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
    return to_pixels(images), origin


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
