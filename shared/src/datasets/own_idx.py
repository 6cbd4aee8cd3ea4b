"""The user's own images in four IDX files, as MNIST comes: any size, any number of classes, grey or colour."""

import hashlib
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from ddpm_shared import reading
from ddpm_shared.config import FolderConfig
from ddpm_shared.config.data import LARGEST_IMAGE, SMALLEST_IMAGE
from ddpm_shared.datasets.idx import read_idx
from ddpm_shared.datasets.source import Split
from ddpm_shared.errors import UserError

NAME = "idx"
SPLITS = {"train": "train", "test": "t10k"}  # how the names of their files begin, as those of MNIST
KINDS = {"images": ("images-idx3-ubyte", "images-idx4-ubyte"), "labels": ("labels-idx1-ubyte",)}
SUFFIXES = ("", ".gz", ".xz")
CLASSES = "classes.txt"
WAY_OUT = "correct the files in --data-dir"

Array = NDArray[np.uint8]


def load(data_dir: str | None, folder: FolderConfig) -> tuple[Split, Split]:
    """(train, test) of the four IDX files in a folder, packed by gzip or xz or not at all.

    train-images-idx3-ubyte and t10k-images-idx3-ubyte hold grey images [N, H, W]; with idx4 in their names, or not,
    they may hold [N, H, W, C], C 1 or 3 (red, green, blue). train-labels-idx1-ubyte and t10k-labels-idx1-ubyte hold
    labels [N]; without both of them there are no classes. The names of the classes are the lines of classes.txt, if it
    is there, else the labels as text.

    Args:
        data_dir: the folder.
        folder: not used.

    Raises:
        UserError: no folder; a missing or damaged file; images, labels and names that do not fit together.
    """
    if data_dir is None:
        raise UserError(f"--dataset {NAME} has no folder: name the one of your four IDX files by --data-dir")
    place = Path(data_dir).expanduser()
    if not place.is_dir():
        raise UserError(f"--data-dir {reading.name_of(data_dir)!r} is not a folder: name that of your four IDX files")
    images = {split: _images(place, split) for split in SPLITS}
    if images["train"].shape[1:] != images["test"].shape[1:]:
        shapes = " and ".join(str(list(array.shape[1:])) for array in images.values())
        _refuse(place, f"has images of the shapes {shapes}, to train and to test")
    labels = {split: _labels(place, split, len(array)) for split, array in images.items()}
    if (labels["train"] is None) != (labels["test"] is None):
        without = "train" if labels["train"] is None else "test"
        _refuse(place, f"lacks the labels of the images to {without} only")
    most = max((int(array.max()) for array in labels.values() if array is not None), default=-1)
    names = _class_names(place, most + 1)
    return _split("train", images, labels, names), _split("test", images, labels, names)


def _split(which: str, images: dict[str, Array], labels: dict[str, Array | None], names: tuple[str, ...]) -> Split:
    """A split; its hash is over all that is in both, so that a change of either is seen."""
    sha256 = hashlib.sha256(repr((NAME, which, names)).encode())
    for array in (*images.values(), *labels.values()):
        sha256.update(repr(None if array is None else array.shape).encode())
        sha256.update(b"" if array is None else array.data)
    own = labels[which]
    found = np.zeros(len(images[which]), np.uint8) if own is None else own
    return Split(NAME, which, images[which], found, sha256.hexdigest(), names)


def _refuse(place: Path, what: str) -> NoReturn:
    raise UserError(f"{reading.name_of(place)} {what}: {WAY_OUT}")


def _path(place: Path, split: str, kind: str) -> Path | None:
    names = (f"{SPLITS[split]}-{stem}{suffix}" for stem in KINDS[kind] for suffix in SUFFIXES)
    present = [place / name for name in names if (place / name).exists()]
    if len(present) > 1:
        _refuse(place, f"has both {present[0].name} and {present[1].name}, and it is not said which to take")
    return present[0] if present else None


def _images(place: Path, split: str) -> Array:
    path = _path(place, split, "images")
    if path is None:
        _refuse(place, f"lacks {SPLITS[split]}-{KINDS['images'][0]} (.gz, .xz or unpacked)")
    array = read_idx(path, way_out=WAY_OUT)
    array = array[..., None] if array.ndim == 3 else array
    if array.ndim != 4 or array.shape[3] not in (1, 3):
        _refuse(path, f"has the shape {list(array.shape)}, expected [N, H, W], or [N, H, W, 3] for colour")
    number, height, width, _ = array.shape
    if not number:
        _refuse(path, "holds no image")
    if height != width:
        _refuse(path, f"has images of {height} x {width} pixels, and images must be square")
    if not SMALLEST_IMAGE <= height <= LARGEST_IMAGE:
        _refuse(path, f"has images of {height} x {width} pixels, expected {SMALLEST_IMAGE} to {LARGEST_IMAGE} a side")
    return array


def _labels(place: Path, split: str, number: int) -> Array | None:
    path = _path(place, split, "labels")
    if path is None:
        return None
    array = read_idx(path, way_out=WAY_OUT)
    if array.shape != (number,):
        _refuse(path, f"has labels of the shape {list(array.shape)}, expected [{number}], one for each image")
    return array


def _class_names(place: Path, number: int) -> tuple[str, ...]:
    path = place / CLASSES
    if not number or not path.exists():
        return tuple(map(str, range(number)))
    with reading.refusing(lambda reason: f"{reading.name_of(path)} is not a text in UTF-8 ({reason}): {WAY_OUT}"):
        text = reading.read_bytes(path, WAY_OUT, reading.MIB).decode("utf-8-sig")
    names = tuple(line.strip() for line in text.splitlines() if line.strip())
    if len(names) < number:
        _refuse(path, f"has {len(names)} names, one a line from that of label 0 on, and the labels go to {number - 1}")
    if len(set(names)) < len(names):
        _refuse(path, "has the same name twice")
    return names
