"""Settings of the diffusion process, and of what the network predicts."""

import math
from dataclasses import dataclass, fields, replace
from typing import Annotated, Literal, get_args

import numpy as np

from ddpm_shared.config.checks import between, flag, is_real, positive, require, whole
from ddpm_shared.config.help import default_is
from ddpm_shared.config.processes import PROCESS_FACTS, TRAINING_FIRST, ProcessName
from ddpm_shared.errors import choice

ScheduleName = Literal["linear", "scaled_linear", "quadratic", "cosine", "sigmoid"]
Prediction = Literal["eps", "x_0", "v", "mean", "score", "velocity", "F"]
Variance = Literal["fixed_small", "fixed_large", "learned_range"]
LossWeighting = Literal["simple", "noise", "min_snr", "likelihood", "edm", "flow"]
PreconditioningName = Literal["none", "score_sde", "edm"]
TimeDensity = Literal["uniform", "log_normal", "logit_normal", "shifted"]

TIMESTEPS = 1_000_000  # the rounding of float32 hides the steps of a longer process
SMALLEST_BETA = 1e-12  # 1 - beta keeps four digits of a smaller one in float64
# The smallest signal, as a logarithm: in float64 its square must be above 0; where a network predicts the noise or the
# mean, float32 divides by the signal (it ends at exp(-87)); and two losses then divide by the square.
IN_FLOAT64, DIVIDED_BY, DIVIDED_BY_SQUARE = -350.0, -85.0, -42.0

SIGMAS = 1e-6, 1e6  # images are from -1 to 1
FACTORS = 1e-3, 1e3  # beyond, all times are one
LARGEST_SCALE = 1e6  # of t

DIFFUSION_CHOICES = {
    "process": ProcessName,
    "schedule": ScheduleName,
    "prediction": Prediction,
    "variance": Variance,
    "loss_weighting": LossWeighting,
    "preconditioning": PreconditioningName,
    "time_density": TimeDensity,
}


@dataclass(frozen=True)
class DiffusionConfig:
    """The forward process, and what the network predicts. The schedule is ddpm's; its betas times T are vp's."""

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
    """Quantity that the network predicts: the noise, the image, v, the mean of x_prev, the score, flow matching's
    velocity, or EDM's F."""
    variance: Variance = "fixed_small"
    """Variance of a reverse step: the posterior's, beta, or learned between them (the loss then includes the bound)."""
    loss_weighting: LossWeighting = "simple"
    """Weighting of the loss over t: simple is equal for the squared error of the prediction, noise for that of eps, and
    flow for that of the velocity; min_snr is min(SNR, gamma) for that of x_0, edm EDM's lambda for it, and likelihood
    g^2 for that of the score."""
    min_snr_gamma: float = 5.0
    """Largest weight of min_snr, gamma."""
    process: ProcessName = "ddpm"
    """Forward process. It brings its own prediction, preconditioning, weighting, density of t, grid and sampler."""
    preconditioning: PreconditioningName = "none"
    """Scaling of the network's input and output: none, the output divided by sigma (score_sde), or EDM's."""
    sigma_data: Annotated[float | None, default_is("measured")] = None
    """Standard deviation of the pixels in [-1, 1]: for EDM's preconditioning and weighting."""
    sigma_min: float = 0.01
    """Smallest deviation of the noise of ve and edm."""
    sigma_max: float = 50.0
    """Largest deviation of the noise of ve and edm, and s of ve_exponential."""
    time_density: TimeDensity = "uniform"
    """Density of t in training: uniform, log-normal (for edm), logit-normal, or uniform and then shifted to noise."""
    density_mean: float = 0.0
    """Mean of log(t) of log_normal, and of log(t / (1 - t)) of logit_normal."""
    density_deviation: float = 1.0
    """Standard deviation of the same."""
    density_shift: float = 3.0
    """Shift of shifted, s: t = s u / (1 + (s - 1) u), u uniform."""
    stratified: bool = False
    """Draw one t of a batch in each of batch-size equal parts of the density, so that none is left out."""
    time_scale: float = 1.0
    """Factor of t on its way into the network."""

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
            not (self.zero_terminal_snr and self.prediction in ("eps", "score")),
            "--zero-terminal-snr with --prediction",
            self.prediction,
            "x_t is pure noise at t = T - 1, and from the noise alone no image follows; predict v or x_0",
        )
        positive(self, "min_snr_gamma")
        self._check_continuous()

    def _check_continuous(self) -> None:
        between(self, *SIGMAS, "sigma_data", "sigma_min", "sigma_max")
        between(self, -100.0, 100.0, "density_mean")
        between(self, *FACTORS, "density_deviation", "density_shift")
        positive(self, "time_scale", most=LARGEST_SCALE)
        discrete, process = self.process == "ddpm", f"--process {self.process}"
        require(
            self.sigma_min < self.sigma_max,
            "--sigma-min, --sigma-max",
            (self.sigma_min, self.sigma_max),
            "the first must be below the second",
        )
        require(
            self.process != "ve_exponential" or self.sigma_max > 1,
            "--sigma-max",
            self.sigma_max,
            "is s of ve_exponential, whose noise grows as s^t: it must be above 1",
        )
        # What only the discrete process has.
        for name in OF_DDPM:
            value = getattr(self, name)
            require(
                discrete or value == DEFAULTS[name],
                f"{process} with {flag(name)}",
                value,
                "is an option of --process ddpm",
            )
        require(
            discrete or self.prediction != "mean",
            f"{process} with --prediction",
            self.prediction,
            "the mean of x_prev is of a chain of steps, which --process ddpm alone has",
        )
        # What only the continuous ones have.
        for name in OF_CONTINUOUS:
            value = getattr(self, name)
            require(
                not discrete or value == DEFAULTS[name] or (name == "sigma_data" and self.prediction == "F"),
                f"{process} with {flag(name)}",
                value,
                "is an option of the other processes, whose time is continuous",
            )
        require(
            not discrete or self.loss_weighting not in ("likelihood", "edm"),
            f"{process} with --loss-weighting",
            self.loss_weighting,
            "is an option of the other processes, whose time is continuous",
        )
        require(
            self.process != "flow" or self.prediction not in ("eps", "score"),
            f"{process} with --prediction",
            self.prediction,
            "x_t is pure noise at t = 1, and from the noise alone no image follows; predict velocity, v, x_0 or F",
        )
        require(
            self.process != "flow" or self.loss_weighting != "likelihood",
            f"{process} with --loss-weighting",
            self.loss_weighting,
            "it is g^2, which is infinite for flow at t = 1; take flow, noise or simple",
        )
        require(
            (self.time_density == "log_normal") == (self.process == "edm") or self.time_density == "uniform",
            f"{process} with --time-density",
            self.time_density,
            "edm's t is a deviation, from 0 up, for uniform and log_normal; that of the others is from 0 to 1, for "
            "uniform, logit_normal and shifted",
        )
        require(
            self.preconditioning != "score_sde" or self.prediction == "score",
            f"--preconditioning {self.preconditioning} with --prediction",
            self.prediction,
            "it divides the output by sigma, which makes a score of it: add --prediction score",
        )
        require(
            self.preconditioning != "edm" or self.prediction in ("x_0", "F"),
            f"--preconditioning {self.preconditioning} with --prediction",
            self.prediction,
            "it makes x_0 of the output, or leaves F as it is: add --prediction x_0 or F",
        )
        require(
            self.preconditioning != "edm" or self.process != "flow",
            f"{process} with --preconditioning",
            self.preconditioning,
            "it gives the network log(sigma / alpha), which is infinite at t = 1",
        )

    @property
    def needs_sigma_data(self) -> bool:
        """Whether the deviation of the data enters the loss or the network."""
        return self.prediction == "F" or "edm" in (self.preconditioning, self.loss_weighting)

    @property
    def training_span(self) -> tuple[float, float]:
        """The smallest and the largest t of training, of a continuous process."""
        return (self.sigma_min, self.sigma_max) if self.process == "edm" else (TRAINING_FIRST, 1.0)

    def sampling_span(self, process: ProcessName) -> tuple[float, float]:
        """The smallest t above 0 and the largest of sampling in a continuous process."""
        return (self.sigma_min, self.sigma_max) if process == "edm" else (PROCESS_FACTS[process].first, 1.0)

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
        if self.prediction in ("x_0", "v", "velocity", "F"):
            return IN_FLOAT64
        squared = self.variance == "learned_range" or self.loss_weighting == "min_snr"
        return DIVIDED_BY_SQUARE if squared else DIVIDED_BY


DEFAULTS = {field.name: field.default for field in fields(DiffusionConfig)}
OF_DDPM = ("schedule", "rescale_betas", "zero_terminal_snr", "variance")  # and of no other process
OF_CONTINUOUS = ("preconditioning", "sigma_data", "time_density", "stratified", "time_scale")  # and not of ddpm
CONTINUOUS_SETTINGS = (
    "process",
    *OF_CONTINUOUS,
    "sigma_min",
    "sigma_max",
    "density_mean",
    "density_deviation",
    "density_shift",
)


def with_process(config: DiffusionConfig, process: ProcessName) -> DiffusionConfig:
    """`config` in another process, with the settings that come with it.

    Args:
        config: its timesteps and betas stay, of which vp is made.
        process: one of PROCESS_FACTS.

    Raises:
        UserError: an unknown process, or settings that do not go with it.
    """
    choice("process", process, tuple(PROCESS_FACTS))
    own = {name: DEFAULTS[name] for facts in PROCESS_FACTS.values() for name, _ in facts.settings}
    return replace(config, **{**own, "process": process, **dict(PROCESS_FACTS[process].settings)})
