"""The exercises of 13: many workers."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ddpm_course.exercises.checking import Off, compare, exercise, require_written

Parts = Sequence[Any]  # arrays of one shape


@exercise
def own_shards(answer: Callable[..., Any]) -> None:
    """(batch [B, ...], shards, rank, count) -> the shards of this worker, a list of [B / shards, ...]."""
    for size, shards, count in ((36, 6, 3), (24, 4, 2), (24, 6, 2), (24, 4, 4), (24, 4, 1)):
        batch = np.arange(1.0, 2 * size + 1).reshape(size, 2)
        cut, own = batch.reshape(shards, size // shards, 2), shards // count
        dealt = batch.reshape(size // shards, shards, 2).swapaxes(0, 1)  # shard i has the rows i, i + shards, ...
        for rank in reversed(range(count)):  # the first worker is right by many rules
            mine = slice(rank * own, (rank + 1) * own)
            found = answer(batch.copy(), shards, rank, count)
            compare(
                _stacked(found, size, shards, count),
                cut[mine],
                {
                    "every worker has the first shards: where a worker begins depends on its rank": cut[:own],
                    "the shards go round like cards: a worker's stand next to each other, or it can add up no part of "
                    "the tree alone": cut[rank::count],
                    "the rows go round the workers like cards: a worker has neighbouring rows": (
                        batch[rank::count].reshape(cut[mine].shape)
                    ),
                    "the rows go round the shards like cards: a shard has neighbouring rows": dealt[mine],
                    "these are its shards, in the wrong order: the order decides the sum": cut[mine][::-1],
                    "the workers are numbered from 0: these are the shards of the one before": (
                        np.roll(cut, own, axis=0)[mine]
                    ),
                },
            )


def _stacked(found: Any, size: int, shards: int, count: int) -> Any:
    """The shards of an answer as one array. Raises Off for what is no list of equally many rows."""
    require_written(found)
    try:
        parts = [np.asarray(part, np.float64) for part in found]
    except (TypeError, ValueError):
        raise Off("return a list of arrays, one for each shard of this worker") from None
    require_written(*parts)
    lengths = {len(part) if part.ndim == 2 else 0 for part in parts}
    if len(parts) == shards and count > 1 and lengths == {size // shards}:
        raise Off("these are the shards of all workers: each worker computes its own alone")
    if len(parts) == shards and count > 1:
        raise Off("the rows of this worker are cut into too many shards: it has shards / count of them")
    if lengths == {size // count} and count < shards:
        raise Off("these are the rows of this worker in one piece: cut them into its shards")
    if len(lengths) != 1 or lengths == {0}:
        raise Off("return a list of arrays, each with as many rows as the others")
    return np.stack(parts)


@exercise
def tree_sum(answer: Callable[[list[Any]], Any]) -> None:
    """(n arrays [P] float32) -> their sum, neighbours first; an odd one at the end goes up as it is."""
    for count in (8, 5, 6, 3, 7, 2, 1, 12, 11):
        parts = _cancelling(count)
        right = _tree(parts)
        found = answer([part.copy() for part in parts])
        compare(
            found,
            right,
            {
                "that is the mean: the sum is asked for": right / np.float32(count),
                "that adds one after the other, from the first on: add neighbours, then the sums of neighbours": (
                    functools.reduce(np.add, parts)
                ),
                "that adds one after the other, from the last on: add neighbours, then the sums of neighbours": (
                    functools.reduce(np.add, parts[::-1])
                ),
                "these pairs are half the list apart: add the first to the second, the third to the fourth": (
                    _by_levels(parts, _far)
                ),
                "these pairs are the first and the last: add the first to the second, the third to the fourth": (
                    _by_levels(parts, _outer)
                ),
                "the odd one at the end is forgotten: it goes up to the next level as it is": (
                    _by_levels(parts, _neighbours)
                ),
                "the odd one is added to the pair before it at once: it goes up to the next level as it is": (
                    _by_levels(parts, _joined)
                ),
                "the odd one comes to the front of the next level: it stays at the end": (
                    _by_levels(parts, lambda row: [*_odd(row), *_neighbours(row)])
                ),
                "the odd one is taken at the front: pairs begin with the first, and what is left over is at the end": (
                    _by_levels(parts, lambda row: [*row[: len(row) % 2], *_neighbours(row[len(row) % 2 :])])
                ),
                "that halves the list from above: with numbers that are no power of two it is another tree; begin at "
                "the leaves": _halved(parts, lambda n: n // 2),
                "that halves the list from above, the larger half first: with numbers that are no power of two it is "
                "another tree; begin at the leaves": _halved(parts, lambda n: n - n // 2),
                "that adds in more digits, so that no order matters: stay in float32, as the workers do": (
                    np.sum(parts, axis=0, dtype=np.float64)
                ),
            },
        )


def _cancelling(count: int) -> list[Any]:
    """Small whole numbers; in each column, one is a large number and another is that with a minus.

    What is added to the large one before it is gone is rounded, so each order of the sum has another result.
    """
    rng = np.random.default_rng(count)
    columns = 400
    parts = rng.integers(1, 16, (count, columns)).astype(np.float32)
    if count > 1:
        for column in range(columns):
            first, second = rng.permutation(count)[:2]
            parts[first, column], parts[second, column] = 2.0**26, -(2.0**26)
    return list(parts)


def _odd(row: Parts) -> Parts:
    """What the last pair leaves over: one or none."""
    return row[len(row) - len(row) % 2 :]


def _neighbours(row: Parts) -> list[Any]:
    """The sums of the first and the second, the third and the fourth, ...; an odd one at the end is left out."""
    return [a + b for a, b in zip(row[0::2], row[1::2], strict=False)]


def _far(row: Parts) -> list[Any]:
    half = len(row) // 2
    return [*(a + b for a, b in zip(row[:half], row[half : 2 * half], strict=True)), *_odd(row)]


def _outer(row: Parts) -> list[Any]:
    half = len(row) // 2
    return [*(row[i] + row[-1 - i] for i in range(half)), *row[half : len(row) - half]]


def _joined(row: Parts) -> list[Any]:
    added = _neighbours(row)
    return [*added[:-1], functools.reduce(np.add, _odd(row), added[-1])]


def _by_levels(parts: Parts, level: Callable[[Parts], Parts]) -> Any:
    """The sum by a tree, each level of which is made of the one below by `level`."""
    while len(parts) > 1:
        parts = level(parts)
    return parts[0]


def _tree(parts: Parts) -> Any:
    return _by_levels(parts, lambda row: [*_neighbours(row), *_odd(row)])


def _halved(parts: Parts, first: Callable[[int], int]) -> Any:
    """The sum of the sums of two halves, the first of `first(n)` parts."""
    if len(parts) == 1:
        return parts[0]
    middle = first(len(parts))
    return _halved(parts[:middle], first) + _halved(parts[middle:], first)


@exercise
def clipped_mean(answer: Callable[[Any, float], Any]) -> None:
    """(gradients [V, P], one for each shard, max_norm) -> the batch's gradient [P], scaled down to max_norm."""
    rng = np.random.default_rng(2)
    count, length = 4, 6
    apart = rng.standard_normal((count, length))
    apart -= apart.mean(0)
    direction = rng.standard_normal(length)
    direction /= np.linalg.norm(direction)
    max_norm = 1.5
    # First a mean so short that even the sum is not clipped, of gradients that are long; then a mean that is long.
    for size in (0.2 * max_norm, 4.0 * max_norm):
        gradients = size * direction + 2.0 * max_norm * apart
        mean, total = gradients.mean(0), gradients.sum(0)
        each = np.array([_clipped(gradient, max_norm) for gradient in gradients])
        norms = np.linalg.norm(gradients, axis=1)
        compare(
            answer(gradients.copy(), max_norm),
            _clipped(mean, max_norm),
            {
                "each shard is clipped before the mean, as Keras' optimizers do on each worker: take the mean first": (
                    each.mean(0)
                ),
                "each shard is clipped, then they are added: take the mean first, then clip": each.sum(0),
                "that is the sum of the shards: the loss of a batch is a mean, and so is its gradient": total,
                "the sum is clipped, and then divided: take the mean first": _clipped(total, max_norm) / count,
                "the mean is divided by the number of shards once more": _clipped(mean / count, max_norm),
                "that is the gradient of the first shard: as if nothing had been sent, and each worker trained alone": (
                    _clipped(gradients[0], max_norm)
                ),
                "a gradient that is shorter than max_norm stays as it is: scale by min(1, max_norm / norm)": (
                    max_norm * mean / np.linalg.norm(mean)
                ),
                "the mean is not scaled down: it is longer than max_norm": mean,
                "each number is clipped, which turns the gradient: scale all by one factor": (
                    np.clip(mean, -max_norm, max_norm)
                ),
                "the norm is that of the mean, and not the mean of the shards' norms: these are longer": (
                    mean * min(1.0, max_norm / norms.mean())
                ),
                "the norm is that of the mean, and not that of the longest shard": (
                    mean * min(1.0, max_norm / norms.max())
                ),
                "the norm is that of the mean, and not that of all shards together": (
                    mean * min(1.0, max_norm / np.linalg.norm(gradients))
                ),
                "the norm is the root of the sum of the squares: the root is missing": (
                    mean * min(1.0, max_norm / np.sum(mean**2))
                ),
                "the norm is the root of the sum of the squares, and not of their mean": (
                    mean * min(1.0, max_norm / np.sqrt(np.mean(mean**2)))
                ),
            },
        )


def _clipped(gradient: Any, max_norm: float) -> Any:
    return gradient * min(1.0, max_norm / float(np.linalg.norm(gradient)))
