"""Runs to compare: their metrics.json, read and checked, and what each came to."""

import itertools
import json
import math
import statistics
from dataclasses import dataclass
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema

from ddpm_shared.compare import gaps
from ddpm_shared.compare.records import Event, Metrics, RunSummary
from ddpm_shared.errors import UserError


@dataclass(frozen=True)
class RunRecord:
    """A run that was read: where from, and its checked metrics.json."""

    path: Path
    metrics: Metrics

    @property
    def folder(self) -> Path:
        """Where its other files are, if they are."""
        return self.path if self.path.is_dir() else self.path.parent

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
    text = resources.files("ddpm_shared").joinpath(f"{document}.schema.json").read_text("utf-8")
    return dict(json.loads(text))


def read_run(path: str | Path) -> RunRecord:
    """Read and check a run's metrics.json.

    Args:
        path: the run folder or the file itself.

    Raises:
        UserError: no such file, not JSON, a number that is not finite, or not as the schema says.
    """
    file = Path(path) / "metrics.json" if Path(path).is_dir() else Path(path)
    try:
        metrics = json.loads(file.read_bytes(), parse_float=finite, parse_constant=finite)
    except FileNotFoundError:
        raise UserError(f"there is no {file}: give a run folder or its metrics.json") from None
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{file} is not JSON with finite numbers: {error}") from None
    wrong = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(schema()).iter_errors(metrics))
    if wrong is not None:
        where = wrong.json_path.removeprefix("$").removeprefix(".") or "its top level"
        what = wrong.message if len(wrong.message) < 200 else f"it breaks the schema's rule {wrong.validator!r}"
        raise UserError(f"{file} is not a run's metrics.json: at {where}, {what}")
    if metrics["config"]["precision"] not in gaps.ROUNDING:
        known = ", ".join(gaps.ROUNDING)
        raise UserError(
            f"{file}: unknown config.precision {metrics['config']['precision']!r}: runs have one of {known}"
        )
    return RunRecord(Path(path), metrics)


def finite(text: str) -> float:
    """A number of a JSON file. Raises ValueError for NaN and what is out of a float's range."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not finite")
    return value


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
        "fid_fashion": evaluation.get("fid_fashion"),
        "fid_images": evaluation.get("num_images"),
    }


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
    return run.metrics["config"]["training"]["batch_size"] / seconds if seconds > 0 else None
