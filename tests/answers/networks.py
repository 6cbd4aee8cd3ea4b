"""Answers to the exercises of notebook 11, a zoo of networks."""

import numpy as np

from ddpm_course.exercises import networks


def running(x, mean, variance, momentum):
    """The update, as written in the docstring of BatchNorm."""
    axes = (0, 1, 2)
    return (
        (1 - momentum) * mean + momentum * x.mean(axes),
        (1 - momentum) * variance + momentum * x.var(axes, ddof=1),
    )


def in_steps(x, mean, variance, momentum):
    """The same by moving a part of the way."""
    flat = x.reshape(-1, x.shape[-1])
    centred = flat - flat.mean(0)
    mean += momentum * (flat.mean(0) - mean)
    variance += momentum * ((centred**2).sum(0) / (len(flat) - 1) - variance)
    return [mean, variance]


def variance_by(new, weight=0.1):
    """The right mean, and a variance whose new part is another."""
    return lambda x, mean, variance, momentum: (
        running(x, mean, variance, momentum)[0],
        (1 - weight) * variance + weight * new(x, mean),
    )


def mean_by(new):
    """The right variance beside another mean."""
    return lambda x, mean, variance, momentum: (new(x, mean), running(x, mean, variance, momentum)[1])


AXES = (0, 1, 2)


def to_tokens(x, side, axes=(0, 1, 3, 2, 4, 5)):
    """Cut, move, join."""
    batch, height, width, channels = x.shape
    cut = x.reshape(batch, height // side, side, width // side, side, channels)
    return cut.transpose(axes).reshape(batch, -1, side * side * channels)


def by_loops(x, side):
    """One patch after the other."""
    batch, height, width, _ = x.shape
    cut = [
        x[:, top : top + side, left : left + side].reshape(batch, -1)
        for top in range(0, height, side)
        for left in range(0, width, side)
    ]
    return np.stack(cut, axis=1)


def to_images(tokens, side, rows, axes=(0, 1, 3, 2, 4, 5)):
    """The inverse."""
    batch, count, size = tokens.shape
    columns = count // rows
    cut = tokens.reshape(batch, rows, columns, side, side, size // side**2)
    return cut.transpose(axes).reshape(batch, rows * side, columns * side, -1)


def channel_first(tokens, side, rows):
    """As if the tokens were (c, p, q)."""
    batch, count, size = tokens.shape
    cut = tokens.reshape(batch, rows, count // rows, size // side**2, side, side)
    return cut.transpose(0, 1, 4, 2, 5, 3).reshape(batch, rows * side, count // rows * side, -1)


def down_first(tokens, side, rows):
    """As if the patches went down the columns."""
    batch, count, size = tokens.shape
    cut = tokens.reshape(batch, count // rows, rows, side, side, size // side**2)
    return cut.transpose(0, 2, 3, 1, 4, 5).reshape(batch, rows * side, count // rows * side, -1)


def block(u, shift, scale, gate, layer, plus=1e-6, axis=2, ddof=0):
    """Add gate layer(norm(u) (1 + scale) + shift)."""
    normal = (u - u.mean(axis, keepdims=True)) / np.sqrt(u.var(axis, keepdims=True, ddof=ddof) + plus)
    return u + gate[:, None] * layer(normal * (1 + scale[:, None]) + shift[:, None])


def normal(u):
    return (u - u.mean(2, keepdims=True)) / np.sqrt(u.var(2, keepdims=True) + 1e-6)


def one_by_one(u, shift, scale, gate, layer):
    """Token by token."""
    result = np.empty_like(u)
    for b in range(len(u)):
        for n in range(u.shape[1]):
            centred = u[b, n] - u[b, n].mean()
            centred /= (np.mean(centred**2) + 1e-6) ** 0.5
            result[b, n] = u[b, n] + gate[b] * layer(centred * (1 + scale[b]) + shift[b])
    return result


def added(u, gate, h):
    return u + gate[:, None] * h


ANSWERS = {
    networks.running_moments: [
        (running, None),
        (in_steps, None),
        (lambda x, m, v, w: None, "nothing yet"),
        (lambda x, m, v, w: (running(x, m, v, w)[0], None), "nothing yet"),
        (lambda x, m, v, w: running(x, m, v, w)[0], "return 2 things: mean, variance"),
        (lambda x, m, v, w: running(x, m, v, 1 - w), "mean: the momentum is the other way round"),
        (lambda x, m, v, w: (x.mean(AXES), x.var(AXES, ddof=1)), "mean: that is the batch's alone"),
        (mean_by(lambda x, m: m + 0.1 * x.mean(AXES)), "mean: the old one is not made smaller"),
        (mean_by(lambda x, m: m), "mean: nothing has changed"),
        (mean_by(lambda x, m: 0.9 * m + 0.1 * x.sum(AXES)), "mean: a sum"),
        (mean_by(lambda x, m: 0.9 * m + 0.1 * x.mean()), "mean: one number for all channels"),
        (mean_by(lambda x, m: x.mean((1, 2, 3))), "the shape is [4]"),
        (variance_by(lambda x, m: x.var(AXES, ddof=1), 0.9), "variance: the momentum is the other way round"),
        (variance_by(lambda x, m: x.var(AXES), 0.9), "and it is to be the unbiased one"),
        (variance_by(lambda x, m: x.var(AXES)), "variance: that is the biased one"),
        (variance_by(lambda x, m: x.var(AXES) * 23 / 24), "(n - 1) / n is the other way round"),
        (variance_by(lambda x, m: x.var(AXES) * 4 / 3), "n is not the number of images"),
        (variance_by(lambda x, m: x.var((1, 2)).mean(0)), "the mean of each image's own"),
        (variance_by(lambda x, m: ((x - m) ** 2).sum(AXES) / 23), "not from the running one"),
        (variance_by(lambda x, m: ((x - m) ** 2).mean(AXES)), "from the running mean, and biased"),
        (variance_by(lambda x, m: x.std(AXES, ddof=1)), "that is a standard deviation"),
        (variance_by(lambda x, m: x.std(AXES)), "the root of the biased variance"),
        (variance_by(lambda x, m: (x**2).mean(AXES)), "a mean of squares"),
        (variance_by(lambda x, m: x.var(AXES, ddof=1), 1.0), "variance: that is the batch's alone"),
        (variance_by(lambda x, m: 0.0, 0.0), "variance: nothing has changed"),
    ],
    networks.patches: [
        ((to_tokens, to_images), None),
        ((by_loops, to_images), None),
        ((lambda x, side: None, to_images), "nothing yet"),
        ((to_tokens, lambda tokens, side, rows: ...), "nothing yet"),
        ((lambda x, side: to_tokens(x, side, (0, 1, 3, 5, 2, 4)), to_images), "tokens: within a patch the channel"),
        ((lambda x, side: to_tokens(x, side, (0, 1, 3, 4, 2, 5)), to_images), "tokens: within a patch, columns"),
        ((lambda x, side: to_tokens(x, side, (0, 3, 1, 2, 4, 5)), to_images), "tokens: the patches go down"),
        ((lambda x, side: to_tokens(x, side, (0, 3, 1, 4, 2, 5)), to_images), "rows come first, twice"),
        ((lambda x, side: x.reshape(len(x), -1, 2 * side * side), to_images), "tokens: a reshape alone"),
        (
            (lambda x, side: to_tokens(x, side, (0, 2, 4, 1, 3, 5)), to_images),
            "each token takes a pixel of every patch",
        ),
        ((to_tokens, lambda u, side, rows: u.reshape(2, rows * side, -1, 2)), "images: a reshape alone"),
        (
            (to_tokens, lambda u, side, rows: to_images(u, side, rows, (0, 1, 4, 2, 3, 5))),
            "images: within a patch, rows and columns",
        ),
        ((to_tokens, channel_first), "images: the channel is read as the first"),
        ((to_tokens, down_first), "images: the patches are laid down the columns"),
        ((to_tokens, lambda u, side, rows: u), "the shape is [2, 6, 8], expected [2, 4, 6, 2]"),
    ],
    networks.adaptive_block: [
        (block, None),
        (one_by_one, None),
        (lambda u, b, s, g, layer: None, "nothing yet"),
        (lambda u, b, s, g, layer: block(u, b, s, np.ones_like(g), layer), "the gate is missing"),
        (lambda u, b, s, g, layer: block(u, b, s, 1 + g, layer), "the gate is 1 + gate here"),
        (lambda u, b, s, g, layer: g[:, None] * block(u, b, s, np.ones_like(g), layer), "closes the way past"),
        (lambda u, b, s, g, layer: block(u, b, s, g, layer) - u, "the tokens themselves are missing"),
        (lambda u, b, s, g, layer: block(u, b, s, g, layer) - u + normal(u), "the normalised tokens go past"),
        (
            lambda u, b, s, g, layer: block(u, b, s, g, layer) - u + normal(u) * (1 + s[:, None]) + b[:, None],
            "the scaled and shifted tokens go past",
        ),
        (lambda u, b, s, g, layer: block(u, b, s - 1, g, layer), "1 + scale"),
        (lambda u, b, s, g, layer: block(u, b * (1 + s), s, g, layer), "the shift is scaled too"),
        (lambda u, b, s, g, layer: block(u, s, b, g, layer), "have changed places"),
        (
            lambda u, b, s, g, layer: added(u, g, layer(u * (1 + s[:, None]) + b[:, None])),
            "the normalisation is missing",
        ),
        (lambda *given: block(*given, axis=1), "over the tokens of an image"),
        (lambda *given: block(*given, axis=(1, 2)), "over a whole image"),
        (lambda *given: block(*given, axis=0), "over the batch"),
        (lambda *given: block(*given, plus=1e-5), "PyTorch's, 1e-5"),
        (lambda *given: block(*given, plus=1e-3), "Keras', 1e-3"),
        (lambda *given: block(*given, plus=0.0), "the epsilon is missing"),
        (
            lambda u, b, s, g, layer: added(
                u,
                g,
                layer(
                    (u - u.mean(2, keepdims=True)) / (u.std(2, keepdims=True) + 1e-6) * (1 + s[:, None]) + b[:, None]
                ),
            ),
            "the epsilon is under the root",
        ),
        (lambda *given: block(*given, ddof=1), "divided by D"),
        (lambda u, b, s, g, layer: u, "nothing is added to the tokens"),
        (lambda u, b, s, g, layer: block(u, b, s, g[:, :1], layer), "not yet: "),
    ],
}
