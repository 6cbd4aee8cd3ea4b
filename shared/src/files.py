"""Writing files atomically: a reader sees a whole file or none."""

import contextlib
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from numpy.typing import ArrayLike, NDArray

from ddpm_shared import npz
from ddpm_shared.errors import UserError


def cache_dir(name: str) -> Path:
    """The folder `name` of what can be downloaded or computed again, under $DDPM_DUET_CACHE or the user's cache."""
    root = os.environ.get("DDPM_DUET_CACHE") or platformdirs.user_cache_dir("ddpm-duet")
    return Path(root).expanduser() / name


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` under a temporary name beside `path`, then rename it: a reader never sees half a file.

    Raises:
        OSError: e.g. a full disk. The old file, if any, is unchanged, and the temporary one is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
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
    if path.is_dir() and os.name == "nt":  # Windows opens no folders
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
