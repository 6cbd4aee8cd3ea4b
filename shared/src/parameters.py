"""Initial weights as a function of (seed, name, shape), so that both networks start from the same numbers.

Names and layouts are PyTorch's: a convolution's weight is [out, in, height, width], a linear map's [out, in].
"""

import math

import numpy as np
from numpy.typing import NDArray

from ddpm_shared import streams


def initial_value(
    seed: int, name: str, shape: tuple[int, ...], zero_at_start: tuple[str, ...] = ()
) -> NDArray[np.float64]:
    """The starting value of one parameter.

    Biases are 0 and normalisation scales 1. Weights are uniform on [-limit, limit] with
    limit = sqrt(3 / fan_average), that is, variance 1 / fan_average, fan_average = (fan_in + fan_out) / 2.

    Args:
        seed: the run's seed.
        name: canonical name, e.g. "down.0.residual.conv_1.weight".
        shape: canonical shape.
        zero_at_start: a parameter whose name ends with one of these is 0; a network names its own.

    Returns:
        [*shape] float64; each tree rounds it to its own precision.

    Source: Glorot & Bengio 2010, eq. 16; Ho et al. 2020's code for the zeros.
    """
    if name.endswith((".bias", *zero_at_start)):
        return np.zeros(shape)
    if len(shape) == 1:
        return np.ones(shape)
    receptive_field = math.prod(shape[2:])
    fan_average = (shape[0] + shape[1]) * receptive_field / 2
    limit = math.sqrt(3 / fan_average)
    return streams.generator(seed, streams.PARAMETERS + name).uniform(-limit, limit, size=shape)


def fourier_frequencies(seed: int, name: str, count: int, scale: float) -> NDArray[np.float64]:
    """The frequencies of random Fourier features, w_i ~ N(0, scale^2).

    They are rounded to float32, so that a network has the same ones in every precision: the sine of an angle of some
    hundreds would show the difference.

    Args:
        seed: the run's seed.
        name: canonical name of the buffer, e.g. "fourier.frequencies".
        count: how many.
        scale: their standard deviation, in periods per unit of time.

    Returns:
        [count] float64 with the digits of float32.

    Source: Tancik et al. 2020 (arXiv:2006.10739), section 6.
    """
    drawn = streams.generator(seed, streams.PARAMETERS + name).standard_normal(count)
    return (scale * drawn).astype(np.float32).astype(np.float64)
