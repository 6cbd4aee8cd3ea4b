"""Answers to the exercises of notebook 13, many workers."""

from functools import reduce

import numpy as np

from ddpm_course.exercises import workers


def own_shards(batch, shards, rank, count):
    """The share, then the shards of it."""
    share = len(batch) // count
    return np.split(batch[rank * share : (rank + 1) * share], shards // count)


def by_slices(batch, shards, rank, count):
    """All shards, then its own of them."""
    size, own = len(batch) // shards, shards // count
    return [batch[i * size : (i + 1) * size] for i in range(rank * own, (rank + 1) * own)]


def tree(parts):
    """Level by level."""
    parts = list(parts)
    while len(parts) > 1:
        parts = [sum(parts[i + 1 : i + 2], parts[i]) for i in range(0, len(parts), 2)]
    return parts[0]


def with_zeros(parts):
    """Filled up to a power of two, and halved."""
    size = 1 << (len(parts) - 1).bit_length()
    rows = np.stack([*parts, *[np.zeros_like(parts[0])] * (size - len(parts))])
    while len(rows) > 1:
        rows = rows[0::2] + rows[1::2]
    return rows[0]


def by_recursion(parts):
    """From above, cut at the largest power of two below n."""
    if len(parts) == 1:
        return parts[0]
    middle = 1 << ((len(parts) - 1).bit_length() - 1)
    return by_recursion(parts[:middle]) + by_recursion(parts[middle:])


def levels(level):
    """A tree whose next level is `level(pairs' sums, what is left over, the level)`."""

    def answer(parts):
        parts = list(parts)
        while len(parts) > 1:
            even = len(parts) - len(parts) % 2
            parts = level([parts[i] + parts[i + 1] for i in range(0, even, 2)], parts[even:], parts)
        return parts[0]

    return answer


def far_apart(sums, left, parts):
    half = len(parts) // 2
    return [parts[i] + parts[i + half] for i in range(half)] + left


def outer(sums, left, parts):
    half = len(parts) // 2
    return [parts[i] + parts[len(parts) - 1 - i] for i in range(half)] + parts[half : half + len(left)]


def joined(sums, left, parts):
    return [*sums[:-1], sums[-1] + left[0]] if left else sums


def from_the_back(sums, left, parts):
    begin = len(left)
    return parts[:begin] + [parts[i] + parts[i + 1] for i in range(begin, len(parts), 2)]


def halves(larger_first):
    def answer(parts):
        if len(parts) == 1:
            return parts[0]
        middle = (len(parts) + larger_first) // 2
        return answer(parts[:middle]) + answer(parts[middle:])

    return answer


def clip(g, most):
    return g * min(1, most / np.sqrt(np.sum(g**2)))


def with_epsilon(gradients, max_norm):
    """As in the package."""
    g = np.add.reduce(gradients) / len(gradients)
    return g * np.minimum(max_norm / (np.linalg.norm(g) + 1e-6), 1.0)


def clip_each(gradients, most):
    return np.array([clip(g, most) for g in gradients])


def scaled(norm):
    """The mean, scaled by a norm of something else."""
    return lambda g, most: g.mean(0) * min(1, most / norm(g))


ANSWERS = {
    workers.own_shards: [
        (own_shards, None),
        (by_slices, None),
        (lambda *given: None, "nothing yet"),
        (lambda *given: ..., "nothing yet"),
        (lambda *given: 3.0, "return a list of arrays"),
        (lambda batch, v, r, n: [batch[:5], batch[5:]], "each with as many rows"),
        (lambda batch, v, r, n: np.split(batch, v), "the shards of all workers"),
        (lambda batch, v, r, n: np.split(own_shards(batch, n, r, n)[0], v), "too many shards"),
        (lambda batch, v, r, n: own_shards(batch, n, r, n), "in one piece"),
        (lambda batch, v, r, n: own_shards(batch, v, 0, n), "every worker has the first shards"),
        (lambda batch, v, r, n: np.split(batch, v)[r::n], "the shards go round like cards"),
        (lambda batch, v, r, n: np.split(batch[r::n], v // n), "the rows go round the workers"),
        (
            lambda batch, v, r, n: [batch[i::v] for i in range(r * v // n, (r + 1) * v // n)],
            "the rows go round the shards",
        ),
        (lambda *given: own_shards(*given)[::-1], "in the wrong order"),
        (lambda batch, v, r, n: own_shards(batch, v, (r - 1) % n, n), "numbered from 0"),
        (lambda batch, v, r, n: own_shards(batch, v, r, n)[:1], "the shape is [1, 6, 2], expected [2, 6, 2]"),
        (lambda batch, v, r, n: [-part for part in own_shards(batch, v, r, n)], "not yet: "),
    ],
    workers.tree_sum: [
        (tree, None),
        (with_zeros, None),
        (by_recursion, None),
        (lambda parts: None, "nothing yet"),
        (lambda parts: tree(parts) / np.float32(len(parts)), "that is the mean"),
        (sum, "from the first on"),
        (lambda parts: np.sum(parts, axis=0), "from the first on"),
        (lambda parts: reduce(np.add, parts[::-1]), "from the last on"),
        (levels(far_apart), "half the list apart"),
        (levels(outer), "the first and the last"),
        (levels(lambda sums, left, parts: sums), "is forgotten"),
        (levels(joined), "to the pair before it at once"),
        (levels(lambda sums, left, parts: left + sums), "comes to the front"),
        (levels(from_the_back), "is taken at the front"),
        (halves(0), "halves the list from above: "),
        (halves(1), "the larger half first"),
        (lambda parts: tree([part.astype(np.float64) for part in parts]), "in more digits"),
        (lambda parts: [tree(parts)], "the shape is [1, 400], expected [400]"),
        (lambda parts: parts[0] + parts[1], "not yet: "),
        (lambda parts: tree(parts) if len(parts) > 1 else parts[1], "your code stops with IndexError"),
    ],
    workers.clipped_mean: [
        (lambda g, most: clip(g.mean(0), most), None),
        (with_epsilon, None),
        (lambda g, most: None, "nothing yet"),
        (lambda g, most: clip_each(g, most).mean(0), "each shard is clipped before the mean, as Keras'"),
        (lambda g, most: clip_each(g, most).sum(0), "each shard is clipped, then they are added"),
        (lambda g, most: clip(clip_each(g, most).sum(0), most), "each shard is clipped, then they are added"),
        (lambda g, most: clip(g.sum(0), most), "that is the sum of the shards: "),
        (lambda g, most: g.sum(0), "that is the sum of the shards: "),
        (lambda g, most: clip(g.sum(0), most) / len(g), "the sum is clipped, and then divided"),
        (lambda g, most: clip(g.mean(0) / len(g), most), "once more"),
        (lambda g, most: clip(g[0], most), "the gradient of the first shard"),
        (lambda g, most: most * g.mean(0) / np.linalg.norm(g.mean(0)), "stays as it is"),
        (lambda g, most: g.mean(0), "the mean is not scaled down"),
        (lambda g, most: np.clip(g.mean(0), -most, most), "each number is clipped"),
        (scaled(lambda g: np.linalg.norm(g, axis=1).mean()), "the mean of the shards' norms"),
        (scaled(lambda g: np.linalg.norm(g, axis=1).max()), "the longest shard"),
        (scaled(np.linalg.norm), "all shards together"),
        (scaled(lambda g: np.sum(g.mean(0) ** 2)), "the root is missing"),
        (scaled(lambda g: np.sqrt(np.mean(g.mean(0) ** 2))), "and not of their mean"),
        (lambda g, most: clip(g.mean(1), most), "the shape is [4], expected [6]"),
        (lambda g, most: -clip(g.mean(0), most), "not yet: "),
    ],
}
