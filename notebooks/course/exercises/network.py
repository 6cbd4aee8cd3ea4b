"""The exercises of 02: the network."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import softmax

from ddpm_course.exercises.checking import Off, compare, exercise
from ddpm_shared.config import ModelConfig
from ddpm_shared.oracle import networks
from ddpm_shared.records import checkpoint


@exercise
def timestep_embedding(answer: Callable[..., Any]) -> None:
    """(t [B], dim) -> [B, dim]: the sines, then the cosines."""
    t = np.array([0, 1, 40, 999])
    for dim in (32, 12):
        half = dim // 2
        right = networks.timestep_embedding(t, dim)
        sines, cosines = right[:, :half], right[:, half:]

        def waves(frequencies: Any) -> Any:
            angles = t[:, None] * frequencies
            return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)

        with np.errstate(all="ignore"):
            found = answer(t, dim)
        compare(
            found,
            right,
            {
                "the cosines come second: at t = 0 the first half is 0, the second 1": np.hstack([cosines, sines]),
                "sines and cosines take turns, as in Vaswani et al.: here all the sines come first": np.stack(
                    [sines, cosines], axis=2
                ).reshape(len(t), dim),
                "the last frequency is not 1/10000: divide i by half - 1, not by half": waves(
                    10000.0 ** (-np.arange(half) / half)
                ),
                "divide i by half - 1, where half is dim / 2: you divide by dim - 1 or so": waves(
                    10000.0 ** (-np.arange(half) / (dim - 1))
                ),
                "the frequencies rise: the exponent is negative, so that they fall from 1 to 1/10000": waves(
                    10000.0 ** (np.arange(half) / (half - 1))
                ),
                "t is divided by T: here it is the step's number itself": waves(
                    10000.0 ** (-np.arange(half) / (half - 1)) / 1000
                ),
            },
        )


@functools.cache
def residual_blocks() -> dict[tuple[int, int, int], int]:
    """(in_channels, out_channels, time_channels) -> parameters, of every kind of residual block in the boxed model."""
    tensors = checkpoint.load(checkpoint.BOXED, ("ema",)).tensors
    blocks = {}
    for name, weight in tensors.items():
        block, found, _ = name.partition(".conv_1.weight")
        if found:
            sizes = [value.size for other, value in tensors.items() if other.startswith(block + ".")]
            blocks[weight.shape[1], weight.shape[0], tensors[f"{block}.time.weight"].shape[1]] = sum(sizes)
    return blocks


@exercise
def residual_parameters(answer: Callable[..., Any]) -> None:
    """(in_channels, out_channels, time_channels) -> the number of parameters of a residual block."""
    for (a, b, d), right in residual_blocks().items():
        biases = 3 * b + b * (a != b)  # of two convolutions, of the linear map of the time, and of the skip
        skip = (a * b + b) * (a != b)
        compare(
            answer(a, b, d),
            right,
            {
                "the biases are missing: of each convolution and of the map of the time": right - biases,
                "the GroupNorms are missing: each has a scale and a shift a channel": right - 2 * a - 2 * b,
                "the second GroupNorm is on the output's channels, and so is the second convolution": right
                - (9 * b * b + 2 * b)
                + (9 * a * b + 2 * a),
                "the second GroupNorm is on the output's channels": right - 2 * b + 2 * a,
                "there is no skip convolution where the channels stay the same": right + (a * b + b),
                "the skip is missing: a 1x1 convolution where the channels change": right - skip,
                "the time is missing: a linear map to the output's channels": right - (d * b + b),
                "a kernel has 3 x 3 weights for each pair of channels": right - 8 * (a * b + b * b),
            },
        )


@exercise
def attention(answer: Callable[..., Any]) -> None:
    """(q, k, v), each [B, N, C] -> [B, N, C]: Vaswani et al. 2017, eq. 1, with one head."""
    images, side, channels = 2, 3, 4
    rng = np.random.default_rng(0)
    parameters = {f"a.{role}.weight": rng.standard_normal((channels, channels)) for role in ("query", "key", "value")}
    parameters |= {"a.norm.weight": np.ones(channels), "a.norm.bias": np.zeros(channels)}
    parameters |= {"a.project.weight": np.eye(channels)}  # so that what is added to x is the answer
    x = rng.standard_normal((images, side, side, channels))
    oracle = networks.Network(parameters, ModelConfig())
    right = (oracle.attention_block("a", x) - x).reshape(images, side * side, channels)
    q, k, v = (oracle.activations[f"a.{role}"] for role in ("query", "key", "value"))
    scores = q @ k.transpose(0, 2, 1)  # [B, N, N]

    scaled = scores / np.sqrt(channels)
    weights = softmax(scaled, 2)
    compare(
        answer(q, k, v),
        right,
        {
            "the softmax is over the wrong axis: each query's weights sum to 1, over the keys": softmax(scaled, 1) @ v,
            "the softmax is over the whole batch: each query has one of its own": softmax(scaled, None) @ v,
            "the scale is missing: divide the scores by sqrt(C)": softmax(scores, 2) @ v,
            "divided by C: divide by its root": softmax(scores / channels, 2) @ v,
            "divided by the root of the number of pixels: divide by that of the channels": softmax(
                scores / np.sqrt(side * side), 2
            )
            @ v,
            "queries and keys have changed places": softmax(scaled.transpose(0, 2, 1), 2) @ v,
            "the weights are not a softmax: exp is missing, or the division by the sum": scaled @ v,
            "the division by the sum is missing": np.exp(scaled) @ v,
            "the weights are transposed when they meet v": weights.transpose(0, 2, 1) @ v,
        },
    )

    # Scores of a thousand: the largest weight is 1, but exp does not know.
    steep = 1000 * q
    expected = networks.softmax(1000 * scaled) @ v
    with np.errstate(all="ignore"):
        found = answer(steep, k, v)
    if not np.isfinite(np.asarray(found, np.float64)).all():
        raise Off("right for small scores; for large ones exp overflows: subtract each row's largest score first")
    compare(found, expected)
