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
from quality_report import CONTENDERS, Name, curves, document, grid, lines, pixels_of
from tqdm import tqdm

from ddpm_shared import command_line, datasets, files, images
from ddpm_shared import config as configs
from ddpm_shared.commands.interruption import Interrupted, StopSignals
from ddpm_shared.config import Dataset, Device, flag, require
from ddpm_shared.config.samplers import SAMPLER_FACTS, Spacing
from ddpm_shared.config.sampling import Draw, Sampling
from ddpm_shared.errors import UserError
from ddpm_shared.evaluation.extractor import DIMENSIONS, Extractor
from ddpm_shared.evaluation.judge import Judge
from ddpm_shared.images import Pixels
from ddpm_shared.machine import environment
from ddpm_shared.records import checkpoint
from ddpm_shared.records import folder as run_folders

Record = dict[str, Any]
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
    """Folder to write to."""

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
        return SAMPLER_FACTS[self.sampling.sampler].evaluations


# --- Drawing and judging ------------------------------------------------------------------------------------


def quality(options: Options) -> int:
    """Fill in the cells that are not there yet, and show all. Returns the exit code: 0, or 130 or 143 if interrupted.

    Raises:
        UserError: no such checkpoint, more steps than it was trained with, a folder with cells of other settings.
    """
    out = Path(options.out)
    loaded = checkpoint.load(run_folders.latest_checkpoint(Path(options.checkpoint)), ("ema",))
    # Those of few steps first, so that what an interruption leaves can be compared.
    keys = [(n, spacing, s) for s in sorted(options.steps) for spacing in options.spacings for n in options.samplers]
    cells = [Cell(*key) for key in dict.fromkeys(keys)]
    for cell in cells:
        cell.sampling.resolved(loaded.config.diffusion.timesteps)
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
    if found := configs.differences(report["settings"], settings):
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
    model, sampling = (importlib.import_module(f"ddpm_{options.framework}.{name}") for name in ("model", "sampling"))
    network = model.load(loaded, "ema", config)

    def make_sampler(network: Any, chosen: Sampling) -> Any:
        return sampling.Sampler(network, config, chosen)

    ready = make_sampler(network, cells[0].sampling)
    report["starts"].append({"warning": busy, "environment": environment(ready.device_name, ready.threads)})
    report["floor"] = report["floor"] or judge.floor(options.images)
    total = options.images * sum(cell.steps * cell.evaluations_a_step for cell in cells)
    with tqdm(total=total, unit="evaluation", unit_scale=True) as bar:
        for cell in cells:
            bar.set_description(cell.name)

            def on_step(count: int, each: int = cell.evaluations_a_step) -> None:
                bar.update(count * each)
                stop.check()

            pixels, facts = draw(make_sampler, network, cell.sampling, options, on_step)
            scores = judge.scores(judge.extractor(pixels))
            files.write_npz(out / "images" / f"{cell.name}.npz", images=pixels)
            report["cells"][cell.name] = (
                {"name": cell.name} | vars(cell) | facts | scores | {"start": len(report["starts"]) - 1}
            )
            files.write_json(out / "quality.json", report)


def draw(
    make_sampler: Callable[[Any, Sampling], Any],
    network: Any,
    sampling: Sampling,
    options: Options,
    on_step: Callable[[int], None],
) -> tuple[Pixels, Record]:
    """The images of one cell, the seconds for all, and how often the network was evaluated for each.

    make_sampler(network, sampling) is a tree's sampling.Sampler; on_step(size of the batch) is called after a step.
    """
    calls, number, size, seed = 0, options.images, options.batch_size, options.seed

    def counted(x_t: Any, t: Any) -> Any:
        nonlocal calls
        calls += 1
        return network(x_t, t)

    short = dataclasses.replace(sampling, steps=min(WARM_UP_STEPS, sampling.steps or WARM_UP_STEPS))
    make_sampler(network, short).draw(Draw(seed, 0, min(size, number)))
    sampler, drawn, began = make_sampler(counted, sampling), [], time.perf_counter()
    for first in range(0, number, size):
        count = min(size, number - first)
        watch = lambda i, x, count=count: on_step(count)  # noqa: E731
        drawn.append(sampler.draw(Draw(seed, first, count), watch))
    return np.concatenate(drawn), {"seconds": time.perf_counter() - began, "evaluations": calls // len(drawn)}


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


if __name__ == "__main__":
    command_line.guard(lambda: quality(tyro.cli(Options, prog="tests/benchmarks/quality.py")))
