"""Has the model drawn, or has it remembered? Every sample's nearest training image, and exact copies."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from ddpm_shared.datasets.measures import digests
from ddpm_shared.errors import UserError
from ddpm_shared.images import Pixels

ROWS, CHUNK = 500, 2**23  # images at a time: 120 MB of similarities to 60,000 training images; of large ones, values
TRAINING = 2**26  # values of the training images at a time, 268 MB; all 47 million of Fashion-MNIST
# Up to 1,024 integers from -128 to 127 have products and sums within 2**24, which float32 holds exactly in whatever
# order a BLAS adds them. Larger images are cut into blocks of so many values, whose sums are added in float64.
BLOCK = 1024


def _same_shape(images: Pixels, training: Pixels) -> None:
    if images.shape[1:] != training.shape[1:]:
        found, expected = list(images.shape[1:]), list(training.shape[1:])
        raise UserError(f"images of shape {found} cannot be compared with training images of shape {expected}")


def _rows(images: Pixels) -> NDArray[np.float32]:
    """[N, H, W, C] -> [N, H*W*C], grey levels -128 .. 127: shifted, they have small products."""
    return images.reshape(len(images), -1).astype(np.float32) - np.float32(128)


def _added(parts: Iterator[NDArray[np.float32]]) -> NDArray[np.floating]:
    """The sum of the blocks' results: the only one in float32 as it is, several in float64."""
    total: NDArray[np.floating] = next(parts)
    for part in parts:
        total = np.add(total, part, dtype=np.float64)
    return total


def nearest(
    images: Pixels, training: Pixels, on_rows: Callable[[int], object] = lambda n: None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Every image's nearest training image by the root-mean-square difference in grey levels.

        ||x - y||^2 = ||x||^2 - 2 (x . y - ||y||^2 / 2)

    The bracket is largest for the nearest y. For images of more than 1,024 values it is exact. For smaller ones it is
    exact as long as that y is within 146 grey levels, which is true of all but noise; beyond, two that differ by less
    than 1e-7 of their distance may be mistaken.

    Args:
        images: [N, H, W, C] uint8.
        training: [M, H, W, C] uint8, M >= 1; takes 4 M H W C bytes more, 190 MB for Fashion-MNIST, and never more
            than 270 MB.
        on_rows: called with the number of images done since its last call; for a progress bar.

    Returns:
        Index into `training`, [N], the first of several that are equally near; and distance, [N], in grey levels
        0 .. 255, computed in float64 from the two images: 0 for exact copies only.

    Raises:
        UserError: images of another shape than the training images.
    """
    _same_shape(images, training)
    size = training[0].size
    rows_at_once, at_once = (max(1, most // size) for most in (CHUNK, TRAINING))
    parts = [slice(first, first + at_once) for first in range(0, len(training), at_once)]
    only = _Points(training) if len(parts) == 1 else None
    index = np.empty(len(images), np.int64)
    distance = np.empty(len(images))
    for start in range(0, len(images), step := min(ROWS, rows_at_once)):
        chunk = images[start : start + step]
        rows = _rows(chunk)
        closest = np.zeros(len(chunk), np.int64)
        highest = np.full(len(chunk), -np.inf)
        for part in parts:
            found, similarity = (only or _Points(training[part])).closest(rows)
            nearer = similarity > highest  # of equally near ones, the first stays
            closest[nearer], highest[nearer] = found[nearer] + part.start, similarity[nearer]
        squares = (chunk.astype(np.float64) - training[closest]) ** 2
        index[start : start + step] = closest
        distance[start : start + step] = np.sqrt(squares.mean(axis=(1, 2, 3)))
        on_rows(len(chunk))
    return index, distance


class _Points:
    """Training images as rows, and half the squares of their norms."""

    def __init__(self, training: Pixels) -> None:
        self.rows = _rows(training)  # [M, D]
        self.blocks = [slice(first, first + BLOCK) for first in range(0, self.rows.shape[1], BLOCK)]
        squares = (np.einsum("nd,nd->n", self.rows[:, block], self.rows[:, block]) for block in self.blocks)
        self.half_norms = _added(squares) / 2

    def closest(self, rows: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.floating]]:
        """The index of the nearest for each of rows [n, D], and how similar it is, [n] both."""
        similarities = _added(rows[:, block] @ self.rows[:, block].T for block in self.blocks)  # [n, M]
        similarities -= self.half_norms
        index = similarities.argmax(axis=1)
        return index, np.take_along_axis(similarities, index[:, None], axis=1)[:, 0]


def copies(images: Pixels, training: Pixels) -> NDArray[np.bool_]:
    """Which of images [N, H, W, C] uint8 occur in `training`, byte for byte, [N] bool.

    Raises:
        UserError: images of another shape than the training images.
    """
    _same_shape(images, training)
    known = set(digests(training))
    return np.array([digest in known for digest in digests(images)], bool)
