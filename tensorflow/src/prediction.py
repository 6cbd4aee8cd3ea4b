"""What a network may predict: eps, x_0, v, the posterior's mean, the score, flow's velocity or EDM's F.

A prediction is a direction: output = a x_0 + b eps, with a and b that depend on t alone. With x_t = alpha x_0 + sigma
eps these are two equations for x_0 and eps, and with d = alpha b - sigma a their solution is, whatever is predicted,

    x_0 = (b x_t - sigma output) / d        eps = (alpha output - a x_t) / d

The predictions differ in how an error of the network weighs at each t, and in what is left to predict at the ends.

Mirror: ddpm_torch.prediction. Letters as in engine.py.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import tensorflow as tf

from ddpm_tf.config import DiffusionConfig, Prediction
from ddpm_tf.engine import Schedule, at
from ddpm_tf.paths import PROCESSES

# (x_t, t) -> the output of the network; with a learned variance, 2C channels
Network = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
Clipping = Callable[[tf.Tensor], tf.Tensor]  # x_0_pred -> x_0_pred, back in the range of the data
Factor: TypeAlias = tf.Tensor | float  # broadcasts to [B, H, W, C]


LIMITS = (-1.0, 1.0)  # of images as x_0


class Level(NamedTuple):
    """The sizes of signal and noise in x_t = alpha x_0 + sigma eps. Mirror: ddpm_torch.prediction.Level."""

    alpha: tf.Tensor  # [B, 1, 1, 1]
    sigma: tf.Tensor  # [B, 1, 1, 1]
    # The mean of q(x_prev | x_t, x_0) is c_0 x_0 + c_t x_t: for the prediction of the mean, which ddpm alone has.
    c_0: Factor = 0.0
    c_t: Factor = 0.0
    sigma_data: Factor = 1.0  # the deviation of the data: for the prediction of F


class Predicted(NamedTuple):
    """What a network predicts of x_t. Mirror: ddpm_torch.prediction.Predicted."""

    x_0: tf.Tensor  # [B, H, W, C]
    eps: tf.Tensor  # [B, H, W, C]
    fraction: tf.Tensor  # of the way from the posterior's log-variance to log beta: [B, 1 or H, 1 or W, 1 or C]


def level_of(schedule: Schedule, t: tf.Tensor, sigma_data: Factor | None = None) -> Level:
    """The level of each image in the discrete process.

    Args:
        schedule: of the process.
        t: [B] integer, 0 .. T - 1.
        sigma_data: deviation of the data, for the prediction of F (default: 1).

    Returns:
        Factors [B, 1, 1, 1].

    Mirror: ddpm_torch.prediction.level_of.
    """
    return Level(
        at(schedule.sqrt_alphas_cumprod, t),
        at(schedule.sqrt_one_minus_alphas_cumprod, t),
        at(schedule.posterior_mean_coef_x_0, t),
        at(schedule.posterior_mean_coef_x_t, t),
        sigma_data or 1.0,
    )


def level_at(config: DiffusionConfig, t: tf.Tensor, dtype: tf.DType) -> Level:
    """The level of each image in a process whose time is continuous, computed in float64 and rounded once.

    Args:
        config: of the process.
        t: [B] float64.
        dtype: of the result.

    Returns:
        Factors [B, 1, 1, 1].

    Mirror: ddpm_torch.prediction.level_at.
    """
    pair = PROCESSES[config.process](config, t)
    alpha, sigma = (tf.cast(value, dtype)[:, None, None, None] for value in pair)
    return Level(alpha, sigma, sigma_data=config.sigma_data or 1.0)


def data_scale(level: Level) -> tf.Tensor:
    """The deviation of a pixel of x_t about its mean, sqrt(sigma^2 + alpha^2 sigma_data^2).

    Source: Karras et al. 2022 (arXiv:2206.00364), appendix B.6, for any alpha.
    Mirror: ddpm_torch.prediction.data_scale.
    """
    return tf.sqrt(level.sigma**2 + (level.alpha * level.sigma_data) ** 2)


class Direction(NamedTuple):
    """A prediction, output = a x_0 + b eps. All broadcast to images. Mirror: ddpm_torch.prediction.Direction."""

    a: Factor
    b: Factor
    d: Factor  # alpha b - sigma a, written so that nothing cancels


DIRECTIONS: dict[Prediction, Callable[[Level], Direction]] = {
    "eps": lambda level: Direction(0.0, 1.0, level.alpha),
    "x_0": lambda level: Direction(1.0, 0.0, -level.sigma),
    "v": lambda level: Direction(-level.sigma, level.alpha, level.alpha**2 + level.sigma**2),
    "mean": lambda level: Direction(
        level.c_0 + level.c_t * level.alpha, level.c_t * level.sigma, -level.sigma * level.c_0
    ),
    "score": lambda level: Direction(0.0, -1.0 / level.sigma, -level.alpha / level.sigma),
    "velocity": lambda level: Direction(-1.0, 1.0, level.alpha + level.sigma),
    "F": lambda level: Direction(
        level.sigma / (level.sigma_data * data_scale(level)),
        -level.alpha * level.sigma_data / data_scale(level),
        -data_scale(level) / level.sigma_data,
    ),
}


def direction(prediction: Prediction, level: Level) -> Direction:
    """What a prediction is made of: output = a x_0 + b eps, and d = alpha b - sigma a.

    eps: (0, 1),  x_0: (1, 0),  v: (-sigma, alpha),  mean: (c_0 + c_t alpha, c_t sigma),  score: (0, -1 / sigma),
    velocity: (-1, 1),  F: (sigma / s, -alpha s) / sqrt(sigma^2 + alpha^2 s^2) with s = sigma_data

    The velocity is dx/dt of a flow whose t = 1 is noise, eps - x_0.

    Args:
        prediction: one of DIRECTIONS.
        level: of x_t.

    Returns:
        a, b and d.

    Source: Ho et al. 2020, eq. 7 and section 3.2; Salimans and Ho 2022 (arXiv:2202.00512), section 4; Song et al. 2021
        (arXiv:2011.13456), section 3.3; Liu et al. 2023 (arXiv:2209.03003), eq. 1; Karras et al. 2022
        (arXiv:2206.00364), eq. 8.
    Mirror: ddpm_torch.prediction.direction.
    """
    return DIRECTIONS[prediction](level)


def to_x_0(level: Level, prediction: Prediction, x_t: tf.Tensor, output: tf.Tensor) -> tf.Tensor:
    """The image that the network's output stands for.

    x_0 = (b x_t - sigma output) / d

    Args:
        level: of x_t.
        prediction: what `output` is: one of DIRECTIONS.
        x_t: [B, H, W, C] noisy images.
        output: [B, H, W, C].

    Returns:
        x_0_pred, [B, H, W, C], not clipped.

    Source: Ho et al. 2020, eq. 7 and 15; Salimans and Ho 2022 (arXiv:2202.00512), appendix D.
    Mirror: ddpm_torch.prediction.to_x_0.
    """
    _, b, d = direction(prediction, level)
    return (b * x_t - level.sigma * output) / d


def to_eps(level: Level, prediction: Prediction, x_t: tf.Tensor, output: tf.Tensor) -> tf.Tensor:
    """The noise that the network's output stands for.

    eps = (alpha output - a x_t) / d

    Args:
        level: of x_t.
        prediction: what `output` is: one of DIRECTIONS.
        x_t: [B, H, W, C] noisy images.
        output: [B, H, W, C].

    Returns:
        eps_pred, [B, H, W, C].

    Source: Salimans and Ho 2022 (arXiv:2202.00512), appendix D.
    Mirror: ddpm_torch.prediction.to_eps.
    """
    a, _, d = direction(prediction, level)
    return (level.alpha * output - a * x_t) / d


def target(level: Level, prediction: Prediction, x_0: tf.Tensor, eps: tf.Tensor) -> tf.Tensor:
    """The output of a perfect network: what training compares with.

    target = a x_0 + b eps

    Args:
        level: of x_t.
        prediction: one of DIRECTIONS.
        x_0: [B, H, W, C] images.
        eps: [B, H, W, C], the noise in x_t.

    Returns:
        [B, H, W, C].

    Source: Ho et al. 2020, section 3.2; Salimans and Ho 2022 (arXiv:2202.00512), section 4.
    Mirror: ddpm_torch.prediction.target.
    """
    a, b, _ = direction(prediction, level)
    return a * x_0 + b * eps


def clip(x_0: tf.Tensor, limits: tuple[float, float] = LIMITS) -> tf.Tensor:
    """Into the range where the data are. Mirror: ddpm_torch.prediction.clip."""
    return tf.clip_by_value(x_0, *limits)


def dynamic_threshold(x_0: tf.Tensor, quantile: float) -> tf.Tensor:
    """Clip each image at that quantile of its |x_0|, if it is above 1, and divide by it.

    x_0 <- clip(x_0, -s, s) / s,  s = max(1, quantile of |x_0|)

    Args:
        x_0: [B, H, W, C].
        quantile: in (0, 1]; between two pixels, linear.

    Returns:
        [B, H, W, C], in [-1, 1].

    Source: Saharia et al. 2022 (arXiv:2205.11487), section 2.3.
    Mirror: ddpm_torch.prediction.dynamic_threshold.
    """
    magnitudes = tf.sort(tf.reshape(tf.abs(x_0), [len(x_0), -1]))  # [B, H * W * C]
    position = quantile * (magnitudes.shape[1] - 1)
    below = int(position)
    above = min(below + 1, magnitudes.shape[1] - 1)
    s = magnitudes[:, below] + (position - below) * (magnitudes[:, above] - magnitudes[:, below])
    s = tf.maximum(s, 1.0)[:, None, None, None]
    return tf.clip_by_value(x_0 / s, -1.0, 1.0)


def make_clipping(
    clip_x_0: bool, quantile: float | None = None, limits: tuple[float, float] | None = LIMITS
) -> Clipping | None:
    """The function that brings x_0_pred back into range; None: it is not clipped.

    Args:
        clip_x_0: clip to `limits`.
        quantile: of dynamic_threshold, which then takes the place of plain clipping.
        limits: of every element of x_0, or None if it has none.

    Mirror: ddpm_torch.prediction.make_clipping.
    """
    if quantile is not None:
        return lambda x_0: dynamic_threshold(x_0, quantile)
    return functools.partial(clip, limits=limits) if clip_x_0 and limits is not None else None


def denoise(
    level: Level,
    network: Network,
    config: DiffusionConfig,
    x_t: tf.Tensor,
    t: tf.Tensor,
    clipping: Clipping | None = clip,
) -> Predicted:
    """Evaluate the network at x_t, and take its output for x_0 and eps, whatever it predicts.

    Where x_0 is clipped, eps is what then is left of x_t, so that the two still add up to x_t.

    Args:
        level: of x_t, in the process that the network was trained on.
        network: (x_t, t) -> output, preconditioned where `config` says so.
        config: says what the output is: `prediction` and `variance`.
        x_t: [B, H, W, C] noisy images.
        t: [B] times.
        clipping: of make_clipping.

    Returns:
        x_0, eps and the fraction of reverse_log_variance.

    Mirror: ddpm_torch.prediction.denoise.
    """
    output, fraction = split(network(x_t, t), t, config)
    x_0 = to_x_0(level, config.prediction, x_t, output)
    if clipping is None:
        return Predicted(x_0, to_eps(level, config.prediction, x_t, output), fraction)
    x_0 = clipping(x_0)
    return Predicted(x_0, to_eps(level, "x_0", x_t, x_0), fraction)


def split(output: tf.Tensor, t: tf.Tensor, config: DiffusionConfig) -> tuple[tf.Tensor, tf.Tensor]:
    """The network's output as prediction and fraction of reverse_log_variance: learned, or 0 (small), or 1 (large).

    The large variance is beta, but at t = 0 the small one, as in Ho et al.'s code, for the decoder's sake.

    Args:
        output: [B, H, W, C], or [B, H, W, 2C] if the variance is learned.
        t: [B] integer, 0 .. T - 1.
        config: `variance` is used.

    Returns:
        [B, H, W, C], and [B, H, W, C] or [B, 1, 1, 1].

    Source: Nichol and Dhariwal 2021 (arXiv:2102.09672), eq. 15, whose v is (output + 1) / 2 in the released code.
    Mirror: ddpm_torch.prediction.split.
    """
    if config.variance == "learned_range":
        output, w = tf.split(output, 2, axis=-1)
        return output, (w + 1.0) / 2.0
    large = config.variance == "fixed_large"
    return output, tf.cast((t > 0) & large, output.dtype)[:, None, None, None]


def reverse_log_variance(schedule: Schedule, t: tf.Tensor, fraction: tf.Tensor) -> tf.Tensor:
    """The log-variance of p(x_prev | x_t), between the posterior's and beta's.

    log_variance = fraction log(betas) + (1 - fraction) posterior_log_variance_clipped

    Args:
        schedule: of the process that is reversed, in all its steps or in fewer.
        t: [B] integer, 0 .. T - 1.
        fraction: broadcasts to [B, H, W, C].

    Returns:
        Like fraction.

    Source: Nichol and Dhariwal 2021 (arXiv:2102.09672), eq. 15.
    Mirror: ddpm_torch.prediction.reverse_log_variance.
    """
    largest, smallest = tf.math.log(at(schedule.betas, t)), at(schedule.posterior_log_variance_clipped, t)
    return fraction * largest + (1.0 - fraction) * smallest
