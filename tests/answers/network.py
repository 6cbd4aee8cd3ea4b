"""Answers to the exercises of notebook 02, the network."""

import numpy as np

from ddpm_course.exercises import network


def waves(t, frequencies):
    angles = t[:, None] * frequencies
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def embedding(t, dim):
    return waves(t, np.geomspace(1, 1e-4, dim // 2))


def taking_turns(t, dim):
    both = np.empty((len(t), dim))
    both[:, 0::2], both[:, 1::2] = np.split(embedding(t, dim), 2, axis=1)
    return both


def linear(a, b):
    return a * b + b


def block(a, b, d, skip=True):
    kept = 2 * a + linear(9 * a, b) + linear(d, b) + 2 * b + linear(9 * b, b)
    return kept + (linear(a, b) if skip and a != b else 0)


def softmax(scores, axis=-1, safe=True):
    powers = np.exp(scores - scores.max(axis, keepdims=True) if safe else scores)
    return powers / powers.sum(axis, keepdims=True)


def scores(q, k):
    return np.einsum("bic,bjc->bij", q, k) / np.sqrt(q.shape[2])


ANSWERS = {
    network.timestep_embedding: [
        (embedding, None),
        (lambda t, dim: embedding(t, dim).astype(np.float32), None),
        (lambda t, dim: np.roll(embedding(t, dim), dim // 2, axis=1), "the cosines come second"),
        (taking_turns, "sines and cosines take turns"),
        (lambda t, dim: waves(t, 1e4 ** (-np.arange(dim // 2) / (dim // 2))), "not by half"),
        (lambda t, dim: waves(t, 1e4 ** (-np.arange(dim // 2) / (dim - 1))), "where half is dim / 2"),
        (lambda t, dim: waves(t, np.geomspace(1, 1e4, dim // 2)), "the frequencies rise"),
        (lambda t, dim: embedding(t / 1000, dim), "t is divided by T"),
        (lambda t, dim: embedding(t, 2 * dim), "the shape is [4, 64], expected [4, 32]"),
    ],
    network.residual_parameters: [
        (block, None),
        (lambda a, b, d: block(a, b, d) - 3 * b - b * (a != b), "the biases are missing"),
        (lambda a, b, d: block(a, b, d) - 2 * a - 2 * b, "the GroupNorms are missing"),
        (
            lambda a, b, d: 4 * a + 2 * linear(9 * a, b) + linear(d, b) + linear(a, b) * (a != b),
            "and so is the second convolution",
        ),
        (lambda a, b, d: block(a, b, d) - 2 * b + 2 * a, "on the output's channels"),
        (lambda a, b, d: block(a, b, d, skip=False) + linear(a, b), "there is no skip convolution"),
        (lambda a, b, d: block(a, b, d, skip=False), "the skip is missing"),
        (lambda a, b, d: block(a, b, d) - linear(d, b), "the time is missing"),
        (lambda a, b, d: block(a, b, d) - 8 * (a * b + b * b), "3 x 3 weights"),
    ],
    network.attention: [
        (lambda q, k, v: softmax(scores(q, k)) @ v, None),
        (lambda q, k, v: np.stack([softmax(q[i] @ k[i].T / 2) @ v[i] for i in range(2)]), None),
        (lambda q, k, v: softmax(scores(q, k), axis=1) @ v, "over the wrong axis"),
        (lambda q, k, v: np.exp(s := scores(q, k)) / np.exp(s).sum() @ v, "over the whole batch"),
        (lambda q, k, v: softmax(2 * scores(q, k)) @ v, "the scale is missing"),
        (lambda q, k, v: softmax(scores(q, k) / 2) @ v, "divide by its root"),
        (lambda q, k, v: softmax(scores(q, k) * 2 / 3) @ v, "of the number of pixels"),
        (lambda q, k, v: softmax(scores(k, q)) @ v, "have changed places"),
        (lambda q, k, v: scores(q, k) @ v, "not a softmax"),
        (lambda q, k, v: np.exp(scores(q, k)) @ v, "the division by the sum is missing"),
        (lambda q, k, v: softmax(scores(q, k)).transpose(0, 2, 1) @ v, "are transposed"),
        (lambda q, k, v: softmax(scores(q, k), safe=False) @ v, "exp overflows"),
        (lambda q, k, v: softmax(scores(q, k)), "the shape is [2, 9, 9]"),
    ],
}
