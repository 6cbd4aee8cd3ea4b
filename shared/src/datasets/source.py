"""What a data set is: a source, by what is known before its files are read, and a split of it in memory."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

from ddpm_shared.datasets.verified import Verified


class SplitRecord(TypedDict):
    """A split, as JSON files describe it."""

    name: str
    split: str
    num_images: int
    sha256: str


@dataclass(frozen=True)
class Split:
    """One split in memory."""

    name: str  # of the data set, e.g. "fashion-mnist"
    split: str  # "train" or "test"
    images: NDArray[np.uint8]  # [N, H, W, C], 0 is black
    labels: NDArray[np.integer[Any]]  # [N], indices into class_names; 0 where there are no classes
    sha256: str  # of the decompressed images file, or of all that the user's own files decide
    class_names: tuple[str, ...] = ()  # by label; () where there are no classes
    files: Mapping[str, str] = field(default_factory=dict)  # of a folder: relative path -> hash of its pixels

    @property
    def record(self) -> SplitRecord:
        """The split, as JSON files describe it."""
        return {"name": self.name, "split": self.split, "num_images": len(self.images), "sha256": self.sha256}


class Facts(NamedTuple):
    """What its makers say of a data set."""

    title: str
    licence: str
    citation: str  # authors, year, title, and where it was published
    home: str  # address of its page
    flip: bool = False  # a mirrored image could be one of its own: the default of --horizontal-flip


class Source(NamedTuple):
    """A published data set by name. `fetch` finds its files, given the user's --data-dir; `splits` makes (train, test).

    `fetch` raises UserError where there is no good copy.
    """

    name: str
    facts: Facts
    shape: tuple[int, int, int]  # of an image: height, width, channels
    class_names: tuple[str, ...]  # by label
    fetch: Callable[[str | None], Sequence[Verified]]
    splits: Callable[[Sequence[Verified]], tuple[Split, Split]]
