"""What do several workers cost, and what do they gain? On this machine, and, by arithmetic, on many GPUs.

    .venv/bin/python tests/benchmarks/workers.py
    .venv/bin/python tests/benchmarks/workers.py scaling --frameworks torch --repeats 9
    .venv/bin/python tests/benchmarks/workers.py model --images-per-gpu 1024
    .venv/bin/python tests/benchmarks/workers.py --page docs/workers.md

scaling: whole training steps of two processes of one thread, of one process of two threads, and of one of one thread.
gather: seconds and bytes of an exchange of gradients, of networks of several sizes. shards: what it costs to compute a
batch in 2, 4 or 8 parts. model: a step on 8, 64 and 512 GPUs, which nothing here measures.

Only ratios of one run mean something, and only on a quiet machine: the load is watched first, and in each round each
has one turn. What is finished is kept in --out, and the same command goes on after it. Writes workers.json and
workers.md, and with --page the tables into a page.
"""

import dataclasses
import json
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import machine
import tyro
import workers_model
from crew import Crew
from rounds import Call, progress, run, total_work, training
from tqdm import tqdm
from workers_model import Cluster, numbers_of
from workers_report import REDUCES, put, tables
from workers_team import Framework, Team, Together

from ddpm_shared import command_line, files
from ddpm_shared.config import Config, Precision, Preset, require, to_dict, with_preset
from ddpm_shared.config.checks import positive, whole
from ddpm_shared.errors import UserError
from ddpm_shared.frameworks import installed
from ddpm_shared.machine import environment
from ddpm_shared.passport import pieces
from ddpm_shared.passport.trace import total

Record = dict[str, Any]
Stage = Literal["scaling", "gather", "shards", "model"]

STAGES = get_args(Stage)
MEASURED = STAGES[:-1]
KEPT = {  # what the figures of a stage depend on
    "scaling": ("preset", "batch_size", "precision", "workers", "repeats"),
    "gather": ("workers", "sizes", "repeats"),
    "shards": ("preset", "batch_size", "precision", "workers", "shards", "repeats"),
}
MODELLED: Preset = "large"
LONG_EXCHANGE = 50_000_000  # numbers; so many are exchanged by a timed call, in one exchange or in several
MOST_EXCHANGES = 100
PASSES_A_NUMBER = 1e-5  # about; only the progress bar needs it


@dataclass(frozen=True)
class Options:
    """Time several workers against one, and compute what they would do on many GPUs."""

    stages: tyro.conf.Positional[tuple[Stage, ...]] = STAGES
    """What to do (default: all)."""
    frameworks: tuple[Framework, ...] = ("torch", "tensorflow")
    """Which trees."""
    preset: Preset = "small"
    """Network of scaling and of shards."""
    batch_size: int = 128
    """Images a step, of all workers together."""
    precision: Precision = "fp32"
    """Number format of the network's arithmetic."""
    workers: int = 2
    """Processes of one thread; beside them, one process of as many threads."""
    sizes: tuple[Preset, ...] = ("tiny", "small", "large")
    """Networks whose gradients are exchanged."""
    shards: tuple[int, ...] = (1, 2, 4, 8)
    """Parts of a batch."""
    repeats: int = 7
    """Rounds after one that warms up."""
    busy: bool = False
    """Measure on a busy machine all the same; the report says so."""
    page: str | None = None
    """Markdown page to put the tables into."""
    out: str = "runs/workers"
    """Folder to write to."""
    cluster: Cluster = field(default_factory=Cluster)

    def __post_init__(self) -> None:
        whole(self, "batch_size", "repeats")
        whole(self, "workers", least=2)
        positive(self.cluster, *(each.name for each in dataclasses.fields(self.cluster)))
        for parts in (self.workers, *self.shards):
            fits = parts >= 1 and self.batch_size % parts == 0
            require(fits, "--workers and --shards", parts, f"must divide --batch-size {self.batch_size}")

    def team(self, framework: Framework, processes: int, threads: int) -> Team:
        """Processes that train this network."""
        return Team(framework, processes, threads, self.preset, self.batch_size, self.precision)


@dataclass(frozen=True)
class Unit:
    """What is measured in one go: a stage in a framework. What is compared is in one unit."""

    stage: Stage
    framework: Framework
    teams: list[Team]
    calls: list[tuple[str, Call]]  # the name of a row, and what is timed for it

    @property
    def name(self) -> str:
        """Its key in workers.json."""
        return f"{self.stage} {self.framework}"


def units(options: Options) -> list[Unit]:
    """All that is to be measured."""
    plans = {"scaling": scaling, "gather": gather, "shards": shards}
    return [
        plans[stage](options, framework)
        for stage in MEASURED
        if stage in options.stages
        for framework in options.frameworks
    ]


def train(team: Team, parts: int) -> Call:
    """Training steps of a team, with the batch in so many parts."""
    call = training(team.name, team.batch_size)
    return dataclasses.replace(call, request=call.request | {"shards": parts})


def scaling(options: Options, framework: Framework) -> Unit:
    """Several processes against one, by whole training steps."""
    many = options.workers
    slow, wide, team = (options.team(framework, *each) for each in ((1, 1), (1, many), (many, 1)))
    calls = [
        (f"{each.name}, {parts} shard{'s' * (parts > 1)}", train(each, parts))
        for each, parts in ((wide, 1), (slow, 1), (wide, many), (team, many))
    ]
    return Unit("scaling", framework, [slow, wide, team], calls)


def gather(options: Options, framework: Framework) -> Unit:
    """The exchange of a gradient."""
    team, calls = options.team(framework, options.workers, 1), []
    for preset in options.sizes:
        numbers = numbers_of(preset)
        count = min(MOST_EXCHANGES, max(1, LONG_EXCHANGE // numbers))
        for reduce in REDUCES:
            request = {"preset": preset, "reduce": reduce, "count": count}
            work = round(PASSES_A_NUMBER * count * numbers)
            calls.append((f"{preset} {reduce}", Call(team.name, "exchange", count, work, request)))
    return Unit("gather", framework, [team], calls)


def shards(options: Options, framework: Framework) -> Unit:
    """One process that computes a batch in parts."""
    team = options.team(framework, 1, options.workers)
    return Unit("shards", framework, [team], [(f"{parts}", train(team, parts)) for parts in options.shards])


def measure(unit: Unit, options: Options, bar: "tqdm[Any]") -> Record:
    """Time all calls of a unit in rounds. Raises UserError if one of its teams died."""
    bar.set_postfix_str(f"{unit.name}: starting")
    calls = [call for _, call in unit.calls]
    with Crew(unit.teams, Together) as crew:
        rates = run(crew, calls, options.repeats, bar)
        traffic: dict[str, float] = {}
        if unit.stage == "gather":
            for row, call in unit.calls:
                request = {key: value for key, value in call.request.items() if key != "count"}
                if found := crew.ask(call.name, "traffic", **request):
                    traffic[row] = found["bytes"]
        threads = {team.name: (crew.ask(team.name, "describe") or {"threads": 0})["threads"] for team in unit.teams}
        lost = list(crew.lost.values())
    if lost:
        raise UserError(f"{unit.name} could not be measured: {'; '.join(lost)}")
    return {
        "rates": {row: found for (row, _), found in zip(unit.calls, rates, strict=True)},
        "traffic": traffic,
        "threads": threads,
    }


def settings_of(options: Options, stage: Stage) -> Record:
    """What the figures depend on: a unit that was measured with other settings is measured again."""
    found: Record = json.loads(json.dumps({key: getattr(options, key) for key in KEPT[stage]}))
    return found


def measure_all(options: Options, report: Record) -> None:
    """Measure what is not measured yet, and save it unit by unit. Raises UserError on a busy machine."""
    settings = {unit.name: settings_of(options, unit.stage) for unit in units(options)}
    finished = [name for name in settings if report["units"].get(name, {}).get("settings") == settings[name]]
    waiting = [unit for unit in units(options) if unit.name not in finished]
    if not waiting:
        return
    for framework in options.frameworks:
        require(installed(framework), "--frameworks", framework, "is not installed: leave it out, or run `make setup`")
    before = machine.watch()
    warning = machine.require_quiet(before, options.busy)
    if warning:
        print(f"warning: {warning}", file=sys.stderr)
    work = sum(total_work([call for _, call in unit.calls], options.repeats) for unit in waiting)
    with progress(work, "workers") as bar:
        for unit in waiting:
            found = measure(unit, options, bar)
            report["units"][unit.name] = found | {
                "settings": settings[unit.name],
                "warning": warning,
                "machine": machine.describe(),
                "environment": environment("cpu", max(found["threads"].values())),
            }
            files.write_json(Path(options.out) / "workers.json", report)


def multiply_adds(preset: Preset, frameworks: tuple[Framework, ...]) -> int:
    """Of the network of a preset for one image, as its passport counts them."""
    config = dataclasses.replace(with_preset(Config(), preset), device="cpu")
    framework = next((each for each in frameworks if installed(each)), None)
    if framework is None:
        raise UserError("neither framework is installed: run `make setup`")
    with tempfile.TemporaryDirectory() as folder:
        files.write_json(Path(folder) / "config.json", to_dict(config))
        return total(pieces.steps_of(pieces.make(Path(folder), framework, "trace", 1.0)), "multiply_adds")


def model(options: Options, report: Record) -> None:
    """Compute the step on many GPUs."""
    known, parameters = report.get("model", {}), numbers_of(MODELLED)
    if known.get("parameters") == parameters:
        flops = known["flops_per_image"]
    else:
        flops = 2 * multiply_adds(MODELLED, options.frameworks)
    report["model"] = workers_model.model(options.cluster, MODELLED, parameters, flops)
    report["model"]["cluster"] = dataclasses.asdict(options.cluster)


def write(options: Options, report: Record) -> None:
    """Write and print the report, and fill the page."""
    out, found = Path(options.out), tables(report)
    text = "\n\n".join(["# Several workers", *(f"## {stage}\n\n{table}" for stage, table in found.items())]) + "\n"
    files.write_json(out / "workers.json", report)
    files.write_atomically(out / "workers.md", text.encode())
    print(f"{text}\n{out / 'workers.md'}")
    if options.page:
        put(Path(options.page), found)
        print(options.page)


def measured(options: Options) -> int:
    """The stages that were asked for. Returns the exit code; raises UserError, OSError."""
    file = Path(options.out) / "workers.json"
    report: Record = json.loads(file.read_text()) if file.is_file() else {"units": {}}
    if options.page:  # a page without a place is found out before an hour of measuring
        put(Path(options.page), tables(report))
    measure_all(options, report)
    if "model" in options.stages:
        model(options, report)
    write(options, report)
    return 0


def main() -> int:
    """The command line."""
    return measured(tyro.cli(Options, prog="tests/benchmarks/workers.py", config=(tyro.conf.OmitArgPrefixes,)))


if __name__ == "__main__":
    command_line.guard(main)
