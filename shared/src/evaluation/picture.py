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
from ddpm_shared.evaluation.records import Classes, ClassRecord, Evaluation
from ddpm_shared.images import Pixels
from ddpm_shared.pages import BLUE, VERMILION

SAMPLE, REAL = VERMILION, BLUE
SHOWN = 64  # images of a grid
SHOWN_OF_CLASS = 12
FRAME, WRONG = 2, VERMILION  # of an image that is taken for another class
MOST_CLASSES = 20  # of which there is a row or a bar; of more, the worst
MOST_LETTERS = 24  # of a class's name
MOST_PIXELS = 160  # height of a grid's images: larger ones are shown smaller

Score = Literal["fid", "kid", "kid_std", "inception_score", "precision", "recall", "density", "coverage"]
# The rows of the table: key, name, which way is better.
ROWS: tuple[tuple[Score, str, str], ...] = (
    ("fid", "Fréchet distance (FID)", "lower"),
    ("kid", "kernel distance (KID)", "lower"),
    ("kid_std", "    its spread", ""),
    ("inception_score", "inception score", "higher"),
    ("precision", "precision", "higher"),
    ("recall", "recall", "higher"),
    ("density", "density", "higher"),
    ("coverage", "coverage", "higher"),
)


def rows(evaluation: Evaluation) -> list[tuple[str, float | None, float | None, str]]:
    """The rows of the table: name, the images' number, the floor's, which way is better."""
    floor, histogram = evaluation["floor"], evaluation["class_histogram"]
    of = f", of {len(histogram)}" if histogram else ""
    return [
        (name + of if key == "inception_score" else name, evaluation[key], floor and floor[key], better)
        for key, name, better in ROWS
    ]


def worst(per_class: Sequence[ClassRecord], most: int) -> list[ClassRecord]:
    """Those classes, or the worst of more than `most`, in their order: of lowest accuracy, else of highest FID."""

    def rank(each: ClassRecord) -> tuple[float, float]:
        return (1.0 if each["accuracy"] is None else each["accuracy"], -(each["fid"] or 0.0))

    chosen = {each["label"] for each in sorted(per_class, key=rank)[:most]}
    return [each for each in per_class if each["label"] in chosen]


def percent(share: float | None) -> str:
    """A share in per cent, or "none"."""
    return "none" if share is None else f"{share:.1%}"


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
        samples: [N, H, W, C] uint8.
        real: the images that they were compared with.
        distances: [N] and [K], of the samples and of the test images to their nearest training images.
        nearest: [N, H, W, C], those training images.
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
        samples: [N, H, W, C] uint8.
        labels: [N], the classes asked for.
        seen: [N], those that the classifier takes the images for.
        names: of all classes, by label.
    """
    shown, samples = worst(classes["per_class"], MOST_CLASSES), _small(samples)
    height, width = (size + 2 * FRAME for size in samples.shape[1:3])
    canvas = np.full((len(shown), SHOWN_OF_CLASS, height, width, 3), 255, np.uint8)
    figure = Figure(figsize=(10, 0.8 + 0.72 * len(shown)), layout="constrained")
    axes = figure.subplots()
    for row, each in enumerate(shown):
        for column, index in enumerate(np.flatnonzero(labels == each["label"])[:SHOWN_OF_CLASS]):
            cell = canvas[row, column]
            if seen[index] != each["label"]:
                cell[:] = np.multiply(to_rgb(WRONG), 255)
                look: dict[str, Any] = {"fontsize": 6, "ha": "center", "color": "white", "backgroundcolor": WRONG}
                axes.text((column + 0.5) * width, (row + 1) * height - FRAME, names[seen[index]], **look)
            cell[FRAME:-FRAME, FRAME:-FRAME] = samples[index]
    axes.imshow(canvas.swapaxes(1, 2).reshape(len(shown) * height, SHOWN_OF_CLASS * width, 3))
    known = classes["accuracy"] is not None
    shares = [
        f"{each['name'][:MOST_LETTERS]}\n"
        + (f"{percent(each['accuracy'])} (real: {percent(each['floor']['accuracy'])})" if known else "")
        for each in shown
    ]
    axes.set_yticks((np.arange(len(shown)) + 0.5) * height, shares, fontsize=9)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    title = f"{len(samples):,} images by the class asked for"
    if known:
        title += f": {percent(classes['accuracy'])} are taken for it\nworst: {classes['worst']}. "
        title += "In a frame: taken for the class that is named there"
    if len(shown) < len(classes["per_class"]):
        title += f"\nthe {len(shown)} worst of {len(classes['per_class'])} classes"
    axes.set_title(title)
    return figure


def _show(axes: Axes, pixels: Pixels) -> None:
    grey: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 255}
    axes.imshow(pixels if pixels.shape[-1] == 3 else pixels[..., 0], **grey)
    axes.axis("off")


def _small(pixels: Pixels) -> Pixels:
    """Every second pixel of large images, or fewer: a figure shows no more."""
    step = -(-pixels.shape[1] // MOST_PIXELS)
    return pixels[:, ::step, ::step]


def _grid(axes: Axes, pixels: Pixels, title: str, colour: str) -> None:
    _show(axes, images.grid(_small(pixels)))
    axes.set_title(title, color=colour)


def _table(axes: Axes, evaluation: Evaluation) -> None:
    floor = evaluation["floor"]
    cells = [
        [name, *("none" if number is None else f"{number:.3g}" for number in numbers), better]
        for name, *numbers, better in rows(evaluation)
    ]
    heads = ["", "these", f"{floor['num_images']:,} real" if floor else "no floor", "better"]
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
    histogram = evaluation["class_histogram"]
    if histogram is None:
        axes.text(0.5, 0.5, f"no classes:\n{evaluation['features']}", ha="center", va="center")
        axes.axis("off")
        return
    names = real.class_names or [str(label) for label in range(len(histogram))]
    these = np.array(histogram) / evaluation["num_images"]
    labelled = np.bincount(real.labels, minlength=len(these)) / len(real.labels)
    chosen = np.sort(np.argsort(-np.abs(these - labelled), kind="stable")[:MOST_CLASSES])
    place = np.arange(len(chosen))
    shares = (
        (these, SAMPLE, "these, as classified", -0.2),
        (labelled, REAL, "real, as labelled", 0.2),
    )
    for share, colour, label, offset in shares:
        axes.barh(place + offset, 100 * share[chosen], 0.38, color=colour, label=label)
    axes.set_yticks(place, [names[label][:MOST_LETTERS] for label in chosen])
    axes.invert_yaxis()
    axes.set_xlabel("% of the images")
    differ = f": the {len(chosen)} of {len(these)} that differ most" if len(chosen) < len(these) else ""
    axes.set_title(f"classes{differ}")
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
    _show(axes, images.grid(_small(pairs), columns=8))
    axes.set_title("the most alike: image | training image")
