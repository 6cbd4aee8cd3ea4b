"""A comparison as plain text: aligned tables, then the verdicts."""

from collections.abc import Mapping, Sequence
from typing import Any

from ddpm_shared.compare import verdict
from ddpm_shared.compare.gaps import FIRST_STEPS, THRESHOLD
from ddpm_shared.compare.records import Comparison
from ddpm_shared.compare.run_records import shown
from ddpm_shared.reading import one_line
from ddpm_shared.tables import aligned

DIGITS = 6
LONGEST = 5000  # characters of a line
SHOWN, CUT = 8, 70  # of settings that differ: how many, and how many characters of a value


def text(comparison: Comparison) -> str:
    """The comparison as aligned tables and the verdicts."""
    summaries, pairs = comparison["runs"], comparison["pairs"]
    each_run: list[list[object]] = [["run", *(run["label"] for run in summaries)]]
    values: Sequence[Mapping[str, object]] = summaries
    each_run += [
        [key.replace("_per_", "/").replace("_", " "), *(run[key] for run in values)] for key in shown(summaries)
    ]
    tables = [*aligned(each_run, DIGITS), ""]
    if reason := comparison["not_comparable"]:
        tables += [reason, ""]
    for pair in pairs:
        heads = (f"{kind} {of}" for kind in ("train", "validation") for of in (pair["a"], pair["b"], "gap"))
        tables += [*aligned([["epoch", "step", *heads], *(list(row.values()) for row in pair["epochs"])], DIGITS), ""]
    heads = (f"{kind} {pair['b']}" for pair in pairs for kind in ("loss", "gradient norm"))
    step_by_step: list[list[object]] = [["gap, step by step", *heads]]
    gaps: list[Mapping[str, object]] = [each for pair in pairs for each in (pair["loss"], pair["grad_norm"])]
    for name, key in {
        "largest": "max",
        "  at step": "max_at_step",
        "median": "median",
        f"largest of the first {FIRST_STEPS}": "max_in_first_steps",
        f"first step above {THRESHOLD:g}": "first_step_above_threshold",
        "equal steps": "equal_steps",
        "steps within rounding": "steps_within_rounding",
        "  before the first beyond": "leading_steps_within_rounding",
    }.items():
        step_by_step.append([name, *(each[key] for each in gaps)])
    tables += [*aligned(step_by_step, DIGITS), ""]
    for pair in pairs:
        if pair["differences"]:
            tables += [f"set up differently: {describe_differences(pair['differences'], (pair['a'], pair['b']))}", ""]
    lines = "\n".join([*tables, "\n\n".join(map(verdict.words, pairs))]).split("\n")
    return "\n".join(one_line(line, LONGEST) for line in lines)  # names of settings may come from foreign files


def describe_differences(differences: Mapping[str, Sequence[Any]], labels: tuple[str, str]) -> str:
    """Each dotted key with both runs' values, in one line; of very many, the first ones."""
    a, b = labels
    some = [
        f"{one_line(key, CUT)} is {one_line(repr(old), CUT)} in {a} and {one_line(repr(new), CUT)} in {b}"
        for key, (old, new) in list(differences.items())[:SHOWN]
    ]
    return ", ".join(some) + (f" and {len(differences) - SHOWN} more" if len(differences) > SHOWN else "")
