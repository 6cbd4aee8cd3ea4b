"""EMNIST: handwritten letters, and letters with digits, as MNIST's digits; made upright, with labels from 0.

The IDX files of all its parts are packed into one archive, which stays as it is in the cache. They hold each image
transposed, and the labels of the letters begin at 1.

Source: Cohen et al. 2017 (arXiv:1702.05373).
"""

import string
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ddpm_shared.datasets import archives, download, idx
from ddpm_shared.datasets.download import FileSet
from ddpm_shared.datasets.source import Facts, Source, Split
from ddpm_shared.datasets.verified import Verified

LETTERS, BALANCED = "emnist-letters", "emnist-balanced"
SHAPE = (28, 28, 1)
CLASS_NAMES = {
    LETTERS: tuple(string.ascii_lowercase),  # in either case
    BALANCED: (*string.digits, *string.ascii_uppercase, *"abdefghnqrt"),  # the others look like their capitals
}
FIRST_LABEL = {LETTERS: 1, BALANCED: 0}
NUMBERS = {LETTERS: (124_800, 20_800), BALANCED: (112_800, 18_800)}  # to train, to test

ARCHIVE = "gzip.zip"
NUM_BYTES = 561_753_746
# As in TensorFlow Datasets' url_checksums/emnist.txt and in MLDatasets.jl. Of the unzipped files, none is published.
SHA256 = "fb9bb67e33772a9cc0b895e4ecf36d2cf35be8b709693c3564cea2a019fcda8e"
MIRRORS = (
    "https://biometrics.nist.gov/cs_links/EMNIST/",
    "https://www.itl.nist.gov/iaui/vip/cs_links/EMNIST/",
)


@dataclass(frozen=True)
class EmnistFile:
    """The archive, and the part of it to read. Its array has a row for each image: its label, then its pixels."""

    part: str
    name: str = ARCHIVE
    file_names: tuple[str, ...] = (ARCHIVE,)
    num_bytes: int = NUM_BYTES

    @property
    def sha256(self) -> str:
        """The hash of the archive."""
        return SHA256

    @property
    def content(self) -> str:
        """What it holds."""
        return "{} and {} images with labels, packed".format(*NUMBERS[self.part])

    def read(self, path: Path) -> NDArray[np.uint8]:
        """The images to train, then those to test: [N, 1 + 784]. Raises BadFileError if it is another archive."""
        arrays = {
            (split, kind): (number, *SHAPE[:2]) if kind == "images-idx3" else (number,)
            for split, number in zip(("train", "test"), NUMBERS[self.part], strict=True)
            for kind in ("labels-idx1", "images-idx3")
        }
        names = {key: f"gzip/{self.part}-{'-'.join(key)}-ubyte.gz" for key in arrays}
        packed = archives.members(path, self.sha256, dict.fromkeys(names.values(), self.num_bytes))
        read = {key: idx.parse_gz(packed[names[key]], shape) for key, shape in arrays.items()}
        labels = np.concatenate([read[split, "labels-idx1"] for split in ("train", "test")])
        images = np.concatenate([read[split, "images-idx3"] for split in ("train", "test")])
        return np.column_stack([labels, images.reshape(len(images), -1)])


def _splits(name: str, verified: Sequence[Verified]) -> tuple[Split, Split]:
    number = NUMBERS[name][0]
    rows = verified[0].array
    return _split(name, "train", rows[:number]), _split(name, "test", rows[number:])


def _split(name: str, which: str, rows: NDArray[np.uint8]) -> Split:
    stored = rows[:, 1:].reshape(-1, *SHAPE[:2])
    upright = np.ascontiguousarray(stored.transpose(0, 2, 1))
    labels = rows[:, 0] - np.uint8(FIRST_LABEL[name])
    return Split(name, which, upright[..., None], labels, idx.digest(stored), CLASS_NAMES[name])


def _fetch(name: str, data_dir: str | None) -> Sequence[Verified]:
    wanted = FileSet(
        name="emnist",  # one archive for all parts
        title="EMNIST",
        words=f"the archive {ARCHIVE}",
        forms="as the mirrors have it",
        files=(EmnistFile(name),),
        mirrors=MIRRORS,
    )
    return download.fetch(wanted, data_dir)


def _source(name: str, title: str) -> Source:
    facts = Facts(
        title=title,
        licence="none stated; published by NIST, an agency of the United States",
        citation="Cohen, Afshar, Tapson, van Schaik 2017: EMNIST: an extension of MNIST to handwritten letters "
        "(arXiv:1702.05373)",
        home="https://www.nist.gov/itl/products-and-services/emnist-dataset",
    )
    return Source(name, facts, SHAPE, CLASS_NAMES[name], partial(_fetch, name), partial(_splits, name))


SOURCES = (_source(LETTERS, "EMNIST Letters"), _source(BALANCED, "EMNIST Balanced"))
