"""The oracle of simple_unet, denoise_net and dit against loops written from the definitions, and its gradients.

That the trees compute what the oracle computes is test_parity.py's.
"""

import dataclasses
import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from ddpm_parity import training, zoo
from ddpm_parity.sides import draw, random_parameters
from ddpm_shared.errors import UserError
from ddpm_shared.oracle import dit
from ddpm_shared.oracle.denoise_net import DenoiseNetwork
from ddpm_shared.oracle.dit import DiTNetwork
from ddpm_shared.oracle.layers import gelu_tanh
from ddpm_shared.oracle.networks import gradients_of, loss_and_gradients, silu
from ddpm_shared.oracle.simple_unet import SimpleNetwork
from ddpm_shared.parameters import initial_value

RNG = np.random.default_rng(0)


def normal(token):
    return (token - token.mean()) / math.sqrt(token.var() + 1e-6)


@pytest.mark.parametrize(("height", "width"), [(6, 4), (5, 3), (1, 2)])
def test_the_oracle_s_doubling_by_loops(height, width):
    """Otherwise three sides agree on a transposed convolution that is a pixel off, or cut at its start."""
    shape = (height + 1) // 2, (width + 1) // 2
    x, weight, bias = RNG.normal(size=(2, *shape, 3)), RNG.normal(size=(3, 4, 4, 4)), RNG.normal(size=4)
    expected = np.zeros((2, height, width, 4)) + bias
    for h, w, i, j in np.ndindex(*shape, 4, 4):
        p, q = 2 * h + i - 1, 2 * w + j - 1
        if 0 <= p < height and 0 <= q < width:
            expected[:, p, q] += x[:, h, w] @ weight[:, :, i, j]
    network = SimpleNetwork({"up.conv.weight": weight, "up.conv.bias": bias}, zoo.SIMPLE)
    assert_allclose(network.doubling("up", x, height, width), expected, rtol=0, atol=1e-13)


def test_the_oracle_s_patches_by_loops():
    """Otherwise three sides agree on tokens that nobody else's weights fit."""
    x = RNG.normal(size=(2, 4, 6, 3))
    tokens = dit.patches(x, 2)
    assert tokens.shape == (2, 2 * 3, 2 * 2 * 3)
    for b, row, column, p, q, c in np.ndindex(2, 2, 3, 2, 2, 3):
        assert tokens[b, 3 * row + column, (2 * p + q) * 3 + c] == x[b, 2 * row + p, 2 * column + q, c]
    assert_array_equal(dit.images(tokens, 2, 2), x)


def test_the_oracle_s_positions_by_their_formula():
    """Otherwise rows and columns, or sines and cosines, are exchanged in all three sides."""
    rows, columns, dim = 3, 4, 8
    positions = dit.positions(rows, columns, dim)
    assert positions.shape == (12, dim)
    for row, column, i in np.ndindex(rows, columns, 2):
        w = 10000.0 ** (-i / 2)
        at = positions[columns * row + column]
        expected = math.sin(row * w), math.cos(row * w), math.sin(column * w), math.cos(column * w)
        assert_allclose(at[[i, 2 + i, 4 + i, 6 + i]], expected, rtol=0, atol=1e-15)


def test_the_oracle_s_block_by_loops():
    """Otherwise three sides take the six vectors in another order, or weigh the wrong tokens."""
    shapes = {
        **{"modulation.weight": (48, 8), "modulation.bias": (48,)},
        **{f"attention.{role}.weight": (8, 8) for role in ("query", "key", "value", "project")},
        **{f"attention.{role}.bias": (8,) for role in ("query", "value", "project")},
        **{"feed_1.weight": (32, 8), "feed_1.bias": (32,), "feed_2.weight": (8, 32), "feed_2.bias": (8,)},
    }
    p = {name: RNG.normal(size=shape) / 3 for name, shape in shapes.items()}
    tokens, emb = RNG.normal(size=(2, 3, 8)), RNG.normal(size=(2, 8))
    config = dataclasses.replace(zoo.PATCHES, base_channels=8, attention_heads=2)
    block = DiTNetwork({f"b.{name}": value for name, value in p.items()}, config).block("b", tokens, emb)
    for b in range(2):
        vectors = p["modulation.weight"] @ emb[b] + p["modulation.bias"]
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = vectors.reshape(6, 8)
        u = tokens[b].copy()
        rows = [normal(token) * (1 + scale_1) + shift_1 for token in u]
        q, k, v = (
            [p[f"attention.{role}.weight"] @ row + p.get(f"attention.{role}.bias", 0.0) for row in rows]
            for role in ("query", "key", "value")
        )
        for i in range(3):
            seen = []
            for head in (slice(0, 4), slice(4, 8)):
                powers = [math.exp(q[i][head] @ k[j][head] / 2.0) for j in range(3)]  # sqrt(4) = 2
                seen.extend(sum(powers[j] * v[j][head] for j in range(3)) / sum(powers))
            u[i] += gate_1 * (p["attention.project.weight"] @ np.array(seen) + p["attention.project.bias"])
        for i in range(3):
            inner = p["feed_1.weight"] @ (normal(u[i]) * (1 + scale_2) + shift_2) + p["feed_1.bias"]
            inner = [0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) for x in inner]
            u[i] += gate_2 * (p["feed_2.weight"] @ np.array(inner) + p["feed_2.bias"])
        assert_allclose(block[b], u, rtol=0, atol=1e-13)


def test_the_oracle_s_approximation_of_gelu_far_out():
    """Otherwise a large activation overflows in the oracle, and nobody can judge a network that has one."""
    value, slope = gradients_of(lambda a: gelu_tanh(a["x"]), {"x": np.array([-1e3, -40.0, 0.0, 40.0, 1e3])})
    assert_array_equal(value, [0.0, 0.0, 0.0, 40.0, 1e3])
    assert_array_equal(slope["x"], [0.0, 0.0, 0.5, 1.0, 1.0])


@pytest.mark.parametrize("uses_time", [True, False])
def test_the_oracle_s_two_convolutions_by_loops(uses_time):
    """Otherwise time and label enter elsewhere, in all three sides."""
    config = dataclasses.replace(zoo.TWO, uses_time=uses_time, activation="silu")
    shapes = {"label.weight": (4, 8)}
    for name, old, new in (("conv_in", 3, 8), ("conv_out", 8, 3)):
        shapes |= {f"{name}.weight": (new, old, 3, 3), f"{name}.bias": (new,)}
    if uses_time:
        shapes |= {"time.weight": (8, 10), "time.bias": (8,)}
    p = {name: RNG.normal(size=shape) / 3 for name, shape in shapes.items()}
    x_t, t, labels = RNG.normal(size=(2, 5, 5, 3)), np.array([3.5, 900.0]), np.array([1, 3])
    output = DenoiseNetwork(p, config)(x_t, t, labels)

    def convolved(name, x):
        padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
        y = np.zeros((5, 5, len(p[f"{name}.bias"]))) + p[f"{name}.bias"]
        for row, column, i, j in np.ndindex(5, 5, 3, 3):
            y[row, column] += p[f"{name}.weight"][:, :, i, j] @ padded[row + i, column + j]
        return y

    for b in range(2):
        h = convolved("conv_in", x_t[b]) + p["label.weight"][labels[b]]
        if uses_time:
            angles = [t[b] * 10000.0 ** (-i / 4) for i in range(5)]
            h += p["time.weight"] @ [*map(math.sin, angles), *map(math.cos, angles)] + p["time.bias"]
        assert_allclose(output[b], convolved("conv_out", silu(h)), rtol=0, atol=1e-12)


def made(suite, name):
    """Random parameters, and what else a loss takes."""
    config = zoo.SMALL[name]
    parameters = random_parameters(suite.sides["fp64"]["oracle"].shapes_of(lambda torch: torch.network(config)))
    shape = len(zoo.T), config.image_size, config.image_size, config.image_channels
    return config, parameters, draw(*shape, seed=1), draw(*shape, seed=2)


@pytest.mark.parametrize("name", zoo.SMALL)
def test_the_oracle_s_gradient_is_the_slope_of_its_loss(suite, name):
    """Otherwise three sides agree on a gradient that leads nowhere. Central differences, 1e-8 seen."""
    config, parameters, x_t, target = made(suite, name)
    kind = zoo.ORACLES[name]
    loss, gradients = loss_and_gradients(config, parameters, x_t, zoo.T, target, zoo.LABELS, kind=kind)
    direction = {key: draw(*value.shape, seed=3) for key, value in parameters.items()}

    def moved(h):
        values = {key: value + h * direction[key] for key, value in parameters.items()}
        return float(np.mean((target - kind(values, config)(x_t, zoo.T, zoo.LABELS)) ** 2))

    assert_allclose(moved(0.0), loss, rtol=1e-14)
    slope = sum(float(np.sum(gradients[key] * direction[key])) for key in parameters)
    assert_allclose((moved(1e-5) - moved(-1e-5)) / 2e-5, slope, rtol=1e-6)


@pytest.mark.parametrize("name", zoo.SMALL)
@pytest.mark.parametrize("change", [{"more.weight": np.zeros(2)}, {"conv_in.bias": None, "patch_in.bias": None}])
def test_the_oracle_refuses_parameters_that_do_not_fit(suite, name, change):
    """Otherwise a parameter that one side lacks, or has too much, is nobody's."""
    config, parameters, x_t, _ = made(suite, name)
    values = {key: value for key, value in (parameters | change).items() if value is not None}
    with pytest.raises(UserError, match="missing from the parameters, or unknown to the network"):
        zoo.ORACLES[name](values, config)(x_t, zoo.T)


@pytest.mark.parametrize("name", zoo.SMALL)
def test_the_compared_runs_learn(suite, name):
    """Otherwise a hundred steps agree because nothing happens in them, or a parameter of the network is never used."""
    plan = zoo.HUNDRED[name]
    run = training.whole(suite.sides["fp64"]["torch"], plan)
    assert len(run.losses) == 100
    assert np.mean(run.losses[-20:]) < 0.8 * run.losses[0]
    for key, value in run.tensors[100].items():
        if key.startswith("model/"):
            start = initial_value(plan.config.seed, key.removeprefix("model/"), value.shape, plan.zero_at_start)
            assert np.abs(value - start).max() > 1e-3, key
