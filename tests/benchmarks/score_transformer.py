"""What does the conditional score model of --preset score-transformer draw, by its sigma, its steps and its tokens?

    .venv/bin/python tests/benchmarks/score_transformer.py prior
    .venv/bin/python tests/benchmarks/score_transformer.py --threads 1
    .venv/bin/python tests/benchmarks/score_transformer.py --data digits --sigmas 25 --context-tokens 1 2

Every model is trained for as many steps, by the ordinary command, and draws by Euler-Maruyama: --images images of all
classes in --steps steps, to be judged and shown, and one class in each number of steps of STEPS. `prior` says how far
the mean image is from the noise that the drawing begins with. What is finished is kept in --out, and the same command
goes on after it. Writes score_transformer.json, score_transformer.md, and for each data set a picture of the classes
and one of the steps.

The digits are any four IDX files in --digits; their judge is trained once by
`make judge ARGS="--dataset idx --data-dir DIR"`, and without it they are drawn and not judged.
"""

import importlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import tyro
from processes_cells import Framework
from score_transformer_report import (
    STEPS,
    Data,
    Model,
    Record,
    classes_picture,
    document,
    prior_table,
    steps_picture,
)

from ddpm_shared import command_line, datasets, files, images
from ddpm_shared.config import Precision, require
from ddpm_shared.datasets import Split
from ddpm_shared.errors import UserError
from ddpm_shared.evaluation.extractor import DIMENSIONS
from ddpm_shared.evaluation.judge import Judge, accuracy
from ddpm_shared.images import Pixels

Stage = Literal["prior", "train", "draw", "report"]

STAGES, DATA = get_args(Stage), get_args(Data)
OF_STEPS = 4  # images of each number of steps


@dataclass(frozen=True)
class Options:
    """Train the score model at several sigmas, draw, judge and show."""

    stages: tyro.conf.Positional[tuple[Stage, ...]] = STAGES
    """What to do (default: all)."""
    data: tuple[Data, ...] = DATA
    """Fashion-MNIST's 10,000 images of the package, and handwritten digits."""
    digits: str = "../shared/data/mnist-10k"
    """Folder of the digits' four IDX files."""
    sigmas: tuple[float, ...] = (10.0, 25.0, 50.0)
    """s of the process, dx = s^t dw."""
    context_tokens: tuple[int, ...] = (1,)
    """Tokens that cross-attention looks at."""
    train_steps: int = 2000
    """Training steps of each model."""
    steps: int = 250
    """Steps of Euler-Maruyama for the images that are judged."""
    images: int = 500
    """Images to judge, of all classes in turn."""
    shown_class: int = 7
    """Class that is drawn in several numbers of steps."""
    clip: bool = True
    """Clip the predicted x_0, as the command does by default."""
    framework: Framework = "torch"
    """Which tree."""
    precision: Precision = "bf16"
    """Of the network."""
    seed: int = 0
    """Of the training and of the drawing."""
    threads: int | None = None
    """CPU threads that one operation may use (default: one for each core)."""
    out: str = "runs/score-transformer"
    """Folder to write to."""

    def __post_init__(self) -> None:
        require(self.images >= DIMENSIONS, "--images", self.images, f"must be {DIMENSIONS} or more")

    @property
    def models(self) -> list[Model]:
        """All that are trained, the same data one after the other."""
        return [Model(d, float(s), k) for d in self.data for k in self.context_tokens for s in self.sigmas]

    def dataset(self, data: Data) -> list[str]:
        """The flags of a data set."""
        own = ["--dataset", "idx", "--data-dir", self.digits]
        return own if data == "digits" else ["--dataset", "fashion-mnist-10k"]

    @property
    def suffix(self) -> str:
        """Of what is drawn otherwise than by default."""
        return "" if self.clip else "-unclipped"

    def load(self, data: Data) -> tuple[Split, Split]:
        """Its training and test images."""
        return datasets.load("idx", self.digits) if data == "digits" else datasets.load("fashion-mnist-10k")

    def command(self, name: str) -> Any:
        """The main function of a command of the tree."""
        return importlib.import_module(f"ddpm_{self.framework}.{name}").main

    @property
    def where(self) -> list[str]:
        """The flags that all commands share."""
        threads = [] if self.threads is None else ["--threads", str(self.threads)]
        return ["--precision", self.precision, "--seed", str(self.seed), *threads]


def prior_deviation(sigma: float) -> float:
    """The deviation of x_1, sqrt((s^2 - 1) / (2 log s)): that of the noise which the drawing begins with."""
    return math.sqrt((sigma**2 - 1.0) / (2.0 * math.log(sigma)))


def mismatches(options: Options) -> list[Record]:
    """How far x_1 of the training is from the prior of the drawing, for each data set and sigma.

    x_1 = x_0 + std(1) eps has the mean image as its mean, and the prior 0. "symmetric" is |mean image| / std(1) for
    pixels in [-1, 1], as ours are, and "unit" for pixels in [0, 1].
    """
    found = []
    for data in options.data:
        mean = options.load(data)[0].images.mean(0) / 255.0
        lengths = {"unit": float(np.linalg.norm(mean)), "symmetric": float(np.linalg.norm(2.0 * mean - 1.0))}
        for sigma in options.sigmas:
            deviation = prior_deviation(sigma)
            distances = {name: length / deviation for name, length in lengths.items()}
            found.append({"data": data, "sigma": sigma, "deviation": deviation, "lengths": lengths} | distances)
    return found


# --- The stages ---------------------------------------------------------------------------------------------


def prior(options: Options) -> int:
    """Print the mismatch of the prior. Returns 0."""
    print(prior_table(mismatches(options)))
    return 0


def train(options: Options) -> int:
    """Train the models that are not trained yet. Returns the exit code."""
    for model in options.models:
        run = Path(options.out) / model.name
        if (run / "metrics.json").is_file() and json.loads((run / "metrics.json").read_text())["status"] == "completed":
            continue
        if (run / "checkpoints" / "latest").is_file():
            threads = [] if options.threads is None else ["--threads", str(options.threads)]
            code = options.command("train")(["--resume", str(run), *threads])
        else:
            told = ["--preset", "score-transformer", *options.dataset(model.data), "--sigma-max", f"{model.sigma:g}"]
            told += ["--context-tokens", str(model.tokens), "--epochs", "1000", "--max-steps", str(options.train_steps)]
            told += ["--sample-every", "0", "--keep-checkpoints", "1", "--run-dir", str(run)]
            code = options.command("train")([*told, *options.where])
        if code:
            return code
    return 0


def draw(options: Options) -> int:
    """Draw what is not drawn yet. Returns the exit code."""
    for model in options.models:
        run = Path(options.out) / model.name
        sets = [("all", options.steps, options.images, "all")]
        sets += [(f"steps-{n}", n, OF_STEPS, str(options.shown_class)) for n in STEPS]
        for part, steps, number, labels in sets:
            out = run / f"{part}{options.suffix}"
            if (out / "grid.png").is_file():  # what the command writes last
                continue
            told = ["--checkpoint", str(run), "--sampler", "euler_maruyama", "--steps", str(steps)]
            told += ["--num-images", str(number), "--labels", labels, "--batch-size", "100", "--out", str(out)]
            told += [] if options.clip else ["--no-clip-x-0"]
            if code := options.command("inference")([*told, *options.where]):
                return code
    return 0


def judged(options: Options) -> int:
    """Judge all that is finished, and show it. Returns 0."""
    out = Path(options.out)
    report: Record = {"prior": mismatches(options), "models": {}, "floors": {}}
    report["settings"] = {name: getattr(options, name) for name in ("train_steps", "steps", "images", "clip", "seed")}
    report["settings"] |= {"framework": options.framework, "precision": options.precision}
    for data in options.data:
        try:
            judge = Judge(*options.load(data))
        except UserError as error:  # without a classifier
            print(f"not judged: {error}")
            judge = None
        if judge is not None:
            report["floors"][data] = floor(judge, options.images)
        for model in [model for model in options.models if model.data == data]:
            if (drawn := files.read_npz(out / model.name / f"all{options.suffix}" / "samples.npz")) is None:
                continue
            metrics = json.loads((out / model.name / "metrics.json").read_text())
            found = {"data": data, "title": model.title, "final": metrics["final"]}
            report["models"][model.name] = found | (scores(judge, drawn["images"], drawn["labels"]) if judge else {})
        models = [model for model in options.models if model.data == data]
        pictures = {"classes": classes_picture(out, models, options.load(data)[0].class_names, options.suffix)}
        pictures["steps"] = steps_picture(out, models, options.suffix)
        for name, picture in pictures.items():
            if picture is not None:
                images.write_figure(out / f"score-transformer-{data}-{name}{options.suffix}.png", picture, dpi=100)
    files.write_json(out / f"score_transformer{options.suffix}.json", report)
    text = document(report)
    files.write_atomically(out / f"score_transformer{options.suffix}.md", text.encode())
    print(f"{text}\n{out / f'score_transformer{options.suffix}.md'}")
    return 0


def scores(judge: Judge, pixels: Pixels, labels: Any) -> Record:
    """What the judge says of images of the classes asked for."""
    extracted = judge.extractor(pixels)
    found = judge.scores(extracted)
    return {"accuracy": accuracy(extracted, labels)} | {key: found[key] for key in ("fid", "precision", "recall")}


def floor(judge: Judge, count: int) -> Record:
    """The same of as many real test images."""
    found = judge.floor(count)
    assert found is not None
    right = {"accuracy": accuracy(judge.other_extracted, judge.other.labels)}
    return right | {key: found[key] for key in ("fid", "precision", "recall")}


def run(options: Options) -> int:
    """The stages that were asked for, in their order. Returns the exit code."""
    work = {"prior": prior, "train": train, "draw": draw, "report": judged}
    for stage in STAGES:
        if stage in options.stages and (code := work[stage](options)):
            return code
    return 0


if __name__ == "__main__":
    command_line.guard(lambda: run(tyro.cli(Options, prog="tests/benchmarks/score_transformer.py")))
