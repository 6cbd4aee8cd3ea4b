"""What stands between a tensor of theirs and one of ours: exact maps, by the names that mapping files use.

A step is (value, shape that ours has, source, *arguments) -> value. Letters in the shapes: D, E, F channels; C those of
an image; P the side of a patch.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Shape = tuple[int, ...]

TIME_UNIT = 1000.0  # simple_unet is given t / 1000
# Sinusoidal embeddings of the time: the order of their columns, and the divisor of the exponent in w_i =
# 10000 ** (-i / divisor). Ours is sin_cos with half - 1.
TIMES = {
    f"{order}, {divisor}": (order, divisor)
    for order in ("sin_cos", "cos_sin", "alternating")
    for divisor in ("half - 1", "half")
}


@dataclass(frozen=True)
class Source:
    """What a step may look at beside its tensor."""

    time: str  # a name of TIMES
    timesteps: int  # T
    take: Callable[[str], Array]  # another tensor of theirs, by name


def matrix(value: Array, wanted: Shape, source: Source) -> Array:
    """A convolution of 1 x 1 as the linear map that it is: [D, E, 1, 1] -> [D, E]."""
    return value[:, :, 0, 0] if value.ndim == 4 and value.shape[2:] == (1, 1) else value


def swap_halves(value: Array, wanted: Shape, source: Source, axis: int, parts: int) -> Array:
    """Exchange the first and the second half of an axis, in each of `parts` parts of it.

    In a transformer whose normalisations have no weights, the order of the channels is free, if all maps agree on it.
    So positions whose first half is of the column become positions whose first half is of the row.
    """
    if axis >= value.ndim or value.shape[axis] % (2 * parts):
        return value
    cut = value.reshape(*value.shape[:axis], parts, 2, -1, *value.shape[axis + 1 :])
    return np.flip(cut, axis + 1).reshape(value.shape)


def time_columns(value: Array, wanted: Shape, source: Source) -> Array:
    """The columns of the first linear map after a sinusoidal embedding, in our order of the sinusoids.

    Embeddings whose frequencies are 10000 ** (-i / half), i = 0 .. half - 1, are the first `half` of ours with
    half + 1 frequencies: the last one of each kind gets a column of zeros.
    """
    if value.ndim != 2:
        return value
    order, divisor = TIMES[source.time]
    half = value.shape[1] // 2
    first, second = (value[:, 0::2], value[:, 1::2]) if order == "alternating" else (value[:, :half], value[:, half:])
    sines, cosines = (second, first) if order == "cos_sin" else (first, second)
    more = ((0, 0), (0, 1 if divisor == "half" else 0))
    return np.concatenate([np.pad(sines, more), np.pad(cosines, more)], axis=1)


def sigma_columns(value: Array, wanted: Shape, source: Source) -> Array:
    """The same for an embedding of two numbers, sin(t) and cos(t): ours has the frequency 1 first. [D, 2] -> [D, F]."""
    if value.ndim != 2 or value.shape[1] != 2 or len(wanted) != 2:
        return value
    columns = np.zeros((len(value), wanted[1]))
    columns[:, 0], columns[:, wanted[1] // 2] = value.T
    return columns


def time_unit(value: Array, wanted: Shape, source: Source, unit: str) -> Array:
    """The weight of a time that is a plain number, for ours, t / 1000, from theirs: "t" itself, or "t / T"."""
    return value * TIME_UNIT / (1.0 if unit == "t" else source.timesteps) if value.ndim == 2 else value


def patches(value: Array, wanted: Shape, source: Source) -> Array:
    """A convolution of P x P with stride P as a linear map of patches: [D, C, P, P] -> [D, P*P*C]."""
    return value.transpose(0, 2, 3, 1).reshape(len(value), -1) if value.ndim == 4 else value


def as_convolution(value: Array, wanted: Shape, source: Source) -> Array:
    """A transposed convolution of stride 1 as the convolution that it is: [in, out, H, W] -> [out, in, H, W]."""
    return np.flip(value.transpose(1, 0, 2, 3), (2, 3)) if value.ndim == 4 else value


def pad(value: Array, wanted: Shape, source: Source) -> Array:
    """Zeros behind the last row or column, where ours has more of them: units that add nothing, and learn nothing."""
    if value.ndim != len(wanted) or any(old > new for old, new in zip(value.shape, wanted, strict=True)):
        return value
    return np.pad(value, [(0, new - old) for old, new in zip(value.shape, wanted, strict=True)])


def null_row(value: Array, wanted: Shape, source: Source) -> Array:
    """A table of classes with a row of zeros for the null label, if it has none: without a label, nothing is added."""
    return np.pad(value, ((0, 1), (0, 0))) if value.ndim == 2 and len(value) + 1 == wanted[0] else value


def through_silu(value: Array, wanted: Shape, source: Source, linear: str) -> Array:
    """A table whose rows go through silu and a linear map, as the table of what comes out."""
    weight, bias = source.take(f"{linear}.weight"), source.take(f"{linear}.bias")
    return value / (1.0 + np.exp(-value)) @ weight.T + bias


STEPS: dict[str, Callable[..., Array]] = {
    step.__name__: step
    for step in (
        matrix,
        swap_halves,
        time_columns,
        sigma_columns,
        time_unit,
        patches,
        as_convolution,
        pad,
        null_row,
        through_silu,
    )
}


def positions(tokens: int, dim: int) -> Array:
    """DiT's fixed embedding of the places of a square grid, [tokens, dim], whose first half is of the column.

    Source: Peebles & Xie 2023 (arXiv:2212.09748), section 3.2, as in its code.
    """
    side = round(tokens**0.5)
    frequencies = 10000.0 ** (-np.arange(dim // 4) / (dim // 4))
    angles = np.arange(side)[:, None] * frequencies
    each = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)  # [side, dim / 2]
    row, column = np.divmod(np.arange(side**2), side)
    return np.concatenate([each[column], each[row]], axis=1)


# Tensors of theirs that are not trained, and that ours computes: what they must be.
FIXED: dict[str, Callable[[int, int], Array]] = {"positions": positions}
