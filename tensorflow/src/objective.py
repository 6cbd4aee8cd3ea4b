"""The loss of any network of the family: what it predicts, how t is weighed, and a learned variance.

The plain one, engine.diffusion_loss, is that of eps, weighed equally.

Mirror: ddpm_torch.objective. Letters as in engine.py.
"""

import tensorflow as tf

from ddpm_tf.bound import variational_bound_term
from ddpm_tf.config import DiffusionConfig, Prediction
from ddpm_tf.engine import Schedule, at, q_sample
from ddpm_tf.prediction import Network, split, target

HYBRID_WEIGHT = 1e-3  # of the bound, which is a sum over T terms


def loss_weight(schedule: Schedule, prediction: Prediction, t: tf.Tensor, gamma: float) -> tf.Tensor:
    """The weight that makes the squared error of any prediction min(SNR, gamma) times that of x_0.

    eps: min(1, gamma / SNR),  v: min(SNR, gamma) / (SNR + 1),  mean: min(SNR, gamma) / posterior_mean_coef_x_0^2

    Args:
        schedule: of the forward process; SNR = alphas_cumprod / (1 - alphas_cumprod).
        prediction: "eps", "x_0", "v" or "mean".
        t: [B] integer, 0 .. T - 1.
        gamma: above 0.

    Returns:
        [B, 1, 1, 1].

    Source: Hang et al. 2023 (arXiv:2303.09556), section 3.4.
    Mirror: ddpm_torch.objective.loss_weight.
    """
    snr = at((schedule.sqrt_alphas_cumprod / schedule.sqrt_one_minus_alphas_cumprod) ** 2, t)
    weight = tf.minimum(snr, gamma)
    if prediction == "v":
        return weight / (snr + 1.0)
    if prediction == "mean":
        return weight / at(schedule.posterior_mean_coef_x_0, t) ** 2
    if prediction == "eps":
        return tf.minimum(gamma / snr, 1.0)
    return weight


def training_loss(
    schedule: Schedule, network: Network, x_0: tf.Tensor, t: tf.Tensor, eps: tf.Tensor, config: DiffusionConfig
) -> tf.Tensor:
    """How well the network tells its target, and, if it learns the variance, how well that fits.

    weight(t) || target - output ||^2  [+ 0.001 T times the term of the variational bound at t]

    The bound's gradient is kept from the prediction: it teaches the variance alone.

    Args:
        schedule: of the forward process.
        network: what is trained.
        x_0: [B, H, W, C] images in [-1, 1].
        t: [B] integer, 0 .. T - 1.
        eps: [B, H, W, C] standard normal noise.
        config: `prediction`, `variance` and `loss_weighting` are used.

    Returns:
        Scalar, the mean over all elements.

    Source: Ho et al. 2020, eq. 14; Nichol and Dhariwal 2021 (arXiv:2102.09672), eq. 16, with the bound in bits per
        dimension, as in the released code.
    Mirror: ddpm_torch.objective.training_loss.
    """
    x_t = q_sample(schedule, x_0, t, eps)
    answer = network(x_t, t)
    output, _ = split(answer, t, config)
    error = (target(schedule, config.prediction, x_0, x_t, t, eps) - output) ** 2
    if config.loss_weighting == "min_snr":
        error = loss_weight(schedule, config.prediction, t, config.min_snr_gamma) * error
    loss = tf.reduce_mean(error)
    if config.variance == "learned_range":
        _, w = tf.split(answer, 2, axis=-1)
        held = tf.concat([tf.stop_gradient(output), w], axis=-1)
        bound = variational_bound_term(schedule, lambda x_t, t: held, x_0, t, eps, clip_x_0=False, config=config)
        loss = loss + HYBRID_WEIGHT * config.timesteps * tf.reduce_mean(bound)
    return loss
