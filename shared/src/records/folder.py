"""Run folders: new ones, claimed for one writer, and the newest checkpoint of old ones."""

import re
import sys
from datetime import UTC, datetime
from pathlib import Path

from ddpm_shared import claims
from ddpm_shared.errors import UserError
from ddpm_shared.records import checkpoint

RUNS = Path("runs")
# What a run leaves in its folder before its first checkpoint, and what it sets aside there.
BEFORE_A_CHECKPOINT = re.compile(
    r"(config|environment|metrics|pictures)\.json|metrics\.jsonl(\.\d+)?|samples|checkpoints|\.lock|\..+\.tmp"
)


def claim_new(kind: str, name: str) -> Path:
    """Make and claim the folder runs/<kind>/<utc>-<name>. Two commands of one second get two folders.

    Raises:
        OSError: it cannot be made.
    """
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    (RUNS / kind).mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        folder = RUNS / kind / (f"{stamp}-{name}" if number == 1 else f"{stamp}-{name}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
        else:
            claims.claim(folder)
            return folder


def claim_output(out: str | None, kind: str, name: str) -> Path:
    """Claim the folder that --out names, or a new one runs/<kind>/<utc>-<name>.

    Raises:
        UserError: another process writes to it.
        OSError: it cannot be made or written to.
    """
    if out is None:
        return claim_new(kind, name)
    claims.claim(Path(out))
    return Path(out)


def require_free(folder: Path) -> None:
    """Raise UserError if `folder` holds more than a run leaves there before its first checkpoint."""
    if folder.is_dir():
        taken = has_checkpoint(folder) or any(not BEFORE_A_CHECKPOINT.fullmatch(file.name) for file in folder.iterdir())
    else:
        taken = folder.exists()
    if taken:
        raise UserError(
            f"{folder} already holds files: choose another --run-dir, or continue the run in it with --resume {folder}"
        )


def has_checkpoint(folder: Path) -> bool:
    """Whether the run in `folder` has written a checkpoint to go on from, whole or damaged."""
    return any(checkpoint.STEP_FILE.fullmatch(file.name) for file in folder.glob("checkpoints/*"))


def latest_folder(framework: str) -> Path:
    """The newest run of `framework` under runs/ that has a checkpoint. Raises UserError if there is none."""
    if runs := _newest_first(framework):
        return runs[0]
    raise UserError(f"no run with a checkpoint in {RUNS / framework}: train one first, or name a folder or file")


def folder_to_resume(framework: str, claimed_too: bool = False) -> Path:
    """The newest run of `framework` under runs/ that no process is writing to, one with a checkpoint if there is any.

    What is passed over is said on stderr. Raises UserError if there is none.

    Args:
        framework: "torch" or "tensorflow".
        claimed_too: pass over none: the process that writes to it may be the chief of this worker.
    """
    begun = sorted((file.parent for file in (RUNS / framework).glob("*/config.json")), reverse=True)
    for folder in dict.fromkeys([*_newest_first(framework), *begun]):
        if claimed_too or not claims.is_claimed(folder):
            return folder
        print(f"passing over {folder}: another process is writing to it", file=sys.stderr)
    raise UserError(f"no run with a checkpoint in {RUNS / framework}: train one first, or name a folder or file")


def _newest_first(framework: str) -> list[Path]:
    """The runs of `framework` that have a checkpoint, by the time of their last one."""

    def last_saved(folder: Path) -> float:
        pointer = folder / "checkpoints" / "latest"
        files = [pointer] if pointer.is_file() else (folder / "checkpoints").glob("step_*.safetensors")
        return max(file.stat().st_mtime for file in files)

    runs = [folder for folder in (RUNS / framework).glob("*") if has_checkpoint(folder)]
    return sorted(runs, key=last_saved, reverse=True)


def latest_checkpoint(source: Path) -> Path:
    """The newest checkpoint of the run folder `source`, or `source` if it is a file.

    It is the one that checkpoints/latest names. If `latest` is missing or damaged, it is the newest whole one, and a
    line on stderr says so.

    Raises:
        UserError: there is none.
    """
    if source.is_file():
        return source
    folder = source / "checkpoints"
    name = _pointed_to(folder / "latest")
    if name and (folder / name).is_file():
        return folder / name
    newest = checkpoint.newest_whole(folder)
    if newest is None:
        raise UserError(f"{source} holds no checkpoint: give a run folder with checkpoints/latest in it, or a file")
    print(f"{folder / 'latest'} names no checkpoint there: taking the newest whole one, {newest.name}", file=sys.stderr)
    return newest


def _pointed_to(pointer: Path) -> str | None:
    """The name in the file checkpoints/latest; None if it holds anything else."""
    if not pointer.is_file():
        return None
    with pointer.open("rb") as file:
        name = file.read(100).decode("ascii", "replace").strip()
    return name if checkpoint.STEP_FILE.fullmatch(name) else None


def checkpoint_file(name: str, framework: str) -> Path:
    """The checkpoint file that --checkpoint names: a file, a run folder, or `latest`, the newest run of `framework`.

    Raises:
        UserError: there is no such checkpoint.
    """
    return latest_checkpoint(latest_folder(framework) if name == "latest" else Path(name))
