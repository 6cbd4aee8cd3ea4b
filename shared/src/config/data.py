"""Settings of the data."""

from dataclasses import dataclass, field
from typing import Annotated, Literal, get_args

from ddpm_shared.config.checks import fraction, positive, require, whole
from ddpm_shared.config.help import default_is
from ddpm_shared.errors import choice

Dataset = Literal[
    "auto",
    "fashion-mnist",
    "fashion-mnist-10k",
    "emoji",
    "mnist",
    "kmnist",
    "emnist-letters",
    "emnist-balanced",
    "cifar10",
    "cifar100",
    "idx",
    "folder",
]
Channels = Literal["auto", "grey", "colour"]

SMALLEST_IMAGE, LARGEST_IMAGE = 4, 1024  # pixels of a side


@dataclass(frozen=True)
class FolderConfig:
    """How the pictures of a folder become images: for --dataset folder."""

    image_size: int = 32
    """Height and width of the images, for --dataset folder: the middle square of each picture, shrunk to this."""
    channels: Channels = "auto"
    """Grey or colour images, for --dataset folder. auto: colour if any picture has colour."""
    test_share: float = 0.1
    """Share of the pictures that are test images, for --dataset folder; the hash of a picture's path decides."""
    skip_bad: bool = False
    """Leave out the files that cannot be read, for --dataset folder, instead of stopping."""

    def __post_init__(self) -> None:
        whole(self, "image_size", least=SMALLEST_IMAGE, most=LARGEST_IMAGE)
        choice("channels", self.channels, get_args(Channels))
        fraction(self, "test_share")
        positive(self, "test_share")
        require(isinstance(self.skip_bad, bool), "--skip-bad", self.skip_bad, "must be true or false")


@dataclass(frozen=True)
class RealImages:
    """A data set, and where it is."""

    dataset: Dataset = "auto"
    """Data set. auto: the full Fashion-MNIST if it can be found or downloaded, else its subset in the package."""
    data_dir: Annotated[str | None, default_is("find or download them")] = None
    """Folder of the data set's files; your own pictures for folder, your own four IDX files for idx."""
    folder: FolderConfig = field(default_factory=FolderConfig)

    def __post_init__(self) -> None:
        choice("dataset", self.dataset, get_args(Dataset))


@dataclass(frozen=True)
class DataConfig(RealImages):
    """The training and test images."""

    horizontal_flip: bool = False
    """Flip every training image left to right with probability 1/2. On by default for cifar10 and cifar100."""
