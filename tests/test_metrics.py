"""The numbers that judge samples: against torch-fidelity and scikit-learn, closed forms, and sets of known relation.

Tolerances stand some 5 times above the worst difference seen; counts are equal.
"""

import importlib
import itertools
import math
import os
import sys
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import scipy.stats
from numpy.testing import assert_allclose
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import NearestNeighbors

from ddpm_shared.errors import UserError
from ddpm_shared.evaluation import metrics
from ddpm_shared.evaluation.inception import bare_package
from ddpm_shared.evaluation.metrics import Moments
from ddpm_shared.frameworks import installed

Array = np.ndarray


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def features(count: int, dimensions: int = 16, seed: int = 0) -> Array:
    """What a classifier's look like: correlated, and none below 0."""
    mixed = normal(count, dimensions, seed=seed) @ normal(dimensions, dimensions, seed=99)
    return (mixed + 0.5).clip(min=0)


@pytest.fixture(scope="module")
def fidelity() -> Any:
    """torch-fidelity's arithmetic, one module a metric, without its networks and files."""
    for name in ("torch", "torch_fidelity"):
        if not installed(name):
            (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{name} is not installed")
    with bare_package("torch_fidelity"):
        sys.modules["torch_fidelity.utils"] = MagicMock()  # imports torchvision, and the arithmetic calls none of it
        found = {
            name: importlib.import_module(f"torch_fidelity.metric_{name}") for name in ("fid", "kid", "isc", "prc")
        }
    return SimpleNamespace(**found, tensor=importlib.import_module("torch").from_numpy)


# --- Frechet distance ---------------------------------------------------------------------------------------


def distance(a: Array, b: Array) -> float:
    return metrics.frechet_distance(metrics.moments(a), metrics.moments(b))


@pytest.mark.parametrize(("count_a", "count_b", "dimensions"), [(500, 400, 16), (900, 1000, 128), (5, 7, 1)])
def test_frechet_distance_is_torch_fidelity_s(fidelity: Any, count_a: int, count_b: int, dimensions: int) -> None:
    """Otherwise our FID could not be held against one from any other program."""
    a, b = features(count_a, dimensions), 1.1 * features(count_b, dimensions, seed=1)
    if dimensions == 1:
        expected = (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2  # it knows no 1 x 1 matrix
    else:
        statistics = (fidelity.fid.fid_features_to_statistics(fidelity.tensor(each)) for each in (a, b))
        expected = fidelity.fid.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert_allclose(distance(a, b), expected, rtol=1e-12)


def test_moments_are_unbiased() -> None:
    """Otherwise FID of small sets would be off by 1 / N, and the kept moments of the reference another's."""
    mean, covariance = metrics.moments(features(50))
    assert_allclose(mean, features(50).mean(axis=0), rtol=1e-14)
    assert_allclose(covariance, np.cov(features(50), rowvar=False), rtol=0, atol=1e-13)


def test_frechet_distance_of_a_gaussian_and_its_linear_image_is_known() -> None:
    """Otherwise the trace of the root would be right only where the covariances commute, which those of images do not.

    A symmetric positive A is the gradient of a convex function, so x -> A x moves N(0, S) to N(0, A S A) the cheapest
    way (Brenier), and the cost E||x - A x||^2 = tr((1 - A) S (1 - A)) is the distance.
    """
    root, image = normal(12, 12), normal(12, 12, seed=1)
    covariance, moved = root @ root.T, image @ image.T / 12
    assert np.abs(covariance @ moved - moved @ covariance).max() > 1
    mean = normal(12, seed=2)
    rest = np.eye(12) - moved
    expected = np.trace(rest @ covariance @ rest) + np.sum(mean**2)
    got = metrics.frechet_distance(Moments(np.zeros(12), covariance), Moments(mean, moved @ covariance @ moved))
    assert_allclose(got, expected, rtol=1e-12)


def test_frechet_distance_moves_with_its_sets() -> None:
    """Otherwise it is no squared distance: 0 to itself, |v|^2 to itself moved by v, s^2 as much in another unit."""
    a, b, v = features(400), features(300, seed=1), normal(16, seed=3)
    own = distance(a, a)
    assert 0 <= own < 1e-12
    assert_allclose(distance(a, a + v), np.sum(v**2), rtol=1e-12)
    assert_allclose(distance(a, b), distance(b, a), rtol=1e-12)
    assert_allclose(distance(1000 * a, 1000 * b), 1e6 * distance(a, b), rtol=1e-12)


def test_features_that_are_always_zero_do_not_count() -> None:
    """Otherwise the singular covariances that dead units of a classifier make would yield NaN, or another distance."""
    a, b = features(400), features(300, seed=1)
    rotation = np.linalg.qr(normal(16, 16))[0]
    a[:, :3] = b[:, :3] = 0
    expected = distance(a[:, 3:], b[:, 3:])
    assert_allclose(distance(a, b), expected, rtol=1e-12)
    assert_allclose(distance(a @ rotation, b @ rotation), expected, rtol=1e-12)


# --- Kernel distance ----------------------------------------------------------------------------------------


def test_kernel_distance_of_whole_sets_is_torch_fidelity_s(fidelity: Any) -> None:
    """Otherwise our KID could not be held against one from any other program."""
    a, b = features(300), 1.1 * features(300, seed=1)
    expected = fidelity.kid.kid_features_to_metric(
        fidelity.tensor(a), fidelity.tensor(b), kid_subsets=1, kid_subset_size=300, verbose=False
    )["kernel_inception_distance_mean"]
    got = metrics.kernel_distance(a, b, subsets=3, subset_size=300)
    assert_allclose(got.mean, expected, rtol=1e-11)
    assert got.std < 1e-11 * got.mean, "a set has one subset of its own size, in whatever order"


def test_kernel_distance_is_its_definition() -> None:
    """Otherwise a point would be compared with itself, and two real sets would never be at distance 0."""
    a, b = normal(4, 3), normal(4, 3, seed=1)

    def kernel(x: Array, y: Array) -> float:
        return float(x @ y / 3 + 1) ** 3

    within = [kernel(x, y) for each in (a, b) for x, y in itertools.permutations(each, 2)]
    across = [kernel(x, y) for x, y in itertools.product(a, b)]
    expected = 2 * np.mean(within) - 2 * np.mean(across)
    assert_allclose(metrics.kernel_distance(a, b, subsets=1, subset_size=4).mean, expected, rtol=1e-13)


def test_kernel_distance_over_subsets_estimates_that_of_the_sets(fidelity: Any) -> None:
    """Otherwise the draw would prefer some images, or the spread would not be that of one subset's estimate."""
    a, b = features(600), 1.1 * features(500, seed=1)
    whole = metrics.kernel_distance(a[:500], b, subsets=1, subset_size=500).mean
    got = metrics.kernel_distance(a[:500], b, subsets=400, subset_size=50)
    assert abs(got.mean - whole) < 3 * got.std / math.sqrt(400)
    theirs = fidelity.kid.kid_features_to_metric(
        fidelity.tensor(a[:500]), fidelity.tensor(b), kid_subsets=400, kid_subset_size=50, verbose=False
    )
    assert_allclose(got.std, theirs["kernel_inception_distance_std"], rtol=0.15)  # both drawn: 1 / sqrt(2 400) each


def test_kernel_distance_of_one_distribution_is_zero_on_average() -> None:
    """Otherwise KID would have the bias that it was made to be without."""
    estimates = [
        metrics.kernel_distance(
            normal(40, 8, seed=2 * pair), normal(40, 8, seed=2 * pair + 1), subsets=1, subset_size=40
        ).mean
        for pair in range(300)
    ]
    assert abs(np.mean(estimates)) < 3 * np.std(estimates) / math.sqrt(300)
    assert min(estimates) < 0, "a biased estimate, a square, never is"


def test_kernel_distance_draws_what_the_seed_says() -> None:
    """Otherwise two evaluations of the same images would disagree, or subsets be larger than documented."""
    a, b = normal(2100, 2), normal(2200, 2, seed=1)
    assert metrics.kernel_distance(a, b, subsets=2) == metrics.kernel_distance(a, b, subsets=2, subset_size=1000)
    a, b = a[:300], b[:101]
    got = metrics.kernel_distance(a, b, subsets=5)
    assert got == metrics.kernel_distance(a, b, subsets=5, subset_size=50, seed=0)
    assert got != metrics.kernel_distance(a, b, subsets=5, seed=1)
    assert got.std > 0


@pytest.mark.parametrize(("count", "size"), [(9, 10), (9, 1), (3, None)])
def test_a_subset_that_cannot_be_drawn_is_refused(count: int, size: int | None) -> None:
    """Otherwise a division by 0, or NumPy's message on a population, would meet somebody who drew few samples."""
    with pytest.raises(UserError, match=f"a kernel distance of {count} features has subsets of 2 to {count}, not of"):
        metrics.kernel_distance(normal(count, 2), normal(20, 2), subset_size=size)


# --- Inception score ----------------------------------------------------------------------------------------


def test_inception_score_is_torch_fidelity_s(fidelity: Any) -> None:
    """Otherwise our score could not be held against one from any other program (that takes one split)."""
    logits = 3 * normal(500, 10)
    expected = fidelity.isc.isc_features_to_metric(fidelity.tensor(logits), splits=1)["inception_score_mean"]
    exponentials = np.exp(logits)
    got = metrics.inception_score(exponentials / exponentials.sum(axis=1, keepdims=True))
    assert_allclose(got, expected, rtol=1e-13)


def test_inception_score_runs_from_one_to_the_number_of_classes() -> None:
    """Otherwise the ends of the scale would not be where its docstring says, and zeros would make NaN."""
    assert_allclose(metrics.inception_score(np.eye(10).repeat(7, axis=0)), 10, rtol=1e-14)
    assert_allclose(metrics.inception_score(np.full((70, 10), 0.1)), 1, rtol=1e-14)
    assert_allclose(metrics.inception_score(np.eye(10)[np.zeros(70, int)]), 1, rtol=1e-14)  # sure, of one class
    half = np.eye(10)[[0, 0, 0, 1]]
    assert_allclose(metrics.inception_score(half), math.exp(scipy.stats.entropy([0.75, 0.25])), rtol=1e-14)


@pytest.mark.parametrize("rows", [normal(5, 10), np.full((5, 10), 0.2), np.tile([1.5, -0.5], (5, 1)), [[np.nan]]])
def test_an_inception_score_of_logits_is_refused(rows: Array) -> None:
    """Otherwise logits for probabilities would give a number that looks like a score."""
    with pytest.raises(UserError, match=r"probabilities|NaN"):
        metrics.inception_score(rows)


# --- Neighbours ---------------------------------------------------------------------------------------------


def by_scikit_learn(real: Array, generated: Array, k_balls: int, k_density: int) -> tuple[float, ...]:
    """(precision, recall, density, coverage) with all distances at once."""
    reach = {
        (which, k): NearestNeighbors(n_neighbors=k, algorithm="brute").fit(points).kneighbors()[0][:, -1]
        for which, points in (("real", real), ("generated", generated))
        for k in (k_balls, k_density)
    }
    across = pairwise_distances(generated, real)  # [M, N]
    inside = across <= reach["real", k_density]
    return (
        (across <= reach["real", k_balls]).any(axis=1).mean(),
        (across <= reach["generated", k_balls][:, None]).any(axis=0).mean(),
        inside.sum(axis=1).mean() / k_density,
        inside.any(axis=0).mean(),
    )


@pytest.mark.parametrize(("count_real", "count_generated"), [(1500, 2100), (2000, 999), (1001, 1000)])
@pytest.mark.parametrize(("k_balls", "k_density"), [(3, 5), (4, 1)])
def test_neighbour_metrics_are_scikit_learn_s(
    count_real: int, count_generated: int, k_balls: int, k_density: int
) -> None:
    """Otherwise a ball would reach to the wrong neighbour, or images on the border of a chunk be lost."""
    real, generated = features(count_real), features(count_generated, seed=1) + 0.5
    got = metrics.neighbour_metrics(real, generated, k_balls, k_density)
    assert_allclose(got, by_scikit_learn(real, generated, k_balls, k_density), rtol=1e-14)
    assert len(set(got)) == 4, "numbers that cannot be mistaken for each other"
    assert min(got) > 0.01


def test_precision_and_recall_are_torch_fidelity_s(fidelity: Any) -> None:
    """Otherwise ours could not be held against those from any other program, or would have changed places."""
    real, generated = features(600), features(500, seed=1) + 0.5
    theirs = fidelity.prc.prc_features_to_metric(fidelity.tensor(generated), fidelity.tensor(real), verbose=False)
    got = metrics.neighbour_metrics(real, generated)
    assert_allclose(got[:2], (theirs["precision"], theirs["recall"]), rtol=1e-7)  # means in float32


def test_neighbour_metrics_do_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the numbers would depend on a constant that is there for memory only."""
    real, generated = features(50), features(43, seed=1) + 0.2
    at_once = metrics.neighbour_metrics(real, generated)
    for rows in (1, 7, 43, 50):
        monkeypatch.setattr(metrics, "ROWS", rows)
        assert metrics.neighbour_metrics(real, generated) == at_once


@pytest.mark.parametrize(("unit", "offset"), [(1, 0), (1e-6, 0), (1, 1000)])
def test_a_set_is_its_own_perfect_copy(unit: float, offset: float) -> None:
    """Otherwise rounding would put copies outside balls: each holds its centre and k more, the k-th on its surface."""
    real = unit * features(1200) + offset
    shuffled = np.random.default_rng(0).permutation(real)
    assert metrics.neighbour_metrics(real, shuffled) == (1, 1, 6 / 5, 1)


def test_copies_are_inside_balls_of_no_size() -> None:
    """Otherwise real images that occur often would count as never drawn, though they were."""
    real = features(40, 128).repeat(10, axis=0)
    assert metrics.neighbour_metrics(real, real[::-1]) == (1, 1, 10 / 5, 1)
    assert metrics.neighbour_metrics(np.zeros((10, 4)), np.zeros((10, 4))) == (1, 1, 10 / 5, 1)


def test_the_surface_belongs_to_the_ball_and_what_is_beyond_does_not() -> None:
    """Otherwise what is forgiven to rounding would be more than rounding."""
    real = np.arange(10.0)[:, None]  # each one's neighbour is at distance 1
    for place, precision in ((10.0, 1), (10 + 1e-9, 0)):
        got = metrics.neighbour_metrics(real, np.full((10, 1), place), 1, 1)
        assert got.precision == precision
        assert got.coverage == precision / 10


def test_neighbour_metrics_do_not_depend_on_the_origin() -> None:
    """Otherwise features far from 0, as of a network with large biases, would lose their distances to rounding."""
    real, generated = features(300), features(200, seed=1) + 0.5
    assert metrics.neighbour_metrics(real + 1e6, generated + 1e6) == metrics.neighbour_metrics(real, generated)


def test_equal_distributions_have_the_known_coverage() -> None:
    """Otherwise a perfect model would not be told from a good one.

    None of M generated images is nearer than k of N - 1 real ones where the k nearest of all M + N - 1 are real.
    """
    got = metrics.neighbour_metrics(normal(2000, 8), normal(2000, 8, seed=1))
    missed = math.prod((1999 - i) / (3999 - i) for i in range(5))
    assert_allclose(missed, 2**-5, rtol=0.01)
    assert_allclose(got.coverage, 1 - missed, rtol=0, atol=0.01)
    assert_allclose(got.density, 1, rtol=0, atol=0.03)
    assert abs(got.precision - got.recall) < 0.02


def test_each_number_sees_its_own_failure() -> None:
    """Otherwise a model that forgets half of the data, or draws what is no data, would not be told which it does."""
    left, right = normal(500, 8), normal(500, 8, seed=1) + 100
    real = np.concatenate([left, right])
    half = metrics.neighbour_metrics(real, left)
    assert half.precision == 1
    assert half.recall == half.coverage == 0.5
    noisy = metrics.neighbour_metrics(left, real)
    assert noisy.precision == 0.5
    assert noisy.recall == noisy.coverage == 1
    assert metrics.neighbour_metrics(left, right) == (0, 0, 0, 0)


def test_one_image_drawn_again_and_again_is_precise_and_nothing_else() -> None:
    """Otherwise a model that draws one garment only would pass for one that knows them all."""
    real = normal(500, 8)
    got = metrics.neighbour_metrics(real, real[[7]].repeat(600, axis=0))
    assert (got.precision, got.recall) == (1, 1 / 500)  # the balls of identical images have no size
    assert got.coverage < 0.05


# --- Refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", [metrics.kernel_distance, metrics.neighbour_metrics])
def test_features_that_cannot_be_compared_are_refused(metric: Any) -> None:
    """Otherwise NumPy's word on broadcasting, or a NaN in evaluation.json, would be all that the user sees."""
    good, broken = normal(9, 4), normal(9, 4)
    broken[3, 2] = np.inf
    with pytest.raises(UserError, match=r"one D for all sets, got \[9, 4\] and \[9, 5\]"):
        metric(good, normal(9, 5))
    with pytest.raises(UserError, match="NaN or infinite"):
        metric(good, broken)


def test_too_few_features_are_refused() -> None:
    """Otherwise a covariance of one image would be NaN, and a fifth neighbour looked for among four."""
    with pytest.raises(UserError, match="2 or more images in every set, got 1"):
        metrics.moments(normal(1, 4))
    with pytest.raises(UserError, match="6 or more images in every set, got 5"):
        metrics.neighbour_metrics(normal(9, 4), normal(5, 4))
    with pytest.raises(UserError, match="moments of 4 and of 5 features"):
        distance(normal(9, 4), normal(9, 5))
    metrics.neighbour_metrics(normal(6, 4), normal(6, 4))
