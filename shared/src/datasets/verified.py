"""A file of a data set: what it must hold, and one that passed its check."""

import hashlib
import os
import stat
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
        """The hash of its content, or of the file where it is packed, in hexadecimal."""

    @property
    def num_bytes(self) -> int:
        """The size of its content, or of the file where it is packed."""

    @property
    def content(self) -> str:
        """What it holds, e.g. "60000 images", and "packed" where the hash is of the packed file."""

    def read(self, path: Path) -> NDArray[np.uint8]:
        """The array in the file at `path`. Raises BadFileError if it is not this one."""


class Verified(NamedTuple):
    """A file that passed its check: where it is and what it holds."""

    path: Path
    file: DataFile
    array: NDArray[np.uint8]


def require_sha256(path: Path, sha256: str) -> None:
    """Raise BadFileError if the file at `path`, as it is, has another hash or cannot be read."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe or a device may never end
            raise BadFileError("is no regular file, expected one")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadFileError(f"cannot be read ({error.strerror or error})") from None
    if digest != sha256:
        raise BadFileError(f"has other content: SHA-256 {digest}, expected {sha256}")
