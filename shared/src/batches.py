"""What each step is trained and validated on, as NumPy arrays: pixels, t and noise, before any framework sees them."""

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from ddpm_shared import streams
from ddpm_shared.config import Config
from ddpm_shared.images import Pixels

Arrays = tuple[Pixels, NDArray[np.int32], NDArray[np.float64]]


def training_arrays(pixels: Pixels, config: Config, step: int) -> Arrays:
    """The batch of training step `step`, a function of (seed, step) alone.

    Args:
        pixels: [N, H, W, C] uint8, the training images.
        config: its seed, batch size, flip and T are used.
        step: 0, 1, ...

    Returns:
        Images [B, H, W, C] uint8, t [B] int32, eps [B, H, W, C] float64.
    """
    size = config.training.batch_size
    chosen = pixels[streams.batch_indices(config.seed, step, len(pixels), size)]
    if config.data.horizontal_flip:
        flipped = streams.flips(config.seed, step, size)
        chosen[flipped] = chosen[flipped, :, ::-1]
    t = streams.timesteps(config.seed, streams.TRAIN_T, step, size, config.diffusion.timesteps)
    return chosen, t, streams.normal(config.seed, streams.TRAIN_EPS, step, chosen.shape)


class Prefetcher:
    """training_arrays of step after step, each drawn in a thread while the step before it is computed.

    Args:
        config: as in training_arrays.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.thread = ThreadPoolExecutor(1, "prefetch")
        self.ahead: tuple[Pixels, int, Future[Arrays]] | None = None

    def __call__(self, pixels: Pixels, step: int) -> Arrays:
        """training_arrays(pixels, config, step), whatever was asked for before."""
        ahead, self.ahead = self.ahead, None
        expected = ahead is not None and ahead[0] is pixels and ahead[1] == step
        arrays = ahead[2].result() if ahead and expected else training_arrays(pixels, self.config, step)
        self.ahead = pixels, step + 1, self.thread.submit(training_arrays, pixels, self.config, step + 1)
        return arrays


def validation_arrays(pixels: Pixels, config: Config, first: int) -> Arrays:
    """The images from `first` on, at most a batch, with the t and noise that each has in every epoch.

    Args:
        pixels: [N, H, W, C] uint8, the validation images.
        config: as in training_arrays.
        first: index of the first image.

    Returns:
        As training_arrays, with B = min(batch size, N - first).
    """
    chosen = pixels[first : first + config.training.batch_size]
    last = first + len(chosen)
    t = streams.timesteps(config.seed, streams.VALIDATION_T, 0, last, config.diffusion.timesteps)[first:]
    return chosen, t, streams.normal(config.seed, streams.VALIDATION_EPS, 0, chosen.shape, first)
