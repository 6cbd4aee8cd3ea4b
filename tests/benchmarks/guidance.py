"""What does classifier-free guidance do to images, what does it cost, and what has the null label learned?

    .venv/bin/python tests/benchmarks/guidance.py --checkpoint runs/conditional --unconditional runs/unconditional
    .venv/bin/python tests/benchmarks/guidance.py draw --frameworks tf --threads 1 --checkpoint runs/conditional
    .venv/bin/python tests/benchmarks/guidance.py report --checkpoint runs/conditional

`audit` counts how many images trained each row of the label table, `draw` draws the same images at every scale, by the
ordinary command, and has them judged, `time` wants a quiet machine, and `report` shows what is there. What is finished
is kept in --out, and the same command goes on after it; one process for each framework may run beside the other. Writes
guidance.json, guidance.md, guidance.png (numbers) and guidance-sheet.png (images).
"""

import dataclasses
import importlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import guidance_report
import machine
import numpy as np
import tyro
from guidance_facts import label_counts, step_seconds
from guidance_report import Cell, Framework, Record

from ddpm_shared import command_line, datasets, files, images
from ddpm_shared import config as configs
from ddpm_shared.config import Dataset, Precision, flag, require
from ddpm_shared.config.samplers import SamplerName
from ddpm_shared.config.sampling import Sampling
from ddpm_shared.errors import UserError
from ddpm_shared.evaluation.extractor import CLASSES, DIMENSIONS
from ddpm_shared.evaluation.judge import Judge, accuracy
from ddpm_shared.records import checkpoint
from ddpm_shared.records import folder as run_folders
from ddpm_shared.records.checkpoint import Checkpoint

Stage = Literal["audit", "draw", "time", "report"]
STAGES = get_args(Stage)
FRAMEWORKS = get_args(Framework)


@dataclass(frozen=True)
class Options:
    """Draw with guidance of many scales, judge and time."""

    stages: tyro.conf.Positional[tuple[Stage, ...]] = STAGES
    """What to do (default: all)."""
    checkpoint: str = "runs/conditional"
    """A class-conditional .safetensors file or run folder; averaged weights are used."""
    unconditional: str | None = None
    """An unconditional one that was trained for as long, to draw beside it."""
    scales: tuple[float, ...] = (1, 0, 2, 3, 1.5, 0.5, 5)
    """Scales of guidance, s: 0 unconditional, 1 conditional."""
    intervals: tuple[tuple[float, int, int], ...] = ((3, 200, 700), (3, 0, 500), (3, 500, 999))
    """Scale, first and last t of guidance in an interval."""
    frameworks: tuple[Framework, ...] = FRAMEWORKS
    """Whose samplers."""
    images: int = 2000
    """Images a cell; distances of sets of different size cannot be compared."""
    sampler: SamplerName = "dpmpp_2m_sde"
    """How they are drawn."""
    steps: int = 20
    """In so many steps."""
    seed: int = 0
    """Of the noise, which is the same for all cells."""
    precision: Precision = "bf16"
    """Of the network, for the images that are judged; those of the sheet are drawn in fp32."""
    batch_size: int = 100
    """Images at once."""
    threads: int | None = None
    """CPU threads that one operation may use (default: one for each core)."""
    dataset: Dataset = "auto"
    """The real images to judge by."""
    busy: bool = False
    """Time on a busy machine all the same; the report says so."""
    out: str = "runs/guidance"
    """Folder to write to."""

    def __post_init__(self) -> None:
        require(self.images >= DIMENSIONS, "--images", self.images, f"must be {DIMENSIONS} or more")
        for name in ("scales", "frameworks"):
            require(bool(getattr(self, name)), flag(name), "nothing", "must be one or more")

    @property
    def cells(self) -> list[Cell]:
        """The sets of images, those of one framework after those of the other."""
        kinds = [(scale, None) for scale in self.scales] + [(s, (first, last)) for s, first, last in self.intervals]
        found = []
        for framework in self.frameworks:
            found += [Cell(framework, float(scale), interval) for scale, interval in kinds]
            found += [Cell(framework, None)] if self.unconditional else []
        return found

    def sampling(self, cell: Cell) -> Sampling:
        """How a set of images is drawn."""
        first, last = cell.interval or (0, None)
        scale = 1.0 if cell.scale is None else cell.scale
        return Sampling(self.sampler, self.steps, guidance=scale, guidance_from=first, guidance_to=last)


def loaded(name: str) -> Checkpoint:
    """The checkpoint, with its averaged weights."""
    return checkpoint.load(run_folders.latest_checkpoint(Path(name)), ("ema",))


def conditional(options: Options) -> Checkpoint:
    """The class-conditional one. Raises UserError if it has no classes."""
    found = loaded(options.checkpoint)
    require(found.config.class_conditional, "--checkpoint", options.checkpoint, "must be a class-conditional one")
    return found


# --- The null label -----------------------------------------------------------------------------------------


def audit(options: Options) -> int:
    """Write audit.json: how many images trained each row of the label table, and how far each row went."""
    run = conditional(options)
    data = run.config.data
    train = datasets.load(data.dataset, data.data_dir)[0]
    if train.sha256 != run.dataset_sha256:
        raise UserError(f"{run.path} was trained with other images than {train.name}: the audit needs the same")
    files.write_json(Path(options.out) / "audit.json", label_counts(run, train) | {"checkpoint": run.sha256})
    return 0


# --- Drawing and judging ------------------------------------------------------------------------------------


def draw(options: Options) -> int:
    """Draw and judge the cells that are not finished. Returns the exit code."""
    out, splits = Path(options.out), datasets.load(options.dataset)
    models = {False: conditional(options)}
    if options.unconditional:
        models[True] = loaded(options.unconditional)
    judge = Judge(*splits)
    common = {name: getattr(options, name) for name in ("images", "sampler", "steps", "seed", "precision")}
    common |= {"dataset": splits[0].record, "extractor": judge.extractor.sha256}
    for cell in options.cells:
        begun(out, cell, common | {"checkpoint": models[cell.scale is None].sha256})
    files.write_json(out / "floor.json", floor(judge, options.images))
    for number, cell in enumerate(options.cells, 1):
        file = out / "cells" / cell.name / "record.json"
        record = json.loads(file.read_text())
        if "fid_fashion" in record:
            continue
        print(f"\n{number} of {len(options.cells)}: {cell.name}")
        for part, number_of, precision in (
            ("cells", options.images, options.precision),
            ("sheet", guidance_report.COLUMNS, "fp32"),
        ):
            told = ["--num-images", str(number_of), "--precision", precision, "--out", str(out / part / cell.name)]
            if code := drawn(options, cell, told, out / part / cell.name):
                return code
        times = options.sampling(cell).times(models[cell.scale is None].config.diffusion.timesteps)
        files.write_json(file, record | scores(out, cell, judge) | {"evaluations": evaluations(options, cell, times)})
    return 0


def begun(out: Path, cell: Cell, settings: Record) -> None:
    """The record of a cell, begun if there is none. Raises UserError if there is one of other settings."""
    file = out / "cells" / cell.name / "record.json"
    if not file.is_file():
        files.write_json(file, dataclasses.asdict(cell) | {"settings": settings})
    elif found := configs.differences(json.loads(file.read_text())["settings"], settings):
        told = "; ".join(f"{name} was {old!r}, now {new!r}" for name, (old, new) in found.items())
        raise UserError(f"{file} is of other settings ({told}): choose another --out")


def drawn(options: Options, cell: Cell, told: list[str], folder: Path) -> int:
    """Draw by the ordinary command, unless it was done. Returns the exit code."""
    if (folder / "grid.png").is_file():  # what the command writes last
        return 0
    wanted = options.checkpoint if cell.scale is not None else options.unconditional or ""
    told += ["--checkpoint", str(run_folders.latest_checkpoint(Path(wanted)))]
    told += ["--sampler", options.sampler, "--steps", str(options.steps), "--seed", str(options.seed)]
    told += ["--batch-size", str(options.batch_size)]
    if options.threads is not None:
        told += ["--threads", str(options.threads)]
    if cell.scale is not None:
        told += ["--labels", "all", "--guidance", f"{cell.scale:g}"]
    if cell.interval:
        told += ["--guidance-from", str(cell.interval[0]), "--guidance-to", str(cell.interval[1])]
    return importlib.import_module(f"ddpm_{cell.framework}.inference").main(told)


def scores(out: Path, cell: Cell, judge: Judge) -> Record:
    """What the judge says of a cell's images."""
    found = guidance_report.saved(out / "cells" / cell.name)
    extracted = judge.extractor(found["images"])
    told: Record = {"accuracy": None, "accuracy_of": None, "white": white(found["images"])}
    if cell.scale is not None:
        labels = found["labels"]
        rows = [np.flatnonzero(labels == k) for k in range(CLASSES)]
        told["accuracy"] = accuracy(extracted, labels)
        told["accuracy_of"] = [accuracy(extracted.take(of), k) if len(of) else None for k, of in enumerate(rows)]
    return judge.scores(extracted) | told


def white(pixels: images.Pixels) -> float:
    """The share of the brightest pixels: overexposed images have many."""
    return float((pixels >= guidance_report.WHITE).mean())


def floor(judge: Judge, count: int) -> Record:
    """The same of `count` real images that the reference does not have."""
    right = {"accuracy": accuracy(judge.other_extracted, judge.other.labels), "white": white(judge.other.images)}
    return {**judge.floor(count), **right, "class_names": list(judge.other.class_names)}


def evaluations(options: Options, cell: Cell, times: list[int]) -> int:
    """Of the network for an image: two at a time t with guidance, else one."""
    return sum(1 if options.sampling(cell).guidance_at(t) in (0, 1) else 2 for t in times)


# --- Time ---------------------------------------------------------------------------------------------------


def timed(options: Options) -> int:
    """Write seconds-<framework>-<precision>.json: of a step, guided and not, interleaved. Returns the exit code."""
    run = conditional(options)
    for framework in options.frameworks:
        for precision in ("fp32", "bf16"):
            if busy := machine.require_quiet(machine.watch(), options.busy):
                print(f"warning: {busy}", file=sys.stderr)
            file = Path(options.out) / f"seconds-{framework}-{precision}.json"
            files.write_json(file, step_seconds(run, framework, precision, options.threads) | {"warning": busy})
    return 0


def run(options: Options) -> int:
    """The stages that were asked for, in their order. Returns the exit code: 0, or that of an interruption."""
    work = {"audit": audit, "draw": draw, "time": timed, "report": lambda given: guidance_report.write(Path(given.out))}
    for stage in STAGES:
        if stage in options.stages and (code := work[stage](options)):
            return code
    return 0


if __name__ == "__main__":
    command_line.guard(lambda: run(tyro.cli(Options, prog="tests/benchmarks/guidance.py")))
