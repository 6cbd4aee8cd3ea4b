"""Pixels to tensors and back, and the batches that both trees train on."""

import dataclasses

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from ddpm_shared import batches, images, streams
from ddpm_shared.config import Config, DataConfig, DiffusionConfig, ModelConfig, TrainingConfig
from ddpm_shared.datasets import Split
from ddpm_shared.records import checkpoint

PIXELS = np.random.default_rng(0).integers(0, 256, size=(50, 6, 5, 3), dtype=np.uint8)  # no two axes alike
SPLIT = Split("noise", "train", PIXELS, np.arange(50, dtype=np.uint8), "")  # image i has label i
CONFIG = Config(seed=4, diffusion=DiffusionConfig(timesteps=40), training=TrainingConfig(batch_size=8))
CONDITIONAL = dataclasses.replace(
    CONFIG,
    class_conditional=True,
    model=ModelConfig(num_classes=50),
    training=TrainingConfig(batch_size=8, label_drop=0.5),
)


@pytest.mark.parametrize("precision", ["fp32", "fp64"])
def test_pixels_become_minus_one_to_one_and_come_back(tree, side_of, precision):
    """Otherwise the model learns images in another range than the sampler clips to, or pictures come out shifted."""
    pixels = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1)
    x = tree.data.to_images(pixels, tree.utils.dtype(precision))
    got = side_of(precision).array(x)
    # The float32 formula is exact to the last bit in both; float64 holds the same float32 numbers.
    assert_array_equal(got, pixels.astype(np.float32) / np.float32(127.5) - np.float32(1))
    assert got.dtype == (np.float32 if precision == "fp32" else np.float64)
    assert got.min() == -1.0
    assert got.max() == 1.0
    assert_array_equal(tree.data.to_pixels(x), pixels)


def test_pixels_out_of_range_are_clipped(tree):
    """Otherwise a sample just above 1 wraps around to black."""
    values = np.array([-1.7, -1.001, 1.001, 1.7, 0.0, 0.004]).reshape(1, 2, 3, 1)
    expected = np.reshape([0, 0, 255, 255, 128, 128], values.shape)
    assert_array_equal(tree.data.to_pixels(tree.data.to_tensor(values)), expected)
    assert_array_equal(images.to_pixels(values), expected)  # what commands in NumPy use


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("step", [0, 5, 6, 13])  # six steps are an epoch
def test_both_trees_see_the_same_batch(suite, step, flip):
    """Otherwise their losses cannot be compared step by step, which is what this project is for."""
    config = dataclasses.replace(CONFIG, data=DataConfig(horizontal_flip=flip))
    arrays = batches.training_batch(SPLIT, config, step).arrays
    sides = [suite.sides["fp32"][name] for name in ("torch", "tf")]
    torch_batch, tf_batch = ([side.array(tensor) for tensor in side.batch(arrays)] for side in sides)
    for a, b in zip(torch_batch, tf_batch, strict=True):
        assert_array_equal(a, b)
    assert tf_batch[0].shape == (8, 6, 5, 3)


def test_flipped_images_are_mirrored_left_to_right_and_nothing_else_changes():
    """Otherwise the option turns images over, or disturbs the noise of the run without it."""
    flipping = dataclasses.replace(CONFIG, data=DataConfig(horizontal_flip=True))
    plain, mirrored = (batches.training_batch(SPLIT, config, 3) for config in (CONFIG, flipping))
    same = [np.array_equal(a, b) for a, b in zip(plain.pixels, mirrored.pixels, strict=True)]
    turned = [np.array_equal(a[:, ::-1], b) for a, b in zip(plain.pixels, mirrored.pixels, strict=True)]
    assert all(s or m for s, m in zip(same, turned, strict=True))
    assert any(same)
    assert any(turned)
    for a, b in zip(plain[1:], mirrored[1:], strict=True):
        assert_array_equal(a, b)
    original = np.random.default_rng(0).integers(0, 256, size=PIXELS.shape, dtype=np.uint8)
    assert_array_equal(PIXELS, original)  # the data set itself is never turned


def test_validation_noise_belongs_to_the_image_not_to_the_batch():
    """Otherwise the validation loss changes with the batch size or from epoch to epoch."""
    at_once = dataclasses.replace(CONFIG, training=TrainingConfig(batch_size=50, validation_images=None))
    (whole,) = batches.validation_batches(SPLIT, at_once)
    parts = list(batches.validation_batches(SPLIT, CONFIG))
    assert [len(part.pixels) for part in parts] == [8, 8, 8, 8, 8, 8, 2]
    for field in batches.Batch._fields:
        assert_array_equal(np.concatenate([getattr(part, field) for part in parts]), getattr(whole, field))
    assert_array_equal(whole.pixels, PIXELS)
    fewer = dataclasses.replace(CONFIG, training=TrainingConfig(batch_size=8, validation_images=10))
    assert [len(batch.pixels) for batch in batches.validation_batches(SPLIT, fewer)] == [8, 2]


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_a_worker_draws_its_rows_of_the_batch_and_no_others(count, monkeypatch):
    """Otherwise a run on two workers trains on other images or noise than on one, or each draws all the noise."""
    config = dataclasses.replace(CONFIG, data=DataConfig(horizontal_flip=True))
    whole = batches.training_batch(SPLIT, config, 5)
    assert_array_equal(whole.labels, [next(i for i in range(50) if is_image(i, x)) for x in whole.pixels])
    drawn = []
    normal = streams.normal

    def counted(seed, stream, step, shape, first=0):
        drawn.append(shape[0])
        return normal(seed, stream, step, shape, first)

    monkeypatch.setattr(streams, "normal", counted)
    parts = [batches.training_batch(SPLIT, config, 5, (rank, count)) for rank in range(count)]
    assert sum(drawn) == 8
    for field in batches.Batch._fields:
        assert_array_equal(np.concatenate([getattr(part, field) for part in parts]), getattr(whole, field))
    assert whole.labels.dtype == np.int64


@pytest.mark.parametrize("count", [2, 3, 8])
def test_a_worker_drops_the_labels_of_its_rows(count):
    """Otherwise a class-conditional run on two workers has other labels than one alone."""
    whole = batches.training_batch(SPLIT, CONDITIONAL, 5).labels
    assert 0 < np.count_nonzero(whole == 50) < 8
    parts = [batches.training_batch(SPLIT, CONDITIONAL, 5, (rank, count)).labels for rank in range(count)]
    assert_array_equal(np.concatenate(parts), whole)


def test_labels_are_dropped_in_class_conditional_training_alone():
    """Otherwise a run without labels changes, or the validation loss is not that of the classes of its images."""
    steps = range(60)  # ten epochs
    true, given = ([batches.training_batch(SPLIT, c, step) for step in steps] for c in (CONFIG, CONDITIONAL))
    for a, b in zip(true, given, strict=True):
        for x, y in zip(a.arrays, b.arrays, strict=True):
            assert_array_equal(x, y)
        assert a.labels.max() < 50
        assert_array_equal(b.labels, np.where(b.labels == 50, 50, a.labels))
    dropped = np.concatenate([batch.labels == 50 for batch in given])
    assert abs(dropped.mean() - 0.5) < 5 * 0.5 / np.sqrt(dropped.size)
    for config in (CONFIG, CONDITIONAL):
        labels = np.concatenate([batch.labels for batch in batches.validation_batches(SPLIT, config)])
        assert_array_equal(labels, SPLIT.labels)


def is_image(index, pixels):
    """Whether these are the pixels of an image of the split, mirrored or not."""
    return any(np.array_equal(PIXELS[index], each) for each in (pixels, pixels[:, ::-1]))


def test_the_codec_of_pixels_goes_there_and_back(tree):
    """Otherwise what is trained on is not what is drawn, or a sampler clips to other limits than x_0 has."""
    codec = tree.data.PIXELS
    x_0 = codec.encode(PIXELS, tree.utils.dtype("fp32"))
    assert_array_equal(codec.decode(x_0), PIXELS)
    assert codec.limits == (tree.data.to_array(x_0).min(), tree.data.to_array(x_0).max()) == (-1.0, 1.0)
    assert codec.kind == checkpoint.PIXELS["kind"]
