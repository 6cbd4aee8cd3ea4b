"""The loss of any network of the family: its prediction, the density and the weight of t, and a learned variance.

The plain one, engine.diffusion_loss, is that of eps, weighed equally.

Mirror: ddpm_tf.objective. Letters as in engine.py.
"""

import torch
from torch import Tensor

from ddpm_torch.bound import variational_bound_term
from ddpm_torch.config import DiffusionConfig, Prediction
from ddpm_torch.engine import Schedule, q_sample
from ddpm_torch.preconditioning import precondition
from ddpm_torch.prediction import Level, Network, data_scale, direction, level_at, level_of, split, target
from ddpm_torch.processes import squared_diffusion

HYBRID_WEIGHT = 1e-3  # of the bound, which is a sum over T terms


def times_of(config: DiffusionConfig, u: Tensor) -> Tensor:
    """The times of training in a process whose time is continuous: uniform numbers through the inverse CDF.

    uniform:       t = first + (last - first) u
    log_normal:    t = exp(mean + deviation Phi^-1(u)),  Phi the normal distribution function
    logit_normal:  t = 1 / (1 + exp(-mean - deviation Phi^-1(u)))
    shifted:       t = s v / (1 + (s - 1) v),  v = first + (last - first) u

    Args:
        config: its process and density of t are used.
        u: [B] float64, above 0 and below 1.

    Returns:
        t, [B] float64.

    Source: Karras et al. 2022 (arXiv:2206.00364), table 1; Esser et al. 2024 (arXiv:2403.03206), section 3.1
        and eq. 23.
    Mirror: ddpm_tf.objective.times_of.
    """
    first, last = config.training_span
    even = first + (last - first) * u
    if config.time_density == "uniform":
        return even
    if config.time_density == "shifted":
        return config.density_shift * even / (1.0 + (config.density_shift - 1.0) * even)
    normal = config.density_mean + config.density_deviation * torch.special.ndtri(u)
    if config.time_density == "log_normal":
        return torch.exp(normal)
    t = torch.sigmoid(normal)
    return t.clamp(first, last)  # below, x_t is the image itself


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


def error_weight(level: Level, config: DiffusionConfig, t: Tensor) -> Tensor:
    """The weight of the squared error of the output at each t.

    An error of the output is sigma / d times as large in x_0, alpha / d times in eps, (alpha + sigma) / d times in the
    velocity, and alpha / (sigma d) times in the score. So the weights are

    simple: 1    noise: (alpha / d)^2    flow: ((alpha + sigma) / d)^2    min_snr: min(SNR, gamma) (sigma / d)^2
    edm: (sigma^2 + alpha^2 s^2) / (s d)^2, s = sigma_data    likelihood: g(t)^2 (alpha / (sigma d))^2

    Args:
        level: of x_t.
        config: `loss_weighting`, `prediction` and the process are used.
        t: [B].

    Returns:
        [B, 1, 1, 1].

    Source: Karras et al. 2022 (arXiv:2206.00364), table 1; Song et al. 2021 (arXiv:2101.09258), eq. 8, for the
        likelihood; Kingma and Gao 2023 (arXiv:2303.00848), table 1, for all of them.
    Mirror: ddpm_tf.objective.error_weight.
    """
    weighting, d = config.loss_weighting, direction(config.prediction, level).d
    if weighting == "noise":
        return (level.alpha / d) ** 2
    if weighting == "flow":
        return ((level.alpha + level.sigma) / d) ** 2
    if weighting == "min_snr":
        return loss_weight(level, config.prediction, config.min_snr_gamma)
    if weighting == "edm":
        return (data_scale(level) / (d * level.sigma_data)) ** 2
    if weighting == "likelihood":
        squared = squared_diffusion(config, t, config.process).to(level.alpha.dtype)
        return squared[:, None, None, None] * (level.alpha / (level.sigma * d)) ** 2
    return torch.ones_like(level.alpha)


def training_loss(
    schedule: Schedule, network: Network, x_0: Tensor, t: Tensor, eps: Tensor, config: DiffusionConfig
) -> Tensor:
    """The error of the network's prediction, and, if it learns the variance, how well that fits.

    weight(t) || target - output ||^2  [+ 0.001 T times the term of the variational bound at t]

    The bound's gradient does not reach the prediction: it teaches the variance alone.

    Args:
        schedule: of the forward process; not used by one whose time is continuous.
        network: what is trained, without its preconditioning.
        x_0: [B, C, H, W] images in [-1, 1].
        t: [B] integer, 0 .. T - 1; of a process whose time is continuous, the uniform numbers of times_of, float64.
        eps: [B, C, H, W] standard normal noise.
        config: the process, what the network predicts, and the weighting.

    Returns:
        Scalar, the mean over all elements.

    Source: Ho et al. 2020, eq. 14; Nichol and Dhariwal 2021 (arXiv:2102.09672), eq. 16, with the bound in bits per
        dimension, as in the released code.
    Mirror: ddpm_tf.objective.training_loss.
    """
    if config.process != "ddpm":
        t = times_of(config, t)
        level = level_at(config, t, x_0.dtype)
        output = precondition(network, config)(level.alpha * x_0 + level.sigma * eps, t)
        error = (target(level, config.prediction, x_0, eps) - output) ** 2
        return torch.mean(error_weight(level, config, t) * error)
    level = level_of(schedule, t, config.sigma_data)
    prediction_and_variance = network(q_sample(schedule, x_0, t, eps), t)
    output, _ = split(prediction_and_variance, t, config)
    error = (target(level, config.prediction, x_0, eps) - output) ** 2
    if config.loss_weighting != "simple":
        error = error_weight(level, config, t) * error
    loss = torch.mean(error)
    if config.variance == "learned_range":
        _, w = prediction_and_variance.chunk(2, dim=1)
        fixed = torch.cat([output.detach(), w], dim=1)
        bound = variational_bound_term(schedule, lambda x_t, t: fixed, x_0, t, eps, clip_x_0=False, config=config)
        loss = loss + HYBRID_WEIGHT * config.timesteps * torch.mean(bound)
    return loss
