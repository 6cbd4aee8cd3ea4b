"""Lay a training run over another: a table, comparison.json and loss.png.

    python -m ddpm_shared.compare runs/torch/A runs/tensorflow/B

Runs of one configuration draw the same batches, t and noise in either framework, so that only rounding sets their
losses apart. Training amplifies rounding: a gap that starts near 1e-7 and grows over hundreds of steps is just that;
one that is there at step 1, or jumps, is a difference between the programs.

The gap of B's value b to A's value a is |a - b| / |a|.
"""

import io
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import jsonschema
import numpy as np
import tyro
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from ddpm_shared import cli, files, runs
from ddpm_shared.errors import UserError

Record = dict[str, Any]
Floats = NDArray[np.float64]
Steps = NDArray[np.int64]

THRESHOLD = 1e-3  # a gap too small to see in a plot of the losses
FIRST_STEPS = 100  # where rounding has had little time to grow
FLOAT32_ROUNDING = 2.0**-23
BLUE, VERMILION = "#0072B2", "#D55E00"  # told apart by every kind of colour vision (Okabe and Ito 2008)

# How far a run went: told, but no reason to refuse, since the common steps are compared.
LENGTH = {"training.epochs", "training.max_steps"}
# What decides no number that is compared.
IGNORED = cli.CHANGEABLE - LENGTH


@dataclass(frozen=True)
class Run:
    """A run that was read: where from, and its checked metrics.json."""

    path: Path
    metrics: Record

    @property
    def steps(self) -> list[Record]:
        """The records of its training steps."""
        return list(self.metrics["history"]["steps"])

    @property
    def epochs(self) -> list[Record]:
        """The records of its epochs."""
        return list(self.metrics["history"]["epochs"])


def schema() -> Record:
    """The JSON Schema of metrics.json."""
    text = resources.files("ddpm_shared").joinpath("metrics.schema.json").read_text()
    return dict(json.loads(text))


def read_run(path: str | Path) -> Run:
    """Read and check a run's metrics.json.

    Args:
        path: the run folder or the file itself.

    Raises:
        UserError: no such file, not JSON, a number that is not finite, or not as the schema says.
    """
    file = Path(path) / "metrics.json" if Path(path).is_dir() else Path(path)
    try:
        metrics = json.loads(file.read_bytes(), parse_float=_finite, parse_constant=_finite)
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
    return Run(Path(path), metrics)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not finite")
    return value


# --- Comparing ----------------------------------------------------------------------------------------------


def compare(a: Run, b: Run, allow_different: bool = False) -> Record:
    """All that the table and comparison.json tell.

    Args:
        a: the baseline.
        b: another run.
        allow_different: compare runs whose data, seed or configuration differ, too.

    Returns:
        JSON types: threshold; first_steps; runs, a summary of each; differences of how they were set up, by dotted
        key; common_steps; statistics of the gaps of loss and grad_norm over these; epochs, both losses of both runs
        wherever one ended an epoch, with their gap if both did; and the verdict in words.

    Raises:
        UserError: one and the same run; runs that differ in what they compute; no step in common.
    """
    if a.metrics == b.metrics:  # to the last digit of wall_s
        raise UserError(f"{a.path} and {b.path} are one and the same run, or a copy of it: give two different runs")
    differences = set_up_differences(a.metrics, b.metrics)
    refused = {key: values for key, values in differences.items() if key not in LENGTH}
    if refused and not allow_different:
        raise UserError(
            f"{a.path} (A) and {b.path} (B) were set up differently: {_told(refused)}; "
            "choose runs of one set-up, or compare them all the same with --allow-different"
        )
    steps, loss_gaps = step_gaps(a, b, "loss")
    if not len(steps):
        raise UserError(
            f"{a.path} and {b.path} have no step in common, the first having {len(a.steps)} steps and the second "
            f"{len(b.steps)}: let them run further"
        )
    result = {
        "threshold": THRESHOLD,
        "first_steps": FIRST_STEPS,
        "runs": [summary(a), summary(b)],
        "differences": differences,
        "common_steps": len(steps),
        "loss": gap_statistics(steps, loss_gaps),
        "grad_norm": gap_statistics(*step_gaps(a, b, "grad_norm")),
        "epochs": epoch_gaps(a, b),
    }
    return result | {"verdict": _verdict(result, list(refused))}


def set_up_differences(a: Record, b: Record) -> dict[str, tuple[Any, Any]]:
    """The dotted keys at which two metrics' data, seed or configuration differ, with both values."""
    differences = cli.config_differences(a["config"], b["config"])
    if a["dataset"]["sha256"] != b["dataset"]["sha256"]:
        differences |= cli.config_differences(a["dataset"], b["dataset"], "dataset.")
    return {key: values for key, values in differences.items() if key not in IGNORED}


def _told(differences: dict[str, tuple[Any, Any]]) -> str:
    return ", ".join(f"{key} is {old!r} in A and {new!r} in B" for key, (old, new) in differences.items())


def summary(run: Run) -> Record:
    """What one run was and came to, as in the first table."""
    metrics, environment, final = run.metrics, run.metrics["environment"], run.metrics["final"]
    return {
        "path": str(run.path),
        "framework": metrics["framework"],
        "version": environment["packages"].get(metrics["framework"]),
        "numpy": environment["packages"].get("numpy"),
        "git_commit": environment["git_commit"],
        "status": metrics["status"],
        "parameters": metrics["parameters"],
        "steps": final["step"],
        "device": environment["device"],
        "threads": environment["threads"],
        "images_per_s": images_per_s(run),
        "train_loss": final["train_loss"],
        "validation_loss": final["validation_loss"],
    }


def images_per_s(run: Run) -> float | None:
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


def relative_gap(a: ArrayLike, b: ArrayLike) -> Floats:
    """|a - b| / |a|, float64 of the arguments' shape; where a is 0, it is 0 if b is 0 as well, and else 1."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    scale = np.where(a == 0, np.abs(b), np.abs(a))
    gaps: Floats = np.divide(np.abs(a - b), scale, out=np.zeros(scale.shape), where=scale > 0)
    return gaps


def step_gaps(a: Run, b: Run, key: str) -> tuple[Steps, Floats]:
    """The steps that both runs made, [n] ascending, and the gap of `key` at each, [n]."""
    old, new = ({step["step"]: step[key] for step in run.steps} for run in (a, b))
    steps = sorted(old.keys() & new.keys())
    return np.array(steps, np.int64), relative_gap([old[step] for step in steps], [new[step] for step in steps])


def gap_statistics(steps: Steps, gaps: Floats) -> Record:
    """The largest gap and its step, the median, the largest of the first steps, the first step above THRESHOLD."""
    above = steps[gaps > THRESHOLD]
    return {
        "max": float(gaps.max()),
        "max_at_step": int(steps[gaps.argmax()]),
        "median": float(np.median(gaps)),
        "max_in_first_steps": float(gaps[:FIRST_STEPS].max()),
        "first_step_above_threshold": int(above[0]) if len(above) else None,
    }


def epoch_gaps(a: Run, b: Run) -> list[Record]:
    """For each step at which a run ended an epoch: {kind}_a, {kind}_b and {kind}_gap, None where one did not.

    The records are matched by step, since --max-steps may have cut an epoch short in one run only.
    """
    old, new = ({epoch["step"]: epoch for epoch in run.epochs} for run in (a, b))
    rows = []
    for step in sorted(old.keys() | new.keys()):
        row = {"epoch": (old.get(step) or new[step])["epoch"], "step": step}
        for kind in ("train_loss", "validation_loss"):
            x, y = (ended[step][kind] if step in ended else None for ended in (old, new))
            gap = None if x is None or y is None else float(relative_gap(x, y))
            row |= {f"{kind}_a": x, f"{kind}_b": y, f"{kind}_gap": gap}
        rows.append(row)
    return rows


def _verdict(result: Record, refused: Sequence[str]) -> str:
    loss, first = result["loss"], result["loss"]["first_step_above_threshold"]
    limit = (
        f"never by more than {THRESHOLD:g}" if first is None else f"by more than {THRESHOLD:g} first at step {first}"
    )
    verdict = (
        f"B {'agrees with' if first is None else 'drifts from'} A: over {result['common_steps']} common steps the "
        f"losses differ by at most {loss['max']:.3g} of A's (at step {loss['max_at_step']}; median "
        f"{loss['median']:.3g}), {limit}"
    )
    common = [row for row in result["epochs"] if row["validation_loss_gap"] is not None]
    if common:
        verdict += f"; the validation losses at step {common[-1]['step']} by {common[-1]['validation_loss_gap']:.3g}"
    return verdict + (f". But the runs were set up differently: {', '.join(refused)}." if refused else ".")


# --- Telling ------------------------------------------------------------------------------------------------


def text(comparison: Record) -> str:
    """The comparison as aligned tables and the verdict."""
    both = comparison["runs"]
    each_run = [["run", "A", "B"]]
    each_run += [[key.replace("_per_", "/").replace("_", " "), *(run[key] for run in both)] for key in both[0]]
    each_epoch = [["epoch", "step", *(f"{kind} {of}" for kind in ("train", "validation") for of in ("A", "B", "gap"))]]
    each_epoch += [list(row.values()) for row in comparison["epochs"]]
    step_by_step = [["gap, step by step", "loss", "gradient norm"]]
    for name, key in {
        "largest": "max",
        "  at step": "max_at_step",
        "median": "median",
        f"largest of the first {FIRST_STEPS}": "max_in_first_steps",
        f"first step above {THRESHOLD:g}": "first_step_above_threshold",
    }.items():
        step_by_step.append([name, comparison["loss"][key], comparison["grad_norm"][key]])
    tables = [*_table(each_run), "", *_table(each_epoch), "", *_table(step_by_step), ""]
    if comparison["differences"]:
        tables += [f"set up differently: {_told(comparison['differences'])}", ""]
    return "\n".join([*tables, comparison["verdict"]])


def _table(rows: Sequence[Sequence[Any]]) -> list[str]:
    cells = [["none" if v is None else f"{v:.6g}" if isinstance(v, float) else str(v) for v in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *(map(str.rjust, row[1:], widths[1:]))]) for row in cells]


def figure(a: Run, b: Run) -> Figure:
    """The losses of both runs laid over each other and, below, the gap at every common step."""
    picture = Figure(figsize=(9, 7), layout="constrained")
    above, below = picture.subplots(2, 1, sharex=True)
    # Equal curves would hide each other: A is broad and pale, B thin and on top of it.
    for name, run, colour, width, alpha in (("A", a, BLUE, 3.5, 0.45), ("B", b, VERMILION, 0.9, 1.0)):
        of = summary(run)
        label = f"{name}: {of['framework']} {of['version']} on {of['device']}"
        xs, ys = [step["step"] for step in run.steps], [step["loss"] for step in run.steps]
        above.plot(xs, ys, color=colour, linewidth=width, alpha=alpha, label=label)
    losses = [step["loss"] for step in a.steps + b.steps]
    above.set_yscale("log" if 0 < 10 * min(losses) < max(losses) else "linear")
    above.set(title="Training loss of every step", ylabel="loss (mean squared error)")

    steps, gaps = step_gaps(a, b, "loss")
    apart = gaps > 0
    below.set_yscale("log")
    below.plot(steps[apart], gaps[apart], ".", color=VERMILION, markersize=6 if len(steps) < 500 else 2)
    if not apart.all():  # 0 has no place on a logarithmic axis
        equal, label = steps[~apart], f"equal losses at {np.count_nonzero(~apart)} of {len(steps)} steps"
        edge = below.get_xaxis_transform()
        below.plot(equal, np.zeros(len(equal)), "|", color=BLUE, transform=edge, clip_on=False, label=label)
        below.legend(fontsize="small")
    for level, label in ((THRESHOLD, f"{THRESHOLD:g}"), (FLOAT32_ROUNDING, "float32\nrounding")):
        below.axhline(level, color="0.45", linewidth=0.9, linestyle="--")
        place = {"xycoords": ("axes fraction", "data"), "xytext": (4, 0), "textcoords": "offset points"}
        below.annotate(label, (1, level), va="center", fontsize="small", **place)
    below.margins(y=0.12)
    below.set(title="Gap between the losses, step by step", xlabel="training step", ylabel="|A - B| / |A|")
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    above.legend(fontsize="small")
    for axes in (above, below):
        axes.grid(alpha=0.25)
    return picture


# --- The command line ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Command:
    """Lay a run over another: print a table, write comparison.json and loss.png."""

    runs: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="A B")] = ()
    """Two run folders or metrics.json files, the baseline first."""
    out: str | None = None
    """Where to write (default: runs/compare/<utc>-<frameworks>)."""
    allow_different: bool = False
    """Compare runs whose data, seed or configuration differ, too."""


def main(argv: Sequence[str] | None = None) -> int:
    """Compare as the flags say; 0, however large the gaps. Raises UserError on bad input, OSError on a full disk."""
    command = cli.parse(Command, argv, "ddpm_shared.compare")
    if len(command.runs) != 2:
        raise UserError(f"there are two runs to a comparison, not {len(command.runs)}: name two run folders")
    a, b = map(read_run, command.runs)
    comparison = compare(a, b, command.allow_different)
    frameworks = f"{a.metrics['framework']}-{b.metrics['framework']}"
    out = Path(command.out) if command.out else runs.new_folder("compare", frameworks)
    files.write_json(out / "comparison.json", comparison)
    buffer = io.BytesIO()
    figure(a, b).savefig(buffer, format="png", dpi=120)
    files.write_atomically(out / "loss.png", buffer.getvalue())
    print(f"{text(comparison)}\n\n{out / 'comparison.json'}, {out / 'loss.png'}")
    return 0


if __name__ == "__main__":
    cli.guard(main)
