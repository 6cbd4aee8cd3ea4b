"""Warm-up, clipping and the moving average: what must hold to the last bit. The rest is test_parity.py's."""

import pytest
from numpy.testing import assert_array_equal

from ddpm_parity.sides import draw


@pytest.mark.parametrize("precision", ["fp64", "fp32"])
def test_a_short_gradient_is_left_alone(side_of, precision):
    """Otherwise clipping changes the last bit of every gradient, whether it is long or not."""
    side = side_of(precision)
    gradients = side.constants([draw(4, 3), draw(5, seed=1)])
    clipped, _ = side.optimizer.clip_by_global_norm(gradients, 1e3)
    for before, after in zip(gradients, clipped, strict=True):
        assert_array_equal(side.array(before), side.array(after))


def test_warm_ups_reach_their_ends(tree):
    """Otherwise step 0 stands still, the full rate comes a step late, or the average never forgets its start."""
    assert tree.optimizer.warmup_learning_rate(0, 1e-2, 10) == 1e-3
    assert tree.optimizer.warmup_learning_rate(8, 1e-2, 10) < 1e-2
    assert tree.optimizer.warmup_learning_rate(9, 1e-2, 10) == 1e-2
    assert tree.optimizer.warmup_learning_rate(0, 1e-2, 0) == 1e-2
    assert tree.optimizer.warmup_ema_decay(1, 0.999) == 2 / 11
    assert tree.optimizer.warmup_ema_decay(10**6, 0.999) == 0.999
