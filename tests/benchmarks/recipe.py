"""Which way of training gives the best images for 20 minutes of this machine? One change at a time.

    .venv/bin/python tests/benchmarks/recipe.py speed                        # on a quiet machine: how many steps fit
    .venv/bin/python tests/benchmarks/recipe.py train                        # all of them, one after the other
    .venv/bin/python tests/benchmarks/recipe.py train --names v cosine --seeds 0 1 --threads 1
    .venv/bin/python tests/benchmarks/recipe.py report

`speed` settles how many steps each recipe gets: as many as the machine, when quiet, makes in --minutes. The training
may therefore run beside something else, e.g. two of them in one thread each. All goes through the ordinary commands;
what is finished is kept in --out, and the same command goes on after it. `report` judges the images of the averaged
weights and of the weights themselves, and writes recipe.json, recipe.md and recipe.png.
"""

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import machine
import tyro
from matplotlib.figure import Figure
from table import markdown

from ddpm_shared import command_line, datasets, files, images
from ddpm_shared.commands import train as train_command
from ddpm_shared.config import flag, require
from ddpm_shared.errors import choice
from ddpm_shared.evaluation.extractor import DIMENSIONS
from ddpm_shared.evaluation.judge import Judge
from ddpm_shared.pages import BLUE, VERMILION

Record = dict[str, Any]

# Complete, so that it stays what it was when a default changes.
REFERENCE: dict[str, Any] = {
    "preset": "base",
    "num_res_blocks": 1,
    "precision": "bf16",
    "batch_size": 128,
    "learning_rate": 1e-3,
    "warmup_steps": 300,
    "learning_rate_decay": "linear",
    "decay_start": 0.3,
    "final_learning_rate": 0.02,
    "ema_decay": 0.999,
    "schedule": "linear",
    "prediction": "eps",
    "loss_weighting": "simple",
}
CHANGES: dict[str, Record] = {
    "reference": {},
    "2 blocks": {"num_res_blocks": 2},
    "48 channels": {"base_channels": 48},
    "v": {"prediction": "v"},
    "x_0, min-SNR": {"prediction": "x_0", "loss_weighting": "min_snr"},
    "min-SNR": {"loss_weighting": "min_snr"},
    "cosine betas": {"schedule": "cosine"},
    "rate 2e-3": {"learning_rate": 2e-3},
    "rate 5e-4": {"learning_rate": 5e-4},
    "rate 2e-4, constant": {"learning_rate": 2e-4, "learning_rate_decay": "none"},
    "cosine decay": {"learning_rate_decay": "cosine", "decay_start": 0.0},
    "EMA 0.9995": {"ema_decay": 0.9995},
    "EMA 0.995": {"ema_decay": 0.995},
    "batch 64": {"batch_size": 64},
    "no warm-up": {"warmup_steps": 0},
    "mirrored": {"horizontal_flip": True},
    "float32": {"precision": "fp32"},
}
WEIGHTS = {"averaged": [], "raw": ["--raw"]}


@dataclass(frozen=True)
class Options:
    """Train by many recipes for equally long, and judge what they draw."""

    stage: tyro.conf.Positional[Literal["speed", "train", "report"]]
    """What to do: settle the number of steps, train, or judge and report."""
    names: tuple[str, ...] = tuple(CHANGES)
    """Which recipes."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the training runs."""
    minutes: float = 20.0
    """How long a recipe may train."""
    images: int = 2000
    """Images to judge."""
    threads: int | None = None
    """CPU threads that one operation may use (default: one for each core)."""
    out: str = "runs/recipe"
    """Folder to write to."""

    def __post_init__(self) -> None:
        for name in self.names:
            choice("recipe", name, tuple(CHANGES))
        require(0 < self.minutes < float("inf"), "--minutes", self.minutes, "must be positive")
        require(self.images >= DIMENSIONS, "--images", self.images, f"must be {DIMENSIONS} or more")


def flags(name: str) -> list[str]:
    """The flags of a recipe."""
    told: list[str] = []
    for key, value in (REFERENCE | CHANGES[name]).items():
        told += [flag(key)] if value is True else [flag(key), str(value)]
    return told


def folder(options: Options, name: str, seed: int) -> Path:
    """The run folder of a recipe."""
    return Path(options.out) / f"{name.replace(' ', '_').replace(',', '')}-{seed}"


# --- The stages ---------------------------------------------------------------------------------------------


def speed(options: Options, report: Record) -> int:
    """Write into recipe.json how many steps each recipe makes in the time given."""
    from ddpm_torch.learner import Learner

    machine.require_quiet(machine.watch(), anyway=False)
    split = datasets.load("auto")[0]
    for name in options.names:
        config = train_command.parse("torch", [*flags(name), "--run-dir", "nowhere"]).config
        learner = Learner(config, config.training.num_steps(len(split.images)))
        steps = train_command.with_length(options.minutes, config, learner, split).training.max_steps
        report["steps"][name] = {"steps": steps, "minutes": options.minutes, "parameters": learner.num_parameters}
        files.write_json(Path(options.out) / "recipe.json", report)
    return 0


def train(options: Options, report: Record) -> int:
    """Train by each recipe with each seed, and draw."""
    from ddpm_torch import inference
    from ddpm_torch import train as command

    threads = [] if options.threads is None else ["--threads", str(options.threads)]
    for seed in options.seeds:
        for name in options.names:
            require(name in report["steps"], "train", name, "`speed` must settle its steps first")
            run = folder(options, name, seed)
            if (run / "checkpoints" / "latest").is_file():
                code = command.main(["--resume", str(run), *threads])
            else:
                length = ["--epochs", "1000", "--max-steps", str(report["steps"][name]["steps"])]
                rest = ["--sample-every", "0", "--validation-images", "2000", "--keep-checkpoints", "1"]
                code = command.main(
                    [*flags(name), *length, *rest, "--seed", str(seed), "--run-dir", str(run), *threads]
                )
            for weights, more in WEIGHTS.items():
                out = run / weights
                if code == 0 and not (out / "samples.npz").is_file():
                    told = ["--checkpoint", str(run), "--num-images", str(options.images), "--batch-size", "100", *more]
                    drawn = [*told, "--sampler", "dpmpp_2m_sde", "--precision", "bf16", "--out", str(out), *threads]
                    code = inference.main(drawn)
            if code:
                return code
    return 0


def judged(options: Options, report: Record) -> int:
    """Judge all that is finished, and show it."""
    out = Path(options.out)
    judge = Judge(*datasets.load("auto"))
    report |= {"floor": judge.floor(options.images), "runs": {}}
    for name in options.names:
        finished = {}
        for seed in options.seeds:
            run = folder(options, name, seed)
            drawn = {weights: files.read_npz(run / weights / "samples.npz") for weights in WEIGHTS}
            if None in drawn.values():
                continue
            metrics = json.loads((run / "metrics.json").read_text())
            scores = {weights: judge.scores(judge.extractor(found["images"])) for weights, found in drawn.items()}
            finished[str(seed)] = scores | {key: metrics[key] for key in ("final", "environment")}
        if finished:
            report["runs"][name] = finished
    files.write_json(out / "recipe.json", report)
    text = document(report)
    files.write_atomically(out / "recipe.md", text.encode())
    images.write_figure(out / "recipe.png", chart(report))
    print(f"{text}\n{out / 'recipe.md'}, {out / 'recipe.png'}")
    return 0


def mean(found: Record, weights: str, key: str) -> float:
    """Of a recipe's runs."""
    return statistics.mean(each[weights][key] for each in found.values())


def ranked(report: Record) -> list[tuple[str, Record]]:
    """The recipes with their runs, the best first."""
    return sorted(report["runs"].items(), key=lambda item: mean(item[1], "averaged", "fid_fashion"))


def document(report: Record) -> str:
    """The table."""
    header = ["recipe", "parameters", "steps", "seeds", "FID", "FID, raw weights", "KID", "precision", "recall"]
    rest = ("kid_fashion", "precision", "recall")
    rows = []
    for name, found in ranked(report):
        steps = report["steps"][name]
        fids = ", ".join(f"{each['averaged']['fid_fashion']:.3g}" for each in found.values())
        told = [name, f"{steps['parameters']:,}", f"{steps['steps']:,}", ", ".join(found), fids]
        shown = [mean(found, "raw", "fid_fashion"), *(mean(found, "averaged", key) for key in rest)]
        rows.append([*told, *(f"{value:.3g}" for value in shown)])
    floor = report["floor"]
    rows.append(["floor", "", "", "", f"{floor['fid_fashion']:.3g}", "", *(f"{floor[key]:.3g}" for key in rest)])
    return markdown(header, rows)


def chart(report: Record) -> Figure:
    """Fréchet distance of every run, the best recipe on top."""
    order = ranked(report)
    picture = Figure(figsize=(8, 1.5 + 0.32 * len(order)), layout="constrained")
    axes = picture.subplots()
    for weights, marker, colour in (("averaged", "o", BLUE), ("raw", "x", VERMILION)):
        points = [(each[weights]["fid_fashion"], y) for y, (_, found) in enumerate(order) for each in found.values()]
        axes.plot(*zip(*points, strict=True), marker, color=colour, label=f"{weights} weights")
    axes.axvline(report["floor"]["fid_fashion"], color="0.35", linestyle="--", label="floor: real images")
    axes.set_yticks(range(len(order)), [name for name, _ in order])
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel="Fréchet distance (fashion features)", title="One change at a time")
    axes.grid(axis="x", which="both", color="0.9")
    axes.legend()
    return picture


def run(options: Options) -> int:
    """The stage that was asked for. Returns the exit code."""
    file = Path(options.out) / "recipe.json"
    report = json.loads(file.read_text()) if file.is_file() else {"steps": {}}
    return {"speed": speed, "train": train, "report": judged}[options.stage](options, report)


if __name__ == "__main__":
    command_line.guard(lambda: run(tyro.cli(Options, prog="tests/benchmarks/recipe.py")))
