"""The files of any data set: look for them on this machine, else download them; use only what passes its check.

The places are tried in this order: --data-dir, the user's cache folder, a folder of the system's package, the mirrors
on the web. A DataFile (verified.py) states what a file must hold, and checks it; transfer.py gets one from one mirror.
"""

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from ddpm_shared import files
from ddpm_shared.datasets import transfer
from ddpm_shared.datasets.verified import BadFileError, DataFile, Verified
from ddpm_shared.errors import UserError

ATTEMPTS = 2  # at a mirror that has begun to send
PART = "download-"  # begins the name of the folder that a download is written to
LEAVE_OUT = "leave out --data-dir to have the data found or downloaded"


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
    cached, bad = _cached(wanted, cache)
    if bad:
        with (
            contextlib.suppress(OSError),
            _only_writer(wanted, cache),
        ):  # in another's cache, they are passed over
            cached, _ = _cached(wanted, cache, remove=True)
    if wanted.system and len(cached) < len(wanted.files):
        package = wanted.system.name
        way_out = f"run `apt-get install --reinstall {package}`, or name a good copy by --data-dir"
        if installed := from_folder(wanted.files, wanted.system.folder, way_out):
            return installed
    if len(cached) < len(wanted.files):
        try:
            with _only_writer(wanted, cache):
                cached, _ = _cached(wanted, cache)  # another process may have filled it
                return [cached.get(file) or _download(wanted, cache, file) for file in wanted.files]
        except OSError as error:  # a full disk, a folder that is not ours
            raise UserError(
                f"cannot write to the cache folder {cache} ({error.strerror}): make room there, or set "
                f"DDPM_DUET_CACHE to another folder, or put {wanted.words} in --data-dir"
            ) from None
    return [cached[file] for file in wanted.files]


def _cached(wanted: FileSet, cache: Path, remove: bool = False) -> tuple[dict[DataFile, Verified], list[Path]]:
    """The good and the bad files of the set in the cache; the bad ones are removed on request."""
    good, bad = {}, []
    for file in wanted.files:
        if path := _path(cache, file):
            try:
                good[file] = Verified(path, file, file.read(path))
            except BadFileError as wrong:
                bad.append(path)
                if remove:
                    report(f"removing a bad file from the cache: {path} {wrong}")
                    path.unlink()
    return good, bad


@contextlib.contextmanager
def _only_writer(wanted: FileSet, cache: Path) -> Iterator[None]:
    """Be the only process that writes to a folder in the cache. Raises OSError where it cannot be written to."""
    import filelock

    cache.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(cache / ".lock")  # which the system gives back when its holder is killed
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        report(f"waiting for another process, which is downloading {wanted.title} to {cache}")
        lock.acquire()
    try:
        for left in cache.glob(f"{PART}*"):  # by a writer that was killed
            shutil.rmtree(left, ignore_errors=True)
        yield
    finally:
        lock.release()


def _download(wanted: FileSet, cache: Path, file: DataFile) -> Verified:
    """One file from the first mirror that has it; it gets its name in the cache after it was verified."""
    name, failures = file.file_names[0], []
    # A folder of our own: it is removed on any exception, Ctrl-C included.
    with tempfile.TemporaryDirectory(prefix=PART, dir=cache) as temporary:
        for mirror in wanted.mirrors:
            for _ in range(ATTEMPTS):
                report(f"downloading {mirror}{name}")
                try:
                    return transfer.receive(mirror + name, file, Path(temporary), cache)
                except transfer.MirrorError as failure:
                    failures.append(f"{urlsplit(mirror).netloc}: {failure}")
                    if not failure.began:
                        break  # no such machine or no such file: another attempt will not help
    tried = "; ".join(dict.fromkeys(failures))
    debian = f" (Debian: apt-get install {wanted.system.name})" if wanted.system else ""
    raise UserError(
        f"no copy of {wanted.title} on this machine and no download of {name} ({tried}{transfer.settings()}): "
        f"connect and run again, or put {wanted.words} in --data-dir or in {cache}{debian}"
    )
