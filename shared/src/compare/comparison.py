"""What a comparison of runs consists of: which runs are alike, their gaps and verdicts, their settings side by side."""

import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import combinations
from typing import Any

from ddpm_shared import config as configs
from ddpm_shared.compare import gaps, verdict
from ddpm_shared.compare.records import (
    SCHEMA_VERSION,
    Comparison,
    Metrics,
    Pair,
    PairNumbers,
    RunSummary,
    Settings,
)
from ddpm_shared.compare.run_records import RunRecord, labels, not_comparable, summary
from ddpm_shared.compare.tables import describe_differences
from ddpm_shared.errors import UserError

# How far a run went: stated, but no reason to refuse, since the common steps are compared.
LENGTH = {"training.epochs", "training.max_steps"}
# What decides no number that is compared.
IGNORED = configs.CHANGEABLE - LENGTH


def compare(compared: Sequence[RunRecord], allow_different: bool = False) -> Comparison:
    """comparison.json of runs, but for their samples and parity.json.

    Args:
        compared: the baseline and then the others, two or more in all.
        allow_different: compare runs whose data, seed or configuration differ, too.

    Returns:
        JSON types, as comparison.schema.json says.

    Raises:
        UserError: one and the same run twice; runs that differ in what they compute; no step in common.
    """
    for one, other in combinations(compared, 2):
        if one.metrics == other.metrics:  # to the last digit of wall_s
            raise UserError(
                f"{one.path} and {other.path} are one and the same run, or a copy of it: give different runs"
            )
    summaries = [summary(label, run) for label, run in zip(labels(len(compared)), compared, strict=True)]
    baseline, *others = zip(compared, summaries, strict=True)
    pairs = [_pair(baseline, other, allow_different) for other in others]
    return {
        "schema_version": SCHEMA_VERSION,
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "thresholds": {
            "gap": gaps.THRESHOLD,
            "first_steps": gaps.FIRST_STEPS,
            "start_steps": gaps.START_STEPS,
            "jump_factor": gaps.JUMP_FACTOR,
        },
        "runs": summaries,
        "not_comparable": not_comparable(summaries),
        "pairs": pairs,
        "configuration": _side_by_side(
            [_completed(run.metrics["config"]) | {"data set": _without_classes(run.metrics)} for run in compared]
        ),
        "environment": _side_by_side(
            [run.metrics["environment"] | {"argv": shlex.join(run.metrics["environment"]["argv"])} for run in compared]
        ),
        "steps_a_mark": gaps.steps_a_mark(max(len(run.steps) for run in compared)),
        "parity": None,
    }


def _pair(baseline: tuple[RunRecord, RunSummary], other: tuple[RunRecord, RunSummary], allow_different: bool) -> Pair:
    (a, of_a), (b, of_b) = baseline, other
    names = of_a["label"], of_b["label"]
    differences = set_up_differences(a.metrics, b.metrics)
    decisive = {key: values for key, values in differences.items() if key not in LENGTH}
    if decisive and not allow_different:
        raise UserError(
            f"{a.path} ({names[0]}) and {b.path} ({names[1]}) were set up differently: "
            f"{describe_differences(decisive, names)}; "
            "choose runs of one set-up, or compare them all the same with --allow-different"
        )
    steps, loss_gaps = gaps.step_gaps(a.steps, b.steps, "loss")
    if not len(steps):
        raise UserError(
            f"{a.path} and {b.path} have no step in common, the first having {len(a.steps)} steps and the second "
            f"{len(b.steps)}: let them run further"
        )
    rounding = gaps.rounding_of(*(run.metrics["config"]["precision"] for run in (a, b)))
    epochs = gaps.epoch_gaps(a.epochs, b.epochs)
    numbers: PairNumbers = {
        "a": names[0],
        "b": names[1],
        "differences": {key: list(values) for key, values in differences.items()},
        "decisive_differences": list(decisive),
        "common_steps": len(steps),
        "first_common_step": int(steps[0]),
        "last_common_step": int(steps[-1]),
        "rounding": rounding,
        "loss": gaps.gap_statistics(steps, loss_gaps, rounding),
        "grad_norm": gaps.gap_statistics(*gaps.step_gaps(a.steps, b.steps, "grad_norm"), rounding),
        "epochs": epochs,
        "odd_validation": gaps.odd_validation(epochs, steps, loss_gaps, rounding),
        "relative_speed": of_b["images_per_s"] / of_a["images_per_s"]
        if of_a["images_per_s"] and of_b["images_per_s"]
        else None,
        "samples": None,
    }
    return {**numbers, "verdict": verdict.judge(numbers, of_a, of_b)}


def set_up_differences(a: Metrics, b: Metrics) -> dict[str, tuple[Any, Any]]:
    """The dotted keys at which two metrics' data, seed or configuration differ, with both values."""
    differences = configs.differences(_completed(a["config"]), _completed(b["config"]))
    if a["dataset"]["sha256"] != b["dataset"]["sha256"]:
        differences |= configs.differences(_without_classes(a), _without_classes(b), "dataset.")
    return {key: values for key, values in differences.items() if key not in IGNORED}


def _completed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run, with those that came later as the run would have had them."""
    completed = {**settings}
    for dotted, value in configs.LATER.items():
        section, _, key = dotted.rpartition(".")
        if section:
            completed[section] = {key: value, **completed.get(section, {})}
        else:
            completed.setdefault(key, value)
    return completed


def _without_classes(metrics: Metrics) -> dict[str, Any]:
    return {key: value for key, value in metrics["dataset"].items() if key != "class_names"}


def _side_by_side(settings: Sequence[Mapping[str, Any]]) -> Settings:
    """Nested settings of all runs by dotted key: `different`, each key's values; `equal`, each key's one value."""
    runs = [_flat(values) for values in settings]
    keys = dict.fromkeys(key for run in runs for key in run)
    values = {key: [run.get(key) for run in runs] for key in keys}
    return {
        "different": {key: each for key, each in values.items() if any(value != each[0] for value in each)},
        "equal": {key: each[0] for key, each in values.items() if all(value == each[0] for value in each)},
    }


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
