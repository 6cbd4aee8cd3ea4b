"""The processes over the log-SNR, which they have in common: how fast they go, what they weigh, where they train.

    .venv/bin/python tests/benchmarks/spine.py

Draws docs/spine.png. Nothing is measured: all of it follows from the settings that come with each process. A time
of training is t(u), u uniform, so the density of lambda = log-SNR is du / dlambda.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import tyro
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ddpm_shared import images
from ddpm_shared.config import DiffusionConfig, with_process
from ddpm_shared.config.processes import PROCESS_FACTS, ProcessName
from ddpm_shared.pages import COLOURS
from ddpm_torch.objective import error_weight, times_of
from ddpm_torch.prediction import direction, level_at
from ddpm_torch.processes import log_snr

SIGMA_DATA = 0.7073  # of Fashion-MNIST
POINTS = 2001
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1)), (0, (3, 1, 1, 1, 1, 1)))
SHOWN = (-14.0, 14.0)  # lambda

Array = NDArray[np.float64]


class Curves(NamedTuple):
    """Of a process, at the times of its training, [N] each."""

    t: Array
    log_snr: Array
    weight: Array  # of the squared error of eps
    density: Array  # of the log-SNR


def curves(process: ProcessName) -> Curves:
    """What training in a process weighs, and where."""
    config = replace(with_process(DiffusionConfig(), process), sigma_data=SIGMA_DATA)
    u = torch.linspace(0.0, 1.0, POINTS + 2, dtype=torch.float64)[1:-1]
    t = times_of(config, u)
    level = level_at(config, t, torch.float64)
    # An error of the output is alpha / d times as large in eps.
    weight = error_weight(level, config, t) * (direction(config.prediction, level).d / level.alpha) ** 2
    position = log_snr(config, t, process).numpy()
    return Curves(t.numpy(), position, weight.flatten().numpy(), -1.0 / np.gradient(position, u.numpy()))


@dataclass(frozen=True)
class Options:
    """Draw."""

    out: Path = Path("docs/spine.png")
    """The picture."""


def picture(found: dict[ProcessName, Curves]) -> Figure:
    """The log-SNR over time; the weight of the error of eps over the log-SNR; the density of the log-SNR."""
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for (process, each), dashes, colour in zip(found.items(), DASHES, COLOURS, strict=False):
        style = {"linestyle": dashes, "color": colour, "linewidth": 1.5, "label": PROCESS_FACTS[process].title}
        config = with_process(DiffusionConfig(), process)
        first, last = config.training_span
        t = np.linspace(first, last, POINTS)[:-1]
        left.plot(t / last, log_snr(config, torch.from_numpy(t), process).numpy(), **style)
        middle.semilogy(each.log_snr, each.weight, **style)
        right.plot(each.log_snr, each.density, **style)
    left.set(title="log-SNR over time", xlabel="t (EDM: t / 80)", ylim=SHOWN)
    middle.set(title="weight of the error of eps", xlabel="log-SNR", xlim=SHOWN[::-1], ylim=(0.5, 2e3))
    right.set(title="how often it is trained: density", xlabel="log-SNR", xlim=SHOWN[::-1])
    for axes in (left, middle, right):
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    left.legend(fontsize="small", frameon=False)
    figure.suptitle("Each process with the settings that it brings; noise to the right", fontweight="bold")
    return figure


def main(options: Options) -> None:
    """Write the picture."""
    found = {process: curves(process) for process in PROCESS_FACTS if process != "ddpm"}
    images.write_figure(options.out, picture(found), dpi=110)
    print(options.out)


if __name__ == "__main__":
    main(tyro.cli(Options, prog="tests/benchmarks/spine.py"))
