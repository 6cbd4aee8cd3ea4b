"""Writing files atomically: a reader sees a whole file or none."""

import atexit
import contextlib
import functools
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import platformdirs
from numpy.typing import ArrayLike, NDArray

from ddpm_shared import npz, stopping
from ddpm_shared.errors import UserError


def cache_dir(name: str) -> Path:
    """The folder `name` of what can be downloaded or computed again, under $DDPM_DUET_CACHE or the user's cache.

    For a user without a home folder, it is in a temporary folder, which is removed when the process ends.

    Raises:
        UserError: DDPM_DUET_CACHE begins with ~ and a user who is not there.
    """
    if root := os.environ.get("DDPM_DUET_CACHE"):
        try:
            return Path(root).expanduser() / name
        except RuntimeError:
            raise UserError(f"DDPM_DUET_CACHE={root} names no folder: set it to one, or unset it") from None
    try:
        folder = Path(platformdirs.user_cache_dir("ddpm-duet"))
    except RuntimeError:  # no HOME, and no entry for the user in the system's list
        folder = _temporary_cache()
    return folder / name


@functools.cache
def _temporary_cache() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="ddpm-duet-")
    atexit.register(folder.cleanup)
    stopping.on_the_way_out(folder.cleanup)
    print("ddpm-duet: no home folder, so nothing stays cached: set DDPM_DUET_CACHE to a folder", file=sys.stderr)
    return Path(folder.name)


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` under a temporary name beside `path`, then rename it: a reader never sees half a file.

    Raises:
        OSError: e.g. a full disk. The old file, if any, is unchanged, and the temporary one is removed.
    """
    with atomically(path) as file:
        file.write(data)


@contextlib.contextmanager
def atomically(path: Path) -> Iterator[BinaryIO]:
    """A file that becomes `path` at the end of the block, as in `write_atomically`; on any exception, it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        flush_to_disk(path.parent)
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def flush_to_disk(path: Path) -> None:
    """Have the system write a file, or the names in a folder, to the disk now: a power cut cannot undo them then."""
    with contextlib.ExitStack() as stack:
        if path.is_dir():  # which Windows cannot open, and some network file systems cannot flush
            stack.enter_context(contextlib.suppress(OSError))
        descriptor = os.open(path, os.O_RDONLY)
        stack.callback(os.close, descriptor)
        os.fsync(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. Floats round-trip exactly; NaN and infinities are refused."""
    write_atomically(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def write_npz(path: Path, **arrays: ArrayLike) -> None:
    """Write named arrays as a compressed .npz file, atomically."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_atomically(path, buffer.getvalue())


def read_npz(path: Path) -> dict[str, NDArray[Any]] | None:
    """The arrays of a .npz file; None if there is no such file, or a damaged one."""
    with contextlib.suppress(UserError):
        return npz.read(path, "it is made anew")
    return None
