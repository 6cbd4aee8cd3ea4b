"""The network: what each tree's must be by itself. That both compute the same, layer by layer, is test_parity.py's."""

import math
import os
import subprocess
import sys

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


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's compiler uses what PyTorch has deprecated
def test_a_compiled_network_computes_the_same(tree, side_of):
    """Otherwise --compile changes the model, not the time it takes."""
    side = side_of("fp32")
    model = side.network(NETWORKS["odd"])
    side.assign(model, random_parameters(side.shapes(model)))
    config = NETWORKS["odd"]
    for batch in (2, 3):  # the last batch of a data set is smaller
        x_t = side.tensor(draw(batch, config.image_size, config.image_size, config.image_channels))
        t = side.times(np.arange(batch, dtype=np.int32))
        fast = side.array(tree.model.compiled(model, compile=True)(x_t, t))
        assert_allclose(fast, side.array(model(x_t, t)), rtol=0, atol=1e-5)


WITHOUT_COMPILER = """
import torch
from ddpm_torch.config import ModelConfig
from ddpm_torch.model import UNet, compiled
model = UNet(ModelConfig(base_channels=4, channel_mults=(1,), attention_resolutions=()))
x_t, t = torch.zeros(1, 1, 28, 28), torch.zeros(1, dtype=torch.int32)
call = compiled(model, compile=True)
assert torch.equal(call(x_t, t), model(x_t, t))
assert torch.equal(call(x_t, t), model(x_t, t))
"""


def test_without_a_compiler_the_network_runs_as_it_is(both, tmp_path):
    """Otherwise --compile ends in a page of traceback on the laptop of a student, who has no C++ compiler."""
    environment = os.environ | {"CXX": "/nowhere/g++", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    argv = [sys.executable, "-c", WITHOUT_COMPILER]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True)
    said = [line for line in done.stderr.splitlines() if line.startswith("--compile")]
    assert len(said) == 1
    assert "no working C++ compiler here" in said[0]
    assert said[0].endswith("going on without")
