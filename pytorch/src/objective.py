"""The loss of any network of the family: its prediction, the weight of each t, and a learned variance.

The plain one, engine.diffusion_loss, is that of eps, weighed equally.

Mirror: ddpm_tf.objective. Letters as in engine.py.
"""

import torch
from torch import Tensor

from ddpm_torch.bound import variational_bound_term
from ddpm_torch.config import DiffusionConfig, Prediction
from ddpm_torch.engine import Schedule, q_sample
from ddpm_torch.prediction import Level, Network, direction, level_of, split, target

HYBRID_WEIGHT = 1e-3  # of the bound, which is a sum over T terms


def loss_weight(level: Level, prediction: Prediction, gamma: float) -> Tensor:
    """The weight that makes the squared error of any prediction min(SNR, gamma) times that of x_0.

    weight = min(SNR, gamma) (sigma / d)^2,  since an error of the output is sigma / d times as large in x_0

    Args:
        level: of x_t; SNR = alpha^2 / sigma^2.
        prediction: "eps", "x_0", "v" or "mean".
        gamma: above 0.

    Returns:
        [B, 1, 1, 1].

    Source: Hang et al. 2023 (arXiv:2303.09556), section 3.4.
    Mirror: ddpm_tf.objective.loss_weight.
    """
    snr = (level.alpha / level.sigma) ** 2
    return torch.clamp(snr, max=gamma) * (level.sigma / direction(prediction, level).d) ** 2


def training_loss(
    schedule: Schedule, network: Network, x_0: Tensor, t: Tensor, eps: Tensor, config: DiffusionConfig
) -> Tensor:
    """The error of the network's prediction, and, if it learns the variance, how well that fits.

    weight(t) || target - output ||^2  [+ 0.001 T times the term of the variational bound at t]

    The bound's gradient does not reach the prediction: it teaches the variance alone.

    Args:
        schedule: of the forward process.
        network: what is trained.
        x_0: [B, C, H, W] images in [-1, 1].
        t: [B] integer, 0 .. T - 1.
        eps: [B, C, H, W] standard normal noise.
        config: `prediction`, `variance` and `loss_weighting` are used.

    Returns:
        Scalar, the mean over all elements.

    Source: Ho et al. 2020, eq. 14; Nichol and Dhariwal 2021 (arXiv:2102.09672), eq. 16, with the bound in bits per
        dimension, as in the released code.
    Mirror: ddpm_tf.objective.training_loss.
    """
    level = level_of(schedule, t)
    prediction_and_variance = network(q_sample(schedule, x_0, t, eps), t)
    output, _ = split(prediction_and_variance, t, config)
    error = (target(level, config.prediction, x_0, eps) - output) ** 2
    if config.loss_weighting == "min_snr":
        error = loss_weight(level, config.prediction, config.min_snr_gamma) * error
    loss = torch.mean(error)
    if config.variance == "learned_range":
        _, w = prediction_and_variance.chunk(2, dim=1)
        fixed = torch.cat([output.detach(), w], dim=1)
        bound = variational_bound_term(schedule, lambda x_t, t: fixed, x_0, t, eps, clip_x_0=False, config=config)
        loss = loss + HYBRID_WEIGHT * config.timesteps * torch.mean(bound)
    return loss
