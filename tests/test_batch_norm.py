"""BatchNorm and the residual U-Net: what each tree's must be by itself, and the oracle of it.

That all three compute the same, layer by layer, is test_parity.py's.
"""

import dataclasses
import json
import math

import batch_norm as benchmark
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from ddpm_course import inside
from ddpm_parity.residual import (
    LABELLED,
    LABELS,
    NETWORKS,
    T,
    buffers,
    images_of,
    made,
    moments_of,
)
from ddpm_parity.residual_training import CONFIG as COMPARED
from ddpm_parity.sides import draw, random_parameters
from ddpm_parity.tf_side import TensorFlow
from ddpm_parity.torch_side import Torch
from ddpm_shared import batches
from ddpm_shared.config import PRESETS, DiffusionConfig
from ddpm_shared.datasets import Split
from ddpm_shared.errors import UserError
from ddpm_shared.oracle.layers import ACTIVATIONS, gelu_tanh, normalised
from ddpm_shared.oracle.residual_unet import ResidualNetwork, loss_and_gradients, running
from ddpm_shared.records import checkpoint

SPLIT = Split(
    "noise",
    "train",
    np.random.default_rng(1).integers(0, 256, size=(20, 10, 10, 1), dtype=np.uint8),
    np.arange(20, dtype=np.uint8) % 10,
    "ab" * 32,
)
CONFIG = dataclasses.replace(COMPARED, model=dataclasses.replace(COMPARED.model, channel_mults=(1, 2)))  # 10 and 5
STEPS = 6


def learner_of(tree, **changes):
    return tree.learner.Learner(dataclasses.replace(CONFIG, **changes), STEPS)


def trained(learner, first, last):
    """The losses of the steps first .. last - 1."""
    return [learner.train_step(batches.training_batch(SPLIT, CONFIG, step), step)[0] for step in range(first, last)]


def state_of(learner):
    return {name: value.copy() for name, value in learner.tensors().items()}


def moments_in(state):
    """What BatchNorm remembers, of a state; never nothing."""
    moments = {name: value for name, value in state.items() if name.startswith("buffers/")}
    assert moments
    return moments


def assert_same_state(ours, theirs):
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name].tobytes() != theirs[name].tobytes()] == []


def saved(tree, learner, path, step):
    checkpoint.save(
        path, state_of(learner), framework=tree.framework, step=step, config=learner.config, dataset_sha256="ab" * 32
    )
    return path


# --- Moments in training ------------------------------------------------------------------------------------


def test_a_resumed_run_ends_as_if_it_had_not_stopped(tree, tmp_path):
    """Otherwise the moments are lost or begin anew at a resume, and no resumed run draws what the whole one draws."""
    whole, begun, resumed = learner_of(tree), learner_of(tree), learner_of(tree)
    losses = trained(whole, 0, STEPS)
    first = trained(begun, 0, 3)
    resumed.load(checkpoint.load(saved(tree, begun, tmp_path / "a.safetensors", 3)))
    assert first + trained(resumed, 3, STEPS) == losses
    assert_same_state(state_of(resumed), state_of(whole))
    moments = moments_in(state_of(whole))
    assert all(np.abs(value - name.endswith("var")).max() > 1e-3 for name, value in moments.items()), "it moved"
    validation = [
        [loss for _, loss in each.validation_losses(batches.validation_batches(SPLIT, CONFIG))]
        for each in (whole, resumed)
    ]
    assert validation[0] == validation[1]


def test_the_other_framework_goes_on_and_draws(both, tmp_path):
    """Otherwise a checkpoint's moments are read by one framework alone, or in another order."""
    torch, tf = both
    for begins, goes_on in ((torch, tf), (tf, torch)):
        begun, other = learner_of(begins), learner_of(goes_on)
        trained(begun, 0, 3)
        path = saved(begins, begun, tmp_path / f"{begins.framework}.safetensors", 3)
        other.load(checkpoint.load(path))
        assert_same_state(state_of(other), state_of(begun))
        assert_allclose(trained(other, 3, 5), trained(begun, 3, 5), rtol=1e-5)
        ours, theirs = moments_in(state_of(begun)), moments_in(state_of(other))
        for name, value in ours.items():
            assert_allclose(theirs[name], value, rtol=0, atol=1e-4 * np.abs(value).max(), err_msg=name)
        loaded, drawn = checkpoint.load(path, ("ema",)), []
        for each, kind in ((torch, Torch), (tf, TensorFlow)):
            side = kind("fp32")
            x_t, t = side.tensor(draw(len(T), 10, 10, 1)), side.times(T)
            drawn.append(side.array(each.model.load(loaded, "ema", CONFIG)(x_t, t)))
        assert np.abs(drawn[0]).max() > 1e-4
        assert_allclose(*drawn, rtol=0, atol=1e-5 * np.abs(drawn[0]).max())


def test_the_averaged_network_has_the_moments_themselves(tree):
    """Otherwise they are averaged like weights, which BatchNorm has done already, and lag far behind."""
    learner = learner_of(tree)
    trained(learner, 0, 3)
    side = {"torch": Torch, "tf": TensorFlow}[tree.name]("fp32")
    ours, averaged = buffers(side, learner.model), buffers(side, learner.ema_model)
    for name in ours:
        assert_array_equal(averaged[name], ours[name], err_msg=name)
    state = state_of(learner)
    assert not [name for name in state if "running" in name and not name.startswith("buffers/")]
    assert len(moments_in(state)) == len(ours)


def test_only_a_step_changes_the_moments(tree, monkeypatch):
    """Otherwise a validation, a drawing or a look at the network in training changes what it draws afterwards."""
    learner = learner_of(tree)
    trained(learner, 0, 1)
    before = state_of(learner)
    side = {"torch": Torch, "tf": TensorFlow}[tree.name]("fp32")
    learner.model(side.tensor(3.0 + draw(len(T), 10, 10, 1)), side.times(T))
    assert list(learner.validation_losses(batches.validation_batches(SPLIT, CONFIG)))
    learner.sample(2, lambda i: None, labels=np.array([0, 1]))
    assert_same_state(state_of(learner), before)
    assert trained(learner, 1, 3) == trained_again(tree, 1, 3)


def trained_again(tree, first, last):
    return trained(learner_of(tree), 0, last)[first:]


def test_a_step_that_fails_changes_no_moments(tree, monkeypatch):
    """Otherwise a step that ran out of memory leaves moments of a batch that it never learned from."""
    learner = learner_of(tree)
    before = state_of(learner)

    def broken(*arguments):
        raise MemoryError("broken")

    with monkeypatch.context() as patch:
        patch.setattr(tree.learner, "clip_by_global_norm", broken)
        with pytest.raises(MemoryError):
            trained(learner, 0, 1)
    assert learner.whole
    assert_same_state(state_of(learner), before)
    assert trained(learner, 0, 2) == trained_again(tree, 0, 2)


def test_bf16_trains_with_moments_in_float32(tree):
    """Otherwise --precision bf16 averages moments in eight bits, where a tenth of a small change is lost."""
    full, half = learner_of(tree), learner_of(tree, precision="bf16")
    losses = trained(full, 0, 4), trained(half, 0, 4)
    assert_allclose(losses[1], losses[0], rtol=0.05)
    assert losses[1] != losses[0]
    ours, theirs = moments_in(state_of(full)), moments_in(state_of(half))
    for name, value in ours.items():
        assert theirs[name].dtype == np.float32
        assert_allclose(theirs[name], value, rtol=0, atol=0.05 * np.abs(value).max(), err_msg=name)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's compiler uses what PyTorch has deprecated
@pytest.mark.parametrize("tree", ["tf", pytest.param("torch", marks=pytest.mark.slow)], indirect=True)
def test_a_compiled_step_is_the_same(tree):
    """Otherwise --compile forgets the moments, or takes those of a trace."""
    plain, fast = learner_of(tree), learner_of(tree, compile=True)
    assert_allclose(trained(fast, 0, 3), trained(plain, 0, 3), rtol=1e-5)
    ours, theirs = moments_in(state_of(plain)), moments_in(state_of(fast))
    for name, value in ours.items():
        assert_allclose(theirs[name], value, rtol=0, atol=1e-4 * np.abs(value).max(), err_msg=name)
    losses = [
        [loss for _, loss in each.validation_losses(batches.validation_batches(SPLIT, CONFIG))]
        for each in (plain, fast)
    ]
    assert_allclose(losses[1], losses[0], rtol=1e-5)


# --- In training and in use ---------------------------------------------------------------------------------


def outputs(side, network, x_t, rows):
    return side.array(network(side.tensor(x_t[rows]), side.times(T[rows]), side.labels(LABELS[rows])))


def test_an_image_depends_on_its_batch_in_training_alone(side_of):
    """Otherwise what is drawn depends on what is drawn beside it; or in training the moments are not the batch's."""
    side = side_of("fp64")
    x_t = draw(*images_of(LABELLED))
    apart = {}
    for training in (True, False):
        network = made(side, LABELLED, training)
        whole = outputs(side, network, x_t, slice(None))
        alone = np.concatenate([outputs(side, network, x_t, slice(i, i + 1)) for i in range(len(T))])
        apart[training] = np.abs(alone - whole).max() / np.abs(whole).max()
    assert apart[False] < 1e-13
    assert apart[True] > 0.01


def test_a_loaded_network_is_in_use(tree, tmp_path):
    """Otherwise an evaluation or a drawing takes the moments of whatever is in its batch."""
    learner = learner_of(tree)
    trained(learner, 0, 3)
    path = saved(tree, learner, tmp_path / "a.safetensors", 3)
    side = {"torch": Torch, "tf": TensorFlow}[tree.name]("fp32")
    network = tree.model.load(checkpoint.load(path, ("ema",)), "ema", CONFIG)
    inputs = side.tensor(draw(len(T), 10, 10, 1)), side.times(T)
    assert_array_equal(side.array(network(*inputs)), side.array(learner.ema_network(*inputs)))
    for name, value in buffers(side, inside.layered(network)).items():
        assert_array_equal(value, state_of(learner)[f"buffers/{name}"])
    tree.model.set_training(learner.ema_model, True)
    other = side.array(learner.ema_model(*inputs))
    assert np.abs(side.array(network(*inputs)) - other).max() > 0.01 * np.abs(other).max()


def test_pytorch_s_own_layer_is_the_same(both):
    """Otherwise a network that was trained elsewhere in PyTorch gives other images here, or is trained otherwise."""
    torch = pytest.importorskip("torch")
    side = Torch("fp64")
    ours, theirs = side.block("BatchNorm", 5), torch.nn.BatchNorm2d(5).double()
    values = random_parameters(side.shapes(ours))
    for layer in (ours, theirs):
        side.assign(layer, values)
        layer.train()
    for seed in range(3):
        x = side.tensor(draw(2, 4, 3, 5, seed=seed))
        assert_allclose(side.array(ours(x)), side.array(theirs(x)), rtol=0, atol=1e-13)
        side.model.remember_moments(ours)
    for layer in (ours, theirs):
        layer.eval()
    assert_allclose(side.array(ours(x)), side.array(theirs(x)), rtol=0, atol=1e-13)


def test_keras_layer_is_another_by_default(both):
    """Otherwise we warn of a difference that is not there: its moments go on ten times as slowly, and are biased."""
    keras = pytest.importorskip("keras")
    side, x = TensorFlow("fp64"), draw(2, 4, 3, 5)
    theirs, ours = keras.layers.BatchNormalization(dtype="float64"), side.block("BatchNorm", 5)
    side.model.set_training(ours, True)
    outputs = theirs(side.tensor(x), training=True), ours(side.tensor(x))
    side.model.remember_moments(ours)
    ratio = math.sqrt((x.var((0, 1, 2)).min() + 1e-5) / (x.var((0, 1, 2)).min() + 1e-3))
    assert 1 - ratio > 1e-4
    assert np.abs(side.array(outputs[0]) / side.array(outputs[1]) - 1).max() == pytest.approx(1 - ratio, rel=1e-6)
    assert_allclose(theirs.moving_mean.numpy(), 0.01 * x.mean((0, 1, 2)), rtol=1e-9)
    assert_allclose(ours.running_mean.numpy(), 0.1 * x.mean((0, 1, 2)), rtol=1e-12)
    assert_allclose(theirs.moving_variance.numpy(), 0.99 + 0.01 * x.var((0, 1, 2)), rtol=1e-9)
    assert_allclose(ours.running_var.numpy(), 0.9 + 0.1 * x.var((0, 1, 2), ddof=1), rtol=1e-12)


# --- The network --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [28, 32, 9, 1])
def test_every_size_comes_back(side_of, size):
    """Otherwise only images of 28 x 28 can be trained, or an odd size on the way down comes back larger."""
    small = dataclasses.replace(PRESETS["residual-batchnorm"], base_channels=8, image_channels=3)
    config, side = small.at(size), side_of("fp32")
    network = made(side, config, True)
    output = side.array(network(side.tensor(draw(*images_of(config))), side.times(T)))
    assert output.shape == images_of(config)
    assert np.isfinite(output).all()


def test_the_new_network_predicts_nothing(side_of):
    """Otherwise the first loss is not the variance of the noise, 1, from which all curves start."""
    side = side_of("fp32")
    network = side.network(LABELLED)
    for training in (True, False):
        side.model.set_training(network, training)
        out = side.array(network(side.tensor(draw(*images_of(LABELLED))), side.times(T)))
        assert_array_equal(out, np.zeros_like(out))


def test_labels_are_refused_without_classes(side_of):
    """Otherwise somebody draws a class from a network that never learned one, and gets any."""
    side, config = side_of("fp32"), NETWORKS["without classes or attention"]
    with pytest.raises(UserError, match="this network was built without class labels"):
        side.network(config)(side.tensor(draw(*images_of(config))), side.times(T), side.labels(LABELS))


def test_time_and_label_enter_at_the_deepest_level_alone(tree, side_of):
    """Otherwise it is not the network that it is said to be, and what its habit costs is measured of another."""
    side = side_of("fp64")
    network = made(side, LABELLED, False)
    x_t, seen = side.tensor(draw(*images_of(LABELLED))), []
    for t, labels in ((T, LABELS), (T[::-1].copy(), LABELS[::-1].copy())):
        activations = side.watch(network)
        network(x_t, side.times(t), side.labels(labels))
        seen.append(dict(activations))
    same = {name for name in seen[0] if np.array_equal(seen[0][name], seen[1][name])}
    assert same == {name for name in seen[0] if name.startswith(("conv_in", "down."))}


# --- The oracle ---------------------------------------------------------------------------------------------

RNG = np.random.default_rng(0)


def layer(moments=None, config=LABELLED, **parameters):
    """The oracle's network, for one layer alone."""
    return ResidualNetwork({name.replace("__", "."): value for name, value in parameters.items()}, config, moments)


def test_the_oracle_s_batch_norm_by_loops():
    """Otherwise three sides agree on moments of one image, or of one pixel."""
    x, weight, bias = RNG.normal(size=(2, 3, 4, 5)), RNG.normal(size=5), RNG.normal(size=5)
    network = layer(n__weight=weight, n__bias=bias)
    normal = network.batch_norm("n", x)
    fixed = {"n.running_mean": RNG.normal(size=5), "n.running_var": RNG.uniform(1, 2, size=5)}
    in_use = layer(fixed, n__weight=weight, n__bias=bias).batch_norm("n", x)
    for c in range(5):
        values = [float(x[b, h, w, c]) for b, h, w in np.ndindex(2, 3, 4)]
        mean = sum(values) / 24
        squares = sum((value - mean) ** 2 for value in values)
        expected = (x[..., c] - mean) / math.sqrt(squares / 24 + 1e-5) * weight[c] + bias[c]
        assert_allclose(normal[..., c], expected, rtol=0, atol=1e-13)
        assert_allclose(network.batch_moments["n.running_mean"][c], mean, rtol=1e-13)
        assert_allclose(network.batch_moments["n.running_var"][c], squares / 23, rtol=1e-13)
        deviation = math.sqrt(fixed["n.running_var"][c] + 1e-5)
        expected = (x[..., c] - fixed["n.running_mean"][c]) / deviation * weight[c] + bias[c]
        assert_allclose(in_use[..., c], expected, rtol=0, atol=1e-13)


def test_the_oracle_s_moments_step_by_step():
    """Otherwise three sides agree on a momentum that is the other way round."""
    start, new = RNG.normal(size=3), RNG.normal(size=(4, 3))
    expected = start
    for each in new:
        expected = 0.9 * expected + 0.1 * each
    assert_allclose(running(start, list(new)), expected, rtol=1e-14)


def test_the_oracle_s_heads_by_loops():
    """Otherwise three sides agree on heads of the wrong channels, or on the wrong scale."""
    x, heads, each = RNG.normal(size=(2, 3, 6)), 2, 3
    q, k, v, p = (RNG.normal(size=(6, 6)) for _ in range(4))
    network = layer(a__query__weight=q, a__key__weight=k, a__value__weight=v, a__project__weight=p)
    attended = network.multi_head_attention("a", x, heads)
    for b, i in np.ndindex(2, 3):
        joined = []
        for head in range(heads):
            rows = slice(head * each, (head + 1) * each)
            powers = [math.exp((q[rows] @ x[b, i]) @ (k[rows] @ other) / math.sqrt(each)) for other in x[b]]
            joined.append(sum(w * (v[rows] @ other) for w, other in zip(powers, x[b], strict=True)) / sum(powers))
        assert_allclose(attended[b, i], p @ np.concatenate(joined), rtol=0, atol=1e-12)


def test_the_oracle_s_functions_are_their_definitions():
    """Otherwise three sides agree on another activation than the one that --activation names."""
    x = np.linspace(-6, 6, 61)
    assert_allclose(ACTIVATIONS["relu"](x), [max(v, 0.0) for v in x], rtol=0)
    assert_allclose(ACTIVATIONS["tanh"](x), [math.tanh(v) for v in x], rtol=1e-14)
    assert_allclose(ACTIVATIONS["silu"](x), [v / (1 + math.exp(-v)) for v in x], rtol=1e-12)
    assert_allclose(ACTIVATIONS["gelu"](x), [v * (1 + math.erf(v / math.sqrt(2))) / 2 for v in x], atol=1e-15)
    root = math.sqrt(2 / math.pi)
    approximated = [v * (1 + math.tanh(root * (v + 0.044715 * v**3))) / 2 for v in x]
    assert_allclose(gelu_tanh(x), approximated, rtol=0, atol=1e-15)
    assert 1e-4 < np.abs(gelu_tanh(x) - ACTIVATIONS["gelu"](x)).max() < 5e-4
    assert_allclose(normalised(np.array([[1.0, 3.0]]), 3.0), [[-0.5, 0.5]], rtol=1e-15)


@pytest.mark.parametrize("training", [True, False])
def test_the_oracle_s_gradient_is_the_slope_of_its_loss(suite, training):
    """Otherwise three sides agree on a gradient that takes the moments for constants. Central differences."""
    oracle = suite.sides["fp64"]["oracle"]
    shapes = oracle.shapes_of(lambda torch: torch.network(LABELLED))
    parameters, moments = random_parameters(shapes), None if training else moments_of(shapes)
    x_t, target = draw(*images_of(LABELLED), seed=1), draw(*images_of(LABELLED), seed=2)
    loss, gradients = loss_and_gradients(LABELLED, parameters, x_t, T, target, LABELS, moments)
    direction = {name: draw(*value.shape, seed=3) for name, value in parameters.items()}

    def moved(h):
        values = {name: value + h * direction[name] for name, value in parameters.items()}
        return float(np.mean((target - ResidualNetwork(values, LABELLED, moments)(x_t, T, LABELS)) ** 2))

    assert_allclose(moved(0.0), loss, rtol=1e-14)
    slope = sum(float(np.sum(gradients[name] * direction[name])) for name in parameters)
    assert_allclose((moved(1e-5) - moved(-1e-5)) / 2e-5, slope, rtol=1e-6)


@pytest.mark.parametrize("change", [{"down.0.conv_1.bias": np.zeros(8)}, {"time_1.bias": None}])
def test_the_oracle_refuses_parameters_that_do_not_fit(suite, change):
    """Otherwise a parameter that one side lacks, or has too much, is nobody's."""
    oracle = suite.sides["fp64"]["oracle"]
    parameters = random_parameters(oracle.shapes_of(lambda torch: torch.network(LABELLED))) | change
    values = {name: value for name, value in parameters.items() if value is not None}
    with pytest.raises(UserError, match=next(iter(change))):
        ResidualNetwork(values, LABELLED)(draw(*images_of(LABELLED)), T)


# --- The benchmark ------------------------------------------------------------------------------------------


def options(*checkpoints, **changes):
    return benchmark.Options(**{"checkpoints": tuple(map(str, checkpoints)), "batch_size": 10, "batches": 2} | changes)


def test_the_benchmark_compares_the_same_images_in_other_batches(tree, tmp_path, monkeypatch):
    """Otherwise the columns differ by the images in them, not by the moments; or the control has no equal columns."""
    monkeypatch.setattr("ddpm_shared.datasets.load", lambda name, data_dir=None, folder=None: (SPLIT, SPLIT))
    learner = learner_of(tree)
    trained(learner, 0, STEPS)
    batch_norm = saved(tree, learner, tmp_path / "a.safetensors", STEPS)
    control = learner_of(tree, model=dataclasses.replace(PRESETS["tiny"].at(10), num_classes=10))
    trained(control, 0, STEPS)
    group_norm = saved(tree, control, tmp_path / "b.safetensors", STEPS)
    out = tmp_path / "out"
    assert benchmark.run(options(batch_norm, group_norm, framework=tree.framework, out=str(out))) == 0
    ours, theirs = json.loads((out / "batch_norm.json").read_text())["networks"]
    assert (ours["batch_norm"], theirs["batch_norm"]) == (True, False)
    assert len({*map(tuple, ours["losses"].values())}) == 3
    for way in benchmark.MOMENTS:
        assert_allclose(theirs["losses"][way], theirs["losses"]["running"], rtol=1e-5)
    table = (out / "batch_norm.md").read_text()
    assert f"{ours['losses']['one t'][3]:.6f}" in table
    assert table.count("\n|") == 13


def test_a_mixed_batch_has_all_tenths_and_the_way_back_is_its_inverse():
    """Otherwise "mixed" is a batch of neighbouring times, or the errors are those of other images."""
    these = benchmark.pairs(SPLIT, CONFIG, options("x", batch_size=20, batches=3))
    assert these.t.shape == (10, 3, 20)
    assert all(len(np.unique(batch)) == 1 for batch in these.t.reshape(30, 20))
    mixed = these.mixed()
    for batch in mixed.t.reshape(30, 20):
        assert_array_equal(np.bincount(batch // 100, minlength=10), np.full(10, 2))
    assert_array_equal(these.back(mixed.t.astype(float)), these.t)
    assert_array_equal(these.back(mixed.eps[..., 0, 0, 0]), these.eps[..., 0, 0, 0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 15}, "--batch-size 15: must be a multiple of 10, and not 0"),
        ({"batches": 0}, "--batches 0: must be 1 or more"),
        ({"checkpoints": ()}, "checkpoints (): name one at least"),
    ],
)
def test_the_benchmark_refuses_what_it_cannot_measure(changes, message):
    """Otherwise it ends in a traceback, or in a table of something else."""
    with pytest.raises(UserError) as refused:
        options("x", **changes)
    assert str(refused.value) == message


@pytest.mark.parametrize("tree", ["torch"], indirect=True)
def test_the_benchmark_refuses_networks_that_it_cannot_compare(tree, tmp_path):
    """Otherwise the error of another prediction stands in a table of errors of the noise."""
    learner = learner_of(tree, diffusion=DiffusionConfig(prediction="v"))
    path = saved(tree, learner, tmp_path / "a.safetensors", 1)
    with pytest.raises(UserError, match="a network of process ddpm that predicts v; this compares eps of ddpm"):
        benchmark.run(options(path, out=str(tmp_path / "out")))
    few = dataclasses.replace(CONFIG, diffusion=DiffusionConfig(timesteps=5))
    with pytest.raises(UserError, match="--timesteps 5: a table of tenths needs 10 or more"):
        benchmark.pairs(SPLIT, few, options("x"))
