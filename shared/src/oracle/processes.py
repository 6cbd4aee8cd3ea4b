"""The oracle of the diffusion processes and of the levels that a sampler visits, in float64 NumPy.

It goes another way than the trees: alpha of vp by a quadrature of beta, sigma by a hyperbolic sine, sigma of ve as a
power; derivatives by a complex step, drift and diffusion by the papers' own formulas, the inverse by bisection.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, assert_never

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddpm_shared.config import DiffusionConfig
from ddpm_shared.config.processes import ProcessName
from ddpm_shared.config.samplers import Grid
from ddpm_shared.oracle.diffusion import Array, make_schedule

Times = NDArray[Any]  # real, long or complex: a path is a formula, and the type of t decides how it is computed
Pair = tuple[NDArray[Any], NDArray[Any]]

COMPLEX_STEP = 1e-40  # in NumPy's longest float; its square is nothing beside 1
HALVINGS = 200  # of an interval: more than the digits of any float
FLOW_LAST = 0.999  # a grid in log-SNR cannot begin in pure noise


def ddpm(config: DiffusionConfig, t: Times) -> Pair:
    """The two roots of the schedule at the integer times t [N]. Source: Ho et al. 2020 (arXiv:2006.11239), eq. 4."""
    schedule, index = make_schedule(config), t.astype(int)
    return schedule["sqrt_alphas_cumprod"][index], schedule["sqrt_one_minus_alphas_cumprod"][index]


def betas(config: DiffusionConfig, t: Times) -> Pair:
    """Of vp and sub_vp: beta(t), linear from T beta_start to T beta_end, and B, its integral from 0 to t.

    The quadrature is Gauss and Legendre's with two nodes, which is exact on lines.

    Source: Song et al. 2021 (arXiv:2011.13456), eq. 32.
    """
    start, end = (config.timesteps * beta for beta in config.beta_range)
    nodes, weights = np.polynomial.legendre.leggauss(2)
    s = t[:, None] * (nodes + 1) / 2  # [N, 2]
    return (1 - t) * start + t * end, t / 2 * (((1 - s) * start + s * end) @ weights)


def vp(config: DiffusionConfig, t: Times) -> Pair:
    """The variance-preserving SDE: alpha = exp(-B / 2), sigma^2 = 1 - exp(-B) = 2 exp(-B / 2) sinh(B / 2).

    Source: Song et al. 2021 (arXiv:2011.13456), eq. 29 and 33.
    """
    _, integral = betas(config, t)
    return np.exp(-integral / 2), np.sqrt(2 * np.exp(-integral / 2) * np.sinh(integral / 2))


def sub_vp(config: DiffusionConfig, t: Times) -> Pair:
    """The sub-VP SDE: the noise of vp, squared. Source: Song et al. 2021 (arXiv:2011.13456), eq. 29."""
    _, integral = betas(config, t)
    return np.exp(-integral / 2), 2 * np.exp(-integral / 2) * np.sinh(integral / 2)


def ve(config: DiffusionConfig, t: Times) -> Pair:
    """The variance-exploding SDE: sigma is geometric in t. Source: Song et al. 2021 (arXiv:2011.13456), eq. 30."""
    return t**0, config.sigma_min ** (1 - t) * config.sigma_max**t


def ve_exponential(config: DiffusionConfig, t: Times) -> Pair:
    """Of dx = s^t dw sigma^2 is the integral of s^(2t), s^t sinh(t log s) / log s.

    Source: Song et al. 2021 (arXiv:2011.13456), eq. 29, for g = s^t.
    """
    log_s = math.log(config.sigma_max)
    return t**0, np.sqrt(config.sigma_max**t * np.sinh(t * log_s) / log_s)


def edm(config: DiffusionConfig, t: Times) -> Pair:
    """The time is sigma. Source: Karras et al. 2022 (arXiv:2206.00364), table 1."""
    return t**0, t


def flow(config: DiffusionConfig, t: Times) -> Pair:
    """From the image to the noise at constant speed. Source: Liu et al. 2023 (arXiv:2209.03003), eq. 1."""
    return 1 - t, t


PROCESSES: dict[str, Callable[[DiffusionConfig, Times], Pair]] = {
    "ddpm": ddpm,
    "vp": vp,
    "sub_vp": sub_vp,
    "ve": ve,
    "ve_exponential": ve_exponential,
    "edm": edm,
    "flow": flow,
}


def rates(config: DiffusionConfig, t: Array, process: str) -> tuple[Array, Array]:
    """The derivatives of alpha and sigma by t, of a continuous process, at times [N] above 0.

    f'(t) = Im f(t + ih) / h is right to h^2: no difference is taken, so that h may be as small as one likes.

    Source: Squire and Trapp 1998.
    """
    h = np.longdouble(COMPLEX_STEP)
    alpha, sigma = PROCESSES[process](config, t.astype(np.longdouble) + 1j * h)
    return (alpha.imag / h).astype(np.float64), (sigma.imag / h).astype(np.float64)


def log_snr(config: DiffusionConfig, t: Times, process: str) -> Array:
    """The logarithm of (alpha / sigma)^2 at the times t [N]; infinite without noise, or without signal."""
    alpha, sigma = PROCESSES[process](config, t)
    with np.errstate(divide="ignore"):
        value: Array = np.log((alpha / sigma) ** 2)
    return value


def drift(config: DiffusionConfig, t: Array, process: str) -> Array:
    """F of dx = f x dt + g dw at the times t [N], as the papers have it; infinite for flow at t = 1.

    Source: Song et al. 2021 (arXiv:2011.13456), eq. 9, 11 and 12; for flow the derivative of log(1 - t).
    """
    if process in ("vp", "sub_vp"):
        return -betas(config, t)[0] / 2
    with np.errstate(divide="ignore"):
        return -1 / (1 - t) if process == "flow" else np.zeros(len(t))


def squared_diffusion(config: DiffusionConfig, t: Array, process: str) -> Array:
    """G^2 of dx = f x dt + g dw at the times t [N], as the papers have it; infinite for flow at t = 1.

    Source: Song et al. 2021 (arXiv:2011.13456), eq. 11, 12 and 30, and their tutorial for s^t; Karras et al. 2022
    (arXiv:2206.00364), appendix B, for edm: 2 sigma sigma'. That of flow is this file's own, by Ito's formula.
    """
    match process:
        case "vp":
            return betas(config, t)[0]
        case "sub_vp":
            beta, integral = betas(config, t)
            return beta * -np.expm1(-2 * integral)
        case "ve":
            ratio = config.sigma_max / config.sigma_min
            return (config.sigma_min * ratio**t * math.sqrt(2 * math.log(ratio))) ** 2
        case "ve_exponential":
            return (config.sigma_max**t) ** 2
        case "edm":
            return 2 * t
        case _:
            with np.errstate(divide="ignore"):
                return 2 * t / (1 - t)


def time_of(config: DiffusionConfig, wanted: ArrayLike, process: str) -> Array:
    """The times [N] of a continuous process at which its log-SNR is `wanted` [N], by bisection: it falls with t."""
    level = np.asarray(wanted, np.longdouble)
    low = np.zeros_like(level)
    high = np.full_like(level, {"edm": 1e7, "flow": 1.0}.get(process, 8.0))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        less_noise = log_snr(config, middle, process) > level
        low, high = np.where(less_noise, middle, low), np.where(less_noise, high, middle)
    return high.astype(np.float64)


def matched(config: DiffusionConfig, times: Array, process: str, other: str) -> Array:
    """The times [N] of the continuous process `other` with the log-SNR that `process` has at times [N]."""
    return time_of(config, log_snr(config, times, process), other)


def times_at_ratio(config: DiffusionConfig, ratios: Array, process: str) -> Array:
    """The times [N] of a continuous process at which sigma / alpha is `ratios` [N]."""
    return time_of(config, -2 * np.log(ratios), process)


def prior_scale(config: DiffusionConfig, process: str) -> float:
    """The deviation of x_T: sigma at the last t where the image is still there, alpha = 1, and 1 where it is not.

    Source: Song et al. 2021 (arXiv:2011.13456), appendix C; Karras et al. 2022 (arXiv:2206.00364), algorithm 1.
    """
    last = float(config.timesteps - 1) if process == "ddpm" else config.sigma_max if process == "edm" else 1.0
    alpha, sigma = PROCESSES[process](config, np.array([last]))
    return float(sigma[0]) if alpha[0] == 1 else 1.0


# As the tables of the trees: (config, t) -> alpha' and sigma', and (config, log-SNR) -> t.
RATES = {name: functools.partial(rates, process=name) for name in PROCESSES if name != "ddpm"}
TIMES = {name: functools.partial(time_of, process=name) for name in RATES}


class Levels(NamedTuple):
    """Levels of x = alpha x_0 + sigma eps, ascending in noise; of a continuous process with what solvers in t need."""

    alpha: Array  # [N]
    sigma: Array  # [N]
    times: Array  # [N]
    alpha_rate: Array | None = None  # [N], the derivatives by t
    sigma_rate: Array | None = None
    drift: Array | None = None  # [N], of the SDE
    squared_diffusion: Array | None = None


def make_levels(config: DiffusionConfig, times: ArrayLike, process: str | None = None) -> Levels:
    """The levels of a process, by default that of config, at some of its times [N]."""
    process, t = process or config.process, np.asarray(times, np.float64)
    alpha, sigma = PROCESSES[process](config, t)
    if process == "ddpm":
        return Levels(alpha, sigma, t)
    sde = drift(config, t, process), squared_diffusion(config, t, process)
    return Levels(alpha, sigma, t, *rates(config, t, process), *sde)


def make_grid(
    config: DiffusionConfig, steps: int, grid: Grid, process: ProcessName, rho: float = 7.0, shift: float = 1.0
) -> Array:
    """The times that a sampler visits in a continuous process, ascending, [N].

    A grid in the noise is one in the log-SNR, and its times are found by bisection. A shift multiplies the odds of t,
    t / (1 - t), by s.

    Source: Karras et al. 2022 (arXiv:2206.00364), eq. 5; Esser et al. 2024 (arXiv:2403.03206), eq. 23.
    """
    first, last = config.sampling_span(process)
    numbers = np.arange(1, steps + 1)
    share = (numbers - 1) / (steps - 1) if steps > 1 else np.array([1.0])
    if grid == "uniform":
        return (1 - share) * first + share * last
    if grid == "shifted":
        return 1 / (1 + (steps - numbers) / (shift * numbers))  # the odds of n / N are n / (N - n)
    ends = np.array([first, min(last, FLOW_LAST) if process == "flow" else last])
    begin, end = log_snr(config, ends, process)
    if grid == "log_snr":
        return time_of(config, (1 - share) * begin + share * end, process)
    if grid == "karras":
        low, high = np.exp(-begin / 2) ** (1 / rho), np.exp(-end / 2) ** (1 / rho)
        return time_of(config, -2 * np.log(((1 - share) * low + share * high) ** rho), process)
    assert_never(grid)
