"""The network: what each tree's must be by itself. That both compute the same, layer by layer, is test_parity.py's."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from ddpm_parity.network import NETWORKS
from ddpm_parity.sides import draw, random_parameters
from ddpm_parity.suite import QUANTITIES
from ddpm_shared.config import PRESETS
from ddpm_shared.parameters import initial_value

T = np.array([0, 999], np.int32)


def predict(side, network="odd", random=True):
    """eps_pred [B, H, W, C] of a network at random weights, or at its initial ones."""
    config = NETWORKS[network]
    model = side.network(config)
    if random:
        side.assign(model, random_parameters(side.shapes(model)))
    x_t = draw(len(T), config.image_size, config.image_size, config.image_channels)
    return side.array(model(side.tensor(x_t), side.times(T)))


def test_bf16_stays_close_to_float32(side_of):
    """Otherwise --precision bf16 is only a name, or computes something else; bf16 keeps 8 bits, and 1 % was seen."""
    full, half = (predict(side_of(precision)) for precision in ("fp32", "bf16"))
    assert half.dtype == np.float32
    error = np.abs(full - half).max() / np.abs(full).max()
    assert 1e-4 < error < 0.05


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", np.float32), ("fp64", np.float64)])
def test_the_new_network_predicts_nothing(side_of, precision, dtype):
    """Otherwise the first loss is not the variance of the noise, 1, from which all curves start."""
    out = predict(side_of(precision), "base", random=False)
    assert out.dtype == dtype
    assert_array_equal(out, np.zeros_like(out))


@pytest.mark.parametrize("network", ["tiny", "base", "odd"])
def test_every_parameter_has_a_gradient(suite, network):
    """Otherwise a part of the network is never trained, and its zero gradients agree everywhere."""
    (gradients,) = (q for q in QUANTITIES if str(q) == f"network: {network}: gradient of every parameter")
    for name, value in suite.compute(gradients, suite.sides["fp64"]["torch"]).items():
        assert np.abs(value).max() > 0, f"{name} does nothing"


def test_base_has_about_3_9_million_parameters(side_of):
    """Otherwise the default network is not the one that the documentation and the timings speak of."""
    side = side_of("fp32")
    shapes = side.shapes(side.network(PRESETS["base"]))
    assert sum(math.prod(shape) for shape in shapes.values()) == 3_938_625


def test_initial_values_have_the_stated_law():
    """Otherwise training starts from another variance than Glorot's."""
    value = initial_value(0, "conv.weight", (64, 32, 3, 3))
    limit = math.sqrt(3 / ((64 + 32) * 9 / 2))
    assert np.abs(value).max() <= limit
    # 18432 draws: the standard error of the variance of a uniform law is 0.66 % of it
    assert_allclose(value.var(), limit**2 / 3, rtol=0.03)
    assert not initial_value(0, "x.conv_2.weight", (4, 4, 3, 3)).any()
    assert not initial_value(0, "conv.bias", (4,)).any()
    assert_array_equal(initial_value(0, "norm.weight", (4,)), np.ones(4))
    assert not np.array_equal(value, initial_value(1, "conv.weight", value.shape))
    assert not np.array_equal(value, initial_value(0, "other.weight", value.shape))
