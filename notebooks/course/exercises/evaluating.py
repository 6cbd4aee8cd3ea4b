"""The exercises of 07: evaluating samples."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ddpm_course.exercises.checking import compare, exercise
from ddpm_shared.evaluation import metrics


def _two_sets(shift: float, real: int = 60, drawn: int = 45) -> tuple[Any, Any]:
    """Features [N, 3] and [M, 3] of two Gaussians that differ in mean and covariance."""
    rng = np.random.default_rng(0)
    mixing = np.array([[1.0, 0.3, 0.2], [0.0, 0.8, 0.5], [0.0, 0.0, 1.2]])
    return rng.standard_normal((real, 3)), rng.standard_normal((drawn, 3)) @ mixing + shift


@exercise
def frechet_of_one(answer: Callable[..., Any]) -> None:
    """(mean_a, std_a, mean_b, std_b) -> the squared Fréchet distance of two one-dimensional Gaussians."""
    for mean_a, std_a, mean_b, std_b in ((0.0, 1.0, 3.0, 2.5), (1.5, 0.4, 1.0, 1.2)):
        one, other = (
            metrics.Moments(np.array([mean]), np.array([[std**2]])) for mean, std in ((mean_a, std_a), (mean_b, std_b))
        )
        right, shift = metrics.frechet_distance(one, other), (mean_a - mean_b) ** 2
        compare(
            answer(mean_a, std_a, mean_b, std_b),
            right,
            {
                "that is its root: what everybody reports is the squared distance": np.sqrt(right),
                "you take the difference of the variances: the best pairing leaves that of the standard deviations": (
                    shift + (std_a**2 - std_b**2) ** 2
                ),
                "the variances do not cancel: the cross term, -2 std_a std_b, is missing": (
                    shift + std_a**2 + std_b**2
                ),
                "square the difference of the standard deviations": shift + abs(std_a - std_b),
                "square the difference of the means": abs(mean_a - mean_b) + (std_a - std_b) ** 2,
                "only the means are compared: two Gaussians of one mean may still have different widths": shift,
                "only the widths are compared: the means are missing": (std_a - std_b) ** 2,
            },
        )


@exercise
def precision(answer: Callable[..., Any]) -> None:
    """(real [N, D], generated [M, D], k) -> the share of the generated points in some real point's ball."""
    real, generated = _two_sets(1.0, 300, 250)
    for k in (2, 4):
        radii, drawn_radii = _radii(real, k), _radii(generated, k)
        others = np.sort(_distances(real, generated), axis=1)[:, k - 1]
        compare(
            answer(real, generated, k),
            metrics.neighbour_metrics(real, generated, k, k).precision,
            {
                "you count the point itself among its neighbours: its distance of 0 comes first, leave it out": _share(
                    real, generated, _radii(real, k - 1)
                ),
                "that is recall: the balls of precision are those of the real points": _share(
                    generated, real, drawn_radii
                ),
                "the radii are those of the other set: a real point's ball ends at its k-th REAL neighbour": _share(
                    real, generated, others
                ),
                "one neighbour too many: a point's ball ends at its k-th neighbour": _share(
                    real, generated, _radii(real, k + 1)
                ),
                "one radius for all: each real point has its own": _share(real, generated, radii.mean()),
                "every generated point has to be in some ball, not in the ball of its nearest real point": float(
                    np.mean([row.min() <= radii[row.argmin()] for row in _distances(generated, real)])
                ),
            },
        )


def _share(balls: Any, points: Any, radii: Any) -> float:
    """Of the points that lie in some ball around `balls`."""
    return float((_distances(points, balls) <= radii).any(axis=1).mean())


def _distances(a: Any, b: Any) -> Any:
    return np.linalg.norm(a[:, None] - b, axis=2)


def _radii(points: Any, k: int) -> Any:
    return np.sort(_distances(points, points), axis=1)[:, k]  # the point itself is at 0


@exercise
def frechet(answer: Callable[..., Any]) -> None:
    """(a [N, D], b [M, D]) -> the squared Fréchet distance of the Gaussians that stand for two sets of features."""
    a, b = _two_sets(0.5, 12, 9)
    one, other = metrics.moments(a), metrics.moments(b)
    right = metrics.frechet_distance(one, other)
    shift, traces = np.sum((one.mean - other.mean) ** 2), np.trace(one.covariance) + np.trace(other.covariance)
    product = one.covariance @ other.covariance
    found = answer(a, b)
    compare(
        found.real if isinstance(found, complex) else found,  # a matrix root by SciPy may be complex, by a rounding
        right,
        {
            "that is its root: what everybody reports is the squared distance": np.sqrt(right),
            "divide the covariances by N - 1, not by N": metrics.frechet_distance(
                *(metrics.Moments(m.mean, m.covariance * (len(x) - 1) / len(x)) for m, x in ((one, a), (other, b)))
            ),
            "the last term is missing, -2 tr (S_a S_b)^(1/2): a set would be far from itself": shift + traces,
            "the root of the product is missing": shift + traces - 2 * np.trace(product),
            "you take the root of each number: the root of a matrix, multiplied by itself, gives the matrix": (
                shift + traces - 2 * np.sum(np.sqrt(np.abs(np.diag(product))))
            ),
            "the product S_a S_b is one of matrices, not of their numbers: use @": (
                shift + traces - 2 * np.sum(np.sqrt(np.diag(one.covariance) * np.diag(other.covariance)))
            ),
            "only the covariances are compared: the means are missing": right - shift,
            "only the means are compared: the covariances are missing": shift,
        },
    )
