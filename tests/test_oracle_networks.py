"""The oracle of the network against loops written from the definitions, and its gradients against complex steps.

Tolerances stand about 5 times above the worst difference seen. f(x + i h d) = f(x) + i h d f'(x) + O(h^2), so with
h = 1e-30 the imaginary part is the derivative along d without any subtraction, to float64's last digits.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from ddpm_shared.config import ModelConfig
from ddpm_shared.errors import UserError
from ddpm_shared.oracle.diffusion import Array
from ddpm_shared.oracle.networks import Network, gradients_of, loss_and_gradients, silu, softmax, timestep_embedding

RNG = np.random.default_rng(0)
CONFIG = ModelConfig(
    base_channels=4,
    channel_mults=(1, 2, 3),
    num_res_blocks=2,
    attention_resolutions=(3, 2),
    num_groups=2,
    image_size=6,
    image_channels=2,
)
D = 16

# The network of CONFIG, drawn by hand: what each step reads, the channels it takes and gives, and its size.
STEPS = {
    "down.0": (["conv_in"], 4, 4, 6),
    "down.1": (["down.0"], 4, 4, 6),
    "down.2": (["down.1"], 4, 4, 3),
    "down.3": (["down.2"], 4, 8, 3),
    "down.4": (["down.3"], 8, 8, 3),
    "down.5": (["down.4"], 8, 8, 2),
    "down.6": (["down.5"], 8, 12, 2),
    "down.7": (["down.6"], 12, 12, 2),
    "middle.0": (["down.7"], 12, 12, 2),
    "middle.1": (["middle.0"], 12, 12, 2),
    "up.0": (["middle.1", "down.7"], 24, 12, 2),
    "up.1": (["up.0", "down.6"], 24, 12, 2),
    "up.2": (["up.1", "down.5"], 20, 12, 2),
    "up.3": (["up.2"], 12, 12, 3),
    "up.4": (["up.3", "down.4"], 20, 8, 3),
    "up.5": (["up.4", "down.3"], 16, 8, 3),
    "up.6": (["up.5", "down.2"], 12, 8, 3),
    "up.7": (["up.6"], 8, 8, 6),
    "up.8": (["up.7", "down.1"], 12, 4, 6),
    "up.9": (["up.8", "down.0"], 8, 4, 6),
    "up.10": (["up.9", "conv_in"], 8, 4, 6),
}
DOWNSAMPLES, UPSAMPLES = ("down.2", "down.5"), ("up.3", "up.7")
WITH_ATTENTION = ("down.3", "down.4", "down.6", "down.7", "middle.0", "up.0", "up.1", "up.2", "up.4", "up.5", "up.6")


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    """A test draws the same numbers alone as among the others."""
    RNG.bit_generator.state = np.random.default_rng(1).bit_generator.state


def normal(*shape: int) -> Array:
    return RNG.standard_normal(shape)


def leaf(name: str, *shape: int, bias: bool = True) -> dict[str, Array]:
    """Random weight and bias: a convolution's, a linear map's or a normalisation's, by the length of the shape."""
    weight = {f"{name}.weight": normal(*shape) / math.sqrt(math.prod(shape[1:])) + (len(shape) == 1)}
    return weight | ({f"{name}.bias": normal(shape[0])} if bias else {})


def residual(name: str, channels: int, out: int) -> dict[str, Array]:
    return {
        **leaf(f"{name}.norm_1", channels),
        **leaf(f"{name}.conv_1", out, channels, 3, 3),
        **leaf(f"{name}.time", out, D),
        **leaf(f"{name}.norm_2", out),
        **leaf(f"{name}.conv_2", out, out, 3, 3),
        **(leaf(f"{name}.skip", out, channels, 1, 1) if channels != out else {}),
    }


def attention(name: str, channels: int) -> dict[str, Array]:
    maps = [leaf(f"{name}.{role}", channels, channels, bias=role != "key") for role in ("query", "key", "value")]
    first, last = leaf(f"{name}.norm", channels), leaf(f"{name}.project", channels, channels)
    return first | maps[0] | maps[1] | maps[2] | last


def network() -> dict[str, Array]:
    """All parameters of CONFIG."""
    parameters = leaf("time_1", D, 4) | leaf("time_2", D, D) | leaf("conv_in", 4, 2, 3, 3)
    for name, (_, channels, out, _) in STEPS.items():
        if name in DOWNSAMPLES + UPSAMPLES:
            parameters |= leaf(f"{name}.conv", out, channels, 3, 3)
        else:
            parameters |= residual(f"{name}.residual", channels, out)
            parameters |= attention(f"{name}.attention", out) if name in WITH_ATTENTION else {}
    return parameters | leaf("norm_out", 4) | leaf("conv_out", 2, 4, 3, 3)


PARAMETERS = network()
X_T, EPS, TIMES = normal(3, 6, 6, 2), normal(3, 6, 6, 2), np.array([0, 1, 999])


def layer(parameters: Mapping[str, Array]) -> Network:
    """A network for one layer alone."""
    return Network(parameters, CONFIG)


# The definitions, in loops over single numbers.


def convolution_by_loops(x: Array, weight: Array, bias: Array, stride: int = 1) -> Array:
    (images, height, width, _), (out, _, k_height, k_width) = x.shape, weight.shape
    top, left = (k_height - 1) // 2, (k_width - 1) // 2
    y = np.zeros((images, (height + 2 * top - k_height) // stride + 1, (width + 2 * left - k_width) // stride + 1, out))
    for b, p, q, o in np.ndindex(y.shape):
        y[b, p, q, o] = bias[o]
        for c, i, j in np.ndindex(weight.shape[1:]):
            h, w = stride * p + i - top, stride * q + j - left
            if 0 <= h < height and 0 <= w < width:
                y[b, p, q, o] += weight[o, c, i, j] * x[b, h, w, c]
    return y


def group_norm_by_loops(x: Array, weight: Array, bias: Array, num_groups: int) -> Array:
    images, height, width, channels = x.shape
    size = channels // num_groups
    y = np.zeros_like(x)
    for b, group in np.ndindex(images, num_groups):
        members = [(b, h, w, group * size + c) for h, w, c in np.ndindex(height, width, size)]
        mean = math.fsum(x[at] for at in members) / len(members)
        variance = math.fsum((x[at] - mean) ** 2 for at in members) / len(members)
        for at in members:
            y[at] = weight[at[3]] * (x[at] - mean) / math.sqrt(variance + 1e-5) + bias[at[3]]
    return y


def silu_by_loops(x: Array) -> Array:
    return np.reshape([value / (1 + math.exp(-value)) for value in x.ravel()], x.shape)


def linear_by_loops(x: Array, weight: Array, bias: Array) -> Array:
    """[B, in] -> [B, out]."""
    return np.array([[math.fsum([*(weight[o] * row), bias[o]]) for o in range(len(weight))] for row in x])


def attention_by_loops(p: Mapping[str, Array], x: Array) -> Array:
    """One image after the other, pixel after pixel."""
    y = x.copy()
    for b, normed in enumerate(group_norm_by_loops(x, p["a.norm.weight"], p["a.norm.bias"], CONFIG.num_groups)):
        channels = x.shape[3]
        pixels = normed.reshape(-1, channels)
        q = linear_by_loops(pixels, p["a.query.weight"], p["a.query.bias"])
        k = linear_by_loops(pixels, p["a.key.weight"], np.zeros(channels))
        v = linear_by_loops(pixels, p["a.value.weight"], p["a.value.bias"])
        for i, (h, w) in enumerate(np.ndindex(x.shape[1:3])):
            powers = [math.exp(math.fsum(q[i] * key) / math.sqrt(channels)) for key in k]
            seen = sum(power / math.fsum(powers) * value for power, value in zip(powers, v, strict=True))
            y[b, h, w] += linear_by_loops(seen[None], p["a.project.weight"], p["a.project.bias"])[0]
    return y


# Each kind of layer.


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(6, 6), (7, 7), (7, 4), (2, 3)])
@pytest.mark.parametrize("kernel", [(3, 3), (1, 1), (3, 1), (1, 5), (2, 3), (4, 2)])
def test_convolution_is_its_definition(kernel: tuple[int, int], size: tuple[int, int], stride: int) -> None:
    """Otherwise both trees are held to a shifted, mirrored or transposed convolution, or to one-sided padding."""
    parameters, x = leaf("c", 3, 2, *kernel), normal(2, *size, 2)
    expected = convolution_by_loops(x, parameters["c.weight"], parameters["c.bias"], stride)
    assert_allclose(layer(parameters).convolution("c", x, stride), expected, rtol=0, atol=1e-14)


def test_linear_is_its_definition() -> None:
    """Otherwise its weight is read as [in, out], which no square map would show."""
    parameters, x = leaf("l", 3, 5), normal(2, 5)
    expected = linear_by_loops(x, parameters["l.weight"], parameters["l.bias"])
    assert_allclose(layer(parameters).linear("l", x), expected, rtol=0, atol=2e-15)
    assert_array_equal(layer(parameters).linear("l", np.stack([x, x]))[1], layer(parameters).linear("l", x))


def test_linear_without_a_bias_has_none() -> None:
    """Otherwise the key's map of the attention cannot be told from one with a bias."""
    assert_array_equal(layer(leaf("l", 3, 5, bias=False)).linear("l", np.zeros((2, 5))), np.zeros((2, 3)))


@pytest.mark.parametrize("scale", [1, 1e-2, 100])
def test_group_norm_is_its_definition(scale: float) -> None:
    """Otherwise groups mix images or channels, the variance is unbiased, or Keras' epsilon of 1e-3 would pass."""
    parameters, x = leaf("n", 6), scale * (normal(2, 3, 4, 6) + 1)
    expected = group_norm_by_loops(x, parameters["n.weight"], parameters["n.bias"], num_groups=2)
    assert_allclose(layer(parameters).group_norm("n", x), expected, rtol=0, atol=1e-14)


def test_silu_is_its_definition() -> None:
    """Otherwise every activation is another one, or overflows where a network in training is far off."""
    x = np.linspace(-30, 30, 601)
    assert_allclose(silu(x), silu_by_loops(x), rtol=0, atol=1e-14)
    assert_array_equal(silu(np.array([-1e5, 0.0, 1e5])), [0, 0, 1e5])


def test_softmax_is_its_definition() -> None:
    """Otherwise attention weighs the wrong pixels, or overflows at large logits."""
    x = normal(4, 7)
    expected = [[math.exp(value) / math.fsum(map(math.exp, row)) for value in row] for row in x]
    assert_allclose(softmax(x), expected, rtol=0, atol=1e-15)
    assert_allclose(softmax(x).sum(axis=-1), 1, rtol=1e-15)
    assert_allclose(softmax(x + 1e4), expected, rtol=0, atol=2e-12)  # x itself loses 4 digits in x + 1e4
    assert_array_equal(softmax(np.array([-1e4, 1e4, 1e4])), [0, 0.5, 0.5])


def test_attention_is_its_definition() -> None:
    """Otherwise the softmax runs over the queries, the scale is missing, or rows and columns of pixels are mixed."""
    parameters, x = attention("a", 6), normal(2, 2, 3, 6)
    assert_allclose(layer(parameters).attention_block("a", x), attention_by_loops(parameters, x), rtol=0, atol=1e-14)


@pytest.mark.parametrize("channels", [4, 6])
def test_residual_block_is_its_definition(channels: int) -> None:
    """Otherwise the time, the skip, or the order of norm, activation and convolution is another than the paper's."""
    p, x, emb = residual("r", channels, 6), normal(2, 3, 4, channels), normal(2, D)

    def part(number: int, x: Array) -> Array:
        normed = group_norm_by_loops(x, p[f"r.norm_{number}.weight"], p[f"r.norm_{number}.bias"], CONFIG.num_groups)
        return convolution_by_loops(silu_by_loops(normed), p[f"r.conv_{number}.weight"], p[f"r.conv_{number}.bias"])

    h = part(1, x) + linear_by_loops(emb, p["r.time.weight"], p["r.time.bias"]).reshape(2, 1, 1, 6)
    skip = x if channels == 6 else x @ p["r.skip.weight"][:, :, 0, 0].T + p["r.skip.bias"]
    assert_allclose(layer(p).residual_block("r", x, emb), skip + part(2, h), rtol=0, atol=1e-14)


@pytest.mark.parametrize("size", [6, 7])
def test_downsample_is_its_definition(size: int) -> None:
    """Otherwise even sizes are padded at one side only, as TensorFlow's SAME does; odd sizes would not show it."""
    p, x = leaf("d.conv", 3, 2, 3, 3), normal(2, size, size, 2)
    expected = convolution_by_loops(x, p["d.conv.weight"], p["d.conv.bias"], stride=2)
    assert expected.shape == (2, (size + 1) // 2, (size + 1) // 2, 3)
    assert_allclose(layer(p).downsample("d", x), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("size", [6, 5])
def test_upsample_is_its_definition(size: int) -> None:
    """Otherwise pixels are repeated at the wrong place, or the wrong edge is cut off."""
    p, x = leaf("u.conv", 3, 2, 3, 3), normal(2, 3, 3, 2)
    twice = np.kron(x, np.ones((1, 2, 2, 1)))[:, :size, :size]
    expected = convolution_by_loops(twice, p["u.conv.weight"], p["u.conv.bias"])
    assert_allclose(layer(p).upsample("u", x, size), expected, rtol=0, atol=1e-14)


# The whole network.


def called() -> Network:
    net = Network(PARAMETERS, CONFIG)
    net(X_T, TIMES)
    return net


def test_the_network_is_wired_as_drawn() -> None:
    """Otherwise a skip connection joins another pair of steps than Ho et al.'s; shapes alone would not show it."""
    net = called()
    got, alone = net.activations, layer(PARAMETERS)
    first = alone.linear("time_1", timestep_embedding(TIMES, 4))
    emb = silu(alone.linear("time_2", silu(first)))
    assert_array_equal(got["conv_in"], alone.convolution("conv_in", X_T))
    for name, (sources, channels, out, size) in STEPS.items():
        x = np.concatenate([got[source] for source in sources], axis=3)
        assert x.shape[3] == channels
        if name in DOWNSAMPLES:
            expected = alone.downsample(name, x)
        elif name in UPSAMPLES:
            expected = alone.upsample(name, x, size)
        else:
            expected = alone.stage(name, x, emb)
        assert expected.shape == (3, size, size, out)
        assert_allclose(got[name], expected, rtol=0, atol=1e-14, err_msg=name)
    expected = alone.convolution("conv_out", silu(alone.group_norm("norm_out", got["up.10"])))
    assert_allclose(net(X_T, TIMES), expected, rtol=0, atol=1e-14)


def test_activations_have_the_modules_names() -> None:
    """Otherwise a tree cannot be compared with the oracle layer by layer."""
    modules = {"time_1", "time_2", "conv_in", "norm_out", "conv_out"}
    for name, (_, channels, out, _) in STEPS.items():
        if name in DOWNSAMPLES + UPSAMPLES:
            modules |= {name, f"{name}.conv"}
            continue
        parts = ["norm_1", "conv_1", "time", "norm_2", "conv_2"] + ["skip"] * (channels != out)
        modules |= {name, f"{name}.residual"} | {f"{name}.residual.{part}" for part in parts}
        if name in WITH_ATTENTION:
            parts = ["norm", "query", "key", "value", "project"]
            modules |= {f"{name}.attention"} | {f"{name}.attention.{part}" for part in parts}
    net = called()
    assert net.activations.keys() == modules
    assert_array_equal(net.activations["conv_out"], net(X_T, TIMES))


def test_images_do_not_see_each_other() -> None:
    """Otherwise the oracle mixes the images of a batch, or gives one the time of another."""
    net = Network(PARAMETERS, CONFIG)
    together = net(X_T, TIMES)
    for i in range(len(X_T)):
        assert_allclose(net(X_T[i : i + 1], TIMES[i : i + 1])[0], together[i], rtol=0, atol=2e-14)
    assert np.abs(net(X_T, TIMES[::-1].copy()) - together).max() > 1e-4


@pytest.mark.parametrize(
    "wrong",
    [
        "down.0.attention.norm.weight",  # attention where the config has none
        "down.3.attention.key.bias",
        "down.0.residual.skip.weight",  # a skip convolution where the channels stay the same
        "conv_in.weights",
    ],
)
def test_a_parameter_that_is_not_used_is_an_error(wrong: str) -> None:
    """Otherwise a tree may hold a parameter that does nothing, and the comparison does not say so."""
    with pytest.raises(UserError, match=wrong):
        Network(PARAMETERS | {wrong: np.ones(1)}, CONFIG)(X_T, TIMES)


@pytest.mark.parametrize("missing", ["conv_in.bias", "time_1.bias", "down.3.residual.skip.weight", "up.4.attention"])
def test_a_missing_parameter_is_an_error(missing: str) -> None:
    """Otherwise a tree that lacks a bias or an attention block agrees with an oracle that lacks it too."""
    fewer = {name: value for name, value in PARAMETERS.items() if not name.startswith(missing)}
    with pytest.raises((UserError, KeyError), match=missing):
        Network(fewer, CONFIG)(X_T, TIMES)


# Labels.

CLASSES = 2
WITH_CLASSES = dataclasses.replace(CONFIG, num_classes=CLASSES)
LABELLED = PARAMETERS | {"label.weight": normal(CLASSES + 1, D)}
LABELS = np.array([1, CLASSES, 1])  # none of class 0


def test_a_label_is_a_row_of_the_table() -> None:
    """Otherwise a class has the vector of another, or the null label that of a class."""
    table = normal(4, D)
    net = layer({"label.weight": table})
    assert_array_equal(net.label_embedding("label", np.array([3, 0, 3])), [table[3], table[0], table[3]])
    weights = np.array([[0.25, 0.0, 0.75, 0.0], [0.0, 0.0, 0.0, 1.0]])
    expected = [[0.25 * a + 0.75 * b for a, b in zip(table[0], table[2], strict=True)], table[3]]
    assert_array_equal(net.label_embedding("label", weights), expected)
    for wrong in ([4, 0], [-1, 0]):
        with pytest.raises(IndexError, match="of a table of 4 rows"):
            net.label_embedding("label", np.array(wrong))


def test_a_label_is_added_to_the_embedding_of_the_time() -> None:
    """Otherwise labels do nothing, or enter elsewhere than in the trees."""
    net, alone = Network(LABELLED, WITH_CLASSES), layer(PARAMETERS)
    output = net(X_T, TIMES, LABELS)
    # The same as another bias of the time's second layer, for each image its own.
    for i, label in enumerate(LABELS):
        moved = PARAMETERS | {"time_2.bias": PARAMETERS["time_2.bias"] + LABELLED["label.weight"][label]}
        alone = Network(moved, CONFIG)
        assert_allclose(alone(X_T[i : i + 1], TIMES[i : i + 1])[0], output[i], rtol=0, atol=2e-14)
    assert_array_equal(net.activations["label"], LABELLED["label.weight"][LABELS])
    assert_array_equal(net(X_T, TIMES), net(X_T, TIMES, np.repeat(CLASSES, 3)))
    assert_allclose(net(X_T, TIMES, np.eye(CLASSES + 1)[LABELS]), output, rtol=0, atol=2e-14)
    with pytest.raises(UserError, match=r"label\.weight"):
        Network(LABELLED, CONFIG)(X_T, TIMES)
    with pytest.raises(UserError, match="labels for a network without classes"):
        Network(PARAMETERS, CONFIG)(X_T, TIMES, LABELS)
    with pytest.raises(KeyError, match=r"label\.weight"):
        Network(PARAMETERS, WITH_CLASSES)(X_T, TIMES, LABELS)


# Gradients.

H = 1e-30


def derivative(
    function: Callable[[Mapping[str, Array]], Array], arrays: Mapping[str, Array], along: Mapping[str, Array]
):
    """Of function(arrays) in the direction `along`, by a complex step."""
    return np.imag(function({name: arrays[name] + 1j * H * along.get(name, 0) for name in arrays})) / H


LAYERS: dict[str, tuple[dict[str, Array], Callable[[Mapping[str, Array]], Array]]] = {
    "silu": ({}, lambda a: silu(a["x"])),
    "softmax": ({}, lambda a: softmax(a["x"])),
    "convolution": (leaf("c", 3, 4, 2, 3), lambda a: layer(a).convolution("c", a["x"])),
    "strided": (leaf("c", 3, 4, 3, 3), lambda a: layer(a).convolution("c", a["x"], stride=2)),
    "linear": (leaf("l", 3, 4), lambda a: layer(a).linear("l", a["x"])),
    "group_norm": (leaf("n", 4), lambda a: layer(a).group_norm("n", a["x"])),
    "residual_block": (
        residual("r", 4, 6) | {"emb": normal(2, D)},
        lambda a: layer(a).residual_block("r", a["x"], a["emb"]),
    ),
    "attention_block": (attention("a", 4), lambda a: layer(a).attention_block("a", a["x"])),
    "downsample": (leaf("d.conv", 3, 4, 3, 3), lambda a: layer(a).downsample("d", a["x"])),
    "upsample": (leaf("u.conv", 3, 4, 3, 3), lambda a: layer(a).upsample("u", a["x"], 7)),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_gradients_of_each_layer(kind: str) -> None:
    """Otherwise the gradients that both trees are held to are not those of the function."""
    parameters, function = LAYERS[kind]
    arrays = parameters | {"x": normal(2, 4, 4, 4)}
    w = normal(*function(arrays).shape)
    output, gradients = gradients_of(function, arrays, w)
    assert_array_equal(output, function(arrays))
    assert gradients.keys() == arrays.keys()
    for name, array in arrays.items():
        direction = normal(*array.shape)
        expected = np.sum(w * derivative(function, arrays, {name: direction}))
        assert_allclose(np.sum(gradients[name] * direction), expected, rtol=0, atol=5e-13, err_msg=name)


def test_loss_is_the_mean_over_all_elements() -> None:
    """Otherwise the loss is a sum, or Keras' mean over the last axis only, and the step is larger by as much."""
    loss, _ = loss_and_gradients(CONFIG, PARAMETERS, X_T, TIMES, EPS)
    squares = [(a - b) ** 2 for a, b in zip(EPS.ravel(), called().activations["conv_out"].ravel(), strict=True)]
    assert_allclose(loss, math.fsum(squares) / EPS.size, rtol=1e-15)


def test_gradients_of_the_whole_network() -> None:
    """Otherwise some parameter's gradient is wrong though each layer alone is right: it is reached by many ways."""
    _, gradients = loss_and_gradients(CONFIG, PARAMETERS, X_T, TIMES, EPS)
    assert {name: gradient.shape for name, gradient in gradients.items()} == {n: p.shape for n, p in PARAMETERS.items()}
    assert min(np.abs(gradient).max() for gradient in gradients.values()) > 1e-6  # every parameter matters

    def loss(parameters: Mapping[str, Array]) -> Array:
        return np.mean((EPS - Network(parameters, CONFIG)(X_T, TIMES)) ** 2)

    for _ in range(5):
        along = {name: normal(*parameter.shape) for name, parameter in PARAMETERS.items()}
        got = math.fsum(np.sum(gradients[name] * along[name]) for name in PARAMETERS)
        assert_allclose(got, derivative(loss, PARAMETERS, along), rtol=0, atol=4e-13)


def test_float32_input_costs_no_accuracy() -> None:
    """Otherwise a float32 tree is compared with a float32 oracle, and shares its roundings."""
    single = {name: parameter.astype(np.float32) for name, parameter in PARAMETERS.items()}
    double = {name: parameter.astype(np.float64) for name, parameter in single.items()}
    x_t, eps = X_T.astype(np.float32), EPS.astype(np.float32)
    got = loss_and_gradients(CONFIG, single, x_t, TIMES, eps)
    expected = loss_and_gradients(CONFIG, double, x_t.astype(np.float64), TIMES, eps.astype(np.float64))
    assert got[0] == expected[0]
    for name, gradient in got[1].items():
        assert gradient.dtype == np.float64
        assert_array_equal(gradient, expected[1][name])


@pytest.mark.parametrize("kind", ["silu", "softmax", "convolution", "linear", "group_norm"])
def test_float32_input_costs_no_accuracy_in_a_layer_alone(kind: str) -> None:
    """Otherwise a layer of a tree is compared with one that computes its mean or its sum in float32."""
    parameters, function = LAYERS[kind]
    single = {name: a.astype(np.float32) for name, a in parameters.items()} | {
        "x": normal(2, 4, 4, 4).astype(np.float32)
    }
    got, expected = function(single), function({name: array.astype(np.float64) for name, array in single.items()})
    assert got.dtype == np.float64
    assert_array_equal(got, expected)


def test_gradients_of_the_table_of_labels() -> None:
    """Otherwise the rows of the table are held to a wrong gradient; that of a class that is in no batch is nothing."""
    loss, gradients = loss_and_gradients(WITH_CLASSES, LABELLED, X_T, TIMES, EPS, LABELS)
    assert gradients.keys() == LABELLED.keys()
    table = gradients["label.weight"]
    assert_array_equal(table[0], np.zeros(D))
    assert np.abs(table[1:]).max(axis=1).min() > 1e-6

    def of(parameters: Mapping[str, Array]) -> Array:
        return np.mean((EPS - Network(parameters, WITH_CLASSES)(X_T, TIMES, LABELS)) ** 2)

    assert_allclose(loss, of(LABELLED), rtol=1e-15)
    for row in range(CLASSES + 1):
        along = {"label.weight": np.eye(CLASSES + 1)[row][:, None] * normal(D)}
        assert_allclose(np.sum(table * along["label.weight"]), derivative(of, LABELLED, along), rtol=0, atol=4e-13)
