"""How good do other people's models get on Fashion-MNIST in the same time, on the same machine, by the same judge?

    .venv/bin/python tests/benchmarks/yardsticks.py                 # on a quiet machine: 20 minutes of training each
    .venv/bin/python tests/benchmarks/yardsticks.py --yardsticks diffusers --steps 1000 --threads 1

Each of them trains as its users would, in batches of 128 and float32, on the full training split; others.py says what
is theirs and what was chosen. In doubt the choice is in their favour: no horizontal flips, which the examples of both
have, for the judge's real shoes all point to the left. What is finished is kept in --out, and what was begun goes on
where it was. Writes yardsticks.json, yardsticks.md, and samples.npz and grid.png of each.
"""

import contextlib
import importlib.metadata
import io
import json
import math
import pickle
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import machine
import numpy as np
import peers
import torch
import tyro
from others import RECIPES, Name
from table import figure, markdown
from tqdm import tqdm

from ddpm_shared import command_line, datasets, files, images
from ddpm_shared import config as configs
from ddpm_shared.commands.interruption import Interrupted, StopSignals
from ddpm_shared.config import Dataset, flag, require
from ddpm_shared.errors import UserError
from ddpm_shared.evaluation.extractor import DIMENSIONS, Extractor
from ddpm_shared.evaluation.judge import Judge
from ddpm_shared.images import Pixels
from ddpm_shared.machine import environment
from ddpm_torch import data

Record = dict[str, Any]

BATCH, DRAWN_AT_ONCE, SHOWN = 128, 100, 64
WARM_UP_STEPS, TIMED_STEPS = 3, 20
SAVE_EVERY = 200  # steps
COUNTERS = ("step", "training_s", "sampling_s")


@dataclass(frozen=True)
class Options:
    """Train other people's models, draw from them and judge; print the table and write it."""

    yardsticks: tuple[Name, ...] = get_args(Name)
    """Whose models."""
    minutes: float = 20.0
    """Training time of each, at the speed that is measured before it begins; the machine should be quiet then."""
    steps: int | None = None
    """Training steps instead, e.g. as many as a quiet machine would make, on one that is not; nothing is measured."""
    images: int = 2000
    """Images to draw and judge; distances of sets of different size cannot be compared."""
    seed: int = 0
    """Of weights, batches and noise."""
    threads: int | None = None
    """CPU threads that one operation may use (default: one for each core)."""
    dataset: Dataset = "auto"
    """What they learn and are judged by: the full Fashion-MNIST, its subset in the package, or (auto) what is there."""
    out: str = "runs/yardsticks"
    """Folder to write to."""

    def __post_init__(self) -> None:
        require(bool(self.yardsticks), "--yardsticks", "nothing", "must be one or more")
        require(0 < self.minutes < math.inf, "--minutes", self.minutes, "must be more than 0")
        for name, least in (("steps", 1), ("images", DIMENSIONS), ("seed", 0), ("threads", 1)):  # the judge's features
            value = getattr(self, name)
            require(value is None or value >= least, flag(name), value, f"must be {least} or more")

    @property
    def asked(self) -> str:
        """For how long to train, as the user said it."""
        return f"--minutes {self.minutes:g}" if self.steps is None else f"--steps {self.steps}"


# --- Training and drawing -----------------------------------------------------------------------------------


class Training:
    """A yardstick on its way, and all that an interrupted one needs to go on.

    Args:
        name: whose.
        pixels: the training images, [N, 28, 28, 1] uint8.
        seed: of all that is random; the batches have a generator of their own and are the same for all yardsticks.
    """

    def __init__(self, name: Name, pixels: Pixels, seed: int) -> None:
        from diffusers.training_utils import EMAModel

        torch.manual_seed(seed)
        self.name, self.pixels, self.recipe = name, pixels, RECIPES[name]()
        self.weights = list(self.recipe.net.parameters())
        self.optimizer = torch.optim.AdamW(self.weights, lr=self.recipe.learning_rate)
        self.ema = EMAModel(self.weights, **self.recipe.average)
        self.batches = torch.Generator().manual_seed(seed)
        self.step, self.training_s, self.sampling_s = 0, 0.0, 0.0
        self.drawn = pixels[:0]

    def advance(self) -> float:
        """One step; returns the loss. Raises UserError if it is not finite."""
        began = time.perf_counter()
        chosen = torch.randint(len(self.pixels), (BATCH,), generator=self.batches)
        loss = self.recipe.loss(data.to_images(self.pixels[chosen.numpy()], torch.float32))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.ema.step(self.weights)
        self.step += 1
        self.training_s += time.perf_counter() - began
        if not math.isfinite(value := loss.item()):
            raise UserError(f"the loss of {self.name} is {value} at step {self.step}: try another --seed")
        return value

    def draw(self, count: int, stop: StopSignals, bar: "tqdm[Any]") -> None:
        """Draw `count` more images with the averaged weights. Raises Interrupted, and UserError if not finite."""
        began = time.perf_counter()
        with self._averaged():
            for x in self.recipe.denoise(count):
                if not bool(torch.isfinite(x).all()):
                    raise UserError(f"the images of {self.name} are not finite: try more --steps or another --seed")
                bar.update(count)
                stop.check()
        self.drawn = np.concatenate([self.drawn, data.to_pixels(x)])
        self.sampling_s += time.perf_counter() - began

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[None]:
        self.ema.store(self.weights)
        self.ema.copy_to(self.weights)
        self.recipe.net.eval()
        try:
            yield
        finally:
            self.ema.restore(self.weights)
            self.recipe.net.train()

    def describe(self) -> Record:
        """What was done, for the report."""
        recipe = self.recipe
        return {
            "parameters": sum(p.numel() for p in self.weights),
            "learning_rate": recipe.learning_rate,
            "average": recipe.average,
            "steps": self.step,
            "images_seen": self.step * BATCH,
            "training_min": self.training_s / 60,
            "sampler": recipe.sampler,
            "sampling_steps": recipe.sampling_steps,
            "sampling_min": self.sampling_s / 60,
            "versions": {package: importlib.metadata.version(package) for package in recipe.packages},
        }

    def save(self, file: Path) -> None:
        """Write all state, atomically."""
        parts = {name: getattr(self, name) for name in COUNTERS}
        parts |= {name: part.state_dict() for name, part in self._parts()}
        parts |= {"batches": self.batches.get_state(), "noise": torch.get_rng_state()}
        parts["drawn"] = torch.from_numpy(self.drawn)
        torch.save(parts, buffer := io.BytesIO())
        files.write_atomically(file, buffer.getvalue())

    def load(self, file: Path) -> None:
        """Go on from what `save` wrote. Raises UserError where it is damaged."""
        try:
            parts = torch.load(file, weights_only=True)
        except (RuntimeError, ValueError, EOFError, pickle.UnpicklingError):
            raise UserError(f"{file} is damaged: remove it to train {self.name} anew") from None
        vars(self).update({name: parts[name] for name in COUNTERS}, drawn=parts["drawn"].numpy())
        for name, part in self._parts():
            part.load_state_dict(parts[name])
        self.batches.set_state(parts["batches"])
        torch.set_rng_state(parts["noise"])

    def _parts(self) -> list[tuple[str, Any]]:
        return [("net", self.recipe.net), ("optimizer", self.optimizer), ("ema", self.ema)]


def speed(training: Training, stop: StopSignals) -> float:
    """Steps a second. Raises Interrupted."""
    seconds = []
    for _ in tqdm(range(WARM_UP_STEPS + TIMED_STEPS), desc=f"{training.name}, how fast", unit="step", leave=False):
        stop.check()
        before = training.training_s
        training.advance()
        seconds.append(training.training_s - before)
    return TIMED_STEPS / sum(seconds[WARM_UP_STEPS:])


def plan(name: Name, options: Options, pixels: Pixels, stop: StopSignals) -> Record:
    """How many steps, and where the number is from."""
    if options.steps is not None:
        return {"asked": options.asked, "planned_steps": options.steps, "measured": None}
    if busy := machine.require_quiet(machine.watch(), anyway=True):
        print(f"warning: {busy}", file=sys.stderr)
    rate = speed(Training(name, pixels, options.seed), stop)
    measured = {"steps_per_s": rate, "images_per_s": rate * BATCH, "threads": torch.get_num_threads(), "warning": busy}
    steps = max(1, round(options.minutes * 60 * rate))
    return {"asked": options.asked, "planned_steps": steps, "measured": measured}


def train(training: Training, steps: int, state: Path, stop: StopSignals) -> None:
    """Train to the end, or until a signal; saved either way. Raises Interrupted."""
    with tqdm(total=steps, initial=training.step, desc=f"{training.name}, training", unit="step") as bar:
        while training.step < steps and stop.received is None:
            bar.set_postfix_str(f"loss {training.advance():.4f}", refresh=False)
            bar.update()
            if training.step % SAVE_EVERY == 0:
                training.save(state)
    training.save(state)
    stop.check()


def draw(training: Training, number: int, state: Path, stop: StopSignals) -> None:
    """Draw what is missing; each finished batch is saved. Raises Interrupted."""
    total, done = (count * training.recipe.sampling_steps for count in (number, len(training.drawn)))
    with tqdm(total=total, initial=done, desc=f"{training.name}, sampling", unit="evaluation", unit_scale=True) as bar:
        while (missing := number - len(training.drawn)) > 0:
            training.draw(min(missing, DRAWN_AT_ONCE), stop, bar)
            training.save(state)


# --- All of them, and the report ----------------------------------------------------------------------------


def yardsticks(options: Options) -> int:
    """Finish what is not finished, and show all. Returns the exit code: 0, or 130 or 143 if interrupted.

    Raises:
        UserError: a peer that is not installed, a folder with results of other settings, a run that diverged.
    """
    out = Path(options.out)
    splits, extractor = datasets.load(options.dataset), Extractor()
    settings: Record = {"images": options.images, "seed": options.seed, "batch_size": BATCH}
    settings |= {"dataset": splits[0].record, "extractor": extractor.sha256}
    found = opened(out, settings)["yardsticks"]
    for name in options.yardsticks:
        if name in found and found[name]["asked"] != options.asked:
            raise UserError(f"{name} in {out} is for {found[name]['asked']}, not {options.asked}: choose another --out")
    todo = [name for name in options.yardsticks if "num_images" not in found.get(name, {})]
    if "smalldiffusion" in todo and not (peers.INSTALLED / "smalldiffusion").is_dir():
        raise UserError(f"{peers.INSTALLED} does not hold smalldiffusion: `make bench-peers` installs it")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    if todo:
        try:
            with StopSignals() as stop:
                judge = Judge(*splits, extractor=extractor)
                for name in dict.fromkeys(todo):
                    measure(name, options, settings, judge, stop)
        except Interrupted:
            print("interrupted; what was trained and drawn is kept: the same command goes on there", file=sys.stderr)
            return stop.exit_code
    text = document(opened(out, settings))
    files.write_atomically(out / "yardsticks.md", text.encode())
    print(f"{text}\n{out / 'yardsticks.md'}, and grid.png in the folder of each")
    return 0


def opened(out: Path, settings: Record) -> Record:
    """The report in the folder, or an empty one. Raises UserError if its results are of other settings."""
    file = out / "yardsticks.json"
    if not file.is_file():
        return {"settings": settings, "machine": machine.describe(), "floor": None, "yardsticks": {}}
    report: Record = json.loads(file.read_text())
    if found := configs.differences(report["settings"], settings):
        told = "; ".join(f"{name} was {old!r}, now {new!r}" for name, (old, new) in found.items())
        raise UserError(f"{file} holds results of other settings ({told}): choose another --out")
    return report


def measure(name: Name, options: Options, settings: Record, judge: Judge, stop: StopSignals) -> None:
    """Train, draw and judge, from wherever the folder has it; the report's file gets it. Raises Interrupted."""
    out, pixels = Path(options.out), judge.train.images
    state = out / name / "state.pt"

    def keep(record: Record) -> None:
        report = opened(out, settings)  # again: another command may have added its yardstick meanwhile
        report["floor"] = report["floor"] or judge.floor(options.images)
        report["yardsticks"][name] = record
        files.write_json(out / "yardsticks.json", report)

    record = opened(out, settings)["yardsticks"].get(name) or plan(name, options, pixels, stop)
    keep(record)
    training = Training(name, pixels, options.seed)
    if state.is_file():
        training.load(state)
    train(training, record["planned_steps"], state, stop)
    draw(training, options.images, state, stop)
    files.write_npz(out / name / "samples.npz", images=training.drawn)
    images.write_png(out / name / "grid.png", images.grid(training.drawn[:SHOWN]))
    record |= training.describe() | judge.scores(judge.extractor(training.drawn))
    keep(record | {"environment": environment("cpu", torch.get_num_threads())})


COLUMNS: tuple[tuple[str, str, str], ...] = (  # title, key, format
    ("parameters", "parameters", ",d"),
    ("steps", "steps", ",d"),
    ("images seen", "images_seen", ",d"),
    ("training, min", "training_min", ".1f"),
    ("sampling steps", "sampling_steps", "d"),
    ("sampling, min", "sampling_min", ".1f"),
    ("Fréchet distance", "fid_fashion", ".2f"),
    ("kernel distance", "kid_fashion", ".4f"),
    ("inception score", "inception_score_fashion", ".2f"),
    ("precision", "precision", ".3f"),
    ("recall", "recall", ".3f"),
    ("density", "density", ".3f"),
    ("coverage", "coverage", ".3f"),
)


def document(report: Record) -> str:
    """The table in Markdown, padded so that it reads in a terminal too, and below it where each row is from."""
    settings, about, floor = report["settings"], report["machine"], report["floor"]
    found, real = report["yardsticks"], settings["dataset"]
    rows: dict[str, Record] = {name: found[name] for name in RECIPES if "num_images" in found.get(name, {})}
    shown = rows | {f"{floor['num_images']:,} real test images: the floor": floor}
    table = [[name, *(figure(one.get(key), form) for _, key, form in COLUMNS)] for name, one in shown.items()]
    return "\n\n".join(
        [
            "# Other people's models, trained here",
            f"{settings['images']:,} images of each, beside the {real['num_images']:,} training images of "
            f"{real['name']}, by the shipped judge. Batches of {settings['batch_size']}, float32, seed "
            f"{settings['seed']}; {about['cpu']}, {about['cores']} cores.",
            markdown(["", *(title for title, _, _ in COLUMNS)], table),
            "\n".join(f"- {origin(name, one)}" for name, one in rows.items()),
            "",
        ]
    )


def origin(name: str, record: Record) -> str:
    """What decided how long the yardstick trained, and what else the table leaves out."""
    measured, threads = record["measured"], record["environment"]["threads"]
    how = f"{record['asked']}; {threads} of the cores"
    if measured:
        how = f"{record['asked']}, {measured['images_per_s']:.1f} images/s on {measured['threads']} of the cores"
        how += f" (**{measured['warning']}**)" if measured["warning"] else ""
    versions = ", ".join(f"{package} {version}" for package, version in record["versions"].items())
    return f"{name}: {how}; {record['sampler']}; {versions}; commit {record['environment']['git_commit']}"


if __name__ == "__main__":
    command_line.guard(lambda: yardsticks(tyro.cli(Options, prog="tests/benchmarks/yardsticks.py")))
