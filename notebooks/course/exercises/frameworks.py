"""The exercises of 06: two frameworks."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ddpm_course.exercises.checking import Off, compare, exercise, require_written


@exercise
def gap(answer: Callable[..., Any]) -> None:
    """(a, b) -> the largest difference, as a part of the largest number of b."""
    a, b = np.array([1.0, -4.5, 3.0, 0.0]), np.array([1.5, -4.0, 2.5, 0.0])
    apart = a - b
    compare(
        answer(a, b),
        0.5 / 4.0,
        {
            "a signed sum: differences of either sign cancel, and wrong arrays pass": apart.sum() / 4.0,
            "that is a mean: one wrong number among a million would pass": np.abs(apart).mean() / 4.0,
            "that is in absolute terms: 0.5 is much or little according to the size of b": np.abs(apart).max(),
            "the largest number of b by its size: here that is -4": np.abs(apart).max() / b.max(),
        },
    )
    # One that is far below.
    compare(
        answer(np.array([1.0, -4.0]), np.array([1.0, 4.0])),
        2.0,
        {"the largest signed difference: one far below would pass": 0.0},
    )


@exercise
def same_padding(answer: Callable[..., Any]) -> None:
    """(size, kernel, stride) -> (zeros before, zeros after) of TensorFlow's SAME."""
    cases = [(28, 3, 2), (7, 3, 2), (28, 3, 1), (9, 2, 2), (28, 5, 3)]
    found = [answer(*case) for case in cases]
    require_written(*found)
    if any(np.shape(pair) != (2,) for pair in found):
        raise Off("return two numbers, the zeros before and after")

    def same(size: int, kernel: int, stride: int) -> tuple[int, int]:
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        return total // 2, total - total // 2

    compare(
        found,
        [same(*case) for case in cases],
        {
            "the odd zero comes after, not before": [same(*case)[::-1] for case in cases],
            "that is PyTorch's padding = kernel // 2, which does not look at the stride": [
                (k // 2, k // 2) for _, k, _ in cases
            ],
            "the output has ceil(size / stride) numbers, rounded up": [
                (total // 2, total - total // 2)
                for total in (max((size // s - 1) * s + k - size, 0) for size, k, s in cases)
            ],
        },
    )


@exercise
def to_keras_kernel(answer: Callable[..., Any]) -> None:
    """([out, in, height, width]) -> [height, width, in, out]."""
    kernel = np.arange(2 * 3 * 4 * 5, dtype=np.float64).reshape(2, 3, 4, 5)
    found = answer(kernel)
    if np.shape(found) == (5, 4, 3, 2) and np.array_equal(found, kernel.T):
        raise Off(".T turns height and width round as well: every kernel lies on its side, unseen where it is square")
    if np.shape(found) == (4, 5, 3, 2) and np.array_equal(found, kernel.reshape(4, 5, 3, 2)):
        raise Off("reshape keeps the order in memory: the weights are mixed up; transpose moves axes")
    compare(found, kernel.transpose(2, 3, 1, 0))
