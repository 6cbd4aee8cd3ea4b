"""Answers to the exercises of notebook 09, labels and guidance."""

import numpy as np

from ddpm_course.exercises import conditioning
from ddpm_course.exercises.checking import column


def in_place(labels, uniform, p, k):
    labels[uniform < p] = k
    return labels


def one_by_one(labels, uniform, p, k):
    return [k if number < p else label for label, number in zip(labels, uniform, strict=True)]


def guide(c, u, s, w=0.0, variance=None):
    """The prediction in the first channel, then the variance: c's, or another."""
    guided = u[..., :1] + (s + w) * (c[..., :1] - u[..., :1])
    return np.concatenate([guided, (c if variance is None else variance)[..., 1:]], axis=-1)


def guided_x_0(a, x_t, t, c, u, s, first, last, inside=None, outside=1.0, clip=True):
    """Guided where `inside`, by default in the interval with both ends."""
    if inside is None:
        inside = (first <= t) & (t <= last)
    eps = u + column(np.where(inside, s, outside)) * (c - u)
    x_0 = (x_t - column(np.sqrt(1 - a[t])) * eps) / column(np.sqrt(a[t]))
    return np.clip(x_0, -1, 1) if clip else x_0


def by_images(a, x_t, t, c, u, s, first, last, clip=False, clip_last=True):
    """Guides the images that follow from c and u, instead of c and u."""
    of_c, of_u = (guided_x_0(a, x_t, t, eps, eps, s, first, last, clip=clip) for eps in (c, u))
    x_0 = of_u + column(np.where((first <= t) & (t <= last), s, 1.0)) * (of_c - of_u)
    return np.clip(x_0, -1, 1) if clip_last else x_0


ANSWERS = {
    conditioning.drop: [
        (lambda y, u, p, k: np.where(u < p, k, y), None),
        (one_by_one, None),
        (lambda y, u, p, k: np.full(len(y), k) if u[0] < p else y, "the whole batch loses its labels"),
        (lambda y, u, p, k: np.full(len(y), k) if u.mean() < p else y, "no label is dropped"),
        (lambda y, u, p, k: np.full(len(y), k) if u.min() < p else y, "each image has a number of its own"),
        (lambda y, u, p, k: np.where(u < p, 0, y), "and that is a class"),
        (lambda y, u, p, k: np.where(u < p, -1, y), "is no row of the table"),
        (lambda y, u, p, k: np.where(u < p, k - 1, y), "the last class"),
        (lambda y, u, p, k: np.where(u < p, k + 1, y), "a row too far"),
        (lambda y, u, p, k: np.where(u <= p, k, y), "equal to `probability`"),
        (lambda y, u, p, k: np.where(u >= p, k, y), "the others are dropped"),
        (in_place, "they are the data set's"),
        (lambda y, u, p, k: y[u >= p], "the shape is [5], expected [8]"),
    ],
    conditioning.guide: [
        (guide, None),
        (lambda c, u, s: guide((1 - s) * u + s * c, u, 1.0, variance=c), None),
        (lambda c, u, s: guide(c, u, s, w=1.0), "Ho and Salimans' w"),
        (lambda c, u, s: c + s * (c - u), "Ho and Salimans' w"),
        (lambda c, u, s: guide(c, u, s, w=-1.0), "one too small"),
        (lambda c, u, s: guide(u, c, s, variance=c), "have changed places"),
        (lambda c, u, s: guide(u, c, s), "have changed places"),
        (lambda c, u, s: u + s * (c - u), "the variance is guided too"),
        (lambda c, u, s: c + s * (u - c), "have changed places: this leads away from what was asked for; and"),
        (lambda c, u, s: guide(c, u, s, variance=u), "the variance is the unconditional one"),
        (lambda c, u, s: c, "scale does nothing"),
        (lambda c, u, s: guide(c, u, s)[..., :1], "the shape is [3, 4, 5, 1], expected [3, 4, 5, 2]"),
    ],
    conditioning.guided_x_0: [
        (guided_x_0, None),
        (by_images, None),
        (lambda *given: guided_x_0(*given, clip=False), "is not clipped"),
        (lambda *given: by_images(*given, clip=True), "clipped before they are guided"),
        (lambda *given: by_images(*given, clip=True, clip_last=False), "guided out of the range again"),
        (lambda *given: guided_x_0(*given, outside=0.0), "not the unconditional one"),
        (lambda *given: guided_x_0(*given, inside=given[2] >= 0), "all images are guided"),
        (
            lambda a, x, t, c, u, s, first, last: guided_x_0(
                a, x, t, c, u, s if first <= t[0] <= last else 1.0, first, last
            ),
            "no image is guided",
        ),
        (lambda *given: guided_x_0(*given, inside=(given[6] < given[2]) & (given[2] < given[7])), "the ends belong"),
        (lambda *given: guided_x_0(*given, inside=(given[6] <= given[2]) & (given[2] < given[7])), "the last t"),
        (lambda *given: guided_x_0(*given, inside=(given[6] < given[2]) & (given[2] <= given[7])), "the first t"),
        (lambda *given: guided_x_0(*given, inside=(given[2] < given[6]) | (given[7] < given[2])), "those inside"),
        (lambda a, x, t, c, u, s, first, last: guided_x_0(a, x, t, c, u, s + 1, first, last), "Ho and Salimans' w"),
        (
            lambda a, x, t, c, u, s, first, last: u + column(np.where((first <= t) & (t <= last), s, 1.0)) * (c - u),
            "that is the guided eps",
        ),
    ],
}
