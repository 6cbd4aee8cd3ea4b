"""The oracle of the samplers, in float64 NumPy.

Each is a generator over N levels of any process, that yields (i, x_prev) for i = N - 1 .. 0. It receives `denoise`, the
prediction of x_0 and eps at x and level i, and `z_at`, the noise of step i. Samplers that draw none have z_at for the
signature. Level -1, with alpha = 1 and sigma = 0, is the image.

It goes another way than the trees. A level is a vector (alpha, sigma), and a step turns it: the sine of the turn,
times both lengths, is sigma alpha_prev - alpha sigma_prev. Neither logarithms of a signal-to-noise ratio nor
exponentials are needed, and no end is infinite. The posterior is a measurement: x measures x_prev, with the noise of
the forward step as its error.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ddpm_shared.oracle.diffusion import Array
from ddpm_shared.oracle.prediction import Predicted
from ddpm_shared.oracle.processes import Levels
from ddpm_shared.oracle.solvers import Denoise, NoiseAt, Steps, Waypoints, euler, euler_maruyama, heun_t, pc, rk4

ROUNDING = 1e-9  # a level that is raised by less is not


class Turn(NamedTuple):
    """From level i to level i - 1."""

    alpha: np.float64
    sigma: np.float64
    alpha_prev: np.float64
    sigma_prev: np.float64
    sine: np.float64  # of the angle turned by, times both lengths: sigma alpha_prev - alpha sigma_prev
    beta: np.float64  # the variance that the forward step adds, sigma^2 - (alpha / alpha_prev)^2 sigma_prev^2


def _turn(levels: Levels, i: int) -> Turn:
    """The turn of step i."""
    return _turn_from((levels.alpha[i], levels.sigma[i]), levels, i)


def _turn_from(here: tuple[float, float], levels: Levels, i: int) -> Turn:
    """From `here` to level i - 1. Two differences cancel between neighbouring levels, hence the longest float."""
    alpha, sigma = (np.longdouble(x) for x in here)
    alpha_prev, sigma_prev = (np.longdouble(x) for x in ((levels.alpha[i - 1], levels.sigma[i - 1]) if i else (1, 0)))
    sine = sigma * alpha_prev - alpha * sigma_prev
    beta = sine * (sigma * alpha_prev + alpha * sigma_prev) / alpha_prev**2
    return Turn(*(np.float64(x) for x in (alpha, sigma, alpha_prev, sigma_prev, sine, beta)))


def _levels(levels: Levels) -> range:
    return range(len(levels.alpha))


def _posterior(turn: Turn, x: Array, x_0: Array) -> tuple[Array, np.float64]:
    """Mean and variance of q(x_prev | x, x_0), by Kalman's gain.

    x_prev has the prior mean m = alpha_prev x_0 and variance v = sigma_prev^2; x measures a x_prev, a = alpha /
    alpha_prev, with an error of variance beta. The gain a v / (a^2 v + beta) moves the mean by its share of what was
    not expected, and beta / (a^2 v + beta) of the variance remains.

    Source: Ho et al. 2020 (arXiv:2006.11239), eq. 6-7, for any alpha and sigma.
    """
    a, m, v = turn.alpha / turn.alpha_prev, turn.alpha_prev * x_0, turn.sigma_prev**2
    measured = a**2 * v + turn.beta
    return m + a * v / measured * (x - a * m), v * turn.beta / measured


def _along_eps(turn: Turn, x: Array, eps: Array) -> Array:
    """Where x comes to if eps is held: x / alpha is a straight line in sigma / alpha, and eps is its slope.

    That is the DDIM step, alpha_prev x_0 + sigma_prev eps with x_0 = (x - sigma eps) / alpha.

    Source: Song et al. 2021 (arXiv:2010.02502), eq. 13.
    """
    return (turn.alpha_prev * x - turn.sine * eps) / turn.alpha


def _along_x_0(turn: Turn, x: Array, x_0: Array) -> Array:
    """Where x comes to if x_0 is held: x / sigma is a straight line in alpha / sigma, and x_0 is its slope.

    With lambda = log(alpha / sigma) and h its step, that is the exponential integrator,
    (sigma_prev / sigma) x + alpha_prev (1 - exp(-h)) x_0.

    Source: Lu et al. 2022 (arXiv:2211.01095), proposition 4.1, with x_0 held.
    """
    return (turn.sigma_prev * x + turn.sine * x_0) / turn.sigma


def ancestral(levels: Levels, denoise: Denoise, x: Array, z_at: NoiseAt) -> Steps:
    """The paper's sampler: the posterior's mean around the predicted x_0, and noise of the model's own variance.

    Args:
        levels: N of them.
        denoise: (x, i) -> Predicted.
        x: x_T [B, ...], at level N - 1.
        z_at: i -> standard normal noise, like x; not called for i = 0.

    Yields:
        (i, x_prev) for i = N - 1 .. 0, x_prev like x; here and in all that follow.

    Source: Ho et al. 2020 (arXiv:2006.11239), algorithm 2; Nichol and Dhariwal 2021 (arXiv:2102.09672), eq. 15.
    """
    for i in reversed(_levels(levels)):
        predicted, turn = denoise(x, i), _turn(levels, i)
        x, variance = _posterior(turn, x, predicted.x_0)
        if i > 0:
            x = x + np.sqrt(variance * (turn.beta / variance) ** getattr(predicted, "fraction", 0.0)) * z_at(i)
        yield i, x


def ddim(levels: Levels, denoise: Denoise, x: Array, z_at: NoiseAt, eta: float = 0.0) -> Steps:
    """DDIM: on to the next level with the same x_0 and the same noise, a part of which eta exchanges for new.

    The noise of x_prev has the deviation sigma_prev whatever eta is. Of it, sin(theta) = eta sqrt(betas) / sigma is
    new, which is eta times the posterior's deviation, and cos(theta) is old. An eta above 1 may ask for more new noise
    than there is room for, and then none of the old is left.

    Args:
        levels: N of them.
        denoise: (x, i) -> Predicted.
        x: x_T [B, ...].
        z_at: i -> standard normal noise, like x; called for i > 0 if eta is not 0.
        eta: 0 draws no noise, 1 is ancestral sampling with the posterior's variance.

    Source: Song et al. 2021 (arXiv:2010.02502), eqs. 12, 16.
    """
    for i in reversed(_levels(levels)):
        predicted, turn = denoise(x, i), _turn(levels, i)
        new = eta * np.sqrt(turn.beta) / turn.sigma
        noise = np.sqrt(np.maximum(0, (1 - new) * (1 + new))) * predicted.eps
        if eta and i > 0:
            noise = noise + new * z_at(i)
        x = turn.alpha_prev * predicted.x_0 + turn.sigma_prev * noise
        yield i, x


def adams_bashforth(order: int) -> Array:
    """What the newest, the second newest, ... slope weigh in the step that extrapolates them, [order].

    The polynomial through the slopes at 0, -1, ..., 1 - order is integrated from 0 to 1, one slope at a time: the
    Lagrange polynomial of a place is 1 there and 0 at all others.

    Source: Liu et al. 2022 (arXiv:2202.09778), eq. 12.
    """
    weights = []
    for place in range(order):
        others = [-other for other in range(order) if other != place]
        lagrange = np.polynomial.Polynomial.fromroots(others) if others else np.polynomial.Polynomial([1.0])
        weights.append((lagrange / lagrange(-place)).integ()(1.0))
    return np.array(weights)


def plms(levels: Levels, denoise: Denoise, x: Array, z_at: NoiseAt) -> Steps:
    """PLMS: steps along the eps that the last four, of as many real steps, extrapolate to.

    The first step has none before it and is one of `heun`; the eps of its trial is not kept.

    Args:
        levels: N of them.
        denoise: (x, i) -> Predicted.
        x: x_T [B, ...].
        z_at: not called.

    Source: Liu et al. 2022 (arXiv:2202.09778), eqs. 11-13, as in Rombach et al. 2022, released code (plms.py).
    """
    newest_first: list[Array] = []
    for i in reversed(_levels(levels)):
        predicted, turn = denoise(x, i), _turn(levels, i)
        newest_first = [predicted.eps, *newest_first][:4]
        if len(newest_first) == 1:
            x = _heun_step(turn, denoise, i, predicted)
        else:
            eps = np.tensordot(adams_bashforth(len(newest_first)), np.array(newest_first), axes=1)
            x = _along_eps(turn, x, eps)
        yield i, x


def heun(
    levels: Levels,
    denoise: Denoise,
    x: Array,
    z_at: NoiseAt,
    raised: Waypoints | None = None,
    churn_noise: float = 1.0,
) -> Steps:
    """Heun's method on the ODE d(x / alpha) / d(sigma / alpha) = eps: along the mean of eps here and at the trial.

    With raised levels, noise is added to x / alpha before each step, until sigma / alpha is that of the raised one.

    Args:
        levels: N of them.
        denoise: (x, i) -> Predicted, called twice a step but in the last.
        x: x_T [B, ...].
        z_at: i -> standard normal noise, like x; called where raised level i has more noise than level i.
        raised: a level of at least as much noise for each step.
        churn_noise: the deviation of the noise.

    Source: Karras et al. 2022 (arXiv:2206.00364), algorithms 1 and 2.
    """
    for i in reversed(_levels(levels)):
        here, at = (levels.alpha[i], levels.sigma[i]), denoise
        if raised is not None and here[0] > 0:
            higher = raised.levels.alpha[i], raised.levels.sigma[i]
            ratio, ratio_hat = (np.longdouble(sigma) / np.longdouble(alpha) for alpha, sigma in (here, higher))
            if ratio_hat / ratio - 1 > ROUNDING:
                more = np.float64(np.sqrt(ratio_hat**2 - ratio**2))
                x = higher[0] * (x / here[0] + more * churn_noise * z_at(i))
                here, at = higher, raised.denoise
        x = _heun_step(_turn_from(here, levels, i), denoise, i, at(x, i))
        yield i, x


def _heun_step(turn: Turn, denoise: Denoise, i: int, predicted: Predicted) -> Array:
    """The DDIM step, and half of what another eps at its end would change.

    Without a change where the network cannot be evaluated at the end, or where there is no signal: there no x_0
    follows from eps.
    """
    trial = turn.alpha_prev * predicted.x_0 + turn.sigma_prev * predicted.eps
    if i == 0 or turn.alpha == 0:
        return trial
    return trial + _along_eps(turn, np.zeros_like(trial), denoise(trial, i - 1).eps - predicted.eps) / 2


def _extrapolating(levels: Levels, denoise: Denoise, x: Array, step: Callable[[int, Array, Array], Array]) -> Steps:
    """x_prev = step(i, x, D), with D the x_0 of the middle of the step, by the line through the last two.

    It is a line in lambda = log(alpha / sigma), in which the step is h long; exp(h) - 1 is the sine of the turn over
    alpha sigma_prev. h is infinite in a step from no signal, after which there is no slope, and in the last one, which
    has no middle: D = x_0 in both, and in the first.

    Source: Lu et al. 2022 (arXiv:2211.01095), algorithm 2, where D = x_0 + h / (2 h_last) (x_0 - x_0_last).
    """
    x_0_last, h_last = np.zeros_like(x), math.inf
    for i in reversed(_levels(levels)):
        x_0, turn = denoise(x, i).x_0, _turn(levels, i)
        scale = turn.alpha * turn.sigma_prev
        h = math.log1p(turn.sine / scale) if scale else math.inf
        slope = (x_0 - x_0_last) / h_last
        x = step(i, x, x_0 + h / 2 * slope if scale else x_0)
        x_0_last, h_last = x_0, h
        yield i, x


def dpmpp_2m(levels: Levels, denoise: Denoise, x: Array, z_at: NoiseAt) -> Steps:
    """DPM-Solver++(2M): the exact solution of the ODE for an x_0 that is held where the middle of the step will be.

    Args:
        levels: N of them.
        denoise: (x, i) -> Predicted.
        x: x_T [B, ...].
        z_at: not called.

    Source: Lu et al. 2022 (arXiv:2211.01095), algorithm 2.
    """
    yield from _extrapolating(levels, denoise, x, lambda i, x, x_0: _along_x_0(_turn(levels, i), x, x_0))


def dpmpp_2m_sde(levels: Levels, denoise: Denoise, x: Array, z_at: NoiseAt) -> Steps:
    """SDE-DPM-Solver++(2M): the exact solution of the SDE for such an x_0, which is the posterior q(x_prev | x_t, x_0).

        x_prev = (sigma_prev / sigma) exp(-h) x + alpha_prev (1 - exp(-2h)) D + sigma_prev sqrt(1 - exp(-2h)) z

    is the paper's. For one x_0 it reverses the process that diffuses it, and so does the posterior.

    Args:
        levels: N of them.
        denoise: (x, i) -> Predicted.
        x: x_T [B, ...].
        z_at: i -> standard normal noise, like x; not called for i = 0.

    Source: Lu et al. 2022 (arXiv:2211.01095), eq. 19.
    """

    def step(i: int, x: Array, x_0: Array) -> Array:
        mean, variance = _posterior(_turn(levels, i), x, x_0)
        return mean + np.sqrt(variance) * z_at(i) if i else mean

    yield from _extrapolating(levels, denoise, x, step)


def ddim_invert(levels: Levels, denoise: Denoise, x: Array, iterations: int = 1) -> Steps:
    """DDIM backwards, from an image to the noise that it comes of: the x_t whose step ends at x.

    It solves x_t = (alpha / alpha_prev) (x_prev - sigma_prev eps(x_t)) + sigma eps(x_t), by as many substitutions,
    the first of them with x_prev in the place of x_t.

    Args:
        levels: N of them.
        denoise: (x, i) -> Predicted.
        x: x_0 [B, ...].
        iterations: at least 1.

    Yields:
        (i, x_t) for i = 0 .. N - 1.

    Source: Song et al. 2021 (arXiv:2010.02502), section 4.3; Pan et al. 2023 (arXiv:2309.04907), the iterations.
    """
    for i in _levels(levels):
        turn, x_prev = _turn(levels, i), x
        for _ in range(iterations):
            x = (turn.alpha * x_prev + turn.sine * denoise(x, i).eps) / turn.alpha_prev
        yield i, x


def slerp(x: Array, y: Array, weight: float) -> Array:
    """From x (weight 0) to y (weight 1) along an arc, image by image.

        sin((1 - weight) W) / sin(W) x + sin(weight W) / sin(W) y

    W is the angle between both as vectors: with their unit vectors u and v, half of it has the tangent
    |u - v| / |u + v|, which keeps its digits if it is small. A sine is the angle times a sinc, and so the quotients are
    finite at W = 0, where the arc is a straight line.

    Args:
        x: [B, ...], not 0.
        y: like x, and not opposite to it.
        weight: of y.

    Returns:
        Like x.

    Source: Shoemake 1985, Animating rotation with quaternion curves; used on noise by Song et al. 2021
    (arXiv:2010.02502), appendix D.5.
    """
    flat = np.stack([x, y]).reshape(2, len(x), -1).astype(np.float64)  # [2, B, D]
    u, v = flat / np.linalg.norm(flat, axis=2, keepdims=True)
    angle = 2 * np.arctan2(np.linalg.norm(u - v, axis=1), np.linalg.norm(u + v, axis=1)) / np.pi  # [B], in half turns
    share = np.stack([np.full(len(x), 1 - weight), np.full(len(x), weight)])  # [2, B]
    coefficients = share * np.sinc(share * angle) / np.sinc(angle)
    return np.einsum("kb,kbd->bd", coefficients, flat).reshape(x.shape)


SAMPLERS: dict[str, Callable[..., Steps]] = {
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
