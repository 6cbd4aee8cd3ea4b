"""Settings of the data."""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from ddpm_shared.config.help import default_is
from ddpm_shared.errors import choice

Dataset = Literal["auto", "fashion-mnist", "fashion-mnist-10k"]


@dataclass(frozen=True)
class DataConfig:
    """The training and test images."""

    dataset: Dataset = "auto"
    """Full Fashion-MNIST, its subset in the package, or (auto) the full set if it can be found or downloaded."""
    data_dir: Annotated[str | None, default_is("find or download them")] = None
    """Folder with the four IDX files of the full set."""
    horizontal_flip: bool = False
    """Flip every training image left to right with probability 1/2."""

    def __post_init__(self) -> None:
        choice("dataset", self.dataset, get_args(Dataset))
