"""pictures.json of a run: every picture of the user's folder with the hash of its pixels, to say which changed."""

import contextlib
from pathlib import Path
from typing import TypedDict

from ddpm_shared import files, reading, validation
from ddpm_shared.datasets import Split
from ddpm_shared.errors import UserError
from ddpm_shared.records.checkpoint import Checkpoint

FILE = "pictures.json"


class PictureList(TypedDict):
    """The content of the file."""

    schema_version: int
    sha256: str  # as in the checkpoints of the run
    train: dict[str, str]  # path in the folder -> hash of its pixels
    test: dict[str, str]


def write(folder: Path, train: Split, test: Split) -> None:
    """Write the list into a run folder, atomically. Data that is no folder of pictures has none.

    Raises:
        OSError: e.g. a full disk.
    """
    if train.files:
        whole = PictureList(schema_version=1, sha256=train.sha256, train=dict(train.files), test=dict(test.files))
        files.write_json(folder / FILE, whole)


def read(path: Path) -> PictureList:
    """The list in a file. Raises UserError if there is none."""
    way_out = "without it, nobody can say which picture changed"
    value: PictureList = reading.read_json(path, way_out)
    return validation.checked(value, "pictures", str(path), f"a {FILE}", way_out)


def change(resumed: Checkpoint, train: Split, test: Split) -> str | None:
    """Which picture is another than in the run of a checkpoint, as part of a sentence; None where it is not known."""
    with contextlib.suppress(UserError):
        before = read(resumed.path.parent.parent / FILE)
        if before["sha256"] == resumed.dataset_sha256:
            return _first_difference(before["train"] | before["test"], {**train.files, **test.files})
    return None


def _first_difference(before: dict[str, str], now: dict[str, str]) -> str | None:
    differences = [f"{reading.one_line(path)} is missing" for path in sorted(before.keys() - now.keys())]
    differences += [f"{reading.one_line(path)} is new" for path in sorted(now.keys() - before.keys())]
    both = sorted(before.keys() & now.keys())
    differences += [f"{reading.one_line(path)} has other pixels" for path in both if before[path] != now[path]]
    if not differences:
        return None
    return differences[0] + (f", and {len(differences) - 1:,} more" if len(differences) > 1 else "")
