"""What a network may be asked for, eps, x_0, v or the posterior's mean, and how each follows from the others.

Given x_t, all four say the same: x_t = sqrt(alphas_cumprod) x_0 + sqrt(1 - alphas_cumprod) eps holds for the prediction
as for the truth. They differ in how an error of the network weighs at each t, and in what it has to tell at the ends.

Mirror: ddpm_tf.prediction. Letters as in engine.py.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm_torch.config import DiffusionConfig, Prediction
from ddpm_torch.engine import Schedule, at, predict_x_0, q_posterior

# (x_t, t) -> what `prediction` says; with a learned variance, 2C channels
Network = Callable[[Tensor, Tensor], Tensor]
Limit = Callable[[Tensor], Tensor]  # x_0_pred -> x_0_pred, back in the range of the data


class Predicted(NamedTuple):
    """What a network says of x_t. Mirror: ddpm_tf.prediction.Predicted."""

    x_0: Tensor  # [B, C, H, W]
    eps: Tensor  # [B, C, H, W]
    fraction: Tensor  # [B, 1 or C, 1 or H, 1 or W] of the way from the posterior's log-variance to log beta


def to_x_0(schedule: Schedule, prediction: Prediction, x_t: Tensor, t: Tensor, output: Tensor) -> Tensor:
    """The image that the network's output stands for.

    eps:  x_0 = (x_t - sqrt(1 - alphas_cumprod) eps) / sqrt(alphas_cumprod)
    v:    x_0 = sqrt(alphas_cumprod) x_t - sqrt(1 - alphas_cumprod) v
    mean: x_0 = (mean - posterior_mean_coef_x_t x_t) / posterior_mean_coef_x_0

    Args:
        schedule: of the forward process.
        prediction: what `output` is: "eps", "x_0", "v" or "mean".
        x_t: [B, C, H, W] noisy images.
        t: [B] integer, 0 .. T - 1.
        output: [B, C, H, W].

    Returns:
        x_0_pred, [B, C, H, W], not clipped.

    Source: Ho et al. 2020, eq. 7 and 15; Salimans and Ho 2022 (arXiv:2202.00512), appendix D.
    Mirror: ddpm_tf.prediction.to_x_0.
    """
    if prediction == "x_0":
        return output
    if prediction == "v":
        return at(schedule.sqrt_alphas_cumprod, t) * x_t - at(schedule.sqrt_one_minus_alphas_cumprod, t) * output
    if prediction == "mean":
        return (output - at(schedule.posterior_mean_coef_x_t, t) * x_t) / at(schedule.posterior_mean_coef_x_0, t)
    return predict_x_0(schedule, x_t, t, output)


def to_eps(schedule: Schedule, prediction: Prediction, x_t: Tensor, t: Tensor, output: Tensor) -> Tensor:
    """The noise that the network's output stands for.

    x_0: eps = (x_t - sqrt(alphas_cumprod) x_0) / sqrt(1 - alphas_cumprod)
    v:   eps = sqrt(1 - alphas_cumprod) x_t + sqrt(alphas_cumprod) v

    Args:
        schedule: of the forward process.
        prediction: what `output` is: "eps", "x_0", "v" or "mean".
        x_t: [B, C, H, W] noisy images.
        t: [B] integer, 0 .. T - 1.
        output: [B, C, H, W].

    Returns:
        eps_pred, [B, C, H, W].

    Source: Salimans and Ho 2022 (arXiv:2202.00512), appendix D.
    Mirror: ddpm_tf.prediction.to_eps.
    """
    if prediction == "eps":
        return output
    if prediction == "v":
        return at(schedule.sqrt_one_minus_alphas_cumprod, t) * x_t + at(schedule.sqrt_alphas_cumprod, t) * output
    x_0 = to_x_0(schedule, prediction, x_t, t, output)
    return (x_t - at(schedule.sqrt_alphas_cumprod, t) * x_0) / at(schedule.sqrt_one_minus_alphas_cumprod, t)


def target(schedule: Schedule, prediction: Prediction, x_0: Tensor, x_t: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """What a network that knew all would put out: the inverse of to_x_0 and to_eps.

    v = sqrt(alphas_cumprod) eps - sqrt(1 - alphas_cumprod) x_0,  mean = that of q(x_prev | x_t, x_0)

    Args:
        schedule: of the forward process.
        prediction: what is asked for: "eps", "x_0", "v" or "mean".
        x_0: [B, C, H, W] images.
        x_t: [B, C, H, W], the images at t.
        t: [B] integer, 0 .. T - 1.
        eps: [B, C, H, W], the noise in them.

    Returns:
        [B, C, H, W].

    Source: Ho et al. 2020, section 3.2; Salimans and Ho 2022 (arXiv:2202.00512), section 4.
    Mirror: ddpm_tf.prediction.target.
    """
    if prediction == "x_0":
        return x_0
    if prediction == "v":
        return at(schedule.sqrt_alphas_cumprod, t) * eps - at(schedule.sqrt_one_minus_alphas_cumprod, t) * x_0
    if prediction == "mean":
        return q_posterior(schedule, x_0, x_t, t)[0]
    return eps


def clip(x_0: Tensor) -> Tensor:
    """Into [-1, 1], where the data are. Mirror: ddpm_tf.prediction.clip."""
    return torch.clamp(x_0, -1.0, 1.0)


def dynamic_threshold(x_0: Tensor, quantile: float) -> Tensor:
    """Clip each image at that quantile of its |x_0|, if it is above 1, and divide by it.

    x_0 <- clip(x_0, -s, s) / s,  s = max(1, quantile of |x_0|)

    Args:
        x_0: [B, C, H, W].
        quantile: in (0, 1]; between two pixels, linear.

    Returns:
        [B, C, H, W], in [-1, 1].

    Source: Saharia et al. 2022 (arXiv:2205.11487), section 2.3.
    Mirror: ddpm_tf.prediction.dynamic_threshold.
    """
    magnitudes = torch.sort(x_0.abs().flatten(1)).values  # [B, C * H * W]
    position = quantile * (magnitudes.shape[1] - 1)
    below = int(position)
    above = min(below + 1, magnitudes.shape[1] - 1)
    s = magnitudes[:, below] + (position - below) * (magnitudes[:, above] - magnitudes[:, below])
    s = torch.clamp(s, min=1.0)[:, None, None, None]
    return torch.clamp(x_0 / s, -1.0, 1.0)


def make_limit(clip_x_0: bool, quantile: float | None = None) -> Limit | None:
    """How x_0_pred is brought back into range; None: not at all. Mirror: ddpm_tf.prediction.make_limit."""
    if quantile is not None:
        return lambda x_0: dynamic_threshold(x_0, quantile)
    return clip if clip_x_0 else None


def denoise(
    schedule: Schedule, network: Network, config: DiffusionConfig, x_t: Tensor, t: Tensor, limit: Limit | None = clip
) -> Predicted:
    """Ask the network, whatever it is that it predicts.

    Where x_0 is limited, eps is what then is left of x_t, so that the two go on making up x_t.

    Args:
        schedule: of the forward process, all T steps of it.
        network: what is asked.
        config: says what its output is: `prediction` and `variance`.
        x_t: [B, C, H, W] noisy images.
        t: [B] integer, 0 .. T - 1.
        limit: of make_limit.

    Returns:
        x_0, eps and the fraction of reverse_log_variance.

    Mirror: ddpm_tf.prediction.denoise.
    """
    output, fraction = split(network(x_t, t), t, config)
    x_0 = to_x_0(schedule, config.prediction, x_t, t, output)
    if limit is None:
        return Predicted(x_0, to_eps(schedule, config.prediction, x_t, t, output), fraction)
    x_0 = limit(x_0)
    return Predicted(x_0, to_eps(schedule, "x_0", x_t, t, x_0), fraction)


def split(output: Tensor, t: Tensor, config: DiffusionConfig) -> tuple[Tensor, Tensor]:
    """The network's output as prediction and fraction of reverse_log_variance: learned, or 0 (small), or 1 (large).

    The large variance is beta, but at t = 0 the small one, as in Ho et al.'s code, for the decoder's sake.

    Args:
        output: [B, C, H, W], or [B, 2C, H, W] if the variance is learned.
        t: [B] integer, 0 .. T - 1.
        config: `variance` is used.

    Returns:
        [B, C, H, W], and [B, C, H, W] or [B, 1, 1, 1].

    Source: Nichol and Dhariwal 2021 (arXiv:2102.09672), eq. 15, whose v is (output + 1) / 2 in the released code.
    Mirror: ddpm_tf.prediction.split.
    """
    if config.variance == "learned_range":
        output, w = output.chunk(2, dim=1)
        return output, (w + 1.0) / 2.0
    large = config.variance == "fixed_large"
    return output, ((t > 0) & large).to(output.dtype)[:, None, None, None]


def reverse_log_variance(schedule: Schedule, t: Tensor, fraction: Tensor) -> Tensor:
    """The log-variance of p(x_prev | x_t), between the posterior's and beta's.

    log_variance = fraction log(betas) + (1 - fraction) posterior_log_variance_clipped

    Args:
        schedule: of the process that is reversed, in all its steps or in fewer.
        t: [B] integer, 0 .. T - 1.
        fraction: broadcasts to [B, C, H, W].

    Returns:
        Like fraction.

    Source: Nichol and Dhariwal 2021 (arXiv:2102.09672), eq. 15.
    Mirror: ddpm_tf.prediction.reverse_log_variance.
    """
    largest, smallest = torch.log(at(schedule.betas, t)), at(schedule.posterior_log_variance_clipped, t)
    return fraction * largest + (1.0 - fraction) * smallest
