"""Runs to compare: their metrics.json, read and checked, and what each came to."""

import itertools
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ddpm_shared import reading, validation
from ddpm_shared.compare import gaps
from ddpm_shared.compare.records import Event, Metrics, RunSummary
from ddpm_shared.errors import UserError
from ddpm_shared.reading import one_line
from ddpm_shared.records.history import require_order
from ddpm_shared.records.scores import completed

WAY_OUT = "give a run folder or its metrics.json"
LONGEST_NAME = 120  # letters of the features' name
SHORTEST = 1e-9  # seconds of a step: no clock that was running says less


@dataclass(frozen=True)
class RunRecord:
    """A run that was read: where from, and its checked metrics.json."""

    path: Path
    metrics: Metrics

    @property
    def folder(self) -> Path:
        """Where its other files are, if they are."""
        return self.path if os.path.isdir(self.path) else self.path.parent

    @property
    def steps(self) -> list[Event]:
        """The records of its training steps."""
        return list(self.metrics["history"]["steps"])

    @property
    def epochs(self) -> list[Event]:
        """The records of its epochs."""
        return list(self.metrics["history"]["epochs"])


def schema(document: str = "metrics") -> dict[str, Any]:
    """The JSON Schema of metrics.json or, by the name "comparison", of comparison.json."""
    return validation.schema(document)


def read_run(path: str | Path) -> RunRecord:
    """Read and check a run's metrics.json.

    Args:
        path: the run folder or the file itself.

    Raises:
        UserError: no such file, not JSON, a number that is not finite, not as the schema says, or a history with a
            step that is missing or there twice.
    """
    file = Path(path) / "metrics.json" if os.path.isdir(path) else Path(path)
    metrics = reading.read_json(file, WAY_OUT)
    validation.checked(metrics, "metrics", str(file), "a run's metrics.json")
    if metrics["evaluation"]:
        metrics["evaluation"] = completed(metrics["evaluation"])
    require_order(metrics["history"], str(file), "compare a run that is whole")
    if metrics["config"]["precision"] not in gaps.ROUNDING:
        known = ", ".join(gaps.ROUNDING)
        raise UserError(
            f"{reading.name_of(file)}: unknown config.precision "
            f"{reading.one_line(repr(metrics['config']['precision']), 40)}: runs have one of {known}"
        )
    return RunRecord(Path(path), metrics)


def labels(count: int) -> list[str]:
    """The names of runs: A to Z, then AA, AB, and so on."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    names = itertools.chain.from_iterable(
        ("".join(parts) for parts in itertools.product(letters, repeat=length)) for length in itertools.count(1)
    )
    return list(itertools.islice(names, count))


def summary(label: str, run: RunRecord) -> RunSummary:
    """What one run was and came to, as in the first table."""
    metrics, environment, final = run.metrics, run.metrics["environment"], run.metrics["final"]
    evaluation = metrics["evaluation"]  # {} where the run was not judged
    return {
        "label": label,
        "path": str(run.path),
        "framework": metrics["framework"],
        "version": environment["packages"].get(metrics["framework"]),
        "git_commit": environment["git_commit"],
        "status": metrics["status"],
        "message": final.get("message"),
        "precision": metrics["config"]["precision"],
        "parameters": metrics["parameters"],
        "steps": final["step"],
        "device": environment["device"],
        "threads": environment["threads"],
        "images_per_s": images_per_s(run),
        "wall_s": final["wall_s"],
        "first_loss": run.steps[0]["loss"] if run.steps else None,
        "last_loss": final["loss"],
        "train_loss": final["train_loss"],
        "validation_loss": final["validation_loss"],
        "fid": evaluation.get("fid"),
        "fid_fashion": evaluation.get("fid_fashion"),
        "fid_images": evaluation.get("num_images"),
        "features": evaluation.get("features"),
        "extractor_sha256": evaluation.get("extractor_sha256"),
        "class_accuracy": evaluation.get("class_accuracy"),
    }


def shown(summaries: Sequence[RunSummary]) -> list[str]:
    """The keys of runs' first table: those of classes and features only where a run has some."""
    without = {"label", "message", "fid_fashion", "extractor_sha256"}  # the FID is there, and the features' name
    without |= {key for key in ("class_accuracy", "features") if all(run[key] is None for run in summaries)}
    return [key for key in summaries[0] if key not in without]


def not_comparable(summaries: Sequence[RunSummary]) -> str | None:
    """Why the FIDs of runs may not be compared, in a sentence; None if they may, or if one run at most has one."""
    judged = [run for run in summaries if run["fid"] is not None]
    if len({(run["extractor_sha256"], run["features"]) for run in judged}) < 2:
        return None
    by_name = len({run["features"] for run in judged}) == len({run["extractor_sha256"] for run in judged})

    def judge(run: RunSummary) -> str:
        name = one_line(run["features"], LONGEST_NAME)
        return name if by_name else f"{name} ({(run['extractor_sha256'] or '')[:12]})"

    told = ", ".join(f"{run['label']} was judged by {judge(run)}" for run in judged)
    return f"The FIDs are not comparable: {told}."


def images_per_s(run: RunRecord) -> float | None:
    """Training images a second: the batch size over the median time of a step; None where no step was timed alone.

    A step is timed from the end of the one before. The first step, which warms up, and those after a validation are
    left out; the few that a checkpoint or a resumption made longer leave the median where it is.
    """
    validated = {epoch["step"] for epoch in run.epochs}
    times = [
        step["wall_s"] - before["wall_s"] for before, step in pairwise(run.steps) if before["step"] not in validated
    ]
    seconds = statistics.median(times) if times else 0.0
    return run.metrics["config"]["training"]["batch_size"] / seconds if seconds > SHORTEST else None
