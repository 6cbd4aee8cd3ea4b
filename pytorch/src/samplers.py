"""From noise to an image: every sampler on the same terms. Noise and levels are arguments; nothing here draws a number.

A sampler runs on N levels of any process, from i = N - 1 down to 0. Step i goes from x, whose signal and noise have
the sizes alpha and sigma of level i,

    x = alpha x_0 + sigma eps

to x_prev with alpha_prev and sigma_prev, those of level i - 1, or 1 and 0, the clean image, at i = 0. The way in
lambda = log(alpha / sigma) is h = lambda_prev - lambda; `decay` is exp(-h) = alpha sigma_prev / (alpha_prev sigma).

Every sampler takes the levels, a denoiser, x_T [B, C, H, W] and z_at, the noise of step i; those that draw none ignore
it. Every sampler yields (i, x_prev) for i = N - 1 .. 0, so that the caller can watch, draw or stop. The last x_prev is
the sample.

Mirror: ddpm_tf.samplers. Letters as in engine.py.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ddpm_torch.prediction import Predicted
from ddpm_torch.processes import Levels
from ddpm_torch.solvers import (
    Chain,
    Denoiser,
    Noise,
    Waypoints,
    euler,
    euler_maruyama,
    heun_t,
    is_raised,
    pc,
    raise_noise,
    rk4,
)

# The weights of the newest eps and those before it in PLMS: those of the Adams-Bashforth methods.
ADAMS_BASHFORTH = {
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}


def transfer(levels: Levels, x: Tensor, i: int, eps: Tensor) -> Tensor:
    """From x to x_prev along eps: the step of every solver that works on eps.

    x_prev = alpha_prev (x - sigma eps) / alpha + sigma_prev eps

    Args:
        levels: N of them.
        x: [B, C, H, W], at level i.
        i: 0 .. N - 1, with alpha above 0.
        eps: [B, C, H, W].

    Returns:
        x_prev, [B, C, H, W].

    Source: Liu et al. 2022 (arXiv:2202.09778), eq. 11; with eps of x itself, Song et al. 2021, eq. 12.
    Mirror: ddpm_tf.samplers.transfer.
    """
    (alpha, sigma), (alpha_prev, sigma_prev) = levels.level(i), levels.level(i - 1)
    return alpha_prev / alpha * (x - sigma * eps) + sigma_prev * eps


def posterior_mean(levels: Levels, x: Tensor, i: int, x_0: Tensor) -> Tensor:
    """The mean of q(x_prev | x, x_0) of step i.

    mean = alpha_prev (1 - exp(-2h)) x_0 + (sigma_prev / sigma) exp(-h) x

    Args:
        levels: N of them.
        x: [B, C, H, W], at level i.
        i: 0 .. N - 1.
        x_0: [B, C, H, W].

    Returns:
        [B, C, H, W].

    Source: Ho et al. 2020, eq. 7, for any alpha and sigma, as in Kingma et al. 2021 (arXiv:2107.00630), eq. 28.
    Mirror: ddpm_tf.samplers.posterior_mean.
    """
    (_, sigma), (alpha_prev, sigma_prev), decay = levels.level(i), levels.level(i - 1), levels.decay(i)
    return alpha_prev * (1.0 - decay) * (1.0 + decay) * x_0 + sigma_prev / sigma * decay * x


def posterior_deviation(levels: Levels, i: int) -> float:
    """The deviation of q(x_prev | x, x_0) of step i, sigma_prev sqrt(1 - exp(-2h)); 0 at i = 0.

    Source: Ho et al. 2020, eq. 7, for any alpha and sigma, as in Kingma et al. 2021 (arXiv:2107.00630), eq. 27.
    Mirror: ddpm_tf.samplers.posterior_deviation.
    """
    (_, sigma_prev), decay = levels.level(i - 1), levels.decay(i)
    return sigma_prev * math.sqrt((1.0 - decay) * (1.0 + decay))


def ancestral(levels: Levels, denoise: Denoiser, x_T: Tensor, z_at: Noise) -> Chain:  # noqa: N803 (capital T)
    """Ho et al.'s sampler: draw x_prev from the reverse process.

    x_prev = mean(x_0, x) + deviation z,  deviation = sigma_prev^(1 - f) sigma^f sqrt(1 - exp(-2h)), without z at i = 0

    f is the fraction of the way from the posterior's log-variance, f = 0, to that of the forward step, f = 1.

    Source: Ho et al. 2020, algorithm 2; Nichol and Dhariwal 2021 (arXiv:2102.09672), eq. 15 and, on fewer steps,
        section 4.
    Mirror: ddpm_tf.samplers.ancestral.
    """
    x = x_T
    for i in reversed(range(len(levels))):
        predicted = denoise(x, i)
        x = posterior_mean(levels, x, i, predicted.x_0)
        if i > 0:
            (_, sigma), (_, sigma_prev) = levels.level(i), levels.level(i - 1)
            # A denoiser of x_0 and eps alone has no fraction: the variance then is the posterior's.
            fraction = torch.as_tensor(getattr(predicted, "fraction", 0.0), dtype=x.dtype, device=x.device)
            x = x + posterior_deviation(levels, i) * (sigma / sigma_prev) ** fraction * z_at(i)
        yield i, x


def ddim(
    levels: Levels,
    denoise: Denoiser,
    x_T: Tensor,  # noqa: N803
    z_at: Noise,
    eta: float = 0.0,
) -> Chain:
    """Denoise to x_0, then noise again to the level before, with the same eps or partly with new noise.

    x_prev = alpha_prev x_0 + sqrt(sigma_prev^2 - s^2) eps + s z,  s = eta sigma_prev sqrt(1 - exp(-2h))

    Source: Song et al. 2021 (arXiv:2010.02502), eq. 12 and 16.
    Mirror: ddpm_tf.samplers.ddim.
    """
    x = x_T
    for i in reversed(range(len(levels))):
        predicted = denoise(x, i)
        (alpha_prev, sigma_prev), decay = levels.level(i - 1), levels.decay(i)
        s = eta * posterior_deviation(levels, i)
        # sigma_prev^2 - s^2 = sigma_prev^2 (1 - eta^2 + (eta exp(-h))^2): a sum, where the difference would cancel
        old = sigma_prev * math.sqrt(1.0 - eta**2 + (eta * decay) ** 2)
        x = alpha_prev * predicted.x_0 + old * predicted.eps
        if s > 0.0:
            x = x + s * z_at(i)
        yield i, x


def plms(levels: Levels, denoise: Denoiser, x_T: Tensor, z_at: Noise) -> Chain:  # noqa: N803
    """DDIM's step along an eps extrapolated from the last four: pseudo linear multi-step.

    eps' = (55 eps_i - 59 eps_{i+1} + 37 eps_{i+2} - 9 eps_{i+3}) / 24, with fewer at the start;
    the first step, which has none before it, averages eps at both of its ends

    Source: Liu et al. 2022 (arXiv:2202.09778), eq. 11-13, begun as in Rombach et al.'s released code.
    Mirror: ddpm_tf.samplers.plms.
    """
    x, past = x_T, list[Tensor]()
    for i in reversed(range(len(levels))):
        predicted = denoise(x, i)
        past = [predicted.eps, *past[:3]]  # the newest first
        if len(past) == 1:
            x = heun_step(levels, denoise, x, i, predicted)
        else:
            weighted = (w * eps for w, eps in zip(ADAMS_BASHFORTH[len(past)], past, strict=True))
            x = transfer(levels, x, i, sum(weighted, start=torch.zeros_like(x)))
        yield i, x


def heun_step(levels: Levels, denoise: Denoiser, x: Tensor, i: int, predicted: Predicted) -> Tensor:
    """From x to x_prev along the mean of eps here and there, where DDIM's step leads.

    Where the network can be evaluated at one end only it is DDIM's step: the clean image has no eps, pure noise no x_0.

    Args:
        levels: N of them.
        denoise: evaluates the network.
        x: [B, C, H, W], at level i.
        i: 0 .. N - 1.
        predicted: denoise(x, i).

    Returns:
        x_prev, [B, C, H, W].

    Source: Karras et al. 2022 (arXiv:2206.00364), algorithm 1, in x / alpha as a function of sigma / alpha.
    Mirror: ddpm_tf.samplers.heun_step.
    """
    (alpha, _), (alpha_prev, sigma_prev) = levels.level(i), levels.level(i - 1)
    trial = alpha_prev * predicted.x_0 + sigma_prev * predicted.eps
    if i == 0 or alpha == 0.0:
        return trial
    return transfer(levels, x, i, 0.5 * (predicted.eps + denoise(trial, i - 1).eps))


def heun(
    levels: Levels,
    denoise: Denoiser,
    x_T: Tensor,  # noqa: N803
    z_at: Noise,
    raised: Waypoints | None = None,
    churn_noise: float = 1.0,
) -> Chain:
    """The probability-flow ODE by Heun's method: two evaluations a step, one in the last.

    d(x / alpha) / d(sigma / alpha) = eps

    With raised levels it is EDM's stochastic sampler: before step i, noise is added up to raised level i, and the step
    goes from there to level i - 1.

    Args:
        levels: N of them.
        denoise: evaluates the network.
        x_T: [B, C, H, W].
        z_at: the noise of step i; called where level i is raised.
        raised: levels of more noise, one for each step, as of `churned` (default: nothing is added).
        churn_noise: S_noise, the deviation of the noise that is added.

    Source: Karras et al. 2022 (arXiv:2206.00364), algorithms 1 and 2, on the given levels.
    Mirror: ddpm_tf.samplers.heun.
    """
    x = x_T
    for i in reversed(range(len(levels))):
        if raised is None or not is_raised(levels, raised.levels, i):
            x = heun_step(levels, denoise, x, i, denoise(x, i))
        else:
            x = raise_noise(levels, raised.levels, i, x, churn_noise * z_at(i))
            x = heun_step(levels.raised(i, *raised.levels.level(i)), denoise, x, i, raised.denoise(x, i))
        yield i, x


def extrapolate(levels: Levels, i: int, x_0: Tensor, x_0_last: Tensor | None) -> Tensor:
    """x_0 half a step ahead in lambda = log(alpha / sigma), on the line through the last two.

    D = x_0 + (h / 2 h_last) (x_0 - x_0_last),  h = lambda_prev - lambda; in the first and the last step D = x_0

    Args:
        levels: N of them.
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
    return x_0 + levels.step(i) / (2.0 * levels.step(i + 1)) * (x_0 - x_0_last)


def dpmpp_2m(levels: Levels, denoise: Denoiser, x_T: Tensor, z_at: Noise) -> Chain:  # noqa: N803
    """DPM-Solver++(2M): the exact solution where x_0 stands still, with x_0 extrapolated half a step.

    x_prev = (sigma_prev / sigma) x + alpha_prev (1 - exp(-h)) D

    Source: Lu et al. 2022 (arXiv:2211.01095), algorithm 2.
    Mirror: ddpm_tf.samplers.dpmpp_2m.
    """
    x, x_0_last = x_T, None
    for i in reversed(range(len(levels))):
        x_0 = denoise(x, i).x_0
        (_, sigma), (alpha_prev, sigma_prev), decay = levels.level(i), levels.level(i - 1), levels.decay(i)
        x = sigma_prev / sigma * x + alpha_prev * (1.0 - decay) * extrapolate(levels, i, x_0, x_0_last)
        x_0_last = x_0
        yield i, x


def dpmpp_2m_sde(levels: Levels, denoise: Denoiser, x_T: Tensor, z_at: Noise) -> Chain:  # noqa: N803
    """DPM-Solver++(2M) on the reverse SDE: the posterior of x_prev, with x_0 extrapolated half a step.

    x_prev = (sigma_prev / sigma) exp(-h) x + alpha_prev (1 - exp(-2h)) D + sigma_prev sqrt(1 - exp(-2h)) z

    Source: Lu et al. 2022 (arXiv:2211.01095), SDE-DPM-Solver++(2M) of section 5.
    Mirror: ddpm_tf.samplers.dpmpp_2m_sde.
    """
    x, x_0_last = x_T, None
    for i in reversed(range(len(levels))):
        x_0 = denoise(x, i).x_0
        x = posterior_mean(levels, x, i, extrapolate(levels, i, x_0, x_0_last))
        if i > 0:
            x = x + posterior_deviation(levels, i) * z_at(i)
        x_0_last = x_0
        yield i, x


SAMPLERS: dict[str, Callable[..., Chain]] = {
    "ancestral": ancestral,
    "ddim": ddim,
    "plms": plms,
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_2m_sde": dpmpp_2m_sde,
    "heun": heun,
    "euler": euler,
    "heun_t": heun_t,
    "rk4": rk4,
    "euler_maruyama": euler_maruyama,
    "pc": pc,
}


def ddim_invert(levels: Levels, denoise: Denoiser, x_0: Tensor, iterations: int = 1) -> Chain:
    """From an image to the noise that DDIM would draw it from: its steps undone, from i = 0 up to N - 1.

    x = (alpha / alpha_prev) (x_prev - sigma_prev eps(x)) + sigma eps(x)

    x stands on both sides: each iteration puts the last x in on the right, the first one x_prev.

    Args:
        levels: N of them.
        denoise: evaluates the network; without clipping of x_0, which cannot be undone.
        x_0: [B, C, H, W] images in [-1, 1].
        iterations: 1 or more; one is the common inversion.

    Yields:
        (i, x) for i = 0 .. N - 1; the last x is the noise.

    Source: Song et al. 2021 (arXiv:2010.02502), eq. 14; Pan et al. 2023 (arXiv:2309.04907), for the iterations.
    Mirror: ddpm_tf.samplers.ddim_invert.
    """
    x = x_0
    for i in range(len(levels)):
        x_prev = x
        (alpha, sigma), (alpha_prev, sigma_prev) = levels.level(i), levels.level(i - 1)
        for _ in range(iterations):
            eps = denoise(x, i).eps
            x = alpha / alpha_prev * (x_prev - sigma_prev * eps) + sigma * eps
        yield i, x


def last(chain: Chain, on_step: Callable[[int, Tensor], None] = lambda i, x: None) -> Tensor:
    """The last x of a chain, after on_step(i, x) for each. Mirror: ddpm_tf.samplers.last."""
    x = None
    for i, x in chain:
        on_step(i, x)
    assert x is not None, "levels are never empty"
    return x


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
