"""Arrays from a .npz file, which is a zip of .npy files: what each declares is checked before it is unpacked.

Nothing is unpickled. An entry's declared size must be what its header says: shape, times bytes of a number. So a file
of some kilobytes cannot ask for terabytes.
"""

import io
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ddpm_shared import reading

AT_MOST = 1024 * reading.MIB  # bytes, unpacked: 1.3 million images of 28 x 28, or 170,000 in float64
HEADER = 64 * 1024  # bytes of the header of a .npy file; NumPy writes 128
HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # np.savez and np.savez_compressed


def read(
    path: Path, way_out: object, names: Sequence[str] | None = None, at_most: int = AT_MOST
) -> dict[str, NDArray[Any]]:
    """The arrays of a .npz file by name.

    Args:
        path: the file.
        way_out: ends every message.
        names: the arrays to read, as far as the file has them (default: all).
        at_most: bytes of the arrays in all.

    Raises:
        UserError: no such file, or not a whole one; an array of Python objects, or a larger one.
    """

    def message(reason: str) -> str:
        return f"{reading.name_of(path)} is not a whole .npz file ({reason}): {way_out}"

    with reading.opened(path, way_out) as (file, size), reading.refusing(message):
        if size > 2 * at_most:
            raise ValueError(f"it has {size:,} bytes")
        with zipfile.ZipFile(file) as archive:
            entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
            if len(entries) < len(archive.infolist()):
                raise ValueError("it has two arrays of one name")
            wanted = [name for name in entries if names is None or name in names]
            total = sum(entries[name].file_size for name in wanted)
            if total > at_most:
                raise ValueError(f"unpacked it has {total:,} bytes, more than {at_most:,}")
            return {name: _array(archive, entries[name], name) for name in wanted}


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str) -> NDArray[Any]:
    name = repr(reading.one_line(name, 40))  # in messages
    if entry.flag_bits & 1:
        raise ValueError(f"its array {name} is encrypted")
    if entry.compress_type not in METHODS:
        raise ValueError(f"its array {name} is packed by the unknown method {entry.compress_type}")
    with archive.open(entry) as stream:
        head, shape, fortran_order, dtype = _header(stream, name)
        declared = math.prod(shape) * dtype.itemsize
        if declared != entry.file_size - head:
            raise ValueError(f"its array {name} declares {declared:,} bytes and has {entry.file_size - head:,}")
        content = bytearray(stream.read(declared))
        if stream.read(1) or len(content) != declared:  # reading to the end checks the sum of the bytes
            raise ValueError(f"its array {name} breaks off after {len(content):,} of {declared:,} bytes")
    return np.ndarray(shape, dtype, content, order="F" if fortran_order else "C")


def _header(stream: IO[bytes], name: str) -> tuple[int, tuple[int, ...], bool, np.dtype[Any]]:
    """Bytes of the header of a .npy file, and what it says: shape, order, data type."""
    start = stream.read(12)
    version = npy.read_magic(io.BytesIO(start))
    if version not in HEADERS:
        raise ValueError(f"its array {name} is of the unknown .npy format {version}")
    width = 2 if version == (1, 0) else 4
    length = int.from_bytes(start[8 : 8 + width], "little")
    if length > HEADER:
        raise ValueError(f"the header of its array {name} has {length:,} bytes")
    head = 8 + width + length
    rest = stream.read(head - len(start))
    shape, fortran_order, dtype = HEADERS[version](io.BytesIO(start[8:] + rest))
    if dtype.hasobject:
        raise ValueError(f"its array {name} holds Python objects, which are not read")
    if any(type(size) is not int or size < 0 for size in shape):
        raise ValueError(f"its array {name} has the shape {reading.one_line(shape)}")
    return head, shape, fortran_order, dtype
