"""What does each network draw after the same minutes of training?

    .venv/bin/python tests/benchmarks/zoo.py
    .venv/bin/python tests/benchmarks/zoo.py train draw --networks dit --minutes 10

Every network is trained by the ordinary command, with the same settings and for as many minutes as --minutes says (its
number of steps follows from its speed on this machine, which has to be quiet), and draws the same images. Only the
score model's has a process of its own, since its Fourier features are made for times from 0 to 1. The two convolutions
are trained without the time and with it. What is finished is kept in --out, and the same command goes on after it.
Writes zoo.json, zoo.md and zoo.png, and fid.json for the passports of networks.
"""

import dataclasses
import importlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import tyro
from matplotlib.figure import Figure
from processes_cells import Framework
from score_transformer_report import blank_axes
from table import NOTHING, figure, markdown

from ddpm_shared import command_line, datasets, files, images
from ddpm_shared.config import PRESET_OF, Dataset, Precision, require
from ddpm_shared.config.checks import positive
from ddpm_shared.evaluation.extractor import DIMENSIONS
from ddpm_shared.evaluation.judge import Judge

Record = dict[str, Any]
Stage = Literal["train", "draw", "report"]
Entry = Literal["unet", "transformer_unet", "residual_unet", "simple_unet", "denoise_net", "denoise_net-time", "dit"]

STAGES, ENTRIES = get_args(Stage), get_args(Entry)
OWN: dict[Entry, list[str]] = {  # beside --network
    "transformer_unet": ["--process", "ve_exponential"],
    "denoise_net-time": ["--uses-time"],
}
SHOWN = 24  # images of each network in the picture
COLUMNS = 12


@dataclass(frozen=True)
class Options:
    """Train each network for the same time, draw, judge and show."""

    stages: tyro.conf.Positional[tuple[Stage, ...]] = STAGES
    """What to do (default: all)."""
    networks: tuple[Entry, ...] = ENTRIES
    """Which networks; denoise_net is the two convolutions without the time, denoise_net-time with it."""
    minutes: float = 10.0
    """Minutes of training for each network."""
    max_steps: int | None = None
    """Training steps instead of minutes."""
    sampler: str = "ddim"
    """Sampler of all networks."""
    steps: int = 50
    """Evaluations of the network for an image."""
    images: int = 1000
    """Images to judge; distances of sets of different size cannot be compared."""
    dataset: Dataset = "fashion-mnist"
    """Images to train with and to judge by."""
    framework: Framework = "torch"
    """Which tree."""
    precision: Precision = "bf16"
    """Of the network."""
    seed: int = 0
    """Of the training and of the drawing."""
    threads: int | None = None
    """CPU threads that one operation may use (default: one for each core)."""
    out: str = "runs/zoo"
    """Folder to write to."""

    def __post_init__(self) -> None:
        require(self.images >= DIMENSIONS, "--images", self.images, f"must be {DIMENSIONS} or more")
        positive(self, "minutes")

    def command(self, name: str) -> Any:
        """The main function of a command of the tree."""
        return importlib.import_module(f"ddpm_{self.framework}.{name}").main

    @property
    def machine(self) -> list[str]:
        """The flags about the machine."""
        return [] if self.threads is None else ["--threads", str(self.threads)]

    def run_of(self, entry: Entry) -> Path:
        """Its run folder."""
        return Path(self.out) / f"{self.framework}-{entry}"


def train(options: Options) -> int:
    """Train the networks that are not trained yet. Returns the exit code."""
    for entry in options.networks:
        run = options.run_of(entry)
        if _status(run) == "completed":
            continue
        if (run / "checkpoints" / "latest").is_file():
            code = options.command("train")(["--resume", str(run), *options.machine])
        else:
            told = ["--network", entry.partition("-")[0], *OWN.get(entry, []), "--dataset", options.dataset]
            limit = ["--minutes", f"{options.minutes:g}"]
            if options.max_steps:
                limit = ["--max-steps", str(options.max_steps), "--epochs", "100000"]
            told += [*limit, "--sample-every", "0", "--keep-checkpoints", "1", "--run-dir", str(run)]
            told += ["--precision", options.precision, "--seed", str(options.seed)]
            code = options.command("train")([*told, *options.machine])
        if code:
            return code
    return 0


def _status(run: Path) -> str | None:
    file = run / "metrics.json"
    return json.loads(file.read_text())["status"] if file.is_file() else None


def draw(options: Options) -> int:
    """Draw what is not drawn yet. Returns the exit code."""
    for entry in options.networks:
        out = options.run_of(entry) / "drawn"
        if (out / "grid.png").is_file():  # what the command writes last
            continue
        told = ["--checkpoint", str(options.run_of(entry)), "--sampler", options.sampler, "--steps", str(options.steps)]
        told += ["--num-images", str(options.images), "--batch-size", "100", "--out", str(out)]
        told += ["--precision", options.precision, "--seed", str(options.seed)]
        if code := options.command("inference")([*told, *options.machine]):
            return code
    return 0


def judged(options: Options) -> int:
    """Judge all that is finished, and show it. Returns 0."""
    out, judge, drawn = Path(options.out), Judge(*datasets.load(options.dataset)), {}
    found: dict[str, Record] = {}
    for entry in options.networks:
        if (archive := files.read_npz(options.run_of(entry) / "drawn" / "samples.npz")) is None:
            continue
        drawn[entry] = archive["images"]
        metrics = json.loads((options.run_of(entry) / "metrics.json").read_text())
        scores = judge.scores(judge.extractor(archive["images"]))
        found[entry] = {
            "network": entry.partition("-")[0],
            "parameters": metrics["parameters"],
            "final": metrics["final"],
            "scores": {key: scores[key] for key in ("fid", "precision", "recall")},
        }
    real = judge.floor(options.images)
    report: Record = {"networks": found, "floor": {key: real[key] for key in ("fid", "precision", "recall")}}
    report["settings"] = dataclasses.asdict(options)
    files.write_json(out / "zoo.json", report)
    presets = {PRESET_OF[entry]: each["scores"]["fid"] for entry, each in found.items() if entry in PRESET_OF}
    files.write_json(out / "fid.json", presets)
    text = document(report)
    files.write_atomically(out / "zoo.md", text.encode())
    if drawn:
        images.write_figure(out / "zoo.png", picture(drawn), dpi=100)
    print(f"{text}\n{out / 'zoo.md'}")
    return 0


def document(report: Record) -> str:
    """The table."""
    settings = report["settings"]
    trained = f"{settings['max_steps']} steps" if settings["max_steps"] else f"{settings['minutes']:g} minutes"
    rows = []
    for entry, found in report["networks"].items():
        final, scores = found["final"], found["scores"]
        losses = [figure(final.get(key), ".4f") for key in ("train_loss", "validation_loss")]
        judged = [figure(scores["fid"], ".1f"), figure(scores["precision"], ".2f"), figure(scores["recall"], ".2f")]
        rows.append([entry, f"{found['parameters']:,}", f"{final['step']:,}", *losses, *judged])
    floor = report["floor"]
    rows.append(
        ["real test images", *[NOTHING] * 4, *(figure(floor[k], ".2f") for k in ("fid", "precision", "recall"))]
    )
    columns = ["", "parameters", "steps", "training loss", "validation loss", "FID", "precision", "recall"]
    return "\n\n".join(
        [
            "# Networks after the same training",
            f"{settings['framework']}, {settings['precision']}, {settings['dataset']}, {trained} each, seed "
            f"{settings['seed']}; {settings['images']:,} images by {settings['sampler']} in {settings['steps']} steps:",
            markdown(columns, rows),
            "",
        ]
    )


def picture(drawn: dict[Entry, Any]) -> Figure:
    """Two rows of images of each network."""
    shown = Figure(figsize=(7.2, 1.15 * len(drawn)), layout="constrained")
    for axes, (entry, pixels) in zip(shown.subplots(len(drawn), 1, squeeze=False)[:, 0], drawn.items(), strict=True):
        blank_axes(axes, pixels[:SHOWN], COLUMNS)
        axes.set_ylabel(entry, rotation=0, ha="right", va="center")
    return shown


def run(options: Options) -> int:
    """The stages that were asked for, in their order. Returns the exit code."""
    work = {"train": train, "draw": draw, "report": judged}
    for stage in STAGES:
        if stage in options.stages and (code := work[stage](options)):
            return code
    return 0


if __name__ == "__main__":
    command_line.guard(lambda: run(tyro.cli(Options, prog="tests/benchmarks/zoo.py")))
