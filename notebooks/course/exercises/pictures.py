"""The exercises of 12: your own pictures."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddpm_course.exercises.checking import Off, compare, exercise, require_written

Bools = NDArray[np.bool_]
PATHS = [f"{kind}/{i:03d}.png" for i in range(60) for kind in ("cats", "dogs", "owls")]


def _fraction(text: str, order: Any = "big") -> float:
    """The first 8 bytes of the SHA-256 of a text, as a number in 0 .. 1."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], order) / 2**64


@exercise
def split(answer: Callable[[Sequence[str], float], Any]) -> None:
    """(paths [N], share) -> [N] bool, which are in the test split: those whose hash, as a number, is below `share`."""
    for share in (0.1, 0.4):
        found = answer(list(PATHS), share)
        require_written(found)
        hashed = np.array([_fraction(path) for path in PATHS])
        right = hashed < share
        compare(
            found,
            right,
            {
                "the others are the test split: a picture is in it where its number is below `share`": ~right,
                "that is by rank, and a rank changes when a picture is added: compare each number with `share`": (
                    hashed.argsort(kind="stable").argsort(kind="stable") < round(share * len(PATHS))
                ),
                "the bytes are read from the wrong end: the first is the largest, byteorder 'big'": np.array(
                    [_fraction(path, "little") < share for path in PATHS]
                ),
                "hash the whole path: dogs/007.png and owls/007.png are two pictures": np.array(
                    [_fraction(path.split("/")[1]) < share for path in PATHS]
                ),
                "hash() of a text differs from one Python to the next, so the split would, too: take SHA-256": np.array(
                    [hash(path) % 2**64 / 2**64 < share for path in PATHS]
                ),
                "that is by place, and the places change when a picture is added: hash the path": (
                    np.arange(len(PATHS)) % round(1 / share) == 0
                ),
                "the first of the list are no sample: they may be one class, and they change with each new file": (
                    np.arange(len(PATHS)) < round(share * len(PATHS))
                ),
                "no picture is in the test split: is the number in 0 .. 1?": np.zeros(len(PATHS)),
                "all pictures are in the test split: is the number in 0 .. 1?": np.ones(len(PATHS)),
            },
        )
        with_others = np.asarray(answer([*PATHS[::-1], "owls/new.png"], share))[:-1][::-1]
        if not np.array_equal(with_others, right):
            raise Off("right for these, but with another file in the list a picture changes its split")


def _pictures() -> tuple[Any, Any]:
    """Training images [12, 6, 5, 3] and test images [10, 6, 5, 3] uint8, some of which are training images, nearly."""
    rng = np.random.default_rng(0)
    train, test = (rng.integers(40, 216, (count, 6, 5, 3)) for count in (12, 10))

    def either(size: int) -> Any:
        return rng.choice([-size, size], train.shape[1:])

    test[1] = train[1]  # at the same place
    test[2] = train[7]
    for index, source, spot in ((3, 6, 2), (4, 2, 12), (5, 5, 20)):  # one value is another
        test[index] = train[source]
        test[index, 0, 0, 0] += spot
    test[6] = train[3] + either(2)  # as when it is saved again
    test[7] = train[0] + either(4)  # a like picture, and no copy
    test[8] = train[8] + 8 * (rng.random(train.shape[1:]) < 0.3)
    test[9] = train[4] + either(16)
    return train.astype(np.uint8), test.astype(np.uint8)


@exercise
def leaks(answer: Callable[..., Any]) -> None:
    """(train [N, H, W, C] uint8, test [M, H, W, C] uint8, limit) -> [M] bool: a training image is within `limit`.

    By the root-mean-square difference.
    """
    train, test = _pictures()
    apart = test[:, None].astype(np.float64) - train
    wrapped = test[:, None] - train  # uint8
    axes = (2, 3, 4)
    distance = np.sqrt((apart**2).mean(axes))
    for limit in (3.0, 0.0):
        right = distance.min(1) <= limit
        found = answer(train.copy(), test.copy(), limit)
        compare(
            found,
            right,
            {
                "uint8 wraps around: 3 - 5 is 254 there; turn the images into floats before you subtract": (
                    np.sqrt((wrapped.astype(np.float64) ** 2).mean(axes)).min(1) <= limit
                ),
                "uint8 wraps around, and 20 * 20 is 144 there; turn the images into floats before you subtract": (
                    np.sqrt((wrapped**2).mean(axes)).min(1) <= limit
                ),
                "each test image is compared with one training image only, that of its own number: compare with all": (
                    distance[np.arange(len(test)), np.arange(len(test))] <= limit
                ),
                "these are exact copies only: a picture that was saved again has other pixels, within `limit`": (
                    distance.min(1) == 0
                ),
                "that is the largest difference of a pixel: take the root of the mean square": (
                    np.abs(apart).max(axes).min(1) <= limit
                ),
                "that is the mean square: its root is in grey levels": (apart**2).mean(axes).min(1) <= limit,
                "that is the length of the whole difference: take the mean of the squares, not their sum": (
                    np.sqrt((apart**2).sum(axes)).min(1) <= limit
                ),
                "that is the mean of the absolute differences: take the root of the mean square": (
                    np.abs(apart).mean(axes).min(1) <= limit
                ),
                "differences of both signs cancel in a mean: square them": np.abs(apart.mean(axes)).min(1) <= limit,
                "within `limit` includes it: a distance of 0 is within 0": distance.min(1) < limit,
                "the others are the leaks": ~right,
                "no leak is found, not even exact copies: take each test image's nearest training image": (
                    distance.max(1) <= limit
                ),
            },
        )


SIZE = 3


def _cutout() -> Any:
    """A picture of 6 x 9 pixels that is partly transparent, [H, W, 4] uint8; what is hidden is not white."""
    rng = np.random.default_rng(1)
    picture = rng.integers(0, 256, (6, 9, 4))
    picture[..., 3] = rng.choice([0, 0, 90, 255], picture.shape[:2])
    return picture.astype(np.uint8)


@exercise
def shrink(answer: Callable[..., Any]) -> None:
    """(picture [H, W, 4] uint8, size) -> [size, size, 3]: the middle square, on white, area-averaged, not rounded."""
    picture = _cutout()
    right = _means(_on(255, _middle(picture)))
    square = _means(_middle(picture))
    mistakes = {
        "the alpha is ignored: what is hidden shows": square[..., :3],
        "it is laid on black: what is transparent is to be white": _means(_on(0, _middle(picture))),
        "lay it on white first, then average: averaged before, hidden colours bleed into what is seen": _on(
            255, square
        ),
        "the whole picture is squeezed into a square: cut the middle out first": _means(_on(255, picture)),
        "that is the left of the picture: cut out its middle": _means(_on(255, picture[:, :6])),
        "that is the right of the picture: cut out its middle": _means(_on(255, picture[:, 3:])),
        "that is one pixel of each block: take the mean of all": _on(255, _middle(picture))[::2, ::2],
        "that is one pixel of each block: take the mean of its four": _on(255, _middle(picture))[1::2, 1::2],
        "alpha is 0 .. 255 in the file: divide it by 255": _means(_on(255, _middle(picture), 1.0)),
        "the alpha is turned around: 255 is opaque, 0 is transparent": _means(
            _on(255, _inverted(_middle(picture)), 255.0)
        ),
        "the white is missing: colour times alpha, plus 255 times what is left of it": _means(
            _on(1, _middle(picture), 255.0)
        ),
        "rows and columns have changed places": right.swapaxes(0, 1),
    }
    rounded = {"right, but rounded: leave it as it is": np.round(right), "right, but cut off": np.floor(right)}
    compare(answer(picture.copy(), SIZE), right, mistakes | rounded)


def _middle(picture: Any) -> Any:
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return picture[top : top + side, left : left + side]


def _on(ground: float, picture: Any, opaque: float = 255.0) -> Any:
    """A picture with alpha on a ground of that grey level."""
    alpha = picture[..., 3:] / opaque
    return picture[..., :3] * alpha + ground * (1 - alpha)


def _inverted(picture: Any) -> Any:
    return np.concatenate([picture[..., :3], 255 - picture[..., 3:]], axis=-1)


def _means(picture: Any) -> Any:
    """The means of SIZE x SIZE equal blocks."""
    height, width, channels = picture.shape
    return picture.reshape(SIZE, height // SIZE, SIZE, width // SIZE, channels).mean((1, 3), dtype=np.float64)
