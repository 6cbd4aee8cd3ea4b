"""The oracle of the variational bound and of the losses of training, one of which the bound is a part of.

In float64 NumPy. It goes another way than the trees: the prior by the
divergence of any two Gaussians, the divergence of a step as a loss of signal-to-noise ratio, without a posterior, and
the decoder's probabilities by integrating the density, without an error function.
"""

import math

import numpy as np

from ddpm_shared.config import DiffusionConfig
from ddpm_shared.oracle.diffusion import Array, Schedule, Timesteps, q_sample
from ddpm_shared.oracle.prediction import Network, denoise, reverse_log_variance, split, target
from ddpm_shared.oracle.weights import error_weight

HO = DiffusionConfig()  # what the paper's network tells
PANELS, NODES = 24, 20  # of the quadrature, which then is exact to float64 on bins of up to 24 deviations
FURTHEST = 12.0  # deviations from the mean; beyond them lies 2e-33
LEAST = 1e-12


def gaussian_divergence(mean_1: Array, variance_1: Array, mean_2: Array, variance_2: Array) -> Array:
    """KL(N(mean_1, variance_1) || N(mean_2, variance_2)) of each number, in nats; the arrays broadcast.

    With r = variance_1 / variance_2, it is (r - 1 - log r + (mean_1 - mean_2)^2 / variance_2) / 2.
    """
    excess = (variance_1 - variance_2) / variance_2  # r - 1, which has digits where r is almost 1
    return (excess - np.log1p(excess) + (mean_1 - mean_2) ** 2 / variance_2) / 2


def prior_bits_per_dim(schedule: Schedule, x_0: Array) -> Array:
    """The divergence of q(x_t | x_0) at t = T - 1 from N(0, I), image by image.

    Args:
        schedule: of `diffusion.make_schedule`.
        x_0: [B, ...].

    Returns:
        [B], bits per dimension.

    Source: Ho et al. 2020 (arXiv:2006.11239), eq. 5, L_T.
    """
    mean = schedule["sqrt_alphas_cumprod"][-1] * x_0
    variance = schedule["sqrt_one_minus_alphas_cumprod"][-1] ** 2
    return _bits_per_dim(gaussian_divergence(mean, variance, np.zeros(1), np.ones(1)))


def discretized_gaussian_log_likelihood(x_0: Array, mean: Array, log_variance: Array) -> Array:
    """The log of the Gaussian's mass in the bin of each grey level: its density, integrated by quadrature.

    Gauss-Legendre quadrature adds positive numbers, so the smallest masses have as many digits as the largest.

    Args:
        x_0: grey levels in [-1, 1], 2/255 apart, any shape; the bins of -1 and 1 are open to the outside.
        mean: like x_0.
        log_variance: broadcasts to them.

    Returns:
        Like x_0, in nats, log 1e-12 at least.

    Source: Ho et al. 2020 (arXiv:2006.11239), eq. 13.
    """
    level = np.rint((x_0 + 1) * 127.5)  # 0 .. 255
    sigma = np.sqrt(np.exp(log_variance))
    low = np.where(level == 0, -FURTHEST, (x_0 - 1 / 255 - mean) / sigma)
    high = np.where(level == 255, FURTHEST, (x_0 + 1 / 255 - mean) / sigma)
    low, high = np.clip(low, -FURTHEST, FURTHEST), np.clip(high, -FURTHEST, FURTHEST)

    nodes, weights = np.polynomial.legendre.leggauss(NODES)  # on [-1, 1]
    nodes = ((nodes + 1) / 2 + np.arange(PANELS)[:, None]).ravel() / PANELS  # on [0, 1], panel by panel
    weights = np.tile(weights / 2, PANELS) / PANELS
    mass = np.zeros(np.shape(low))
    for node, weight in zip(nodes, weights, strict=True):
        z = low + (high - low) * node
        mass += weight * np.exp(-(z**2) / 2)
    mass *= (high - low) / math.sqrt(2 * math.pi)
    return np.log(np.maximum(mass, LEAST))


def variational_bound_term(
    schedule: Schedule,
    network: Network,
    x_0: Array,
    t: Timesteps,
    eps: Array,
    clip_x_0: bool = True,
    config: DiffusionConfig = HO,
) -> Array:
    """The bound's term at each image's own t: the divergence of a step, and at t = 0 the decoder around that x_0.

    Both means are the same line in x_0. So the divergence is a loss of SNR = alphas_cumprod / (1 - alphas_cumprod), and
    has another part where the variances differ; with r = the posterior's variance / the model's,

        r (SNR(t - 1) - SNR(t)) / 2 (x_0 - x_0_pred)^2 + (r - 1 - log r) / 2

    Args:
        schedule: of `diffusion.make_schedule`.
        network: (x_t, t) -> output, like x_t, or with twice the channels.
        x_0: [B, ..., C].
        t: [B].
        eps: like x_0.
        clip_x_0: clip the implied x_0 to [-1, 1].
        config: of it the prediction and the variance.

    Returns:
        [B], bits per dimension.

    Source: Ho et al. 2020 (arXiv:2006.11239), eq. 5; Kingma et al. 2021 (arXiv:2107.00630), section 4.
    """
    predicted = denoise(schedule, network, config, q_sample(schedule, x_0, t, eps), t, clip_x_0)
    log_variance = reverse_log_variance(schedule, t, predicted.fraction)
    snr = (schedule["sqrt_alphas_cumprod"] / schedule["sqrt_one_minus_alphas_cumprod"]) ** 2
    terms = np.empty(len(t))
    for i, step in enumerate(t):  # the decoder is slow, and asked for t = 0 alone
        if step == 0:
            nats = -discretized_gaussian_log_likelihood(x_0[i], predicted.x_0[i], log_variance[i])
        else:
            log_r = schedule["posterior_log_variance_clipped"][step] - log_variance[i]
            lost = (snr[step - 1] - snr[step]) / 2 * (x_0[i] - predicted.x_0[i]) ** 2
            nats = np.exp(log_r) * lost + (np.expm1(log_r) - log_r) / 2
        terms[i] = _bits_per_dim(nats[None])[0]
    return terms


def _bits_per_dim(nats: Array) -> Array:
    return np.log2(np.e) * nats.reshape(len(nats), -1).mean(axis=1)


def training_loss(
    schedule: Schedule, network: Network, x_0: Array, t: Timesteps, eps: Array, config: DiffusionConfig
) -> float:
    """The loss that a step of training lowers: the squared error of what the network tells, and perhaps the bound.

    Each image has the mean square of its error, weighted by its t. With learned_range the hybrid adds T / 1000 of
    the mean term of the bound, in bits, which teaches the variance. That its means are held fixed there changes the
    gradient, and not the value.

    Args:
        schedule: of `diffusion.make_schedule`, not respaced.
        network: (x_t, t) -> output, like x_t, or with twice the channels.
        x_0: [B, ..., C].
        t: [B].
        eps: like x_0.
        config: of it all that is about the network and the loss.

    Source: Ho et al. 2020 (arXiv:2006.11239), eq. 14; Nichol and Dhariwal 2021 (arXiv:2102.09672), eq. 16, with the
    scale of the released code; Hang et al. 2023 (arXiv:2303.09556).
    """
    x_t = q_sample(schedule, x_0, t, eps)
    output, _ = split(config, network(x_t, t), t)
    aim = target(schedule, config.prediction, x_0, x_t, t, eps, config.sigma_data or 1.0)
    error = (aim - output).reshape(len(t), -1)
    squares = np.einsum("bd,bd->b", error, error) / error.shape[1]
    loss = (error_weight(schedule, config, t) * squares).mean()
    if config.variance == "learned_range":
        terms = variational_bound_term(schedule, network, x_0, t, eps, clip_x_0=False, config=config)
        loss += config.timesteps / 1000 * terms.mean()
    return float(loss)
