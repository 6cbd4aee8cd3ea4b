"""What a network may be asked for, eps, x_0, v or the posterior's mean, and how each follows from the others.

Given x_t, all four say the same: x_t = sqrt(alphas_cumprod) x_0 + sqrt(1 - alphas_cumprod) eps holds for the prediction
as for the truth. They differ in how an error of the network weighs at each t, and in what it has to tell at the ends.

Mirror: ddpm_torch.prediction. Letters as in engine.py.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from ddpm_tf.config import DiffusionConfig, Prediction
from ddpm_tf.engine import Schedule, at, predict_x_0, q_posterior

# (x_t, t) -> what `prediction` says; with a learned variance, 2C channels
Network = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
Limit = Callable[[tf.Tensor], tf.Tensor]  # x_0_pred -> x_0_pred, back in the range of the data


class Predicted(NamedTuple):
    """What a network says of x_t. Mirror: ddpm_torch.prediction.Predicted."""

    x_0: tf.Tensor  # [B, H, W, C]
    eps: tf.Tensor  # [B, H, W, C]
    fraction: tf.Tensor  # [B, 1 or H, 1 or W, 1 or C] of the way from the posterior's log-variance to log beta


def to_x_0(schedule: Schedule, prediction: Prediction, x_t: tf.Tensor, t: tf.Tensor, output: tf.Tensor) -> tf.Tensor:
    """The image that the network's output stands for.

    eps:  x_0 = (x_t - sqrt(1 - alphas_cumprod) eps) / sqrt(alphas_cumprod)
    v:    x_0 = sqrt(alphas_cumprod) x_t - sqrt(1 - alphas_cumprod) v
    mean: x_0 = (mean - posterior_mean_coef_x_t x_t) / posterior_mean_coef_x_0

    Args:
        schedule: of the forward process.
        prediction: what `output` is: "eps", "x_0", "v" or "mean".
        x_t: [B, H, W, C] noisy images.
        t: [B] integer, 0 .. T - 1.
        output: [B, H, W, C].

    Returns:
        x_0_pred, [B, H, W, C], not clipped.

    Source: Ho et al. 2020, eq. 7 and 15; Salimans and Ho 2022 (arXiv:2202.00512), appendix D.
    Mirror: ddpm_torch.prediction.to_x_0.
    """
    if prediction == "x_0":
        return output
    if prediction == "v":
        return at(schedule.sqrt_alphas_cumprod, t) * x_t - at(schedule.sqrt_one_minus_alphas_cumprod, t) * output
    if prediction == "mean":
        return (output - at(schedule.posterior_mean_coef_x_t, t) * x_t) / at(schedule.posterior_mean_coef_x_0, t)
    return predict_x_0(schedule, x_t, t, output)


def to_eps(schedule: Schedule, prediction: Prediction, x_t: tf.Tensor, t: tf.Tensor, output: tf.Tensor) -> tf.Tensor:
    """The noise that the network's output stands for.

    x_0: eps = (x_t - sqrt(alphas_cumprod) x_0) / sqrt(1 - alphas_cumprod)
    v:   eps = sqrt(1 - alphas_cumprod) x_t + sqrt(alphas_cumprod) v

    Args:
        schedule: of the forward process.
        prediction: what `output` is: "eps", "x_0", "v" or "mean".
        x_t: [B, H, W, C] noisy images.
        t: [B] integer, 0 .. T - 1.
        output: [B, H, W, C].

    Returns:
        eps_pred, [B, H, W, C].

    Source: Salimans and Ho 2022 (arXiv:2202.00512), appendix D.
    Mirror: ddpm_torch.prediction.to_eps.
    """
    if prediction == "eps":
        return output
    if prediction == "v":
        return at(schedule.sqrt_one_minus_alphas_cumprod, t) * x_t + at(schedule.sqrt_alphas_cumprod, t) * output
    x_0 = to_x_0(schedule, prediction, x_t, t, output)
    return (x_t - at(schedule.sqrt_alphas_cumprod, t) * x_0) / at(schedule.sqrt_one_minus_alphas_cumprod, t)


def target(
    schedule: Schedule, prediction: Prediction, x_0: tf.Tensor, x_t: tf.Tensor, t: tf.Tensor, eps: tf.Tensor
) -> tf.Tensor:
    """What a network that knew all would put out: the inverse of to_x_0 and to_eps.

    v = sqrt(alphas_cumprod) eps - sqrt(1 - alphas_cumprod) x_0,  mean = that of q(x_prev | x_t, x_0)

    Args:
        schedule: of the forward process.
        prediction: what is asked for: "eps", "x_0", "v" or "mean".
        x_0: [B, H, W, C] images.
        x_t: [B, H, W, C], the images at t.
        t: [B] integer, 0 .. T - 1.
        eps: [B, H, W, C], the noise in them.

    Returns:
        [B, H, W, C].

    Source: Ho et al. 2020, section 3.2; Salimans and Ho 2022 (arXiv:2202.00512), section 4.
    Mirror: ddpm_torch.prediction.target.
    """
    if prediction == "x_0":
        return x_0
    if prediction == "v":
        return at(schedule.sqrt_alphas_cumprod, t) * eps - at(schedule.sqrt_one_minus_alphas_cumprod, t) * x_0
    if prediction == "mean":
        return q_posterior(schedule, x_0, x_t, t)[0]
    return eps


def clip(x_0: tf.Tensor) -> tf.Tensor:
    """Into [-1, 1], where the data are. Mirror: ddpm_torch.prediction.clip."""
    return tf.clip_by_value(x_0, -1.0, 1.0)


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


def make_limit(clip_x_0: bool, quantile: float | None = None) -> Limit | None:
    """How x_0_pred is brought back into range; None: not at all. Mirror: ddpm_torch.prediction.make_limit."""
    if quantile is not None:
        return lambda x_0: dynamic_threshold(x_0, quantile)
    return clip if clip_x_0 else None


def denoise(
    schedule: Schedule,
    network: Network,
    config: DiffusionConfig,
    x_t: tf.Tensor,
    t: tf.Tensor,
    limit: Limit | None = clip,
) -> Predicted:
    """Ask the network, whatever it is that it predicts.

    Where x_0 is limited, eps is what then is left of x_t, so that the two go on making up x_t.

    Args:
        schedule: of the forward process, all T steps of it.
        network: what is asked.
        config: says what its output is: `prediction` and `variance`.
        x_t: [B, H, W, C] noisy images.
        t: [B] integer, 0 .. T - 1.
        limit: of make_limit.

    Returns:
        x_0, eps and the fraction of reverse_log_variance.

    Mirror: ddpm_torch.prediction.denoise.
    """
    output, fraction = split(network(x_t, t), t, config)
    x_0 = to_x_0(schedule, config.prediction, x_t, t, output)
    if limit is None:
        return Predicted(x_0, to_eps(schedule, config.prediction, x_t, t, output), fraction)
    x_0 = limit(x_0)
    return Predicted(x_0, to_eps(schedule, "x_0", x_t, t, x_0), fraction)


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
