"""Solvers in the time of a continuous process: of its probability-flow ODE, and of its reverse SDE.

    ODE    dx/dt = alpha' x_0 + sigma' eps,  x = alpha x_0 + sigma eps
    SDE    dx = (f x - g^2 score) dt + g dw,  score = -eps / sigma

alpha' and sigma' are the derivatives by t, f = alpha' / alpha, g^2 = 2 sigma (sigma' - f sigma).

samplers.py has those that need alpha and sigma alone. These need levels with rates and times, as make_levels makes
them. Like those, they take the levels, a denoiser, x_T [B, C, H, W] and z_at, and yield (i, x_prev), i = N - 1 .. 0.

The last step of the ODE's solvers is to the predicted x_0, as that of DDIM and heun: at the clean image sigma' of vp is
infinite, and for edm and flow Euler's step leads there anyway. That of the SDE's solvers is the mean of a step to
t = 0, without noise: the images of ve keep the noise of sigma_min.

Mirror: ddpm_tf.solvers. Letters as in engine.py.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddpm_torch.prediction import Predicted
from ddpm_torch.processes import Levels

Denoiser = Callable[[Tensor, int], Predicted]  # (x, i) -> what the network predicts of x at level i: .x_0 and .eps
Noise = Callable[[int], Tensor]  # i -> z of that step, [B, C, H, W]
CorrectorNoise = Callable[[int, int], Tensor]  # (i, k) -> z of the k-th step of the corrector at level i, from 0
Chain = Iterator[tuple[int, Tensor]]  # (i, x_prev)

LARGEST_CHURN = math.sqrt(2.0) - 1.0  # no more new noise than there is already
SMALLEST_RISE = 1e-9  # of a level: less is the rounding of its time


class Waypoints(NamedTuple):
    """Further levels where a sampler evaluates the network, one for each step. Mirror: ddpm_tf.solvers.Waypoints."""

    levels: Levels  # N of them, in any order; that of step i is level i
    denoise: Denoiser  # (x, i) -> what the network predicts of x at waypoint i


def velocity(levels: Levels, i: int, predicted: Predicted) -> Tensor:
    """The slope of the probability-flow ODE at level i, dx/dt = alpha' x_0 + sigma' eps.

    Args:
        levels: N of them, with rates.
        i: 0 .. N - 1.
        predicted: what the network predicts there.

    Returns:
        dx/dt, [B, C, H, W].

    Raises:
        UserError: levels without rates.

    Source: Song et al. 2021 (arXiv:2011.13456), eq. 13; Lipman et al. 2023 (arXiv:2210.02747), theorem 3.
    Mirror: ddpm_tf.solvers.velocity.
    """
    alpha_rate, sigma_rate = levels.rates(i)
    return alpha_rate * predicted.x_0 + sigma_rate * predicted.eps


def euler(levels: Levels, denoise: Denoiser, x_T: Tensor, z_at: Noise) -> Chain:  # noqa: N803 (capital T)
    """The probability-flow ODE by Euler's method, in t.

    x_prev = x + (t_prev - t) (alpha' x_0 + sigma' eps)

    For edm and flow, whose alpha and sigma are straight lines in t, that is DDIM.

    Source: Song et al. 2021 (arXiv:2011.13456), eq. 13; Liu et al. 2023 (arXiv:2209.03003), section 2.1.
    Mirror: ddpm_tf.solvers.euler.
    """
    x = x_T
    for i in reversed(range(len(levels))):
        predicted = denoise(x, i)
        step = levels.time(i - 1) - levels.time(i)
        x = x + step * velocity(levels, i, predicted) if i > 0 else predicted.x_0
        yield i, x


def heun_t(levels: Levels, denoise: Denoiser, x_T: Tensor, z_at: Noise) -> Chain:  # noqa: N803
    """The probability-flow ODE by Heun's method, in t: two evaluations a step, one in the last.

    x_prev = x + (t_prev - t) (slope at x + slope where Euler's step leads) / 2

    Source: Karras et al. 2022 (arXiv:2206.00364), algorithm 1, for any alpha and sigma.
    Mirror: ddpm_tf.solvers.heun_t.
    """
    x = x_T
    for i in reversed(range(len(levels))):
        predicted = denoise(x, i)
        if i == 0:
            x = predicted.x_0
        else:
            step = levels.time(i - 1) - levels.time(i)
            here = velocity(levels, i, predicted)
            there = velocity(levels, i - 1, denoise(x + step * here, i - 1))
            x = x + step * 0.5 * (here + there)
        yield i, x


def rk4(levels: Levels, denoise: Denoiser, x_T: Tensor, z_at: Noise, middle: Waypoints) -> Chain:  # noqa: N803
    """The probability-flow ODE by the classical Runge-Kutta method, in t: four evaluations a step, one in the last.

    x_prev = x + (t_prev - t) (k_1 + 2 k_2 + 2 k_3 + k_4) / 6

    k_1 is the slope at x, k_2 in the middle of the step along k_1, k_3 there along k_2, and k_4 at its end along k_3.

    Args:
        levels: N of them, with rates.
        denoise: evaluates the network.
        x_T: [B, C, H, W].
        z_at: not called.
        middle: waypoint i is at the mean of the times of the levels i and i - 1.

    Source: Kutta 1901; the ODE is Song et al. 2021 (arXiv:2011.13456), eq. 13.
    Mirror: ddpm_tf.solvers.rk4.
    """
    x = x_T
    for i in reversed(range(len(levels))):
        predicted = denoise(x, i)
        if i == 0:
            x = predicted.x_0
        else:
            step = levels.time(i - 1) - levels.time(i)
            k_1 = velocity(levels, i, predicted)
            k_2 = velocity(middle.levels, i, middle.denoise(x + step / 2.0 * k_1, i))
            k_3 = velocity(middle.levels, i, middle.denoise(x + step / 2.0 * k_2, i))
            k_4 = velocity(levels, i - 1, denoise(x + step * k_3, i - 1))
            x = x + step / 6.0 * (k_1 + 2.0 * k_2 + 2.0 * k_3 + k_4)
        yield i, x


def churned(levels: Levels, churn: float, churn_from: float = 0.0, churn_to: float = math.inf) -> NDArray[np.float64]:
    """The ratios sigma / alpha to which EDM's stochastic sampler raises the noise before each step.

    sigma_hat / alpha_hat = (1 + gamma) sigma / alpha,  gamma = min(churn / N, sqrt(2) - 1), 0 outside of the interval

    Args:
        levels: N of them.
        churn: S_churn, 0 or more.
        churn_from: S_tmin, the smallest sigma / alpha that is raised.
        churn_to: S_tmax, the largest.

    Returns:
        [N]; sigma / alpha itself where nothing is raised, and infinite in pure noise.

    Source: Karras et al. 2022 (arXiv:2206.00364), algorithm 2, where alpha is 1.
    Mirror: ddpm_tf.solvers.churned.
    """
    with np.errstate(divide="ignore"):
        ratio = levels.sigma / levels.alpha  # infinite in pure noise
    gamma = min(churn / len(levels), LARGEST_CHURN)
    return np.where((churn_from <= ratio) & (ratio <= churn_to), (1.0 + gamma) * ratio, ratio)


def is_raised(levels: Levels, raised: Levels, i: int) -> bool:
    """Whether raised level i has more noise than level i, sigma / alpha. Mirror: ddpm_tf.solvers.is_raised."""
    (alpha, sigma), (alpha_hat, sigma_hat) = levels.level(i), raised.level(i)
    return sigma_hat * alpha > (1.0 + SMALLEST_RISE) * sigma * alpha_hat


def raise_noise(levels: Levels, raised: Levels, i: int, x: Tensor, z: Tensor) -> Tensor:
    """From x at level i up to x_hat at raised level i, by noise of the deviation that is lacking.

    x_hat = c x + sqrt(sigma_hat^2 - c^2 sigma^2) z,  c = alpha_hat / alpha

    Args:
        levels: N of them.
        raised: N of them.
        i: 0 .. N - 1, of a level that is raised.
        x: [B, C, H, W], at level i.
        z: [B, C, H, W], the noise.

    Returns:
        x_hat, [B, C, H, W].

    Source: Karras et al. 2022 (arXiv:2206.00364), algorithm 2, line 6, where alpha is 1.
    Mirror: ddpm_tf.solvers.raise_noise.
    """
    (alpha, sigma), (alpha_hat, sigma_hat) = levels.level(i), raised.level(i)
    c = alpha_hat / alpha
    return c * x + math.sqrt((sigma_hat - c * sigma) * (sigma_hat + c * sigma)) * z


def reverse_step(levels: Levels, i: int, x: Tensor, eps: Tensor) -> tuple[Tensor, float]:
    """Step i of the reverse SDE by Euler and Maruyama's method, before the noise.

    mean = x + (t_prev - t) (f x + g^2 eps / sigma),  deviation = g sqrt(t - t_prev), 0 at i = 0

    Args:
        levels: N of them, with rates.
        i: 0 .. N - 1, with alpha above 0.
        x: [B, C, H, W], at level i.
        eps: [B, C, H, W], predicted of x.

    Returns:
        The mean of x_prev, [B, C, H, W], and its deviation.

    Raises:
        UserError: levels without rates.

    Source: Song et al. 2021 (arXiv:2011.13456), eq. 6; Kingma et al. 2021 (arXiv:2107.00630), appendix B, for f and g.
    Mirror: ddpm_tf.solvers.reverse_step.
    """
    (alpha, sigma), (alpha_rate, sigma_rate) = levels.level(i), levels.rates(i)
    drift = alpha_rate / alpha
    squared_diffusion = 2.0 * sigma * (sigma_rate - drift * sigma)
    step = levels.time(i - 1) - levels.time(i)
    mean = x + step * (drift * x + squared_diffusion / sigma * eps)
    return mean, math.sqrt(squared_diffusion * -step) if i > 0 else 0.0


def euler_maruyama(levels: Levels, denoise: Denoiser, x_T: Tensor, z_at: Noise) -> Chain:  # noqa: N803
    """The reverse SDE by Euler and Maruyama's method; the last step returns the mean.

    x_prev = x + (t_prev - t) (f x - g^2 score) + g sqrt(t - t_prev) z,  score = -eps / sigma,  without z at i = 0

    Source: Song et al. 2021 (arXiv:2011.13456), eq. 6.
    Mirror: ddpm_tf.solvers.euler_maruyama.
    """
    x = x_T
    for i in reversed(range(len(levels))):
        mean, deviation = reverse_step(levels, i, x, denoise(x, i).eps)
        x = mean + deviation * z_at(i) if i > 0 else mean
        yield i, x


def norms(x: Tensor) -> Tensor:
    """The length of each image of x [B, C, H, W] as a vector, [B, 1, 1, 1]. Mirror: ddpm_tf.solvers.norms."""
    return torch.sqrt(torch.sum(x**2, dim=(1, 2, 3), keepdim=True))


def langevin_step(levels: Levels, i: int, x: Tensor, eps: Tensor, z: Tensor, snr: float) -> Tensor:
    """One step of the corrector at level i: annealed Langevin dynamics, whose size each image has for itself.

    x + step score + sqrt(2 step) z,  step = 2 a (snr |z| / |score|)^2,  score = -eps / sigma

    a = (alpha / alpha_prev)^2 is 1 - beta of step i, and 1 where alpha is.

    Args:
        levels: N of them.
        i: 0 .. N - 1.
        x: [B, C, H, W], at level i.
        eps: [B, C, H, W], predicted of x.
        z: [B, C, H, W], the noise.
        snr: r, the ratio of signal to noise.

    Returns:
        x, [B, C, H, W], at level i as well.

    Source: Song et al. 2021 (arXiv:2011.13456), algorithm 5, and algorithm 4 where alpha is 1. The norms of their
        released code are means over the batch, which would let an image depend on its neighbours.
    Mirror: ddpm_tf.solvers.langevin_step.
    """
    (alpha, sigma), (alpha_prev, _) = levels.level(i), levels.level(i - 1)
    score = -eps / sigma
    step = 2.0 * (alpha / alpha_prev) ** 2 * (snr * norms(z) / norms(score)) ** 2  # [B, 1, 1, 1]
    return x + step * score + torch.sqrt(2.0 * step) * z


def pc(
    levels: Levels,
    denoise: Denoiser,
    x_T: Tensor,  # noqa: N803
    z_at: Noise,
    corrector_z_at: CorrectorNoise,
    corrector_steps: int = 1,
    corrector_snr: float = 0.16,
) -> Chain:
    """The predictor-corrector sampler: Langevin steps at level i, then a step of the reverse SDE to level i - 1.

    Args:
        levels: N of them, with rates.
        denoise: evaluates the network, once a step and once for each step of the corrector.
        x_T: [B, C, H, W].
        z_at: the noise of the predictor; not called for i = 0, where the predictor's mean is returned.
        corrector_z_at: the noise of the corrector.
        corrector_steps: steps of the corrector at each level; with 0 this is euler_maruyama.
        corrector_snr: r of each.

    Source: Song et al. 2021 (arXiv:2011.13456), algorithms 4 and 5; the corrector first, as in their released code.
    Mirror: ddpm_tf.solvers.pc.
    """
    x = x_T
    for i in reversed(range(len(levels))):
        for k in range(corrector_steps):
            x = langevin_step(levels, i, x, denoise(x, i).eps, corrector_z_at(i, k), corrector_snr)
        mean, deviation = reverse_step(levels, i, x, denoise(x, i).eps)
        x = mean + deviation * z_at(i) if i > 0 else mean
        yield i, x
