"""Answers to the exercises of notebook 01, the forward process."""

import numpy as np

from ddpm_course.exercises import forward
from ddpm_course.exercises.checking import column

ANSWERS = {
    forward.q_sample: [
        (lambda a, x, t, e: column(np.sqrt(a[t])) * x + column(np.sqrt(1 - a[t])) * e, None),
        (lambda a, x, t, e: column(a[t]) * x + column(1 - a[t]) * e, "the roots are missing"),
        (lambda a, x, t, e: column(np.sqrt(1 - a[t])) * x + column(np.sqrt(a[t])) * e, "have changed places"),
        (lambda a, x, t, e: column(np.sqrt(a[t])) * x + column(1 - np.sqrt(a[t])) * e, "the root of the difference"),
        (
            lambda a, x, t, e: column(np.sqrt(np.append(1, a)[t])) * x + column(np.sqrt(1 - np.append(1, a)[t])) * e,
            "one step early",
        ),
        (lambda a, x, t, e: np.sqrt(a[t]) * x + np.sqrt(1 - a[t]) * e, "the shape is [3, 4, 5, 3]"),
    ],
    forward.first_time_below: [
        (lambda a, snr: int(np.argmax(a / (1 - a) < snr)), None),
        (lambda a, snr: np.flatnonzero(a / (1 - a) < snr)[0], None),
        (lambda a, snr: np.argmax(np.sqrt(a / (1 - a)) < snr), "the ratio of the amplitudes"),
        (lambda a, snr: np.argmax(a < snr), "divide it by that of the noise"),
        (lambda a, snr: np.argmax(a / (1 - a) < snr) + 1, "t is 0-based"),
        (lambda a, snr: np.argmax(a / (1 - a) < snr) - 1, "one too early"),
        (lambda a, snr: a / (1 - a) < snr, "the shape is [1000]"),
    ],
    forward.two_steps: [
        (lambda b, c: (np.sqrt((1 - b) * (1 - c)), np.sqrt(1 - (1 - b) * (1 - c))), None),
        (lambda b, c: (np.sqrt((1 - b) * (1 - c)), 1 - (1 - b) * (1 - c)), "that is the variance"),
        (lambda b, c: (np.sqrt((1 - b) * (1 - c)), np.sqrt(b + c)), "the first noise shrinks"),
        (lambda b, c: ((1 - b) * (1 - c), np.sqrt(1 - (1 - b) * (1 - c))), "roots of 1 - beta"),
        (lambda b, c: (np.sqrt((1 - b) * (1 - c)), np.sqrt((1 - c) * b) + np.sqrt(c)), "variances do"),
        (lambda b, c: np.sqrt((1 - b) * (1 - c)), "return two numbers"),
    ],
}
