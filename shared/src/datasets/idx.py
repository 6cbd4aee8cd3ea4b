"""IDX files, the format of MNIST and its relatives: an array of unsigned bytes behind a header that gives its shape."""

import gzip
import hashlib
import lzma
import math
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddpm_shared.datasets.verified import BadFileError
from ddpm_shared.errors import UserError


class IdxFile(NamedTuple):
    """An IDX file and what it must hold; `sha256` is of its decompressed bytes, header included."""

    name: str
    shape: tuple[int, ...]
    sha256: str

    @property
    def file_names(self) -> tuple[str, ...]:
        """Names under which it is accepted, packed or not; the first is the one at the mirrors."""
        return tuple(self.name + suffix for suffix in (".gz", "", ".xz"))

    @property
    def num_bytes(self) -> int:
        """The size of its content, header included."""
        return 4 + 4 * len(self.shape) + math.prod(self.shape)

    @property
    def content(self) -> str:
        """What it holds, e.g. "60000 images"."""
        return f"{self.shape[0]} {'images' if len(self.shape) == 3 else 'labels'}"

    def read(self, path: Path) -> NDArray[np.uint8]:
        """The array in the file at `path`. Raises BadFileError if it is not this one."""
        return _parse(path, self.shape, self.sha256)


def read_idx(
    path: str | Path,
    shape: tuple[int, ...] | None = None,
    sha256: str | None = None,
    way_out: str = "replace it with a fresh copy",
) -> NDArray[np.uint8]:
    """Read an IDX file: 00 00 08, the number of dimensions, every size as big-endian uint32, then the bytes.

    The checks run from the outside in: compression, magic, shape, length, hash.

    Args:
        path: the file; decompressed when its name ends in .gz or .xz.
        shape: the expected shape; None accepts the header's.
        sha256: the expected hash of the decompressed file, in hexadecimal; None accepts any.
        way_out: what the user should do about a bad file.

    Returns:
        A new array in the header's shape, uint8.

    Raises:
        UserError: a missing, damaged or different file: its path, what it holds and what was expected.
    """
    try:
        return _parse(Path(path), shape, sha256)
    except BadFileError as bad:
        raise UserError(f"{path} {bad}: {way_out}") from None


def _parse(path: Path, shape: tuple[int, ...] | None, sha256: str | None) -> NDArray[np.uint8]:
    data = _decompress(path)

    dimensions = data[3] if len(data) > 3 else 0
    if data[:3] != b"\0\0\x08" or (shape is not None and dimensions != len(shape)):
        expected = "and the number of dimensions" if shape is None else f"{len(shape):02x}"
        start = data[:4].hex(" ") or "nothing"
        raise BadFileError(f"starts with {start}, expected 00 00 08 {expected} (IDX of unsigned bytes)")

    header = 4 + 4 * dimensions
    if len(data) < header:
        raise BadFileError(f"ends after {len(data)} bytes, expected the shape of an array there")
    sizes = struct.unpack(f">{dimensions}I", data[4:header])
    if shape is not None and sizes != shape:
        raise BadFileError(f"has shape {list(sizes)}, expected {list(shape)}")

    length = len(data) - header
    if length != math.prod(sizes):
        raise BadFileError(f"has {length} bytes after its header, expected {math.prod(sizes)} by its shape")

    digest = hashlib.sha256(data).hexdigest()
    if sha256 is not None and digest != sha256:
        raise BadFileError(f"has other content: SHA-256 {digest} when decompressed, expected {sha256}")
    return np.frombuffer(data, np.uint8, offset=header).reshape(sizes).copy()  # torch wants writable memory


def _decompress(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadFileError(f"cannot be read ({error.strerror}), expected an IDX file") from None
    if not data:
        raise BadFileError("is empty, expected an IDX file")
    try:
        if path.suffix == ".gz":
            return gzip.decompress(data)
        return lzma.decompress(data) if path.suffix == ".xz" else data
    except EOFError:
        raise BadFileError(f"breaks off after {len(data)} bytes, expected a complete .gz file") from None
    except (gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
        raise BadFileError(f"is damaged ({error}), expected a sound {path.suffix} file") from None
