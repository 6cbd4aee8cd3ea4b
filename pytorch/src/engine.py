"""The mathematics of DDPM. Noise and t are arguments; nothing here draws a number or knows the network.

Mirror: ddpm_tf.engine. Letters: B images, C channels, H and W height and width, T timesteps. t is 0-based: t = 0 is
the paper's t = 1. All equations are those of Ho et al. 2020 (arXiv:2006.11239).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm_torch.config import DiffusionConfig
from ddpm_torch.schedules import make_betas

EpsModel = Callable[[Tensor, Tensor], Tensor]  # (x_t, t) -> eps_pred


@dataclass(frozen=True)
class Schedule:
    """What depends on t alone. Every field is [T]. Mirror: ddpm_tf.engine.Schedule."""

    betas: Tensor
    alphas: Tensor
    alphas_cumprod: Tensor
    alphas_cumprod_prev: Tensor
    sqrt_alphas_cumprod: Tensor
    sqrt_one_minus_alphas_cumprod: Tensor
    posterior_variance: Tensor
    posterior_log_variance_clipped: Tensor
    posterior_mean_coef_x_0: Tensor
    posterior_mean_coef_x_t: Tensor


def make_schedule(
    config: DiffusionConfig,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
    steps: Sequence[int] | None = None,
) -> Schedule:
    """The schedule, computed in float64 and rounded once.

    alphas = 1 - betas, alphas_cumprod[t] = prod(alphas[0 .. t]), alphas_cumprod_prev[0] = 1,
    posterior_variance = betas (1 - alphas_cumprod_prev) / (1 - alphas_cumprod)

    Args:
        config: says how betas grow.
        dtype: of the result.
        device: of the result.
        steps: N times, ascending, if only these are visited; the result then is [N].

    Raises:
        ValueError: an unknown schedule.

    Source: Ho et al. 2020, section 2 and eq. 6-7.
    Mirror: ddpm_tf.engine.make_schedule.
    """
    betas = make_betas(config, steps)
    alphas = 1.0 - betas
    alphas_cumprod = torch.cumprod(alphas, dim=0)
    alphas_cumprod_prev = torch.cat([torch.ones(1, dtype=torch.float64), alphas_cumprod[:-1]])
    posterior_variance = betas * (1.0 - alphas_cumprod_prev) / (1.0 - alphas_cumprod)
    # The variance is 0 at t = 0; Ho et al. take the next one there, so that the logarithm exists (of one step: beta).
    after = posterior_variance[1:2] if len(betas) > 1 else betas
    posterior_log_variance = torch.log(torch.cat([after, posterior_variance[1:]]))
    fields = (
        betas,
        alphas,
        alphas_cumprod,
        alphas_cumprod_prev,
        torch.sqrt(alphas_cumprod),
        torch.sqrt(1.0 - alphas_cumprod),
        posterior_variance,
        posterior_log_variance,
        betas * torch.sqrt(alphas_cumprod_prev) / (1.0 - alphas_cumprod),
        (1.0 - alphas_cumprod_prev) * torch.sqrt(alphas) / (1.0 - alphas_cumprod),
    )
    return Schedule(*(field.to(device=device, dtype=dtype) for field in fields))


def at(values: Tensor, t: Tensor) -> Tensor:
    """values[t], to be multiplied with images: [T], [B] -> [B, 1, 1, 1]. Mirror: ddpm_tf.engine.at."""
    return values[t][:, None, None, None]


def q_sample(schedule: Schedule, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """Diffuse images to time t in one step.

    x_t = sqrt(alphas_cumprod[t]) x_0 + sqrt(1 - alphas_cumprod[t]) eps

    Args:
        schedule: of the forward process.
        x_0: [B, C, H, W] images in [-1, 1].
        t: [B] integer, 0 .. T - 1.
        eps: [B, C, H, W] standard normal noise.

    Returns:
        x_t, [B, C, H, W].

    Source: Ho et al. 2020, eq. 4.
    Mirror: ddpm_tf.engine.q_sample.
    """
    return at(schedule.sqrt_alphas_cumprod, t) * x_0 + at(schedule.sqrt_one_minus_alphas_cumprod, t) * eps


def predict_x_0(schedule: Schedule, x_t: Tensor, t: Tensor, eps_pred: Tensor) -> Tensor:
    """The image that x_t came from if its noise was eps_pred: q_sample solved for x_0.

    x_0 = (x_t - sqrt(1 - alphas_cumprod[t]) eps_pred) / sqrt(alphas_cumprod[t])

    Args:
        schedule: of the forward process.
        x_t: [B, C, H, W] noisy images.
        t: [B] integer, 0 .. T - 1.
        eps_pred: [B, C, H, W] predicted noise.

    Returns:
        x_0_pred, [B, C, H, W], not clipped.

    Source: Ho et al. 2020, eq. 15.
    Mirror: ddpm_tf.engine.predict_x_0.
    """
    return (x_t - at(schedule.sqrt_one_minus_alphas_cumprod, t) * eps_pred) / at(schedule.sqrt_alphas_cumprod, t)


def q_posterior(schedule: Schedule, x_0: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The Gaussian q(x_prev | x_t, x_0).

    mean = posterior_mean_coef_x_0[t] x_0 + posterior_mean_coef_x_t[t] x_t

    Args:
        schedule: of the forward process.
        x_0: [B, C, H, W] clean images.
        x_t: [B, C, H, W] noisy images.
        t: [B] integer, 0 .. T - 1.

    Returns:
        mean [B, C, H, W], variance [B, 1, 1, 1] (0 at t = 0), log_variance [B, 1, 1, 1] (clipped at t = 0).

    Source: Ho et al. 2020, eq. 6-7.
    Mirror: ddpm_tf.engine.q_posterior.
    """
    mean = at(schedule.posterior_mean_coef_x_0, t) * x_0 + at(schedule.posterior_mean_coef_x_t, t) * x_t
    return mean, at(schedule.posterior_variance, t), at(schedule.posterior_log_variance_clipped, t)


def p_sample(
    schedule: Schedule, eps_model: EpsModel, x_t: Tensor, t: Tensor, z: Tensor, clip_x_0: bool = True
) -> Tensor:
    """One step of the ancestral sampler, from t to t - 1.

    x_prev = mean(x_0_pred, x_t) + exp(log_variance / 2) z, without z at t = 0

    Args:
        schedule: of the forward process.
        eps_model: the network.
        x_t: [B, C, H, W] noisy images.
        t: [B] integer, 0 .. T - 1.
        z: [B, C, H, W] standard normal noise; at t = 0 the result does not depend on it.
        clip_x_0: clip the implied x_0 to [-1, 1], where the data are.

    Returns:
        x_prev, [B, C, H, W]; at t = 0 it is the sample.

    Source: Ho et al. 2020, algorithm 2, with the fixed small variance.
    Mirror: ddpm_tf.engine.p_sample.
    """
    x_0_pred = predict_x_0(schedule, x_t, t, eps_model(x_t, t))
    if clip_x_0:
        x_0_pred = x_0_pred.clamp(-1.0, 1.0)
    mean, _, log_variance = q_posterior(schedule, x_0_pred, x_t, t)
    noise = torch.exp(0.5 * log_variance) * z
    return torch.where((t > 0)[:, None, None, None], mean + noise, mean)


def diffusion_loss(schedule: Schedule, eps_model: EpsModel, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """The simplified objective: how well the network tells the noise, || eps - eps_model(x_t, t) ||^2.

    Args:
        schedule: of the forward process.
        eps_model: the network.
        x_0: [B, C, H, W] images in [-1, 1].
        t: [B] integer, 0 .. T - 1.
        eps: [B, C, H, W] standard normal noise.

    Returns:
        Scalar, the mean over all elements.

    Source: Ho et al. 2020, eq. 14.
    Mirror: ddpm_tf.engine.diffusion_loss.
    """
    eps_pred = eps_model(q_sample(schedule, x_0, t, eps), t)
    return torch.mean((eps - eps_pred) ** 2)
