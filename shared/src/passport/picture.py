"""The same drawing as PNG, by matplotlib."""

import io
from pathlib import Path
from typing import Any

from PIL import Image

from ddpm_shared import files, images
from ddpm_shared.passport.layout import WIDTH, Box, Drawing
from ddpm_shared.passport.svg import LIGHT as COLOURS

DPI = 160  # 890 pixels across
COLOURS_OF_A_PALETTE = 64
POINTS = 72.0  # an inch; a unit of the layout is a point


def write(path: Path, drawing: Drawing) -> None:
    """Write the drawing of layout.draw as a PNG file, atomically."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH / POINTS, drawing.height / POINTS), facecolor=COLOURS["ground"])
    figure.set_layout_engine("none")  # whatever the user's matplotlib does by default
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_xlim(0.0, WIDTH)
    axes.set_ylim(drawing.height, 0.0)
    axes.axis("off")
    _text(axes, 14, 23, drawing.title, 15.0, weight="bold")
    _text(axes, 14, 41, drawing.subtitle, 10.0, colour="faint")
    for band in drawing.bands:
        _rectangle(axes, 4, band.y, WIDTH - 8, band.height, 8, COLOURS["band"], "none")
        _text(axes, 12, band.y + 15, band.text, 10.0, colour="faint")
    for corners in drawing.arrows:
        _arrow(axes, corners)
    for start, edge, end in drawing.bridges:
        _bridge(axes, start, edge, end)
    for (x, y), text in drawing.notes:
        _text(axes, x, y, text, 10.0, "center", "faint")
    for (x, y), tone, text in drawing.legend:
        _rectangle(axes, x, y - 10, 16, 12, 3, COLOURS[tone], COLOURS[f"{tone}-edge"])
        _text(axes, x + 21, y, text, 9.0, colour="faint")
    for (x, y), text in drawing.footer:
        _text(axes, x, y, text, 9.0, colour="faint")
    for box in drawing.boxes:
        _box(axes, box)
    buffer = io.BytesIO()
    images.save_literally(figure, buffer, format="png", dpi=DPI)
    small = io.BytesIO()
    with Image.open(buffer) as picture:  # flat colours and letters: a palette makes a third of the file
        picture.convert("RGB").quantize(COLOURS_OF_A_PALETTE, dither=Image.Dither.NONE).save(
            small, "PNG", optimize=True
        )
    files.write_atomically(path, small.getvalue())


def _box(axes: Any, box: Box) -> None:
    from matplotlib.patches import Circle

    edge = COLOURS[f"{box.tone}-edge"]
    _rectangle(axes, box.x, box.y, box.width, box.height, 7, COLOURS[box.tone], edge)
    _text(axes, box.x + 9, box.y + 16, box.title, 10.5, weight="bold")
    for row, line in enumerate(box.lines):
        _text(axes, box.x + 9, box.y + 31 + 14 * row, line, 9.5, colour="faint")
    right = box.x + box.width - 12
    for shown, letter, tone in ((box.time, "t", "time"), (box.attention, "A", "attention")):
        if shown:
            colours = {"facecolor": COLOURS[tone], "edgecolor": COLOURS[f"{tone}-edge"]}
            axes.add_patch(Circle((right, box.y), 8.5, linewidth=1.2, zorder=4, **colours))
            _text(axes, right, box.y + 4, letter, 9.5, "center", weight="bold")
            right -= 20


def _rectangle(axes: Any, x: float, y: float, width: float, height: float, corner: float, face: str, edge: str) -> None:
    from matplotlib.patches import FancyBboxPatch

    style = f"round,pad=0,rounding_size={corner}"
    axes.add_patch(FancyBboxPatch((x, y), width, height, style, facecolor=face, edgecolor=edge, linewidth=1.1))


def _text(
    axes: Any, x: float, y: float, text: str, size: float, align: str = "left", colour: str = "text", **more: Any
) -> None:
    axes.text(x, y, text, fontsize=size, ha=align, va="baseline", color=COLOURS[colour], zorder=5, **more)


def _arrow(axes: Any, corners: list[tuple[float, float]]) -> None:
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path as Line

    style = "-|>,head_length=4,head_width=2.2"
    axes.add_patch(
        FancyArrowPatch(path=Line(corners), arrowstyle=style, color=COLOURS["line"], linewidth=1.1, zorder=1)
    )


def _bridge(axes: Any, start: tuple[float, float], edge: tuple[float, float], end: tuple[float, float]) -> None:
    from matplotlib.patches import Circle, PathPatch
    from matplotlib.path import Path as Line

    half = (start[0] + edge[0]) / 2
    corners = [start, (half, start[1]), (half, edge[1]), edge, end]
    line = Line(corners, [Line.MOVETO, Line.CURVE4, Line.CURVE4, Line.CURVE4, Line.LINETO])
    colour = COLOURS["bridge"]
    axes.add_patch(PathPatch(line, fill=False, edgecolor=colour, linewidth=1.5, linestyle=(0, (4, 2)), zorder=2))
    axes.add_patch(Circle(end, 3.5, color=colour, zorder=3))
