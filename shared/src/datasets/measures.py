"""What is measured of a data set's images: their grey levels, the largest distance of two, and copies."""

import hashlib
import math

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ddpm_shared.images import Pixels

LEVELS = np.arange(256) / 127.5 - 1  # of a pixel, in [-1, 1]
PRODUCTS = 11_000**2 // 2 * 32**2 * 3  # for the largest distance: enough for all pairs of 10,000 colour images
BLOCK, VALUES = 1000, 2**24  # images of a block, at most, and values


def level_counts(pixels: Pixels) -> NDArray[np.int64]:
    """How often each grey level 0 .. 255 is there in [N, H, W, C] uint8: [C, 256]."""
    counts = np.zeros((pixels.shape[-1], 256), np.int64)
    rows = max(1, VALUES // math.prod(pixels.shape[1:]))
    for start in range(0, len(pixels), rows):
        for channel in range(pixels.shape[-1]):
            counts[channel] += np.bincount(pixels[start : start + rows, ..., channel].ravel(), minlength=256)
    return counts


def moments(counts: NDArray[np.floating]) -> tuple[float, float, float]:
    """Mean, standard deviation and root of the mean square of pixels in [-1, 1], from the counts of their levels."""
    share = counts / counts.sum()
    mean = float(share @ LEVELS)
    return mean, math.sqrt(share @ (LEVELS - mean) ** 2), math.sqrt(share @ LEVELS**2)


def largest_distance(pixels: Pixels) -> tuple[float, bool]:
    """The largest Euclidean distance between two images in [-1, 1], and whether it is surely that.

    Two images cannot be further from each other than the sum of their distances to the mean image. So images are
    compared in the order of that distance, block by block, until no other pair can be further; or until PRODUCTS, when
    a further pair may be left. ||x - y||^2 = ||x||^2 + ||y||^2 - 2 x . y finds the pair in float32, and its distance is
    then computed in whole numbers: two pairs that differ by less than 1e-5 of their distance may be mistaken.

    Args:
        pixels: [N, H, W, C] uint8, N >= 1.

    Returns:
        The distance, 0 for one image; True if it is the largest of all.
    """
    mean = pixels.mean(axis=0, dtype=np.float64).ravel().astype(np.float32)
    size = max(1, min(BLOCK, VALUES // mean.size))

    def rows(indices: NDArray[np.int64]) -> NDArray[np.float32]:
        return pixels[indices].reshape(len(indices), -1).astype(np.float32) - mean

    every = np.arange(len(pixels))
    squares = np.concatenate([_squares(rows(every[i : i + size])) for i in range(0, len(pixels), size)])
    order = np.argsort(-squares, kind="stable")
    blocks = [order[i : i + size] for i in range(0, len(pixels), size)]
    radii = [math.sqrt(squares[block[0]]) for block in blocks]  # the largest in each
    largest, pair, done = -1.0, (0, 0), 0
    total = min(PRODUCTS, len(pixels) ** 2 // 2 * mean.size)
    with tqdm(total=total, desc="distances", unit="product", unit_scale=True, leave=False) as bar:  # ends early, mostly
        for number, block in enumerate(blocks):
            x = rows(block)
            for other, radius in zip(blocks[number:], radii[number:], strict=True):
                if (radii[number] + radius) ** 2 < largest * (1 - 1e-5):
                    break
                if done > PRODUCTS:
                    return _distance(pixels, pair), False
                between = squares[block][:, None] + squares[other] - 2 * (x @ rows(other).T)
                i, j = np.unravel_index(np.argmax(between), between.shape)
                if between[i, j] > largest:
                    largest, pair = float(between[i, j]), (int(block[i]), int(other[j]))
                done += len(block) * len(other) * mean.size
                bar.update(len(block) * len(other) * mean.size)
    return _distance(pixels, pair), True


def _squares(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.einsum("nd,nd->n", rows, rows)


def _distance(pixels: Pixels, pair: tuple[int, int]) -> float:
    one, two = (pixels[index].astype(np.int64) for index in pair)
    return math.sqrt(int(((one - two) ** 2).sum())) / 127.5


def digests(pixels: Pixels) -> list[bytes]:
    """A hash of each of N images, equal for exact copies, which takes less room than the image."""
    return [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in pixels]


def duplicates(train: Pixels, test: Pixels) -> tuple[int, int, int]:
    """Exact copies: training images of an earlier one, test images of an earlier one, test of training images."""
    in_train, in_test = digests(train), digests(test)
    distinct = set(in_train)
    across = sum(digest in distinct for digest in in_test)
    return len(in_train) - len(distinct), len(in_test) - len(set(in_test)), across
