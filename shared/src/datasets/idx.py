"""IDX files, the format of MNIST and its relatives: an array of unsigned bytes behind a header that gives its shape."""

import contextlib
import gzip
import hashlib
import io
import lzma
import math
import os
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from ddpm_shared import reading
from ddpm_shared.datasets.verified import BadFileError, require_sha256
from ddpm_shared.errors import UserError

AT_MOST = 2**30  # bytes of an array; Fashion-MNIST has 47 million


class IdxFile(NamedTuple):
    """An IDX file and what it must hold; `sha256` is of its decompressed bytes, header included.

    Where `packed`, it is of the .gz as the mirrors have it, since no hash of the content is published.
    """

    name: str
    shape: tuple[int, ...]
    sha256: str
    packed: bool = False

    @property
    def file_names(self) -> tuple[str, ...]:
        """Names under which it is accepted, packed or not; the first is the one at the mirrors."""
        return tuple(self.name + suffix for suffix in ((".gz",) if self.packed else (".gz", "", ".xz")))

    @property
    def num_bytes(self) -> int:
        """The size of its content, header included."""
        return 4 + 4 * len(self.shape) + math.prod(self.shape)

    @property
    def content(self) -> str:
        """What it holds, e.g. "60000 images"."""
        return f"{self.shape[0]} {'labels' if len(self.shape) == 1 else 'images'}{', packed' if self.packed else ''}"

    def read(self, path: Path) -> NDArray[np.uint8]:
        """The array in the file at `path`. Raises BadFileError if it is not this one."""
        if self.packed:
            require_sha256(path, self.sha256)
        return _parse(path, self.shape, None if self.packed else self.sha256)


def read_idx(
    path: str | Path,
    shape: tuple[int, ...] | None = None,
    sha256: str | None = None,
    way_out: str = "replace it with a fresh copy",
) -> NDArray[np.uint8]:
    """Read an IDX file: 00 00 08, the number of dimensions, every size as big-endian uint32, then the bytes.

    The checks run from the outside in: compression, magic, shape, length, hash.

    Args:
        path: the file, packed by gzip or xz or not at all; its first bytes say which.
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
        raise UserError(f"{reading.name_of(path)} {bad}: {way_out}") from None


def parse_gz(content: bytes, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The array in an IDX file packed by gzip, as it is in an archive. Raises BadFileError if it has another shape."""
    with _refusing(".gz", len(content)):
        return _parse_stream(cast(BinaryIO, gzip.open(io.BytesIO(content))), shape, None)


def digest(array: NDArray[np.uint8]) -> str:
    """The SHA-256 of an array's IDX file, unpacked."""
    header = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    sha256 = hashlib.sha256(header)
    sha256.update(np.ascontiguousarray(array).data)
    return sha256.hexdigest()


def _parse(path: Path, shape: tuple[int, ...] | None, sha256: str | None) -> NDArray[np.uint8]:
    with _unpacked(path) as stream:
        return _parse_stream(stream, shape, sha256)


def _parse_stream(stream: BinaryIO, shape: tuple[int, ...] | None, sha256: str | None) -> NDArray[np.uint8]:
    """Read no more than the header says, and a byte, however much a packed file would become."""
    start = stream.read(4)
    dimensions = start[3] if len(start) > 3 else 0
    if start[:3] != b"\0\0\x08" or (shape is not None and dimensions != len(shape)):
        expected = "and the number of dimensions" if shape is None else f"{len(shape):02x}"
        found = start.hex(" ") or "nothing"
        raise BadFileError(f"starts with {found}, expected 00 00 08 {expected} (IDX of unsigned bytes)")

    header = stream.read(4 * dimensions)
    if len(header) < 4 * dimensions:
        raise BadFileError(f"ends after {4 + len(header)} bytes, expected the shape of an array there")
    sizes = struct.unpack(f">{dimensions}I", header)
    if shape is not None and sizes != shape:
        raise BadFileError(f"has shape {list(sizes)}, expected {list(shape)}")
    length = math.prod(sizes)
    if length > AT_MOST:
        number = reading.one_line(f"{length:,}", 40)  # of 255 dimensions, it has thousands of digits
        raise BadFileError(f"would have {number} bytes by its shape, expected at most {AT_MOST:,}")

    content = stream.read(length + 1)
    if len(content) != length:
        found = f"{len(content)}" if len(content) < length else f"more than {length}"
        raise BadFileError(f"has {found} bytes after its header, expected {length} by its shape")

    found = hashlib.sha256(start + header + content).hexdigest()
    if sha256 is not None and found != sha256:
        raise BadFileError(f"has other content: SHA-256 {found} when decompressed, expected {sha256}")
    return np.frombuffer(content, np.uint8).reshape(sizes).copy()  # torch wants writable memory


@contextlib.contextmanager
def _unpacked(path: Path) -> Iterator[BinaryIO]:
    """The decompressed file, to be read in the block. Raises BadFileError if it cannot be."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe or a device may never end
            raise BadFileError("is no regular file, expected an IDX file")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if not size:
                raise BadFileError("is empty, expected an IDX file")
            kind = _kind(file.peek(6)[:6], path.suffix)
            with _refusing(kind, size):
                yield _unpacker(file, kind)
    except BadFileError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        reason = getattr(error, "strerror", None) or error
        raise BadFileError(f"cannot be read ({reason}), expected an IDX file") from None


@contextlib.contextmanager
def _refusing(kind: str, size: int) -> Iterator[None]:
    """Raise BadFileError where a file of so many bytes, packed as `kind` says, is damaged."""
    try:
        yield
    except EOFError:
        raise BadFileError(f"breaks off after {size} bytes, expected a complete {kind} file") from None
    except reading.BROKEN_BY["gzip, lzma"] as error:
        raise BadFileError(f"is damaged ({error}), expected a sound {kind} file") from None


def _unpacker(file: IO[bytes], kind: str) -> BinaryIO:
    unpackers: dict[str, Callable[[IO[bytes]], Any]] = {".gz": gzip.open, ".xz": lzma.open}
    return cast(BinaryIO, unpackers[kind](file) if kind in unpackers else file)


def _kind(start: bytes, suffix: str) -> str:
    """How a file is packed, by its first bytes: a server or a browser may have unpacked a file and kept its name."""
    for kind, magic in ((".gz", b"\x1f\x8b"), (".xz", b"\xfd7zXZ\0"), ("", b"\0\0\x08")):
        if start.startswith(magic):
            return kind
    return suffix
