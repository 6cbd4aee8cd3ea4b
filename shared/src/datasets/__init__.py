"""The data sets by name, as uint8 arrays.

    train, test = load("auto")          # images [N, 28, 28, 1] uint8, labels [N] uint8

One file a family, with its facts and its sources; a new one is entered in DATASETS. download.py finds or downloads
the files of any of them, by transfer.py; idx.py reads those in MNIST's format, and archives.py members of archives.

`python -m ddpm_shared.datasets` fetches, verifies and lists the files, and prints the data set's passport.
"""

from collections.abc import Callable, Sequence

from ddpm_shared.config import FolderConfig
from ddpm_shared.datasets import cifar, emnist, emoji, fashion_mnist, mnist, own_idx
from ddpm_shared.datasets import folder as own_folder
from ddpm_shared.datasets.fashion_mnist import EMBEDDED, FULL
from ddpm_shared.datasets.source import Facts, Source, Split
from ddpm_shared.datasets.verified import Verified
from ddpm_shared.errors import choice

__all__ = [
    "AUTO",
    "DATASETS",
    "EMBEDDED",
    "FASHION",
    "FULL",
    "NAMES",
    "OWN",
    "Facts",
    "Source",
    "Split",
    "Verified",
    "fetch",
    "load",
]

AUTO = "auto"
FASHION = (AUTO, FULL, EMBEDDED)
DATASETS: dict[str, Source] = {
    source.name: source
    for source in (*fashion_mnist.SOURCES, emoji.SOURCE, *mnist.SOURCES, *emnist.SOURCES, *cifar.SOURCES)
}
# The user's own, read from --data-dir.
OWN: dict[str, Callable[[str | None, FolderConfig], tuple[Split, Split]]] = {
    own_idx.NAME: own_idx.load,
    own_folder.NAME: own_folder.load,
}
NAMES = (AUTO, *DATASETS, *OWN)  # that a user may give


def load(name: str, data_dir: str | None = None, folder: FolderConfig | None = None) -> tuple[Split, Split]:
    """The training and the test split of a data set.

    Args:
        name: one of DATASETS; one of OWN; or "auto": the full Fashion-MNIST if it can be had, else the embedded one
            with a line on stderr.
        data_dir: the folder of the data set's files; no other place is tried then.
        folder: how the pictures of the data set "folder" become images (default: FolderConfig()).

    Returns:
        (train, test), images [N, H, W, C] uint8 in 0 .. 255.

    Raises:
        UserError: an unknown name; a bad or missing file in data_dir; no good copy here and none to download.
    """
    choice("dataset", name, NAMES)
    if name in OWN:
        return OWN[name](data_dir, folder or FolderConfig())
    name, verified = fetch(name, data_dir)
    return DATASETS[name].splits(verified)


def fetch(name: str, data_dir: str | None = None) -> tuple[str, Sequence[Verified]]:
    """Find, and if need be download, the verified files of a published data set; arguments and errors as in `load`.

    Returns:
        The name of the data set, "auto" resolved, and its files.
    """
    choice("dataset", name, (AUTO, *DATASETS))
    return fashion_mnist.auto(data_dir) if name == AUTO else (name, DATASETS[name].fetch(data_dir))


def image_size(name: str, folder: FolderConfig) -> int | None:
    """Height of the images of a data set, as far as it is known before the files are read; else None."""
    if name in DATASETS:
        return DATASETS[name].shape[0]
    return folder.image_size if name == "folder" else None


def flips(name: str) -> bool:
    """Whether the images of a data set are flipped left to right in training, unless the user says otherwise."""
    return name in DATASETS and DATASETS[name].facts.flip
