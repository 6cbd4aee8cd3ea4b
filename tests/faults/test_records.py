"""Records of runs: every step once and in order, and what is damaged has a way out."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fuzz_readers import READERS, STEPS

from ddpm_shared import compare
from ddpm_shared.errors import UserError
from ddpm_shared.records import history

Event = dict[str, Any]
WAY_OUT = "; go on without these records by --without-history"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A whole metrics.jsonl of eight steps in two epochs, each with an evaluation."""
    return READERS["metrics.jsonl"].make(tmp_path)


def lines(log: Path) -> list[Event]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def write(log: Path, events: list[Event]) -> None:
    log.write_text("".join(json.dumps(event) + "\n" for event in events))


def steps(log: Path, step: int = STEPS) -> list[int]:
    return [record["step"] for record in history.read_history(log.parent, step)["steps"]]


def place(events: list[Event], kind: str, step: int) -> int:
    return next(index for index, event in enumerate(events) if (event["event"], event["step"]) == (kind, step))


def without(kind: str, step: int) -> Callable[[list[Event]], Any]:
    return lambda events: events.pop(place(events, kind, step))


def twice(kind: str, step: int) -> Callable[[list[Event]], Any]:
    return lambda events: events.insert(place(events, kind, step), events[place(events, kind, step)])


def changed(kind: str, at: int, /, **values: Any) -> Callable[[list[Event]], Any]:
    return lambda events: events[place(events, kind, at)].update(values)


def lacking(kind: str, step: int, key: str) -> Callable[[list[Event]], Any]:
    return lambda events: events[place(events, kind, step)].pop(key)


DAMAGE = {
    "a gap": (
        without("step", 3),
        "line 4 is not the event that should be there: a record of the kind 'step' of",
    ),
    "no first step": (without("step", 1), "line 2 is of step 2, but the records end at 0"),
    "no last step": (without("step", 8), "resumes at step 8, but the records end at 7"),
    "a double": (twice("step", 3), "line 5 is not the event that should be there"),
    "no first epoch": (without("epoch", 4), "a record of the kind 'epoch' of epoch 2 comes after that of epoch 0"),
    "an epoch twice": (twice("epoch", 4), "a record of the kind 'epoch' of step 4 comes after that of step 4"),
    "an evaluation twice": (twice("evaluation", 8), "a record of the kind 'evaluation' of step 8 comes after that"),
    "an epoch that jumps": (changed("epoch", 8, epoch=4), "of epoch 4 comes after that of epoch 1"),
    "an epoch that falls": (changed("step", 3, epoch=9), "of epoch 9 comes after that of epoch 1"),
    "a step in words": (changed("step", 3, step="3"), "line 4 is not an event of a run: at step, '3' is not of type"),
    "true": (changed("step", 1, step=True), "at step, True is not of type 'integer'"),
    "a float": (changed("step", 3, step=3.0), "at step, 3.0 is not of type 'integer'"),
    "beyond integers": (changed("step", 3, step=10**30), "is greater than the maximum of 9007199254740992"),
    "no clock": (lacking("step", 3, "wall_s"), "'wall_s' is a required property"),
    "one key more": (changed("step", 3, mood="good"), "'mood' was unexpected"),
    "a negative loss": (changed("step", 3, loss=-1.0), "at loss, -1.0 is less than the minimum of 0"),
    "another event": (
        changed("step", 3, event="stop"),
        'line 4 is not an event of a run: it begins with {"event":',
    ),
    "a list as event": (changed("step", 3, event=["step"]), "line 4 is not an event of a run"),
    "no event": (lacking("step", 3, "event"), "line 4 is not an event of a run"),
    "few images judged": (changed("evaluation", 4, num_images="x"), "at num_images, 'x' is not of type 'integer'"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_log_is_taken_over_only_if_it_is_whole(log: Path, case: str) -> None:
    """Otherwise a resumed run goes on from a history with a hole or a double in it, and compare believes it."""
    damage, reason = DAMAGE[case]
    events = lines(log)
    damage(events)
    write(log, events)
    with pytest.raises(UserError) as error:
        history.read_history(log.parent, STEPS)
    assert str(error.value).startswith(f"{log}, line ")
    assert reason in str(error.value)
    assert str(error.value).endswith(WAY_OUT)


def test_a_log_that_ends_before_the_checkpoint_is_refused(log: Path) -> None:
    """Otherwise the steps between the two are missing for ever, and nobody is told."""
    write(log, [event for event in lines(log) if event["event"] != "resume" and event["step"] <= 6])
    assert steps(log, 6) == list(range(1, 7))
    with pytest.raises(UserError, match=r"metrics.jsonl ends at step 6, the checkpoint is of step 8; go on without"):
        history.read_history(log.parent, 8)


def test_a_history_may_begin_late_and_go_back(log: Path) -> None:
    """Otherwise a run that was resumed without its records, or from an older checkpoint, cannot be resumed again."""
    whole = lines(log)
    first, last = place(whole, "step", 5), place(whole, "checkpoint", 4)
    resumed = {"event": "resume", "step": 4, "checkpoint": "x", "framework": "torch"}
    write(log, [resumed, *whole[first:last]])
    assert steps(log) == [5, 6, 7, 8]
    write(log, [resumed])
    assert steps(log, 4) == []
    write(log, [*whole[:last], resumed, *whole[first:last]])  # steps 5 to 8 once more
    assert steps(log) == list(range(1, STEPS + 1))
    write(log, [*whole[:first], *whole[:last]])  # begun anew in the same folder
    assert steps(log) == list(range(1, STEPS + 1))


def test_a_line_ends_at_a_line_feed_only(log: Path) -> None:
    """Otherwise a message with a character that Python takes for the end of a line makes a log unreadable."""
    with log.open("a", encoding="utf-8") as file:
        file.write('{"event": "end", "step": 8, "status": "failed", "message": "a\u2028b\x85c"}\n')
    assert steps(log) == list(range(1, STEPS + 1))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda steps: steps.insert(2, steps[2]), "a record of the kind 'step' of step 3 comes after that of step 3"),
        (lambda steps: steps.pop(2), "a record of the kind 'step' of step 4 comes after that of step 2"),
        (lambda steps: steps.reverse(), "a record of the kind 'step' of step 7 comes after that of step 8"),
        (lambda steps: steps[2].update(step=3.0), "at history.steps[2].step, 3.0 is not of type 'integer'"),
    ],
)
def test_a_run_with_a_step_twice_or_never_is_not_compared(
    damage: Callable[[list[Event]], Any], reason: str, tmp_path: Path
) -> None:
    """Otherwise two runs that wrote into one folder are compared as one."""
    path = READERS["metrics.json"].make(tmp_path)
    values = json.loads(path.read_text())
    damage(values["history"]["steps"])
    path.write_text(json.dumps(values))
    with pytest.raises(UserError) as error:
        compare.read_run(path)
    assert reason in str(error.value)
