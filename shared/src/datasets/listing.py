"""The pictures of a folder by their names: which files count, their classes, and the order that their names decide."""

import contextlib
import hashlib
import itertools
import os
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ddpm_shared import reading
from ddpm_shared.datasets.picture import KINDS
from ddpm_shared.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".gif")


class Entry(NamedTuple):
    """A picture of a folder."""

    path: str  # from the folder, with slashes, in Unicode's form NFC: the same on every system
    file: str  # as the system names it
    stamp: tuple[int, int, int]  # size, and the times at which content and state were last changed, in ns
    rank: bytes  # the hash of its path, which decides its place among the others: adding a picture moves no other


class Listing(NamedTuple):
    """What a folder holds."""

    entries: tuple[Entry, ...]  # by rank
    class_names: tuple[str, ...]  # the subfolders that hold pictures; () where the pictures are in the folder itself
    others: tuple[str, ...]  # paths of the files that are no pictures by their names

    @property
    def labelled(self) -> list[tuple[Entry, int]]:
        """Each picture with its class; 0 where there are none."""
        label_of = {name: label for label, name in enumerate(self.class_names)}
        return [(entry, label_of.get(_top(entry.path), 0)) for entry in self.entries]


def listing(folder: Path) -> Listing:
    """The pictures in a folder and its subfolders, known by their suffixes; hidden files and folders are skipped.

    Each subfolder that holds a picture, however deep, is a class; classes are in the order of their names in lower
    case. Links are followed.

    Raises:
        UserError: a folder that cannot be read, or is linked to twice; no pictures; pictures beside classes; two
            pictures of one name; a class whose name cannot be printed.
    """
    entries, others = [], []
    for name, file, status in _files(folder):
        path = unicodedata.normalize("NFC", name)
        if path.lower().endswith(SUFFIXES):
            stamp = (status.st_size, status.st_mtime_ns, status.st_ctime_ns) if status else (0, 0, 0)
            entries.append(Entry(path, file, stamp, hashlib.sha256(path.encode("utf-8", "surrogateescape")).digest()))
        else:
            others.append(path)
    where = reading.name_of(folder)
    if not entries:
        rest = f"by its name, none is one of {reading.listed(sorted(others))}" if others else "there are no files in it"
        raise UserError(f"{where} holds no pictures: {rest}; --data-dir takes a folder of {KINDS} files")
    entries.sort(key=lambda entry: entry.rank)
    for one, other in itertools.pairwise(entries):
        if one.path == other.path:
            raise UserError(f"{where} holds two pictures called {reading.one_line(one.path)}: rename one")
    return Listing(tuple(entries), _class_names(where, entries), tuple(sorted(others)))


def _class_names(where: str, entries: list[Entry]) -> tuple[str, ...]:
    names = {_top(entry.path) for entry in entries if "/" in entry.path}
    if names and (loose := [entry.path for entry in entries if "/" not in entry.path]):
        raise UserError(
            f"{where} holds pictures beside its subfolders, which are classes ({reading.listed(sorted(loose), 3)}): "
            "move them into a subfolder, or name a folder without subfolders"
        )
    for name in names:
        if not name.isprintable():
            raise UserError(
                f"the folder {reading.one_line(name)} in {where} cannot be a class: rename it in plain text"
            )
    return tuple(sorted(names, key=lambda name: (name.casefold(), name)))


def _top(path: str) -> str:
    return path.partition("/")[0]


def _files(folder: Path) -> Iterator[tuple[str, str, os.stat_result | None]]:
    """The files below a folder: path from it, path, and what the system says of it; None if it is a link to nowhere."""
    waiting, visited = [("", str(folder))], dict[tuple[int, int], str]()
    while waiting:
        prefix, here = waiting.pop()
        try:
            status = os.stat(here)
            same = visited.setdefault((status.st_dev, status.st_ino), here)
            if same is not here:
                raise UserError(
                    f"{reading.name_of(here)} is the same folder as {reading.name_of(same)}: remove the link of the two"
                )
            with os.scandir(here) as scan:
                found = sorted((entry for entry in scan if not entry.name.startswith(".")), key=lambda each: each.name)
            for entry in found:
                state = None
                with contextlib.suppress(OSError):  # reading it will say why
                    state = entry.stat()
                if state and stat.S_ISDIR(state.st_mode):
                    waiting.append((f"{prefix}{entry.name}/", entry.path))
                else:
                    yield prefix + entry.name, entry.path, state
        except OSError as error:
            raise UserError(
                f"cannot read the folder {reading.name_of(error.filename or here)} ({error.strerror}): "
                "mend or remove it, or name another by --data-dir"
            ) from None
