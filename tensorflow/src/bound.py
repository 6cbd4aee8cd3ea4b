"""Bits per dimension: the variational bound on an image's -log2 p(x_0), term by term. Noise and t are arguments.

    -log p(x_0) <= KL(q(x_t | x_0) || N(0, I)) at t = T - 1                 the prior
                   + sum over t > 0 of KL(q(x_prev | x_t, x_0) || p(x_prev | x_t))
                   - log p(x_0 | x_t) at t = 0                              the decoder

It holds on average over the noise. Every term is divided by the number of dimensions and by log 2. Meant for float64:
a term is a small difference, and a pixel's probability the difference of two numbers that may be tiny.

Mirror: ddpm_torch.bound. Letters and equations as in engine.py.
"""

import math

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ddpm_shared.batches import Arrays
from ddpm_tf import utils
from ddpm_tf.config import Config, DiffusionConfig
from ddpm_tf.data import to_batch, to_images, to_labels
from ddpm_tf.engine import Schedule, make_schedule, q_posterior, q_sample
from ddpm_tf.guidance import LabelledNetwork, condition
from ddpm_tf.prediction import Network, clip, denoise, level_of, reverse_log_variance

HALF_BIN = 1 / 255  # neighbouring grey levels are 2/255 apart in [-1, 1]
DDPM = DiffusionConfig()
FLOOR = 1e-12  # of a pixel's probability, as in the released code: none costs more than 40 bits


def prior_bits_per_dim(schedule: Schedule, x_0: tf.Tensor) -> tf.Tensor:
    """What the last x_t still tells of x_0: the divergence of q(x_t | x_0) at t = T - 1 from N(0, I).

    KL = (mean^2 + variance - 1 - log variance) / 2, mean = sqrt(alphas_cumprod) x_0, variance = 1 - alphas_cumprod

    Args:
        schedule: of the forward process.
        x_0: [B, H, W, C] images in [-1, 1].

    Returns:
        [B], bits per dimension.

    Source: Ho et al. 2020, eq. 5, L_T.
    Mirror: ddpm_torch.bound.prior_bits_per_dim.
    """
    alphas_cumprod = schedule.alphas_cumprod[-1]
    return _bits_per_dim(0.5 * (alphas_cumprod * x_0**2 - alphas_cumprod - tf.math.log1p(-alphas_cumprod)))


def discretized_gaussian_log_likelihood(x_0: tf.Tensor, mean: tf.Tensor, log_variance: tf.Tensor) -> tf.Tensor:
    """How likely each pixel is, if a Gaussian is rounded to the nearest of 256 grey levels.

    p(x_0) = Phi((x_0 - mean + 1/255) / sigma) - Phi((x_0 - mean - 1/255) / sigma), Phi the normal distribution function

    The bin of x_0 = -1 reaches down to -infinity, that of x_0 = 1 up to +infinity, so all 256 add up to 1. Phi is
    exact, where the released code approximates it by tanh; p is 1e-12 at least, as there.

    Args:
        x_0: [B, H, W, C] images whose values are grey levels, in [-1, 1].
        mean: [B, H, W, C].
        log_variance: broadcast to them.

    Returns:
        log p, [B, H, W, C], in nats.

    Source: Ho et al. 2020, eq. 13.
    Mirror: ddpm_torch.bound.discretized_gaussian_log_likelihood.
    """
    sigma = tf.exp(0.5 * log_variance)
    lowest, highest = x_0 < -0.999, x_0 > 0.999
    # By symmetry any bin may lie in the lower tail, where Phi is small and has its digits; in the upper it is nearly 1.
    off = x_0 - mean
    off = tf.where(lowest, off, tf.where(highest, -off, -tf.abs(off)))
    beyond = _normal_cdf((off - HALF_BIN) / sigma)
    beyond = tf.where(lowest | highest, tf.zeros_like(beyond), beyond)
    return tf.math.log(tf.maximum(_normal_cdf((off + HALF_BIN) / sigma) - beyond, FLOOR))


def variational_bound_term(
    schedule: Schedule,
    network: Network,
    x_0: tf.Tensor,
    t: tf.Tensor,
    eps: tf.Tensor,
    clip_x_0: bool = True,
    config: DiffusionConfig = DDPM,
) -> tf.Tensor:
    """The term of the bound that belongs to t, of each image at its own t: a divergence, or the decoder at t = 0.

    KL = (r - 1 - log r + (mean(x_0, x_t) - mean(x_0_pred, x_t))^2 / variance_pred) / 2,  r = variance / variance_pred

    Args:
        schedule: of the forward process.
        network: any of the family.
        x_0: [B, H, W, C] images in [-1, 1].
        t: [B] integer, 0 .. T - 1.
        eps: [B, H, W, C] standard normal noise, which takes x_0 to x_t.
        clip_x_0: clip the implied x_0 to [-1, 1], as the sampler does.
        config: says what the network predicts and which variance the reverse process has.

    Returns:
        [B], bits per dimension.

    Source: Ho et al. 2020, eq. 5, L_{t-1} and L_0; the decoder's variance, where the posterior's is 0, is the next.
    Mirror: ddpm_torch.bound.variational_bound_term.
    """
    x_t = q_sample(schedule, x_0, t, eps)
    predicted = denoise(level_of(schedule, t, config.sigma_data), network, config, x_t, t, clip if clip_x_0 else None)
    mean, _, log_variance = q_posterior(schedule, x_0, x_t, t)
    mean_pred, _, _ = q_posterior(schedule, predicted.x_0, x_t, t)
    log_variance_pred = reverse_log_variance(schedule, t, predicted.fraction)
    log_ratio = log_variance - log_variance_pred
    error = (mean - mean_pred) ** 2 * tf.exp(-log_variance_pred)
    divergence = 0.5 * (tf.math.expm1(log_ratio) - log_ratio + error)
    decoder = -discretized_gaussian_log_likelihood(x_0, mean_pred, log_variance_pred)
    return _bits_per_dim(tf.where((t > 0)[:, None, None, None], divergence, decoder))


class Bound:
    """The terms of the variational bound of a network. All but the network computes in float64.

    Args:
        network: (x_t, t, labels=None) -> output, on the device and in the precision of `config`.
        config: its diffusion process is used, and what the network predicts.
        clip_x_0: as in variational_bound_term.

    Mirror: ddpm_torch.bound.Bound.
    """

    def __init__(self, network: LabelledNetwork, config: Config, clip_x_0: bool = True) -> None:
        device = utils.select_device(config.device)
        self.dtype = utils.dtype(config.precision)
        self.schedule = make_schedule(config.diffusion, tf.float64)
        self.network, self.config, self.clip_x_0 = network, config.diffusion, clip_x_0
        self.device_name, self.threads = utils.device_name(device), utils.threads()

    def prior(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """The term of the prior, [B] bits per dimension, of images [B, H, W, C] uint8."""
        x_0 = to_images(pixels, tf.float64)
        return prior_bits_per_dim(self.schedule, x_0).numpy()

    def term(self, arrays: Arrays, labels: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """The term of each image at its t, [B] bits per dimension.

        Args:
            arrays: images [B, H, W, C] uint8, t [B] int32, eps [B, H, W, C] float64.
            labels: [B], the classes of the images; None: none.
        """
        conditional = condition(self.network, None if labels is None else to_labels(labels))

        def network(x_t: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
            return tf.cast(conditional(tf.cast(x_t, self.dtype), t), tf.float64)

        x_0, t, eps = to_batch(arrays, "fp64")
        terms = variational_bound_term(self.schedule, network, x_0, t, eps, self.clip_x_0, self.config)
        return terms.numpy()


def _normal_cdf(z: tf.Tensor) -> tf.Tensor:
    return 0.5 * tf.math.erfc(-math.sqrt(0.5) * z)


def _bits_per_dim(nats: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(nats, axis=[1, 2, 3]) / math.log(2.0)  # [B, H, W, C] -> [B]
