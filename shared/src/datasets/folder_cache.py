"""The small images of a folder of pictures, cached: made once, and again when a file has another size or time.

Trusted without reading the files: their paths, sizes, and the two times that the system notes of each. A program can
set back the time of a file's last change; that of the change of its state only the system sets (Windows has none).
"""

import contextlib
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL

from ddpm_shared import claims, files, npz, reading
from ddpm_shared.config import FolderConfig
from ddpm_shared.datasets.listing import Listing
from ddpm_shared.errors import UserError
from ddpm_shared.images import Pixels

VERSION = 1  # of the rules by which a picture becomes an image


class Shrunk(NamedTuple):
    """The pictures of a listing as small images."""

    images: Pixels  # [N, H, W, C], of those that could be read
    bad: dict[str, str]  # of the others: path -> why not


def cached(root: Path, listing: Listing, config: FolderConfig, make: Callable[[], Shrunk]) -> Shrunk:
    """make(), or what it returned the last time; a damaged cache is made anew.

    There is one file for a folder and its settings, so a folder that grows does not fill the disk.

    Args:
        root: the folder.
        listing: what it holds now.
        config: how its pictures become images.
        make: reads them all. Raises UserError on what should not be cached.
    """
    settings = [str(root), config.image_size, config.channels, config.skip_bad]
    path = files.cache_dir("folders") / f"pictures-{_hash(settings)[:32]}.npz"
    state = [VERSION, PIL.__version__, [[entry.path, *entry.stamp] for entry in listing.entries]]
    key = _hash(state)
    shrunk = _read(path, key, listing, config)
    if shrunk is None:
        with claims.in_turn(path):
            shrunk = _read(path, key, listing, config)  # another process may have made it in the meantime
            if shrunk is None:
                shrunk = make()
                with contextlib.suppress(OSError), files.atomically(path) as file:  # no room: made again the next time
                    np.savez(file, allow_pickle=False, key=_bytes(key), bad=_bytes(shrunk.bad), images=shrunk.images)
    return shrunk


def _read(path: Path, key: str, listing: Listing, config: FolderConfig) -> Shrunk | None:
    count, size = len(listing.entries), config.image_size
    way_out = "it is made anew"
    try:
        if not np.array_equal(npz.read(path, way_out, ["key"])["key"], _bytes(key)):
            return None
        arrays = npz.read(path, way_out, ["bad", "images"], 3 * size**2 * count + npz.AT_MOST)
        images = arrays["images"]
        with reading.refusing(lambda reason: reason):
            bad = dict(reading.json_value(arrays["bad"].tobytes()))
    except (UserError, KeyError):
        return None
    kinds = {"auto": (1, 3), "grey": (1,), "colour": (3,)}[config.channels]
    shapes = [(count - len(bad), size, size, channels) for channels in kinds]
    fits = images.dtype == np.uint8 and images.shape in shapes and bad.keys() <= {each.path for each in listing.entries}
    return Shrunk(images, bad) if fits else None


def _bytes(value: object) -> Pixels:
    return np.frombuffer(json.dumps(value).encode(), np.uint8)


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
