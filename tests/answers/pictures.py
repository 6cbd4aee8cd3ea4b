"""Answers to the exercises of notebook 12, your own pictures."""

import hashlib

import numpy as np

from ddpm_course.exercises import pictures


def number(text, order="big"):
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], order) / 2**64


def split(paths, share, key=number):
    return [key(path) < share for path in paths]


def by_rank(paths, share):
    first = sorted(paths, key=number)[: round(share * len(paths))]
    return [path in first for path in paths]


def by_hex(paths, share):
    return np.array([int(hashlib.sha256(path.encode()).hexdigest()[:16], 16) < share * 2**64 for path in paths])


def with_their_number(paths, share):
    """Right until a file is added."""
    return split(paths, share if len(paths) == 180 else share / 2)


def leaks(train, test, limit, kind=np.float64, distance=lambda d: np.sqrt((d.astype(np.float64) ** 2).mean((1, 2, 3)))):
    return np.array([distance(image.astype(kind) - train).min() <= limit for image in test])


def shrink(picture, size, ground=255, left=None, composite_first=True, divisor=255):
    height, width, _ = picture.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2 if left is None else left
    square = picture[top : top + side, left : left + side].astype(np.float64)
    step = side // size

    def on_ground(x):
        alpha = x[..., 3:] / divisor
        return alpha * x[..., :3] + (1 - alpha) * ground

    def means(x):
        return x.reshape(size, step, size, step, -1).mean(axis=(1, 3))

    return means(on_ground(square)) if composite_first else on_ground(means(square))


def premultiplied(picture, size):
    """The other right order: colours times alpha and alpha are averaged, then laid on white."""
    square = picture[:, 1:7].astype(np.float64)
    alpha = square[..., 3:] / 255
    both = np.concatenate([square[..., :3] * alpha, alpha], axis=-1).reshape(size, 2, size, 2, 4).mean(axis=(1, 3))
    return both[..., :3] + 255 * (1 - both[..., 3:])


def squeezed(picture, size):
    alpha = picture[..., 3:] / 255
    flat = picture[..., :3] * alpha + 255 * (1 - alpha)
    return flat.reshape(size, 2, size, 3, 3).mean(axis=(1, 3))


ANSWERS = {
    pictures.split: [
        (split, None),
        (by_hex, None),
        (lambda paths, share: ..., "nothing yet"),
        (lambda paths, share: ~by_hex(paths, share), "the others are the test split"),
        (by_rank, "by rank"),
        (lambda paths, share: split(paths, share, lambda path: number(path, "little")), "from the wrong end"),
        (lambda paths, share: split(paths, share, lambda path: number(path[5:])), "hash the whole path"),
        (lambda paths, share: [hash(path) % 2**64 < share * 2**64 for path in paths], "from one Python to the next"),
        (lambda paths, share: [i % round(1 / share) == 0 for i in range(len(paths))], "by place"),
        (lambda paths, share: np.arange(len(paths)) < share * len(paths), "the first of the list"),
        (lambda paths, share: split(paths, share, lambda path: number(path) * 2**64), "no picture is in"),
        (lambda paths, share: split(paths, share, lambda path: number(path) / 2**64), "all pictures are in"),
        (with_their_number, "changes its split"),
        (lambda paths, share: by_hex(paths, share).nonzero()[0], "the shape is"),
    ],
    pictures.leaks: [
        (leaks, None),
        (lambda train, test, limit: leaks(train, test, limit, np.int64), None),
        (
            lambda train, test, limit: [
                any(np.mean((x.astype(float) - y) ** 2) <= limit**2 for y in train.astype(float)) for x in test
            ],
            None,
        ),
        (lambda train, test, limit: leaks(train, test, limit, np.uint8), "3 - 5 is 254"),
        (
            lambda train, test, limit: leaks(train, test, limit, np.uint8, lambda d: np.sqrt((d**2).mean((1, 2, 3)))),
            "20 * 20 is 144",
        ),
        (
            lambda train, test, limit: (
                np.sqrt(((test.astype(float) - train[: len(test)]) ** 2).mean((1, 2, 3))) <= limit
            ),
            "of its own number",
        ),
        (lambda train, test, limit: [any(np.array_equal(x, y) for y in train) for x in test], "exact copies only"),
        (
            lambda train, test, limit: leaks(train, test, limit, distance=lambda d: np.abs(d).max((1, 2, 3))),
            "the largest difference",
        ),
        (
            lambda train, test, limit: leaks(train, test, limit, distance=lambda d: (d**2).mean((1, 2, 3))),
            "its root is in grey levels",
        ),
        (
            lambda train, test, limit: leaks(
                train, test, limit, distance=lambda d: np.linalg.norm(d.reshape(len(d), -1), axis=1)
            ),
            "not their sum",
        ),
        (
            lambda train, test, limit: leaks(train, test, limit, distance=lambda d: np.abs(d).mean((1, 2, 3))),
            "the mean of the absolute differences",
        ),
        (
            lambda train, test, limit: leaks(train, test, limit, distance=lambda d: np.abs(d.mean((1, 2, 3)))),
            "of both signs cancel",
        ),
        (lambda train, test, limit: leaks(train, test, np.nextafter(limit, -1)), "within 0"),
        (lambda train, test, limit: ~leaks(train, test, limit), "the others"),
        (lambda train, test, limit: np.zeros(len(test)), "no leak is found"),
        (lambda train, test, limit: leaks(test, train, limit), "the shape is [12], expected [10]"),
    ],
    pictures.shrink: [
        (shrink, None),
        (premultiplied, None),
        (lambda picture, size: shrink(np.dstack([picture[..., :3], np.full((6, 9), 255)]), size), "alpha is ignored"),
        (lambda picture, size: shrink(picture, size, ground=0), "on black"),
        (lambda picture, size: shrink(picture, size, composite_first=False), "hidden colours bleed"),
        (squeezed, "squeezed into a square"),
        (lambda picture, size: shrink(picture, size, left=0), "the left of the picture"),
        (lambda picture, size: shrink(picture, size, left=3), "the right of the picture"),
        (lambda picture, size: shrink(picture, 6)[::2, ::2], "one pixel of each block"),
        (lambda picture, size: shrink(picture, 6)[1::2, 1::2], "one pixel of each block"),
        (lambda picture, size: shrink(picture, size, divisor=1), "divide it by 255"),
        (lambda picture, size: shrink(np.dstack([picture[..., :3], 255 - picture[..., 3]]), size), "turned around"),
        (lambda picture, size: shrink(picture, size, ground=1), "the white is missing"),
        (lambda picture, size: shrink(picture, size).swapaxes(0, 1), "rows and columns"),
        (lambda picture, size: np.round(shrink(picture, size)), "but rounded"),
        (lambda picture, size: shrink(picture, size).astype(np.uint8), "but cut off"),
        (lambda picture, size: shrink(picture, size)[..., 0], "the shape is [3, 3], expected [3, 3, 3]"),
    ],
}
