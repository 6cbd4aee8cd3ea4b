"""The oracle of the likelihood by the probability-flow ODE, in float64 NumPy.

It goes another way than the trees: traces are of products J v, by a complex step forwards through the network, where
the trees have v J by backpropagation; the integral is over the log-SNR, of all levels at once; and the bits are those
of the probability of a bin. The steps of the ODE are theirs, for the result depends on them.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ddpm_shared.config import DiffusionConfig
from ddpm_shared.oracle import continuous
from ddpm_shared.oracle.diffusion import Array, make_schedule
from ddpm_shared.oracle.prediction import split, to_eps
from ddpm_shared.oracle.processes import Levels

COMPLEX_STEP = 1e-100  # its square is 0 in float64

Predict = Callable[[Array, int], Array]  # (x, i) -> eps
Slope = Callable[[Array, int, Array], Array]  # (x, i, v) -> the derivative of eps along v, J v


def dequantise(pixels: Array, u: Array) -> Array:
    """256 grey levels k as numbers in [-256/255, 256/255]: the place k + u of 0 .. 256, u in (0, 1), as an image's."""
    return (2 * (pixels.astype(np.float64) + u) - 256) / 255


def bits_per_dim(log_density: Array, dimensions: int) -> Array:
    """-log2 of the probability of a bin 2/255 wide, as a mean over the numbers of an image: [B] -> [B].

    Source: Theis et al. 2016 (arXiv:1511.01844), section 3.1.
    """
    return -(np.log2(2 / 255) + log_density / dimensions * np.log2(np.e))


def log_normal(x: Array, deviation: float) -> Array:
    """The log of the density of N(0, deviation^2 I): the sum of the logs of its densities of each number, [B]."""
    densities = -np.square(x) / (2 * deviation**2) - np.log(deviation * np.sqrt(2 * np.pi))
    return densities.reshape(len(x), -1).sum(axis=1)


def eps_of(network: Callable[..., Array], config: DiffusionConfig, times: Sequence[float]) -> tuple[Predict, Slope]:
    """The noise that a network predicts at level i, whose time is times[i], and its derivative along a direction.

    Eps is linear in x and the network's output together, so its derivative is eps of the derivatives of both. That of
    the output is Im output(x + ihv) / h, from which nothing is taken away.

    Source: Squire and Trapp 1998.
    """
    ddpm = config.process == "ddpm"
    whole = network if ddpm else continuous.precondition(network, config)
    schedule_of_ddpm = make_schedule(config) if ddpm else {}

    def eps(x: Array, i: int, output_of: Callable[[Any], Any]) -> Array:
        t = np.full(len(x), times[i])
        if ddpm:
            t = t.astype(int)
        schedule, index = (schedule_of_ddpm, t) if ddpm else continuous.levels_of(config, t)
        output, _ = split(config, output_of(t), t)
        return to_eps(schedule, config.prediction, x, index, output, config.sigma_data or 1.0)

    def predict(x: Array, i: int) -> Array:
        return eps(x, i, lambda t: whole(x, t))

    def slope(x: Array, i: int, v: Array) -> Array:
        return eps(v, i, lambda t: whole(x + 1j * COMPLEX_STEP * v, t).imag / COMPLEX_STEP)

    return predict, slope


def trace(slope: Slope, x: Array, i: int, probes: Array | None) -> Array:
    """The trace of d eps / dx at x [B, ...], [B]: the diagonal, added up, or v^T J v, on average over the probes.

    Args:
        slope: of eps_of.
        x: [B, ...].
        i: the level.
        probes: [K, B, ...]; None: exact.

    Source: Hutchinson 1989.
    """
    if probes is not None:
        products = [np.einsum("bd,bd->b", *_flat(v, slope(x, i, v))) for v in probes]
        return np.mean(products, axis=0)
    diagonal = []
    for place in np.ndindex(x.shape[1:]):
        unit = np.zeros_like(x)
        unit[(slice(None), *place)] = 1
        diagonal.append(slope(x, i, unit)[(slice(None), *place)])
    return np.sum(diagonal, axis=0)


def _flat(*arrays: Array) -> list[Array]:
    return [array.reshape(len(array), -1) for array in arrays]


def log_density(
    levels: Levels, predict: Predict, trace_at: Callable[[Array, int], Array], x: Array, deviation: float
) -> Array:
    """The log-density of x [B, ...] at level 0, [B], where that of level N - 1 is N(0, deviation^2 I).

    With y = x / alpha and u = sigma / alpha the ODE is dy/du = eps, and log p(y) grows by -sigma trace(d eps / dx) for
    each unit of log u, minus half of the log-SNR. Heun's steps; first the path, then the integral of its traces.

    Source: Song et al. 2021 (arXiv:2011.13456), eq. 39.
    """
    u = levels.sigma / levels.alpha
    path = [x]
    for i, (begin, end) in enumerate(itertools.pairwise(u)):
        y, here = path[i] / levels.alpha[i], predict(path[i], i)
        there = predict(levels.alpha[i + 1] * (y + (end - begin) * here), i + 1)
        path.append(levels.alpha[i + 1] * (y + (end - begin) * (here + there) / 2))
    grows = [sigma * trace_at(each, i) for i, (sigma, each) in enumerate(zip(levels.sigma, path, strict=True))]
    integral = np.trapezoid(grows, np.log(u), axis=0)
    volume = x[0].size * (np.log(levels.alpha[-1]) - np.log(levels.alpha[0]))
    return np.asarray(integral + volume + log_normal(path[-1], deviation))


def whole_times(log_snr: Array, steps: int) -> list[int]:
    """`steps` of the times 0 .. T - 1, as evenly in log-SNR as can be.

    Each next one is the nearest, later than the last and not too late for those after it, to its share of what is left.
    """
    end, visited = len(log_snr) - 1, [0]
    while len(visited) < steps:
        left = steps - len(visited)  # with the one to be found now
        wanted = (log_snr[visited[-1]] * (left - 1) + log_snr[end]) / left
        possible = range(visited[-1] + 1, end - left + 2)
        visited.append(min(possible, key=lambda t, wanted=wanted: abs(log_snr[t] - wanted)))  # type: ignore[misc]
    return visited
