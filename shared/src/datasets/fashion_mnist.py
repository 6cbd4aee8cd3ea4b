"""Fashion-MNIST: its facts, and its two sources, the full set and the subset in the package.

It is four IDX files of 28 x 28 grey images of clothes and their classes. Wherever a file comes from, it is used only
when its decompressed bytes have the SHA-256 in FILES, so two runs of one name had the same pixels. A sixth of it,
fashion-mnist-10k, is inside this package and needs no network.

Source: Xiao et al. 2017 (arXiv:1708.07747).
"""

from functools import partial
from pathlib import Path

from ddpm_shared.datasets import download, mnist, packaged
from ddpm_shared.datasets.download import FileSet, SystemPackage
from ddpm_shared.datasets.source import Facts, Source
from ddpm_shared.datasets.verified import Verified
from ddpm_shared.errors import UserError

FULL, EMBEDDED = "fashion-mnist", "fashion-mnist-10k"
SHAPE = mnist.SHAPE
CLASS_NAMES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)

DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # apt-get install dataset-fashion-mnist
MIRRORS = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",  # official; the hash makes up for http
    "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
    "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
)


FILES = {
    FULL: mnist.four_files(
        60_000,
        10_000,
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
    EMBEDDED: mnist.four_files(  # printed by shared/tools/embed_fashion_mnist.py
        10_000,
        2_000,
        "a0ee0c465e5db7116af73cfee623f6469b184c101b7c673b49da8f58c04c7dcf",
        "c9680bb3da9d0f14e28173c0ec374d65cc10b5aefce722dac8e9e39107fa2ace",
        "23afb44fa7e68345dc170691cd5915c4779c4f5b9f8ae734a8e67adbb4a181d7",
        "86ad12197ec84f51604677a8c6b8b3f7afe1505e289c98ac382984e289b610e6",
    ),
}


def _full_set() -> FileSet:
    return FileSet(
        name=FULL,
        title="Fashion-MNIST",
        words=mnist.WORDS,
        forms=mnist.FORMS,
        files=FILES[FULL],
        mirrors=MIRRORS,
        system=SystemPackage("dataset-fashion-mnist", DEBIAN),
    )


def _full(data_dir: str | None) -> list[Verified]:
    try:
        return download.fetch(_full_set(), data_dir)
    except UserError as error:
        if data_dir is not None:
            raise
        raise UserError(f"{error}, or use --dataset {EMBEDDED}, which is in the package") from None


def _embedded(data_dir: str | None = None) -> list[Verified]:
    return packaged.fetch(EMBEDDED, FILES[EMBEDDED], "embedded")


def auto(data_dir: str | None) -> tuple[str, list[Verified]]:
    """The full set if it can be had, else the embedded one with a line on stderr.

    Args:
        data_dir: the folder of the full set's files; what is wrong there is an error.

    Returns:
        The name of the set and its files.
    """
    try:
        return FULL, download.fetch(_full_set(), data_dir)
    except UserError as error:
        if data_dir is not None:
            raise
        download.report(f"WARNING: USING {EMBEDDED}, 10,000 training images instead of 60,000: {error}")
    return EMBEDDED, _embedded()


FACTS = Facts(
    title="Fashion-MNIST",
    licence="MIT, (c) 2017 Zalando SE",
    citation="Xiao, Rasul, Vollgraf 2017: Fashion-MNIST: a novel image dataset for benchmarking machine learning "
    "algorithms (arXiv:1708.07747)",
    home="https://github.com/zalandoresearch/fashion-mnist",
)
SOURCES = (
    Source(FULL, FACTS, SHAPE, CLASS_NAMES, _full, partial(mnist.splits, FULL, CLASS_NAMES)),
    Source(EMBEDDED, FACTS, SHAPE, CLASS_NAMES, _embedded, partial(mnist.splits, EMBEDDED, CLASS_NAMES)),
)
