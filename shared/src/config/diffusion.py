"""Settings of the diffusion process, and of what the network predicts."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from ddpm_shared.config.checks import is_real, positive, require, whole
from ddpm_shared.errors import choice

ScheduleName = Literal["linear", "scaled_linear", "quadratic", "cosine", "sigmoid"]
Prediction = Literal["eps", "x_0", "v", "mean"]
Variance = Literal["fixed_small", "fixed_large", "learned_range"]
LossWeighting = Literal["simple", "min_snr"]

TIMESTEPS = 1_000_000  # the rounding of float32 hides the steps of a longer process
SMALLEST_BETA = 1e-12  # 1 - beta keeps four digits of a smaller one in float64
# The smallest signal, as a logarithm: in float64 its square must be above 0; where a network predicts the noise or the
# mean, float32 divides by the signal (it ends at exp(-87)); and two losses then divide by the square.
IN_FLOAT64, DIVIDED_BY, DIVIDED_BY_SQUARE = -350.0, -85.0, -42.0

DIFFUSION_CHOICES = {
    "schedule": ScheduleName,
    "prediction": Prediction,
    "variance": Variance,
    "loss_weighting": LossWeighting,
}


@dataclass(frozen=True)
class DiffusionConfig:
    """The forward process, and what the network predicts."""

    schedule: ScheduleName = "linear"
    """Growth of beta with t. scaled_linear (of latent diffusion) and quadratic are the same: sqrt(beta) is linear."""
    timesteps: int = 1000
    """Number of diffusion steps, T. If it is not 1000, adapt the betas too, or use --rescale-betas."""
    beta_start: float = 1e-4
    """First beta, at t = 0. Not used by cosine."""
    beta_end: float = 0.02
    """Last beta, at t = T - 1. Not used by cosine."""
    rescale_betas: bool = False
    """Multiply both betas by 1000 / timesteps, so that a process of any length ends with about the same noise."""
    zero_terminal_snr: bool = False
    """Shift the schedule so that x_t is pure noise at t = T - 1."""
    prediction: Prediction = "eps"
    """Quantity that the network predicts: the noise, the image, the velocity v, or the mean of x_prev."""
    variance: Variance = "fixed_small"
    """Variance of a reverse step: the posterior's, beta, or learned between them (the loss then includes the bound)."""
    loss_weighting: LossWeighting = "simple"
    """Weighting of the loss over t: equal, or min(SNR, gamma) times the squared error of x_0."""
    min_snr_gamma: float = 5.0
    """Largest weight of min_snr, gamma."""

    def __post_init__(self) -> None:
        for name, kind in DIFFUSION_CHOICES.items():
            choice(name, getattr(self, name), get_args(kind))
        whole(self, "timesteps", least=2, most=TIMESTEPS)
        require(
            is_real(self.beta_start) and is_real(self.beta_end) and 0 < self.beta_start <= self.beta_end < 1,
            "--beta-start, --beta-end",
            (self.beta_start, self.beta_end),
            "must satisfy 0 < start <= end < 1",
        )
        require(
            self.beta_range[1] < 1,
            "--rescale-betas with --timesteps",
            self.timesteps,
            f"makes beta_end {self.beta_range[1]:g}, which must be below 1",
        )
        require(
            self.schedule == "cosine" or self.beta_range[0] >= SMALLEST_BETA,
            "--beta-start",
            self.beta_start,
            f"makes a step of {self.beta_range[0]:g}, which rounding swallows: it must be {SMALLEST_BETA:g} or more",
        )
        require(
            self.log_signal >= self._smallest_log_signal,
            "--timesteps",
            self.timesteps,
            f"leaves 10**{self.log_signal / math.log(10):.0f} of the image at t = T - 1, which is too little to "
            f"compute with: lower it or --beta-end {self.beta_end:g}, or use --rescale-betas",
        )
        require(
            not (self.zero_terminal_snr and self.prediction == "eps"),
            "--zero-terminal-snr with --prediction",
            self.prediction,
            "x_t is pure noise at t = T - 1, and from the noise alone no image follows; predict v or x_0",
        )
        positive(self, "min_snr_gamma")

    @property
    def beta_range(self) -> tuple[float, float]:
        """beta_start and beta_end as the schedules use them."""
        factor = 1000 / self.timesteps if self.rescale_betas else 1.0
        return factor * self.beta_start, factor * self.beta_end

    @property
    def log_signal(self) -> float:
        """What is left of the image at t = T - 1, log sqrt(alphas_cumprod); 0 for cosine, which always ends well.

        For a check only; the schedules themselves are schedules.py of a tree.
        """
        start, end = self.beta_range
        position = np.linspace(0.0, 1.0, min(self.timesteps, 1000))
        betas = {
            "linear": start + (end - start) * position,
            "sigmoid": start + (end - start) / (1 + np.exp(6 - 12 * position)),
            "cosine": np.zeros(1),
        }.get(self.schedule, (math.sqrt(start) + (math.sqrt(end) - math.sqrt(start)) * position) ** 2)
        return float(np.log1p(-betas).mean() * self.timesteps / 2)

    @property
    def _smallest_log_signal(self) -> float:
        if self.prediction in ("x_0", "v"):
            return IN_FLOAT64
        squared = self.variance == "learned_range" or self.loss_weighting == "min_snr"
        return DIVIDED_BY_SQUARE if squared else DIVIDED_BY
