"""Draw docs/duet.png, the picture at the head of the README, from what `make demo` left in a folder.

    python shared/tools/draw_cover.py runs/demo/<utc>

The first images that either framework drew with the model in the package, and the losses of the two trainings.
"""

from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ddpm_shared import command_line, images
from ddpm_shared.compare import charts, sample_grids
from ddpm_shared.demo import folder
from ddpm_shared.frameworks import FRAMEWORKS
from ddpm_shared.images import Pixels
from ddpm_shared.pages import BLUE, VERMILION

NUM_IMAGES, COLUMNS = 64, 8


@dataclass(frozen=True)
class Options:
    """Draw the README's picture."""

    demo: tyro.conf.Positional[str]
    """The folder of a demo."""
    out: str = "docs/duet.png"
    """Where to write."""


def cover(demo: folder.Demo) -> Figure:
    """The figure."""
    boxed = demo.boxed
    with mpl.rc_context({"font.size": 11}):
        figure = Figure((11, 4.1), layout="constrained")
        left, right, curve = figure.subplots(1, 3, width_ratios=(1.4, 1.4, 1.6))
        show(left, boxed.torch[:NUM_IMAGES], FRAMEWORKS["torch"].title, BLUE)
        show(right, boxed.tensorflow[:NUM_IMAGES], FRAMEWORKS["tensorflow"].title, VERMILION)
        charts.draw_values(curve, charts.curves(demo.runs).loss, "Two trainings, one curve", "loss of a step")
        apart, _ = sample_grids.difference(boxed.torch, boxed.tensorflow)
        figure.supxlabel(
            f"One model drew {len(boxed.torch)} images in both frameworks: {apart['differing_pixels']:,} of "
            f"{boxed.torch.size:,} pixels differ, by {apart['largest_difference']} of 255 at most.",
            fontsize=11,
        )
    return figure


def show(axes: Axes, pixels: Pixels, title: str, colour: str) -> None:
    """A grid of images."""
    axes.imshow(images.grid(pixels, COLUMNS)[..., 0], cmap="gray", vmin=0, vmax=255)
    axes.set_title(title, color=colour, fontweight="bold")
    axes.set_axis_off()


def main(options: Options) -> int:
    """Write the picture. Returns the exit code; raises UserError where the demo is not whole."""
    figure = cover(folder.read(Path(options.demo)))
    figure.savefig(options.out, dpi=160)
    print(options.out)
    return 0


if __name__ == "__main__":
    command_line.guard(lambda: main(tyro.cli(Options, prog="shared/tools/draw_cover.py")))
