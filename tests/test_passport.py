"""The passport of a data set: its numbers are those of a plain computation, and `make data` shows them."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_own_idx import write

from ddpm_shared import files
from ddpm_shared.datasets import EMBEDDED, Split, measures, passport, sheet
from ddpm_shared.datasets.__main__ import main
from ddpm_shared.errors import UserError

RNG = np.random.default_rng(0)


def split(which: str, images: np.ndarray, labels: Any = None, names: tuple[str, ...] = ()) -> Split:
    found = np.zeros(len(images), np.uint8) if labels is None else np.array(labels, np.uint8)
    return Split("idx", which, images, found, f"{which}-{images.sum()}", names)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPM_DUET_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def plain_distance(images: np.ndarray) -> float:
    x = images.reshape(len(images), -1) / 127.5
    return float(max(np.linalg.norm(x - row, axis=1).max() for row in x))


def test_the_numbers_are_those_of_a_plain_computation() -> None:
    """Otherwise sigma_data and sigma_max are chosen by wrong numbers, and every model of that data is worse."""
    images = (RNG.integers(0, 256, (300, 6, 6, 3)) * [0.9, 0.5, 0.1]).astype(np.uint8)
    x = images / 127.5 - 1
    made = passport.passport(split("train", images), split("test", images[:7, ::-1]))
    np.testing.assert_allclose([made["mean"], made["sigma_data"]], [x.mean(), x.std()], rtol=1e-12)
    np.testing.assert_allclose(made["rms"], np.sqrt((x**2).mean()), rtol=1e-12)
    means, stds = ([channel[key] for channel in made["channels"]] for key in ("mean", "std"))
    np.testing.assert_allclose(means, x.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(stds, x.std(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(made["largest_distance"], plain_distance(images), rtol=1e-12)
    assert made["largest_of_all"] is True
    assert made["shape"] == [6, 6, 3]
    assert made["num_images"] == {"train": 300, "test": 7}
    assert made["facts"] is None
    json.dumps(made, allow_nan=False)


def test_the_largest_distance_is_found_across_blocks_whatever_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the two images that matter are never compared, and sigma_max is too small."""
    monkeypatch.setattr(measures, "BLOCK", 8)
    for _ in range(20):
        images = RNG.integers(0, 256, (60, 2, 2, 1)).astype(np.uint8)
        distance, exact = measures.largest_distance(images)
        assert exact
        np.testing.assert_allclose(distance, plain_distance(images), rtol=1e-12)
    flat = np.full((20, 2, 2, 1), 7, np.uint8)
    assert measures.largest_distance(flat) == (0, True), "all alike"
    assert measures.largest_distance(flat[:1]) == (0, True), "one image"


def test_where_it_would_take_too_long_the_distance_is_said_to_be_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a hundred thousand large images take hours, or a number passes for what it is not."""
    images = RNG.integers(0, 256, (64, 4, 4, 1)).astype(np.uint8)
    monkeypatch.setattr(measures, "BLOCK", 8)
    monkeypatch.setattr(measures, "PRODUCTS", 8 * 8 * 16)
    distance, exact = measures.largest_distance(images)
    assert not exact
    assert 0.8 * plain_distance(images) < distance <= plain_distance(images), "the outermost come first"
    text = passport.text(passport.passport(split("train", images), split("test", images)))
    assert " or more between the two training images" in text


def test_copies_inside_and_across_the_splits_are_counted() -> None:
    """Otherwise a model that remembers is praised, since its test images were in training."""
    images = RNG.integers(0, 256, (10, 4, 4, 1)).astype(np.uint8)
    train = np.concatenate([images[:6], images[:1], images[:1]])
    test = np.concatenate([images[5:], images[9:], images[:1]])
    made = passport.passport(split("train", train), split("test", test))
    assert made["duplicates"] == {"train": 2, "test": 1, "across": 2}


def test_classes_are_counted_in_both_splits() -> None:
    """Otherwise a class that is missing in training is noticed when the model cannot draw it."""
    images = RNG.integers(0, 256, (4, 4, 4, 1)).astype(np.uint8)
    names = ("a", "b", "c")
    made = passport.passport(split("train", images, [0, 0, 2, 2], names), split("test", images, [1, 1, 1, 0], names))
    assert made["classes"] == [
        {"name": "a", "train": 2, "test": 1},
        {"name": "b", "train": 0, "test": 3},
        {"name": "c", "train": 2, "test": 0},
    ]
    assert "3, with so many images to train + to test: a 2 + 1, b 0 + 3, c 2 + 0" in passport.text(made)


def test_it_is_measured_once_and_anew_where_the_cache_is_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise each command waits for it again, or a broken file is believed."""
    images = RNG.integers(0, 256, (9, 4, 4, 1)).astype(np.uint8)
    splits = (split("train", images), split("test", images[:2]))
    first = passport.passport(*splits)
    with monkeypatch.context() as patch:
        patch.delattr(measures, "largest_distance")
        assert passport.passport(*splits) == first
    (path,) = files.cache_dir("passports").glob("*.npz")
    path.write_bytes(path.read_bytes()[:-40])
    assert passport.passport(*splits) == first
    other = split("train", images ^ 3)
    assert passport.passport(other, splits[1])["mean"] != first["mean"]


def test_fashion_mnist_has_its_known_numbers(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Otherwise what stands on these is wrong, or these: 0.7073 and 0.8255 were measured before, by other code."""
    assert main(["--dataset", EMBEDDED]) == 0
    out = capsys.readouterr().out
    assert "mean -0.4257, standard deviation 0.7073 (sigma_data), root mean square 0.8255" in out
    assert "43.29 between the two training images" in out
    assert "10, each with 1000 images to train and 200 to test: T-shirt/top, Trouser" in out
    assert "licence    MIT" in out
    assert f"runs/data/{EMBEDDED}.png: the first images of 10 classes" in out
    with Image.open(tmp_path / f"runs/data/{EMBEDDED}.png") as drawn:
        assert drawn.mode == "L"
        assert drawn.height > 10 * 2 * 28


def test_the_command_takes_the_users_own_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Otherwise `make data` knows only what is published."""
    for start, number in (("train", 40), ("t10k", 3)):
        images = RNG.integers(0, 256, (number, 8, 8, 3), np.uint8)
        images[..., 2] = 0
        write(tmp_path / f"{start}-images-idx4-ubyte", images)
    arguments = ["--dataset", "idx", "--data-dir", str(tmp_path), "--image-size", "16", "--out", "a/sheet.png"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert out.startswith("idx: 40 training and 3 test images\n")
    assert re.search(r"classes +none\n", out)
    assert "a/sheet.png: the first 40 images\n" in out
    with Image.open(tmp_path / "a/sheet.png") as drawn:
        assert drawn.mode == "RGB"
    with pytest.raises(UserError, match="--dataset idx has no folder"):
        main(["--dataset", "idx"])


def test_a_sheet_of_many_classes_or_of_large_images_stays_readable() -> None:
    """Otherwise a hundred classes make a picture that no viewer opens, without a word."""
    names = tuple(f"class {number}" for number in range(100))
    images = RNG.integers(0, 256, (200, 32, 32, 3)).astype(np.uint8)
    picture, shown = sheet.drawn(split("train", images, [*range(100)] * 2, names))
    assert shown == "the first images of 26 of 100 classes"
    assert picture.shape[0] < 2000
    large = RNG.integers(0, 256, (3, 300, 300, 3)).astype(np.uint8)
    picture, shown = sheet.drawn(split("train", large))
    assert shown == "the first 3 images"
    assert max(picture.shape[:2]) < 500
    grey = dataclasses.replace(split("train", large[..., :1]), labels=np.array([0, 0, 1]), class_names=("a", "b"))
    assert sheet.drawn(grey)[0].shape[2] == 1
