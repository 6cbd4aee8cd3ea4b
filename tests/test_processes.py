"""Levels and guidance: what is refused, what is the default, and what a denoiser from outside must bring.

That processes, samplers and guidance compute what they should is tests/parity's.
"""

from types import SimpleNamespace

import numpy as np
import pytest

from ddpm_shared.config import DiffusionConfig
from ddpm_shared.config.sampling import SAMPLER_FACTS
from ddpm_shared.errors import UserError


def test_the_processes_have_their_names(both):
    """Otherwise a process is in one tree only, or under a name of its own."""
    for tree in both:
        assert list(tree.processes.PROCESSES) == ["ddpm", "vp", "ve", "edm", "flow"]


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


def test_an_unknown_process_is_refused(tree):
    """Otherwise a misspelt name ends in a KeyError."""
    with pytest.raises(UserError, match=r"unknown process 'cosine': choose one of ddpm, vp, ve, edm, flow"):
        tree.processes.make_levels(DiffusionConfig(), [0.1, 0.2], "cosine")


@pytest.mark.parametrize("name", SAMPLER_FACTS)
def test_a_denoiser_needs_no_more_than_x_0_and_eps(tree, side_of, name):
    """Otherwise only our own networks can be sampled from. Here the data are one image, to which every sampler goes."""
    side, image = side_of("fp64"), 0.3
    levels = tree.processes.make_levels(DiffusionConfig(), np.linspace(0.1, 0.9, 5), "flow")

    def denoise(x, i):
        alpha, sigma = levels.level(i)
        return SimpleNamespace(x_0=0.0 * x + image, eps=(x - alpha * image) / sigma)

    start = side.tensor(np.random.default_rng(0).standard_normal((2, 3, 3, 1)))
    chain = list(tree.samplers.SAMPLERS[name](levels, denoise, start, lambda i: 0.5 * start))
    assert [i for i, _ in chain] == [4, 3, 2, 1, 0]
    np.testing.assert_allclose(side.array(chain[-1][1]), image, rtol=1e-12)


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
