"""The run folder: what a training run leaves behind, and how the next one finds it.

metrics.jsonl is append-only, one event a line; metrics.json is rewritten whole from the same records. An event
`resume` at step k takes back the records after k, so a run that died between checkpoints is told once, not twice.
"""

import contextlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ddpm_shared import checkpoint, files
from ddpm_shared.checkpoint import Tensors
from ddpm_shared.config import Config, to_dict
from ddpm_shared.datasets import Split
from ddpm_shared.errors import UserError

SCHEMA_VERSION = 1
RUNS = Path("runs")
PACKAGES = ("ddpm-duet", "torch", "tensorflow", "keras", "numpy", "safetensors", "onnxruntime")
KINDS = ("step", "epoch", "evaluation")  # the events that make the history
BEST = "best.safetensors"

Record = dict[str, Any]
History = dict[str, list[Record]]  # "steps", "epochs" and "evaluations"


def environment(device: str, threads: int) -> Record:
    """What the run ran on: versions, device, threads, git commit, argv."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": versions,
        "device": device,
        "threads": threads,
        "cpu_count": os.cpu_count(),
        "git_commit": _git_commit(),
        "argv": sys.argv,
        "started_utc": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _git_commit() -> str | None:
    command = ["git", "rev-parse", "HEAD"]
    try:
        git = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except OSError:  # no git here
        return None
    return git.stdout.strip() or None


def new_folder(framework: str, preset: str) -> Path:
    """runs/<framework>/<utc>-<preset>, a name not yet taken."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    folder = RUNS / framework / f"{stamp}-{preset}"
    number = 2
    while folder.exists():
        folder = folder.with_name(f"{stamp}-{preset}-{number}")
        number += 1
    return folder


def require_free(folder: Path) -> None:
    """Raise UserError if `folder` is there and not empty."""
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
    """The newest checkpoint of the run in the folder `source`, or that very file. Raises UserError if it has none."""
    if source.is_file():
        return source
    pointer = source / "checkpoints" / "latest"
    if not pointer.is_file():
        raise UserError(f"{source} holds no checkpoint: give a run folder with checkpoints/latest in it, or a file")
    return pointer.with_name(pointer.read_text().strip())


def read_history(folder: Path, step: int) -> History:
    """The records in metrics.jsonl up to and with `step`; empty lists where there is no such file."""
    history = _no_history()
    path = folder / "metrics.jsonl"
    lines = path.read_text(errors="replace").splitlines(keepends=True) if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        if not line.endswith("\n"):  # the event that was being written when the run died
            break
        try:
            event = json.loads(line)
            kind, at = event.pop("event"), event["step"]
            if kind == "resume":
                history = _until(history, at)
            elif kind in KINDS:
                history[f"{kind}s"].append(event)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{path}, line {number} is not an event of a run: {line.strip()[:80]!r}") from None
    return _until(history, step)


def _no_history() -> History:
    return {f"{kind}s": [] for kind in KINDS}


def _until(history: History, step: int) -> History:
    return {kind: [record for record in records if record["step"] <= step] for kind, records in history.items()}


def best_evaluation(evaluations: Sequence[Record]) -> Record:
    """The one of lowest FID, the first of equals, among those that compare with the last.

    An FID depends on how many images it is taken over, and on the network that makes their features.
    """
    last = evaluations[-1]
    alike = [each for each in evaluations if all(each[key] == last[key] for key in ("num_images", "extractor_sha256"))]
    return min(alike, key=lambda each: each["fid_fashion"])


class Run:
    """A run folder being written.

    Args:
        folder: made here; must be free unless the run continues in place.
        framework: "torch" or "tensorflow".
        config: all settings.
        environment: as from environment().
        data: the training split.
        parameters: how many numbers the network has.
        resumed: the checkpoint to go on from, or None.
    """

    def __init__(
        self,
        folder: Path,
        framework: str,
        config: Config,
        environment: Record,
        data: Split,
        parameters: int,
        resumed: checkpoint.Checkpoint | None = None,
    ) -> None:
        self.folder, self.framework, self.config, self.data = folder, framework, config, data
        if resumed is not None:
            came_from = {"framework": resumed.framework, "step": resumed.step, "checkpoint": str(resumed.path)}
            environment = environment | {"resumed_from": came_from}
        self.header = {
            "schema_version": SCHEMA_VERSION,
            "framework": framework,
            "status": "running",
            "config": to_dict(config),
            "environment": environment,
            "dataset": data.record,
            "parameters": parameters,
        }
        folder.mkdir(parents=True, exist_ok=True)
        files.write_json(folder / "config.json", to_dict(config))
        files.write_json(folder / "environment.json", environment)
        self.history = _no_history()
        self.best_step = self._step_of_best()
        if resumed is None:
            self._append("start", {"step": 0})
        else:
            self._take_over(resumed)
        self.began = time.perf_counter() - (self.history["steps"][-1]["wall_s"] if self.history["steps"] else 0.0)
        self.write_metrics("running")

    def _take_over(self, resumed: checkpoint.Checkpoint) -> None:
        source = resumed.path.parent.parent
        self.history = read_history(source, resumed.step)
        log = self.folder / "metrics.jsonl"
        if log.is_file():  # in place: drop a half-written last line, keep the rest
            whole = log.read_bytes().rpartition(b"\n")
            os.truncate(log, len(whole[0]) + len(whole[1]))
            self._point_at(resumed.path)  # an older one than it pointed at, perhaps
        else:
            for kind in KINDS:
                for record in self.history[f"{kind}s"]:
                    self._append(kind, record)
        self._append("resume", {"step": resumed.step, "checkpoint": str(resumed.path), "framework": self.framework})

    def _step_of_best(self) -> int | None:
        with contextlib.suppress(UserError):  # none there, or not one of ours
            return checkpoint.load(self.folder / "checkpoints" / BEST, prefixes=()).step
        return None

    @property
    def wall_s(self) -> float:
        """Seconds since the run began, without the time between an interruption and its resumption."""
        return time.perf_counter() - self.began

    def record_step(self, record: Record) -> None:
        """Append one training step; `wall_s` is added."""
        self._record("step", record)

    def record_epoch(self, record: Record) -> None:
        """Append one epoch, `wall_s` added, and rewrite metrics.json."""
        self._record("epoch", record)
        self.write_metrics("running")

    def record_evaluation(self, record: Record) -> None:
        """Append what the judge said of samples; `wall_s` is added."""
        self._record("evaluation", record)

    def save_checkpoint(self, step: int, tensors: Tensors) -> Path:
        """Write checkpoints/step_<step>.safetensors, point `latest` at it, remove all but the newest few."""
        folder = self.folder / "checkpoints"
        path = folder / f"step_{step:08d}.safetensors"
        self._write_checkpoint(path, step, tensors)
        self._point_at(path)
        # Files of later steps may lie there when the run went back to an earlier one: they count for nothing.
        written = sorted(old for old in folder.glob("step_*.safetensors") if old <= path)
        for old in written[: -self.config.training.keep_checkpoints]:
            old.unlink()
        return path

    def save_best(self, step: int, tensors: Tensors) -> None:
        """Write checkpoints/best.safetensors, beside those of save_checkpoint and outliving them."""
        self._write_checkpoint(self.folder / "checkpoints" / BEST, step, tensors)
        self.best_step = step

    def _write_checkpoint(self, path: Path, step: int, tensors: Tensors) -> None:
        checkpoint.save(
            path,
            tensors,
            framework=self.framework,
            step=step,
            config=self.config,
            dataset_sha256=self.data.sha256,
        )
        self._append("checkpoint", {"step": step, "file": path.name})

    def _point_at(self, path: Path) -> None:
        files.write_atomically(self.folder / "checkpoints" / "latest", path.name.encode() + b"\n")

    def finish(self, status: str, step: int, message: str | None = None) -> None:
        """Close the run as completed, interrupted or failed: an `end` event and the last metrics.json."""
        self._append("end", {"step": step, "status": status} | ({"message": message} if message else {}))
        self.write_metrics(status, message)

    def write_metrics(self, status: str, message: str | None = None) -> None:
        """Rewrite metrics.json from the records so far."""
        steps, epochs = self.history["steps"], self.history["epochs"]
        last_epoch = epochs[-1] if epochs else {}
        final = {
            "step": steps[-1]["step"] if steps else 0,
            "images_seen": steps[-1]["images_seen"] if steps else 0,
            "loss": steps[-1]["loss"] if steps else None,
            "train_loss": last_epoch.get("train_loss"),
            "validation_loss": last_epoch.get("validation_loss"),
            "wall_s": self.wall_s,
        }
        metrics = self.header | {
            "status": status,
            "history": self.history,
            "final": final | ({"message": message} if message else {}),
            "evaluation": self._evaluation(),
        }
        files.write_json(self.folder / "metrics.json", metrics)

    def _evaluation(self) -> Record:
        """The newest evaluation, and the best with the file of its state, if that is here; {} before the first."""
        if not self.history["evaluations"]:
            return {}
        best = best_evaluation(self.history["evaluations"])
        # A run that went back, or into another folder, may find the file of a later step there, or none.
        file = f"checkpoints/{BEST}" if best["step"] == self.best_step else None
        told = {"step": best["step"], "fid_fashion": best["fid_fashion"], "checkpoint": file}
        return self.history["evaluations"][-1] | {"best": told}

    def _record(self, kind: str, record: Record) -> None:
        record = record | {"wall_s": self.wall_s}
        self._append(kind, record)  # first, since it refuses NaN
        self.history[f"{kind}s"].append(record)

    def _append(self, kind: str, record: Record) -> None:
        line = json.dumps({"event": kind} | record, allow_nan=False)
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(line + "\n")
