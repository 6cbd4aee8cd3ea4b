"""Training itself: twenty steps of the two trees from one seed, number by number."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from ddpm_shared import datasets
from ddpm_shared.config import Config, ModelConfig, TrainingConfig

STEPS = 20
# Relative in losses and norms, absolute in weights of order 1. Seen: 4e-16 and 2.3e-7.
TOLERANCE = {"fp64": 1e-13, "fp32": 2e-6}
# Two channels a group: with one, GroupNorm takes out the bias before it, whose gradient is then rounding noise, and
# Adam makes 2.4e-4 of that in the float32 weights within these twenty steps.
NETWORK = ModelConfig(
    base_channels=8, channel_mults=(1, 2, 2), num_res_blocks=1, attention_resolutions=(7,), num_groups=4
)


@pytest.fixture(scope="module")
def pixels():
    train, test = datasets.load("fashion-mnist-10k")
    return train.images, test.images[:40]


def run(tree, precision, pixels):
    settings = TrainingConfig(batch_size=16, learning_rate=1e-3, warmup_steps=5)
    config = Config(seed=1, precision=precision, device="cpu", model=NETWORK, training=settings)
    learner = tree.train.Learner(config)
    steps = [learner.train_step(pixels[0], step) for step in range(STEPS)]
    return np.array(steps), learner.tensors(), list(learner.validation_losses(pixels[1]))


@pytest.mark.parametrize("precision", ["fp64", "fp32"])
def test_twenty_steps_agree(both, precision, pixels):
    """Otherwise a learner who overlays two runs sees two experiments: other batches, weights, noise or optimizer."""
    (steps_a, tensors_a, validation_a), (steps_b, tensors_b, validation_b) = (
        run(tree, precision, pixels) for tree in both
    )
    tolerance = TOLERANCE[precision]
    assert_allclose(steps_a, steps_b, rtol=tolerance, err_msg="loss, gradient norm, learning rate")
    assert steps_a[-1, 0] < 0.98 * steps_a[0, 0]  # and they do learn
    assert list(tensors_a) == list(tensors_b)
    for name in tensors_a:
        assert tensors_a[name].dtype == (np.float64 if precision == "fp64" else np.float32)
        assert_allclose(tensors_a[name], tensors_b[name], rtol=0, atol=tolerance, err_msg=name)
    assert [count for count, _ in validation_a] == [16, 16, 8]
    assert_allclose(validation_a, validation_b, rtol=tolerance)
