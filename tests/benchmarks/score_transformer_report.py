"""What score_transformer.py found, as Markdown and as pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure
from table import NOTHING, figure, markdown

from ddpm_shared import files, images
from ddpm_shared.images import Pixels

Record = dict[str, Any]
Data = Literal["fashion", "digits"]

STEPS = (10, 25, 50, 100, 250, 500, 1000)
PER_CLASS = 6  # images of a class in the picture of the classes


@dataclass(frozen=True)
class Model:
    """What is trained."""

    data: Data
    sigma: float
    tokens: int

    @property
    def name(self) -> str:
        """Its run folder."""
        return f"{self.data}-s{self.sigma:g}" + (f"-tokens{self.tokens}" if self.tokens > 1 else "")

    @property
    def title(self) -> str:
        """Its row."""
        return f"s = {self.sigma:g}" + (f", {self.tokens} tokens" if self.tokens > 1 else "")


def document(report: Record) -> str:
    """The tables."""
    settings = report["settings"]
    clipped = "clipped" if settings["clip"] else "not clipped"
    parts = [
        "# The conditional score model",
        f"{settings['framework']}, {settings['precision']}, {settings['train_steps']:,} training steps, seed "
        f"{settings['seed']}; {settings['images']} images of all classes in {settings['steps']} steps of "
        f"Euler-Maruyama, x_0 {clipped}:",
        quality_table(report),
        "The prior's mismatch, |mean image| / std(1):",
        prior_table(report["prior"]),
        "",
    ]
    return "\n\n".join(parts)


def quality_table(report: Record) -> str:
    """A row for each model, and one for real images of each data set."""
    columns = {"FID": ("fid", ".1f"), "class accuracy": ("accuracy", ".3f"), "precision": ("precision", ".3f")}
    columns |= {"recall": ("recall", ".3f")}

    def row(title: str, found: Record) -> list[str]:
        final = found.get("final", {})
        losses = [figure(final.get(key), ".4f") for key in ("train_loss", "validation_loss")]
        return [title, *losses, *(figure(found.get(key), form) for key, form in columns.values())]

    rows = [row(f"{found['data']}, {found['title']}", found) for found in report["models"].values()]
    rows += [row(f"{data}, real test images", found) for data, found in report["floors"].items()]
    return markdown(["", "training loss", "validation loss", *columns], rows)


def prior_table(found: list[Record]) -> str:
    """Std(1), and the mismatch in both scalings of the pixels."""
    rows = [
        [f"{each['data']}, s = {each['sigma']:g}", *(f"{each[k]:.2f}" for k in ("deviation", "symmetric", "unit"))]
        for each in found
    ]
    return markdown(["", "std(1)", "pixels in [-1, 1]", "pixels in [0, 1]"], rows or [[NOTHING] * 4])


def blank_axes(axes: Any, pixels: Pixels, columns: int) -> None:
    """Show a grid of images without a frame."""
    canvas = images.grid(pixels, columns, scale=2, gap=2)[..., 0]
    axes.imshow(canvas, cmap="gray", vmin=0, vmax=255, interpolation="none")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def classes_picture(out: Path, models: Sequence[Model], names: Sequence[str], suffix: str) -> Figure | None:
    """A panel for each model, a row in it for each class; of the images in the folders all + suffix."""
    sets = {}
    for model in models:
        if drawn := files.read_npz(out / model.name / f"all{suffix}" / "samples.npz"):
            classes = np.unique(drawn["labels"])
            rows = [np.flatnonzero(drawn["labels"] == label)[:PER_CLASS] for label in classes]
            sets[model.title] = drawn["images"][np.concatenate(rows)]
    if not sets:
        return None
    picture = Figure(figsize=(0.9 + 2.6 * len(sets), 3.7), layout="constrained")
    panels = picture.subplots(1, len(sets), squeeze=False)[0]
    for axes, (title, pixels) in zip(panels, sets.items(), strict=True):
        blank_axes(axes, pixels, PER_CLASS)
        axes.set_title(title, fontsize="medium")
    side = images.grid(next(iter(sets.values())), PER_CLASS, scale=2, gap=2).shape[0]
    panels[0].set_yticks((np.arange(len(names)) + 0.5) * side / len(names), names)
    panels[0].tick_params(length=0)
    return picture


def steps_picture(out: Path, models: Sequence[Model], suffix: str) -> Figure | None:
    """A row for each model, a column for each number of steps: one class, from the same noise at the start."""
    found = {}
    for model in models:
        sets = [files.read_npz(out / model.name / f"steps-{n}{suffix}" / "samples.npz") for n in STEPS]
        if None not in sets:
            found[model.title] = [drawn["images"] for drawn in sets]
    if not found:
        return None
    picture = Figure(figsize=(0.8 + 1.25 * len(STEPS), 0.3 + 1.3 * len(found)), layout="constrained")
    panels = picture.subplots(len(found), len(STEPS), squeeze=False)
    for axes, n in zip(panels[0], STEPS, strict=True):
        axes.set_title(f"{n} steps", fontsize="medium")
    for row, (title, sets) in zip(panels, found.items(), strict=True):
        for axes, pixels in zip(row, sets, strict=True):
            blank_axes(axes, pixels, 2)
        row[0].set_ylabel(title)
    return picture
