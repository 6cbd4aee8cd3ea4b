"""Warm-up, clipping and the moving average: what must hold to the last bit. The rest is test_parity.py's."""

from dataclasses import replace

import pytest
from numpy.testing import assert_array_equal

from ddpm_parity.sides import draw
from ddpm_shared.config import TrainingConfig


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
    rate = tree.optimizer.scheduled_learning_rate
    settings = TrainingConfig(learning_rate=1e-2, warmup_steps=10, learning_rate_decay="none")
    assert [rate(step, 100, settings) for step in (0, 9, 99)] == [1e-3, 1e-2, 1e-2]
    assert rate(8, 100, settings) < 1e-2
    assert rate(0, 100, replace(settings, warmup_steps=0)) == 1e-2
    assert tree.optimizer.warmup_ema_decay(1, 0.999) == 2 / 11
    assert tree.optimizer.warmup_ema_decay(10**6, 0.999) == 0.999


@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_the_learning_rate_decays_from_where_it_should_to_where_it_should(tree, decay):
    """Otherwise a run's last steps, which make most of its quality, are as long as its first."""
    settings = TrainingConfig(
        learning_rate=1e-2, warmup_steps=0, learning_rate_decay=decay, decay_start=0.25, final_learning_rate=0.02
    )
    rates = [tree.optimizer.scheduled_learning_rate(step, 1000, settings) for step in range(1001)]
    assert rates[:251] == [1e-2] * 251
    assert rates[250:] == sorted(rates[250:], reverse=True)
    assert rates[-1] == pytest.approx(2e-4, rel=1e-12)
    assert rates[625] == pytest.approx(0.51e-2, rel=1e-12)  # half-way, both kinds meet
