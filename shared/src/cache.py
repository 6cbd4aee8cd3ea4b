"""What is computed of the real images once, cached in the user's cache folder under the hash of all it depends on."""

import contextlib
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddpm_shared import claims, files

Arrays = dict[str, NDArray[Any]]
Shapes = Mapping[str, tuple[int, ...]]


def cached(
    name: str, hashes: tuple[str, ...], compute: Callable[[], Arrays], shapes: Shapes, folder: str = "evaluation"
) -> Arrays:
    """compute(), or what it returned the last time; a damaged or foreign file is made anew.

    Args:
        name: begins the name of the file.
        hashes: what the result depends on: SHA-256 of data and network, how many images.
        compute: returns the arrays, all of them of finite floating-point numbers.
        shapes: theirs, by name.
        folder: of the file, in the cache folder.
    """
    key = hashlib.sha256(" ".join(hashes).encode()).hexdigest()
    path = files.cache_dir(folder) / f"{name}-{key[:32]}.npz"
    arrays = _cached(path, shapes)
    if arrays is None:
        with claims.in_turn(path):
            arrays = _cached(path, shapes)  # another process may have made it in the meantime
            if arrays is None:
                arrays = compute()
                with contextlib.suppress(OSError):  # no room: then it is computed anew the next time
                    files.write_npz(path, **arrays)
    return arrays


def _cached(path: Path, shapes: Shapes) -> Arrays | None:
    arrays = files.read_npz(path)
    return arrays if arrays is not None and _fit(arrays, shapes) else None


def _fit(arrays: Arrays, shapes: Shapes) -> bool:
    return arrays.keys() == shapes.keys() and all(
        array.shape == shapes[name] and array.dtype.kind == "f" and bool(np.isfinite(array).all())
        for name, array in arrays.items()
    )
