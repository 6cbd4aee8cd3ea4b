"""Answers to the exercises of notebook 07, evaluating."""

import numpy as np
import scipy.linalg

from ddpm_course.exercises import evaluating
from ddpm_shared.evaluation import metrics


def distances(a, b):
    return np.linalg.norm(a[:, None] - b[None], axis=-1)


def within(points, centres, radii):
    return (distances(points, centres) <= radii).any(axis=1).mean()


def radii(points, k):
    apart = distances(points, points)
    np.fill_diagonal(apart, np.inf)
    return np.partition(apart, k - 1, axis=1)[:, k - 1]


def covariances(a, b):
    return np.cov(a, rowvar=False), np.cov(b, rowvar=False)


def of_moments(a, b, bias=False, root=scipy.linalg.sqrtm):
    s_a, s_b = np.cov(a, rowvar=False, bias=bias), np.cov(b, rowvar=False, bias=bias)
    return np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(s_a + s_b - 2 * root(s_a @ s_b))


ANSWERS = {
    evaluating.frechet_of_one: [
        (lambda m, s, n, r: (m - n) ** 2 + (s - r) ** 2, None),
        (lambda m, s, n, r: m**2 - 2 * m * n + n**2 + s**2 + r**2 - 2 * np.sqrt(s**2 * r**2), None),
        (lambda m, s, n, r: np.hypot(m - n, s - r), "that is its root"),
        (lambda m, s, n, r: (m - n) ** 2 + (s**2 - r**2) ** 2, "difference of the variances"),
        (lambda m, s, n, r: (m - n) ** 2 + s**2 + r**2, "the cross term"),
        (lambda m, s, n, r: (m - n) ** 2 + abs(s - r), "square the difference of the standard deviations"),
        (lambda m, s, n, r: abs(m - n) + (s - r) ** 2, "square the difference of the means"),
        (lambda m, s, n, r: (m - n) ** 2, "only the means"),
        (lambda m, s, n, r: (s - r) ** 2, "only the widths"),
        (lambda m, s, n, r: ((m - n) ** 2, (s - r) ** 2), "the shape is [2]"),
    ],
    evaluating.precision: [
        (lambda x, y, k: within(y, x, radii(x, k)), None),
        (lambda x, y, k: metrics.neighbour_metrics(x, y, k).precision, None),
        (lambda x, y, k: within(y, x, np.sort(distances(x, x), axis=1)[:, k - 1]), "the point itself"),
        (lambda x, y, k: within(x, y, radii(y, k)), "that is recall"),
        (lambda x, y, k: within(y, x, np.sort(distances(x, y), axis=1)[:, k - 1]), "those of the other set"),
        (lambda x, y, k: within(y, x, radii(x, k + 1)), "one neighbour too many"),
        (lambda x, y, k: within(y, x, radii(x, k).mean()), "one radius for all"),
        (
            lambda x, y, k: (distances(y, x).min(1) <= radii(x, k)[distances(y, x).argmin(1)]).mean(),
            "in the ball of its nearest",
        ),
        (lambda x, y, k: (distances(y, x) <= radii(x, k)).any(axis=1), "the shape is [250]"),
    ],
    evaluating.frechet: [
        (of_moments, None),
        (lambda a, b: complex(of_moments(a, b)), None),
        (lambda a, b: metrics.frechet_distance(metrics.moments(a), metrics.moments(b)), None),
        (lambda a, b: np.sqrt(of_moments(a, b)), "that is its root"),
        (lambda a, b: of_moments(a, b, bias=True), "by N - 1"),
        (lambda a, b: of_moments(a, b, root=np.zeros_like), "the last term is missing"),
        (lambda a, b: of_moments(a, b, root=lambda product: product), "the root of the product is missing"),
        (lambda a, b: of_moments(a, b, root=lambda product: np.sqrt(np.abs(product))), "the root of each number"),
        (
            lambda a, b: (
                np.sum((a.mean(0) - b.mean(0)) ** 2)
                + np.trace(sum(covariances(a, b)) - 2 * np.sqrt(np.abs(np.multiply(*covariances(a, b)))))
            ),
            "one of matrices",
        ),
        (lambda a, b: of_moments(a - a.mean(0), b - b.mean(0)), "only the covariances"),
        (lambda a, b: np.sum((a.mean(0) - b.mean(0)) ** 2), "only the means"),
    ],
}
