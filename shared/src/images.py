"""Pictures of uint8 images [N, H, W, C]: grids, PNG, GIF."""

import io
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ddpm_shared import files

if TYPE_CHECKING:  # matplotlib takes a third of a second to import, and most callers draw no figure
    from matplotlib.figure import Figure

Pixels = NDArray[np.uint8]

SCALE, GAP = 2, 2  # of a grid: screen pixels of a pixel, and between two images
ROW = 8  # images of a class in a row of by_class, at most
FONT, NAME = 13, 24  # of the classes' names: height in pixels, and letters at most


def to_pixels(x: NDArray[np.floating[Any]]) -> Pixels:
    """Images in [-1, 1] as uint8, rounded to the nearest level and clipped, of any shape."""
    pixels: Pixels = np.clip(np.rint((x + 1) * 127.5), 0, 255).astype(np.uint8)
    return pixels


def grid(images: Pixels, columns: int | None = None, scale: int = SCALE, gap: int = GAP) -> Pixels:
    """One picture of all images, row by row, on white.

    Args:
        images: [N, H, W, C] uint8, N >= 1, C 1 or 3.
        columns: images per row (default: as square as possible).
        scale: side of the square that each pixel becomes.
        gap: width of the white lines between and around the images, in pixels.

    Returns:
        [height, width, C] uint8.
    """
    count, height, width, channels = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    images = images.repeat(scale, axis=1).repeat(scale, axis=2)
    cell_height, cell_width = height * scale + gap, width * scale + gap
    canvas = np.full((rows * cell_height + gap, columns * cell_width + gap, channels), 255, np.uint8)
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        top, left = row * cell_height + gap, column * cell_width + gap
        canvas[top : top + height * scale, left : left + width * scale] = image
    return canvas


def by_class(
    images: Pixels, labels: NDArray[np.integer[Any]], class_names: Sequence[str], scale: int = SCALE, gap: int = GAP
) -> Pixels:
    """One picture with a row for each class, its name on the left; a class of many images has several rows.

    Args:
        images: [N, H, W, C] uint8, N >= 1, C 1 or 3.
        labels: [N], the class of each image; the rows are in the order in which the classes first appear.
        class_names: by label.
        scale: as in grid.
        gap: as in grid.

    Returns:
        [height, width, C] uint8, the names in black on white.
    """
    rows = [images[labels == label] for label in dict.fromkeys(labels.tolist())]
    columns = min(ROW, max(map(len, rows)))
    grids = [grid(row, columns, scale, gap) for row in rows]
    names = [class_names[label] for label in dict.fromkeys(labels.tolist())]
    font = ImageFont.load_default(FONT)
    shown = [name if len(name) <= NAME else name[: NAME - 1] + "…" for name in names]
    margin = math.ceil(max(font.getlength(name) for name in shown)) + 2 * gap
    parts = []
    for name, part in zip(shown, grids, strict=True):
        canvas = Image.new("L", (margin, len(part)), 255)
        middle = gap + images.shape[1] * scale / 2  # of the first row
        ImageDraw.Draw(canvas).text((margin - gap, middle), name, fill=0, font=font, anchor="rm")
        drawn = np.asarray(canvas)[..., None].repeat(images.shape[-1], axis=2)
        parts.append(np.concatenate([drawn, part], axis=1)[: None if part is grids[-1] else len(part) - gap])
    return np.concatenate(parts)


def _picture(pixels: Pixels) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def png(pixels: Pixels) -> bytes:
    """[height, width, C] uint8 as a PNG file."""
    buffer = io.BytesIO()
    _picture(pixels).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def write_png(path: Path, pixels: Pixels) -> None:
    """Write [height, width, C] uint8 as PNG, atomically."""
    files.write_atomically(path, png(pixels))


def write_figure(path: Path, figure: "Figure", dpi: int = 120) -> None:
    """Write a matplotlib figure as PNG, atomically. Its texts are shown letter by letter, no formula in them."""
    buffer = io.BytesIO()
    save_literally(figure, buffer, format="png", dpi=dpi)
    files.write_atomically(path, buffer.getvalue())


def save_literally(figure: "Figure", target: IO[Any], **options: Any) -> None:
    """Save a matplotlib figure with its texts as they are: a name of a run may hold $, and any letter.

    The numbers along the axes are left to matplotlib, which writes powers of ten as formulas.
    """
    from matplotlib.axis import Axis, Tick
    from matplotlib.text import Text

    numbers = {id(label) for tick in figure.findobj(Tick) for label in (tick.label1, tick.label2)}
    numbers |= {id(axis.offsetText) for axis in figure.findobj(Axis)}
    for text in figure.findobj(Text):
        if id(text) not in numbers:
            text.set_parse_math(False)
            text.set_text(text.get_text().encode("utf-8", "backslashreplace").decode())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a box stands for it
        figure.savefig(target, **options)


def write_gif(path: Path, frames: Sequence[Pixels], seconds_a_frame: float = 0.08, hold: float = 2.0) -> None:
    """Write frames of [height, width, C] uint8 as a looping GIF, atomically, the last shown for `hold` seconds."""
    pictures = [_picture(frame) for frame in frames]
    durations = [round(1000 * seconds_a_frame)] * (len(frames) - 1) + [round(1000 * hold)]
    buffer = io.BytesIO()
    pictures[0].save(buffer, "GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0)
    files.write_atomically(path, buffer.getvalue())
