"""The exercises of notebook 08, your own experiment: is a difference more than luck?"""

import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ddpm_course.exercises.checking import compare, exercise

Floats = NDArray[np.float64]

# Distances of two recipes, seed by seed.
A = np.array([71.2, 68.4, 75.9, 70.3, 66.8, 73.5])
B = np.array([69.9, 67.8, 73.1, 70.7, 65.2, 74.1])


@exercise
def standard_error(answer: Callable[[Floats], float]) -> None:
    """answer(values [N]) -> the standard error of their mean."""
    deviation, count = A.std(ddof=1), len(A)
    compare(
        answer(A.copy()),
        deviation / np.sqrt(count),
        {
            "that is how far single values scatter; the mean of N scatters less, by the root of N": deviation,
            "divide by N - 1 within the variance: the mean was estimated from the same values": A.std()
            / np.sqrt(count),
            "that is its square: take the root": deviation**2 / count,
            "the deviation is divided by N: divide by the root of N": deviation / count,
        },
    )


@exercise
def seeds_needed(answer: Callable[[float, float], int]) -> None:
    """answer(difference, deviation) -> the fewest seeds with a standard error of a half of the difference or less."""
    difference, deviation = 1.1, 3.0
    ratio = 2 * deviation / difference
    compare(
        answer(difference, deviation),
        int(np.ceil(ratio**2)),
        {
            "round up: with fewer seeds the error is larger": np.floor(ratio**2),
            "the error falls with the root of N: N is the square of that": np.ceil(ratio),
            "a half of the difference: that is for the whole of it": np.ceil((ratio / 2) ** 2),
            "a standard error of a half of the difference, not of a quarter": np.ceil((2 * ratio) ** 2),
            "return a whole number": ratio**2,
        },
    )


@exercise
def sign_flip(answer: Callable[[Floats, Floats], float]) -> None:
    """answer(a [N], b [N]) -> the share of the sign patterns whose mean difference is as far from 0, or further."""
    difference = A - B
    flipped = np.array(list(itertools.product((1, -1), repeat=len(difference)))) * difference
    means, found = flipped.mean(1), difference.mean()
    close = np.isclose(np.abs(means), abs(found))
    beyond = np.abs(means) > abs(found)
    together, count = np.concatenate([A, B]), len(A)
    chosen = np.array([together[list(c)].mean() for c in itertools.combinations(range(2 * count), count)])
    apart = np.abs(2 * (chosen - together.mean()))
    compare(
        answer(A.copy(), B.copy()),
        np.mean(close | beyond),
        {
            "what was found is one of the patterns: count those as far as it, too": np.mean(beyond & ~close),
            "as far in either direction: compare absolute values": np.mean((means > found) | np.isclose(means, found)),
            "the pairs were torn apart: flip the sign of whole differences a[i] - b[i]": np.mean(
                apart >= abs(found) - 1e-9
            ),
            "that is the rest: the patterns that are closer to 0": np.mean(~(close | beyond)),
            "that is a number of patterns: divide by all of them": np.sum(close | beyond),
        },
    )
