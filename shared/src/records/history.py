"""Reading metrics.jsonl: one event per line, in the order in which they happened.

An event `resume` at step k removes the records after k, so that the steps between the last checkpoint and the death of
a run count once, not twice. The records of a history follow each other without a gap, and none comes twice.
"""

import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

from ddpm_shared import reading, validation
from ddpm_shared.errors import UserError
from ddpm_shared.records.scores import completed
from ddpm_shared.records.types import EvaluationRecord, History

Kind = Literal["step", "epoch", "evaluation"]  # the events that form the history
KINDS: tuple[Kind, ...] = get_args(Kind)
EVENTS = {"step": "step", "epoch": "epoch", "evaluation": "history_evaluation"} | {
    name: name for name in ("start", "resume", "checkpoint", "end")
}  # and the part of metrics.schema.json that each is checked against
WAY_OUT = "go on without these records by --without-history"
AT_MOST = 1024 * reading.MIB  # of the file: four million steps


def read_history(folder: Path, step: int) -> History:
    """The records in metrics.jsonl up to `step`, inclusive; empty lists if there is no such file.

    Raises:
        UserError: a line, other than a half-written last one, that is no event or does not follow those before it; or
            the steps end before `step`.
    """
    history = no_history()
    path = folder / "metrics.jsonl"
    if not os.path.lexists(path):
        return history
    *lines, _ = reading.read_bytes(path, WAY_OUT, AT_MOST).split(b"\n")  # the last one was cut off, or is empty
    name = reading.name_of(path)
    reached = None  # the step up to which the records are whole; None as long as there is none
    for number, line in enumerate(lines, start=1):
        place = f"{name}, line {number}"
        kind, event = _event(line, place)
        if kind == "resume":
            if reached is not None and event["step"] > reached:
                raise UserError(f"{place} resumes at step {event['step']}, but the records end at {reached}; {WAY_OUT}")
            history = _until(history, event["step"])
        elif kind == "start":
            history = no_history()
        elif kind in KINDS:
            records = records_of(history, kind)
            if reason := _misplaced(kind, event, records[-1] if records else _before_first(kind, history)):
                raise UserError(f"{place} is not the event that should be there: {reason}; {WAY_OUT}")
            records.append(completed(event) if kind == "evaluation" else event)
        if kind in ("start", "resume", "step"):
            if kind == "step" and reached is not None and event["step"] != reached + 1:
                raise UserError(f"{place} is of step {event['step']}, but the records end at {reached}; {WAY_OUT}")
            reached = event["step"]
    if reached is not None and reached < step:
        raise UserError(f"{name} ends at step {reached}, the checkpoint is of step {step}; {WAY_OUT}")
    return _until(history, step)


def _event(line: bytes, place: str) -> tuple[Any, dict[str, Any]]:
    """The kind of an event, and the rest of it, checked."""
    what = "an event of a run"
    with reading.refusing(lambda reason: f"{place} is not {what}: {reason}; {WAY_OUT}"):
        event = reading.json_value(line)
    kind = event.pop("event", None) if isinstance(event, dict) else None
    if not isinstance(kind, str) or kind not in EVENTS:
        start = reading.one_line(line[:60].decode(errors="replace"))
        raise UserError(f"{place} is not {what}: it begins with {start}; {WAY_OUT}")
    return kind, validation.checked(event, f"metrics#{EVENTS[kind]}", place, what, WAY_OUT)


def require_order(history: Mapping[str, Any], source: str, way_out: str) -> None:
    """Raise UserError if a record of a whole history does not follow the one before it."""
    for kind in KINDS:
        records = history.get(f"{kind}s", ())
        for before, record in pairwise([_before_first(kind, history), *records]):
            if reason := _misplaced(kind, record, before):
                raise UserError(f"{reading.name_of(source)} holds no whole history: {reason}; {way_out}")


def _before_first(kind: Kind, history: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What the first record of a kind follows: an epoch comes after that before the first step, whichever that is."""
    if kind == "epoch" and history["steps"]:
        return {"step": 0, "epoch": history["steps"][0]["epoch"] - 1}
    return None


def _misplaced(kind: Kind, record: Mapping[str, Any], before: Mapping[str, Any] | None) -> str | None:
    """Why `record` cannot come next after `before`, of the same kind; None if it can.

    Every step is there once. A run that was lengthened may have ended one epoch twice, but never at one step.
    """
    if before is None:
        return None
    step, epoch, last, last_epoch = record["step"], record["epoch"], before["step"], before["epoch"]
    if step != last + 1 if kind == "step" else step <= last:
        return f"a record of the kind {kind!r} of step {step} comes after that of step {last}"
    if epoch < last_epoch or (kind != "evaluation" and epoch > last_epoch + 1):
        return f"a record of the kind {kind!r} of epoch {epoch} comes after that of epoch {last_epoch}"
    return None


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

    An FID depends on the number of images and on the network that computes their features: `comparable`.
    """
    last = evaluations[-1]
    return min((each for each in evaluations if comparable(each, last)), key=lambda each: each["fid"])


def comparable(a: EvaluationRecord, b: EvaluationRecord) -> bool:
    """Whether two evaluations' numbers may be compared: of as many images, in the same features."""
    return (a["num_images"], a["extractor_sha256"]) == (b["num_images"], b["extractor_sha256"])
