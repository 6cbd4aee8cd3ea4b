"""Which solver draws the best images of few evaluations, in each process? One table for all.

    .venv/bin/python tests/benchmarks/processes.py speed --runs runs/ten-minutes
    .venv/bin/python tests/benchmarks/processes.py draw --runs runs/ten-minutes --processes vp edm --threads 1
    .venv/bin/python tests/benchmarks/processes.py orders report --runs runs/ten-minutes

--runs holds a run folder for each process, named after it, all of one network trained for as long. `speed` says how
long the drawing will take, `draw` draws the same images by every solver with at most so many evaluations of the
network, and judges them, `orders` measures each solver's order on Gaussian data, and `report` shows what is there. What
is finished is kept in --out, and the same command goes on after it; several may run beside each other with other
--processes.
Writes processes.json, processes.md, processes.png (distances) and processes-sheet.png (images).
"""

import dataclasses
import importlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import processes_report
import quality
import tyro
from processes_cells import COLUMNS, EVALUATIONS, SOLVERS, Cell, Framework, Record, cells_of, seconds_left
from processes_order import order
from tqdm import tqdm

from ddpm_shared import command_line, datasets, files
from ddpm_shared import config as configs
from ddpm_shared.commands.interruption import Interrupted, StopSignals
from ddpm_shared.config import Dataset, Device, Precision, flag, require
from ddpm_shared.config.processes import ProcessName
from ddpm_shared.config.sampling import Grid, SamplerName
from ddpm_shared.errors import UserError
from ddpm_shared.evaluation.extractor import DIMENSIONS
from ddpm_shared.evaluation.judge import Judge
from ddpm_shared.machine import environment
from ddpm_shared.records import checkpoint
from ddpm_shared.records import folder as run_folders
from ddpm_shared.records.checkpoint import Checkpoint

Stage = Literal["speed", "draw", "orders", "report"]
STAGES = get_args(Stage)
SIDES = {"torch": ("ddpm_parity.torch_side", "Torch"), "tf": ("ddpm_parity.tf_side", "TensorFlow")}


@dataclass(frozen=True)
class Options:
    """Draw in every process by every solver, judge, and show all in one table."""

    stages: tyro.conf.Positional[tuple[Stage, ...]] = ("draw", "orders", "report")
    """What to do."""
    runs: str = "runs/processes"
    """Folder that holds the run folder of each process; averaged weights of the newest checkpoint are used."""
    processes: tuple[ProcessName, ...] = COLUMNS
    """Columns of the table."""
    samplers: tuple[SamplerName, ...] = SOLVERS
    """Rows of the table."""
    evaluations: tuple[int, ...] = EVALUATIONS
    """Evaluations of the network for an image, at most; each solver takes as many steps as they allow."""
    grids: tuple[Grid, ...] = ()
    """Grids to try beside the default of each process. The table shows the best of all, and says that it does."""
    images: int = 500
    """Images a cell; distances of sets of different size cannot be compared."""
    quick: bool = False
    """Draw 128 images with 10 evaluations only: a trial of a minute or two."""
    seed: int = 0
    """Of the noise, which is the same for all cells."""
    batch_size: int = 100
    """Images at once."""
    framework: Framework = "torch"
    """Whose samplers."""
    precision: Precision = "bf16"
    """Of the network."""
    compile: bool = False
    """Compile the network."""
    device: Device = "auto"
    """auto takes the GPU if there is one."""
    threads: int | None = None
    """CPU threads that one operation may use (default: one for each core)."""
    dataset: Dataset = "auto"
    """The real images to judge by."""
    out: str = "runs/solver-table"
    """Folder to write to."""

    def __post_init__(self) -> None:
        for name, least in (("images", DIMENSIONS), ("batch_size", 1), ("seed", 0)):  # the judge's features
            require(getattr(self, name) >= least, flag(name), getattr(self, name), f"must be {least} or more")
        for name in ("processes", "samplers", "evaluations"):
            require(bool(getattr(self, name)), flag(name), "nothing", "must be one or more")
        require(min(self.evaluations) >= 1, "--evaluations", self.evaluations, "must be 1 or more")

    @property
    def number(self) -> int:
        """Images a cell."""
        return DIMENSIONS if self.quick else self.images

    @property
    def cells(self) -> list[Cell]:
        """The sets of images, column by column."""
        budgets = (min(self.evaluations),) if self.quick else self.evaluations
        return cells_of(self.framework, self.processes, self.samplers, budgets, self.grids)

    def run_of(self, process: ProcessName) -> Checkpoint:
        """The network of a process. Raises UserError if the folder holds that of another."""
        loaded = checkpoint.load(run_folders.latest_checkpoint(Path(self.runs) / process), ("ema",))
        require(
            loaded.config.diffusion.process == process,
            "--runs",
            loaded.path,
            f"was trained in {loaded.config.diffusion.process}, and must be of {process}",
        )
        return loaded


def make(options: Options, loaded: Checkpoint) -> tuple[Any, Any]:
    """(the network, sampling -> the tree's Sampler of it or of another network)."""
    where = {name: getattr(options, name) for name in ("precision", "device", "threads", "compile")}
    config = dataclasses.replace(loaded.config, **where)
    model, sampling = (importlib.import_module(f"ddpm_{options.framework}.{name}") for name in ("model", "sampling"))
    return model.load(loaded, "ema", config), lambda network, chosen: sampling.Sampler(network, config, chosen)


def drawing(options: Options) -> Any:
    """What quality.draw needs to know. With --quick there is one batch, and so one compilation at most."""
    size = options.number if options.quick else min(options.batch_size, options.number)
    return quality.Options(images=options.number, seed=options.seed, batch_size=size)


def speed(options: Options) -> int:
    """Time one cell of few evaluations in each process, and print how long the others will take. Returns 0."""
    cells, total, size = unfinished(options), 0.0, max(DIMENSIONS, options.batch_size)
    for process in options.processes:
        column = [cell for cell in cells if cell.process == process]
        if not column:
            continue
        network, make_sampler = make(options, options.run_of(process))
        one = dataclasses.replace(drawing(options), images=size, batch_size=size)
        _, facts = quality.draw(make_sampler, network, column[0].sampling, one, lambda count: None)
        rate = one.images * facts["evaluations"] / facts["seconds"]
        total += (seconds := seconds_left(column, options.number, rate))
        print(
            f"{process}: {len(column)} cells, {rate:,.0f} evaluations a second, {seconds / 60:.0f} minutes", flush=True
        )
    print(f"all: {total / 60:.0f} minutes for {options.number} images a cell, one process after the other")
    return 0


def unfinished(options: Options) -> list[Cell]:
    """The cells without a record."""
    return [cell for cell in options.cells if not record_of(options, cell).is_file()]


def record_of(options: Options, cell: Cell) -> Path:
    """The record of a cell, which is written last."""
    return Path(options.out) / "cells" / f"{cell.name}.json"


def draw(options: Options) -> int:
    """Draw and judge the cells that are not finished. Returns the exit code: 0, or 130 or 143 if interrupted."""
    out, splits = Path(options.out), datasets.load(options.dataset)
    judge = Judge(*splits)
    settings = {name: getattr(options, name) for name in ("seed", "precision")} | {"images": options.number}
    settings |= {"dataset": splits[0].record, "extractor": judge.extractor.sha256}
    runs = {process: options.run_of(process) for process in options.processes}
    for cell in options.cells:
        require_same(record_of(options, cell), settings | {"checkpoint": runs[cell.process].sha256})
    files.write_json(out / "floor.json", judge.floor(options.number))
    todo = unfinished(options)
    total = options.number * sum(cell.cost(cell.steps) for cell in todo)
    try:
        with StopSignals() as stop, tqdm(total=total, unit="evaluation", unit_scale=True) as bar:
            for process in options.processes:
                column = [cell for cell in todo if cell.process == process]
                if column:
                    fill(options, column, runs[process], judge, settings, lambda each: (bar.update(each), stop.check()))
    except Interrupted:
        print("interrupted; the finished cells are kept: the same command goes on after them", file=sys.stderr)
        return stop.exit_code
    return 0


def require_same(file: Path, settings: Record) -> None:
    """Raise UserError if a cell was drawn with other settings."""
    if file.is_file() and (found := configs.differences(json.loads(file.read_text())["settings"], settings)):
        told = "; ".join(f"{name} was {old!r}, now {new!r}" for name, (old, new) in found.items())
        raise UserError(f"{file} is of other settings ({told}): choose another --out")


def fill(
    options: Options, column: list[Cell], loaded: Checkpoint, judge: Judge, settings: Record, advance: Any
) -> None:
    """Draw and judge cells of one process; advance(evaluations) is called after each step."""
    out = Path(options.out)
    network, make_sampler = make(options, loaded)
    ready = make_sampler(network, column[0].sampling)
    ran_on = environment(ready.device_name, ready.threads)
    for cell in column:
        each = cell.cost(cell.steps) / cell.steps
        pixels, facts = quality.draw(
            make_sampler, network, cell.sampling, drawing(options), lambda count, each=each: advance(count * each)
        )
        files.write_npz(out / "images" / f"{cell.name}.npz", images=pixels)
        record = (
            {"name": cell.name} | vars(cell) | {"steps": cell.steps} | facts | judge.scores(judge.extractor(pixels))
        )
        more = {"settings": settings | {"checkpoint": loaded.sha256}, "trained_steps": loaded.step}
        files.write_json(record_of(options, cell), record | more | {"environment": ran_on})


def orders(options: Options) -> int:
    """Write orders.json: the order that each solver shows in each process, in float64. Returns 0."""
    file, (module, name) = Path(options.out) / "orders.json", SIDES[options.framework]
    side = getattr(importlib.import_module(module), name)("fp64")
    found: dict[str, Record] = json.loads(file.read_text()) if file.is_file() else {}
    for sampler in tqdm(options.samplers, desc="orders"):
        row = found.setdefault(sampler, {})
        row |= {process: order(side, process, sampler) for process in options.processes if process not in row}
        files.write_json(file, found)
    return 0


def run(options: Options) -> int:
    """The stages that were asked for, in their order. Returns the exit code: 0, or that of an interruption."""
    work = {"speed": speed, "draw": draw, "orders": orders, "report": lambda o: processes_report.write(Path(o.out))}
    for stage in STAGES:
        if stage in options.stages and (code := work[stage](options)):
            return code
    return 0


if __name__ == "__main__":
    command_line.guard(lambda: run(tyro.cli(Options, prog="tests/benchmarks/processes.py")))
