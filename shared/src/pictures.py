"""Pictures from files, PNG and GIF: their declared size is looked at before they are decoded."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from ddpm_shared import reading

PIXELS = 2**26  # of a picture: a grid of 18,000 images
FRAMES = 1000
ALL_PIXELS = 2**28  # of all frames of a GIF
FILE = 256 * reading.MIB


def read_png(path: Path, way_out: object) -> NDArray[np.uint8]:
    """A PNG file as [height, width, C] uint8, C = 1 for grey and 3 for anything else.

    Raises:
        UserError: no such file, not a whole PNG, or a larger one.
    """
    data = reading.read_bytes(path, way_out, FILE)
    with _decoded(path, data, "PNG", way_out) as picture:
        _require_small(picture, PIXELS)
        pixels = np.array(picture if picture.mode in ("L", "RGB") else picture.convert("RGB"))
    return pixels[..., np.newaxis] if pixels.ndim == 2 else pixels


def read_gif(path: Path, way_out: object) -> bytes:
    """The content of a GIF file, each of whose frames can be decoded. Raises UserError as `read_png` does."""
    data = reading.read_bytes(path, way_out, FILE)
    with _decoded(path, data, "GIF", way_out) as picture:
        for number, frame in enumerate(ImageSequence.Iterator(picture), start=1):
            if number > FRAMES:
                raise ValueError(f"it has more than {FRAMES} frames")
            _require_small(frame, min(PIXELS, ALL_PIXELS // number))
            frame.load()
    return data


@contextlib.contextmanager
def _decoded(path: Path, data: bytes, kind: str, way_out: object) -> Iterator[Image.Image]:
    """The picture in `data`, its pixels not yet decoded; what Pillow raises in the block becomes UserError."""

    def message(reason: str) -> str:
        return f"{reading.name_of(path)} is not a whole {kind} ({reason}): {way_out}"

    with reading.refusing(message), Image.open(io.BytesIO(data), formats=(kind,)) as picture:
        yield picture


def _require_small(picture: Image.Image, at_most: int) -> None:
    if picture.width * picture.height > at_most:
        raise ValueError(f"it would have {picture.width} x {picture.height} pixels")
