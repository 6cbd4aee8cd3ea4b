"""Answers to the exercises of notebook 03, the objective."""

import numpy as np

from ddpm_course.exercises import objective
from ddpm_course.exercises.checking import column


def kl(m, v, n, w):
    return (v / w - 1 - np.log(v / w) + (m - n) ** 2 / w) / 2


def mean(b, a, x, y, t, prev):
    return column(np.sqrt(prev) * b[t] / (1 - a[t])) * x + column(np.sqrt(1 - b[t]) * (1 - prev) / (1 - a[t])) * y


def before(a, t):
    return np.append(1, a)[t]


ANSWERS = {
    objective.kl: [
        (kl, None),
        (lambda m, v, n, w: np.log(np.sqrt(w / v)) + (v + (m - n) ** 2) / (2 * w) - 0.5, None),
        (lambda m, v, n, w: kl(n, w, m, v), "not symmetric"),
        (lambda m, v, n, w: v / w - 1 - np.log(v / w) + (m - n) ** 2 / w, "twice too large"),
        (lambda m, v, n, w: (m - n) ** 2 / (2 * w), "for equal variances"),
        (lambda m, v, n, w: (v / w - 1 - np.log(v / w) + (m - n) ** 2 / v) / 2, "by the second variance"),
        (lambda m, v, n, w: (v / w - 1 + np.log(v / w) + (m - n) ** 2 / w) / 2, "the sign of the logarithm"),
        (lambda m, v, n, w: kl(m, v, n, w).sum(), "the shape is a single number"),
    ],
    objective.posterior_mean: [
        (lambda b, a, x, y, t: mean(b, a, x, y, t, before(a, t)), None),
        (lambda b, a, x, y, t: mean(b, a, x, y, t, a[t] / (1 - b[t])), None),
        (lambda b, a, x, y, t: mean(b, a, x, y, t, a[t - 1]), "only t = 0 is wrong"),
        (lambda b, a, x, y, t: mean(b, a, x, y, t, a[t]), "the wrong step"),
        (lambda b, a, x, y, t: mean(b, a, y, x, t, before(a, t)), "have changed places"),
        (
            lambda b, a, x, y, t: (
                column(before(a, t) * b[t] / (1 - a[t])) * x + column((1 - b[t]) * (1 - before(a, t)) / (1 - a[t])) * y
            ),
            "the roots are missing",
        ),
        (
            lambda b, a, x, y, t: (
                column(np.sqrt(before(a, t)) * b[t] / (1 - a[t])) * x
                + column(np.sqrt(a[t]) * (1 - before(a, t)) / (1 - a[t])) * y
            ),
            "not of alphas_cumprod",
        ),
    ],
    objective.eps_weight: [
        (lambda b, a, t: b[t] / (2 * (1 - b[t]) * (1 - a[t - 1])), None),
        (
            lambda b, a, t: b[t] ** 2 / (1 - b[t]) / (1 - a[t]) / (2 * b[t] * (1 - a[t] / (1 - b[t])) / (1 - a[t])),
            None,
        ),
        (lambda b, a, t: b[t] / ((1 - b[t]) * (1 - a[t - 1])), "twice too large"),
        (lambda b, a, t: b[t] / (2 * (1 - b[t]) * (1 - a[t])), "a variance of beta"),
        (lambda b, a, t: b[t] / (2 * (1 - a[t - 1])), "alpha is missing"),
        (lambda b, a, t: (1 - a[t]) / (2 * b[t] * (1 - a[t - 1])), "the means' squared distance"),
        (
            lambda b, a, t: np.sqrt((1 - a[t]) / (1 - b[t])) / (2 * (1 - a[t - 1])),
            "has to be squared",
        ),
        (
            lambda b, a, t: a[t] / (1 - a[t]) * b[t] / (2 * (1 - b[t]) * (1 - a[t - 1])),
            "(x_0 - x_0_pred)^2",
        ),
    ],
}
