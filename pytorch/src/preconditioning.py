"""Scaling of a network's input and output by the level of noise, so that both are of order 1 at every t.

    output = c_skip x_t + c_out network(c_in x_t, c_noise)

What the output stands for is the prediction (prediction.py). The network inside never sees t itself, but c_noise.

Mirror: ddpm_tf.preconditioning.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ddpm_torch.config import DiffusionConfig
from ddpm_torch.paths import PROCESSES
from ddpm_torch.prediction import Factor, Network, data_scale, level_at


class Preconditioning(NamedTuple):
    """The four factors. Mirror: ddpm_tf.preconditioning.Preconditioning."""

    skip: Factor  # [B, 1, 1, 1], as the next two
    out: Factor
    scale: Factor  # c_in
    time: Tensor  # c_noise, [B]


def preconditioning(config: DiffusionConfig, t: Tensor, dtype: torch.dtype) -> Preconditioning:
    """The factors of each image at its t.

    none:       c_skip = 0, c_out = 1, c_in = 1, c_noise = t
    score_sde:  c_skip = 0, c_out = 1 / sigma, c_in = 1, c_noise = t
    edm:        c_skip = alpha s^2 / (sigma^2 + alpha^2 s^2), c_out = sigma s / sqrt(sigma^2 + alpha^2 s^2),
                c_in = 1 / sqrt(sigma^2 + alpha^2 s^2), c_noise = log(sigma / alpha) / 4,  s = sigma_data

    Where the prediction is F, edm leaves the output alone: F is what the network inside predicts. c_noise is multiplied
    by `time_scale`.

    Args:
        config: `preconditioning`, `prediction`, `sigma_data`, `time_scale` and the process are used.
        t: [B], integer for ddpm and float64 for the others.
        dtype: of the factors but time, which is float64.

    Source: Karras et al. 2022 (arXiv:2206.00364), table 1; Song et al. 2021 (arXiv:2011.13456), appendix A.
    Mirror: ddpm_tf.preconditioning.preconditioning.
    """
    if config.preconditioning == "none":
        return Preconditioning(0.0, 1.0, 1.0, config.time_scale * t)
    level = level_at(config, t, dtype)
    if config.preconditioning == "score_sde":
        return Preconditioning(0.0, 1.0 / level.sigma, 1.0, config.time_scale * t)
    alpha, sigma = PROCESSES[config.process](config, t)  # in float64, as time is
    time = config.time_scale * 0.25 * torch.log(sigma / alpha)
    deviation = data_scale(level)
    if config.prediction == "F":
        return Preconditioning(0.0, 1.0, 1.0 / deviation, time)
    skip = level.alpha * (level.sigma_data / deviation) ** 2
    return Preconditioning(skip, level.sigma * level.sigma_data / deviation, 1.0 / deviation, time)


def precondition(network: Network, config: DiffusionConfig) -> Network:
    """The network with its preconditioning around it.

    Args:
        network: (c_in x_t, c_noise) -> [B, C, H, W].
        config: as for preconditioning.

    Returns:
        (x_t [B, C, H, W], t [B]) -> output; without preconditioning the network itself.

    Mirror: ddpm_tf.preconditioning.precondition.
    """
    if config.preconditioning == "none" and config.time_scale == 1.0:
        return network

    def preconditioned(x_t: Tensor, t: Tensor) -> Tensor:
        skip, out, scale, time = preconditioning(config, t, x_t.dtype)
        return skip * x_t + out * network(scale * x_t, time)

    return preconditioned
