"""The pictures of the notebooks: images in rows, readable type, colours that every kind of vision tells apart."""

import math
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib import pyplot as plt
from numpy.typing import NDArray

from ddpm_shared.pages import COLOURS

PIXEL = 0.034  # inches of a pixel of an image, so that 28 of them can be looked at


def use_style() -> None:
    """Set matplotlib's defaults for the figures of a notebook."""
    mpl.rcParams |= {
        "axes.prop_cycle": cycler(color=COLOURS),
        "axes.grid": True,
        "axes.titlesize": 12,
        "figure.dpi": 100,
        "figure.constrained_layout.use": True,
        "figure.figsize": (7.5, 3.6),
        "font.size": 11,
        "grid.color": "0.9",
        "savefig.dpi": 100,
    }


def show_images(
    images: NDArray[np.generic],
    columns: int | None = None,
    titles: Sequence[str] = (),
    rows: Sequence[str] = (),
    title: str = "",
    limits: tuple[float, float] = (-1.0, 1.0),
) -> None:
    """Show images side by side.

    Args:
        images: [N, H, W, C], uint8 in 0 .. 255 or floats, C 1 or 3.
        columns: images a row (default: all in one).
        titles: of the columns, over the first row.
        rows: names of the rows.
        title: of the whole figure.
        limits: the values, of floats, that are black and white.
    """
    count, height, width, channels = images.shape
    columns = columns or count
    low, high = (0.0, 255.0) if images.dtype == np.uint8 else limits
    shown = np.clip((images.astype(np.float64) - low) / (high - low), 0.0, 1.0)
    lines = math.ceil(count / columns)
    scale = PIXEL * max(1.0, 28 / width)  # a small image is shown no smaller
    size = columns * (width * scale + 0.08) + 0.9 * bool(rows), lines * (height * scale + 0.1) + 0.35 * bool(titles)
    figure, axes = plt.subplots(lines, columns, figsize=(size[0], size[1] + 0.35 * bool(title)), squeeze=False)
    for index, place in enumerate(axes.flat):
        place.set(xticks=[], yticks=[], frame_on=False)
        if index < count:
            place.imshow(shown[index, ..., 0] if channels == 1 else shown[index], cmap="gray", vmin=0, vmax=1)
    for place, text in zip(axes[0], titles, strict=False):
        place.set_title(text, fontsize=10)
    for place, text in zip(axes[:, 0], rows, strict=False):
        place.set_ylabel(text, rotation=0, ha="right", va="center")
        place.set_frame_on(False)
    if title:
        figure.suptitle(title)
    plt.show()
