"""Writing a run folder: everything that a training run leaves on disk.

metrics.jsonl is append-only, one event per line; metrics.json is rewritten as a whole from the same records.
"""

import contextlib
import itertools
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddpm_shared import files
from ddpm_shared.config import Config, to_dict
from ddpm_shared.datasets import Split
from ddpm_shared.errors import UserError
from ddpm_shared.machine import Environment
from ddpm_shared.records import checkpoint
from ddpm_shared.records.checkpoint import Checkpoint, Tensors
from ddpm_shared.records.history import KINDS, Kind, best_evaluation, no_history, read_history, records_of
from ddpm_shared.records.types import EpochRecord, EvaluationRecord, Final, Status, StepRecord

SCHEMA_VERSION = 1
BEST = "best.safetensors"


class Run:
    """The run folder of a training run, to be written to.

    Args:
        folder: created here; must be free unless the run continues in place.
        framework: "torch" or "tensorflow".
        config: all settings.
        environment: as machine.environment returns it.
        data: the training split.
        parameters: number of parameters of the network.
        resumed: the checkpoint to continue from, or None.
        without_history: whether the records before that checkpoint are given up, since they are damaged.

    Raises:
        UserError: the records before the checkpoint are damaged.
        OSError: e.g. a full disk.
    """

    def __init__(
        self,
        folder: Path,
        framework: str,
        config: Config,
        environment: Environment,
        data: Split,
        parameters: int,
        resumed: Checkpoint | None = None,
        without_history: bool = False,
    ) -> None:
        self.folder, self.framework, self.config, self.data = folder, framework, config, data
        if resumed is not None:
            source = {"framework": resumed.framework, "step": resumed.step, "checkpoint": str(resumed.path)}
            environment = {**environment, "resumed_from": source}
        self.header = {
            "schema_version": SCHEMA_VERSION,
            "framework": framework,
            "status": "running",
            "config": to_dict(config),
            "environment": environment,
            "dataset": {**data.record, **({"class_names": list(data.class_names)} if data.class_names else {})},
            "parameters": parameters,
        }
        self.log = folder / "metrics.jsonl"
        self.history = no_history()
        if resumed is not None and not without_history:  # read before anything is written
            self.history = read_history(resumed.path.parent.parent, resumed.step)
        folder.mkdir(parents=True, exist_ok=True)
        if resumed is None:
            self._clear()
        elif without_history:
            self._set_log_aside()
        files.write_json(folder / "config.json", to_dict(config))
        files.write_json(folder / "environment.json", environment)
        self.best_step = self._step_of_best()
        if resumed is None:
            self._append("start", {"step": 0})
        else:
            self._take_over(resumed)
        self.began = time.perf_counter() - (self.history["steps"][-1]["wall_s"] if self.history["steps"] else 0.0)
        self.write_metrics("running")

    def _take_over(self, resumed: Checkpoint) -> None:
        if self.log.is_file():  # the run continues in place: remove a half-written last line
            whole = self.log.read_bytes().rpartition(b"\n")
            os.truncate(self.log, len(whole[0]) + len(whole[1]))
        else:
            for kind in KINDS:
                for record in records_of(self.history, kind):
                    self._append(kind, record)
        if resumed.path.parent.parent == self.folder:
            self._point_latest_to(resumed.path)  # perhaps an older one than before
        self._append("resume", {"step": resumed.step, "checkpoint": str(resumed.path), "framework": self.framework})

    def _clear(self) -> None:
        """Remove what a run left here that ended before its first checkpoint; its log is set aside."""
        self._set_log_aside()
        for file in (*self.folder.glob("samples/step_*.png"), self.folder / "checkpoints" / BEST):
            file.unlink(missing_ok=True)

    def _set_log_aside(self) -> None:
        """Rename metrics.jsonl to metrics.jsonl.1 or the next free number; one without a step is removed."""
        if self.log.exists() and b'"event": "step"' not in self.log.read_bytes():
            self.log.unlink()
        elif self.log.exists():
            aside = (self.log.with_name(f"{self.log.name}.{number}") for number in itertools.count(1))
            self.log.rename(next(path for path in aside if not path.exists()))

    def _step_of_best(self) -> int | None:
        with contextlib.suppress(UserError):  # no such file, or a damaged one
            return checkpoint.load(self.folder / "checkpoints" / BEST, prefixes=()).step
        return None

    @property
    def wall_s(self) -> float:
        """Seconds since the run began, without the time between an interruption and its resumption."""
        return time.perf_counter() - self.began

    def record_step(self, record: StepRecord) -> None:
        """Append one training step; `wall_s` is added."""
        self._record("step", record)

    def record_epoch(self, record: EpochRecord) -> None:
        """Append one epoch, `wall_s` added, and rewrite metrics.json."""
        self._record("epoch", record)
        self.write_metrics("running")

    def record_evaluation(self, record: EvaluationRecord) -> None:
        """Append an evaluation of samples; `wall_s` is added."""
        self._record("evaluation", record)

    def save_checkpoint(self, step: int, tensors: Tensors) -> Path:
        """Write checkpoints/step_<step>.safetensors, point `latest` to it, remove all but the newest few."""
        folder = self.folder / "checkpoints"
        path = folder / f"step_{step:08d}.safetensors"
        self._write_checkpoint(path, step, tensors)
        self._point_latest_to(path)
        # A run that went back to an earlier step may have files of later steps there: they do not count.
        written = sorted(old for old in folder.glob("step_*.safetensors") if old <= path)
        for old in written[: -self.config.training.keep_checkpoints]:
            old.unlink()
        return path

    def save_best(self, step: int, tensors: Tensors) -> None:
        """Write checkpoints/best.safetensors, which save_checkpoint never removes."""
        self._write_checkpoint(self.folder / "checkpoints" / BEST, step, tensors)
        self.best_step = step

    def _write_checkpoint(self, path: Path, step: int, tensors: Tensors) -> None:
        for written in (self.log, self.folder):  # first, as a run goes on from a checkpoint and the records before it
            files.flush_to_disk(written)
        checkpoint.save(
            path,
            tensors,
            framework=self.framework,
            step=step,
            config=self.config,
            dataset_sha256=self.data.sha256,
            class_names=self.data.class_names,
        )
        self._append("checkpoint", {"step": step, "file": path.name})

    def _point_latest_to(self, path: Path) -> None:
        files.write_atomically(self.folder / "checkpoints" / "latest", path.name.encode() + b"\n")

    def finish(self, status: Status, step: int, message: str | None = None) -> None:
        """Close the run as completed, interrupted or failed: an `end` event and the last metrics.json."""
        self._append("end", {"step": step, "status": status} | ({"message": message} if message else {}))
        self.write_metrics(status, message)

    def write_metrics(self, status: Status, message: str | None = None) -> None:
        """Rewrite metrics.json from the records so far."""
        steps, epochs = self.history["steps"], self.history["epochs"]
        final: Final = {
            "step": steps[-1]["step"] if steps else 0,
            "images_seen": steps[-1]["images_seen"] if steps else 0,
            "loss": steps[-1]["loss"] if steps else None,
            "train_loss": epochs[-1]["train_loss"] if epochs else None,
            "validation_loss": epochs[-1]["validation_loss"] if epochs else None,
            "wall_s": self.wall_s,
        }
        if message:
            final["message"] = message
        metrics = self.header | {
            "status": status,
            "history": self.history,
            "final": final,
            "evaluation": self._evaluation(),
        }
        files.write_json(self.folder / "metrics.json", metrics)

    def _evaluation(self) -> dict[str, Any]:
        """The newest evaluation, and the best one with its checkpoint file, if that is here; {} before the first."""
        if not self.history["evaluations"]:
            return {}
        best = best_evaluation(self.history["evaluations"])
        # A run that went back, or to another folder, may have the file of a later step there, or none.
        file = f"checkpoints/{BEST}" if best["step"] == self.best_step else None
        best_of_run: dict[str, Any] = {"step": best["step"], "fid": best["fid"], "checkpoint": file}
        if "fid_fashion" in best:
            best_of_run["fid_fashion"] = best["fid_fashion"]
        return {**self.history["evaluations"][-1], "best": best_of_run}

    def _record(self, kind: Kind, record: Mapping[str, Any]) -> None:
        timed = {**record, "wall_s": self.wall_s}
        self._append(kind, timed)  # comes first, since it refuses NaN
        records_of(self.history, kind).append(timed)

    def _append(self, event: str, record: Mapping[str, Any]) -> None:
        line = (json.dumps({"event": event, **record}, allow_nan=False) + "\n").encode()
        with self.log.open("ab", buffering=0) as file:
            whole = file.tell()
            try:
                while line:
                    line = line[file.write(line) :]
            except OSError:  # a full disk: no half line may stay in front of the next one
                with contextlib.suppress(OSError):
                    file.truncate(whole)
                raise
