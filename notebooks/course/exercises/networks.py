"""The exercises of 11: a zoo of networks."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ddpm_course.exercises.checking import Off, compare, exercise, require_written


@exercise
def running_moments(answer: Callable[..., Any]) -> None:
    """(x [B, H, W, C], mean [C], variance [C], momentum) -> the running mean and variance after this batch."""
    rng = np.random.default_rng(0)
    x = 2.0 * rng.standard_normal((4, 3, 2, 5)) + rng.standard_normal((4, 1, 1, 5)) + np.arange(5.0)
    old_mean, old_variance, momentum = rng.standard_normal(5), rng.uniform(0.5, 2.0, 5), 0.1
    found = answer(x.copy(), old_mean.copy(), old_variance.copy(), momentum)
    require_written(found)
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise Off("return 2 things: mean, variance")
    require_written(*found)
    mean, variance = found

    def moved(old: Any, new: Any, weight: float = momentum) -> Any:
        return (1.0 - weight) * old + weight * new

    batch, n = x.mean((0, 1, 2)), x[..., 0].size
    weights = "the momentum is the other way round: that is Keras' habit; here it is the weight of the new moments"
    compare(
        mean,
        moved(old_mean, batch),
        {
            f"mean: {weights}": moved(old_mean, batch, 1.0 - momentum),
            "mean: that is the batch's alone: the old one is forgotten": batch,
            "mean: the old one is not made smaller: its weight is 1 - momentum": old_mean + momentum * batch,
            "mean: nothing has changed": old_mean,
            "mean: a sum, and not a mean": moved(old_mean, n * batch),
            "mean: one number for all channels: each channel has its own": np.broadcast_to(
                moved(old_mean, x.mean()), 5
            ),
        },
    )
    biased, images = x.var((0, 1, 2)), len(x)
    unbiased = biased * n / (n - 1)
    compare(
        variance,
        moved(old_variance, unbiased),
        {
            f"variance: {weights}": moved(old_variance, unbiased, 1.0 - momentum),
            f"variance: {weights}, and it is to be the unbiased one, n / (n - 1) times": moved(
                old_variance, biased, 1.0 - momentum
            ),
            "variance: that is the biased one, as in Keras: multiply by n / (n - 1)": moved(old_variance, biased),
            "variance: (n - 1) / n is the other way round: the unbiased one is larger": moved(
                old_variance, biased * (n - 1) / n
            ),
            "variance: n is not the number of images, but of all numbers of a channel: B H W": moved(
                old_variance, biased * images / (images - 1)
            ),
            "variance: that is the mean of each image's own; take it over all images at once": moved(
                old_variance, x.var((1, 2)).mean(0)
            ),
            "variance: the differences are to be taken from this batch's mean, not from the running one": moved(
                old_variance, ((x - old_mean) ** 2).mean((0, 1, 2)) * n / (n - 1)
            ),
            "variance: that is from the running mean, and biased": moved(
                old_variance, ((x - old_mean) ** 2).mean((0, 1, 2))
            ),
            "variance: that is a standard deviation": moved(old_variance, np.sqrt(unbiased)),
            "variance: that is the root of the biased variance": moved(old_variance, np.sqrt(biased)),
            "variance: that is a mean of squares: subtract the mean first": moved(old_variance, (x**2).mean((0, 1, 2))),
            "variance: that is the batch's alone: the old one is forgotten": unbiased,
            "variance: nothing has changed": old_variance,
        },
    )


@exercise
def patches(answers: tuple[Callable[..., Any], Callable[..., Any]]) -> None:
    """(x [B, H, W, C], side) -> tokens [B, N, P*P*C], and (tokens, side, rows) -> x."""
    batch, rows, columns, channels = 2, 2, 3, 2
    to_tokens, to_images = answers
    for side in (2, 3):
        size = side * side * channels
        x = np.arange(1.0, batch * rows * columns * size + 1).reshape(batch, rows * side, columns * side, channels)
        cut = x.reshape(batch, rows, side, columns, side, channels)

        def tokens(
            *axes: int, cut: Any = cut, shape: tuple[int, int, int] = (batch, rows * columns, side * side * channels)
        ) -> Any:
            return cut.transpose(0, *axes).reshape(shape)

        right = tokens(1, 3, 2, 4, 5)
        compare(
            to_tokens(x.copy(), side),
            right,
            {
                "tokens: within a patch the channel comes first, as in PyTorch's convolutions: here it is the last": (
                    tokens(1, 3, 5, 2, 4)
                ),
                "tokens: within a patch, columns come before rows: it lies on its side": tokens(1, 3, 4, 2, 5),
                "tokens: the patches go down the columns first: here they go along the rows, as one reads": (
                    tokens(3, 1, 2, 4, 5)
                ),
                "tokens: patches and their pixels are both read by columns: rows come first, twice": (
                    tokens(3, 1, 4, 2, 5)
                ),
                "tokens: a reshape alone cuts the image into stripes: the axes of a patch must come together first": (
                    x.reshape(right.shape)
                ),
                "tokens: the place within the patch and the patch's own have changed roles: each token takes a pixel "
                "of every patch": cut.transpose(0, 2, 4, 1, 3, 5).reshape(right.shape),
            },
        )
        compare(
            to_images(right.copy(), side, rows),
            x,
            {
                "images: a reshape alone lays the patches in stripes: move the axes back first": (
                    right.reshape(x.shape)
                ),
                "images: within a patch, rows and columns have changed places": (
                    right.reshape(batch, rows, columns, side, side, channels)
                    .transpose(0, 1, 4, 2, 3, 5)
                    .reshape(x.shape)
                ),
                "images: the channel is read as the first of a patch: in these tokens it is the last": (
                    right.reshape(batch, rows, columns, channels, side, side)
                    .transpose(0, 1, 4, 2, 5, 3)
                    .reshape(x.shape)
                ),
                "images: the patches are laid down the columns first: they go along the rows": (
                    right.reshape(batch, columns, rows, side, side, channels)
                    .transpose(0, 2, 3, 1, 4, 5)
                    .reshape(x.shape)
                ),
            },
        )


@exercise
def adaptive_block(answer: Callable[..., Any]) -> None:
    """(tokens [B, N, D], shift, scale, gate [B, D], layer) -> tokens [B, N, D]: one half of an adaLN-zero block."""
    rng = np.random.default_rng(1)
    dim, epsilon = 4, 1e-6
    u = rng.standard_normal((2, 3, dim)) + 1.0
    u[0, 0] *= 1e-3  # so small that epsilon counts
    shift, scale, gate = rng.standard_normal((3, 2, dim))
    weights = rng.standard_normal((dim, dim))

    def layer(tokens: Any) -> Any:
        return np.tanh(np.asarray(tokens, np.float64) @ weights)

    def normal(axis: Any = 2, plus: float = epsilon, ddof: int = 0) -> Any:
        return (u - u.mean(axis, keepdims=True)) / np.sqrt(u.var(axis, keepdims=True, ddof=ddof) + plus)

    def modulated(n: Any) -> Any:
        return n * (1.0 + scale[:, None]) + shift[:, None]

    h = layer(modulated(normal()))
    mistakes = {
        "the gate is missing": u + h,
        "the gate is 1 + gate here: it has to begin at 0, so that the block begins as the identity": (
            u + (1.0 + gate[:, None]) * h
        ),
        "the gate closes the way past the layer too: it is for what the layer adds": gate[:, None] * (u + h),
        "the tokens themselves are missing: the block adds to them": gate[:, None] * h,
        "the normalised tokens go past the layer: it is the tokens as they came that are added to": (
            normal() + gate[:, None] * h
        ),
        "the scaled and shifted tokens go past the layer: it is the tokens as they came that are added to": (
            modulated(normal()) + gate[:, None] * h
        ),
        "the scale is to be 1 + scale: at 0 nothing is scaled": (
            u + gate[:, None] * layer(normal() * scale[:, None] + shift[:, None])
        ),
        "the shift is scaled too: scale first, then shift": (
            u + gate[:, None] * layer((normal() + shift[:, None]) * (1.0 + scale[:, None]))
        ),
        "shift and scale have changed places": (
            u + gate[:, None] * layer(normal() * (1.0 + shift[:, None]) + scale[:, None])
        ),
        "the normalisation is missing": u + gate[:, None] * layer(modulated(u)),
        "the normalisation is over the tokens of an image: each token has its own, over its D numbers": (
            u + gate[:, None] * layer(modulated(normal(axis=1)))
        ),
        "the normalisation is over a whole image: each token has its own, over its D numbers": (
            u + gate[:, None] * layer(modulated(normal(axis=(1, 2))))
        ),
        "the normalisation is over the batch: each token has its own, over its D numbers": (
            u + gate[:, None] * layer(modulated(normal(axis=0)))
        ),
        "the epsilon is 1e-6, and yours is PyTorch's, 1e-5": u + gate[:, None] * layer(modulated(normal(plus=1e-5))),
        "the epsilon is 1e-6, and yours is Keras', 1e-3": u + gate[:, None] * layer(modulated(normal(plus=1e-3))),
        "the epsilon is missing": u + gate[:, None] * layer(modulated(normal(plus=0.0))),
        "the epsilon is under the root, added to the variance": (
            u + gate[:, None] * layer(modulated((u - u.mean(2, keepdims=True)) / (u.std(2, keepdims=True) + epsilon)))
        ),
        "the variance of a normalisation is the biased one, divided by D": (
            u + gate[:, None] * layer(modulated(normal(ddof=1)))
        ),
        "nothing is added to the tokens": u,
    }
    compare(answer(u.copy(), shift.copy(), scale.copy(), gate.copy(), layer), u + gate[:, None] * h, mistakes)
