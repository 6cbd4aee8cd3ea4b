"""The order of convergence that each solver shows in each process, on Gaussian data: the solver's error alone is left.

As in convergence.py, of which this takes the discrete process: data N(MEAN, STD^2), the perfect denoiser, and a batch
of unit vectors for the noise, which tells mean and variance of what is drawn exactly. In the processes of continuous
time the way goes from sigma / alpha = RATIOS[1] down to RATIOS[0], the same for all, in equal steps of log-SNR.

The corrector of pc is not linear in x, since it divides by the length of the score. It gets one image of many pixels
instead, so that chance hardly matters.
"""

import functools
import math
from typing import Any

import convergence
import numpy as np
from convergence import MEAN, STD, Affine

from ddpm_parity.sides import Side
from ddpm_shared.config import DiffusionConfig, with_process
from ddpm_shared.config.processes import ProcessName
from ddpm_shared.config.samplers import SAMPLER_FACTS, SamplerName

RATIOS = (0.1, 10.0)
STEPS = (128, 256)  # what the doubling gains is the order
PC_SIDE = 256  # pixels of a side of its image: a deviation is known to 1 / sqrt(2 * 256^2) = 0.3 %


@functools.cache
def settings(process: ProcessName) -> DiffusionConfig:
    """A process with its own settings."""
    return with_process(DiffusionConfig(), process)


def make_levels(side: Side, process: ProcessName, steps: int, offset: float = 0.0) -> Any:
    """The steps + 1 levels of the way, and with `offset` 0.5 the levels halfway between two times, one below each."""
    config = settings(process)
    ratios = np.exp(np.linspace(*np.log(RATIOS), steps + 1))
    times = side.processes.times_at_ratio(config, ratios, process)
    if offset:
        times = times - offset * np.diff(times, prepend=0.0)
    return side.processes.make_levels(config, times, process)


def denoiser(side: Side, levels: Any) -> Any:
    """The perfect one, (x, i) -> x_0 and eps."""
    nothing = side.tensor(np.zeros((1, 1, 1, 1)))

    def denoise(x: Any, i: int) -> Any:
        alpha, sigma = levels.level(i)
        surprise = (x - alpha * MEAN) / (alpha**2 * STD**2 + sigma**2)
        return side.prediction.Predicted(MEAN + alpha * STD**2 * surprise, sigma * surprise, nothing)

    return denoise


def marginal(levels: Any, i: int) -> tuple[float, float]:
    """Mean and standard deviation of x_t at level i."""
    return convergence.marginal(levels, i)


def last_of_two(chain: Any) -> Any:
    """X at level 0: what the step before the last yields. The last one leads to the clean image."""
    for i, x in chain:
        if i == 1:
            return x
    raise AssertionError("the way has two levels or more")


def drawn(side: Side, process: ProcessName, sampler: SamplerName, steps: int) -> tuple[float, float]:
    """Mean and standard deviation of x at the end of the way, which begins as x_t does."""
    levels = make_levels(side, process, steps)
    n = len(levels)
    mean, std = marginal(levels, n - 1)
    solve = side.samplers.SAMPLERS[sampler]
    if sampler == "pc":
        return drawn_by_pc(side, levels, mean, std)
    options = {}
    if sampler == "rk4":
        middle = make_levels(side, process, steps, offset=0.5)
        options["middle"] = side.solvers.Waypoints(middle, denoiser(side, middle))
    unit = np.eye(n + 2)[:, :, None, None, None]  # entry i of the batch has z_i = 1, entry n has x_T = 1, the last none
    chain = solve(levels, denoiser(side, levels), side.tensor(unit[n]), lambda i: side.tensor(unit[i]), **options)
    x = side.array(last_of_two(chain)).ravel()
    affine = Affine(x[-1], x[n] - x[-1], x[:n] - x[-1])
    return affine.c + affine.a * mean, math.hypot(affine.a * std, *affine.b)


def drawn_by_pc(side: Side, levels: Any, mean: float, std: float) -> tuple[float, float]:
    """The same of predictor and corrector, by one image of many pixels."""
    draws = np.random.default_rng(0)

    def noise(*_: int) -> Any:
        return side.tensor(draws.standard_normal((1, PC_SIDE, PC_SIDE, 1)))

    x_t = mean + std * noise()
    chain = side.samplers.SAMPLERS["pc"](levels, denoiser(side, levels), x_t, noise, corrector_z_at=noise)
    x = side.array(last_of_two(chain))
    return float(x.mean()), float(x.std())


def error(side: Side, process: ProcessName, sampler: SamplerName, steps: int) -> float:
    """The Wasserstein-2 distance of what is drawn to what should be, in units of STD."""
    levels = make_levels(side, process, 1)
    return math.dist(drawn(side, process, sampler, steps), marginal(levels, 0)) / STD


def order(side: Side, process: ProcessName, sampler: SamplerName) -> float | None:
    """The logarithm to base 2 of what the last doubling of the steps gains; None where the process is not taken.

    Args:
        side: PyTorch's or TensorFlow's, in float64.
        process: any of PROCESSES.
        sampler: any of SAMPLERS.
    """
    if process not in SAMPLER_FACTS[sampler].processes:
        return None
    if process == "ddpm":
        return convergence.order([convergence.between(side, sampler, steps) for steps in STEPS])
    return convergence.order([error(side, process, sampler, steps) for steps in STEPS])
