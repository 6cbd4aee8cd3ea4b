"""Images to judge: the samples.npz of either framework, or anybody's array of the same kind."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ddpm_shared import files
from ddpm_shared.datasets.fashion_mnist import SHAPE
from ddpm_shared.errors import UserError
from ddpm_shared.images import Pixels, to_pixels


def find(path: str | Path) -> Path:
    """The samples.npz that `path` stands for: itself, or one in that folder or in its folder samples/.

    Raises:
        UserError: there is none.
    """
    path = Path(path)
    if path.is_file():
        return path
    for file in (path / "samples.npz", path / "samples" / "samples.npz"):
        if file.is_file():
            return file
    if not path.is_dir():
        raise UserError(f"there is no {path}: give a samples.npz, or the folder of one")
    raise UserError(
        f"{path} holds no samples.npz: draw images first, by make sample-torch or sample-tf with "
        f'ARGS="--checkpoint {path} --num-images 2000 --out {path / "samples"}"'
    )


def read(path: Path) -> tuple[Pixels, dict[str, Any]]:
    """The images of a .npz file and their origin, as commands.sample wrote it ({} where there is none).

    Returns:
        [N, 28, 28, 1] uint8; floats in [-1, 1] are scaled to 0 .. 255 and rounded, as samples are.

    Raises:
        UserError: not a .npz file, no array `images`, or one of the wrong shape, kind or range.
    """
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            images = arrays["images"]
            origin = json.loads(str(arrays["origin"])) if "origin" in arrays else {}
    except KeyError:
        raise UserError(f"{path} holds no array `images`: write one with np.savez(file, images=...)") from None
    except files.BROKEN_NPZ:
        raise UserError(f"{path} is not a whole .npz file: write it again with np.savez(file, images=...)") from None
    if images.ndim != 4 or images.shape[1:] != SHAPE:
        raise UserError(
            f"{path}: images has shape {list(images.shape)}, but must have [N, {', '.join(map(str, SHAPE))}]: "
            "the judge knows Fashion-MNIST only, channels last"
        )
    if images.dtype == np.uint8:
        return images, origin
    if not np.issubdtype(images.dtype, np.floating):
        raise UserError(f"{path}: images is {images.dtype}, but must be uint8 in 0 .. 255 or floats in [-1, 1]")
    low, high = (float(bound(images, initial=0)) for bound in (np.min, np.max))
    if not (-1 <= low <= high <= 1):  # nor is NaN
        raise UserError(
            f"{path}: images is {images.dtype} from {low:.4g} to {high:.4g}, but floats must be in [-1, 1]: "
            "clip them, or scale them to uint8 in 0 .. 255"
        )
    if low == 0:
        raise UserError(
            f"{path}: images is {images.dtype} from 0 to {high:.4g}, but -1 is black here: scale from [0, 1] by 2 x - 1"
        )
    return to_pixels(images), origin
