"""What each step is trained and validated on, as NumPy arrays, before any framework sees them."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddpm_shared import streams
from ddpm_shared.config import Config
from ddpm_shared.datasets import Split
from ddpm_shared.images import Pixels

# int32, 0 .. T - 1; of a process whose time is continuous, float64, uniform between 0 and 1: each tree makes t of them.
Times = NDArray[np.int32] | NDArray[np.float64]
Arrays = tuple[Pixels, Times, NDArray[np.float64]]
Share = tuple[int, int]  # (rank, count): the part of every batch that is one worker's
WHOLE: Share = (0, 1)


class Batch(NamedTuple):
    """Images with their classes, times and noise: all that a training step depends on beside the network."""

    pixels: Pixels  # [B, H, W, C] uint8
    labels: NDArray[np.int64]  # [B], classes; in a class-conditional run, num_classes where the label was dropped
    t: Times  # [B]
    eps: NDArray[np.float64]  # [B, H, W, C], standard normal

    @property
    def arrays(self) -> Arrays:
        """Pixels, t and eps: of what x_t is made."""
        return self.pixels, self.t, self.eps

    def shards(self, count: int) -> list["Batch"]:
        """It in `count` equal parts, in its order."""
        size = len(self.pixels) // count
        return [self.rows(slice(i * size, (i + 1) * size)) for i in range(count)]

    def rows(self, rows: slice) -> "Batch":
        """These images of it."""
        return Batch(self.pixels[rows], self.labels[rows], self.t[rows], self.eps[rows])


def training_batch(split: Split, config: Config, step: int, share: Share = WHOLE) -> Batch:
    """The batch of training step `step`, a function of (seed, step) alone, or a worker's part of it.

    Args:
        split: the training images and their labels.
        config: its seed, batch size, flip, label drop and process are used.
        step: 0, 1, ...
        share: (rank, count), 0 <= rank < count. The rows are rank * B // count up to (rank + 1) * B // count of the
            whole batch, for whose other rows no noise is drawn.

    Returns:
        A batch of config.training.batch_size images, B, or of the part.
    """
    rank, count = share
    size = config.training.batch_size
    rows = slice(rank * size // count, (rank + 1) * size // count)
    indices = streams.batch_indices(config.seed, step, len(split.images), size)[rows]
    pixels = split.images[indices]
    if config.data.horizontal_flip:
        flipped = streams.flips(config.seed, step, size)[rows]
        pixels[flipped] = pixels[flipped, :, ::-1]
    labels = split.labels[indices].astype(np.int64)
    if config.class_conditional:
        dropped = streams.drops(config.seed, step, size, config.training.label_drop)[rows]
        labels[dropped] = config.model.num_classes
    t = _times(config, streams.TRAIN_T, streams.TRAIN_U, step, size)
    if config.diffusion.stratified:
        t = streams.stratified(t.astype(np.float64))
    eps = streams.normal(config.seed, streams.TRAIN_EPS, step, pixels.shape, rows.start)
    return Batch(pixels, labels, t[rows], eps)


def _times(config: Config, whole: str, continuous: str, step: int, count: int) -> Times:
    if config.diffusion.process == "ddpm":
        return streams.timesteps(config.seed, whole, step, count, config.diffusion.timesteps)
    return streams.uniform(config.seed, continuous, step, count)


class Prefetcher:
    """training_batch of step after step, each drawn in a thread while the step before it is computed.

    Args:
        split: as in training_batch.
        config: as in training_batch.
        share: as in training_batch.
    """

    def __init__(self, split: Split, config: Config, share: Share = WHOLE) -> None:
        self.split, self.config, self.share = split, config, share
        self.thread = ThreadPoolExecutor(1, "prefetch")
        self.ahead: tuple[int, Future[Batch]] | None = None

    def __call__(self, step: int) -> Batch:
        """The batch of `step`, whatever was drawn before; drawing that of step + 1 begins."""
        ahead, self.ahead = self.ahead, None
        batch = ahead[1].result() if ahead and ahead[0] == step else self._draw(step)
        self.ahead = step + 1, self.thread.submit(self._draw, step + 1)
        return batch

    def _draw(self, step: int) -> Batch:
        return training_batch(self.split, self.config, step, self.share)


def validation_batches(split: Split, config: Config) -> Iterator[Batch]:
    """The first config.training.validation_images images, with the t and noise that each has in every epoch.

    No label is dropped.

    Args:
        split: the validation images and their labels.
        config: as in training_batch.

    Yields:
        Batches of config.training.batch_size images; the last may have fewer.
    """
    number = len(split.images[: config.training.validation_images])
    for first in range(0, number, config.training.batch_size):
        last = min(first + config.training.batch_size, number)
        pixels, labels = split.images[first:last], split.labels[first:last]
        t = _times(config, streams.VALIDATION_T, streams.VALIDATION_U, 0, last)[first:]
        eps = streams.normal(config.seed, streams.VALIDATION_EPS, 0, pixels.shape, first)
        yield Batch(pixels, labels.astype(np.int64), t, eps)
