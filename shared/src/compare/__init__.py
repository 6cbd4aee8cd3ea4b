"""Lay training runs over each other: report.html, comparison.json, loss.png and a table.

    python -m ddpm_shared.compare runs/torch/A runs/tensorflow/B [runs/torch/C ...]

The first run is the baseline that every other is compared with. run_records.py reads them, gaps.py says what a gap is
and when it is rounding, verdict.py puts it in words, and charts.py, tables.py and report.py show it.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

import jsonschema
import tyro

from ddpm_shared import command_line, files, images
from ddpm_shared import config as configs
from ddpm_shared.compare import charts, gaps, parity_table, report, sample_grids, verdict
from ddpm_shared.compare.run_records import Run, labels, read_run, schema, summary
from ddpm_shared.compare.tables import differences_told, text
from ddpm_shared.errors import UserError
from ddpm_shared.records import folder

Record = dict[str, Any]

SCHEMA_VERSION = 1  # of comparison.json

# How far a run went: told, but no reason to refuse, since the common steps are compared.
LENGTH = {"training.epochs", "training.max_steps"}
# What decides no number that is compared.
IGNORED = configs.CHANGEABLE - LENGTH


# --- Comparing ----------------------------------------------------------------------------------------------


def compare(compared: Sequence[Run], allow_different: bool = False) -> Record:
    """What comparison.json tells of runs, but for their samples and parity.json.

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
        "pairs": pairs,
        "configuration": _side_by_side(
            [run.metrics["config"] | {"data set": run.metrics["dataset"]} for run in compared]
        ),
        "environment": _side_by_side(
            [run.metrics["environment"] | {"argv": shlex.join(run.metrics["environment"]["argv"])} for run in compared]
        ),
        "steps_a_mark": gaps.steps_a_mark(max(len(run.steps) for run in compared)),
        "parity": None,
    }


def _pair(baseline: tuple[Run, Record], other: tuple[Run, Record], allow_different: bool) -> Record:
    (a, of_a), (b, of_b) = baseline, other
    names = of_a["label"], of_b["label"]
    differences = set_up_differences(a.metrics, b.metrics)
    decisive = {key: values for key, values in differences.items() if key not in LENGTH}
    if decisive and not allow_different:
        raise UserError(
            f"{a.path} ({names[0]}) and {b.path} ({names[1]}) were set up differently: "
            f"{differences_told(decisive, names)}; "
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
    result = {
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
    return result | {"verdict": verdict.judge(result, of_a, of_b)}


def set_up_differences(a: Record, b: Record) -> dict[str, tuple[Any, Any]]:
    """The dotted keys at which two metrics' data, seed or configuration differ, with both values."""
    differences = configs.differences(a["config"], b["config"])
    if a["dataset"]["sha256"] != b["dataset"]["sha256"]:
        differences |= configs.differences(a["dataset"], b["dataset"], "dataset.")
    return {key: values for key, values in differences.items() if key not in IGNORED}


def _side_by_side(settings: Sequence[Record]) -> Record:
    """Nested settings of all runs by dotted key: `different`, each key's values; `equal`, each key's one value."""
    flat = [_flat(values) for values in settings]
    keys = dict.fromkeys(key for each in flat for key in each)
    values = {key: [each.get(key) for each in flat] for key in keys}
    return {
        "different": {key: found for key, found in values.items() if any(value != found[0] for value in found)},
        "equal": {key: found[0] for key, found in values.items() if all(value == found[0] for value in found)},
    }


def _flat(values: Record, prefix: str = "") -> Record:
    flat: Record = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


# --- The command line ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Command:
    """Lay runs over each other: print a table, write report.html, comparison.json and loss.png."""

    runs: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="A B [C ...]")] = ()
    """Two or more run folders or metrics.json files, the baseline first."""
    out: str | None = None
    """Where to write (default: runs/compare/<utc>-<frameworks>)."""
    allow_different: bool = False
    """Compare runs whose data, seed or configuration differ, too."""
    parity: str | None = None
    """A parity.json to show in the report (default: runs/parity/parity.json, if it is there)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Compare as the flags say; 0, however large the gaps. Raises UserError on bad input, OSError on a full disk."""
    command = command_line.parse_flags(Command, argv, "ddpm_shared.compare")
    if len(command.runs) < 2:
        raise UserError(f"there are two runs to a comparison or more, not {len(command.runs)}: name the run folders")
    compared = [read_run(path) for path in command.runs]
    comparison = compare(compared, command.allow_different)
    if command.parity or parity_table.DEFAULT.is_file():
        comparison["parity"] = parity_table.read(Path(command.parity or parity_table.DEFAULT))
    grids = []
    for pair, run in zip(comparison["pairs"], compared[1:], strict=True):
        folders = compared[0].folder, run.folder
        grids.append(sample_grids.compare(*folders, (pair["a"], pair["b"]), run.metrics["config"]))
        pair["samples"] = grids[-1].record
    wrong = jsonschema.exceptions.best_match(
        jsonschema.Draft202012Validator(schema("comparison")).iter_errors(comparison)
    )
    assert wrong is None, wrong.message  # what we publish is what we say we publish

    out = Path(command.out) if command.out else folder.new_folder("compare", _frameworks(compared))
    files.write_json(out / "comparison.json", comparison)
    drawn = charts.curves(compared)
    page = report.render(comparison, drawn, [grid.pictures for grid in grids])
    files.write_atomically(out / "report.html", page.encode())
    images.write_figure(out / "loss.png", charts.overview(drawn))
    print(f"{text(comparison)}\n\n{out / 'report.html'}, {out / 'comparison.json'}, {out / 'loss.png'}")
    return 0


def _frameworks(compared: Sequence[Run]) -> str:
    return "-".join(dict.fromkeys(run.metrics["framework"] for run in compared))
