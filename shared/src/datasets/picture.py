"""A picture file of the user's as a small square of pixels: its middle, turned upright, laid on white, and shrunk.

The rules, in this order, are those of docs/pictures.md. The arithmetic is exact, so the pixels are the same on every
machine that has the same Pillow.
"""

import contextlib
import functools
import io
import stat
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ddpm_shared import reading
from ddpm_shared.errors import UserError
from ddpm_shared.images import Pixels

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
KINDS = "PNG, JPEG, WebP, BMP or GIF"
PIXELS = 2**27  # of a picture: the largest cameras have 2**26.7
FILE = 256 * reading.MIB

ORIENTATION = 0x0112  # of the EXIF tags: how the camera was held
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ROWS = 8  # of the small image that are computed at once: few, since most weights of others are 0


def read(path: Path, size: int) -> Pixels:
    """The picture in a file, of which its first bytes say what it is; of several frames, the first.

    Args:
        path: PNG, JPEG, WebP, BMP or GIF.
        size: height and width of the result, 1 .. 1024.

    Returns:
        [size, size, 3] uint8; [size, size, 1] where red, green and blue are equal at every pixel.

    Raises:
        UserError: why it cannot be read, in a few words without its name.
    """
    with reading.refusing(lambda reason: reason), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of oddities that harm no pixel
        data = io.BytesIO(_content(path))
        try:
            with Image.open(data, formats=FORMATS) as picture:
                if picture.width * picture.height > PIXELS:
                    raise UserError(f"it has {picture.width:,} x {picture.height:,} pixels, more than {PIXELS:,}")
                picture.load()  # after an error, it is black, and a second attempt would not say so
                pixels = np.asarray(_flat(_upright(picture)))
        except UnidentifiedImageError:
            raise UserError(f"it does not begin as {KINDS}") from None
        except Image.DecompressionBombError:  # Pillow's own limit is higher
            raise UserError(f"it has more than {PIXELS:,} pixels") from None
        return _without_colour(_resized(_middle(pixels.reshape(*pixels.shape[:2], -1)), size))


def _content(path: Path) -> bytes:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # a pipe or a device may never end
        raise UserError("it is a pipe or a device")
    if status.st_size > FILE:
        raise UserError(f"it has {status.st_size:,} bytes, more than {FILE:,}")
    with path.open("rb") as file:  # not by Pillow: what it maps into memory must not become shorter
        return file.read(FILE)


def to_channels(pixels: Pixels, channels: int) -> Pixels:
    """Images [..., C] uint8 of either kind in grey (1) or colour (3). Grey is Pillow's: 0.299 R + 0.587 G + 0.114 B."""
    if pixels.shape[-1] == channels:
        return pixels
    if channels == 3:
        return pixels.repeat(3, axis=-1)
    flat = Image.fromarray(pixels.reshape(-1, pixels.shape[-2], 3)).convert("L")
    return np.array(flat).reshape(*pixels.shape[:-1], 1)


def _upright(picture: Image.Image) -> Image.Image:
    """The picture as its camera was held. Where the note of it is damaged, as it is."""
    orientation = None
    with contextlib.suppress(*reading.BROKEN):
        orientation = picture.getexif().get(ORIENTATION)
    return picture.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else picture


def _flat(picture: Image.Image) -> Image.Image:
    """The picture in grey ("L") or colour ("RGB") of 8 bits; what is transparent is seen on white."""
    if picture.mode.startswith("I"):  # 16 bits, of which the upper 8 are taken, as Pillow does where there is colour
        values = np.asarray(picture).astype(np.int64)
        values[values == picture.info.get("transparency", -1)] = 0xFFFF
        return Image.fromarray((values.clip(0, 0xFFFF) >> 8).astype(np.uint8))
    if picture.has_transparency_data:
        colour = picture.info.get("transparency")
        if isinstance(colour, tuple) and max(colour) > 255:  # of 16 bits, while the pixels have 8 by now
            picture.info["transparency"] = tuple(value >> 8 for value in colour)
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return picture.convert("L" if picture.mode in ("1", "L") else "RGB")


def _middle(pixels: Pixels) -> Pixels:
    """The largest square in the middle of [H, W, C]; of an odd rest, the larger part is cut off right and below."""
    height, width, _ = pixels.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]


def _resized(square: Pixels, size: int) -> Pixels:
    """[side, side, C] as [size, size, C]: shrunk, a new pixel is the mean over its area; enlarged, it is bicubic."""
    side, _, channels = square.shape
    if side == size:
        return square.copy()
    if side > size:
        # All sums are whole numbers that the types hold exactly: 255 * 2**13.5 < 2**24, and its square < 2**53.
        rows = _sums(square, size, np.float32)
        sums = _sums(rows.swapaxes(0, 1), size, np.float64).swapaxes(0, 1)
        return np.floor(sums / side**2 + 0.5).astype(np.uint8)
    picture = Image.fromarray(square[..., 0] if channels == 1 else square)
    return np.array(picture.resize((size, size), Image.Resampling.BICUBIC)).reshape(size, size, channels)


def _sums(x: NDArray[Any], size: int, dtype: type[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """[side, M, C] -> [size, M, C]: the sums over `size` equal parts of the first axis, times `size`."""
    side, columns, channels = x.shape
    weights = _overlaps(side, size)
    sums = []
    for row in range(0, size, ROWS):
        first, last = row * side // size, -(-min(row + ROWS, size) * side // size)
        part = x[first:last].reshape(last - first, columns * channels)
        sums.append(weights[row : row + ROWS, first:last].astype(dtype) @ part.astype(dtype))
    return np.concatenate(sums).reshape(size, columns, channels)


@functools.lru_cache(maxsize=4)
def _overlaps(side: int, size: int) -> NDArray[np.float32]:
    """[size, side]: how much of each of `side` pixels lies in each of `size` equal parts, times `size`."""
    part, pixel = np.arange(size)[:, None], np.arange(side)
    overlap = np.minimum((part + 1) * side, (pixel + 1) * size) - np.maximum(part * side, pixel * size)
    return overlap.clip(0).astype(np.float32)


def _without_colour(pixels: Pixels) -> Pixels:
    grey = pixels.shape[-1] == 3 and bool((pixels == pixels[..., :1]).all())
    return pixels[..., :1] if grey else pixels
