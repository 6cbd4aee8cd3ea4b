"""The oracle of training and predicting in a process whose time is continuous, in float64 NumPy.

It goes another way than the trees: the factors of the preconditioning follow from the demands of the paper, which are
about variances; a time is found where the distribution function has the value u; a weight is a function of the log-SNR.
"""

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddpm_shared.config import DiffusionConfig
from ddpm_shared.oracle import prediction
from ddpm_shared.oracle.diffusion import Array, Schedule, Timesteps, q_sample
from ddpm_shared.oracle.prediction import Network, Predicted, best_estimate
from ddpm_shared.oracle.processes import PROCESSES, log_snr
from ddpm_shared.oracle.weights import error_weight

COMPLEX_STEP = 1e-40  # in NumPy's longest float; its square is nothing beside 1
HALVINGS = 200  # of an interval: more than the digits of any float


def levels_of(config: DiffusionConfig, t: Array) -> tuple[Schedule, Timesteps]:
    """The levels of images at their times t [B], as a schedule of B steps, of which each image has its own.

    So the formulas of prediction.py serve every process.
    """
    alpha, sigma = PROCESSES[config.process](config, np.asarray(t, np.float64))
    schedule = {"sqrt_alphas_cumprod": alpha, "sqrt_one_minus_alphas_cumprod": sigma}
    return schedule, np.arange(len(alpha))


class Preconditioning(NamedTuple):
    """The factors, [B] each."""

    skip: Array
    out: Array
    scale: Array
    time: Array


def preconditioning(config: DiffusionConfig, t: Array) -> Preconditioning:
    """The factors c_skip, c_out, c_in and c_noise of the images at their times t [B].

    EDM's demands, for any alpha: the input of the network has the deviation 1; so has what it is to predict, which is
    the error of the best estimate of x_0 from x_t; and the time that it is given is a quarter of log(sigma / alpha),
    an eighth of the log-SNR, negative. F is that error itself.

    Source: Karras et al. 2022 (arXiv:2206.00364), appendix B.6; Song et al. 2021 (arXiv:2011.13456), appendix A.
    """
    t = np.asarray(t, np.float64)
    alpha, sigma = PROCESSES[config.process](config, t)
    zero, one = np.zeros(len(t)), np.ones(len(t))
    if config.preconditioning == "none":
        return Preconditioning(zero, one, one, config.time_scale * t)
    if config.preconditioning == "score_sde":
        return Preconditioning(zero, one / sigma, one, config.time_scale * t)
    assert config.sigma_data is not None
    time = -config.time_scale * log_snr(config, t, config.process) / 8
    scale = 1 / np.hypot(alpha * config.sigma_data, sigma)
    skip, out = (zero, one) if config.prediction == "F" else best_estimate(alpha, sigma, config.sigma_data)
    return Preconditioning(skip, out, scale, time)


def precondition(network: Network, config: DiffusionConfig) -> Network:
    """The network with its preconditioning around it: (x_t [B, ...], t [B]) -> output."""

    def preconditioned(x_t: Array, t: Array) -> Array:
        factors = preconditioning(config, t)
        skip, out, scale = (each.reshape(-1, *[1] * (x_t.ndim - 1)) for each in factors[:3])
        return skip * x_t + out * network(scale * x_t, factors.time)

    return preconditioned


def times_of(config: DiffusionConfig, u: Array) -> Array:
    """The times whose distribution function is u [B], found by bisection.

    The distribution functions are those of the densities: of an even one; of a normal one of log t, or of the log-odds
    of t; and of an even one of the odds of t over s. Of the two normal ones, the distribution of the standard normal
    number is inverted by a rational approximation, Wichura's, and only log t or the log-odds by bisection.

    Source: Karras et al. 2022 (arXiv:2206.00364), table 1; Esser et al. 2024 (arXiv:2403.03206), section 3.1, eq. 23.
    """
    first, last = config.training_span
    density, shift = config.time_density, np.longdouble(config.density_shift)
    if density in ("log_normal", "logit_normal"):
        normal = NormalDist(config.density_mean, config.density_deviation)
        quantiles = np.array([normal.inv_cdf(float(each)) for each in u], np.longdouble)
        if density == "log_normal":
            return np.asarray(_solve(np.log, quantiles, 0.0, 1e8), np.float64)
        t = _solve(lambda t: np.log(t / (1 - t)), quantiles, 0.0, 1.0)
        return np.asarray(np.minimum(np.maximum(t, first), last), np.float64)

    def even(t: Array) -> Array:
        return (t - first) / (last - first)

    if density == "uniform":
        return np.asarray(_solve(even, np.asarray(u, np.longdouble), first, last), np.float64)
    # of the odds t / (1 - t), a shift makes s times as many
    t = _solve(lambda t: even(t / (shift - (shift - 1) * t)), np.asarray(u, np.longdouble), 0.0, 1.0)
    return np.asarray(t, np.float64)


def _solve(function: Callable[[Any], Any], wanted: NDArray[Any], low: float, high: float) -> NDArray[Any]:
    """Where a growing function has the values `wanted` [B], between two numbers."""
    below, above = np.full_like(wanted, low), np.full_like(wanted, high)
    for _ in range(HALVINGS):
        middle = (below + above) / 2
        with np.errstate(divide="ignore"):
            less = function(middle) < wanted
        below, above = np.where(less, middle, below), np.where(less, above, middle)
    return (below + above) / 2


def weights_of(config: DiffusionConfig, t: Array) -> Array:
    """The weights of the squared errors of the output at the times t [B].

    That of the likelihood needs the derivative of the log-SNR: Im f(t + ih) / h, from which nothing is taken away.

    Source: Kingma and Gao 2023 (arXiv:2303.00848), table 1; Squire and Trapp 1998.
    """
    h = np.longdouble(COMPLEX_STEP)
    falling = -log_snr(config, np.asarray(t, np.longdouble) + 1j * h, config.process).imag / h
    return error_weight(*_with(config, t), falling.astype(np.float64))


def _with(config: DiffusionConfig, t: Array) -> tuple[Schedule, DiffusionConfig, Timesteps]:
    schedule, index = levels_of(config, t)
    return schedule, config, index


def training_loss(network: Network, x_0: Array, u: Array, eps: Array, config: DiffusionConfig) -> float:
    """The weighted mean square of the error of the preconditioned network.

    Args:
        network: (c_in x_t, c_noise) -> output, like x_t.
        x_0: [B, ..., C].
        u: [B], uniform numbers of which the times are made.
        eps: like x_0.
        config: all of it that is about the process, the network and the loss.
    """
    t = times_of(config, u)
    schedule, index = levels_of(config, t)
    x_t = q_sample(schedule, x_0, index, eps)
    aim = prediction.target(schedule, config.prediction, x_0, x_t, index, eps, config.sigma_data or 1.0)
    error = (aim - precondition(network, config)(x_t, t)).reshape(len(t), -1)
    squares = np.einsum("bd,bd->b", error, error) / error.shape[1]
    return math.fsum(weights_of(config, t) * squares) / len(t)


class Regression(NamedTuple):
    """What the network inside its preconditioning is trained on: weights (aim - network(x, time))^2."""

    x: Array  # [B, ..., C]
    time: Array  # [B]
    aim: Array  # like x
    weights: Array  # [B, 1, ...]


def regression(x_0: Array, u: Array, eps: Array, config: DiffusionConfig) -> Regression:
    """The loss as one of the network inside: what it is given, what it should predict, and how much each image counts.

    Arguments as of `training_loss`, whose value is the mean of these errors.

    Source: Karras et al. 2022 (arXiv:2206.00364), eq. 8.
    """
    t = times_of(config, u)
    schedule, index = levels_of(config, t)
    x_t = q_sample(schedule, x_0, index, eps)
    aim = prediction.target(schedule, config.prediction, x_0, x_t, index, eps, config.sigma_data or 1.0)
    factors = preconditioning(config, t)
    of_images = (-1, *[1] * (x_0.ndim - 1))
    skip, out, scale, weights = (each.reshape(of_images) for each in (*factors[:3], weights_of(config, t)))
    return Regression(scale * x_t, factors.time, (aim - skip * x_t) / out, weights * out**2)


def denoise(
    network: Network,
    config: DiffusionConfig,
    x_t: Array,
    t: Array,
    clip_x_0: bool = True,
    dynamic_threshold: float | None = None,
) -> Predicted:
    """All that is predicted of x_t [B, ..., C] at its times t [B], by a network without its preconditioning."""
    schedule, index = levels_of(config, t)
    preconditioned = precondition(network, config)
    return prediction.denoise(
        schedule, lambda x, i: preconditioned(x, t), config, x_t, index, clip_x_0, dynamic_threshold
    )
