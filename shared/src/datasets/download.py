"""The files of any data set: look for them on this machine, else download them; use only what passes its check.

The places are tried in this order: --data-dir, the user's cache folder, a folder of the system's package, the mirrors
on the web. A DataFile states what a file must hold, and checks it.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from ddpm_shared import files
from ddpm_shared.errors import UserError

ATTEMPTS = 2  # at a mirror that has begun to send
TIMEOUT = (10, 30)  # seconds to connect, seconds of silence
LEAVE_OUT = "leave out --data-dir to have the data found or downloaded"


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
    def content(self) -> str:
        """What it holds, e.g. "60000 images"."""

    def read(self, path: Path) -> NDArray[np.uint8]:
        """The array in the file at `path`. Raises BadFileError if it is not this one."""


class Verified(NamedTuple):
    """A file that passed its check: where it is and what it holds."""

    path: Path
    file: DataFile
    array: NDArray[np.uint8]


class SystemPackage(NamedTuple):
    """A package of Debian that holds the files."""

    name: str
    folder: Path


@dataclass(frozen=True)
class FileSet:
    """Files that belong together, and where to look for them."""

    name: str  # of their folder in the cache
    title: str  # of the data set, in messages
    words: str  # for the files in messages, e.g. "the four files"
    forms: str  # in which a folder may hold them, e.g. ".gz or unzipped"
    files: tuple[DataFile, ...]
    mirrors: tuple[str, ...]  # addresses of folders, each ending in a slash
    system: SystemPackage | None = None


def fetch(wanted: FileSet, data_dir: str | None) -> list[Verified]:
    """Look for the verified files of a set, and download those that are not here.

    Args:
        wanted: the set.
        data_dir: the folder to take them from; no other place is tried then.

    Returns:
        The files, in the order of the set.

    Raises:
        UserError: a bad or missing file in data_dir; no good copy here and none to download.
    """
    if data_dir is not None:
        return _from_data_dir(wanted, os.path.expanduser(data_dir))
    return _from_anywhere(wanted)


def from_folder(wanted: Sequence[DataFile], folder: Path, way_out: str) -> list[Verified] | None:
    """The files of a folder; None when one is missing, UserError with the way out when one is bad."""
    paths = [(file, path) for file in wanted if (path := _path(folder, file))]
    if len(paths) < len(wanted):
        return None
    verified = []
    for file, path in paths:
        try:
            verified.append(Verified(path, file, file.read(path)))
        except BadFileError as bad:
            raise UserError(f"{path} {bad}: {way_out}") from None
    return verified


def report(line: str) -> None:
    """Print one line about the data on stderr."""
    print(f"ddpm-duet: {line}", file=sys.stderr, flush=True)


def _path(folder: Path, file: DataFile) -> Path | None:
    return next((path for name in file.file_names if os.path.isfile(path := folder / name)), None)


def _from_data_dir(wanted: FileSet, data_dir: str) -> list[Verified]:
    if not os.path.isdir(data_dir):
        raise UserError(f"--data-dir {data_dir!r} is not a folder: name another, or {LEAVE_OUT}")
    verified = from_folder(wanted.files, Path(data_dir), f"replace it with a fresh copy, or {LEAVE_OUT}")
    if verified is None:
        names = ", ".join(file.name for file in wanted.files if not _path(Path(data_dir), file))
        raise UserError(f"--data-dir {data_dir!r} lacks {names} ({wanted.forms}): put it in, or {LEAVE_OUT}")
    return verified


def _from_anywhere(wanted: FileSet) -> list[Verified]:
    """The cache, if it is complete and good; else the system's folder; else the cache, filled from mirrors."""
    cache = files.cache_dir(wanted.name)
    cached = {}
    for file in wanted.files:
        if path := _path(cache, file):
            try:
                cached[file] = Verified(path, file, file.read(path))
            except BadFileError as bad:
                report(f"removing a bad file from the cache: {path} {bad}")
                with contextlib.suppress(OSError):  # in somebody else's cache, it is only passed over
                    path.unlink()
    if wanted.system and len(cached) < len(wanted.files):
        package = wanted.system.name
        way_out = f"run `apt-get install --reinstall {package}`, or name a good copy by --data-dir"
        if installed := from_folder(wanted.files, wanted.system.folder, way_out):
            return installed
    return [cached.get(file) or _download(wanted, cache, file) for file in wanted.files]


def _download(wanted: FileSet, cache: Path, file: DataFile) -> Verified:
    """One file from the first mirror that has it; it gets its name in the cache after it was verified."""
    import pooch  # here, with what it imports: a fifth of a second that `--help` need not take
    import requests

    downloader = pooch.HTTPDownloader(progressbar=True, chunk_size=2**16, timeout=TIMEOUT)
    target = cache / file.file_names[0]
    failures = []
    try:
        cache.mkdir(parents=True, exist_ok=True)
        # A folder of our own: no other run writes there, and it is removed on any exception, Ctrl-C included.
        with tempfile.TemporaryDirectory(prefix="download-", dir=cache) as temporary:
            part = Path(temporary) / target.name
            for mirror in wanted.mirrors:
                for _ in range(ATTEMPTS):
                    report(f"downloading {mirror}{target.name}")
                    try:
                        downloader(mirror + target.name, str(part), None)
                        array = file.read(part)
                        os.replace(part, target)
                        return Verified(target, file, array)
                    except requests.RequestException as error:
                        reason = str(getattr(error.response, "status_code", type(error).__name__))
                        broke_off = isinstance(error, requests.exceptions.ChunkedEncodingError)
                    except BadFileError as bad:
                        reason, broke_off = f"the file {bad}", True
                    failures.append(f"{urlsplit(mirror).netloc}: {reason}")
                    if not broke_off:
                        break  # no such machine or no such file: another attempt will not help
    except OSError as error:  # a full disk, a folder that is not ours
        raise UserError(
            f"cannot write to the cache folder {cache} ({error.strerror}): make room there, or set "
            f"DDPM_DUET_CACHE to another folder, or put {wanted.words} in --data-dir"
        ) from None
    tried = "; ".join(dict.fromkeys(failures))
    debian = f" (Debian: apt-get install {wanted.system.name})" if wanted.system else ""
    raise UserError(
        f"no copy of {wanted.title} on this machine and no download of {target.name} ({tried}): "
        f"connect and run again, or put {wanted.words} in --data-dir or in {cache}{debian}"
    )
