"""What does BatchNorm do to a diffusion model? The error at each tenth of the noise, by where its moments come from.

    .venv/bin/python tests/benchmarks/batch_norm.py runs/torch/RUN-OF-RESIDUAL-BATCHNORM runs/torch/RUN-OF-UNET

In training, BatchNorm normalises by the moments of a batch whose images have all kinds of times. In drawing, all images
of a batch have one time, and the moments are those that it remembers. Here every image of the test set, with its own
time and noise, goes through each network three times:

    one t      in a batch of images of the same time, by the moments of that batch
    mixed      in a batch of images of all times, by the moments of that batch, as in training
    running    by the moments that BatchNorm remembers, as in drawing

The pairs of image and noise are the same in all three. A network without BatchNorm, e.g. the U-Net with GroupNorm, has
three equal columns: it is the control. Writes batch_norm.json and batch_norm.md to --out.
"""

import contextlib
import dataclasses
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from numpy.typing import NDArray
from table import markdown

from ddpm_course import inside
from ddpm_course.tree import Tree
from ddpm_shared import command_line, datasets, files, streams
from ddpm_shared.config import Config, require
from ddpm_shared.datasets import Split
from ddpm_shared.errors import UserError
from ddpm_shared.frameworks import FRAMEWORKS
from ddpm_shared.oracle import diffusion
from ddpm_shared.records import checkpoint, folder

Moments = Literal["one t", "mixed", "running"]
MOMENTS: tuple[Moments, ...] = ("one t", "mixed", "running")
TENTHS = 10
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Options:
    """The error of trained networks at each tenth of the noise, by the moments that BatchNorm takes."""

    checkpoints: tyro.conf.Positional[tuple[str, ...]]
    """Checkpoints or run folders, of networks of --process ddpm that predict eps."""
    framework: Literal["torch", "tensorflow"] = "torch"
    """Which tree evaluates them."""
    weights: Literal["ema", "model"] = "ema"
    """The averaged weights, or those of the last step. What BatchNorm remembers is one and the same."""
    batch_size: int = 50
    """Images in a batch, a multiple of 10."""
    batches: int = 20
    """Batches for each tenth, each of another time."""
    threads: int | None = None
    """CPU threads that one operation may use (default: one for each core)."""
    out: str = "runs/batch-norm"
    """Folder to write to."""

    def __post_init__(self) -> None:
        require(len(self.checkpoints) > 0, "checkpoints", self.checkpoints, "name one at least")
        right = self.batch_size >= TENTHS and self.batch_size % TENTHS == 0
        require(right, "--batch-size", self.batch_size, f"must be a multiple of {TENTHS}, and not 0")
        require(self.batches >= 1, "--batches", self.batches, "must be 1 or more")


@dataclass(frozen=True)
class Pairs:
    """Noisy images, their classes, times and noise: [tenths, batches, B, ...], all images of a batch of one time."""

    x_t: Array
    t: NDArray[np.int32]
    eps: Array
    labels: NDArray[np.int64]

    def mixed(self) -> "Pairs":
        """The same in other batches, of as many images of each tenth as of any other."""

        def turned(values: NDArray[Any]) -> NDArray[Any]:  # the tenth changes from each image to the next
            return np.swapaxes(values, 0, 2).reshape(values.shape)

        return Pairs(turned(self.x_t), turned(self.t), turned(self.eps), turned(self.labels))

    def back(self, errors: Array) -> Array:
        """Errors of `mixed` in the order of these pairs, [tenths, batches, B]."""
        return np.swapaxes(errors.reshape(self.t.shape[::-1]), 0, 2)


def pairs(split: Split, config: Config, options: Options) -> Pairs:
    """What all three ways are compared on: the first images of the split, in every tenth of the times."""
    steps, count, size = config.diffusion.timesteps, options.batches, options.batch_size
    if steps < TENTHS:
        raise UserError(f"--timesteps {steps}: a table of tenths needs {TENTHS} or more")
    number = TENTHS * count * size
    chosen = np.arange(number) % len(split.images)
    # The middle of each of `count` equal parts of each tenth.
    times = np.floor((np.arange(TENTHS * count) + 0.5) * steps / (TENTHS * count)).astype(np.int32)
    t = np.repeat(times, size)
    x_0 = split.images[chosen] / 127.5 - 1.0
    eps = streams.normal(config.seed, streams.VALIDATION_EPS, 0, x_0.shape)
    x_t = diffusion.q_sample(diffusion.make_schedule(config.diffusion), x_0, t, eps)
    shape = TENTHS, count, size
    return Pairs(
        x_t.reshape(*shape, *x_0.shape[1:]),
        t.reshape(shape),
        eps.reshape(*shape, *x_0.shape[1:]),
        split.labels[chosen].astype(np.int64).reshape(shape),
    )


def errors(tree: Tree, network: Any, config: Config, these: Pairs, training: bool) -> Array:
    """The mean squared error of the predicted noise of each image, [tenths, batches, B], in these batches."""
    network = inside.layered(network)
    tree.model.set_training(network, training)
    torch = tree.framework == "torch"
    found = np.empty(these.t.shape)
    with importlib.import_module("torch").no_grad() if torch else contextlib.nullcontext():
        for index in np.ndindex(*these.t.shape[:2]):
            inputs = [tree.data.to_tensor(these.x_t[index].astype(np.float32)), tree.times(these.t[index])]
            if config.class_conditional:
                inputs.append(tree.data.to_labels(these.labels[index]))
            output = np.asarray(tree.data.to_array(network(*inputs)), np.float64)
            found[index] = np.mean((these.eps[index] - output) ** 2, axis=(1, 2, 3))
    return found


def measured(name: str, options: Options) -> dict[str, Any]:
    """The record of one checkpoint: what it is, and the mean error of each tenth by the kind of moments."""
    file = folder.checkpoint_file(name, options.framework)
    loaded = checkpoint.load(file, (options.weights,))
    config = dataclasses.replace(loaded.config, precision="fp32", device="cpu", threads=options.threads, compile=False)
    kind = config.diffusion.process, config.diffusion.prediction
    if kind != ("ddpm", "eps"):
        raise UserError(f"{file}: a network of process {kind[0]} that predicts {kind[1]}; this compares eps of ddpm")
    tree = Tree(options.framework)
    network = tree.model.load(loaded, options.weights, config)
    _, test = datasets.load(config.data.dataset, config.data.data_dir, config.data.folder)
    these = pairs(test, config, options)
    ways = {
        "one t": errors(tree, network, config, these, True),
        "mixed": these.back(errors(tree, network, config, these.mixed(), True)),
        "running": errors(tree, network, config, these, False),
    }
    return {
        "checkpoint": str(name),
        "network": config.model.network,
        "step": loaded.step,
        "batch_norm": any(
            buffer.endswith("running_var") for buffer in tree.model.named_buffers(inside.layered(network))
        ),
        "losses": {way: values.mean(axis=(1, 2)).tolist() for way, values in ways.items()},
    }


def document(records: list[dict[str, Any]], options: Options) -> str:
    """The table: a row for each tenth, and for each network a column for each kind of moments."""
    titles = ["t / T", *(f"{record['network']}: {way}" for record in records for way in MOMENTS)]
    rows = [
        [f"{tenth / TENTHS:.1f} .. {(tenth + 1) / TENTHS:.1f}"]
        + [f"{record['losses'][way][tenth]:.6f}" for record in records for way in MOMENTS]
        for tenth in range(TENTHS)
    ]
    means = [f"{np.mean(record['losses'][way]):.6f}" for record in records for way in MOMENTS]
    images = options.batches * options.batch_size
    head = (
        f"Mean squared error of the predicted noise, {images} pairs of a test image and noise in each tenth, in "
        f"batches of {options.batch_size}, {'averaged weights' if options.weights == 'ema' else 'weights'}, "
        f"{FRAMEWORKS[options.framework].title}. "
        + " ".join(f"{r['network']}: step {r['step']}, {'' if r['batch_norm'] else 'no '}BatchNorm." for r in records)
    )
    return f"{head}\n\n{markdown(titles, [*rows, ['all', *means]])}\n"


def run(options: Options) -> int:
    """Measure, write and print. Returns the exit code."""
    records = [measured(name, options) for name in options.checkpoints]
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    settings = {key: getattr(options, key) for key in ("framework", "weights", "batch_size", "batches")}
    files.write_json(out / "batch_norm.json", {"settings": settings, "networks": records})
    text = document(records, options)
    files.write_atomically(out / "batch_norm.md", text.encode())
    print(f"{text}\n{out / 'batch_norm.md'}")
    return 0


if __name__ == "__main__":
    command_line.guard(lambda: run(tyro.cli(Options, prog="tests/benchmarks/batch_norm.py")))
