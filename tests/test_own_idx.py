"""The user's own four IDX files: read as they are, and every way in which they do not fit together is said."""

import gzip
import lzma
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ddpm_shared import datasets
from ddpm_shared.errors import UserError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (5, 12, 12), np.uint8)
COLOUR = RNG.integers(0, 256, (5, 8, 8, 3), np.uint8)
LABELS = np.array([7, 0, 2, 2, 1], np.uint8)


def write(path: Path, array: np.ndarray, pack: Callable[[bytes], bytes] = bytes) -> None:
    path.write_bytes(pack(struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three grey images to train and two to test, with labels 0 to 7."""
    write(tmp_path / "train-images-idx3-ubyte", GREY[:3])
    write(tmp_path / "train-labels-idx1-ubyte", LABELS[:3])
    write(tmp_path / "t10k-images-idx3-ubyte", GREY[3:])
    write(tmp_path / "t10k-labels-idx1-ubyte", LABELS[3:])
    return tmp_path


def test_any_size_and_any_number_of_classes_are_read(folder: Path) -> None:
    """Otherwise only what looks like Fashion-MNIST could be trained on."""
    train, test = datasets.load("idx", str(folder))
    assert [(each.name, each.split) for each in (train, test)] == [("idx", "train"), ("idx", "test")]
    np.testing.assert_array_equal(np.concatenate([train.images, test.images])[..., 0], GREY)
    np.testing.assert_array_equal([*train.labels, *test.labels], LABELS)
    assert train.images.dtype == train.labels.dtype == np.uint8
    assert train.class_names == test.class_names == tuple("01234567"), "the largest label of both, and 1"


def test_colour_packed_files_and_names_of_classes(tmp_path: Path) -> None:
    """Otherwise a user must unpack files, and learn classes by heart."""
    write(tmp_path / "train-images-idx4-ubyte.gz", COLOUR[:3], gzip.compress)
    write(tmp_path / "train-labels-idx1-ubyte.xz", LABELS[1:4], lzma.compress)
    write(tmp_path / "t10k-images-idx3-ubyte", COLOUR[3:])
    write(tmp_path / "t10k-labels-idx1-ubyte", LABELS[3:])
    (tmp_path / "classes.txt").write_text("\ufeffcoat\n hand bag \nÅr\n\nnone of these\n", "utf-8")
    train, test = datasets.load("idx", str(tmp_path))
    np.testing.assert_array_equal(np.concatenate([train.images, test.images]), COLOUR)
    assert train.class_names == ("coat", "hand bag", "År", "none of these"), "there may be more than labels"


def test_without_labels_there_are_no_classes(folder: Path) -> None:
    """Otherwise pictures without labels could not be trained on, or would all be of a class "0"."""
    for path in folder.glob("*labels*"):
        path.unlink()
    train, test = datasets.load("idx", str(folder))
    assert train.class_names == test.class_names == ()
    assert train.labels.tolist() == [0, 0, 0]
    assert test.labels.tolist() == [0, 0]


def test_the_hash_of_each_split_changes_with_anything_in_the_folder(folder: Path) -> None:
    """Otherwise a run goes on with other data, or the judge takes its numbers from the cache of another set."""
    found = [{split.sha256 for split in datasets.load("idx", str(folder))}]
    for change in (
        lambda: write(folder / "t10k-images-idx3-ubyte", GREY[3:] ^ 1),
        lambda: write(folder / "train-labels-idx1-ubyte", LABELS[:3][::-1]),
        lambda: (folder / "classes.txt").write_text("\n".join("abcdefgh")),
    ):
        change()
        found.append({split.sha256 for split in datasets.load("idx", str(folder))})
    assert len(set().union(*found)) == 2 * len(found)


TALL = RNG.integers(0, 256, (2, 12, 10), np.uint8)
REFUSED = {
    "counts": ("train-labels-idx1-ubyte", LABELS, r"has labels of the shape \[5\], expected \[3\], one for each image"),
    "sizes": ("t10k-images-idx3-ubyte", GREY[3:, 2:, 2:], r"images of the shapes \[12, 12, 1\] and \[10, 10, 1\], to"),
    "colours": ("t10k-images-idx3-ubyte", COLOUR[3:], r"images of the shapes \[12, 12, 1\] and \[8, 8, 3\], to train"),
    "not square": ("train-images-idx3-ubyte", TALL, r"images of 12 x 10 pixels, and images must be square"),
    "two channels": ("train-images-idx3-ubyte", COLOUR[..., :2], r"the shape \[5, 8, 8, 2\], expected \[N, H, W\], or"),
    "flat": ("train-images-idx3-ubyte", GREY[0], r"the shape \[12, 12\], expected \[N, H, W\]"),
    "no image": ("train-images-idx3-ubyte", GREY[:0], "holds no image"),
    "tiny": ("train-images-idx3-ubyte", GREY[:, :2, :2], "images of 2 x 2 pixels, expected 4 to 1024 a side"),
    "flat labels": ("t10k-labels-idx1-ubyte", GREY[0, :2], r"labels of the shape \[2, 12\], expected \[2\]"),
}


@pytest.mark.parametrize(("name", "array", "message"), REFUSED.values(), ids=list(REFUSED))
def test_what_does_not_fit_is_one_sentence_with_the_file(
    folder: Path, name: str, array: np.ndarray, message: str
) -> None:
    """Otherwise it is a traceback of NumPy, or a network that learns wrong labels."""
    write(folder / name, array)
    with pytest.raises(UserError, match=message) as caught:
        datasets.load("idx", str(folder))
    assert str(folder) in str(caught.value)
    assert str(caught.value).endswith(": correct the files in --data-dir")
    assert "\n" not in str(caught.value)


def test_missing_and_damaged_files_are_named(folder: Path) -> None:
    """Otherwise the user looks for a mistake in four files."""
    with pytest.raises(UserError, match="--dataset idx has no folder: name the one of your four IDX files by --data-d"):
        datasets.load("idx")
    with pytest.raises(UserError, match="absent' is not a folder: name that of your four IDX files"):
        datasets.load("idx", str(folder / "absent"))
    (folder / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(UserError, match="lacks the labels of the images to train only"):
        datasets.load("idx", str(folder))
    write(folder / "train-labels-idx1-ubyte.gz", LABELS[:3])
    (folder / "train-labels-idx1-ubyte").write_bytes(b"\0\0\x08\1\0\0\0\3ab")
    with pytest.raises(UserError, match=r"has both train-labels-idx1-ubyte and train-labels-idx1-ubyte\.gz, and it is"):
        datasets.load("idx", str(folder))
    (folder / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UserError, match="train-labels-idx1-ubyte has 2 bytes after its header, expected 3"):
        datasets.load("idx", str(folder))
    (folder / "t10k-images-idx3-ubyte").unlink()
    with pytest.raises(UserError, match=r"lacks t10k-images-idx3-ubyte \(\.gz, \.xz or unpacked\)"):
        datasets.load("idx", str(folder))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a\nb\n", r"classes\.txt has 2 names, one a line from that of label 0 on, and the labels go to 7"),
        (b"a\n" * 8, r"classes\.txt has the same name twice"),
        (b"\xff" * 8, r"classes\.txt is not a text in UTF-8 \("),
    ],
)
def test_names_that_do_not_fit_the_labels_are_refused(folder: Path, text: bytes, message: str) -> None:
    """Otherwise a class gets the name of another."""
    (folder / "classes.txt").write_bytes(text)
    with pytest.raises(UserError, match=message):
        datasets.load("idx", str(folder))
