"""A diffusion process as two functions of time, x_t = alpha(t) x_0 + sigma(t) eps, and the levels a sampler visits.

engine.py is the discrete process of Ho et al. in their own terms. Here it is one of seven. Each follows a linear SDE,

    dx = f(t) x dt + g(t) dw,   f = alpha' / alpha,   g^2 = 2 sigma sigma' - 2 f sigma^2

with the derivatives alpha' and sigma' by t, which paths.py writes by hand. What two processes have in common is the
log-SNR, log(alpha^2 / sigma^2): where it is the same, x differs by a factor alone.

Mirror: ddpm_tf.processes.
"""

import math
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ddpm_shared.errors import UserError, choice
from ddpm_torch.config import DiffusionConfig, ProcessName
from ddpm_torch.paths import PROCESSES, RATES, TIMES

SNR_LAST = 0.999  # the last t of a grid in log-SNR of flow, which has none at t = 1


def log_snr(config: DiffusionConfig, t: Tensor, process: ProcessName) -> Tensor:
    """log(alpha^2 / sigma^2) at the times t [N] of a process.

    Source: Kingma et al. 2021 (arXiv:2107.00630), eq. 1.
    Mirror: ddpm_tf.processes.log_snr.
    """
    alpha, sigma = PROCESSES[process](config, t)
    return 2.0 * (torch.log(alpha) - torch.log(sigma))


def drift(config: DiffusionConfig, t: Tensor, process: ProcessName) -> Tensor:
    """f(t) = alpha' / alpha of the SDE dx = f x dt + g dw, [N].

    Source: Kingma et al. 2021 (arXiv:2107.00630), appendix B.
    Mirror: ddpm_tf.processes.drift.
    """
    return RATES[process](config, t)[0] / PROCESSES[process](config, t)[0]


def squared_diffusion(config: DiffusionConfig, t: Tensor, process: ProcessName) -> Tensor:
    """g(t)^2 = 2 sigma sigma' - 2 f sigma^2 of the SDE dx = f x dt + g dw, [N].

    Source: Kingma et al. 2021 (arXiv:2107.00630), appendix B.
    Mirror: ddpm_tf.processes.squared_diffusion.
    """
    _, sigma = PROCESSES[process](config, t)
    _, sigma_rate = RATES[process](config, t)
    return 2.0 * sigma * (sigma_rate - drift(config, t, process) * sigma)


def matched(
    config: DiffusionConfig, times: NDArray[np.float64], process: ProcessName, other: ProcessName
) -> NDArray[np.float64]:
    """The times of another process with the same log-SNR.

    Args:
        config: of both processes.
        times: [N], of `process`.
        process: any of PROCESSES.
        other: one whose time is continuous.

    Returns:
        [N].

    Source: Kingma et al. 2021 (arXiv:2107.00630), section 5.1.
    Mirror: ddpm_tf.processes.matched.
    """
    return TIMES[other](config, log_snr(config, torch.from_numpy(times), process)).numpy()


def times_at_ratio(config: DiffusionConfig, ratios: NDArray[np.float64], process: ProcessName) -> NDArray[np.float64]:
    """The times with sigma / alpha = `ratios` [N], of a process whose time is continuous.

    Mirror: ddpm_tf.processes.times_at_ratio.
    """
    return TIMES[process](config, torch.from_numpy(-2.0 * np.log(ratios))).numpy()


def prior_scale(config: DiffusionConfig, process: ProcessName) -> float:
    """The standard deviation of x_T: 1 where x_T is as large as an image, else sigma at the last t.

    Source: Song et al. 2021 (arXiv:2011.13456), appendix C; Karras et al. 2022 (arXiv:2206.00364), algorithm 1.
    Mirror: ddpm_tf.processes.prior_scale.
    """
    if process not in ("ve", "ve_exponential", "edm"):
        return 1.0
    last = torch.tensor([config.sigma_max if process == "edm" else 1.0], dtype=torch.float64)
    return float(PROCESSES[process](config, last)[1][0])


@dataclass(frozen=True)
class Levels:
    """N levels of noise that a sampler visits, from the least to the most: on the host, in float64.

    Step i of a sampler goes from level i to level i - 1; level -1 is the clean image, alpha = 1 and sigma = 0.

    Args:
        alpha: [N], the sizes of the signal, 0 or more.
        sigma: [N], the deviations of the noise, above 0.
        times: [N], the times of the process (default: 0 .. N - 1).
        alpha_rate: [N], the derivatives of alpha by t, for the samplers that integrate over t (default: none).
        sigma_rate: [N], those of sigma.
        ordered: whether they must ascend in noise, as those that a sampler visits one after the other.

    Raises:
        UserError: no level, not one sigma and time for each alpha, or levels that do not ascend in noise but should.

    Mirror: ddpm_tf.processes.Levels.
    """

    alpha: NDArray[np.float64]
    sigma: NDArray[np.float64]
    times: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    alpha_rate: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    sigma_rate: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    ordered: bool = True

    def __post_init__(self) -> None:
        alpha, sigma = (np.array(values, np.float64) for values in (self.alpha, self.sigma))
        times = np.array(self.times, np.float64) if np.size(self.times) else np.arange(len(alpha), dtype=np.float64)
        if not (alpha.ndim == 1 and len(alpha) > 0 and alpha.shape == sigma.shape == times.shape):
            shapes = ", ".join(str(values.shape) for values in (alpha, sigma, times))
            raise UserError(f"levels need one alpha, one sigma and one time each, not arrays of the shapes {shapes}")
        ascending = not self.ordered or (sigma[1:] * alpha[:-1] > sigma[:-1] * alpha[1:]).all()
        if not ((sigma > 0).all() and (alpha >= 0).all() and ascending):
            raise UserError("levels must ascend in noise: sort them so that sigma / alpha grows, with sigma above 0")
        rates = (("alpha_rate", self.alpha_rate), ("sigma_rate", self.sigma_rate))
        for name, values in (("alpha", alpha), ("sigma", sigma), ("times", times), *rates):
            object.__setattr__(self, name, values)

    def __len__(self) -> int:
        return len(self.alpha)

    def rates(self, i: int) -> tuple[float, float]:
        """The derivatives of alpha and sigma by t at level i, 0 .. N - 1. Raises UserError for levels without them."""
        if not len(self.alpha_rate) == len(self.sigma_rate) == len(self):
            raise UserError("these levels have no derivatives by t: take those of make_levels, of another process")
        return float(self.alpha_rate[i]), float(self.sigma_rate[i])

    def time(self, i: int) -> float:
        """The time of level i, -1 .. N - 1; that of the clean image is 0."""
        return 0.0 if i < 0 else float(self.times[i])

    def level(self, i: int) -> tuple[float, float]:
        """The sizes alpha and sigma at level i, -1 .. N - 1."""
        return (1.0, 0.0) if i < 0 else (float(self.alpha[i]), float(self.sigma[i]))

    def raised(self, i: int, alpha: float, sigma: float) -> "Levels":
        """The same levels, but for alpha and sigma of level i, 0 .. N - 1: where step i begins in more noise."""
        here = np.arange(len(self)) == i
        return replace(
            self, alpha=np.where(here, alpha, self.alpha), sigma=np.where(here, sigma, self.sigma), ordered=False
        )

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


def make_levels(
    config: DiffusionConfig, times: ArrayLike, process: ProcessName | None = None, ordered: bool = True
) -> Levels:
    """The levels of a process at some of its times.

    Args:
        config: of the process.
        times: [N], ascending.
        process: one of PROCESSES (default: that of config).
        ordered: as for Levels.

    Raises:
        UserError: an unknown process, or times that do not ascend but should.

    Mirror: ddpm_tf.processes.make_levels.
    """
    process = process or config.process
    choice("process", process, tuple(PROCESSES))
    t = np.array(times, np.float64)
    pairs = [table[process](config, torch.from_numpy(t)) for table in (PROCESSES, RATES) if process in table]
    (alpha, sigma), *rates = ([value.numpy() for value in pair] for pair in pairs)
    alpha_rate, sigma_rate = rates[0] if rates else (np.empty(0), np.empty(0))
    return Levels(alpha, sigma, t, alpha_rate, sigma_rate, ordered)


def make_grid(
    config: DiffusionConfig, steps: int, grid: str, process: ProcessName, rho: float = 7.0, shift: float = 1.0
) -> NDArray[np.float64]:
    """The times that the steps of a sampler visit, of a process whose time is continuous.

    uniform:  evenly from the first t to the last
    log_snr:  evenly in log(alpha^2 / sigma^2)
    karras:   evenly in (sigma / alpha)^(1 / rho)
    shifted:  t = s u / (1 + (s - 1) u),  u = 1/N, 2/N .. 1

    Args:
        config: of the process.
        steps: N.
        grid: "uniform", "log_snr", "karras" or "shifted".
        process: one of RATES; for "shifted" not edm.
        rho: of karras.
        shift: s of shifted; 1 leaves u as it is.

    Returns:
        [N], ascending; a single one is the last.

    Source: Karras et al. 2022 (arXiv:2206.00364), eq. 5; Esser et al. 2024 (arXiv:2403.03206), eq. 23, for the shift.
    Mirror: ddpm_tf.processes.make_grid.
    """
    first, last = config.sampling_span(process)
    if grid == "shifted":
        u = np.arange(1, steps + 1) / steps
        return shift * u / (1.0 + (shift - 1.0) * u)
    if process == "flow" and grid != "uniform":
        last = SNR_LAST
    part = np.linspace(0.0, 1.0, steps) if steps > 1 else np.ones(1)
    if grid == "uniform":
        return first + (last - first) * part
    begin, end = log_snr(config, torch.tensor([first, last], dtype=torch.float64), process).tolist()
    if grid == "log_snr":
        between = begin + (end - begin) * part
    else:
        root_begin, root_end = (math.exp(-each / (2.0 * rho)) for each in (begin, end))
        between = -2.0 * rho * np.log(root_begin + (root_end - root_begin) * part)
    return TIMES[process](config, torch.from_numpy(between)).numpy()
