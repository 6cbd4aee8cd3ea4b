"""Levels and guidance: what is refused, what is the default, and what a denoiser from outside must bring.

That processes, samplers and guidance compute what they should is tests/parity's.
"""

from types import SimpleNamespace

import numpy as np
import pytest

from ddpm_shared.config import DiffusionConfig
from ddpm_shared.config.processes import PROCESS_FACTS
from ddpm_shared.config.samplers import SAMPLER_FACTS
from ddpm_shared.errors import UserError


def test_the_processes_have_their_names(both):
    """Otherwise a process is in one tree only, or under a name of its own."""
    for tree in both:
        assert list(tree.processes.PROCESSES) == list(PROCESS_FACTS)


def test_levels_are_made_of_two_arrays(tree):
    """Otherwise whoever has a schedule of his own cannot use the samplers."""
    levels = tree.processes.Levels([0.9, 0.5, 0.0], [0.1, 0.5, 1.0])
    assert len(levels) == 3
    assert levels.alpha.dtype == levels.sigma.dtype == np.float64
    np.testing.assert_array_equal(levels.times, [0, 1, 2])
    assert levels.level(-1) == (1.0, 0.0)
    assert levels.level(1) == (0.5, 0.5)
    assert levels.decay(0) == levels.decay(2) == 0.0  # the clean image, and pure noise
    assert levels.step(0) == levels.step(2) == np.inf
    assert levels.step(1) == pytest.approx(np.log(9.0))  # from alpha / sigma = 1 to 9


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (([], []), "one alpha, one sigma and one time each"),
        (([0.9, 0.5], [0.1]), "one alpha, one sigma and one time each"),
        (([0.9, 0.5], [0.1, 0.5], [0.0]), "one alpha, one sigma and one time each"),
        (([0.5, 0.9], [0.5, 0.1]), "must ascend in noise"),
        (([0.9, 0.9], [0.1, 0.1]), "must ascend in noise"),
        (([1.0, 0.9], [0.0, 0.1]), "must ascend in noise"),
        (([0.9, -0.1], [0.1, 1.0]), "must ascend in noise"),
        (([0.9, np.nan], [0.1, 1.0]), "must ascend in noise"),
    ],
)
def test_impossible_levels_are_refused(tree, arrays, message):
    """Otherwise a sampler divides by zero, or goes from little noise to more and calls it an image."""
    with pytest.raises(UserError, match=message):
        tree.processes.Levels(*arrays)


def test_levels_may_be_in_any_order_where_it_is_said(tree):
    """Otherwise the levels beside those of the steps, as of churn, cannot be made; noise must be there all the same."""
    levels = tree.processes.Levels([0.5, 0.9], [0.5, 0.1], ordered=False)
    assert levels.level(0) == (0.5, 0.5)
    with pytest.raises(UserError, match="with sigma above 0"):
        tree.processes.Levels([0.5, 0.9], [0.5, 0.0], ordered=False)


def test_levels_without_derivatives_have_none(tree):
    """Otherwise the solvers in t step by a derivative that is not there, or of another level."""
    levels = tree.processes.make_levels(DiffusionConfig(), [0.25, 0.5], "flow")
    assert levels.rates(1) == (-1.0, 1.0)
    with pytest.raises(UserError, match="these levels have no derivatives by t"):
        tree.processes.Levels([0.9, 0.5], [0.1, 0.5]).rates(1)


def test_an_unknown_process_is_refused(tree):
    """Otherwise a misspelt name ends in a KeyError."""
    with pytest.raises(
        UserError, match=r"unknown process 'cosine': choose one of ddpm, vp, sub_vp, ve, ve_exponential, edm, flow"
    ):
        tree.processes.make_levels(DiffusionConfig(), [0.1, 0.2], "cosine")


@pytest.mark.parametrize("name", SAMPLER_FACTS)
def test_a_denoiser_needs_no_more_than_x_0_and_eps(tree, side_of, name):
    """Otherwise only our own networks can be sampled from. Here the data are one image, to which every sampler goes.

    The solvers of the SDE end in the mean of a step, which leaves a part of the last noise.
    """
    side, image = side_of("fp64"), 0.3
    process = "flow" if "flow" in SAMPLER_FACTS[name].processes else "vp"
    times = np.linspace(0.1, 0.9, 5) if process == "flow" else np.linspace(0.001, 0.9, 50)
    levels = tree.processes.make_levels(DiffusionConfig(), times, process)

    def knows(at):
        def denoise(x, i):
            alpha, sigma = at.level(i)
            return SimpleNamespace(x_0=0.0 * x + image, eps=(x - alpha * image) / sigma)

        return denoise

    start, options = side.tensor(np.random.default_rng(0).standard_normal((2, 3, 3, 1))), {}
    if name == "rk4":
        middle = tree.processes.make_levels(DiffusionConfig(), times - 0.05, process)
        options["middle"] = tree.solvers.Waypoints(middle, knows(middle))
    if name == "pc":
        options["corrector_z_at"] = lambda i, k: 0.5 * start
    chain = list(tree.samplers.SAMPLERS[name](levels, knows(levels), start, lambda i: 0.5 * start, **options))
    assert [i for i, _ in chain] == list(reversed(range(len(times))))
    tolerance = {"atol": 0.02} if process == "vp" else {"rtol": 1e-12}
    np.testing.assert_allclose(side.array(chain[-1][1]), image, **tolerance)


@pytest.mark.parametrize("scale", [-0.5, np.inf, np.nan])
def test_an_impossible_guidance_scale_is_refused(tree, scale):
    """Otherwise guidance away from what was asked for, or a picture of NaN."""
    with pytest.raises(UserError, match="the guidance scale must be 0 or more and finite"):
        tree.guidance.condition(lambda x_t, t, labels=None: x_t, None, scale)


def test_scales_0_and_1_cost_one_evaluation(tree, side_of):
    """Otherwise sampling without guidance takes twice as long."""
    side, calls = side_of("fp64"), []

    def network(x_t, t, labels=None):
        calls.append(labels)
        return x_t

    x = side.tensor(np.zeros((2, 3, 3, 1)))
    for scale, expected in ((0.0, [None]), (1.0, ["labels"]), (2.0, ["labels", None])):
        calls.clear()
        tree.guidance.condition(network, "labels", scale)(x, None)
        assert calls == expected
