"""The data sets by name, as uint8 arrays.

    train, test = load("auto")          # images [N, 28, 28, 1] uint8, labels [N] uint8

One file a data set, with its facts and its sources; a new one is entered in DATASETS. download.py finds or downloads
the files of any of them, by transfer.py, and idx.py reads those in MNIST's format.

`python -m ddpm_shared.datasets` fetches, verifies and lists the files.
"""

from collections.abc import Sequence

from ddpm_shared.datasets import fashion_mnist
from ddpm_shared.datasets.fashion_mnist import EMBEDDED, FULL
from ddpm_shared.datasets.source import Source, Split
from ddpm_shared.datasets.verified import Verified
from ddpm_shared.errors import choice

__all__ = [
    "AUTO",
    "DATASETS",
    "EMBEDDED",
    "FULL",
    "NAMES",
    "Source",
    "Split",
    "Verified",
    "fetch",
    "load",
]

AUTO = "auto"
DATASETS: dict[str, Source] = {source.name: source for source in fashion_mnist.SOURCES}
NAMES = (AUTO, *DATASETS)  # that a user may give


def load(name: str, data_dir: str | None = None) -> tuple[Split, Split]:
    """The training and the test split of a data set.

    Args:
        name: "fashion-mnist" (60,000 and 10,000 images), "fashion-mnist-10k" (10,000 and 2,000, embedded), or
            "auto": the full set if it can be had, else the embedded one with a line on stderr.
        data_dir: the folder of the full set's four IDX files, .gz or unzipped; no other place is tried then.

    Returns:
        (train, test), images [N, H, W, C] uint8 in 0 .. 255.

    Raises:
        UserError: an unknown name; a bad or missing file in data_dir; no good copy here and none to download.
    """
    name, verified = fetch(name, data_dir)
    return DATASETS[name].splits(verified)


def fetch(name: str, data_dir: str | None = None) -> tuple[str, Sequence[Verified]]:
    """Find, and if need be download, the verified files of a data set; arguments and errors as in `load`.

    Returns:
        The name of the data set, "auto" resolved, and its files.
    """
    choice("dataset", name, NAMES)
    return fashion_mnist.auto(data_dir) if name == AUTO else (name, DATASETS[name].fetch(data_dir))
