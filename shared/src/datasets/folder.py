"""The user's own pictures: a folder of PNG, JPEG, WebP, BMP and GIF files as a training and a test split.

listing.py says which files count and what their classes are, picture.py how one becomes an image, folder_cache.py when
they are read again. The rules for a user are in docs/pictures.md.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sized
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ddpm_shared import memory, reading
from ddpm_shared.config import FolderConfig
from ddpm_shared.datasets import folder_cache, picture
from ddpm_shared.datasets.download import report
from ddpm_shared.datasets.folder_cache import Shrunk
from ddpm_shared.datasets.listing import Listing, listing
from ddpm_shared.datasets.picture import KINDS
from ddpm_shared.datasets.source import Split
from ddpm_shared.errors import UserError

NAME = "folder"
SHOWN = 10  # unreadable files in a message
DIGITS = 32  # of the hash of a picture


def load(data_dir: str | None, config: FolderConfig) -> tuple[Split, Split]:
    """The training and the test split of a folder of pictures.

    Images are in the order of the hashes of their paths, and the first of them, a share of about config.test_share,
    are the test split: neither is sorted by class, and a picture stays where it is when others are added.

    Args:
        data_dir: the folder; its subfolders are the classes.
        config: how its pictures become images.

    Returns:
        (train, test), images [N, H, W, C] uint8 with H = W = config.image_size. `files` names each image's file, in
        the order of the images, and the hash of its pixels; `sha256` depends on everything in both splits.

    Raises:
        UserError: no such folder, or none with two pictures or more; files that cannot be read, unless
            config.skip_bad; more than fits into memory.
    """
    if data_dir is None:
        raise UserError(f"--dataset {NAME} needs a folder of {KINDS} files: name it by --data-dir")
    root = Path(os.path.expanduser(data_dir))
    if not root.is_dir():
        raise UserError(f"--data-dir {reading.name_of(data_dir)} is not a folder: name one of {KINDS} files")
    found = listing(root)
    _require_room(found, config)
    if found.others:
        report(f"{reading.name_of(root)}: {_number(found.others, 'file')} passed over: {reading.listed(found.others)}")
    shrunk = folder_cache.cached(root.resolve(), found, config, lambda: _read(root, found, config))
    if shrunk.bad:
        report(f"{reading.name_of(root)}: left out, {_unreadable(shrunk.bad)}")
    return _splits(root, found, shrunk, config)


def _require_room(found: Listing, config: FolderConfig) -> None:
    count, size, channels = len(found.entries), config.image_size, 3 if config.channels == "colour" else 1
    least, room = count * size * size * channels, memory.total()
    if least > room:
        raise UserError(
            f"{count:,} images of {size} x {size} take {least / 2**30:,.1f} GiB of memory or more, and there are "
            f"{room / 2**30:,.1f} GiB: lower --image-size, or name a folder with fewer pictures"
        )


def _read(root: Path, found: Listing, config: FolderConfig) -> Shrunk:
    """All pictures as small images, in colour if any of them is and the settings do not say otherwise."""
    size, channels = config.image_size, {"auto": 1, "grey": 1, "colour": 3}[config.channels]
    images = np.empty((len(found.entries), size, size, channels), np.uint8)
    bad: dict[str, str] = {}
    for number, entry in enumerate(tqdm(found.entries, desc="pictures", unit="img", leave=False)):
        try:
            image = picture.read(Path(entry.file), size)
        except UserError as reason:
            bad[entry.path] = str(reason)
            continue
        if config.channels == "auto" and image.shape[-1] > images.shape[-1]:
            images = picture.to_channels(images, 3)
        images[number - len(bad)] = picture.to_channels(image, images.shape[-1])
    where = reading.name_of(root)
    if listing(root) != found:
        raise UserError(f"{where} changed while it was read: begin again when nothing writes to it")
    if bad and not config.skip_bad:
        raise UserError(f"{where}: {_unreadable(bad)}: mend or remove them, or leave them out with --skip-bad")
    return Shrunk(images[: len(images) - len(bad)], bad)


def _unreadable(bad: Mapping[str, str]) -> str:
    """Which files cannot be read, and why, as part of a message."""
    shown = [f"{reading.one_line(path, 80)} ({reason})" for path, reason in sorted(bad.items())[:SHOWN]]
    more = f" and {len(bad) - SHOWN:,} more" if len(bad) > SHOWN else ""
    return f"{_number(bad, 'picture')} that cannot be read: {', '.join(shown)}{more}"


def _number(things: Sized, word: str) -> str:
    return f"{len(things):,} {word}{'' if len(things) == 1 else 's'}"


def _splits(root: Path, found: Listing, shrunk: Shrunk, config: FolderConfig) -> tuple[Split, Split]:
    entries = [(entry, label) for entry, label in found.labelled if entry.path not in shrunk.bad]
    if len(entries) < 2:
        raise UserError(
            f"{reading.name_of(root)} holds {_number(entries, 'picture')} that can be read: training and testing "
            "take one each, or more"
        )
    # A hash as a fraction is as good as a random number; each split has one image at least.
    wanted = sum(int.from_bytes(entry.rank[:8]) < config.test_share * 2**64 for entry, _ in entries)
    num_test = min(max(wanted, 1), len(entries) - 1)
    parts = {"test": slice(None, num_test), "train": slice(num_test, None)}
    labels = np.array([label for _, label in entries], np.int64)
    hashes = [hashlib.sha256(image.tobytes()).hexdigest()[:DIGITS] for image in shrunk.images]
    contents = {
        name: dict(zip([entry.path for entry, _ in entries[part]], hashes[part], strict=True))
        for name, part in parts.items()
    }
    everything = [shrunk.images.shape, found.class_names, {name: list(each.items()) for name, each in contents.items()}]
    train, test = (
        Split(
            NAME,
            name,
            shrunk.images[parts[name]],
            labels[parts[name]],
            hashlib.sha256(json.dumps([name, *everything]).encode()).hexdigest(),
            found.class_names,
            contents[name],
        )
        for name in ("train", "test")
    )
    return train, test
