"""The oracle of the solvers in t, in float64 NumPy: of the probability-flow ODE, and of the reverse SDE.

They are generators as those of samplers.py. It goes another way than the trees: the slope of the ODE is that of the
SDE without its noise, with drift and diffusion by the papers' formulas; the Runge-Kutta methods are Butcher tableaus;
a Langevin step is measured in lengths, not in squares.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ddpm_shared.oracle.diffusion import Array
from ddpm_shared.oracle.prediction import Predicted
from ddpm_shared.oracle.processes import Levels

Denoise = Callable[[Array, int], Predicted]
NoiseAt = Callable[[int], Array]
CorrectorNoiseAt = Callable[[int, int], Array]
Steps = Iterator[tuple[int, Array]]


class Waypoints(NamedTuple):
    """Levels beside those of the steps, one for each step, and the denoiser there."""

    levels: Levels
    denoise: Denoise


class Tableau(NamedTuple):
    """An explicit Runge-Kutta method: slope j is taken at places[j] of the step, along weights[j] of those before."""

    places: Sequence[float]  # 0, 1/2 or 1
    weights: Sequence[Sequence[float]]
    result: Sequence[float]


EULER = Tableau([0], [[]], [1])
HEUN = Tableau([0, 1], [[], [1]], [1 / 2, 1 / 2])
RUNGE_KUTTA = Tableau([0, 1 / 2, 1 / 2, 1], [[], [1 / 2], [0, 1 / 2], [0, 0, 1]], [1 / 6, 1 / 3, 1 / 3, 1 / 6])


def _slope(levels: Levels, i: int, x: Array, predicted: Predicted) -> Array:
    """dx/dt = f x - g^2 score / 2, score = -eps / sigma.

    Without signal f and g^2 are infinite, and the slope is alpha' x_0 + sigma' eps.

    Source: Song et al. 2021 (arXiv:2011.13456), eq. 13.
    """
    assert levels.drift is not None
    assert levels.squared_diffusion is not None
    if np.isfinite(levels.drift[i]):
        return levels.drift[i] * x + levels.squared_diffusion[i] / (2 * levels.sigma[i]) * predicted.eps
    assert levels.alpha_rate is not None
    assert levels.sigma_rate is not None
    return levels.alpha_rate[i] * predicted.x_0 + levels.sigma_rate[i] * predicted.eps


def _time(levels: Levels, i: int) -> float:
    return float(levels.times[i]) if i >= 0 else 0.0


def _runge_kutta(levels: Levels, denoise: Denoise, x: Array, tableau: Tableau, middle: Waypoints | None) -> Steps:
    """The ODE by any tableau. The last step is to the x_0 that is predicted."""
    for i in reversed(range(len(levels.alpha))):
        if i == 0:
            yield 0, denoise(x, 0).x_0
            return
        way, slopes = _time(levels, i - 1) - _time(levels, i), list[Array]()
        for place, weights in zip(tableau.places, tableau.weights, strict=True):
            there = x + way * sum((w * slope for w, slope in zip(weights, slopes, strict=True)), np.zeros_like(x))
            if place == 1 / 2:
                assert middle is not None
                slopes.append(_slope(middle.levels, i, there, middle.denoise(there, i)))
            else:
                at = i if place == 0 else i - 1
                slopes.append(_slope(levels, at, there, denoise(there, at)))
        x = x + way * np.tensordot(tableau.result, np.array(slopes), axes=1)
        yield i, x


def euler(levels: Levels, denoise: Denoise, x: Array, z_at: NoiseAt) -> Steps:
    """Euler's method.

    Args:
        levels: N of them, of a continuous process.
        denoise: (x, i) -> Predicted.
        x: x_T [B, ...].
        z_at: not called.

    Yields:
        (i, x_prev) for i = N - 1 .. 0; here and in all that follow.
    """
    yield from _runge_kutta(levels, denoise, x, EULER, None)


def heun_t(levels: Levels, denoise: Denoise, x: Array, z_at: NoiseAt) -> Steps:
    """Heun's method in t; arguments as of `euler`. Source: Karras et al. 2022 (arXiv:2206.00364), algorithm 1."""
    yield from _runge_kutta(levels, denoise, x, HEUN, None)


def rk4(levels: Levels, denoise: Denoise, x: Array, z_at: NoiseAt, middle: Waypoints) -> Steps:
    """The classical Runge-Kutta method; arguments as of `euler`, and waypoint i is halfway in t of step i."""
    yield from _runge_kutta(levels, denoise, x, RUNGE_KUTTA, middle)


def churned(levels: Levels, churn: float, churn_from: float = 0.0, churn_to: float = math.inf) -> Array:
    """The ratios sigma / alpha up to which noise is added before each step, t_hat = t + gamma t, [N].

    Source: Karras et al. 2022 (arXiv:2206.00364), algorithm 2.
    """
    raised = []
    for alpha, sigma in zip(levels.alpha, levels.sigma, strict=True):
        t = sigma / alpha if alpha else math.inf
        gamma = min(churn / len(levels.alpha), math.sqrt(2) - 1) if churn_from <= t <= churn_to else 0
        raised.append(t + gamma * t if gamma else t)
    return np.array(raised)


def _reverse(levels: Levels, i: int, x: Array, score: Array, z_at: NoiseAt) -> Array:
    """A step of dx = (f x - g^2 score) dt + g dw backwards in time, of which the last has no noise.

    Source: Song et al. 2021 (arXiv:2011.13456), eq. 6.
    """
    assert levels.drift is not None
    assert levels.squared_diffusion is not None
    way = _time(levels, i) - _time(levels, i - 1)
    f, g = levels.drift[i], np.sqrt(levels.squared_diffusion[i])
    mean = x - way * (f * x - g**2 * score)
    return mean + g * math.sqrt(way) * z_at(i) if i else mean


def euler_maruyama(levels: Levels, denoise: Denoise, x: Array, z_at: NoiseAt) -> Steps:
    """Euler and Maruyama's method.

    Args:
        levels: N of them, of a continuous process that has a finite drift at each.
        denoise: (x, i) -> Predicted.
        x: x_T [B, ...].
        z_at: i -> standard normal noise, like x; not called for i = 0.

    Source: Song et al. 2021 (arXiv:2011.13456), eq. 6.
    """
    for i in reversed(range(len(levels.alpha))):
        x = _reverse(levels, i, x, -denoise(x, i).eps / levels.sigma[i], z_at)
        yield i, x


def _lengths(x: Array) -> Array:
    """Of each image, as a factor of images."""
    return np.linalg.norm(x.reshape(len(x), -1), axis=1).reshape(-1, *[1] * (x.ndim - 1))


def pc(
    levels: Levels,
    denoise: Denoise,
    x: Array,
    z_at: NoiseAt,
    corrector_z_at: CorrectorNoiseAt,
    corrector_steps: int = 1,
    corrector_snr: float = 0.16,
) -> Steps:
    """At each level some Langevin steps, and then the step of `euler_maruyama`.

    With r the ratio of signal to noise and a = (alpha / alpha_prev)^2, of the forward step, the paper's step is
    e = 2 a (r |z| / |score|)^2, and what is added e score + sqrt(2 e) z. That is, with l = sqrt(a) r |z|,
    2 l^2 / |score| along the score's direction, and 2 l |z| / |score| along the noise's.

    Args:
        levels: as of `euler_maruyama`.
        denoise: (x, i) -> Predicted.
        x: x_T [B, ...].
        z_at: as of `euler_maruyama`.
        corrector_z_at: (i, k) -> standard normal noise of Langevin step k at level i, like x.
        corrector_steps: the number of Langevin steps at each level.
        corrector_snr: r.

    Source: Song et al. 2021 (arXiv:2011.13456), algorithms 4-5, the corrector first.
    """
    for i in reversed(range(len(levels.alpha))):
        alpha_prev = levels.alpha[i - 1] if i else 1.0
        for k in range(corrector_steps):
            score, z = -denoise(x, i).eps / levels.sigma[i], corrector_z_at(i, k)
            way = levels.alpha[i] / alpha_prev * corrector_snr * _lengths(z)
            direction, noise = score / _lengths(score), z / _lengths(z)
            x = x + (2 * way**2 * direction + 2 * way * _lengths(z) * noise) / _lengths(score)
        x = _reverse(levels, i, x, -denoise(x, i).eps / levels.sigma[i], z_at)
        yield i, x
