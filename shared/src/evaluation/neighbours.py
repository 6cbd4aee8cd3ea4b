"""Has the model drawn, or has it remembered? Every sample's nearest training image, and exact copies."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from ddpm_shared.errors import UserError
from ddpm_shared.images import Pixels

ROWS = 500  # images at a time: 120 MB of similarities to 60,000 training images
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
        training: [M, H, W, C] uint8, M >= 1; takes 4 M H W C bytes more, 190 MB for Fashion-MNIST.
        on_rows: called with the number of images done since its last call; for a progress bar.

    Returns:
        Index into `training`, [N], the first of several that are equally near; and distance, [N], in grey levels
        0 .. 255, computed in float64 from the two images: 0 for exact copies only.

    Raises:
        UserError: images of another shape than the training images.
    """
    _same_shape(images, training)
    points = _rows(training)
    blocks = [slice(first, first + BLOCK) for first in range(0, points.shape[1], BLOCK)]
    half_norms = _added(np.einsum("nd,nd->n", points[:, block], points[:, block]) for block in blocks) / 2
    index = np.empty(len(images), np.int64)
    distance = np.empty(len(images))
    for start in range(0, len(images), ROWS):
        chunk = images[start : start + ROWS]
        rows = _rows(chunk)
        similarities = _added(rows[:, block] @ points[:, block].T for block in blocks)  # [n, M]
        similarities -= half_norms
        closest = similarities.argmax(axis=1)
        squares = (chunk.astype(np.float64) - training[closest]) ** 2
        index[start : start + ROWS] = closest
        distance[start : start + ROWS] = np.sqrt(squares.mean(axis=(1, 2, 3)))
        on_rows(len(chunk))
    return index, distance


def copies(images: Pixels, training: Pixels) -> NDArray[np.bool_]:
    """Which of images [N, H, W, C] uint8 occur in `training`, byte for byte, [N] bool.

    Raises:
        UserError: images of another shape than the training images.
    """
    _same_shape(images, training)
    known = {image.tobytes() for image in training}
    return np.array([image.tobytes() in known for image in images], bool)
