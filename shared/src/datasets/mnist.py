"""MNIST, and what comes as its four IDX files: how those become (train, test); Kuzushiji-MNIST is one of them.

Source: LeCun et al. 1998, Proceedings of the IEEE 86; Clanuwat et al. 2018 (arXiv:1812.01718).
"""

from collections.abc import Sequence
from functools import partial

from ddpm_shared.datasets import download, idx
from ddpm_shared.datasets.download import FileSet
from ddpm_shared.datasets.idx import IdxFile
from ddpm_shared.datasets.source import Facts, Source, Split
from ddpm_shared.datasets.verified import Verified

SHAPE = (28, 28, 1)
MNIST, KMNIST = "mnist", "kmnist"
WORDS, FORMS = "the four files", ".gz or unzipped"


def four_files(num_train: int, num_test: int, *hashes: str, packed: bool = False) -> tuple[IdxFile, ...]:
    """The four IDX files of a set of 28 x 28 grey images: images and labels to train, then to test."""
    return (
        IdxFile("train-images-idx3-ubyte", (num_train, *SHAPE[:2]), hashes[0], packed),
        IdxFile("train-labels-idx1-ubyte", (num_train,), hashes[1], packed),
        IdxFile("t10k-images-idx3-ubyte", (num_test, *SHAPE[:2]), hashes[2], packed),
        IdxFile("t10k-labels-idx1-ubyte", (num_test,), hashes[3], packed),
    )


def splits(name: str, class_names: tuple[str, ...], verified: Sequence[Verified]) -> tuple[Split, Split]:
    """(train, test) of a data set's four verified files, whose images are [N, H, W], or [N, H, W, C]."""
    train_images, train_labels, test_images, test_labels = (each.array for each in verified)
    train_images, test_images = (images.reshape(*images.shape[:3], -1) for images in (train_images, test_images))
    train_sha256, test_sha256 = map(_payload_sha256, (verified[0], verified[2]))
    return (
        Split(name, "train", train_images, train_labels, train_sha256, class_names),
        Split(name, "test", test_images, test_labels, test_sha256, class_names),
    )


def _payload_sha256(verified: Verified) -> str:
    packed = isinstance(verified.file, IdxFile) and verified.file.packed
    return idx.digest(verified.array) if packed else verified.file.sha256


# MNIST's hashes are of the unzipped files. They are in many public repositories, e.g. as `uncompressed_sha256` beside
# those of the .gz, which are the ones in TensorFlow Datasets' url_checksums/mnist.txt.
# Of Kuzushiji-MNIST, only the hashes of the .gz are published: TensorFlow Datasets, url_checksums/kmnist.txt.
SETS = {
    MNIST: FileSet(
        name=MNIST,
        title="MNIST",
        words=WORDS,
        forms=FORMS,
        files=four_files(
            60_000,
            10_000,
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
        mirrors=(
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
        ),
    ),
    KMNIST: FileSet(
        name=KMNIST,
        title="Kuzushiji-MNIST",
        words=WORDS,
        forms=".gz, as the mirrors have them",
        files=four_files(
            60_000,
            10_000,
            "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
            "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
            "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
            "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
            packed=True,
        ),
        mirrors=(
            "http://codh.rois.ac.jp/kmnist/dataset/kmnist/",  # official; the hash makes up for http
            "https://codh.rois.ac.jp/kmnist/dataset/kmnist/",
            "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/KMNIST/",
        ),
    ),
}


def _source(name: str, facts: Facts, *class_names: str) -> Source:
    def fetch(data_dir: str | None) -> Sequence[Verified]:
        return download.fetch(SETS[name], data_dir)

    return Source(name, facts, SHAPE, class_names, fetch, partial(splits, name, class_names))


SOURCES = (
    _source(
        MNIST,
        Facts(
            title="MNIST",
            licence="CC BY-SA 3.0 as Keras states it; its own page stated none",
            citation="LeCun, Bottou, Bengio, Haffner 1998: Gradient-based learning applied to document recognition "
            "(Proceedings of the IEEE 86)",
            home="http://yann.lecun.com/exdb/mnist/",
        ),
        *"0123456789",
    ),
    _source(
        KMNIST,
        Facts(
            title="Kuzushiji-MNIST",
            licence="CC BY-SA 4.0",
            citation="Clanuwat, Bober-Irizar, Kitamoto, Lamb, Yamamoto, Ha 2018: Deep learning for classical Japanese "
            "literature (arXiv:1812.01718)",
            home="https://github.com/rois-codh/kmnist",
        ),
        *("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    ),
)
