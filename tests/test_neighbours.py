"""The nearest training image of every sample, to the last grey level."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.neighbors import NearestNeighbors

from ddpm_shared import datasets
from ddpm_shared.errors import UserError
from ddpm_shared.evaluation import neighbours

Pixels = np.ndarray


def noise(count: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (count, 28, 28, 1), dtype=np.uint8)


def flat(level: int, *changed: int) -> Pixels:
    """[1, 28, 28, 1] of one grey level but for the first pixels."""
    image = np.full((1, 28, 28, 1), level, np.uint8)
    image.reshape(-1)[: len(changed)] = changed
    return image


def test_nearest_is_scikit_learn_s_on_real_images() -> None:
    """Otherwise the README would show a stranger beside a sample, and call a copy original."""
    train, test = datasets.load(datasets.EMBEDDED)
    images, training = test.images[:700], train.images[:3000]
    rows = [pixels.reshape(len(pixels), -1).astype(np.float64) for pixels in (images, training)]
    expected, index = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(rows[1]).kneighbors(rows[0])
    found, distance = neighbours.nearest(images, training)
    assert_array_equal(found, index[:, 0])
    assert_allclose(distance, expected[:, 0] / 28, rtol=1e-12)
    assert found.dtype == np.int64
    assert distance.dtype == np.float64


@pytest.mark.parametrize("rows", [1, 7, 30, 500])
def test_exact_copies_are_at_distance_zero_wherever_they_stand(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """Otherwise rounding, or the border of a chunk, would hide that a model has learned images by heart."""
    monkeypatch.setattr(neighbours, "ROWS", rows)
    training = noise(50)
    images = np.concatenate([noise(10, seed=1), training[[49, 0, 31]], noise(17, seed=2)])
    index, distance = neighbours.nearest(images, training)
    assert_array_equal(index[10:13], [49, 0, 31])
    assert_array_equal(np.flatnonzero(distance == 0), [10, 11, 12])


def test_one_grey_level_decides() -> None:
    """Otherwise float32 would choose: at norms of 5e7, as of white images, it cannot tell 9 from 10.

    The squared differences are 10 = 3^2 + 1^2 and 9 = 3^2, and the other way round.
    """
    for level, sign in ((255, -1), (0, 1), (128, 1)):
        training = np.concatenate([flat(level, level + 3 * sign, level + sign), flat(level, level + 3 * sign)])
        for order in ([0, 1], [1, 0]):
            index, distance = neighbours.nearest(flat(level), training[order])
            assert order[index[0]] == 1
            assert_allclose(distance, np.sqrt(9 / 784), rtol=1e-15)


def test_one_grey_level_decides_in_colour() -> None:
    """Otherwise the nearest of larger images, as of CIFAR-10, would be another one's, by rounding in float32.

    The squared differences are 9 = 3^2 and 10 = 3^2 + 1^2, at the borders of the blocks that are multiplied at a time.
    """
    for level, sign in ((255, -1), (0, 1), (200, 1)):
        image = np.full((1, 32, 32, 3), level, np.uint8)
        for place in (0, 1023, 1024, 2047, 2048, 3071):
            near, far = image.copy(), image.copy()
            for changed in (near, far):
                changed.reshape(-1)[place] = level + 3 * sign
            far.reshape(-1)[place - 1] = level + sign
            for order in ([0, 1], [1, 0]):
                index, distance = neighbours.nearest(image, np.concatenate([near, far])[order])
                assert order[index[0]] == 0
                assert_allclose(distance, np.sqrt(9 / 3072), rtol=1e-15)


def test_larger_images_are_compared_as_scikit_learn_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a block of values would be left out, or counted twice; 3,000 values fill no whole blocks."""
    monkeypatch.setattr(neighbours, "ROWS", 30)
    images, training = (
        np.random.default_rng(seed).integers(0, 256, (count, 30, 50, 2), np.uint8)
        for seed, count in ((0, 70), (1, 200))
    )
    rows = [pixels.reshape(len(pixels), -1).astype(np.float64) for pixels in (images, training)]
    expected, index = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(rows[1]).kneighbors(rows[0])
    nearest, distance = neighbours.nearest(images, training)
    assert_array_equal(nearest, index[:, 0])
    assert_allclose(distance, expected[:, 0] / np.sqrt(3000), rtol=1e-12)


def test_distances_are_root_mean_square_grey_levels() -> None:
    """Otherwise differences of bytes would wrap around, or the unit in the report be another."""
    index, distance = neighbours.nearest(np.concatenate([flat(0), flat(250)]), np.concatenate([flat(255), flat(128)]))
    assert_array_equal(index, [1, 0])
    assert_array_equal(distance, [128, 5])
    assert neighbours.nearest(flat(0), flat(255))[1] == 255


def test_the_first_of_equals_is_named() -> None:
    """Otherwise the pictures in a report could change from one BLAS to the next."""
    assert neighbours.nearest(flat(9), np.concatenate([flat(7), flat(11), flat(7)]))[0] == 0


def test_progress_adds_up_to_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the bar would stop short, or run over."""
    monkeypatch.setattr(neighbours, "ROWS", 4)
    told: list[int] = []
    neighbours.nearest(noise(10), noise(3), told.append)
    assert told == [4, 4, 2]


def test_copies_are_equal_in_every_byte() -> None:
    """Otherwise a sample one grey level off would be called a copy, or a repeated copy be counted once."""
    training = noise(50)
    images = np.concatenate([training[[3, 3]], noise(4, seed=1), training[[49]], training[[5]]])
    images[-1, 27, 27, 0] ^= 1
    got = neighbours.copies(images, training)
    assert got.dtype == bool
    assert_array_equal(got, [True, True, False, False, False, False, True, False])
    assert_array_equal(neighbours.copies(training[:, :, ::-1], training[:, :, ::-1]), True)  # in any memory order


def test_images_of_another_shape_are_refused() -> None:
    """Otherwise 32 x 32 images would end in NumPy's word on matrices, and never be copies of anything."""
    for compare in (neighbours.nearest, neighbours.copies):
        with pytest.raises(UserError, match=r"shape \[32, 32, 1\] cannot be compared with .* \[28, 28, 1\]"):
            compare(np.zeros((2, 32, 32, 1), np.uint8), noise(2))


def test_many_large_training_images_are_looked_at_part_by_part(monkeypatch):
    """Otherwise 50,000 colour pictures take three times the memory of as many grey ones, or one is overlooked."""
    random = np.random.default_rng(3)
    training = random.integers(0, 256, (40, 8, 8, 3), np.uint8)
    training[31] = training[4]  # in another part, and equally near
    images = np.concatenate([training[[4, 39]], random.integers(0, 256, (9, 8, 8, 3), np.uint8)])
    whole = neighbours.nearest(images, training)
    done = []
    monkeypatch.setattr(neighbours, "TRAINING", 7 * 192 + 1)
    monkeypatch.setattr(neighbours, "CHUNK", 4 * 192)
    found = neighbours.nearest(images, training, done.append)
    np.testing.assert_array_equal(found, whole)
    assert found[0][:2].tolist() == [4, 39]
    assert done == [4, 4, 3]
