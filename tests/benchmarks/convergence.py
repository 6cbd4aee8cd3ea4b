"""How fast the error of each sampler falls as its steps grow in number, where the truth is known: Gaussian data.

    .venv/bin/python tests/benchmarks/convergence.py

Draws docs/convergence.png. Of data N(MEAN, STD^2) the perfect network is known, and so is how x_t is distributed:

    eps = sigma (x_t - alpha MEAN) / variance,  x_t ~ N(alpha MEAN, variance),  variance = alpha^2 STD^2 + sigma^2

With it every sampler is affine in x_T and the noises, x = c + a x_T + sum_i b_i z_i, and one batch of unit vectors
tells c, a and b. Mean and variance of what is drawn follow from these exactly: nothing here is random.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray
from quality_report import CONTENDERS

from ddpm_parity.samplers import ON_DDPM
from ddpm_parity.sides import Side
from ddpm_parity.torch_side import Torch
from ddpm_shared import images, tables
from ddpm_shared.config import DiffusionConfig
from ddpm_shared.config.samplers import SAMPLER_FACTS
from ddpm_shared.config.sampling import times

MEAN, STD = 0.3, 0.5

# A solver has its order where the steps get small everywhere, as between two levels of noise. On the last step to the
# clean image sigma / alpha falls from about sqrt(beta_start * 1000 / N) to 0, whatever the order: there the error goes
# like 1 / N. So: a process of many times, from the last one down to FLOOR, where sigma / alpha is 0.2, in equal steps.
FLOOR, SPAN = 2**10, 2**14
FINE = DiffusionConfig(timesteps=FLOOR + SPAN + 1, rescale_betas=True)
BETWEEN_STEPS = (8, 16, 32, 64, 128, 256, 512)
WHOLE_STEPS = (5, 10, 20, 50, 100, 200, 500, 1000)


class Affine(NamedTuple):
    """What a sampler makes of x_T and z: c + a x_T + sum_i b_i z_i."""

    c: float
    a: float
    b: NDArray[np.float64]  # [N]


def denoiser(side: Side, levels: Any) -> Any:
    """The perfect network on these levels: (x, i) -> Predicted."""
    nothing = side.tensor(np.zeros((1, 1, 1, 1)))

    def denoise(x: Any, i: int) -> Any:
        alpha, sigma = levels.level(i)
        eps = sigma / (alpha**2 * STD**2 + sigma**2) * (x - alpha * MEAN)
        # x_0 as (x - sigma eps) / alpha, but in a form for alpha = 0 too
        return side.prediction.Predicted(MEAN + alpha * STD**2 / sigma * eps, eps, nothing)

    return denoise


def run(side: Side, levels: Any, sampler: str, **options: Any) -> list[Affine]:
    """A sampler with the perfect network.

    Args:
        side: PyTorch's or TensorFlow's, in float64.
        levels: N of them.
        sampler: its name.
        options: the sampler's own, but for corrector_z_at: noise that the affine map does not know.

    Returns:
        N of them: the i-th says what x is after step i; the first is the sample.
    """
    n = len(levels)
    unit = np.eye(n + 2)[:, :, None, None, None]  # entry i of the batch has z_i = 1, entry n has x_T = 1, the last none
    chain = side.samplers.SAMPLERS[sampler](
        levels, denoiser(side, levels), side.tensor(unit[n]), lambda i: side.tensor(unit[i]), **options
    )
    found = [side.array(x).ravel() for _, x in chain][::-1]
    return [Affine(x[-1], x[n] - x[-1], x[:n] - x[-1]) for x in found]


def marginal(levels: Any, i: int) -> tuple[float, float]:
    """Mean and standard deviation of x_t at step i; of the data at i = -1."""
    alpha, sigma = levels.level(i)
    return alpha * MEAN, math.hypot(alpha * STD, sigma)


def error(side: Side, levels: Any, sampler: str, after: int = 0, **options: Any) -> float:
    """How far what is drawn is from what should be, after step `after`, begun where it should: in units of STD.

    The Wasserstein-2 distance of two Gaussians is that of their (mean, standard deviation) in the plane.
    """
    affine = run(side, levels, sampler, **options)[after]
    mean, std = marginal(levels, len(levels) - 1)
    drawn = affine.c + affine.a * mean, math.hypot(affine.a * std, *affine.b)
    return math.dist(drawn, marginal(levels, after - 1)) / STD


def between(side: Side, sampler: str, steps: int) -> float:
    """The error between two levels of noise, of `steps` equal steps."""
    visited = range(FLOOR, FLOOR + SPAN + 1, SPAN // steps)
    return error(side, side.processes.make_levels(FINE, visited), sampler, after=1)


def whole(side: Side, sampler: str, steps: int) -> float:
    """The error of the sampling command: the default process and spacing, down to the clean image."""
    config = DiffusionConfig()
    visited = times(config.timesteps, steps, "trailing")
    return error(side, side.processes.make_levels(config, visited), sampler)


def order(errors: Sequence[float]) -> float:
    """The order seen: the logarithm to base 2 of what the last doubling of the steps gains."""
    return math.log2(errors[-2] / errors[-1])


@dataclass(frozen=True)
class Options:
    """Measure and draw."""

    out: Path = Path("docs/convergence.png")
    """The picture."""


def picture(found: dict[str, tuple[list[float], list[float]]]) -> Figure:
    """Error over steps between two levels, with the order; error over evaluations of the network for the whole way."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, (near, far) in found.items():
        kind, (_, _, colour, marker) = SAMPLER_FACTS[name], CONTENDERS[name]
        style = {"color": colour, "marker": marker, "markersize": 5, "linewidth": 1.2}
        left.loglog(BETWEEN_STEPS, near, label=f"{kind.title}: order {order(near):.2f}", **style)
        right.loglog([kind.evaluations * steps for steps in WHOLE_STEPS], far, label=kind.title, **style)
    left.set(title="between two levels of noise, equal steps", xlabel="steps", ylabel="error / standard deviation")
    left.set_xticks(BETWEEN_STEPS)
    right.set(title="to the clean image, as the command samples", xlabel="evaluations of the network")
    right.set_xticks([5, 10, 20, 50, 100, 200, 500, 1000, 2000])
    for axes in (left, right):
        axes.minorticks_off()
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize="small", frameon=False)
    figure.suptitle("Gaussian data, the perfect network: what is left is the sampler's error", fontweight="bold")
    return figure


def main(options: Options) -> None:
    """Print both tables and write the picture."""
    side = Torch("fp64")
    found = {
        name: ([between(side, name, n) for n in BETWEEN_STEPS], [whole(side, name, n) for n in WHOLE_STEPS])
        for name in ON_DDPM
    }
    rows = [["between", *BETWEEN_STEPS, "order"], *([k, *near, order(near)] for k, (near, _) in found.items())]
    print("\n".join(tables.aligned(rows, 3)), "\n")
    print("\n".join(tables.aligned([["whole", *WHOLE_STEPS], *([k, *far] for k, (_, far) in found.items())], 3)))
    images.write_figure(options.out, picture(found), dpi=110)
    print(options.out)


if __name__ == "__main__":
    main(tyro.cli(Options, prog="tests/benchmarks/convergence.py"))
