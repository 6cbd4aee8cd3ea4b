"""Answers to the exercises of notebook 08, your own experiment."""

import itertools
import math

import numpy as np

from ddpm_course.exercises import experiment


def flipped_means(a, b):
    signs = np.array(list(itertools.product((1, -1), repeat=len(a))))
    return (signs * (a - b)).mean(axis=1)


def sign_flip(a, b):
    return np.mean(np.abs(flipped_means(a, b)) >= abs((a - b).mean()) - 1e-12)


def unpaired(a, b):
    values, n = np.concatenate([a, b]), len(a)
    found = []
    for chosen in itertools.combinations(range(2 * n), n):
        rest = np.setdiff1d(np.arange(2 * n), chosen)
        found.append(abs(values[list(chosen)].mean() - values[rest].mean()))
    return np.mean(np.array(found) >= abs(a.mean() - b.mean()) - 1e-12)


ANSWERS = {
    experiment.standard_error: [
        (lambda values: values.std(ddof=1) / np.sqrt(len(values)), None),
        (lambda values: math.sqrt(sum((values - values.mean()) ** 2) / len(values) / (len(values) - 1)), None),
        (lambda values: values.std(ddof=1), "single values scatter"),
        (lambda values: values.std() / np.sqrt(len(values)), "divide by N - 1"),
        (lambda values: values.var(ddof=1) / len(values), "that is its square"),
        (lambda values: values.std(ddof=1) / len(values), "the root of N"),
    ],
    experiment.seeds_needed: [
        (lambda difference, deviation: math.ceil((2 * deviation / difference) ** 2), None),
        (lambda difference, deviation: next(n for n in range(1, 999) if deviation / n**0.5 <= difference / 2), None),
        (lambda difference, deviation: int((2 * deviation / difference) ** 2), "round up"),
        (lambda difference, deviation: math.ceil(2 * deviation / difference), "falls with the root"),
        (lambda difference, deviation: math.ceil((deviation / difference) ** 2), "for the whole of it"),
        (lambda difference, deviation: math.ceil((4 * deviation / difference) ** 2), "not of a quarter"),
        (lambda difference, deviation: (2 * deviation / difference) ** 2, "a whole number"),
    ],
    experiment.sign_flip: [
        (sign_flip, None),
        (lambda a, b: np.mean(np.round(np.abs(flipped_means(a, b)), 9) >= round(abs((a - b).mean()), 9)), None),
        (lambda a, b: np.mean(np.abs(flipped_means(a, b)) > abs((a - b).mean()) + 1e-12), "as far as it, too"),
        (lambda a, b: np.mean(flipped_means(a, b) >= (a - b).mean() - 1e-12), "in either direction"),
        (unpaired, "torn apart"),
        (lambda a, b: 1 - sign_flip(a, b), "closer to 0"),
        (lambda a, b: sign_flip(a, b) * 2 ** len(a), "divide by all"),
    ],
}
