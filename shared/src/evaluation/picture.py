"""evaluation.png: the samples, real images, every number beside its floor, and the nearest training images.

classes.png, where classes were asked for: a row of images of each.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ddpm_shared import images
from ddpm_shared.datasets import Split
from ddpm_shared.evaluation.records import Classes, Evaluation
from ddpm_shared.images import Pixels
from ddpm_shared.pages import BLUE, VERMILION

SAMPLE, REAL = VERMILION, BLUE
SHOWN = 64  # images of a grid
SHOWN_OF_CLASS = 12
FRAME, WRONG = 2, VERMILION  # of an image that is taken for another class

Score = Literal[
    "fid_fashion",
    "kid_fashion",
    "kid_fashion_std",
    "inception_score_fashion",
    "precision",
    "recall",
    "density",
    "coverage",
]
# The rows of the table: key, name, which way is better.
ROWS: tuple[tuple[Score, str, str], ...] = (
    ("fid_fashion", "Fréchet distance (FID)", "lower"),
    ("kid_fashion", "kernel distance (KID)", "lower"),
    ("kid_fashion_std", "    its spread", ""),
    ("inception_score_fashion", "inception score, of 10", "higher"),
    ("precision", "precision", "higher"),
    ("recall", "recall", "higher"),
    ("density", "density", "higher"),
    ("coverage", "coverage", "higher"),
)


def draw(
    evaluation: Evaluation,
    samples: Pixels,
    real: Split,
    distances: tuple[NDArray[np.float64], NDArray[np.float64]],
    nearest: Pixels,
) -> Figure:
    """The picture.

    Args:
        evaluation: as in evaluation.json.
        samples: [N, 28, 28, 1] uint8.
        real: the images that they were compared with.
        distances: [N] and [K], of the samples and of the test images to their nearest training images.
        nearest: [N, 28, 28, 1], those training images.
    """
    figure = Figure(figsize=(13.5, 9.6), layout="constrained")
    figure.suptitle(
        f"{evaluation['num_images']:,} images against {len(real.images):,}, the {real.split} split of {real.name}\n"
        f"seen through {evaluation['feature_space']}",
        fontsize=12,
    )
    axes = figure.subplots(2, 3)
    _grid(axes[0, 0], samples[:SHOWN], "the images", SAMPLE)
    _grid(axes[0, 1], real.images[:SHOWN], f"real images, {real.split} split", REAL)
    _table(axes[0, 2], evaluation)
    _classes(axes[1, 0], evaluation, real)
    _distances(axes[1, 1], *distances)
    _pairs(axes[1, 2], samples, nearest, distances[0])
    if evaluation["notes"]:
        figure.supxlabel("\n".join(evaluation["notes"]), fontsize=11, fontweight="bold")
    return figure


def draw_classes(
    classes: Classes, samples: Pixels, labels: NDArray[np.int64], seen: NDArray[np.int64], names: Sequence[str]
) -> Figure:
    """classes.png: a row of images of each class that was asked for, those taken for another class in a frame.

    Args:
        classes: as in evaluation.json.
        samples: [N, 28, 28, 1] uint8.
        labels: [N], the classes asked for.
        seen: [N], those that the classifier takes the images for.
        names: of all classes, by label.
    """
    rows, side = classes["per_class"], samples.shape[1] + 2 * FRAME
    canvas = np.full((len(rows), SHOWN_OF_CLASS, side, side, 3), 255, np.uint8)
    figure = Figure(figsize=(10, 0.8 + 0.72 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for row, each in enumerate(rows):
        for column, index in enumerate(np.flatnonzero(labels == each["label"])[:SHOWN_OF_CLASS]):
            cell = canvas[row, column]
            if seen[index] != each["label"]:
                cell[:] = np.multiply(to_rgb(WRONG), 255)
                look: dict[str, Any] = {"fontsize": 6, "ha": "center", "color": "white", "backgroundcolor": WRONG}
                axes.text((column + 0.5) * side, (row + 1) * side - FRAME, names[seen[index]], **look)
            cell[FRAME:-FRAME, FRAME:-FRAME] = samples[index]
    axes.imshow(canvas.swapaxes(1, 2).reshape(len(rows) * side, SHOWN_OF_CLASS * side, 3))
    shares = [f"{each['name']}\n{each['accuracy']:.1%} (real: {each['floor']['accuracy']:.1%})" for each in rows]
    axes.set_yticks((np.arange(len(rows)) + 0.5) * side, shares, fontsize=9)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(
        f"{len(samples):,} images by the class asked for: {classes['accuracy']:.1%} are taken for it\n"
        f"worst: {classes['worst']}. In a frame: taken for the class that is named there"
    )
    return figure


def _show(axes: Axes, pixels: Pixels) -> None:
    axes.imshow(pixels[..., 0], cmap="gray", vmin=0, vmax=255)
    axes.axis("off")


def _grid(axes: Axes, pixels: Pixels, title: str, colour: str) -> None:
    _show(axes, images.grid(pixels))
    axes.set_title(title, color=colour)


def _table(axes: Axes, evaluation: Evaluation) -> None:
    floor = evaluation["floor"]
    cells = [[name, f"{evaluation[key]:.3g}", f"{floor[key]:.3g}", better] for key, name, better in ROWS]
    heads = ["", "these", f"{floor['num_images']:,} real", "better"]
    table = axes.table(cells, colLabels=heads, loc="center", cellLoc="right", colWidths=[0.4, 0.23, 0.23, 0.14])
    table.auto_set_font_size(False)
    table.set_fontsize(9)
    table.scale(1, 1.7)
    for (row, column), cell in table.get_celld().items():
        cell.set_edgecolor("#dddddd")
        cell.get_text().set_color({(0, 1): SAMPLE, (0, 2): REAL}.get((row, column), "black"))
        if column == 0:
            cell.get_text().set_horizontalalignment("left")
    axes.axis("off")
    axes.set_title("the numbers, and their floor")


def _classes(axes: Axes, evaluation: Evaluation, real: Split) -> None:
    place = np.arange(len(real.class_names))
    shares = (
        (np.array(evaluation["class_histogram"]) / evaluation["num_images"], SAMPLE, "these, as classified", -0.2),
        (np.bincount(real.labels, minlength=len(place)) / len(real.labels), REAL, "real, as labelled", 0.2),
    )
    for share, colour, label, offset in shares:
        axes.barh(place + offset, 100 * share, 0.38, color=colour, label=label)
    axes.set_yticks(place, real.class_names)
    axes.invert_yaxis()
    axes.set_xlabel("% of the images")
    axes.set_title("classes")
    axes.legend(fontsize=8)


def _distances(axes: Axes, of_samples: NDArray[np.float64], of_test: NDArray[np.float64]) -> None:
    bins = np.linspace(0, max(of_samples.max(), np.quantile(of_test, 0.999)), 60)
    for distance, colour, label in ((of_samples, SAMPLE, "these"), (of_test, REAL, "test images")):
        axes.hist(distance, bins.tolist(), density=True, histtype="step", linewidth=1.6, color=colour, label=label)
    axes.set_xlabel("root-mean-square difference to the nearest training image, grey levels")
    axes.set_yticks([])
    axes.set_title("copied? distances to the training images")
    axes.legend(fontsize=8)


def _pairs(axes: Axes, samples: Pixels, nearest: Pixels, distance: NDArray[np.float64]) -> None:
    """The samples that are nearest to a training image in every other column, and that image to their right."""
    closest = np.argsort(distance, kind="stable")[: SHOWN // 2]
    pairs = np.stack([samples[closest], nearest[closest]], axis=1).reshape(-1, *samples.shape[1:])
    _show(axes, images.grid(pairs, columns=8))
    axes.set_title("the most alike: image | training image")
