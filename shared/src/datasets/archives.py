"""Members of an archive, a .zip or a .tar.gz, read into memory: nothing is unpacked to the disk.

The archive's own hash is checked before it is opened. A member is found by its name and read up to the size that it
must have, so neither its path nor what it would unpack to matters.
"""

import contextlib
import gzip
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, BinaryIO, cast

from ddpm_shared import reading
from ddpm_shared.datasets.verified import BadFileError, require_sha256

BROKEN: tuple[type[Exception], ...] = (tarfile.TarError, *reading.BROKEN)
SURPLUS = 2**20  # bytes of a tar beside the members that are read: their headers, and files about the data


def members(path: Path, sha256: str, sizes: Mapping[str, int]) -> dict[str, bytes]:
    """The content of named members of an archive.

    Args:
        path: the file; its first bytes say whether it is a .zip, else it is read as a .tar.gz.
        sha256: of the archive itself.
        sizes: by name, the bytes of a member: exactly in a tar, at most in a zip.

    Raises:
        BadFileError: another archive, a damaged one, or one that lacks a member.
    """
    require_sha256(path, sha256)
    with _refusing(), path.open("rb") as file:
        inside = dict(_of_zip(file, sizes) if zipfile.is_zipfile(file) else _of_tar(file, sizes))
    if missing := sizes.keys() - inside.keys():
        raise BadFileError(f"lacks {', '.join(sorted(missing))}, expected an archive with it")
    return inside


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except BadFileError:
        raise
    except BROKEN as error:
        raise BadFileError(f"is damaged ({reading.one_line(error)}), expected a sound archive") from None


def _of_zip(file: BinaryIO, sizes: Mapping[str, int]) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(file) as archive:
        for name in sizes.keys() & set(archive.namelist()):
            with archive.open(name) as member:
                yield name, _exactly(member, name, archive.getinfo(name).file_size, sizes[name])


def _of_tar(file: BinaryIO, sizes: Mapping[str, int]) -> Iterator[tuple[str, bytes]]:
    file.seek(0)
    left = set(sizes)
    with gzip.open(file) as unpacked:
        limited = _Limited(cast(BinaryIO, unpacked), sum(sizes.values()) + SURPLUS)
        with tarfile.open(fileobj=cast(BinaryIO, limited), mode="r|") as archive:
            for entry in archive:
                if entry.name in left and entry.isreg() and (member := archive.extractfile(entry)):
                    left.remove(entry.name)
                    yield entry.name, _exactly(member, entry.name, entry.size, sizes[entry.name])
                if not left:
                    return


def _exactly(member: IO[bytes], name: str, size: int, at_most: int) -> bytes:
    if size > at_most:
        raise BadFileError(f"has {size:,} bytes in {name}, expected {at_most:,}")
    content = member.read(size + 1)
    if len(content) != size:
        raise BadFileError(f"has {len(content):,} bytes in {name}, expected {size:,}")
    return content


class _Limited:
    """A stream that ends with an error after so many bytes, however much a packed file would become."""

    def __init__(self, stream: IO[bytes], at_most: int) -> None:
        self.stream, self.left = stream, at_most

    def read(self, size: int) -> bytes:
        self.left -= size
        if self.left < 0:
            raise BadFileError("would become larger than its images are, expected a sound archive")
        return self.stream.read(size)
