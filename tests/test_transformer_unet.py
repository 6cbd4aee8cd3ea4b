"""The conditional score model's network: what each tree's must be by itself, its settings, and the oracle of it.

That all three compute the same, layer by layer, is test_parity.py's.
"""

import dataclasses
import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from ddpm_course import inside
from ddpm_parity.sides import draw, random_parameters
from ddpm_parity.tf_side import TensorFlow
from ddpm_parity.torch_side import Torch
from ddpm_parity.transformer import CLASSES, LABELLED, LABELS, SMALL, SPLIT, TRAINED, T, frequencies
from ddpm_shared import batches
from ddpm_shared import config as configs
from ddpm_shared.config import PRESETS, Config, ModelConfig
from ddpm_shared.errors import UserError
from ddpm_shared.oracle.layers import gelu
from ddpm_shared.oracle.networks import gradients_of
from ddpm_shared.oracle.transformer_unet import TransformerNetwork, fourier_features, loss_and_gradients
from ddpm_shared.parameters import fourier_frequencies
from ddpm_shared.records import checkpoint

# What a softmax over one key does not see: the query, the key, and the normalisation before the query.
QUERY_AND_KEY = ("cross_attention.query.weight", "cross_attention.query.bias", "cross_attention.key.weight")
UNSEEN = (*QUERY_AND_KEY, "transformer.norm_2.weight", "transformer.norm_2.bias")


def network_of(side, config=LABELLED):
    """A network at random weights."""
    network = side.network(config)
    side.assign(network, random_parameters(side.shapes(network)))
    return network


def images(config):
    return draw(len(T), config.image_size, config.image_size, config.image_channels)


# --- Cross-attention to one token ---------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp64", "fp32"])
@pytest.mark.parametrize(("tokens", "classes"), [(1, CLASSES), (2, CLASSES), (1, 0)])
def test_with_one_token_query_and_key_have_no_gradient_at_all(side_of, precision, tokens, classes):
    """Otherwise the flaw that we teach is not there, or rounding noise trains what has no effect; or 2 mends nothing.

    A softmax over one key is 1, whatever the query and the key are.
    """
    side, config = side_of(precision), dataclasses.replace(LABELLED, context_tokens=tokens, num_classes=classes)
    network, target = network_of(side, config), side.tensor(draw(*images(config).shape, seed=2))
    inputs = [side.tensor(images(config)), side.times(T), *([side.labels(LABELS)] if classes else [])]
    _, _, gradients, _ = side.value_and_gradients(network, inputs, lambda output: side.mean_square(target - output))
    dead = {name: gradient for name, gradient in gradients.items() if name.endswith(UNSEEN)}
    assert len(dead) == 2 * len(UNSEEN)  # two levels
    for name, gradient in dead.items():
        if tokens == 1:
            assert_array_equal(gradient, np.zeros_like(gradient), err_msg=name)
        else:
            assert np.abs(gradient).max() > 1e-6, name
    for name in gradients.keys() - dead.keys():
        assert np.abs(gradients[name]).max() > 0, f"{name} does nothing"


def test_an_image_without_a_label_has_nothing_to_choose_from_either(side_of):
    """Otherwise the second token is not the null label's, and guidance starts from another network."""
    side = side_of("fp64")
    network, x_t, t = network_of(side), side.tensor(images(LABELLED)), side.times(T)
    one = network_of(side, dataclasses.replace(LABELLED, context_tokens=1))  # the same weights: they go by name
    assert_allclose(side.array(network(x_t, t)), side.array(one(x_t, t)), rtol=0, atol=1e-12)
    given = side.labels(LABELS)
    assert np.abs(side.array(network(x_t, t, given)) - side.array(one(x_t, t, given))).max() > 1e-3


# --- Sizes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [28, 32, 20, 9])
def test_every_size_comes_back(side_of, size):
    """Otherwise only images of 28 x 28 can be trained, or a size that is odd on the way down comes back larger."""
    config = dataclasses.replace(PRESETS["score-transformer"].at(size), base_channels=4, image_channels=3)
    side = side_of("fp32")
    assert (
        side.array(network_of(side, config)(side.tensor(images(config)), side.times(T))).shape == images(config).shape
    )


@pytest.mark.parametrize(("mults", "attention"), [((1,), (10,)), ((1, 2), (10, 5)), ((1, 1, 2, 2, 3), (2, 1))])
def test_any_number_of_levels(side_of, mults, attention):
    """Otherwise --channel-mults is no choice."""
    config = dataclasses.replace(LABELLED, channel_mults=mults, attention_resolutions=attention)
    side = side_of("fp32")
    network = network_of(side, config)
    assert side.array(network(side.tensor(images(config)), side.times(T))).shape == images(config).shape
    transformers = {name.partition("transformer.")[0] for name in side.shapes(network) if "transformer." in name}
    assert transformers == {f"down.{2 * level}." for level in range(len(mults))[-2:]}


def test_each_image_is_its_own(side_of):
    """Otherwise an image depends on the batch that it is in."""
    side = side_of("fp64")
    network, x_t = network_of(side), images(LABELLED)
    whole = side.array(network(side.tensor(x_t), side.times(T), side.labels(LABELS)))
    for i in range(len(T)):
        alone = network(side.tensor(x_t[i : i + 1]), side.times(T[i : i + 1]), side.labels(LABELS[i : i + 1]))
        assert_allclose(side.array(alone)[0], whole[i], rtol=0, atol=1e-12)


def test_the_new_network_predicts_nothing(side_of):
    """Otherwise the first loss is not the variance of the noise, 1, from which all curves start."""
    side = side_of("fp32")
    out = side.array(side.network(LABELLED)(side.tensor(images(LABELLED)), side.times(T)))
    assert_array_equal(out, np.zeros_like(out))


def test_bf16_stays_close_to_float32(side_of):
    """Otherwise --precision bf16 is only a name, or rounds the time; bf16 keeps 8 bits, and 1 % was seen."""

    def predicted(side):
        return side.array(network_of(side)(side.tensor(images(LABELLED)), side.times(T), side.labels(LABELS)))

    full, half = (predicted(side_of(precision)) for precision in ("fp32", "bf16"))
    assert half.dtype == np.float32
    assert 1e-4 < np.abs(full - half).max() / np.abs(full).max() < 0.05


def test_labels_are_refused_without_classes(side_of):
    """Otherwise somebody draws a class from a network that never learned one, and gets any."""
    side, config = side_of("fp32"), dataclasses.replace(LABELLED, num_classes=0)
    with pytest.raises(UserError, match="this network was built without class labels"):
        side.network(config)(side.tensor(images(config)), side.times(T), side.labels(LABELS))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's compiler uses what PyTorch has deprecated
def test_a_compiled_network_computes_the_same(tree, side_of):
    """Otherwise --compile changes the model, not the time it takes."""
    side = side_of("fp32")
    network = network_of(side)
    inputs = side.tensor(images(LABELLED)), side.times(T), side.labels(np.eye(CLASSES + 1, dtype=np.float32)[LABELS])
    fast = side.array(tree.model.compiled(network, compile=True)(*inputs))
    assert_allclose(fast, side.array(network(*inputs)), rtol=0, atol=1e-5)


# --- The frequencies ----------------------------------------------------------------------------------------


def test_frequencies_have_the_stated_law():
    """Otherwise the scale is not the deviation, or networks of two precisions have two embeddings of the time."""
    drawn = fourier_frequencies(0, "fourier.frequencies", 20_000, 30.0)
    assert_allclose(drawn.std(), 30.0, rtol=0.02)  # its standard error is 0.5 %
    assert abs(drawn.mean()) < 1.0
    assert_allclose(np.mean(np.abs(drawn) < 30.0), 0.6827, atol=0.01)  # of a normal law
    assert_array_equal(drawn.astype(np.float32), drawn)
    assert_array_equal(fourier_frequencies(0, "fourier.frequencies", 10, 30.0), drawn[:10])
    assert not np.array_equal(fourier_frequencies(1, "fourier.frequencies", 10, 30.0), drawn[:10])
    assert not np.array_equal(fourier_frequencies(0, "other.frequencies", 10, 30.0), drawn[:10])


def buffers(tree, network):
    return {name: value.numpy() for name, value in tree.model.named_buffers(network).items()}


@pytest.mark.parametrize("precision", ["fp64", "fp32", "bf16"])
def test_frequencies_are_a_buffer_of_the_same_digits_in_every_precision(tree, side_of, precision):
    """Otherwise they are trained, or a network in bfloat16 has another embedding of the time."""
    side = side_of(precision)
    network = side.network(LABELLED, 5)
    assert list(buffers(tree, network)) == ["fourier.frequencies"]
    assert_array_equal(buffers(tree, network)["fourier.frequencies"], frequencies(LABELLED, 5))
    assert "fourier.frequencies" not in side.shapes(network)


def saved(tree, learner, path, step):
    state = {name: np.array(value) for name, value in learner.tensors().items()}
    checkpoint.save(path, state, framework=tree.framework, step=step, config=TRAINED, dataset_sha256="ab" * 32)
    return state


def test_frequencies_stay_as_they_were_drawn_and_go_with_the_checkpoint(tree, tmp_path):
    """Otherwise training moves them, the averaged network lacks them, or a resumed run draws others."""
    learner, drawn = tree.learner.Learner(TRAINED, 4), frequencies(SMALL, TRAINED.seed)
    for step in range(2):
        learner.train_step(batches.training_batch(SPLIT, TRAINED, step), step)
    for network in (learner.model, learner.ema_model):
        assert_array_equal(buffers(tree, network)["fourier.frequencies"], drawn)
    path = tmp_path / "a.safetensors"
    state = saved(tree, learner, path, 2)
    assert_array_equal(state["buffers/fourier.frequencies"], drawn)
    assert not [name for name in state if name.endswith("frequencies") and not name.startswith("buffers/")]

    other = tree.learner.Learner(dataclasses.replace(TRAINED, seed=TRAINED.seed + 1), 4)
    assert not np.array_equal(buffers(tree, other.model)["fourier.frequencies"], drawn)
    other.load(checkpoint.load(path))
    drawing = inside.layered(tree.model.load(checkpoint.load(path, ("ema",)), "ema", TRAINED))
    for network in (other.model, other.ema_model, *([drawing] if hasattr(drawing, "fourier") else [])):
        assert_array_equal(buffers(tree, network)["fourier.frequencies"], drawn)
    # Both go on alike.
    losses = [each.train_step(batches.training_batch(SPLIT, TRAINED, 2), 2) for each in (learner, other)]
    assert losses[0] == losses[1]


def test_a_checkpoint_of_one_framework_draws_the_same_in_the_other(both, tmp_path):
    """Otherwise the frequencies, a table or a kernel is read in another layout, or not at all."""
    outputs = []
    path = tmp_path / "a.safetensors"
    for tree, kind in zip(both, (Torch, TensorFlow), strict=True):
        side = kind("fp32")
        if not outputs:
            learner = tree.learner.Learner(TRAINED, 1)
            side.assign(learner.ema_model, random_parameters(side.shapes(learner.ema_model)))
            saved(tree, learner, path, 1)
        network = tree.model.load(checkpoint.load(path, ("ema",)), "ema", TRAINED)
        x_t, t, labels = side.tensor(images(LABELLED)), side.times(T), side.labels(np.eye(CLASSES + 1)[LABELS])
        outputs.append(side.array(network(x_t, t, labels)))
    assert_allclose(*outputs, rtol=0, atol=1e-5 * np.abs(outputs[0]).max())


# --- Settings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", range(1, 70))
def test_the_transformers_stay_at_the_two_deepest_levels(size):
    """Otherwise the preset fits images of 28 x 28 only, or attention moves to sizes where it costs a hundred times."""
    model = PRESETS["score-transformer"].at(size)
    assert set(model.attention_resolutions) == set(model.resolutions[-2:])
    assert model.at(28) == PRESETS["score-transformer"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"network": "vit"},
            "unknown network 'vit': choose one of unet, transformer_unet, residual_unet, simple_unet, denoise_net, dit",
        ),
        ({"context_tokens": 3}, "--context-tokens 3: must be at most 2"),
        ({"context_tokens": True}, "--context-tokens True: must be a whole number"),
        ({"fourier_scale": 0.0}, "--fourier-scale 0.0: must be positive and finite"),
        (
            {"network": "unet"},
            "--context-tokens 2: is for --network transformer_unet, and this is unet; leave it out, or take "
            "one of its presets",
        ),
        (
            {"network": "unet", "context_tokens": 1},
            "--fourier-scale 20.0: is for --network transformer_unet, and this is unet; leave it out, or take "
            "one of its presets",
        ),
        (
            {"num_res_blocks": 2},
            "--num-res-blocks 2: is for --network unet, and this is transformer_unet; leave it out, or take one of its "
            "presets",
        ),
        (
            {"attention_resolutions": (5,)},
            "--attention-resolutions (5,): transformer_unet has its transformers at the two deepest levels: give 5 3",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(values, message):
    """Otherwise a flag is silently ignored, and the run is another than the one that was asked for."""
    with pytest.raises(UserError) as refused:
        dataclasses.replace(LABELLED, **values)
    assert str(refused.value) == message


def test_settings_of_older_runs_are_a_unet_s():
    """Otherwise today's checkpoints cannot be read, or resumed."""
    values = configs.to_dict(Config())
    later = {key.removeprefix("model."): value for key, value in configs.LATER.items() if key.startswith("model.")}
    assert {"network", "context_tokens", "fourier_scale"} <= later.keys()
    for name, value in later.items():
        assert values["model"].pop(name) == value
    assert configs.from_dict(values, "here") == Config()
    assert ModelConfig().network == "unet"


# --- The oracle ---------------------------------------------------------------------------------------------

RNG = np.random.default_rng(0)


def layer(**parameters):
    """The oracle's network, for one layer alone."""
    return TransformerNetwork({name.replace("__", "."): value for name, value in parameters.items()}, LABELLED)


@pytest.mark.parametrize(("height", "width"), [(7, 7), (8, 8), (9, 4), (1, 2)])
def test_the_oracle_s_transposed_convolution_by_loops(height, width):
    """Otherwise three sides agree on a convolution that is a pixel off."""
    shape = (height + 1) // 2, (width + 1) // 2
    x, weight, bias = RNG.normal(size=(2, *shape, 3)), RNG.normal(size=(3, 4, 3, 3)), RNG.normal(size=4)
    expected = np.zeros((2, height, width, 4)) + bias
    for h, w, i, j in np.ndindex(*shape, 3, 3):
        p, q = 2 * h + i - 1, 2 * w + j - 1
        if 0 <= p < height and 0 <= q < width:
            expected[:, p, q] += x[:, h, w] @ weight[:, :, i, j]
    network = layer(up__conv__weight=weight, up__conv__bias=bias)
    assert_allclose(network.transposed_convolution("up", x, height, width), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("height", "width"), [(7, 7), (8, 8), (9, 4)])
def test_the_oracle_s_transposed_convolution_is_the_adjoint(height, width):
    """Otherwise it is not what its name says: <convolution(y), x> = <y, transposed_convolution(x)>."""
    weight, shape = RNG.normal(size=(3, 4, 3, 3)), ((height + 1) // 2, (width + 1) // 2)
    x, y = RNG.normal(size=(2, *shape, 3)), RNG.normal(size=(2, height, width, 4))
    down = layer(down__weight=weight).convolution("down", y, stride=2)
    up = layer(up__conv__weight=weight).transposed_convolution("up", x, height, width)
    assert_allclose(np.sum(down * x), np.sum(up * y), rtol=1e-13)


def test_the_oracle_s_gelu_and_features_are_their_definitions():
    """Otherwise three sides agree on the approximation by tanh, or on frequencies without 2 pi."""
    x = np.linspace(-6, 6, 61)
    assert_allclose(gelu(x), [v * (1 + math.erf(v / math.sqrt(2))) / 2 for v in x], rtol=1e-14, atol=1e-15)
    w, t = np.array([0.5, -30.0]), np.array([0.25, 1.0])
    expected = [[f(2 * math.pi * wi * ti) for f in (math.sin, math.cos) for wi in w] for ti in t]
    assert_allclose(fourier_features(t, w), expected, rtol=0, atol=1e-13)


def test_the_oracle_s_layer_norm_and_attention_by_loops():
    """Otherwise three sides normalise over the tokens, or weigh the wrong ones."""
    x, context, scale, bias = (RNG.normal(size=shape) for shape in ((2, 3, 4), (2, 5, 6), (4,), (4,)))
    normal = layer(n__weight=scale, n__bias=bias).layer_norm("n", x)
    for b, i in np.ndindex(2, 3):
        token = x[b, i]
        expected = (token - token.mean()) / math.sqrt(token.var() + 1e-5) * scale + bias
        assert_allclose(normal[b, i], expected, rtol=0, atol=1e-14)
    q, k, v = RNG.normal(size=(4, 4)), RNG.normal(size=(4, 6)), RNG.normal(size=(4, 6))
    attended = layer(a__query__weight=q, a__key__weight=k, a__value__weight=v).attention("a", x, context)
    for b, i in np.ndindex(2, 3):
        powers = [math.exp((q @ x[b, i]) @ (k @ other) / 2.0) for other in context[b]]  # sqrt(4) = 2
        expected = sum(p * (v @ other) for p, other in zip(powers, context[b], strict=True)) / sum(powers)
        assert_allclose(attended[b, i], expected, rtol=0, atol=1e-13)


def test_the_oracle_s_gradient_is_the_slope_of_its_loss(suite):
    """Otherwise three sides agree on a gradient that leads nowhere. Central differences, 1e-8 seen."""
    oracle = suite.sides["fp64"]["oracle"]
    parameters = random_parameters(oracle.shapes_of(lambda torch: torch.network(LABELLED)))
    own, target = frequencies(LABELLED, 0), draw(*images(LABELLED).shape, seed=2)
    arguments = own, images(LABELLED), T, target, LABELS
    loss, gradients = loss_and_gradients(LABELLED, parameters, *arguments)
    direction = {name: draw(*value.shape, seed=3) for name, value in parameters.items()}

    def moved(h):
        values = {name: value + h * direction[name] for name, value in parameters.items()}
        return float(np.mean((target - TransformerNetwork(values, LABELLED, own)(images(LABELLED), T, LABELS)) ** 2))

    assert_allclose(moved(0.0), loss, rtol=1e-14)
    slope = sum(float(np.sum(gradients[name] * direction[name])) for name in parameters)
    assert_allclose((moved(1e-5) - moved(-1e-5)) / 2e-5, slope, rtol=1e-6)


@pytest.mark.parametrize("change", [{"fourier.frequencies": np.zeros(12)}, {"time.bias": None}])
def test_the_oracle_refuses_parameters_that_do_not_fit(suite, change):
    """Otherwise a parameter that one side lacks, or has too much, is nobody's."""
    oracle = suite.sides["fp64"]["oracle"]
    parameters = random_parameters(oracle.shapes_of(lambda torch: torch.network(LABELLED))) | change
    values = {name: value for name, value in parameters.items() if value is not None}
    with pytest.raises(UserError, match=next(iter(change))):
        TransformerNetwork(values, LABELLED, frequencies(LABELLED, 0))(images(LABELLED), T)


def test_the_oracle_s_own_gradients_of_a_layer():
    """Otherwise gradients_of does not differentiate the error function."""
    output, gradient = gradients_of(lambda a: gelu(a["x"]), {"x": np.array([-1.0, 0.0, 2.0])})
    density = [math.exp(-x * x / 2) / math.sqrt(2 * math.pi) for x in (-1.0, 0.0, 2.0)]
    cdf = [(1 + math.erf(x / math.sqrt(2))) / 2 for x in (-1.0, 0.0, 2.0)]
    expected = [c + x * d for c, d, x in zip(cdf, density, (-1.0, 0.0, 2.0), strict=True)]
    assert_allclose(gradient["x"], expected, rtol=1e-13)
    assert_allclose(output, gelu(np.array([-1.0, 0.0, 2.0])))
