"""A diffusion process as two functions of time, x_t = alpha(t) x_0 + sigma(t) eps, and the levels a sampler visits.

engine.py is the discrete process of Ho et al. in their own terms. Here it is one of five, and all samplers run on any.

Mirror: ddpm_tf.processes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ddpm_shared.errors import UserError, choice
from ddpm_torch.config import DiffusionConfig
from ddpm_torch.engine import make_schedule

SIGMA_MIN, SIGMA_MAX = 0.01, 50.0  # of ve; no two images of Fashion-MNIST are more than 45 apart


def ddpm(config: DiffusionConfig, t: Tensor) -> tuple[Tensor, Tensor]:
    """The discrete process of the schedule, alpha = sqrt(alphas_cumprod[t]), sigma = sqrt(1 - alphas_cumprod[t]).

    Args:
        config: of the schedule.
        t: [N] the integers 0 .. T - 1, of any type.

    Returns:
        alpha and sigma, [N] float64.

    Source: Ho et al. 2020 (arXiv:2006.11239), eq. 4.
    Mirror: ddpm_tf.processes.ddpm.
    """
    schedule = make_schedule(config, torch.float64)
    index = t.long()
    return schedule.sqrt_alphas_cumprod[index], schedule.sqrt_one_minus_alphas_cumprod[index]


def vp(config: DiffusionConfig, t: Tensor) -> tuple[Tensor, Tensor]:
    """The variance-preserving SDE: the limit of the linear schedule for ever more steps.

    log alpha = -(beta_max - beta_min) t^2 / 4 - beta_min t / 2,  sigma = sqrt(1 - alpha^2)

    Args:
        config: beta_min and beta_max are beta_start and beta_end times T.
        t: [N] float64, 0 .. 1.

    Returns:
        alpha and sigma, [N] float64.

    Source: Song et al. 2021 (arXiv:2011.13456), eq. 33.
    Mirror: ddpm_tf.processes.vp.
    """
    beta_min, beta_max = (config.timesteps * beta for beta in config.beta_range)
    log_alpha = -(beta_max - beta_min) * t**2 / 4.0 - beta_min * t / 2.0
    return torch.exp(log_alpha), torch.sqrt(-torch.expm1(2.0 * log_alpha))


def ve(config: DiffusionConfig, t: Tensor) -> tuple[Tensor, Tensor]:
    """The variance-exploding SDE: alpha = 1, sigma = sigma_min (sigma_max / sigma_min)^t.

    Args:
        config: not used.
        t: [N] float64, 0 .. 1.

    Returns:
        alpha and sigma, [N] float64.

    Source: Song et al. 2021 (arXiv:2011.13456), eq. 30.
    Mirror: ddpm_tf.processes.ve.
    """
    return torch.ones_like(t), SIGMA_MIN * torch.exp(math.log(SIGMA_MAX / SIGMA_MIN) * t)


def edm(config: DiffusionConfig, t: Tensor) -> tuple[Tensor, Tensor]:
    """Time is the deviation of the noise: alpha = 1, sigma = t.

    Args:
        config: not used.
        t: [N] float64, above 0.

    Returns:
        alpha and sigma, [N] float64.

    Source: Karras et al. 2022 (arXiv:2206.00364), table 1.
    Mirror: ddpm_tf.processes.edm.
    """
    return torch.ones_like(t), t


def flow(config: DiffusionConfig, t: Tensor) -> tuple[Tensor, Tensor]:
    """A straight line from the image, t = 0, to the noise, t = 1: alpha = 1 - t, sigma = t.

    Args:
        config: not used.
        t: [N] float64, 0 .. 1.

    Returns:
        alpha and sigma, [N] float64.

    Source: Liu et al. 2023 (arXiv:2209.03003), eq. 1; Lipman et al. 2023 (arXiv:2210.02747), with their time reversed.
    Mirror: ddpm_tf.processes.flow.
    """
    return 1.0 - t, t


# (config, t) -> (alpha, sigma)
PROCESSES: dict[str, Callable[[DiffusionConfig, Tensor], tuple[Tensor, Tensor]]] = {
    "ddpm": ddpm,
    "vp": vp,
    "ve": ve,
    "edm": edm,
    "flow": flow,
}


@dataclass(frozen=True)
class Levels:
    """N levels of noise that a sampler visits, from the least to the most: on the host, in float64.

    Step i of a sampler goes from level i to level i - 1; level -1 is the clean image, alpha = 1 and sigma = 0.

    Args:
        alpha: [N], the sizes of the signal, 0 or more.
        sigma: [N], the deviations of the noise, above 0.
        times: [N], the times of the process (default: 0 .. N - 1).

    Raises:
        UserError: no level, not one sigma and time for each alpha, or levels that do not ascend in noise.

    Mirror: ddpm_tf.processes.Levels.
    """

    alpha: NDArray[np.float64]
    sigma: NDArray[np.float64]
    times: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    def __post_init__(self) -> None:
        alpha, sigma = (np.array(values, np.float64) for values in (self.alpha, self.sigma))
        times = np.array(self.times, np.float64) if np.size(self.times) else np.arange(len(alpha), dtype=np.float64)
        if not (alpha.ndim == 1 and len(alpha) > 0 and alpha.shape == sigma.shape == times.shape):
            shapes = ", ".join(str(values.shape) for values in (alpha, sigma, times))
            raise UserError(f"levels need one alpha, one sigma and one time each, not arrays of the shapes {shapes}")
        if not ((sigma > 0).all() and (alpha >= 0).all() and (sigma[1:] * alpha[:-1] > sigma[:-1] * alpha[1:]).all()):
            raise UserError("levels must ascend in noise: sort them so that sigma / alpha grows, with sigma above 0")
        for name, values in (("alpha", alpha), ("sigma", sigma), ("times", times)):
            object.__setattr__(self, name, values)

    def __len__(self) -> int:
        return len(self.alpha)

    def level(self, i: int) -> tuple[float, float]:
        """The sizes alpha and sigma at level i, -1 .. N - 1."""
        return (1.0, 0.0) if i < 0 else (float(self.alpha[i]), float(self.sigma[i]))

    def decay(self, i: int) -> float:
        """exp(-h) of step i, h = lambda_prev - lambda the way in lambda = log(alpha / sigma).

        exp(-h) = alpha sigma_prev / (alpha_prev sigma): a quotient, without a logarithm, and finite at both ends.
        """
        (alpha, sigma), (alpha_prev, sigma_prev) = self.level(i), self.level(i - 1)
        return alpha * sigma_prev / (alpha_prev * sigma)

    def step(self, i: int) -> float:
        """H of step i, 0 .. N - 1: infinite where it begins in pure noise or ends in the clean image."""
        decay = self.decay(i)
        return -math.log(decay) if decay > 0.0 else math.inf


def make_levels(config: DiffusionConfig, times: ArrayLike, process: str = "ddpm") -> Levels:
    """The levels of a process at some of its times.

    Args:
        config: of the process.
        times: [N], ascending.
        process: one of PROCESSES.

    Raises:
        UserError: an unknown process, or times that do not ascend.

    Mirror: ddpm_tf.processes.make_levels.
    """
    choice("process", process, tuple(PROCESSES))
    t = np.array(times, np.float64)
    alpha, sigma = PROCESSES[process](config, torch.from_numpy(t))
    return Levels(alpha.numpy(), sigma.numpy(), t)
