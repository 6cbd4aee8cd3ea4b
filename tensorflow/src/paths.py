"""The paths of the diffusion processes: alpha and sigma as functions of time, their derivatives, and their inverse.

Mirror: ddpm_torch.paths.
"""

import math
from collections.abc import Callable

import tensorflow as tf

from ddpm_tf.config import DiffusionConfig
from ddpm_tf.engine import make_schedule

Pair = tuple[tf.Tensor, tf.Tensor]


def ddpm(config: DiffusionConfig, t: tf.Tensor) -> Pair:
    """The discrete process of the schedule, alpha = sqrt(alphas_cumprod[t]), sigma = sqrt(1 - alphas_cumprod[t]).

    Args:
        config: of the schedule.
        t: [N] the integers 0 .. T - 1, of any type.

    Returns:
        alpha and sigma, [N] float64.

    Source: Ho et al. 2020 (arXiv:2006.11239), eq. 4.
    Mirror: ddpm_torch.paths.ddpm.
    """
    schedule = make_schedule(config, tf.float64)
    index = tf.cast(t, tf.int64)
    return tf.gather(schedule.sqrt_alphas_cumprod, index), tf.gather(schedule.sqrt_one_minus_alphas_cumprod, index)


def vp(config: DiffusionConfig, t: tf.Tensor) -> Pair:
    """The variance-preserving SDE: the limit of the linear schedule for ever more steps.

    log alpha = -B(t) / 2,  sigma = sqrt(1 - alpha^2),  B the integral of beta from 0 to t

    Args:
        config: beta_min and beta_max are beta_start and beta_end times T.
        t: [N] float64, 0 .. 1.

    Returns:
        alpha and sigma, [N] float64.

    Source: Song et al. 2021 (arXiv:2011.13456), eq. 33.
    Mirror: ddpm_torch.paths.vp.
    """
    _, integral = betas(config, t)
    return tf.exp(-integral / 2.0), tf.sqrt(-tf.math.expm1(-integral))


def sub_vp(config: DiffusionConfig, t: tf.Tensor) -> Pair:
    """The sub-VP SDE, whose noise is smaller than that of vp at each t: alpha = exp(-B(t) / 2), sigma = 1 - alpha^2.

    Args:
        config: as for vp.
        t: [N] float64, 0 .. 1.

    Returns:
        alpha and sigma, [N] float64.

    Source: Song et al. 2021 (arXiv:2011.13456), eq. 29.
    Mirror: ddpm_torch.paths.sub_vp.
    """
    _, integral = betas(config, t)
    return tf.exp(-integral / 2.0), -tf.math.expm1(-integral)


def ve(config: DiffusionConfig, t: tf.Tensor) -> Pair:
    """The variance-exploding SDE: alpha = 1, sigma = sigma_min (sigma_max / sigma_min)^t.

    Args:
        config: sigma_min and sigma_max are used.
        t: [N] float64, 0 .. 1.

    Returns:
        alpha and sigma, [N] float64.

    Source: Song et al. 2021 (arXiv:2011.13456), eq. 30.
    Mirror: ddpm_torch.paths.ve.
    """
    return tf.ones_like(t), config.sigma_min * tf.exp(math.log(config.sigma_max / config.sigma_min) * t)


def ve_exponential(config: DiffusionConfig, t: tf.Tensor) -> Pair:
    """The variance-exploding SDE dx = s^t dw: alpha = 1, sigma = sqrt((s^(2t) - 1) / (2 log s)).

    Args:
        config: sigma_max is s.
        t: [N] float64, 0 .. 1.

    Returns:
        alpha and sigma, [N] float64.

    Source: Song et al. 2021 (arXiv:2011.13456), eq. 29 for g = s^t, as in the authors' tutorial.
    Mirror: ddpm_torch.paths.ve_exponential.
    """
    log_s = math.log(config.sigma_max)
    return tf.ones_like(t), tf.sqrt(tf.math.expm1(2.0 * log_s * t) / (2.0 * log_s))


def edm(config: DiffusionConfig, t: tf.Tensor) -> Pair:
    """Time is the deviation of the noise: alpha = 1, sigma = t.

    Args:
        config: not used.
        t: [N] float64, above 0.

    Returns:
        alpha and sigma, [N] float64.

    Source: Karras et al. 2022 (arXiv:2206.00364), table 1.
    Mirror: ddpm_torch.paths.edm.
    """
    return tf.ones_like(t), t


def flow(config: DiffusionConfig, t: tf.Tensor) -> Pair:
    """A straight line from the image, t = 0, to the noise, t = 1: alpha = 1 - t, sigma = t.

    Args:
        config: not used.
        t: [N] float64, 0 .. 1.

    Returns:
        alpha and sigma, [N] float64.

    Source: Liu et al. 2023 (arXiv:2209.03003), eq. 1; Lipman et al. 2023 (arXiv:2210.02747), with their time reversed.
    Mirror: ddpm_torch.paths.flow.
    """
    return 1.0 - t, t


def betas(config: DiffusionConfig, t: tf.Tensor) -> Pair:
    """beta(t) = beta_min + (beta_max - beta_min) t of vp and sub_vp, and its integral B from 0 to t.

    Source: Song et al. 2021 (arXiv:2011.13456), eq. 32-33.
    Mirror: ddpm_torch.paths.betas.
    """
    beta_min, beta_max = (config.timesteps * beta for beta in config.beta_range)
    return beta_min + (beta_max - beta_min) * t, (beta_max - beta_min) * t**2 / 2.0 + beta_min * t


Path = Callable[[DiffusionConfig, tf.Tensor], Pair]

# (config, t) -> alpha and sigma
PROCESSES: dict[str, Path] = {
    "ddpm": ddpm,
    "vp": vp,
    "sub_vp": sub_vp,
    "ve": ve,
    "ve_exponential": ve_exponential,
    "edm": edm,
    "flow": flow,
}


def vp_rates(config: DiffusionConfig, t: tf.Tensor) -> Pair:
    """Alpha' = -beta alpha / 2,  sigma' = beta alpha^2 / (2 sigma). Mirror: ddpm_torch.paths.vp_rates."""
    (beta, _), (alpha, sigma) = betas(config, t), vp(config, t)
    return -beta * alpha / 2.0, beta * alpha**2 / (2.0 * sigma)


def sub_vp_rates(config: DiffusionConfig, t: tf.Tensor) -> Pair:
    """Alpha' = -beta alpha / 2,  sigma' = beta alpha^2. Mirror: ddpm_torch.paths.sub_vp_rates."""
    (beta, _), (alpha, _) = betas(config, t), sub_vp(config, t)
    return -beta * alpha / 2.0, beta * alpha**2


def ve_rates(config: DiffusionConfig, t: tf.Tensor) -> Pair:
    """Alpha' = 0,  sigma' = sigma log(sigma_max / sigma_min). Mirror: ddpm_torch.paths.ve_rates."""
    _, sigma = ve(config, t)
    return tf.zeros_like(t), sigma * math.log(config.sigma_max / config.sigma_min)


def ve_exponential_rates(config: DiffusionConfig, t: tf.Tensor) -> Pair:
    """Alpha' = 0,  sigma' = s^(2t) / (2 sigma). Mirror: ddpm_torch.paths.ve_exponential_rates."""
    _, sigma = ve_exponential(config, t)
    return tf.zeros_like(t), tf.exp(2.0 * math.log(config.sigma_max) * t) / (2.0 * sigma)


def edm_rates(config: DiffusionConfig, t: tf.Tensor) -> Pair:
    """Alpha' = 0,  sigma' = 1. Mirror: ddpm_torch.paths.edm_rates."""
    return tf.zeros_like(t), tf.ones_like(t)


def flow_rates(config: DiffusionConfig, t: tf.Tensor) -> Pair:
    """Alpha' = -1,  sigma' = 1. Mirror: ddpm_torch.paths.flow_rates."""
    return -tf.ones_like(t), tf.ones_like(t)


# (config, t) -> alpha' and sigma', the derivatives by t; ddpm, whose time is whole, has none
RATES: dict[str, Path] = {
    "vp": vp_rates,
    "sub_vp": sub_vp_rates,
    "ve": ve_rates,
    "ve_exponential": ve_exponential_rates,
    "edm": edm_rates,
    "flow": flow_rates,
}


def _time_of_integral(config: DiffusionConfig, integral: tf.Tensor) -> tf.Tensor:
    """T of B(t): the positive root of a quadratic equation, in the form that does not cancel."""
    beta_min, beta_max = (config.timesteps * beta for beta in config.beta_range)
    return 2.0 * integral / (beta_min + tf.sqrt(beta_min**2 + 2.0 * (beta_max - beta_min) * integral))


def _vp_time(config: DiffusionConfig, log_snr: tf.Tensor) -> tf.Tensor:
    # alpha^2 = exp(-B) = 1 / (1 + exp(-log_snr))
    return _time_of_integral(config, tf.math.softplus(-log_snr))


def _sub_vp_time(config: DiffusionConfig, log_snr: tf.Tensor) -> tf.Tensor:
    # sigma / alpha = exp(B / 2) - exp(-B / 2) = 2 sinh(B / 2)
    return _time_of_integral(config, 2.0 * tf.math.asinh(tf.exp(-log_snr / 2.0) / 2.0))


def _ve_time(config: DiffusionConfig, log_snr: tf.Tensor) -> tf.Tensor:
    return (-log_snr / 2.0 - math.log(config.sigma_min)) / math.log(config.sigma_max / config.sigma_min)


def _ve_exponential_time(config: DiffusionConfig, log_snr: tf.Tensor) -> tf.Tensor:
    log_s = math.log(config.sigma_max)
    return tf.math.log1p(2.0 * log_s * tf.exp(-log_snr)) / (2.0 * log_s)


# (config, log-SNR) -> t: the inverse of log_snr; t may be beyond the last of the process
TIMES: dict[str, Callable[[DiffusionConfig, tf.Tensor], tf.Tensor]] = {
    "vp": _vp_time,
    "sub_vp": _sub_vp_time,
    "ve": _ve_time,
    "ve_exponential": _ve_exponential_time,
    "edm": lambda config, log_snr: tf.exp(-log_snr / 2.0),
    "flow": lambda config, log_snr: tf.sigmoid(-log_snr / 2.0),
}
