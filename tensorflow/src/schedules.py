"""How beta grows with t, by name, and the same process in fewer steps. All in float64.

Mirror: ddpm_torch.schedules. T timesteps, t = 0 .. T - 1; t = 0 is the paper's t = 1.
"""

import math
from collections.abc import Callable, Sequence

import tensorflow as tf

from ddpm_shared.errors import choice
from ddpm_tf.config import DiffusionConfig

COSINE_OFFSET = 0.008  # keeps beta at t = 0 from being too small to see
COSINE_MAX_BETA = 0.999
SIGMOID_REACH = 6.0


def _ramp(start: float, end: float, timesteps: int) -> tf.Tensor:
    return tf.linspace(tf.constant(start, tf.float64), end, timesteps)


def linear(config: DiffusionConfig) -> tf.Tensor:
    """Betas grow linearly from beta_start to beta_end, [T].

    Source: Ho et al. 2020 (arXiv:2006.11239), section 4.
    Mirror: ddpm_torch.schedules.linear.
    """
    start, end = config.beta_range
    return _ramp(start, end, config.timesteps)


def quadratic(config: DiffusionConfig) -> tf.Tensor:
    """The roots of betas grow linearly, from sqrt(beta_start) to sqrt(beta_end), [T].

    Latent diffusion's "scaled linear" is the same formula (there from 0.00085 to 0.012).

    Source: Song et al. 2021 (arXiv:2010.02502), released code; Rombach et al. 2022 (arXiv:2112.10752), released code.
    Mirror: ddpm_torch.schedules.quadratic.
    """
    start, end = config.beta_range
    return _ramp(math.sqrt(start), math.sqrt(end), config.timesteps) ** 2


def cosine(config: DiffusionConfig) -> tf.Tensor:
    """alphas_cumprod falls like a squared cosine; each beta is at most 0.999, [T].

    beta = 1 - f(t + 1) / f(t),  f(t) = cos((t / T + 0.008) / 1.008 * pi / 2)^2

    Source: Nichol and Dhariwal 2021 (arXiv:2102.09672), eq. 17.
    Mirror: ddpm_torch.schedules.cosine.
    """
    fraction = tf.range(config.timesteps + 1, dtype=tf.float64) / config.timesteps
    f = tf.cos((fraction + COSINE_OFFSET) / (1.0 + COSINE_OFFSET) * (math.pi / 2)) ** 2
    return tf.minimum(1.0 - f[1:] / f[:-1], COSINE_MAX_BETA)


def sigmoid(config: DiffusionConfig) -> tf.Tensor:
    """Betas grow from beta_start to beta_end along a logistic curve, [T].

    beta = beta_start + (beta_end - beta_start) / (1 + exp(-s)),  s from -6 to 6

    Source: Xu et al. 2022 (GeoDiff, arXiv:2203.02923), released code.
    Mirror: ddpm_torch.schedules.sigmoid.
    """
    start, end = config.beta_range
    return start + (end - start) * tf.sigmoid(_ramp(-SIGMOID_REACH, SIGMOID_REACH, config.timesteps))


SCHEDULES: dict[str, Callable[[DiffusionConfig], tf.Tensor]] = {
    "linear": linear,
    "scaled_linear": quadratic,
    "quadratic": quadratic,
    "cosine": cosine,
    "sigmoid": sigmoid,
}


def _betas_of(alphas_cumprod: tf.Tensor) -> tf.Tensor:
    """The inverse of alphas_cumprod = cumprod(1 - betas), [N]."""
    return 1.0 - tf.concat([alphas_cumprod[:1], alphas_cumprod[1:] / alphas_cumprod[:-1]], axis=0)


def zero_terminal_snr(betas: tf.Tensor) -> tf.Tensor:
    """The betas of a process that ends in pure noise: sqrt(alphas_cumprod), shifted and scaled to end at 0.

    Args:
        betas: [T].

    Returns:
        [T]; the last is 1.

    Source: Lin et al. 2024 (arXiv:2305.08891), algorithm 1.
    Mirror: ddpm_torch.schedules.zero_terminal_snr.
    """
    root = tf.sqrt(tf.math.cumprod(1.0 - betas))
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    return _betas_of(root**2)


def respaced(betas: tf.Tensor, steps: Sequence[int]) -> tf.Tensor:
    """The betas of the process that visits only some of the times: its alphas_cumprod there are those of the whole.

    beta = 1 - alphas_cumprod[t] / alphas_cumprod[t before],  1 before the first

    Every sampler on fewer steps is the sampler on these, and so has the right step before, whatever the spacing.

    Args:
        betas: [T].
        steps: N of the times 0 .. T - 1, ascending.

    Returns:
        [N].

    Source: Nichol and Dhariwal 2021 (arXiv:2102.09672), eq. 19.
    Mirror: ddpm_torch.schedules.respaced.
    """
    return _betas_of(tf.gather(tf.math.cumprod(1.0 - betas), list(steps)))


def make_betas(config: DiffusionConfig, steps: Sequence[int] | None = None) -> tf.Tensor:
    """The betas that `config` asks for, on the times `steps` (default: all), [N] float64.

    Raises:
        ValueError: an unknown schedule.

    Mirror: ddpm_torch.schedules.make_betas.
    """
    choice("schedule", config.schedule, tuple(SCHEDULES))
    betas = SCHEDULES[config.schedule](config)
    if config.zero_terminal_snr:
        betas = zero_terminal_snr(betas)
    return betas if steps is None or len(steps) == config.timesteps else respaced(betas, steps)
