"""One writer at a time: a process claims a folder before it writes there.

A claim is a lock on the file .lock in the folder. The operating system frees it when the process ends, `kill -9`
included, so a dead writer never blocks the next one.
"""

import atexit
import contextlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from ddpm_shared import stopping
from ddpm_shared.errors import UserError

LOCK = ".lock"
# What files.write_atomically leaves behind where its process is killed, by the names that we write.
LEFTOVER = re.compile(r"\.(latest|.+\.(safetensors|json|npz|png|gif|html|onnx))\.\d+\.tmp")

_held: dict[Path, FileLock] = {}


def claim(folder: Path) -> None:
    """Make this process the only one that writes to `folder`, until `release` or its end. The folder is made.

    The temporary files of dead writers are removed. A folder that this process has claimed already stays claimed.

    Raises:
        UserError: another process writes to it, or it is a file.
        OSError: the folder cannot be made or written to.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder.resolve()
    if path in _held:
        return
    lock = _locked(path / LOCK)
    if lock is None:
        raise UserError(f"another process is writing to {folder}: wait until it ends, or choose another folder")
    _held[path] = lock
    for place in (path, path / "checkpoints", path / "samples"):
        _remove_leftovers(place)


def _locked(file: Path, wait: bool = False) -> FileLock | None:
    """A lock on `file`, which this process now holds; None if another process holds it and is not waited for."""
    lock = FileLock(file, blocking=wait)
    try:
        lock.acquire()
    except Timeout:
        return None
    return lock


def _remove_leftovers(folder: Path, name: str = "*") -> None:
    for file in folder.glob(f".{name}.*.tmp"):
        if LEFTOVER.fullmatch(file.name):
            file.unlink(missing_ok=True)


def _free(lock: FileLock) -> None:
    with contextlib.suppress(OSError):
        Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()


def release(folder: Path) -> None:
    """Let other processes write to `folder`. If nothing was written there, it is removed."""
    path = folder.resolve()
    if lock := _held.pop(path, None):
        _free(lock)
        with contextlib.suppress(OSError):  # it holds files
            path.rmdir()


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """A context in which this process alone writes to `folder`, claimed before or now; at its end it is released."""
    claim(folder)
    try:
        yield
    finally:
        release(folder)


@contextlib.contextmanager
def in_turn(file: Path) -> Iterator[None]:
    """A context in which this process alone makes `file`, in a cache. Another process that makes it is waited for."""
    key = file.with_name(f".{file.name}{LOCK}")
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # a folder in which nothing can be written: there is no turn to take
            file.parent.mkdir(parents=True, exist_ok=True)
            lock = _locked(key)
            if lock is None:
                print(f"waiting for another process that makes {file}", file=sys.stderr)
                lock = _locked(key, wait=True)
            assert lock is not None
            stack.callback(_free, lock)
            _remove_leftovers(file.parent, file.name)
        yield


@contextlib.contextmanager
def released_on_error() -> Iterator[None]:
    """A context, or a decorator: what is claimed in it is released if it raises."""
    before = set(_held)
    try:
        yield
    except BaseException:
        for path in set(_held) - before:
            release(path)
        raise


def is_claimed(folder: Path) -> bool:
    """Whether another process writes to `folder`."""
    path = folder.resolve()
    if path in _held or not (path / LOCK).is_file():
        return False
    try:
        lock = _locked(path / LOCK)
    except OSError:  # a folder in which this process may not write
        return False
    if lock is not None:
        lock.release()
    return lock is None


def _release_all() -> None:
    for folder in list(_held):
        release(folder)


atexit.register(_release_all)
stopping.on_the_way_out(_release_all)
