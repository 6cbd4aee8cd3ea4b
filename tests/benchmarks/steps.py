"""`make bench`: a training step and a sampling step of each preset in both frameworks, interleaved in one process.

    make bench ARGS="--presets tiny base --repeats 7"

Only the ratios of one run mean something, and only on a quiet machine: the load is checked first.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import tyro

import ddpm_tf.train
import ddpm_torch.train
from ddpm_shared import datasets
from ddpm_shared.config import Config, TrainingConfig, with_preset


@dataclass(frozen=True)
class Options:
    """Time training and sampling steps; prints medians with the spread of the middle half."""

    presets: tuple[str, ...] = ("tiny", "base")
    """Networks to time."""
    batch_size: int = 128
    """Images a training step, and images a sampling step."""
    repeats: int = 7
    """Timed repetitions after one that warms up."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the network."""


def main(options: Options) -> None:
    """Print one line for each preset and kind of step."""
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"warning: the load is {load:.1f}; a second busy process distorts every figure below", file=sys.stderr)
    pixels = datasets.load("fashion-mnist-10k")[0].images
    print(f"{'preset':8}{'step':12}{'torch img/s':>22}{'tensorflow img/s':>22}{'torch / tf':>12}")
    for preset in options.presets:
        training = TrainingConfig(batch_size=options.batch_size)
        config = with_preset(Config(precision=options.precision, device="cpu", training=training), preset)
        learners = [ddpm_torch.train.Learner(config), ddpm_tf.train.Learner(config)]
        train = [lambda k, learner=learner: learner.train_step(pixels, k) for learner in learners]
        report(preset, "training", train, options)
        x, t = np.zeros((options.batch_size, 28, 28, 1), np.float32), np.full(options.batch_size, 500, np.int32)
        report(preset, "sampling", forward(learners, x, t), options)


def forward(learners: list, x: np.ndarray, t: np.ndarray) -> list[Callable[[int], object]]:
    """The network of each tree as the sampler calls it."""
    x_torch, t_torch = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()), torch.from_numpy(t)

    def in_torch(k: int) -> object:
        with torch.no_grad():
            return learners[0].ema_model(x_torch, t_torch)

    return [in_torch, lambda k: learners[1].ema_eps_model(x, t).numpy()]


def report(preset: str, name: str, steps: list[Callable[[int], object]], options: Options) -> None:
    """Time the steps in turn, so that whatever slows the machine slows both."""
    rates: list[list[float]] = [[] for _ in steps]
    for k in range(options.repeats + 1):
        for step, found in zip(steps, rates, strict=True):
            began = time.perf_counter()
            step(k)
            if k > 0:
                found.append(options.batch_size / (time.perf_counter() - began))
    cells = []
    for found in rates:
        low, middle, high = statistics.quantiles(found, n=4)
        cells.append(f"{middle:.0f} ({low:.0f} .. {high:.0f})")
    ratio = statistics.median(rates[0]) / statistics.median(rates[1])
    print(f"{preset:8}{name:12}{cells[0]:>22}{cells[1]:>22}{ratio:12.2f}", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options, prog="tests/benchmarks/steps.py"))
