"""A file of a data set: what it must hold, and one that passed its check."""

from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class BadFileError(ValueError):
    """What is wrong with a file; where it lies decides what to do about it."""


class DataFile(Protocol):
    """A file of a data set, by what it must hold. It can be hashed and compared."""

    @property
    def name(self) -> str:
        """Its name in messages."""

    @property
    def file_names(self) -> tuple[str, ...]:
        """Names under which it is accepted; the first is the one at the mirrors."""

    @property
    def sha256(self) -> str:
        """The hash of its content, in hexadecimal."""

    @property
    def num_bytes(self) -> int:
        """The size of its content."""

    @property
    def content(self) -> str:
        """What it holds, e.g. "60000 images"."""

    def read(self, path: Path) -> NDArray[np.uint8]:
        """The array in the file at `path`. Raises BadFileError if it is not this one."""


class Verified(NamedTuple):
    """A file that passed its check: where it is and what it holds."""

    path: Path
    file: DataFile
    array: NDArray[np.uint8]
