"""The exercises of 09: labels and guidance."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ddpm_course.exercises.checking import Off, column, compare, exercise
from ddpm_shared.config import DiffusionConfig
from ddpm_shared.oracle import diffusion, guidance

SCHEDULE = diffusion.make_schedule(DiffusionConfig())
CLASSES = 10


@exercise
def drop(answer: Callable[..., Any]) -> None:
    """(labels [B], uniform [B], probability, num_classes) -> labels [B], the null label where uniform < probability."""
    labels = np.array([7, 0, 3, 9, 9, 1, 4, 2])
    for uniform in (
        np.array([0.05, 0.50, 0.02, 0.70, 0.09, 0.10, 0.30, 0.99]),
        np.array([0.60, 0.01, 0.40, 0.08, 0.93, 0.21, 0.10, 0.04]),
    ):
        dropped = uniform < 0.1

        def nulled(dropped: Any, null: int = CLASSES) -> Any:
            return np.where(dropped, null, labels)

        given = labels.copy()
        compare(
            answer(given, uniform.copy(), 0.1, CLASSES),
            nulled(dropped),
            {
                "the whole batch loses its labels, by one number: each image has a number of its own": nulled(
                    np.full(len(labels), dropped[0])
                ),
                "no label is dropped: compare each number with `probability`": labels,
                "all labels are dropped: compare each number with `probability`": nulled(np.full(len(labels), True)),
                "the null label here is 0, and that is a class: it is the row after the last class": nulled(dropped, 0),
                "the null label is -1 here, and that is no row of the table: it is the row after the last class": (
                    nulled(dropped, -1)
                ),
                "the null label here is the last class: rows count from 0, and the null label's comes after it": nulled(
                    dropped, CLASSES - 1
                ),
                "the null label here is a row too far: after the classes 0 .. K - 1 comes K": nulled(
                    dropped, CLASSES + 1
                ),
                "only a number equal to `probability` is wrong: they are in [0, 1), and a share of `probability` is "
                "below it": nulled(uniform <= 0.1),
                "the others are dropped: a label is dropped where its number is below `probability`": nulled(~dropped),
            },
        )
        if not np.array_equal(given, labels):
            raise Off("right, but the labels that were given have changed too: they are the data set's, make new ones")


@exercise
def guide(answer: Callable[..., Any]) -> None:
    """(c [B, H, W, 2C], u, scale) -> the guided output: prediction guided, learned variance conditional."""
    rng = np.random.default_rng(0)
    c, u = rng.standard_normal((2, 3, 4, 5, 2))
    predicted = slice(None), slice(None), slice(None), slice(0, 1)
    for scale in (3.0, 1.5):

        def extrapolated(scale: float, start: Any = u, end: Any = c) -> Any:
            return start + scale * (end - start)

        def with_variance(guided: Any, variance: Any = c) -> Any:
            result = np.array(variance)
            result[predicted] = guided[predicted]
            return result

        right = guidance.condition(lambda x_t, t, labels=None: u if labels is None else c, np.zeros(3), scale)(
            c[predicted], np.zeros(3, np.int64)
        )
        mistakes = {
            "that is Ho and Salimans' w: here scale 1 is the conditional prediction, theirs is 0": (
                extrapolated(scale + 1)
            ),
            "scale is one too small: u + scale (c - u), and scale 1 is the conditional prediction": (
                extrapolated(scale - 1)
            ),
            "c and u have changed places: this leads away from what was asked for": extrapolated(scale, c, u),
            "that is the conditional prediction: scale does nothing": c,
        }
        compare(
            answer(c.copy(), u.copy(), scale),
            right,
            {
                "the variance is guided too: it is the second half of the channels, and c's is taken as it is": (
                    extrapolated(scale)
                ),
                "the variance is the unconditional one: take c's": with_variance(extrapolated(scale), u),
                "c and u have changed places, in the variance too": with_variance(extrapolated(scale, c, u), u),
            }
            | {said: with_variance(guided) for said, guided in mistakes.items()}
            | {f"{said}; and the variance is guided too": guided for said, guided in mistakes.items()},
        )


@exercise
def guided_x_0(answer: Callable[..., Any]) -> None:
    """(alphas_cumprod [T], x_t, t [B], c, u, scale, first, last) -> x_0_pred, clipped, guided where first <= t <= last.

    c and u are the two predictions of eps, [B, H, W, C] as x_t.
    """
    rng = np.random.default_rng(1)
    t = np.array([99, 100, 400, 640, 641, 999])
    x_0, eps = rng.uniform(-1, 1, (len(t), 4, 3, 1)), rng.standard_normal((len(t), 4, 3, 1))
    x_t = diffusion.q_sample(SCHEDULE, x_0, t, eps)
    c, u = (eps + 0.2 * rng.standard_normal(eps.shape) for _ in range(2))
    scale, first, last = 4.0, 100, 640

    def image(eps_pred: Any) -> Any:
        return diffusion.predict_x_0(SCHEDULE, x_t, t, eps_pred)

    def within(inside: Any, outside: float = 1.0, scale: float = scale) -> Any:
        return image(u + column(np.where(inside, scale, outside)) * (c - u))

    inside = (first <= t) & (t <= last)
    clipped = [np.clip(image(eps_pred), -1, 1) for eps_pred in (c, u)]
    early = clipped[1] + column(np.where(inside, scale, 1.0)) * (clipped[0] - clipped[1])
    compare(
        answer(SCHEDULE["alphas_cumprod"], x_t.copy(), t.copy(), c.copy(), u.copy(), scale, first, last),
        np.clip(within(inside), -1, 1),
        {
            "x_0 is not clipped to [-1, 1]": within(inside),
            "guide first, then clip: what was clipped before is guided out of the range again": early,
            "c and u are clipped before they are guided: guide first, then clip, once": np.clip(early, -1, 1),
            "outside of the interval the prediction is the conditional one, scale 1, not the unconditional one": (
                np.clip(within(inside, outside=0.0), -1, 1)
            ),
            "all images are guided: those with a t outside of first .. last have scale 1": np.clip(
                within(np.full(len(t), True)), -1, 1
            ),
            "no image is guided: those with a t in first .. last have the scale that was given": np.clip(
                image(c), -1, 1
            ),
            "the ends belong to the interval: first and last are guided too": np.clip(
                within((first < t) & (t < last)), -1, 1
            ),
            "the last t belongs to the interval": np.clip(within((first <= t) & (t < last)), -1, 1),
            "the first t belongs to the interval": np.clip(within((first < t) & (t <= last)), -1, 1),
            "the images outside are guided, those inside are not": np.clip(within(~inside), -1, 1),
            "that is Ho and Salimans' w: here scale 1 is the conditional prediction, theirs is 0": np.clip(
                within(inside, scale=scale + 1), -1, 1
            ),
            "that is the guided eps: solve for the image that follows from it": u
            + column(np.where(inside, scale, 1.0)) * (c - u),
        },
    )
