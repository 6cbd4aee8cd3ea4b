"""From noise to an image: every sampler on the same terms. Noise and steps are arguments; nothing here draws a number.

A sampler runs on a schedule of N steps, all of the process or some (schedules.respaced), from i = N - 1 down to 0.
Step i goes from x_t, whose signal and noise have the sizes alpha and sigma,

    x_t = alpha x_0 + sigma eps,  alpha = sqrt(alphas_cumprod[i]),  sigma = sqrt(1 - alphas_cumprod[i])

to x_prev with alpha_prev and sigma_prev, those of i - 1, or 1 and 0, the clean image, at i = 0.

All take the schedule, what asks the network, x_T [B, C, H, W], and z_at, which those that draw no noise leave alone.
All yield (i, x_prev) for i = N - 1 .. 0, so that the caller can watch, draw or stop. The last x_prev is the sample.

Mirror: ddpm_tf.samplers. Letters as in engine.py.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ddpm_torch.engine import Schedule, at
from ddpm_torch.prediction import Predicted, reverse_log_variance

Denoiser = Callable[[Tensor, int], Predicted]  # (x_t, i) -> what the network says of it
Noise = Callable[[int], Tensor]  # i -> z of that step, [B, C, H, W]
Chain = Iterator[tuple[int, Tensor]]  # (i, x_prev)

# The weights of the newest eps and those before it in PLMS: those of the Adams-Bashforth methods.
ADAMS_BASHFORTH = {
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}


def level(schedule: Schedule, i: int) -> tuple[float, float]:
    """The sizes alpha and sigma at step i; (1, 0), the clean image, at i = -1. Mirror: ddpm_tf.samplers.level."""
    if i < 0:
        return 1.0, 0.0
    return float(schedule.sqrt_alphas_cumprod[i]), float(schedule.sqrt_one_minus_alphas_cumprod[i])


def log_snr(schedule: Schedule, i: int) -> float:
    """Half the log-SNR, lambda = log(alpha / sigma), infinite at the ends. Mirror: ddpm_tf.samplers.log_snr."""
    alpha, sigma = level(schedule, i)
    if sigma == 0.0:
        return math.inf
    return math.log(alpha / sigma) if alpha > 0.0 else -math.inf


def stride(schedule: Schedule, i: int) -> float:
    """What step i adds to lambda: h = lambda_prev - lambda. Mirror: ddpm_tf.samplers.stride."""
    return log_snr(schedule, i - 1) - log_snr(schedule, i)


def transfer(schedule: Schedule, x_t: Tensor, i: int, eps: Tensor) -> Tensor:
    """From x_t to x_prev along eps: the step of every solver that works on eps.

    x_prev = alpha_prev (x_t - sigma eps) / alpha + sigma_prev eps

    Args:
        schedule: of N steps.
        x_t: [B, C, H, W], at step i.
        i: 0 .. N - 1, with alpha above 0.
        eps: [B, C, H, W].

    Returns:
        x_prev, [B, C, H, W].

    Source: Liu et al. 2022 (arXiv:2202.09778), eq. 11; with eps of x_t itself, Song et al. 2021, eq. 12.
    Mirror: ddpm_tf.samplers.transfer.
    """
    (alpha, sigma), (alpha_prev, sigma_prev) = level(schedule, i), level(schedule, i - 1)
    return alpha_prev / alpha * (x_t - sigma * eps) + sigma_prev * eps


def ancestral(schedule: Schedule, denoise: Denoiser, x_T: Tensor, z_at: Noise) -> Chain:  # noqa: N803 (capital T)
    """Ho et al.'s sampler: draw x_prev from the reverse process.

    x_prev = mean(x_0, x_t) + exp(log_variance / 2) z, without z at i = 0

    Source: Ho et al. 2020, algorithm 2; on fewer steps Nichol and Dhariwal 2021 (arXiv:2102.09672), section 4.
    Mirror: ddpm_tf.samplers.ancestral.
    """
    x = x_T
    for i in reversed(range(len(schedule.betas))):
        predicted, index = denoise(x, i), torch.tensor([i], device=x.device)
        mean = at(schedule.posterior_mean_coef_x_0, index) * predicted.x_0
        mean = mean + at(schedule.posterior_mean_coef_x_t, index) * x
        deviation = torch.exp(0.5 * reverse_log_variance(schedule, index, predicted.fraction))
        x = mean + deviation * z_at(i) if i > 0 else mean
        yield i, x


def ddim(
    schedule: Schedule,
    denoise: Denoiser,
    x_T: Tensor,  # noqa: N803
    z_at: Noise,
    eta: float = 0.0,
) -> Chain:
    """Denoise to x_0, then noise again to the step before, with the same eps or partly with new noise.

    x_prev = alpha_prev x_0 + sqrt(sigma_prev^2 - s^2) eps + s z,  s = eta sqrt(posterior_variance)

    Source: Song et al. 2021 (arXiv:2010.02502), eq. 12 and 16.
    Mirror: ddpm_tf.samplers.ddim.
    """
    x = x_T
    for i in reversed(range(len(schedule.betas))):
        predicted = denoise(x, i)
        (_, sigma), (alpha_prev, _) = level(schedule, i), level(schedule, i - 1)
        variance = float(schedule.posterior_variance[i])
        s = eta * math.sqrt(variance)
        # sigma_prev^2 = variance + (posterior_mean_coef_x_t sigma)^2: a sum, where sigma_prev^2 - s^2 would cancel
        kept = (1.0 - eta**2) * variance + (float(schedule.posterior_mean_coef_x_t[i]) * sigma) ** 2
        x = alpha_prev * predicted.x_0 + math.sqrt(kept) * predicted.eps
        if s > 0.0:
            x = x + s * z_at(i)
        yield i, x


def plms(schedule: Schedule, denoise: Denoiser, x_T: Tensor, z_at: Noise) -> Chain:  # noqa: N803
    """DDIM's step along an eps extrapolated from the last four: pseudo linear multi-step.

    eps' = (55 eps_i - 59 eps_{i+1} + 37 eps_{i+2} - 9 eps_{i+3}) / 24, with fewer at the start;
    the first step, which has none to look back at, averages eps at both of its ends

    Source: Liu et al. 2022 (arXiv:2202.09778), eq. 11-13, begun as in Rombach et al.'s released code.
    Mirror: ddpm_tf.samplers.plms.
    """
    x, past = x_T, list[Tensor]()
    for i in reversed(range(len(schedule.betas))):
        predicted = denoise(x, i)
        past = [predicted.eps, *past[:3]]  # the newest first
        if len(past) == 1:
            x = heun_step(schedule, denoise, x, i, predicted)
        else:
            weighted = (w * eps for w, eps in zip(ADAMS_BASHFORTH[len(past)], past, strict=True))
            x = transfer(schedule, x, i, sum(weighted, start=torch.zeros_like(x)))
        yield i, x


def heun_step(schedule: Schedule, denoise: Denoiser, x_t: Tensor, i: int, predicted: Predicted) -> Tensor:
    """From x_t to x_prev along the mean of eps here and there, where DDIM's step leads.

    Where only one end can be asked it is DDIM's step: the clean image has no eps, pure noise no x_0.

    Args:
        schedule: of N steps.
        denoise: asks the network.
        x_t: [B, C, H, W], at step i.
        i: 0 .. N - 1.
        predicted: denoise(x_t, i).

    Returns:
        x_prev, [B, C, H, W].

    Source: Karras et al. 2022 (arXiv:2206.00364), algorithm 1, in x_t / alpha over sigma / alpha.
    Mirror: ddpm_tf.samplers.heun_step.
    """
    alpha_prev, sigma_prev = level(schedule, i - 1)
    trial = alpha_prev * predicted.x_0 + sigma_prev * predicted.eps
    if i == 0 or level(schedule, i)[0] == 0.0:
        return trial
    return transfer(schedule, x_t, i, 0.5 * (predicted.eps + denoise(trial, i - 1).eps))


def heun(schedule: Schedule, denoise: Denoiser, x_T: Tensor, z_at: Noise) -> Chain:  # noqa: N803
    """The probability-flow ODE by Heun's method: two evaluations a step, one in the last.

    d(x_t / alpha) / d(sigma / alpha) = eps

    Source: Karras et al. 2022 (arXiv:2206.00364), algorithm 1, on the times of the schedule.
    Mirror: ddpm_tf.samplers.heun.
    """
    x = x_T
    for i in reversed(range(len(schedule.betas))):
        x = heun_step(schedule, denoise, x, i, denoise(x, i))
        yield i, x


def extrapolate(schedule: Schedule, i: int, x_0: Tensor, x_0_last: Tensor | None) -> Tensor:
    """x_0 half a step ahead in lambda = log(alpha / sigma), on the line through the last two.

    D = x_0 + (h / 2 h_last) (x_0 - x_0_last),  h = lambda_prev - lambda; in the first and the last step D = x_0

    Args:
        schedule: of N steps.
        i: 0 .. N - 1.
        x_0: [B, C, H, W], predicted at step i.
        x_0_last: the same at step i + 1; None in the first step.

    Returns:
        D, [B, C, H, W].

    Source: Lu et al. 2022 (arXiv:2211.01095), algorithm 2.
    Mirror: ddpm_tf.samplers.extrapolate.
    """
    if x_0_last is None or i == 0:
        return x_0
    h, h_last = stride(schedule, i), stride(schedule, i + 1)
    return x_0 + h / (2.0 * h_last) * (x_0 - x_0_last)


def dpmpp_2m(schedule: Schedule, denoise: Denoiser, x_T: Tensor, z_at: Noise) -> Chain:  # noqa: N803
    """DPM-Solver++(2M): the exact solution where x_0 stands still, with x_0 extrapolated half a step.

    x_prev = (sigma_prev / sigma) x_t + alpha_prev (1 - exp(-h)) D

    Source: Lu et al. 2022 (arXiv:2211.01095), algorithm 2.
    Mirror: ddpm_tf.samplers.dpmpp_2m.
    """
    x, x_0_last = x_T, None
    for i in reversed(range(len(schedule.betas))):
        x_0 = denoise(x, i).x_0
        (_, sigma), (alpha_prev, sigma_prev) = level(schedule, i), level(schedule, i - 1)
        h = stride(schedule, i)
        x = sigma_prev / sigma * x - alpha_prev * math.expm1(-h) * extrapolate(schedule, i, x_0, x_0_last)
        x_0_last = x_0
        yield i, x


def dpmpp_2m_sde(schedule: Schedule, denoise: Denoiser, x_T: Tensor, z_at: Noise) -> Chain:  # noqa: N803
    """DPM-Solver++(2M) on the reverse SDE: twice the way to x_0, and new noise for what that overshoots.

    x_prev = (sigma_prev / sigma) exp(-h) x_t + alpha_prev (1 - exp(-2h)) D + sigma_prev sqrt(1 - exp(-2h)) z

    Source: Lu et al. 2022 (arXiv:2211.01095), SDE-DPM-Solver++(2M) of section 5.
    Mirror: ddpm_tf.samplers.dpmpp_2m_sde.
    """
    x, x_0_last = x_T, None
    for i in reversed(range(len(schedule.betas))):
        x_0 = denoise(x, i).x_0
        (_, sigma), (alpha_prev, sigma_prev) = level(schedule, i), level(schedule, i - 1)
        h = stride(schedule, i)
        change = -math.expm1(-2.0 * h)
        x = sigma_prev / sigma * math.exp(-h) * x + alpha_prev * change * extrapolate(schedule, i, x_0, x_0_last)
        if i > 0:
            x = x + sigma_prev * math.sqrt(change) * z_at(i)
        x_0_last = x_0
        yield i, x


SAMPLERS: dict[str, Callable[..., Chain]] = {
    "ancestral": ancestral,
    "ddim": ddim,
    "plms": plms,
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_2m_sde": dpmpp_2m_sde,
    "heun": heun,
}


def ddim_invert(schedule: Schedule, denoise: Denoiser, x_0: Tensor, iterations: int = 1) -> Chain:
    """From an image to the noise that DDIM would draw it from: its steps undone, from i = 0 up to N - 1.

    x_t = (alpha / alpha_prev) (x_prev - sigma_prev eps(x_t)) + sigma eps(x_t)

    x_t stands on both sides: each iteration puts the last x_t in on the right, the first one x_prev.

    Args:
        schedule: of N steps.
        denoise: asks the network; without a limit of x_0, which cannot be undone.
        x_0: [B, C, H, W] images in [-1, 1].
        iterations: 1 or more; one is the common inversion.

    Yields:
        (i, x_t) for i = 0 .. N - 1; the last x_t is the noise.

    Source: Song et al. 2021 (arXiv:2010.02502), eq. 14; Pan et al. 2023 (arXiv:2309.04907), for the iterations.
    Mirror: ddpm_tf.samplers.ddim_invert.
    """
    x = x_0
    for i in range(len(schedule.betas)):
        x_prev = x
        (alpha, sigma), (alpha_prev, sigma_prev) = level(schedule, i), level(schedule, i - 1)
        for _ in range(iterations):
            eps = denoise(x, i).eps
            x = alpha / alpha_prev * (x_prev - sigma_prev * eps) + sigma * eps
        yield i, x


def slerp(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """Between two noises along the great circle, which keeps their length as a straight line would not.

    sin((1 - weight) omega) / sin(omega) x + sin(weight omega) / sin(omega) y,  omega the angle between x and y

    Args:
        x: [B, C, H, W].
        y: [B, C, H, W], nowhere parallel to x.
        weight: [B], 0 for x, 1 for y.

    Returns:
        [B, C, H, W].

    Source: Shoemake 1985; Song et al. 2021 (arXiv:2010.02502), appendix D.5.
    Mirror: ddpm_tf.samplers.slerp.
    """
    x_flat, y_flat = x.flatten(1), y.flatten(1)
    cosine = (x_flat * y_flat).sum(1) / (x_flat.norm(dim=1) * y_flat.norm(dim=1))
    omega = torch.acos(torch.clamp(cosine, -1.0, 1.0))
    a, b = (torch.sin(w * omega) / torch.sin(omega) for w in (1.0 - weight, weight))
    return a[:, None, None, None] * x + b[:, None, None, None] * y
