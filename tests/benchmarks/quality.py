"""How good are the images of each sampler at each number of steps, and how long do they take?

    .venv/bin/python tests/benchmarks/quality.py
    .venv/bin/python tests/benchmarks/quality.py --samplers ddim dpmpp_2m --steps 5 10 --spacings leading trailing

Every cell, a sampler at a number of steps, draws the same images of one seed, and the shipped judge compares them with
real ones. What is finished is kept in --out: the same command goes on from there, and other samplers, steps and
spacings join it. Writes quality.json, quality.md, quality.png (distances) and quality-grid.png (images).
"""

import dataclasses
import importlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import machine
import numpy as np
import tyro
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator
from table import figure, markdown
from tqdm import tqdm

from ddpm_shared import checkpoint, cli, datasets, files, images, runs
from ddpm_shared.config import Dataset, Device, flag, require
from ddpm_shared.errors import UserError
from ddpm_shared.evaluation.extractor import DIMENSIONS, Extractor
from ddpm_shared.evaluation.judge import Judge
from ddpm_shared.images import Pixels
from ddpm_shared.interruption import Interrupted, StopSignals
from ddpm_shared.samplers import SAMPLERS, Sampling, Spacing

Record = dict[str, Any]
Name = Literal["ancestral", "ddim", "ddim-eta-1", "plms", "dpmpp_2m", "dpmpp_2m_sde", "heun"]

CONTENDERS: dict[Name, tuple[str, Sampling, str, str]] = {  # label, sampling, colour (Okabe and Ito 2008), marker
    "ancestral": ("ancestral", Sampling("ancestral"), "#000000", "o"),
    "ddim": ("ddim", Sampling("ddim"), "#0072B2", "s"),
    "ddim-eta-1": ("ddim, eta 1", Sampling("ddim", eta=1.0), "#56B4E9", "D"),
    "plms": ("plms", Sampling("plms"), "#009E73", "^"),
    "dpmpp_2m": ("dpmpp_2m", Sampling("dpmpp_2m"), "#D55E00", "v"),
    "dpmpp_2m_sde": ("dpmpp_2m_sde", Sampling("dpmpp_2m_sde"), "#E69F00", "P"),
    "heun": ("heun", Sampling("heun"), "#CC79A7", "X"),
}
LINES: dict[Spacing, str] = {"trailing": "-", "leading": "-.", "linspace": ":"}
SHOWN_STEPS, SHOWN_IMAGES = (5, 10, 20, 50), 6  # of quality-grid.png
WARM_UP_STEPS = 2
WHAT_TO_RUN = ("samplers", "steps", "spacings", "out")  # a cell depends on all other options


@dataclass(frozen=True)
class Options:
    """Draw, judge and time; print the tables, write them, and draw."""

    checkpoint: str = "tests/parity/trained.safetensors"
    """A .safetensors file, of which the averaged weights are used, or a run folder (its newest checkpoint)."""
    images: int = 500
    """Images a cell; distances of sets of different size cannot be compared."""
    steps: tuple[int, ...] = (5, 10, 20, 50, 100, 250, 1000)
    """Numbers of steps."""
    samplers: tuple[Name, ...] = get_args(Name)
    """Which samplers."""
    spacings: tuple[Spacing, ...] = ("trailing",)
    """Which of the times fewer steps visit."""
    seed: int = 0
    """Of the noise, which is the same for all cells."""
    batch_size: int = 100
    """Images at once."""
    framework: Literal["torch", "tf"] = "torch"
    """Whose samplers."""
    device: Device = "auto"
    """auto takes the GPU if there is one."""
    threads: int | None = None
    """CPU threads that one operation may use (default: one for each core)."""
    dataset: Dataset = "auto"
    """The real images: the full Fashion-MNIST, its subset in the package, or (auto) the full set if it can be had."""
    out: str = "runs/quality"
    """Where to write."""

    def __post_init__(self) -> None:
        for name, least in (("images", DIMENSIONS), ("batch_size", 1), ("seed", 0)):  # the judge's features
            require(getattr(self, name) >= least, flag(name), getattr(self, name), f"must be {least} or more")
        for name in ("steps", "samplers", "spacings"):
            require(bool(getattr(self, name)), flag(name), "nothing", "must be one or more")


@dataclass(frozen=True)
class Cell:
    """What one set of images is drawn by."""

    sampler: Name
    spacing: Spacing
    steps: int

    @property
    def name(self) -> str:
        """Its key in quality.json, and its images' file."""
        return f"{self.sampler}-{self.spacing}-{self.steps}"

    @property
    def sampling(self) -> Sampling:
        """How to draw it."""
        return dataclasses.replace(CONTENDERS[self.sampler][1], steps=self.steps, spacing=self.spacing)

    @property
    def evaluations_a_step(self) -> int:
        """Of the network; the first or the last step may need another number."""
        return SAMPLERS[self.sampling.sampler].evaluations


# --- Drawing and judging ------------------------------------------------------------------------------------


def quality(options: Options) -> int:
    """Fill in the cells that are not there yet, and show all. Returns the exit code: 0, or 130 or 143 if interrupted.

    Raises:
        UserError: no such checkpoint, more steps than it was trained with, a folder with cells of other settings.
    """
    path, out = Path(options.checkpoint), Path(options.out)
    loaded = checkpoint.load(path if path.is_file() else runs.latest_checkpoint(path), ("ema",))
    # Those of few steps first, so that what an interruption leaves can be compared.
    keys = [(n, spacing, s) for s in sorted(options.steps) for spacing in options.spacings for n in options.samplers]
    cells = [Cell(*key) for key in dict.fromkeys(keys)]
    for cell in cells:
        cell.sampling.over(loaded.config.diffusion.timesteps)
    splits, extractor = datasets.load(options.dataset), Extractor()
    settings = {name: value for name, value in vars(options).items() if name not in WHAT_TO_RUN}
    settings |= {"checkpoint": loaded.sha256, "dataset": splits[0].record, "extractor": extractor.sha256}
    report = opened(out, settings)
    if todo := [cell for cell in cells if cell.name not in report["cells"]]:
        try:
            with StopSignals() as stop:
                measure(report, todo, loaded, Judge(*splits, extractor=extractor), options, stop)
        except Interrupted:
            kept = f"interrupted; {len(report['cells'])} finished cells are kept"
            print(f"{kept}: the same command goes on after them", file=sys.stderr)
            return stop.exit_code
    add_distances(report, out)
    files.write_json(out / "quality.json", report)
    text = document(report)
    files.write_atomically(out / "quality.md", text.encode())
    images.write_figure(out / "quality.png", curves(report))
    images.write_figure(out / "quality-grid.png", grid(report, out), dpi=150)
    print(f"{text}\n{out / 'quality.md'}, {out / 'quality.png'}, {out / 'quality-grid.png'}")
    return 0


def opened(out: Path, settings: Record) -> Record:
    """The report in the folder, or an empty one. Raises UserError if its cells are of other settings."""
    file = out / "quality.json"
    if not file.is_file():
        return {"settings": settings, "floor": None, "starts": [], "cells": {}}
    report: Record = json.loads(file.read_text())
    if found := cli.config_differences(report["settings"], settings):
        told = "; ".join(f"{name} was {old!r}, now {new!r}" for name, (old, new) in found.items())
        raise UserError(f"{file} holds cells of other settings ({told}): choose another --out")
    return report


def measure(
    report: Record, cells: list[Cell], loaded: checkpoint.Checkpoint, judge: Judge, options: Options, stop: StopSignals
) -> None:
    """Draw, time and judge `cells`; each joins the report and its file when it is finished."""
    out = Path(options.out)
    if busy := machine.require_quiet(machine.watch(), anyway=True):
        print(f"warning: {busy}", file=sys.stderr)
    where = {"precision": "fp32", "device": options.device, "threads": options.threads, "compile": False}
    config = dataclasses.replace(loaded.config, **where)
    tree = importlib.import_module(f"ddpm_{options.framework}.sampling")
    ready = tree.Loaded(cli.NetworkPlan(options.framework, cli.NetworkCommand(), loaded, config, "ema", out))
    report["starts"].append({"warning": busy, "environment": runs.environment(ready.device_name, ready.threads)})
    report["floor"] = report["floor"] or judge.floor(options.images)
    total = options.images * sum(cell.steps * cell.evaluations_a_step for cell in cells)
    with tqdm(total=total, unit="evaluation", unit_scale=True) as bar:
        for cell in cells:
            bar.set_description(cell.name)

            def on_step(count: int, each: int = cell.evaluations_a_step) -> None:
                bar.update(count * each)
                stop.check()

            pixels, facts = draw(tree, ready, cell.sampling, options, on_step)
            scores = judge.scores(judge.extractor(pixels))
            files.write_npz(out / "images" / f"{cell.name}.npz", images=pixels)
            report["cells"][cell.name] = (
                {"name": cell.name} | vars(cell) | facts | scores | {"start": len(report["starts"]) - 1}
            )
            files.write_json(out / "quality.json", report)


def draw(
    tree: Any, ready: Any, sampling: Sampling, options: Options, on_step: Callable[[int], None]
) -> tuple[Pixels, Record]:
    """The images of one cell, the seconds for all, and how often the network was asked for each.

    `tree` is ddpm_torch.sampling or ddpm_tf.sampling, and `ready` its Loaded; on_step(size of the batch) after a step.
    """
    calls, number, size, seed = 0, options.images, options.batch_size, options.seed

    def network(x_t: Any, t: Any) -> Any:
        nonlocal calls
        calls += 1
        return ready.network(x_t, t)

    short = dataclasses.replace(sampling, steps=min(WARM_UP_STEPS, sampling.steps or WARM_UP_STEPS))
    tree.sample(ready.network, ready.config, short, seed, min(size, number))
    drawn, began = [], time.perf_counter()
    for first in range(0, number, size):
        count = min(size, number - first)
        watch = lambda i, x, count=count: on_step(count)  # noqa: E731
        drawn.append(tree.sample(network, ready.config, sampling, seed, count, first, watch))
    return np.concatenate(drawn), {"seconds": time.perf_counter() - began, "evaluations": calls // len(drawn)}


def pixels_of(out: Path, name: str) -> Pixels:
    """The images of a finished cell. Raises UserError where they are no more."""
    file = out / "images" / f"{name}.npz"
    if (found := files.read_npz(file)) is None:
        raise UserError(f"the images of a finished cell are not in {file}: choose another --out")
    return found["images"]


def add_distances(report: Record, out: Path) -> None:
    """How far each cell's images are from those of its sampler with the most steps, as "rms_to_most_steps".

    The root of the mean squared difference of pixels, of which black and white are -1 and 1; rounding to 256 levels
    alone makes 0.003. None for a sampler that draws noise on the way: with other steps that is other noise.
    """
    for line in lines(report).values():
        noisy, most = CONTENDERS[line[0]["sampler"]][1].noisy, pixels_of(out, line[-1]["name"]) / 127.5
        for cell in line:
            square = (pixels_of(out, cell["name"]) / 127.5 - most) ** 2
            cell["rms_to_most_steps"] = None if noisy else float(np.sqrt(square.mean()))


# --- Showing ------------------------------------------------------------------------------------------------


def lines(report: Record) -> dict[str, list[Record]]:
    """What a sampler is called -> its cells, those of few steps first; with several spacings, a line for each."""
    cells = sorted(report["cells"].values(), key=lambda cell: cell["steps"])
    spacings = [spacing for spacing in LINES if spacing in {cell["spacing"] for cell in cells}]
    found = {}
    for name, (label, *_) in CONTENDERS.items():
        for spacing in spacings:
            line = [cell for cell in cells if (cell["sampler"], cell["spacing"]) == (name, spacing)]
            found[f"{label}, {spacing}" if len(spacings) > 1 else label] = line
    return {label: line for label, line in found.items() if line}


def steps_of(report: Record) -> list[int]:
    """All numbers of steps that any sampler took."""
    return sorted({cell["steps"] for cell in report["cells"].values()})


def document(report: Record) -> str:
    """The tables in Markdown, padded so that they read in a terminal too."""
    floor, steps, settings, ran = report["floor"], steps_of(report), report["settings"], report["starts"][-1]
    real, environment = settings["dataset"], ran["environment"]

    def table(key: str, form: str) -> str:
        values = {label: {cell["steps"]: cell[key] for cell in line} for label, line in lines(report).items()}
        rows = [[label, *(figure(found.get(n), form) for n in steps)] for label, found in values.items()]
        return markdown(["steps", *map(str, steps)], [row for row in rows if {*row[1:]} != {"-"}])

    return "\n\n".join(
        [
            "# Samplers by the number of their steps",
            f"{settings['images']} images of each, seed {settings['seed']}, {settings['framework']} on "
            f"{environment['device']}, {environment['threads']} threads; commit {environment['git_commit']}.",
            *(f"**Warning:** {each['warning']}." for each in report["starts"] if each["warning"]),
            f"Fréchet distance to the {real['num_images']:,} training images of {real['name']}, by the shipped judge; "
            f"the floor, that of {floor['num_images']:,} real test images, is {floor['fid_fashion']:.2f}:",
            table("fid_fashion", ".2f"),
            "Seconds for all images:",
            table("seconds", ".1f"),
            "Root mean squared difference to the images of the same sampler with the most steps, where black and white "
            "are -1 and 1; only of samplers that draw no noise on the way:",
            table("rms_to_most_steps", ".3f"),
            "",
        ]
    )


def curves(report: Record) -> Figure:
    """Fréchet distance over steps, and over evaluations of the network, of which a step of Heun's takes two."""
    picture, floor, ticks = Figure(figsize=(12, 5.4), layout="constrained"), report["floor"], steps_of(report)
    panels = picture.subplots(1, 2, sharey=True)
    for axes, key in zip(panels, ("steps", "evaluations"), strict=True):
        for label, line in lines(report).items():
            _, _, colour, marker = CONTENDERS[name := line[0]["sampler"]]
            x, y = ([cell[what] for cell in line] for what in (key, "fid_fashion"))
            drawn = axes.loglog(x, y, LINES[line[0]["spacing"]], color=colour, marker=marker, label=label)
            # ddim with eta 1 draws what ancestral does, and lies upon it.
            drawn[0].set(markersize=10, linewidth=3) if name == "ancestral" else drawn[0].set(markersize=7)
        told = f"floor: {floor['num_images']:,} real images"
        axes.axhline(floor["fid_fashion"], color="0.35", linestyle="--", label=told)
        axes.set_xticks(ticks, [str(n) for n in ticks])
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.minorticks_off()
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelleft=True)
    panels[0].set(xlabel="steps", ylabel="Fréchet distance")
    panels[1].set(xlabel="evaluations of the network, for an image")
    picture.suptitle(f"{report['settings']['images']} images of each sampler beside real ones: lower is better")
    picture.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    return picture


def grid(report: Record, out: Path) -> Figure:
    """The same first images by every sampler, a row each, at some numbers of steps, a group of columns each."""
    found, steps = lines(report), steps_of(report)
    shown = [n for n in SHOWN_STEPS if n in steps] or steps[: len(SHOWN_STEPS)]
    picture = Figure(figsize=(1.5 + 2.7 * len(shown), 0.4 + 0.5 * len(found)), layout="constrained")
    panels = picture.subplots(len(found), len(shown), squeeze=False)
    for row, (label, line) in zip(panels, found.items(), strict=True):
        for axes, n in zip(row, shown, strict=True):
            for cell in [cell for cell in line if cell["steps"] == n]:
                first = images.grid(pixels_of(out, cell["name"])[:SHOWN_IMAGES], SHOWN_IMAGES, scale=1, gap=1)
                axes.imshow(first[..., 0], cmap="gray", vmin=0, vmax=255)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        row[0].set_ylabel(label, rotation=0, ha="right", va="center")
    for axes, n in zip(panels[0], shown, strict=True):
        axes.set_title(f"{n} steps", fontsize="medium")
    return picture


if __name__ == "__main__":
    cli.guard(lambda: quality(tyro.cli(Options, prog="tests/benchmarks/quality.py")))
