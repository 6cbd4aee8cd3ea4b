"""The oracle of what a network may predict, in float64 NumPy.

A network predicts the noise, the image, v, the mean of x_prev, the score, flow's velocity or EDM's F, and perhaps the
variance of x_prev. Each has its own formula here, where the trees have one for all: v and F turn a complex number, the
mean is one of two points of a straight line, the score is Tweedie's.

A process whose time is continuous is given as a schedule of as many steps as there are images: continuous.py.

Images are [B, ..., C], channels last.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, assert_never

import numpy as np

from ddpm_shared.config import DiffusionConfig, Prediction
from ddpm_shared.oracle.diffusion import Array, Schedule, Timesteps, at, q_posterior

Network = Callable[[Array, Any], Array]


class Predicted(NamedTuple):
    """What is predicted of x_t: the image in it, the noise in it, and where the variance of x_prev lies."""

    x_0: Array  # [B, ..., C]
    eps: Array  # [B, ..., C]
    fraction: Array  # broadcasts to them; of the way from the posterior's log-variance (0) to log betas (1)


def rotation_at(schedule: Schedule, t: Timesteps, x: Array) -> Array:
    """exp(1j phi) = sqrt(alphas_cumprod) + 1j sqrt(1 - alphas_cumprod), by which x_t + 1j v is turned [B, 1, ...].

    In general alpha + 1j sigma, whose length need not be 1.
    """
    return at(schedule, "sqrt_alphas_cumprod", t, x) + 1j * at(schedule, "sqrt_one_minus_alphas_cumprod", t, x)


def _pair_of_f(schedule: Schedule, x_t: Array, t: Timesteps, output: Array, sigma_data: float) -> Any:
    """The complex x_0 / sigma_data + 1j eps that F implies, for data of that deviation.

    With z = alpha sigma_data + 1j sigma this number, turned by conj(z), is x_t - 1j |z| F: F is what x_t, in its
    deviations, does not know of it.

    Source: Karras et al. 2022 (arXiv:2206.00364), appendix B.6, for any alpha.
    """
    z = _z(schedule, t, x_t, sigma_data)
    return (x_t - 1j * np.abs(z) * output) / z.conj()


def _z(schedule: Schedule, t: Timesteps, x: Array, sigma_data: float) -> Any:
    rotation = rotation_at(schedule, t, x)
    return sigma_data * rotation.real + 1j * rotation.imag


def to_x_0(
    schedule: Schedule, prediction: Prediction, x_t: Array, t: Timesteps, output: Array, sigma_data: float = 1.0
) -> Array:
    """The x_0 that the network's output implies.

        eps    (x_t - sqrt(1 - alphas_cumprod) eps) / sqrt(alphas_cumprod)
        x_0    itself
        v      the real part of (x_t + 1j v) exp(1j phi), which is x_0 + 1j eps
        mean   the posterior's mean is a straight line in x_0: where on it the output lies
        score  (x_t + sigma^2 score) / alpha, Tweedie's formula
        velocity  x_0 of x_t = (alpha + sigma) x_0 + sigma velocity
        F      the real part of `_pair_of_f`, times sigma_data

    Args:
        schedule: of `make_schedule`.
        prediction: what the output is.
        x_t: [B, ...].
        t: [B], 0 <= t < T; for eps and score, where some signal is left.
        output: like x_t.
        sigma_data: the deviation of the data, for F.

    Returns:
        x_0_pred, like x_t, not clipped.

    Raises:
        IndexError: t out of range, here and in all that follows.

    Source: Ho et al. 2020 (arXiv:2006.11239), eqs. 4, 7; Salimans and Ho 2022 (arXiv:2202.00512), appendix D; Efron
    2011; Karras et al. 2022 (arXiv:2206.00364), appendix B.6.
    """
    x_t, output = np.asarray(x_t, np.float64), np.asarray(output, np.float64)
    match prediction:
        case "eps":
            rotation = rotation_at(schedule, t, x_t)
            return (x_t - rotation.imag * output) / rotation.real
        case "x_0":
            return output
        case "v":
            return ((x_t + 1j * output) / rotation_at(schedule, t, x_t).conj()).real
        case "mean":
            intercept, _, _ = q_posterior(schedule, np.zeros_like(x_t), x_t, t)
            slope, _, _ = q_posterior(schedule, np.ones_like(x_t), np.zeros_like(x_t), t)
            return (output - intercept) / slope
        case "score":
            rotation = rotation_at(schedule, t, x_t)
            return (x_t + rotation.imag**2 * output) / rotation.real
        case "velocity":
            rotation = rotation_at(schedule, t, x_t)
            return (x_t - rotation.imag * output) / (rotation.real + rotation.imag)
        case "F":
            return sigma_data * _pair_of_f(schedule, x_t, t, output, sigma_data).real
        case _:
            assert_never(prediction)


def to_eps(
    schedule: Schedule, prediction: Prediction, x_t: Array, t: Timesteps, output: Array, sigma_data: float = 1.0
) -> Array:
    """The noise that the network's output implies: what of x_t is not the x_0 it implies, in deviations.

        eps    itself
        v      the imaginary part of (x_t + 1j v) exp(1j phi)
        score  -sigma score
        velocity  x_0 + velocity
        F      the imaginary part of `_pair_of_f`
        else   (x_t - sqrt(alphas_cumprod) x_0_pred) / sqrt(1 - alphas_cumprod)

    Args:
        schedule: of `make_schedule`.
        prediction: what the output is.
        x_t: [B, ...].
        t: [B], any.
        output: like x_t.
        sigma_data: the deviation of the data, for F.

    Returns:
        eps_pred, like x_t.

    Source: Ho et al. 2020 (arXiv:2006.11239), eq. 4; Salimans and Ho 2022 (arXiv:2202.00512), appendix D.
    """
    x_t, output = np.asarray(x_t, np.float64), np.asarray(output, np.float64)
    match prediction:
        case "eps":
            return output
        case "v":
            return ((x_t + 1j * output) / rotation_at(schedule, t, x_t).conj()).imag
        case "score":
            return -rotation_at(schedule, t, x_t).imag * output
        case "velocity":
            return to_x_0(schedule, prediction, x_t, t, output) + output
        case "F":
            return _pair_of_f(schedule, x_t, t, output, sigma_data).imag
        case "x_0" | "mean":
            return _noise_in(schedule, x_t, t, to_x_0(schedule, prediction, x_t, t, output))
        case _:
            assert_never(prediction)


def _noise_in(schedule: Schedule, x_t: Array, t: Timesteps, x_0: Array) -> Array:
    """`q_sample` solved for eps."""
    rotation = rotation_at(schedule, t, x_t)
    return (x_t - rotation.real * x_0) / rotation.imag


def target(
    schedule: Schedule,
    prediction: Prediction,
    x_0: Array,
    x_t: Array,
    t: Timesteps,
    eps: Array,
    sigma_data: float = 1.0,
) -> Array:
    """The output of a perfect network at x_t = q_sample(x_0, t, eps).

    v = sqrt(alphas_cumprod) eps - sqrt(1 - alphas_cumprod) x_0 is the imaginary part of (x_0 + 1j eps) exp(-1j phi),
    whose real part is x_t. The score is the slope of log N(x_t; alpha x_0, sigma^2). F turns as v,
    in units of the data: `_pair_of_f`.

    Args:
        schedule: of `make_schedule`.
        prediction: what the network predicts.
        x_0: [B, ...].
        x_t: like x_0.
        t: [B].
        eps: like x_0.
        sigma_data: the deviation of the data, for F.

    Returns:
        Like x_0.

    Source: Ho et al. 2020 (arXiv:2006.11239), section 3.2; Salimans and Ho 2022 (arXiv:2202.00512), section 4.
    """
    x_0, eps = np.asarray(x_0, np.float64), np.asarray(eps, np.float64)
    match prediction:
        case "eps":
            return eps
        case "x_0":
            return x_0
        case "v":
            return ((x_0 + 1j * eps) * rotation_at(schedule, t, x_0).conj()).imag
        case "mean":
            return q_posterior(schedule, x_0, x_t, t)[0]
        case "score":
            return -eps / rotation_at(schedule, t, x_0).imag
        case "velocity":
            return eps - x_0
        case "F":
            z = _z(schedule, t, x_0, sigma_data)
            return -((x_0 / sigma_data + 1j * eps) * z.conj()).imag / np.abs(z)
        case _:
            assert_never(prediction)


def best_estimate(alpha: Array, sigma: Array, sigma_data: float) -> tuple[Array, Array]:
    """How x_0 is best estimated from x_t = alpha x_0 + sigma eps: the factor of x_t, and the deviation of the error.

    x_t / alpha measures x_0 with the precision (alpha / sigma)^2, and before it was measured its precision was
    1 / sigma_data^2. So these are Karras et al.'s c_skip and c_out: of all c_skip, the one that leaves the least for
    the network to predict, and a c_out that makes it of deviation 1.

    Args:
        alpha: of any shape, 0 or more.
        sigma: like alpha, above 0.
        sigma_data: deviation of x_0.

    Source: Karras et al. 2022 (arXiv:2206.00364), appendix B.6.
    """
    precision = 1 / sigma_data**2 + (alpha / sigma) ** 2
    return alpha / sigma**2 / precision, 1 / np.sqrt(precision)


def limit(x_0: Array, clip_x_0: bool, dynamic_threshold: float | None) -> Array:
    """x_0 as an image may be: clipped to [-1, 1], or measured in its own s and then clipped.

    s is the quantile of |x_0| in each image, 1 at least. Clipping x_0 / s to [-1, 1] is clipping x_0 to [-s, s] and
    dividing by s.

    Args:
        x_0: [B, ...].
        clip_x_0: whether to clip at all, if there is no threshold.
        dynamic_threshold: which quantile, in (0, 1]; it wins over clip_x_0.

    Returns:
        Like x_0.

    Source: Saharia et al. 2022 (arXiv:2205.11487), section 2.3.
    """
    x_0 = np.asarray(x_0, np.float64)
    if dynamic_threshold is None:
        return np.clip(x_0, -1, 1) if clip_x_0 else x_0
    s = np.quantile(np.abs(x_0.reshape(len(x_0), -1)), dynamic_threshold, axis=1)
    return np.clip(x_0 / np.maximum(1, s).reshape(-1, *[1] * (x_0.ndim - 1)), -1, 1)


def split(config: DiffusionConfig, output: Array, t: Timesteps) -> tuple[Array, Array]:
    """The network's prediction, and where the variance of x_prev lies, as `Predicted.fraction`.

        fixed_small     0
        fixed_large     1, but 0 at t = 0, where betas would make the decoder worse than the posterior of t = 1
        learned_range   (w + 1) / 2, the second half of the channels being w

    Args:
        config: of it the variance.
        output: [B, ..., C], or [B, ..., 2C] with learned_range.
        t: [B].

    Returns:
        [B, ..., C], and fraction that broadcasts against it.

    Source: Ho et al. 2020, released code (fixedsmall, fixedlarge); Nichol and Dhariwal 2021, released code
    (learned_range).
    """
    output = np.asarray(output, np.float64)
    if config.variance == "learned_range":
        prediction, w = np.split(output, 2, axis=-1)
        return prediction, (w + 1) / 2
    fraction = np.where(t > 0, float(config.variance == "fixed_large"), 0.0)
    return output, fraction.reshape(len(t), *[1] * (output.ndim - 1))


def denoise(
    schedule: Schedule,
    network: Network,
    config: DiffusionConfig,
    x_t: Array,
    t: Timesteps,
    clip_x_0: bool = True,
    dynamic_threshold: float | None = None,
) -> Predicted:
    """All that is predicted of x_t.

    A clipped x_0 leaves another noise than the network predicted, for x_t stays what it is.

    Args:
        schedule: of `make_schedule`, respaced or not.
        network: (x_t, t) -> output [B, ..., C or 2C]. It is evaluated at the t of this schedule; where that is
            respaced, the caller's network looks up the time that it was trained with.
        config: of it the prediction and the variance.
        x_t: [B, ..., C].
        t: [B], 0 <= t < N.
        clip_x_0: as in `limit`.
        dynamic_threshold: as in `limit`.
    """
    output, fraction = split(config, network(x_t, t), t)
    sigma_data = config.sigma_data or 1.0
    x_0 = to_x_0(schedule, config.prediction, x_t, t, output, sigma_data)
    if not clip_x_0 and dynamic_threshold is None:
        return Predicted(x_0, to_eps(schedule, config.prediction, x_t, t, output, sigma_data), fraction)
    x_0 = limit(x_0, clip_x_0, dynamic_threshold)
    return Predicted(x_0, _noise_in(schedule, x_t, t, x_0), fraction)


def reverse_log_variance(schedule: Schedule, t: Timesteps, fraction: Array) -> Array:
    """The log-variance of p(x_prev | x_t): fraction log betas + (1 - fraction) posterior_log_variance_clipped.

    That is the posterior's, and a fraction of the logarithm of how many times larger betas is.

    Args:
        schedule: of `make_schedule`.
        t: [B].
        fraction: [B, ...], of any size outside [0, 1] too.

    Returns:
        Like fraction.

    Source: Nichol and Dhariwal 2021 (arXiv:2102.09672), eq. 15.
    """
    smallest = at(schedule, "posterior_log_variance_clipped", t, fraction)
    return smallest + fraction * np.log(at(schedule, "betas", t, fraction) / np.exp(smallest))
