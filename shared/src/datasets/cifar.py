"""CIFAR-10 and CIFAR-100: 32 x 32 colour photographs, from the binary archives; nothing is unpickled.

A record is the label, in CIFAR-100 the coarse and the fine one, then three planes of 32 x 32 bytes: red, green, blue.

Source: Krizhevsky 2009, Learning multiple layers of features from tiny images.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ddpm_shared.datasets import archives, download
from ddpm_shared.datasets.download import FileSet
from ddpm_shared.datasets.source import Facts, Source, Split
from ddpm_shared.datasets.verified import BadFileError, Verified

CIFAR10, CIFAR100 = "cifar10", "cifar100"
SHAPE = (32, 32, 3)
NUM_TEST = 10_000
CLASS_NAMES = {
    CIFAR10: ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    CIFAR100: tuple(
        """apple, aquarium fish, baby, bear, beaver, bed, bee, beetle, bicycle, bottle, bowl, boy, bridge, bus,
        butterfly, camel, can, castle, caterpillar, cattle, chair, chimpanzee, clock, cloud, cockroach, couch, crab,
        crocodile, cup, dinosaur, dolphin, elephant, flatfish, forest, fox, girl, hamster, house, kangaroo, keyboard,
        lamp, lawn mower, leopard, lion, lizard, lobster, man, maple tree, motorcycle, mountain, mouse, mushroom,
        oak tree, orange, orchid, otter, palm tree, pear, pickup truck, pine tree, plain, plate, poppy, porcupine,
        possum, rabbit, raccoon, ray, road, rocket, rose, sea, seal, shark, shrew, skunk, skyscraper, snail, snake,
        spider, squirrel, streetcar, sunflower, sweet pepper, table, tank, telephone, television, tiger, tractor, train,
        trout, tulip, turtle, wardrobe, whale, willow tree, wolf, woman, worm""".replace("\n", " ")
        .replace("        ", "")
        .split(", ")
    ),
}


@dataclass(frozen=True)
class CifarFile:
    """A binary archive. Its array has a row for each record, those to train first and then NUM_TEST to test."""

    name: str
    num_bytes: int
    sha256: str
    num_labels: int  # bytes of a record before its pixels; the last of them is the label
    members: tuple[tuple[str, int, str], ...]  # name, number of records, and hash of the content

    @property
    def file_names(self) -> tuple[str, ...]:
        """Names under which it is accepted."""
        return (self.name,)

    @property
    def content(self) -> str:
        """What it holds."""
        return f"{sum(number for _, number, _ in self.members)} images with labels, packed"

    def read(self, path: Path) -> NDArray[np.uint8]:
        """The records, [N, labels + 3072]. Raises BadFileError if it is another archive."""
        length = self.num_labels + 3 * 32 * 32
        sizes = {name: number * length for name, number, _ in self.members}
        content = archives.members(path, self.sha256, sizes)
        for name, _, sha256 in self.members:
            found = hashlib.sha256(content[name]).hexdigest()
            if found != sha256:
                raise BadFileError(f"has other content in {name}: SHA-256 {found}, expected {sha256}")
        return np.frombuffer(b"".join(content[name] for name in sizes), np.uint8).reshape(-1, length)


# The archives' hashes are those of TensorFlow Datasets' url_checksums/cifar10.txt and cifar100.txt; those of the
# members are in torchvision-ruby, lib/torchvision/datasets/cifar10.rb and cifar100.rb.
FILES = {
    CIFAR10: CifarFile(
        "cifar-10-binary.tar.gz",
        170_052_171,
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        num_labels=1,
        members=tuple(
            (f"cifar-10-batches-bin/{name}.bin", 10_000, sha256)
            for name, sha256 in (
                ("data_batch_1", "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5"),
                ("data_batch_2", "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed"),
                ("data_batch_3", "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67"),
                ("data_batch_4", "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48"),
                ("data_batch_5", "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add"),
                ("test_batch", "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b"),
            )
        ),
    ),
    CIFAR100: CifarFile(
        "cifar-100-binary.tar.gz",
        168_513_733,
        "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        num_labels=2,
        members=(
            ("cifar-100-binary/train.bin", 50_000, "f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29"),
            ("cifar-100-binary/test.bin", 10_000, "d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a"),
        ),
    ),
}
OFFICIAL = "https://www.cs.toronto.edu/~kriz/"
MIRRORS = {
    CIFAR10: (OFFICIAL, "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10/"),
    CIFAR100: (OFFICIAL,),
}


def _splits(name: str, verified: Sequence[Verified]) -> tuple[Split, Split]:
    records = verified[0].array
    return _split(name, "train", records[:-NUM_TEST]), _split(name, "test", records[-NUM_TEST:])


def _split(name: str, which: str, records: NDArray[np.uint8]) -> Split:
    """A split; its hash is of the records as they are in the members."""
    start = FILES[name].num_labels
    planes = records[:, start:].reshape(-1, 3, 32, 32)
    images = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
    sha256 = hashlib.sha256(records.data).hexdigest()
    return Split(name, which, images, records[:, start - 1].copy(), sha256, CLASS_NAMES[name])


def _fetch(name: str, title: str, data_dir: str | None) -> Sequence[Verified]:
    file = FILES[name]
    wanted = FileSet(
        name=name,
        title=title,
        words=f"the archive {file.name}",
        forms="the binary version, as the mirrors have it",
        files=(file,),
        mirrors=MIRRORS[name],
    )
    return download.fetch(wanted, data_dir)


def _source(name: str, title: str) -> Source:
    facts = Facts(
        title=title,
        licence="none stated; its authors ask to be cited",
        citation="Krizhevsky 2009: Learning multiple layers of features from tiny images (University of Toronto)",
        home="https://www.cs.toronto.edu/~kriz/cifar.html",
        flip=True,
    )
    return Source(name, facts, SHAPE, CLASS_NAMES[name], partial(_fetch, name, title), partial(_splits, name))


SOURCES = (_source(CIFAR10, "CIFAR-10"), _source(CIFAR100, "CIFAR-100"))
