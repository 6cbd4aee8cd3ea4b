"""Reading metrics.jsonl: one event per line, in the order in which they happened.

An event `resume` at step k removes the records after k, so that the steps between the last checkpoint and the death of
a run count once, not twice.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from ddpm_shared.errors import UserError
from ddpm_shared.records.types import EvaluationRecord, History

Kind = Literal["step", "epoch", "evaluation"]  # the events that form the history
KINDS: tuple[Kind, ...] = get_args(Kind)


def read_history(folder: Path, step: int) -> History:
    """The records in metrics.jsonl up to `step`, inclusive; empty lists if there is no such file.

    Raises:
        UserError: a line, other than a half-written last one, that is no event.
    """
    history = no_history()
    path = folder / "metrics.jsonl"
    lines = path.read_text("utf-8", errors="replace").splitlines(keepends=True) if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        if not line.endswith("\n"):  # the event that was being written when the run died
            break
        try:
            event = json.loads(line)
            kind, step_of_event = event.pop("event"), event["step"]
            if kind == "resume":
                history = _until(history, step_of_event)
            elif kind in KINDS:
                records_of(history, kind).append(event)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{path}, line {number} is not an event of a run: {line.strip()[:80]!r}") from None
    return _until(history, step)


def no_history() -> History:
    """The history of a run without any step."""
    return {"steps": [], "epochs": [], "evaluations": []}


def records_of(history: History, kind: Kind) -> list[Any]:
    """The list of records of one kind of event, to read or to append to."""
    lists: dict[Kind, list[Any]] = {
        "step": history["steps"],
        "epoch": history["epochs"],
        "evaluation": history["evaluations"],
    }
    return lists[kind]


def _until(history: History, step: int) -> History:
    shortened = no_history()
    for kind in KINDS:
        records_of(shortened, kind).extend(record for record in records_of(history, kind) if record["step"] <= step)
    return shortened


def best_evaluation(evaluations: Sequence[EvaluationRecord]) -> EvaluationRecord:
    """The evaluation of lowest FID, the first of equals, among those comparable with the last.

    An FID depends on the number of images and on the network that computes their features.
    """
    last = evaluations[-1]
    comparable = [
        each
        for each in evaluations
        if (each["num_images"], each["extractor_sha256"]) == (last["num_images"], last["extractor_sha256"])
    ]
    return min(comparable, key=lambda each: each["fid_fashion"])
