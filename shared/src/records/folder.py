"""Run folders: names for new ones, and the newest checkpoint of old ones."""

from datetime import UTC, datetime
from pathlib import Path

from ddpm_shared.errors import UserError

RUNS = Path("runs")


def new_folder(framework: str, preset: str) -> Path:
    """runs/<framework>/<utc>-<preset>, a folder that does not exist yet."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    folder = RUNS / framework / f"{stamp}-{preset}"
    number = 2
    while folder.exists():
        folder = folder.with_name(f"{stamp}-{preset}-{number}")
        number += 1
    return folder


def require_free(folder: Path) -> None:
    """Raise UserError if `folder` exists and is not empty."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise UserError(
            f"{folder} already holds files: choose another --run-dir, or continue the run in it with --resume {folder}"
        )


def latest_folder(framework: str) -> Path:
    """The newest run of `framework` under runs/ that has a checkpoint. Raises UserError if there is none."""
    pointers = sorted((RUNS / framework).glob("*/checkpoints/latest"), key=lambda path: path.stat().st_mtime)
    if not pointers:
        raise UserError(f"no run with a checkpoint in {RUNS / framework}: train one first, or name a folder or file")
    return pointers[-1].parent.parent


def latest_checkpoint(source: Path) -> Path:
    """The newest checkpoint of the run folder `source`, or `source` if it is a file. Raises UserError if none."""
    if source.is_file():
        return source
    pointer = source / "checkpoints" / "latest"
    if not pointer.is_file():
        raise UserError(f"{source} holds no checkpoint: give a run folder with checkpoints/latest in it, or a file")
    return pointer.with_name(pointer.read_text("utf-8").strip())


def checkpoint_file(name: str, framework: str, run_dir: str | None = None) -> Path:
    """The checkpoint file that --checkpoint or --resume names: a file, a run folder, or `latest`.

    Args:
        name: the value of the flag.
        framework: the framework whose newest run `latest` means.
        run_dir: the run folder that `latest` means instead, if given.

    Raises:
        UserError: there is no such checkpoint.
    """
    if name != "latest":
        return latest_checkpoint(Path(name))
    return latest_checkpoint(Path(run_dir) if run_dir else latest_folder(framework))
