"""`make bench`: how fast and how large our two trees are, beside other people's networks of the same size.

    make bench                       # some twenty minutes on two cores; ARGS=--quick takes one
    make bench-peers                 # smalldiffusion and denoising-diffusion-pytorch as well
    make bench ARGS="--curves"       # and a picture: speed by batch size, width and sampling steps

Every contender is a process of its own, and in each round each has one turn, so that whatever slows the machine slows
all. Only the ratios of one run mean something, and only on a quiet machine: the load is watched first.
"""

import dataclasses
import os
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import contenders
import curves
import machine
import results
import startup
import table
import tyro
from contenders import PRECISIONS, Contender, Device
from crew import Crew
from results import Row
from rounds import Call, forward, progress, run, sampling, total_work, training

from ddpm_shared import command_line, files
from ddpm_shared.config import flag, require
from ddpm_shared.errors import UserError
from ddpm_shared.machine import environment
from ddpm_shared.records import folder as run_folders

SAMPLING_STEPS = 50
LONG_STEPS, LONG_IMAGES = 1000, 16


@dataclass(frozen=True)
class Options:
    """Time training, forward passes and sampling; print the table and write it with all raw figures."""

    preset: Literal["base", "tiny", "large"] = "base"
    """Our network. Others are of the size of base, and left out for tiny and large."""
    device: Device = "cpu"
    """What ours compute on. Others are left out on a GPU, and there are no goals for one."""
    batch_size: int | None = None
    """Images a training step and a forward pass (default: 128; with --quick 32)."""
    repeats: int | None = None
    """Rounds after one that warms up (default: 7; with --quick 3)."""
    sample_images: int = 64
    """Images drawn at once."""
    quick: bool = False
    """About a minute: training and forward passes only, of ours and, on the CPU, of diffusers in its default layout."""
    peers: bool = False
    """smalldiffusion and denoising-diffusion-pytorch as well; `make bench-peers` installs them first."""
    compile: bool = False
    """Ours with --compile as well."""
    curves: bool = False
    """Speed by batch size, width and sampling steps as well: curves.png."""
    busy: bool = False
    """Measure on a busy machine all the same; the report says so."""
    out: str | None = None
    """Folder of bench.json and bench.md (default: runs/bench/<utc>)."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "repeats", "sample_images"):
            value = getattr(self, name)
            require(value is None or value >= 1, flag(name), value, "must be 1 or more")

    @property
    def batch(self) -> int:
        """The batch size to take."""
        return self.batch_size or (32 if self.quick else 128)

    @property
    def rounds(self) -> int:
        """How many rounds are kept."""
        return self.repeats or (3 if self.quick else 7)


def bench(options: Options) -> int:
    """Measure, print and write. Returns the exit code. Raises UserError on a busy machine."""
    started = datetime.now(UTC)
    before = machine.watch()
    warning = machine.require_quiet(before, options.busy)
    if warning:
        print(f"warning: {warning}", file=sys.stderr)
    load = os.getloadavg() if hasattr(os, "getloadavg") else None
    commands = {} if options.quick else startup.measure()

    line_up = contenders.line_up(
        options.preset,
        options.batch,
        layouts=not options.quick,
        compiled=options.compile,
        peers=options.peers,
        device=options.device,
    )
    peak_line_up = [Contender("peak", precision, device=options.device) for precision in PRECISIONS]
    with Crew(line_up + peak_line_up) as crew:
        rows, peaks = measure(crew, line_up, options)
        lost = list(crew.lost.values())
    if not rows:
        raise UserError(f"nothing could be measured: {'; '.join(lost)}")
    ours = [row.contender for row in rows if row.contender.ours and not row.contender.compiled]
    found_curves = curves.measure(ours, options.sample_images) if options.curves else None

    after = machine.watch()
    goals = results.targets(rows, commands, options.peers) if options.device == "cpu" else []
    device = next((row.facts["device"] for row in rows if "device" in row.facts), "cpu")
    report = {
        "started_utc": started.isoformat(timespec="seconds"),
        "options": dataclasses.asdict(options) | {"batch_size": options.batch, "repeats": options.rounds},
        "warning": warning,
        "left_out": lost,
        "machine": machine.describe(),
        "load": {"average_before": load, "before": dataclasses.asdict(before), "after": dataclasses.asdict(after)},
        "environment": environment(device, max(row.facts["threads"] for row in rows)),
        "contenders": [record(row) for row in rows],
        "peaks_gflops": peaks,
        "startup": commands,
        "targets": [dataclasses.asdict(goal) | {"verdict": goal.verdict} for goal in goals],
        "curves": found_curves,
    }
    # Only now: a folder of results that were not reached would be in the way.
    out = Path(options.out) if options.out else run_folders.RUNS / "bench" / started.strftime("%Y%m%dT%H%M%SZ")
    text = document(report, rows, peaks, commands, goals)
    files.write_json(out / "bench.json", report)
    files.write_atomically(out / "bench.md", text.encode())
    if found_curves:
        curves.draw(out / "curves.png", found_curves, options.preset)
    print(f"{text}\n{out / 'bench.md'}")
    return 0


def measure(crew: Crew, line_up: list[Contender], options: Options) -> tuple[list[Row], dict[str, dict[str, float]]]:
    """All that the crew is asked: the rows of those that lived, and GFLOP/s of the machine at best by precision."""
    rows = {c.name: Row(c, facts) for c in line_up if (facts := crew.ask(c.name, "describe")) is not None}
    peak_facts = {p: crew.ask(Contender("peak", p).name, "describe") for p in PRECISIONS}
    batch, names = options.batch, list(rows)
    peak_calls = [
        Call(Contender("peak", p).name, do, 1, round(facts["flops"][do] / 1e9))
        for p, facts in peak_facts.items()
        if facts is not None
        for do in ("conv", "gemm")
    ]
    train_calls = [*(training(name, batch) for name in names), *peak_calls]
    forward_calls = [forward(name, batch) for name in names]
    short, long = [
        [sampling(n, steps, count) for n in names if rows[n].contender.samples and not options.quick]
        for steps, count in ((SAMPLING_STEPS, options.sample_images), (LONG_STEPS, LONG_IMAGES))
    ]
    repeats = options.rounds
    total = sum(total_work(calls, repeats) for calls in (train_calls, forward_calls, short))
    with progress(total + total_work(long, 1, warm_ups=0), "bench") as bar:
        trained = run(crew, train_calls, repeats, bar)
        for name, row in rows.items():  # now, so that it is the memory of training and of nothing else
            row.peak_memory_mib = (crew.ask(name, "memory") or {}).get("peak_memory_mib")
        for calls, rates in (
            (train_calls, trained),
            (forward_calls, run(crew, forward_calls, repeats, bar)),
            (short, run(crew, short, repeats, bar)),
            (long, run(crew, long, 1, bar, warm_ups=0)),  # warm from the short ones
        ):
            for call, found in zip(calls, rates, strict=True):
                if call.name in rows and found:
                    steps = f" {call.request['steps']}" if call.do == "sample" else ""
                    rows[call.name].rates[call.do + steps] = found
    for name, row in rows.items():
        if row.contender.ours:
            row.host_ms = crew.ask(name, "host") or {}
    living = [row for name, row in rows.items() if row.rates]
    results.share_flops(living)
    return living, best_of(peak_calls, trained[len(names) :], peak_facts)


def best_of(calls: list[Call], rates: list[list[float]], facts: dict[Any, Any]) -> dict[str, dict[str, float]]:
    """GFLOP/s of the machine: the best round, since a peak is what it can do."""
    found: dict[str, dict[str, float]] = {}
    for call, measured in zip(calls, rates, strict=True):
        precision = call.name.split()[1]
        if measured:
            found.setdefault(precision, {})[call.do] = max(measured) * facts[precision]["flops"][call.do] / 1e9
    return found


def record(row: Row) -> dict[str, Any]:
    """A row for JSON: what was measured, and what follows."""
    measured = dataclasses.asdict(row)
    medians = {what: row.rate(what) for what in row.rates}
    gflops = {what: row.gflops(what) for what in ("train", "forward")}
    return {"name": row.contender.name} | measured | {"medians": medians, "gflops": gflops, "host": row.host_share()}


def document(
    report: dict[str, Any],
    rows: list[Row],
    peaks: dict[str, dict[str, float]],
    commands: dict[str, dict[str, Any]],
    goals: list[results.Target],
) -> str:
    """The report as Markdown."""
    about, environment, options = report["machine"], report["environment"], report["options"]
    versions = ", ".join(f"{name} {version}" for name, version in environment["packages"].items())
    others = {row.contender.by: row.facts["version"] for row in rows if "version" in row.facts}
    gpu = "" if environment["device"] == "cpu" else f"{environment['device']}; "
    lines = [
        f"# Benchmark of {report['started_utc']}",
        "",
        f"`{options['preset']}`, batches of {options['batch_size']}, medians of {options['repeats']} rounds with the "
        "spread of the middle half. A rate is images a second, higher is better.",
        "",
        f"{gpu}{about['cpu']}, {about['cores']} cores, {environment['threads']} threads, "
        f"{about.get('memory_gib', '?')} GiB; {environment['platform']}, Python {environment['python']}, {versions}"
        + "".join(f", {name} {version}" for name, version in others.items())
        + f"; commit {(environment['git_commit'] or 'unknown')[:12]}.",
        "",
    ]
    lines += [f"**Warning:** {report['warning']}.", ""] if report["warning"] else []
    lines += [f"- {sentence}" for sentence in report["left_out"]] + ([""] if report["left_out"] else [])
    lines += [table.contenders(rows, peaks), ""]
    for precision, best in peaks.items():
        each = ", ".join(f"{name} {value:,.0f} GFLOP/s" for name, value in best.items())
        lines += [f"Peak in {precision}: {each}. A share of the peak is one of the convolution's.", ""]
    lines += [table.host(rows), ""] if any(row.host_ms for row in rows) else []
    lines += [table.startup(commands), ""] if commands else []
    lines += [table.targets(goals), ""] if goals else []
    return "\n".join(lines)


if __name__ == "__main__":
    chosen = tyro.cli(Options, prog="tests/benchmarks/bench.py")
    command_line.guard(lambda: bench(chosen))
