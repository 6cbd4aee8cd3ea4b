"""What is computed of the real images once, cached in the user's cache folder under the hash of all it depends on."""

import contextlib
import hashlib
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from ddpm_shared import files

Arrays = dict[str, NDArray[Any]]


def cached(name: str, hashes: tuple[str, ...], compute: Callable[[], Arrays]) -> Arrays:
    """compute(), or what it returned the last time.

    Args:
        name: begins the name of the file.
        hashes: what the result depends on: SHA-256 of data and network, how many images.
        compute: returns the arrays.
    """
    key = hashlib.sha256(" ".join(hashes).encode()).hexdigest()
    path = files.cache_dir("evaluation") / f"{name}-{key[:32]}.npz"
    arrays = files.read_npz(path)
    if arrays is None:
        arrays = compute()
        with contextlib.suppress(OSError):  # no room: then it is computed anew the next time
            files.write_npz(path, **arrays)
    return arrays
