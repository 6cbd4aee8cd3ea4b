"""The network: both trees from the same weights, values and gradients; and what each must be by itself."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from ddpm_shared import reference
from ddpm_shared.config import PRESETS, ModelConfig
from ddpm_shared.parameters import initial_value

# Relative to the largest value of each tensor. Seen: 3e-15 forward and 2e-14 in gradients in float64, 1e-6 and 5e-6
# in float32.
TOLERANCE = {"fp64": 1e-10, "fp32": 1e-5}
SMALL = ModelConfig(
    base_channels=8, channel_mults=(1, 2, 2), num_res_blocks=1, attention_resolutions=(7,), num_groups=4
)
ODD = ModelConfig(  # 7 -> 4 -> 7, as in `large`, with more than one channel
    base_channels=8,
    channel_mults=(1, 2, 2, 3),
    num_res_blocks=1,
    attention_resolutions=(4,),
    num_groups=4,
    image_channels=3,
)
CONFIGS = {**PRESETS, "small": SMALL, "odd": ODD}


def weights(config_name, shapes):
    """Random weights everywhere: the zeros of the start would hide whole branches of the network."""
    rng = np.random.default_rng(list(CONFIGS).index(config_name))
    values = {}
    for name, shape in shapes.items():
        fan_in = math.prod(shape[1:]) or 1
        scale = 1 / math.sqrt(fan_in) if len(shape) > 1 else 0.1
        values[name] = rng.standard_normal(shape) * scale + (name.endswith("weight") and len(shape) == 1)
    return values


def inputs(config):
    size, channels = config.image_size, config.image_channels
    rng = np.random.default_rng(7)
    x_t = rng.standard_normal((3, size, size, channels))
    return x_t, np.array([0, 500, 999], np.int32), rng.standard_normal(x_t.shape)


def parameters(tree, model):
    return dict(model.named_parameters() if tree.name == "torch" else tree.model.named_parameters(model))


def shapes_of(tree, model):
    named = parameters(tree, model).items()
    if tree.name == "torch":
        return {name: tuple(p.shape) for name, p in named}
    return {name: tree.model.canonical_shape(p) for name, p in named}


def run(tree, config_name, precision):
    """eps_pred [B, H, W, C], the loss and every gradient in the canonical layout."""
    config = CONFIGS[config_name]
    model = tree.model.UNet(config, precision=precision)
    named, values = parameters(tree, model), weights(config_name, shapes_of(tree, model))
    x_t, t, eps = inputs(config)
    if tree.name == "torch":
        torch = tree.model.torch
        with torch.no_grad():
            for name, parameter in named.items():
                parameter.copy_(torch.from_numpy(values[name]))
        x_t, eps = (tree.data.to_tensor(a).to(tree.utils.dtype(precision)) for a in (x_t, eps))
        eps_pred = model(x_t, torch.from_numpy(t))
        loss = torch.mean((eps - eps_pred) ** 2)
        found = torch.autograd.grad(loss, list(named.values()))
        gradients = {name: g.numpy() for name, g in zip(named, found, strict=True)}
        return eps_pred.detach().numpy().transpose(0, 2, 3, 1), loss.item(), gradients
    tf = tree.model.tf
    for name, parameter in named.items():
        parameter.assign(tree.model.from_canonical(values[name]))
    x_t, eps = (tf.cast(a, tree.utils.dtype(precision)) for a in (x_t, eps))
    with tf.GradientTape() as tape:
        eps_pred = model(x_t, tf.constant(t))
        loss = tf.reduce_mean((eps - eps_pred) ** 2)
    found = tape.gradient(loss, list(named.values()))
    gradients = {name: tree.model.to_canonical(g.numpy()) for name, g in zip(named, found, strict=True)}
    return eps_pred.numpy(), float(loss), gradients


@pytest.mark.parametrize("precision", ["fp64", "fp32"])
@pytest.mark.parametrize(
    "config_name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "large")) for name in CONFIGS]
)
def test_networks_agree_in_value_loss_and_every_gradient(both, config_name, precision):
    """Otherwise a checkpoint moved between the frameworks is another model."""
    (eps_a, loss_a, grads_a), (eps_b, loss_b, grads_b) = (run(tree, config_name, precision) for tree in both)
    tolerance = TOLERANCE[precision]
    assert_allclose(eps_a, eps_b, rtol=0, atol=tolerance * np.abs(eps_a).max(), err_msg="eps_pred")
    assert_allclose(loss_a, loss_b, rtol=tolerance)
    assert list(grads_a) == list(grads_b)
    largest = max(np.abs(g).max() for g in grads_a.values())
    for name in grads_a:
        scale = max(np.abs(grads_a[name]).max(), 1e-2 * largest)  # a small gradient is a difference of large ones
        assert_allclose(grads_a[name], grads_b[name], rtol=0, atol=tolerance * scale, err_msg=name)
        assert np.abs(grads_a[name]).max() > 0, f"{name} does nothing"


def test_bf16_stays_close_to_float32(tree):
    """Otherwise --precision bf16 is only a name, or computes something else; bf16 keeps 8 bits, and 1 % was seen."""
    full, half = (run(tree, "small", precision)[0] for precision in ("fp32", "bf16"))
    assert half.dtype == np.float32
    error = np.abs(full - half).max() / np.abs(full).max()
    assert 1e-4 < error < 0.05


@pytest.mark.parametrize("preset", PRESETS)
def test_trees_have_the_same_parameters_from_the_same_numbers(both, preset):
    """Otherwise runs of the two frameworks part at step 0."""
    torch_tree, tf_tree = both
    a, b = (tree.model.UNet(PRESETS[preset], seed=3) for tree in both)
    assert shapes_of(torch_tree, a) == shapes_of(tf_tree, b)
    named_a, named_b = parameters(torch_tree, a), parameters(tf_tree, b)
    for name in named_a:
        got = tf_tree.model.to_canonical(named_b[name].numpy())
        assert_array_equal(named_a[name].detach().numpy(), got, err_msg=name)
        want = initial_value(3, name, got.shape).astype(np.float32)
        assert_array_equal(got, want, err_msg=name)


def test_base_has_about_3_9_million_parameters(tree):
    """Otherwise the default network is not the one that the documentation and the timings speak of."""
    model = tree.model.UNet(PRESETS["base"])
    assert sum(math.prod(shape) for shape in shapes_of(tree, model).values()) == 3_938_625


def test_the_new_network_predicts_nothing(tree):
    """Otherwise the first loss is not the variance of the noise, 1, from which all curves start."""
    x_t, t, _ = inputs(SMALL)
    model = tree.model.UNet(SMALL)
    if tree.name == "torch":
        torch = tree.model.torch
        out = model(tree.data.to_tensor(x_t.astype(np.float32)), torch.from_numpy(t)).detach().numpy()
    else:
        out = model(x_t.astype(np.float32), t).numpy()
    assert_array_equal(out, np.zeros_like(out))


@pytest.mark.parametrize("dim", [4, 32])
def test_timestep_embedding_equals_the_oracle_at_both_ends(tree, dim):
    """Otherwise sine and cosine, or half and half - 1, are another author's, and no weights carry over."""
    t = np.array([0, 1, 500, 999], np.int32)
    tensor = tree.model.torch.from_numpy(t) if tree.name == "torch" else tree.model.tf.constant(t)
    got = tree.model.timestep_embedding(tensor, dim).numpy()
    assert got.dtype == np.float64
    assert_allclose(got, reference.timestep_embedding(t, dim), rtol=0, atol=1e-12)  # angles up to 999


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
