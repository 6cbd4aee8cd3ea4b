"""The network: what each tree's must be by itself. That both compute the same, layer by layer, is test_parity.py's."""

import copy
import dataclasses
import importlib
import itertools
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from ddpm_course import inside
from ddpm_parity import labels
from ddpm_parity.labels import CLASSES
from ddpm_parity.labels import MODEL as LABELLED
from ddpm_parity.network import NETWORKS
from ddpm_parity.sides import draw, random_parameters
from ddpm_parity.suite import QUANTITIES
from ddpm_parity.tf_side import TensorFlow
from ddpm_parity.torch_side import Torch
from ddpm_shared import batches
from ddpm_shared.config import PRESETS, Config, TrainingConfig, with_preset
from ddpm_shared.config.sampling import Draw, Sampling
from ddpm_shared.datasets import Split
from ddpm_shared.errors import UserError
from ddpm_shared.parameters import initial_value
from ddpm_shared.records import checkpoint

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


def test_labels_are_refused(side_of):
    """Otherwise somebody draws a class from a network that never learned one, and gets any."""
    side = side_of("fp32")
    x_t = side.tensor(draw(2, 28, 28, 1))
    with pytest.raises(UserError, match="this network was built without class labels"):
        side.network(PRESETS["tiny"])(x_t, side.times(T), side.times(T))


def test_a_class_conditional_network_has_one_more_parameter(side_of):
    """Otherwise checkpoints of today's runs do not fit, or the table starts from other numbers than its name's."""
    side = side_of("fp32")
    plain, labelled = (side.network(dataclasses.replace(LABELLED, num_classes=k), seed=4) for k in (0, CLASSES))
    before, after = side.parameters(plain), side.parameters(labelled)
    assert after.keys() == before.keys() | {"label.weight"}
    for name, value in before.items():
        assert_array_equal(after[name], value)
    shape = (CLASSES + 1, 4 * LABELLED.base_channels)
    assert_array_equal(after["label.weight"], initial_value(4, "label.weight", shape).astype(np.float32))


def test_a_label_that_is_no_class_has_no_row(both):
    """Otherwise a wrong label takes a row of the table in one framework and another, or an error, in the other."""
    labels = np.array([0, CLASSES, -1, CLASSES + 1, 2])
    expected = np.zeros((5, CLASSES + 1))
    expected[[0, 1, 4], [0, CLASSES, 2]] = 1.0
    for kind, tree in ((Torch, both[0]), (TensorFlow, both[1])):
        side = kind("fp64")
        layers = tree.networks.layers
        assert_array_equal(side.array(layers.one_hot(side.labels(labels), CLASSES, side.dtype)), expected)
        assert_array_equal(side.array(layers.one_hot(side.labels(expected), CLASSES, side.dtype)), expected)
        embedding = side.block("LabelEmbedding", CLASSES, 8)
        table = draw(CLASSES + 1, 8)
        side.assign(embedding, {"weight": table})
        assert_array_equal(side.array(embedding(side.labels(labels))), expected @ table)


def test_no_labels_are_null_labels_to_the_last_bit(suite):
    """Otherwise guidance starts from a network that was trained as another, or its two halves differ by more."""
    quantities = [
        q for q in QUANTITIES if str(q) in ("labels: output, however given", "labels: output as commands call it")
    ]
    for quantity, precision, name in itertools.product(quantities, ("fp64", "fp32"), ("torch", "tf")):
        values = suite.compute(quantity, suite.sides[precision][name])
        assert_array_equal(values["none"], values["all null"])
        assert_array_equal(values["weights of one label"], values["labels"])
        changed = np.abs(values["labels"] - values["none"]).max(axis=(1, 2, 3))
        assert_array_equal(changed > 1e-3, labels.LABELS != labels.NULL)
        assert_array_equal(changed[labels.LABELS == labels.NULL], 0.0)


def test_a_class_that_is_in_no_batch_is_not_trained(suite):
    """Otherwise a row of the table moves with images of other classes, or the null label's is never trained."""
    (quantity,) = (q for q in QUANTITIES if str(q).startswith("labels: gradient of every parameter"))
    for name in ("torch", "tf", "oracle"):
        gradients = suite.compute(quantity, suite.sides["fp64"][name])
        rows = {name: value for name, value in gradients.items() if name.startswith("label.weight, ")}
        assert len(rows) == CLASSES + 1
        absent = rows.pop(f"label.weight, class {labels.ABSENT}")
        assert_array_equal(absent, np.zeros_like(absent))
        assert min(np.abs(row).max() for row in rows.values()) > 1e-4


def test_the_table_s_gradient_is_dense_in_tensorflow(both):
    """Otherwise it is a tf.IndexedSlices, which clipping, Adam and the sums over workers would treat otherwise."""
    tf = importlib.import_module("tensorflow")
    side = TensorFlow("fp32")
    embedding = side.block("LabelEmbedding", CLASSES, 8)
    for given in (labels.LABELS, labels.weights(labels.LABELS)):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(embedding(side.labels(given)) ** 2 + embedding(side.labels(given)))
        gradient = tape.gradient(loss, embedding.weight)
        assert isinstance(gradient, tf.Tensor)
        assert not isinstance(gradient, tf.IndexedSlices)


def test_drawing_with_and_without_labels_is_two_graphs(both, monkeypatch):
    """Otherwise TensorFlow traces the network anew for every batch size, every scale or every step."""
    side = TensorFlow("fp32")
    network = side.network(LABELLED)
    traces = []
    call = network.call
    monkeypatch.setattr(network, "call", lambda *inputs: traces.append(len(inputs)) or call(*inputs))
    compiled = side.model.compiled(network)
    config = side.configured(labels.CONFIG)
    for count, given in ((1, [0]), (3, [2, CLASSES, 1]), (2, None)):
        for scale in (0.0, 1.0, 2.5):
            drawn = Draw(0, 0, count, labels=None if given is None else np.array(given))
            guided = Sampling("ddim", 2, guidance=scale)
            assert side.sampling.Sampler(compiled, config_of_one(config), guided).draw(drawn).shape[0] == count
    mixed = Draw(0, 0, 2, labels=labels.weights(np.array([0, 1])))
    side.sampling.Sampler(compiled, config_of_one(config), Sampling("ddim", 2)).draw(mixed)
    assert len(traces) <= 2


def config_of_one(config):
    """`config` for a network that does not predict the variance."""
    return dataclasses.replace(config, diffusion=dataclasses.replace(config.diffusion, variance="fixed_small"))


def test_a_learner_draws_the_classes_that_it_is_given(tree):
    """Otherwise the pictures of a training show other classes than their names say, or none."""
    config = dataclasses.replace(config_of_one(labels.CONFIG), seed=3)
    learner = tree.learner.Learner(config, 1)
    side = {"torch": Torch, "tf": TensorFlow}[tree.name]("fp32")
    side.assign(learner.ema_model, random_parameters(side.shapes(learner.ema_model)))
    drawn = {}
    for first, given in ((0, [0, 1, 2]), (1, [1, 2]), (0, [1, 1, 1]), (0, None)):
        asked = None if given is None else np.array(given)
        drawn[first, str(given)] = learner.sample(3 - first, lambda i: None, first, labels=asked)
    apart = np.abs(drawn[0, "[0, 1, 2]"][1:].astype(int) - drawn[1, "[1, 2]"])
    assert apart.max() <= 1
    assert np.array_equal(drawn[0, "[0, 1, 2]"][1], drawn[0, "[1, 1, 1]"][1])
    for other in ("[1, 1, 1]", "None"):
        assert not np.array_equal(drawn[0, "[0, 1, 2]"][0], drawn[0, other][0])


def test_a_checkpoint_is_loaded_without_drawing_initial_values(tree, monkeypatch):
    """Otherwise a large network takes seconds to draw numbers that are overwritten at once."""
    from ddpm_shared import streams

    loaded = checkpoint.load(checkpoint.BOXED, ("ema",))
    config = dataclasses.replace(loaded.config, device="cpu")
    monkeypatch.setattr(streams, "generator", None)
    network = inside.layered(tree.model.load(loaded, "ema", config))
    side = {"torch": Torch, "tf": TensorFlow}[tree.name]("fp32")
    for name, value in side.parameters(network).items():
        assert_array_equal(value, loaded.tensors[f"ema/{name}"])


def test_every_variable_of_keras_needs_a_canonical_name(both):
    """Otherwise a new kind of layer is silently not seeded, trained, averaged or saved."""
    _, tf = both
    keras = importlib.import_module("keras")

    def network(**more):
        made = tf.networks.layers.Downsample(3, "float32")
        for name, layer in more.items():
            setattr(made, name, layer)
            if not layer.built:
                layer.build((None, 8))
        made.conv.build((None, None, None, 3))
        return made

    assert set(tf.model.named_parameters(network())) == {"conv.weight", "conv.bias"}
    for kind, layer in {
        "group_normalization": keras.layers.GroupNormalization(2),
        "embedding": keras.layers.Embedding(10, 8),
        "p_re_lu": keras.layers.PReLU(),
    }.items():
        with pytest.raises(AssertionError, match=rf"{kind}\S*/\S+ of Downsample has 0 canonical names, not one"):
            tf.model.named_parameters(network(layer=layer))
    with pytest.raises(AssertionError, match=r"batch_normalization\S*/moving_mean of Downsample has 0 canonical names"):
        tf.model.named_buffers(network(layer=keras.layers.BatchNormalization()))
    dense = keras.layers.Dense(4)
    with pytest.raises(AssertionError, match="has 2 canonical names, not one"):
        tf.model.named_parameters(network(first=dense, second=dense))


def test_a_layout_follows_from_the_kind_of_layer(both, monkeypatch):
    """Otherwise an embedding table [K, D], as long and as wide in both frameworks, is transposed like a linear map."""
    _, tf = both
    layers = importlib.import_module("keras").layers
    made = tf.networks.layers.Downsample(3, "float32")
    made.conv.build((None, None, None, 3))
    made.table, made.linear = layers.Embedding(10, 8), layers.Dense(8)
    made.table.build((None,))
    made.linear.build((None, 10))
    monkeypatch.setitem(tf.model.LEAVES, layers.Embedding, {"embeddings": ("weight", (0, 1))})
    named, layouts = tf.model.named_parameters(made), tf.model.layouts(made)
    shapes = {name: tf.model.canonical_shape(variable, layouts[name]) for name, variable in named.items()}
    assert shapes["table.weight"] == (10, 8)
    assert shapes["linear.weight"] == (8, 10)
    assert shapes["conv.weight"] == (3, 3, 3, 3)
    for name, variable in named.items():
        value = draw(*shapes[name])
        variable.assign(tf.model.from_canonical(value, layouts[name]))
        assert_array_equal(tf.model.to_canonical(variable.numpy(), layouts[name]), value.astype(np.float32))


def with_buffer(tree, monkeypatch):
    """Give the tree's U-Net a buffer, "counter.count", [2, 3] in canonical layout."""
    kind = tree.model.NETWORKS["unet"]
    if tree.name == "torch":
        torch = importlib.import_module("torch")

        class Counting(kind):
            def __init__(self, *arguments):
                super().__init__(*arguments)
                self.counter = torch.nn.Module()
                self.counter.register_buffer("count", torch.zeros(2, 3))
    else:
        keras = importlib.import_module("keras")

        class Counter(keras.layers.Layer):
            def __init__(self):
                super().__init__()
                self.count = self.add_weight(name="count", shape=(3, 2), trainable=False, initializer="zeros")

        class Counting(kind):
            def __init__(self, *arguments):
                super().__init__(*arguments)
                self.counter = Counter()
                self.counter.built = True

        monkeypatch.setitem(tree.model.LEAVES, Counter, {"count": ("count", (1, 0))})
    monkeypatch.setitem(tree.model.NETWORKS, "unet", Counting)


def test_buffers_go_with_the_network(tree, monkeypatch, tmp_path):
    """Otherwise running statistics are those of the start in the averaged network, or after a checkpoint."""
    with_buffer(tree, monkeypatch)
    config = with_preset(Config(device="cpu", training=TrainingConfig(batch_size=2)), "tiny")
    split = Split("noise", "train", np.zeros((4, 28, 28, 1), np.uint8), np.zeros(4, np.uint8), "")
    learner = tree.learner.Learner(config, 1)
    state = {name: np.array(value) for name, value in learner.tensors().items()}
    assert state["buffers/counter.count"].shape == (2, 3)
    assert len(state) == 4 * len(learner.names) + 1
    state["buffers/counter.count"] = np.arange(6, dtype=np.float32).reshape(2, 3)
    path = tmp_path / "a.safetensors"
    checkpoint.save(path, state, framework=tree.framework, step=1, config=config, dataset_sha256="ab" * 32)

    learner.load(checkpoint.load(path))
    side = {"torch": Torch, "tf": TensorFlow}[tree.name]("fp32")
    assert_array_equal(learner.tensors()["buffers/counter.count"], state["buffers/counter.count"])

    def buffers(network):
        layouts = tree.model.layouts(network) if tree.name == "tf" else {}
        values = {name: side.array(value) for name, value in tree.model.named_buffers(network).items()}
        return {name: value.transpose(layouts.get(name, (0, 1))) for name, value in values.items()}

    for network in (learner.ema_model, inside.layered(tree.model.load(checkpoint.load(path, ("ema",)), "ema", config))):
        assert_array_equal(buffers(network)["counter.count"], state["buffers/counter.count"])
    # A step copies what the network has by then.
    (buffer,) = tree.model.named_buffers(learner.model).values()
    (buffer.fill_ if tree.name == "torch" else lambda value: buffer.assign(np.full((3, 2), value)))(7.0)
    learner.train_step(batches.training_batch(split, config, 0), 0)
    assert_array_equal(buffers(learner.ema_model)["counter.count"], np.full((2, 3), 7.0))
    del state["buffers/counter.count"]
    with pytest.raises(UserError, match=r"buffers tensors in .* do not fit the network: missing counter\.count\."):
        learner.load(dataclasses.replace(checkpoint.load(path), tensors=state))


def test_a_copy_of_a_network_in_bf16_is_its_own(both):
    """Otherwise somebody who copies a network computes with the parameters of the first."""
    torch, _ = both
    first = torch.model.make_network(with_preset(Config(device="cpu", precision="bf16"), "tiny"), 0)
    second = copy.deepcopy(first)
    values = random_parameters({name: tuple(p.shape) for name, p in second.named_parameters()})
    Torch("fp32").assign(second, values)
    side = Torch("bf16")
    x_t, t = side.tensor(draw(2, 28, 28, 1)), side.times(T)
    assert not side.array(first(x_t, t)).any()
    assert side.array(second(x_t, t)).any()


def test_initial_values_have_the_stated_law():
    """Otherwise training starts from another variance than Glorot's."""
    value = initial_value(0, "conv.weight", (64, 32, 3, 3))
    limit = math.sqrt(3 / ((64 + 32) * 9 / 2))
    assert np.abs(value).max() <= limit
    # 18432 draws: the standard error of the variance of a uniform law is 0.66 % of it
    assert_allclose(value.var(), limit**2 / 3, rtol=0.03)
    assert not initial_value(0, "x.conv_2.weight", (4, 4, 3, 3), ("project.weight", "conv_2.weight")).any()
    assert initial_value(0, "x.conv_2.weight", (4, 4, 3, 3)).any()
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
from ddpm_torch.config import Config, ModelConfig
from ddpm_torch.model import compiled, make_network
config = Config(device="cpu", model=ModelConfig(base_channels=4, channel_mults=(1,), attention_resolutions=()))
model = make_network(config, seed=0)
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
