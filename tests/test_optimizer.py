"""Warm-up, clipping, Adam and the moving average: both trees against the oracle and each other."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from ddpm_shared import reference

STEPS, RATE = 30, 1e-2
SHAPES = [(4, 3, 3, 2), (5, 4), (6,)]
# Absolute, for values of order 1. Seen: 1.1e-15 and 3.9e-7.
TOLERANCE = {"fp64": 1e-13, "fp32": 1e-6}


def gradients(step):
    """Gradients over four orders of magnitude, some of them tiny: where epsilon's place in Adam shows."""
    rng = np.random.default_rng(step)
    return [rng.standard_normal(shape) * 10.0 ** rng.integers(-9, -1, size=shape) for shape in SHAPES]


def start():
    return [np.random.default_rng(99).standard_normal(shape) for shape in SHAPES]


def variables(tree, arrays, precision):
    """Parameters as the tree holds them: leaf tensors or Keras variables."""
    dtype = np.float64 if precision == "fp64" else np.float32
    if tree.name == "torch":
        torch = tree.optimizer.torch
        return [torch.from_numpy(a.astype(dtype)).requires_grad_() for a in arrays]
    return [tree.optimizer.keras.Variable(a, dtype=dtype) for a in arrays]


def constants(tree, arrays, precision):
    dtype = np.float64 if precision == "fp64" else np.float32
    arrays = [a.astype(dtype) for a in arrays]
    return (
        [tree.optimizer.torch.from_numpy(a) for a in arrays]
        if tree.name == "torch"
        else [tree.optimizer.tf.constant(a) for a in arrays]
    )


def number(tree, value):
    """A changing scalar as the tree's train step passes it."""
    return value if tree.name == "torch" else tree.optimizer.tf.constant(value, tree.optimizer.tf.float64)


def arrays(values):
    return [(v.detach() if hasattr(v, "detach") else v).numpy() for v in values]


def run_adam(tree, precision):
    parameters = variables(tree, start(), precision)
    adam = tree.optimizer.Adam(parameters)
    for k in range(1, STEPS + 1):
        rate = tree.optimizer.warmup_learning_rate(k - 1, RATE, 10)
        adam.update(constants(tree, gradients(k), precision), number(tree, rate), number(tree, k))
    return arrays(parameters)


@pytest.mark.parametrize("precision", ["fp64", "fp32"])
def test_adam_equals_the_oracle(tree, precision):
    """Otherwise a learning rate from a paper means something else here."""
    rates = [reference.warmup_learning_rate(k, RATE, 10) for k in range(STEPS)]
    for index, (got, first) in enumerate(zip(run_adam(tree, precision), start(), strict=True)):
        want = reference.adam(first, [gradients(k)[index] for k in range(1, STEPS + 1)], rates)
        assert_allclose(got, want, rtol=0, atol=TOLERANCE[precision], err_msg=f"{tree.name} against the oracle")


@pytest.mark.parametrize("precision", ["fp64", "fp32"])
def test_adam_of_the_trees_agrees(both, precision):
    """Otherwise two runs part by the optimizer, the trap of Keras' own Adam."""
    a, b = (run_adam(tree, precision) for tree in both)
    for x, y in zip(a, b, strict=True):
        assert_allclose(x, y, rtol=0, atol=TOLERANCE[precision], err_msg="torch against tf")


@pytest.mark.parametrize("max_norm", [1e-3, 1e3])
@pytest.mark.parametrize("precision", ["fp64", "fp32"])
def test_clipping_equals_the_oracle(tree, precision, max_norm):
    """Otherwise each tensor is clipped alone, which is off by the root of their number."""
    want, want_norm = reference.clip_by_global_norm({str(i): g for i, g in enumerate(gradients(0))}, max_norm)
    got, norm = tree.optimizer.clip_by_global_norm(constants(tree, gradients(0), precision), max_norm)
    assert_allclose(float(norm), want_norm, rtol=TOLERANCE[precision])
    for x, y in zip(arrays(got), want.values(), strict=True):
        assert_allclose(x, y, rtol=TOLERANCE[precision])
    if max_norm == 1e3:  # a short gradient is left alone, to the last bit
        assert_array_equal(arrays(got)[0], arrays(constants(tree, gradients(0), precision))[0])


@pytest.mark.parametrize("precision", ["fp64", "fp32"])
def test_ema_equals_the_oracle(tree, precision):
    """Otherwise the pictures come from weights that lag a step behind, or that never forget their start."""
    values = [start()] + [gradients(k) for k in range(1, STEPS + 1)]
    averages, parameters = variables(tree, values[0], precision), variables(tree, values[0], precision)
    for k in range(1, STEPS + 1):
        parameters = variables(tree, values[k], precision)
        decay = tree.optimizer.warmup_ema_decay(k, 0.7)
        tree.optimizer.update_ema(averages, parameters, number(tree, decay))
    for index, got in enumerate(arrays(averages)):
        want = reference.ema([value[index] for value in values], 0.7)
        assert_allclose(got, want, rtol=0, atol=TOLERANCE[precision], err_msg=f"{tree.name} against the oracle")


def test_warm_ups_equal_the_oracle_exactly(tree):
    """Otherwise the first steps are too long, or step 0 stands still."""
    for step in range(15):
        rate = tree.optimizer.warmup_learning_rate(step, RATE, 10)
        assert rate == reference.warmup_learning_rate(step, RATE, 10)
        assert tree.optimizer.warmup_learning_rate(step, RATE, 0) == RATE
    assert tree.optimizer.warmup_ema_decay(1, 0.999) == 2 / 11
    assert tree.optimizer.warmup_ema_decay(10**6, 0.999) == 0.999
