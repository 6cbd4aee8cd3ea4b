"""Randomness: every draw is a function of (seed, stream, step) and, for noise, of the image; and it is random.

The moments are compared with bounds of 5 standard deviations of their estimate: the draws are fixed, so such a test
passes for ever or never, and a correct generator has a chance of 6e-7 to fail it.
"""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from ddpm_shared import streams
from ddpm_shared.errors import UserError

NAMES = [value for name, value in vars(streams).items() if name.isupper() and isinstance(value, str)]
IMAGE = (28, 28, 1)


def noise(seed=3, stream=streams.TRAIN_EPS, step=5, count=2, first=4):
    return streams.normal(seed, stream, step, (count, *IMAGE), first)


def all_kinds(seed, step):
    return [
        noise(seed, step=step),
        streams.timesteps(seed, streams.TRAIN_T, step, 50, 1000),
        streams.uniform(seed, streams.TRAIN_U, step, 50),
        streams.flips(seed, step, 50),
        streams.drops(seed, step, 500, 0.3),
        streams.batch_indices(seed, step, 500, 50),
    ]


def test_a_draw_is_the_same_whatever_was_drawn_before():
    """Otherwise the two frameworks, or a run and its resumption, see other batches and noise."""
    first = all_kinds(seed=3, step=5)
    all_kinds(seed=4, step=6)
    noise(step=7, count=9)
    for a, b in zip(first, all_kinds(seed=3, step=5), strict=True):
        assert_array_equal(a, b)


@pytest.mark.parametrize("change", [{"seed": 4}, {"stream": streams.SAMPLE_Z}, {"step": 6}, {"first": 6}])
def test_another_coordinate_gives_other_noise(change):
    """Otherwise seeds, streams, steps or images repeat each other's noise, and the loss is one of fewer draws."""
    assert not np.isin(noise(**change), noise()).any()


def test_step_and_image_are_not_interchangeable():
    """Otherwise image 2 of step 1 has the noise of image 1 of step 2."""
    assert not np.isin(noise(step=1, first=2, count=1), noise(step=2, first=1, count=1)).any()


def test_every_kind_of_draw_depends_on_seed_and_step():
    """Otherwise every step trains on the same t, or every seed makes the same batches."""
    for other in (all_kinds(seed=4, step=5), all_kinds(seed=3, step=6)):
        for a, b in zip(all_kinds(seed=3, step=5), other, strict=True):
            assert not np.array_equal(a, b)


def test_no_two_streams_are_one():
    """Otherwise validation uses the noise of training, or the sampler's z is its x_T."""
    assert len(NAMES) == 20
    assert len(set(NAMES)) == len(NAMES)
    draws = [streams.generator(0, name).standard_normal(100) for name in NAMES]
    assert len(np.unique(draws)) == 100 * len(NAMES)


def test_neighbouring_cells_do_not_run_into_each_other():
    """Otherwise the noise of one image is that of the next, shifted: the counter has no room between two cells."""
    long = streams.generator(0, streams.TRAIN_EPS, step=0, index=0).integers(0, 2**63, size=100_000)
    for step, index in [(0, 1), (1, 0)]:
        assert not np.isin(
            streams.generator(0, streams.TRAIN_EPS, step, index).integers(0, 2**63, size=1000), long
        ).any()


def test_the_noise_of_an_image_does_not_depend_on_its_batch():
    """Otherwise samples change with --batch-size, and workers that share a batch draw other noise than one alone."""
    whole = noise(count=10, first=0)
    assert_array_equal(noise(count=4, first=3), whole[3:7])
    assert_array_equal(noise(count=1, first=9), whole[9:])


def test_a_longer_draw_of_t_begins_with_the_shorter():
    """Otherwise an image's t in the validation loss depends on the batch size (batches.validation_batches)."""
    whole = streams.timesteps(0, streams.VALIDATION_T, 0, 101, 1000)
    u = streams.uniform(0, streams.VALIDATION_U, 0, 101)
    for count in (1, 2, 33, 100):
        assert_array_equal(streams.timesteps(0, streams.VALIDATION_T, 0, count, 1000), whole[:count])
        assert_array_equal(streams.uniform(0, streams.VALIDATION_U, 0, count), u[:count])


@pytest.mark.parametrize(("num_images", "batch_size"), [(10, 3), (12, 4), (7, 7), (5, 1), (1000, 128)])
def test_an_epoch_shows_every_image_at_most_once(num_images, batch_size):
    """Otherwise some images are learned twice an epoch and others not at all."""
    steps = num_images // batch_size
    for epoch in range(3):
        batches = [streams.batch_indices(0, epoch * steps + step, num_images, batch_size) for step in range(steps)]
        assert [len(batch) for batch in batches] == [batch_size] * steps
        seen = np.concatenate(batches)
        assert len(np.unique(seen)) == steps * batch_size
        assert seen.min() >= 0
        assert seen.max() < num_images


def test_epochs_are_shuffled_anew_and_leave_out_other_images():
    """Otherwise every epoch has the same batches, and the images beyond the last whole batch are never seen."""
    epochs = [np.concatenate([streams.batch_indices(0, 3 * e + s, 10, 3) for s in range(3)]) for e in range(40)]
    assert len({tuple(epoch) for epoch in epochs}) == 40  # of 3.6 million orders
    left_out = {(set(range(10)) - set(epoch.tolist())).pop() for epoch in epochs}
    assert len(left_out) == 10


def test_a_batch_may_be_changed_by_who_drew_it():
    """Otherwise sorting one batch in place reorders the rest of its epoch for everybody."""
    before = streams.batch_indices(0, 0, 10, 5).tolist()
    streams.batch_indices(0, 0, 10, 5).sort()
    streams.batch_indices(0, 0, 10, 5)[:] = 0
    assert streams.batch_indices(0, 0, 10, 5).tolist() == before


def test_the_numbers_are_those_that_were_published():
    """Otherwise a release of NumPy, or an edit here, changed the streams: old runs can no longer be repeated.

    NumPy promises the bits of Philox for ever, but not what its distributions make of them. If this fails after an
    update, pin NumPy or tell the users that numbers change. The normal numbers may differ by the last bit of the
    platform's logarithm, which NumPy takes in the tails (-3.7 is one); nothing else is rounded.
    """
    assert_allclose(
        streams.normal(0, streams.TRAIN_EPS, 0, (1, 3)),
        [[0.1737532475981665, -1.6113505491862972, -1.879623848069613]],
        rtol=1e-15,
    )
    assert_allclose(
        streams.normal(7, streams.SAMPLE_Z, 999, (2, 2), first=5),
        [[-0.36316126333544513, -2.126046653287815], [-3.7471140561997522, -0.6577371592210611]],
        rtol=1e-15,
    )
    t = streams.timesteps(0, streams.TRAIN_T, 3, 8, 1000)
    assert t.tolist() == [809, 808, 7, 849, 146, 174, 220, 856]
    u = streams.uniform(0, streams.TRAIN_U, 3, 3)
    assert u.tolist() == [0.36722459676050956, 0.650984995561486, 0.4140140373452209]
    assert streams.flips(0, 3, 12).astype(int).tolist() == [1, 1, 0, 1, 0, 0, 0, 0, 1, 0, 1, 0]
    assert np.flatnonzero(streams.drops(0, 3, 60, 0.1)).tolist() == [25, 43, 46, 48, 51, 58, 59]
    assert streams.batch_indices(0, 0, 60_000, 6).tolist() == [12470, 44587, 12630, 39251, 51621, 1026]
    assert streams.batch_indices(0, 10_001, 60_000, 6).tolist() == [49526, 11163, 15173, 27640, 45307, 50791]


@pytest.mark.parametrize("along", ["images", "steps"])
def test_noise_is_standard_normal_and_independent(along):
    """Otherwise x_t is not what the formulas say, along the batch (one generator an image) or from step to step."""
    if along == "images":
        eps = noise(count=200, first=0)
    else:
        eps = np.concatenate([noise(step=step, count=1, first=0) for step in range(200)])
    number = eps.size
    # Standard deviations of x, x^2 and x^4 of a standard normal x: 1, sqrt(2), sqrt(96).
    for power, expected, deviation in [(1, 0, 1), (2, 1, math.sqrt(2)), (4, 3, math.sqrt(96))]:
        assert abs((eps**power).mean() - expected) < 5 * deviation / math.sqrt(number)
    # The product of two independent ones has deviation 1: neighbouring images, rows and columns.
    for a, b in [(eps[1:], eps[:-1]), (eps[:, 1:], eps[:, :-1]), (eps[:, :, 1:], eps[:, :, :-1])]:
        assert abs((a * b).mean()) < 5 / math.sqrt(a.size)


def test_t_is_uniform_and_reaches_both_ends():
    """Otherwise some noise levels are trained more than others, or t = 0 or T - 1 never."""
    draws = np.concatenate([streams.timesteps(0, streams.TRAIN_T, step, 1000, 50) for step in range(100)])
    counts = np.bincount(draws)
    assert draws.dtype == np.int32
    assert len(counts) == 50  # so none is beyond T - 1
    expected = len(draws) / 50
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    assert abs(chi_squared - 49) < 5 * math.sqrt(2 * 49)  # mean 49, variance 2 * 49


def test_uniform_numbers_are_uniform_and_never_an_end():
    """Otherwise some levels of noise are trained more than others, or a quantile is infinite and so is the loss."""
    u = np.concatenate([streams.uniform(0, streams.TRAIN_U, step, 1000) for step in range(100)])
    for power in (1, 2, 3):  # the mean of u^p is 1 / (p + 1), its variance 1 / (2p + 1) - 1 / (p + 1)^2
        deviation = math.sqrt(1 / (2 * power + 1) - 1 / (power + 1) ** 2)
        assert abs((u**power).mean() - 1 / (power + 1)) < 5 * deviation / math.sqrt(u.size)
    ends = (np.array([0, streams.UNIFORM - 1]) + 0.5) / streams.UNIFORM  # of the first and the last integer
    assert 0.0 < ends[0] < ends[1] < 1.0
    assert streams.stratified(ends[:1])[0] > 0.0
    assert streams.stratified(np.repeat(ends[1], 2**10))[-1] < 1.0


def test_a_stratified_batch_has_one_number_in_each_part():
    """Otherwise some batches have no image with little noise, and their losses vary more than those of others."""
    u = streams.uniform(3, streams.TRAIN_U, 5, 64)
    strata = streams.stratified(u)
    assert_array_equal(np.floor(64 * strata), np.arange(64))
    assert_allclose(64 * strata - np.arange(64), u, rtol=0, atol=1e-13)


def test_half_of_the_images_are_flipped():
    """Otherwise the model sees more images of one side, or the first half of every batch flipped."""
    flips = np.array([streams.flips(0, step, 100) for step in range(400)])
    assert flips.dtype == np.bool_
    assert abs(flips.mean() - 0.5) < 5 * 0.5 / math.sqrt(flips.size)
    # By place in the batch: 100 means of 400, the largest deviation of which is below 5 of theirs as well.
    assert np.abs(flips.mean(axis=0) - 0.5).max() < 5 * 0.5 / math.sqrt(len(flips))


def test_a_tenth_of_the_labels_are_dropped_image_by_image():
    """Otherwise the unconditional network learns from too few images, or from whole batches and then none for long."""
    drops = np.array([streams.drops(0, step, 128, 0.1) for step in range(400)])
    assert drops.dtype == np.bool_
    deviation = math.sqrt(0.1 * 0.9)
    assert abs(drops.mean() - 0.1) < 5 * deviation / math.sqrt(drops.size)
    for axis, number in ((0, 400), (1, 128)):  # by place in the batch, and by batch
        assert np.abs(drops.mean(axis=axis) - 0.1).max() < 5 * deviation / math.sqrt(number)
    # If batches were dropped as a whole, the numbers of dropped labels would vary 128 times as much.
    assert_allclose(drops.sum(axis=1).var(), 128 * 0.1 * 0.9, rtol=5 * math.sqrt(2 / 400))
    assert not streams.drops(0, 0, 1000, 0.0).any()


def test_more_dropping_drops_more_of_the_same():
    """Otherwise two runs that differ in --label-drop alone differ in which images they drop as well."""
    few, many = (streams.drops(3, 5, 1000, probability) for probability in (0.1, 0.4))
    assert few.any()
    assert many[few].all()
    assert many.sum() > few.sum()


def test_a_negative_seed_is_refused_and_a_large_one_is_not():
    """Otherwise a seed is silently taken for another, or ends in a traceback of NumPy's."""
    with pytest.raises(UserError, match=r"^seed must be 0 or more, got -1$"):
        streams.generator(-1, streams.FLIP)
    assert not np.array_equal(noise(seed=2**64), noise(seed=0))
