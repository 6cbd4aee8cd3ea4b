"""demo.html: one self-contained page that opens from disk, in the style of compare's report.html."""

import io
from datetime import UTC, datetime
from typing import TypedDict

import numpy as np
from PIL import Image, ImageFilter, ImageSequence

from ddpm_shared import images, pages
from ddpm_shared.commands.sample import GRID_IMAGES
from ddpm_shared.compare import charts, report, sample_grids, verdict
from ddpm_shared.compare.records import PixelDifference
from ddpm_shared.config.samplers import SAMPLER_FACTS
from ddpm_shared.demo.folder import REPORT, Demo
from ddpm_shared.evaluation.picture import ROWS, Score, rows
from ddpm_shared.evaluation.records import Evaluation
from ddpm_shared.images import Pixels

# The largest difference, in grey levels of 255, of images that are called the same: a value half-way between two
# levels is rounded up in one framework and down in the other. And of almost the same: hardly to be seen.
ROUNDING, FAINT = 1, 8

FEW = 16  # images of the grids of what was trained here
DOT = 9  # screen pixels: what differs is to be seen on a telephone
STRIP_FRAMES, STRIP_ROWS = 8, 4

# The question that each number of the judge answers; docs/evaluation.md explains more.
QUESTIONS: dict[Score, str] = {
    "fid": "Are mean and spread of the features those of real images? Small sets are never at 0.",
    "kid": "The same, more finely, and fair to small sets: real images are at about 0.",
    "inception_score": "Is the classifier sure of each image, and are all ten classes there?",
    "precision": "The share of the images that lie where real ones do.",
    "recall": "The share of the real images that lie where drawn ones do.",
    "density": "As precision, but counting how many real neighbours an image has; 1 is usual.",
    "coverage": "The share of the real images with a drawn one close by.",
}


class Sameness(TypedDict):
    """How alike two sets of images are, in words."""

    tone: str
    kind: str
    title: str


class ScoreRow(TypedDict):
    """A row of the judge's table."""

    name: str
    value: float | None
    floor: float | None
    better: str
    question: str


def render(demo: Demo) -> str:
    """The page."""
    boxed, trained = demo.boxed, demo.trained
    apart, _ = sample_grids.difference(boxed.torch, boxed.tensorflow)
    apart_trained, _ = sample_grids.difference(trained.torch, trained.tensorflow)
    torch, tensorflow = (images.grid(pixels[:GRID_IMAGES]) for pixels in (boxed.torch, boxed.tensorflow))
    shown, amplified = sample_grids.difference(torch, tensorflow)
    frames = gif_frames(demo.gif)
    pictures = {
        "torch": torch,
        "tensorflow": tensorflow,
        "difference": dots(amplified),
        "strip": strip(frames, images.grid(boxed.torch[:1]).shape[1]),
        "few": images.grid(boxed.torch[:FEW]),
        "trained_torch": images.grid(trained.torch[:FEW]),
        "trained_tensorflow": images.grid(trained.tensorflow[:FEW]),
    }
    template = pages.templates("ddpm_shared.demo", "ddpm_shared.compare", gap=verdict.gap).get_template("demo.html.j2")
    return template.render(
        now=datetime.now(UTC).isoformat(timespec="seconds"),
        sameness=sameness(apart),
        apart=apart,
        apart_trained=apart_trained,
        amplification=shown["amplification"],
        count=len(boxed.torch),
        shown=min(len(boxed.torch), GRID_IMAGES),
        count_trained=len(trained.torch),
        few=FEW,
        origin=boxed.origin,
        sampler=SAMPLER_FACTS[boxed.origin["sampler"]].title,
        pictures={name: pages.png_uri(pixels) for name, pixels in pictures.items()},
        gif=pages.data_uri(demo.gif, "gif"),
        frames=len(frames),
        strip=(STRIP_ROWS, STRIP_FRAMES),
        judged=demo.evaluation,
        scores=scores(demo.evaluation),
        comparison=demo.comparison,
        pair=demo.comparison["pairs"][0],
        figures=report.figures(demo.comparison, charts.curves(demo.runs)),
        environments=[run.metrics["environment"] for run in demo.runs],
        report=REPORT,
        kinds=verdict.KINDS,
        tones=report.TONES,
        fastest=max(run["images_per_s"] or 0.0 for run in demo.comparison["runs"]),
    )


def sameness(apart: PixelDifference) -> Sameness:
    """How alike images are whose pixels differ so much, in words."""
    largest = apart["largest_difference"]
    if largest == 0:
        return {"tone": "good", "kind": "equal to the last pixel", "title": "the very same images"}
    if largest <= ROUNDING:
        return {"tone": "good", "kind": "equal to rounding", "title": "the same images"}
    if largest <= FAINT:
        return {"tone": "doubt", "kind": "more than rounding, if faint", "title": "almost the same images"}
    return {"tone": "bad", "kind": "more than rounding", "title": "but not the same images"}


def scores(evaluation: Evaluation) -> list[ScoreRow]:
    """The rows of the judge's table."""
    return [
        {"name": name, "value": value, "floor": floor, "better": better, "question": QUESTIONS[key]}
        for (key, *_), (name, value, floor, better) in zip(ROWS, rows(evaluation), strict=True)
        if key in QUESTIONS
    ]


def dots(grid: Pixels) -> Pixels:
    """The largest difference of each pixel's channels as a square of DOT x DOT, [height, width, 1]."""
    grown = Image.fromarray(grid.max(axis=-1)).filter(ImageFilter.MaxFilter(DOT))
    return np.asarray(grown)[..., np.newaxis]


def gif_frames(gif: bytes) -> list[Pixels]:
    """The frames of a GIF, [height, width, C] each; C is 1 if all of them are grey."""
    with Image.open(io.BytesIO(gif)) as moving:
        frames = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(moving)]
    grey = all((frame == frame[..., :1]).all() for frame in frames)
    return [frame[..., :1] if grey else frame for frame in frames]


def strip(frames: list[Pixels], width: int) -> Pixels:
    """Some frames of a GIF side by side, of each the leftmost images, one below the other; more of the late frames.

    Args:
        frames: grids of images.grid, the first pure noise and the last the images.
        width: of a grid of one image, its margins included.
    """
    chosen = ((len(frames) - 1) * np.sqrt(np.linspace(0, 1, STRIP_FRAMES))).round().astype(int)
    inner = width - images.GAP  # neighbours share a margin
    rows = STRIP_ROWS * inner + images.GAP
    columns = [frames[index][:rows, :inner] for index in chosen]
    return np.concatenate([*columns, frames[-1][:rows, : images.GAP]], axis=1)
