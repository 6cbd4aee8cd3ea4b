"""The oracle of the diffusion processes and of the levels that a sampler visits, in float64 NumPy.

It goes another way than the trees: alpha of vp by a quadrature of beta, sigma by a hyperbolic sine, sigma of ve as a
power. Steps between levels are computed in NumPy's longest float.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ddpm_shared.config import DiffusionConfig
from ddpm_shared.oracle.diffusion import Array, make_schedule

SIGMA_MIN, SIGMA_MAX = 0.01, 50.0


def ddpm(config: DiffusionConfig, t: Array) -> tuple[Array, Array]:
    """The two roots of the schedule at the integer times t [N]. Source: Ho et al. 2020 (arXiv:2006.11239), eq. 4."""
    schedule, index = make_schedule(config), t.astype(int)
    return schedule["sqrt_alphas_cumprod"][index], schedule["sqrt_one_minus_alphas_cumprod"][index]


def vp(config: DiffusionConfig, t: Array) -> tuple[Array, Array]:
    """The variance-preserving SDE, with beta(s) linear from T beta_start to T beta_end.

    With B the integral of beta from 0 to t, alpha = exp(-B / 2) and sigma^2 = 1 - exp(-B) = 2 exp(-B / 2) sinh(B / 2).
    The quadrature is Gauss and Legendre's with two nodes, which is exact on lines.

    Source: Song et al. 2021 (arXiv:2011.13456), eq. 29 and 33.
    """
    start, end = config.beta_range
    nodes, weights = np.polynomial.legendre.leggauss(2)
    s = t[:, None] * (nodes + 1) / 2  # [N, 2]
    integral = t / 2 * ((config.timesteps * (start + (end - start) * s)) @ weights)
    return np.exp(-integral / 2), np.sqrt(2 * np.exp(-integral / 2) * np.sinh(integral / 2))


def ve(config: DiffusionConfig, t: Array) -> tuple[Array, Array]:
    """The variance-exploding SDE: sigma is geometric in t. Source: Song et al. 2021 (arXiv:2011.13456), eq. 30."""
    return t**0, SIGMA_MIN ** (1 - t) * SIGMA_MAX**t


def edm(config: DiffusionConfig, t: Array) -> tuple[Array, Array]:
    """The time is sigma. Source: Karras et al. 2022 (arXiv:2206.00364), table 1."""
    return t**0, t


def flow(config: DiffusionConfig, t: Array) -> tuple[Array, Array]:
    """From the image to the noise at constant speed. Source: Liu et al. 2023 (arXiv:2209.03003), eq. 1."""
    return 1 - t, t


PROCESSES: dict[str, Callable[[DiffusionConfig, Array], tuple[Array, Array]]] = {
    "ddpm": ddpm,
    "vp": vp,
    "ve": ve,
    "edm": edm,
    "flow": flow,
}


class Levels(NamedTuple):
    """Levels of x = alpha x_0 + sigma eps, ascending in noise."""

    alpha: Array  # [N]
    sigma: Array  # [N]
    times: Array  # [N]


def make_levels(config: DiffusionConfig, times: ArrayLike, process: str = "ddpm") -> Levels:
    """The levels of a process at some of its times [N]."""
    t = np.asarray(times, np.float64)
    return Levels(*PROCESSES[process](config, t), t)
