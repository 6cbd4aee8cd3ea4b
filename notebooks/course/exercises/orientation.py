"""The exercises of 00: orientation."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ddpm_course.exercises.checking import Off, compare, exercise
from ddpm_shared import streams


@exercise
def to_unit_range(answer: Callable[..., Any]) -> None:
    """(pixels [N, H, W, C] uint8) -> floats in [-1, 1]."""
    pixels = np.array([0, 1, 127, 128, 255], np.uint8).reshape(1, 5, 1, 1)
    x = pixels.astype(np.float64)
    compare(
        answer(pixels),
        x / 127.5 - 1,
        {
            "that is from 0 to 1: stretch it to twice the width, and move its middle to 0": x / 255,
            "the largest is 1.008: 255, the largest byte, has to become 1": x / 127 - 1,
            "the largest is 0.992: 255, the largest byte, has to become 1": x / 128 - 1,
            "bytes wrap around at 256: turn them into floats before you calculate": (2 * pixels) / 255 - 1,
        },
    )


@exercise
def to_channels_first(answer: Callable[..., Any]) -> None:
    """(images [B, H, W, C]) -> [B, C, H, W], the layout of PyTorch."""
    images = np.arange(2 * 4 * 5 * 3, dtype=np.float64).reshape(2, 4, 5, 3)
    found = answer(images)
    if np.shape(found) == (2, 3, 4, 5) and np.array_equal(found, images.reshape(2, 3, 4, 5)):
        raise Off("right shape, but mixed up pixels: reshape keeps the order in memory, transpose moves axes")
    if np.shape(found) == (2, 3, 5, 4):
        raise Off("height and width have changed places: on square images you would not have noticed")
    compare(found, images.transpose(0, 3, 1, 2))


@exercise
def noise_of_image(answer: Callable[..., Any]) -> None:
    """(seed, i) -> x_T of image i, [28, 28, 1], as the sampling commands draw it."""

    def x_T(seed: int, step: int, first: int, stream: str = streams.SAMPLE_X_T) -> Any:  # noqa: N802 (the paper's T)
        return streams.normal(seed, stream, step, (1, 28, 28, 1), first)[0]

    for seed, i in ((0, 0), (3, 17)):
        compare(
            answer(seed, i),
            x_T(seed, 0, i),
            {
                "that is image 0's: the number of the image is the argument `first`": x_T(seed, 0, 0),
                "the number of the image is `first`, not `step`; of x_T the step is 0": x_T(seed, i, 0),
                "that is the noise of the way, z: x_T has a stream of its own": x_T(seed, 0, i, streams.SAMPLE_Z),
                "that is another seed's": x_T(0, 0, i),
            },
        )
