"""Answers to the exercises of notebook 00, orientation."""

import numpy as np

from ddpm_course.exercises import orientation
from ddpm_shared import streams


def noise(seed, stream, step, first):
    return streams.normal(seed, stream, step, (1, 28, 28, 1), first)[0]


ANSWERS = {
    orientation.to_unit_range: [
        (lambda p: p / 127.5 - 1, None),
        (lambda p: 2 * (p.astype(np.float32) / 255) - 1, None),
        (lambda p: p / 255, "from 0 to 1"),
        (lambda p: p / 127 - 1, "1.008"),
        (lambda p: p / 128 - 1, "0.992"),
        (lambda p: 2 * p / 255 - 1, "bytes wrap around"),
    ],
    orientation.to_channels_first: [
        (lambda x: x.transpose(0, 3, 1, 2), None),
        (lambda x: np.moveaxis(x, -1, 1), None),
        (lambda x: x.reshape(x.shape[0], x.shape[3], x.shape[1], x.shape[2]), "mixed up pixels"),
        (lambda x: x.transpose(0, 3, 2, 1), "height and width"),
        (lambda x: x, "the shape is [2, 4, 5, 3], expected [2, 3, 4, 5]"),
    ],
    orientation.noise_of_image: [
        (lambda seed, i: noise(seed, streams.SAMPLE_X_T, 0, i), None),
        (lambda seed, i: streams.normal(seed, streams.SAMPLE_X_T, 0, (i + 1, 28, 28, 1))[i], None),
        (lambda seed, i: noise(seed, streams.SAMPLE_X_T, 0, 0), "image 0's"),
        (lambda seed, i: noise(seed, streams.SAMPLE_X_T, i, 0), "not `step`"),
        (lambda seed, i: noise(seed, streams.SAMPLE_Z, 0, i), "a stream of its own"),
        (lambda seed, i: noise(0, streams.SAMPLE_X_T, 0, i), "another seed's"),
        (lambda seed, i: streams.normal(seed, streams.SAMPLE_X_T, 0, (1, 28, 28, 1), i), "the shape is [1, 28, 28, 1]"),
    ],
}
