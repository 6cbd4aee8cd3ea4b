"""Training: the flags, the plan, and the command of both trees. The loop is training_loop.py."""

import argparse
import contextlib
import dataclasses
import math
import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
from tqdm import tqdm

from ddpm_shared import claims, datasets, files, machine, memory, workers
from ddpm_shared import config as configs
from ddpm_shared.batches import Prefetcher
from ddpm_shared.command_line import parse_flags, require_words
from ddpm_shared.commands.epoch_end import make_judge
from ddpm_shared.commands.learner import Learner
from ddpm_shared.commands.training_loop import TrainingLoop, follow
from ddpm_shared.config import CHANGEABLE, Config, require
from ddpm_shared.config.checks import positive
from ddpm_shared.config.data import LARGEST_IMAGE, SMALLEST_IMAGE
from ddpm_shared.config.help import default_is
from ddpm_shared.datasets import Split, measures
from ddpm_shared.errors import UserError
from ddpm_shared.frameworks import FRAMEWORKS
from ddpm_shared.records import checkpoint, picture_list
from ddpm_shared.records import folder as folders
from ddpm_shared.records.checkpoint import Checkpoint
from ddpm_shared.records.run import Run
from ddpm_shared.workers import ALONE, Place, Workers

WARM_UP_STEPS, TIMED_STEPS = 5, 20  # for --minutes
YEAR = 365 * 24 * 60  # minutes


@dataclass(frozen=True)
class TrainCommand:
    """Train a DDPM, or a diffusion model of another process.

    A flag wins over --process, --process over --preset, --preset over --config, and --config over the defaults.
    """

    config: Annotated[str | None, default_is("none")] = None
    """JSON file of settings, in the form of a run's config.json."""
    run_dir: Annotated[str | None, default_is("runs/<framework>/<utc>-<preset>")] = None
    """Folder to write the run to."""
    resume: Annotated[str | None, default_is("a new run")] = None
    """Run to continue: its folder, or a checkpoint file (then in a new folder); without a value, the newest run."""
    without_history: bool = False
    """With --resume: go on from the checkpoint although the records before it, metrics.jsonl, are damaged."""
    minutes: Annotated[float | None, default_is("set by --epochs and --max-steps")] = None
    """Length of the training in minutes. Some steps are timed first, to set --epochs and --max-steps."""
    stop_after: Annotated[float | None, default_is("never")] = None
    """Minutes after which to stop, to continue later with --resume. The numbers stay those of the whole run."""
    settings: Config = field(default_factory=Config)

    def __post_init__(self) -> None:
        positive(self, "minutes", "stop_after", most=YEAR)


@dataclass(frozen=True)
class TrainPlan:
    """A checked TrainCommand: what to run, where, and from which checkpoint. The chief has claimed the folder."""

    framework: str
    config: Config
    folder: Path
    resumed: Checkpoint | None
    without_history: bool = False
    minutes: float | None = None
    stop_after: float | None = None
    place: Place = ALONE


@claims.released_on_error()
def parse(framework: str, argv: Sequence[str] | None) -> TrainPlan:
    """Read the training flags of the tree of `framework`, "torch" or "tensorflow".

    Raises:
        UserError: a value that is wrong or does not fit the others or the resumed run.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    require_words(arguments)
    # The values that the flags override come from files that flags name, so these flags are read first.
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    # nargs="?": that a value is missing, parse_flags will say.
    first.add_argument("--preset", nargs="?")
    first.add_argument("--process", nargs="?")
    first.add_argument("--network", nargs="?")
    first.add_argument("--config", nargs="?")
    first.add_argument("--dataset", nargs="?")
    first.add_argument("--image-size", "--image_size", nargs="?")
    first.add_argument("--run-dir", "--run_dir", nargs="?")  # tyro takes either spelling
    first.add_argument("--resume", nargs="?", const="latest")
    known, _ = first.parse_known_args(arguments)
    for index, argument in enumerate(arguments):
        if argument == "--resume" and (index + 1 == len(arguments) or arguments[index + 1].startswith("--")):
            arguments[index] = "--resume=latest"

    place = workers.place(framework)
    source = _source(framework, known.resume, known.run_dir, place)
    in_place = source is not None and source.is_dir() and Path(known.run_dir or source) == source
    if source and in_place and place.chief:
        claims.claim(source)  # before its checkpoint is read: nobody else may go on from it
    resumed = _resumed(source)
    if source and known.config:
        raise UserError("--resume takes the settings of the run: leave out --config")
    settings = resumed.config if resumed else _settings(source, known.config)
    if known.preset and not (source and known.preset == settings.preset):
        settings = configs.with_preset(settings, known.preset)
    elif not (source or known.config) and known.network in configs.PRESET_OF.keys() - {settings.model.network}:
        settings = configs.with_network(settings, known.network)
    changed = known.process in configs.PROCESS_FACTS and known.process != settings.diffusion.process
    if changed:
        diffusion = configs.with_process(settings.diffusion, known.process)
        settings = dataclasses.replace(settings, diffusion=diffusion)
    if changed or not (source or known.config):
        settings = configs.with_unit_of_time(settings, known.network or settings.model.network)
    if not source:
        settings = _of_dataset(settings, known.dataset, known.image_size, flips=not known.config)
    module = f"{FRAMEWORKS[framework].tree}.train"
    command = parse_flags(TrainCommand, arguments, module, default=TrainCommand(settings=settings))
    memory.require_room_to_train(command.settings)
    if resumed:
        _require_same(resumed, command.settings)
        require(
            command.minutes is None,
            "--minutes",
            command.minutes,
            "a resumed run has its length already; stop it earlier with --stop-after, or lengthen it with --max-steps",
        )
    if command.without_history and not resumed:
        raise UserError("--without-history is for --resume, from a checkpoint: leave it out")
    # A run continues in its own folder, unless another framework or an explicit file makes it a branch.
    if not place.chief:
        folder = Path()  # where the chief writes
    elif source and in_place and (command.run_dir or resumed is None or resumed.framework == framework):
        folder = source
    else:
        if source and in_place:
            claims.release(source)
        folder = folders.claim_output(command.run_dir, framework, command.settings.preset)
        folders.require_free(folder)
    return TrainPlan(
        framework,
        command.settings,
        folder,
        resumed,
        command.without_history,
        command.minutes,
        command.stop_after,
        place,
    )


def _source(framework: str, resume: str | None, run_dir: str | None, place: Place) -> Path | None:
    """What --resume names: a run folder or a checkpoint file; None without --resume."""
    if resume is None:
        return None
    if resume != "latest":
        return Path(resume)
    return Path(run_dir) if run_dir else folders.folder_to_resume(framework, claimed_too=not place.chief)


def _resumed(source: Path | None) -> Checkpoint | None:
    """The checkpoint to continue from; None for a new run, and for one that ended before its first checkpoint."""
    if source is None:
        return None
    if (source / "config.json").is_file() and not folders.has_checkpoint(source):
        print(f"{source} has no checkpoint yet: its run begins again at step 0", file=sys.stderr)
        return None
    return checkpoint.load(folders.latest_checkpoint(source))


def _settings(source: Path | None, file: str | None) -> Config:
    """The settings that the flags override: those of the run folder `source`, of a JSON file, or the defaults."""
    if source:
        return configs.read(source / "config.json")
    return configs.read(file) if file else Config()


def _of_dataset(settings: Config, dataset: str | None, image_size: str | None, flips: bool) -> Config:
    """What a data set changes before the flags are read: the sizes that attention may have, and the default flip.

    What is wrong with a flag is said when it is read.
    """
    data = settings.data
    folder = data.folder
    if image_size and re.fullmatch("[0-9]{1,4}", image_size) and SMALLEST_IMAGE <= int(image_size) <= LARGEST_IMAGE:
        folder = dataclasses.replace(folder, image_size=int(image_size))
    if size := datasets.image_size(dataset or data.dataset, folder):
        settings = dataclasses.replace(settings, model=settings.model.at(size))
    if dataset and flips:
        data = dataclasses.replace(data, horizontal_flip=datasets.flips(dataset))
    return dataclasses.replace(settings, data=data)


def _require_same(resumed: Checkpoint, settings: Config) -> None:
    differences = configs.differences(configs.to_dict(resumed.config), configs.to_dict(settings))
    changed = [f"{key} was {old!r}, now {new!r}" for key, (old, new) in differences.items() if key not in CHANGEABLE]
    if changed:
        raise UserError(
            f"a resumed run must keep its settings, but {'; '.join(changed)}. "
            "Leave these flags out, or start a new run without --resume"
        )


W = TypeVar("W", bound=Workers)  # the tree's
Join = Callable[[Place, Config], W]
MakeLearner = Callable[[Config, int, W | None], Learner]


def run(plan: TrainPlan, join: Join[W], make_learner: MakeLearner[W]) -> int:
    """The train command of both trees.

    Args:
        plan: the checked command.
        join: (place, config) -> the tree's Workers, if there are several.
        make_learner: (config, steps of the whole run, workers) -> the tree's Learner, before its first step.

    Returns:
        The exit code, as TrainingLoop.run returns it.

    Raises:
        UserError: bad input.
        OSError: e.g. a full disk; the last checkpoint is whole.
    """
    with claims.writing(plan.folder) if plan.place.chief else contextlib.nullcontext():
        return _train(plan, join, make_learner)


def _train(plan: TrainPlan, join: Join[W], make_learner: MakeLearner[W]) -> int:
    framework, config, place = plan.framework, plan.config, plan.place
    train_split, test_split = datasets.load(config.data.dataset, config.data.data_dir, config.data.folder)
    sigma_data = None
    if config.diffusion.needs_sigma_data:
        counts = measures.level_counts(train_split.images).sum(axis=0)
        _, sigma_data, _ = measures.moments(counts.astype(np.float64))
    config = configs.fitted(config, train_split.images.shape[1:], len(train_split.class_names), sigma_data)
    _require_same_data(plan.resumed, train_split, test_split)
    require(
        config.training.batch_size <= len(train_split.images),
        "--batch-size",
        config.training.batch_size,
        f"is more than the {len(train_split.images)} training images: choose a smaller one",
    )
    workers.require_divisible(place, config)
    config = dataclasses.replace(config, threads=workers.threads_of(place, config.threads))
    step, all_workers = plan.resumed.step if plan.resumed else 0, None
    if place.count > 1:
        all_workers = join(place, config)
        begin = plan.resumed.sha256 if plan.resumed else ""
        workers.require_same(all_workers, framework, config, train_split.sha256, begin)
    if plan.minutes:
        learner = make_learner(config, config.training.num_steps(len(train_split.images)), all_workers)
        config = with_length(plan.minutes, config, learner, train_split, all_workers)
    settings, num_images = config.training, len(train_split.images)
    if all_workers and not place.chief:
        learner = make_learner(config, settings.num_steps(num_images), all_workers)
        if plan.resumed:
            learner.load(plan.resumed)
        return follow(config, train_split, learner, all_workers, step)
    # The judge comes first: it computes features of all real images, which takes a while, and may refuse.
    judge = make_judge(train_split, test_split, settings.evaluate_images) if settings.evaluate_every else None
    if not plan.resumed:  # before the framework is imported: a run that is killed while it starts can be resumed
        files.write_json(plan.folder / "config.json", configs.to_dict(config))
    picture_list.write(plan.folder, train_split, test_split)
    learner = make_learner(config, settings.num_steps(num_images), all_workers)
    if plan.resumed:
        learner.load(plan.resumed)
        if note := _new_end(plan.resumed, config, num_images):
            print(note)
    environment = machine.environment(learner.device_name, learner.threads)
    records = Run(
        plan.folder,
        framework,
        config,
        environment,
        train_split,
        learner.num_parameters,
        plan.resumed,
        plan.without_history,
    )
    facts = configs.PROCESS_FACTS[config.diffusion.process]
    process = "" if config.diffusion.process == "ddpm" else f"{facts.title}, "
    each = "" if place.count == 1 else f"{place.count} workers for {settings.shards} shards, "
    print(
        f"{framework} {environment['packages'][framework]} on {learner.device_name}, {each}{learner.threads} threads, "
        f"{config.precision} | {process}{config.preset}, {learner.num_parameters:,} parameters | {train_split.name}, "
        f"{num_images:,} images | {settings.num_steps(num_images):,} steps of {settings.batch_size} | {plan.folder}"
    )
    loop = TrainingLoop(config, train_split, test_split, learner, records, judge, step, plan.stop_after, all_workers)
    return loop.run()


def _require_same_data(resumed: Checkpoint | None, train: Split, test: Split) -> None:
    if resumed is None or resumed.dataset_sha256 == train.sha256:
        return
    if change := picture_list.change(resumed, train, test):
        raise UserError(
            f"the pictures are not those that {resumed.path} was trained on: {change}; undo this, choose "
            "their folder with --data-dir, or start a new run without --resume"
        )
    raise UserError(
        f"{resumed.path} was trained on data with SHA-256 {resumed.dataset_sha256[:12]}..., but "
        f"{train.name} has {train.sha256[:12]}...: choose that data with --dataset or --data-dir"
    )


def with_length(
    minutes: float, config: Config, learner: Learner, split: Split, all_workers: Workers | None = None
) -> Config:
    """`config` with as many steps as `learner` makes in that many minutes, by the chief's clock.

    The time between the steps, for validation and pictures, is not counted. The steps change `learner`.
    """
    place = all_workers.place if all_workers else ALONE
    settings, batch_of, seconds = config.training, Prefetcher(split, config, place.share), []
    timed = range(WARM_UP_STEPS + TIMED_STEPS)
    for step in tqdm(timed, desc="timing", unit="step", leave=False, disable=not place.chief):
        began = time.perf_counter()
        learner.train_step(batch_of(step), step)
        seconds.append(time.perf_counter() - began)
    each = statistics.median(seconds[WARM_UP_STEPS:])
    if all_workers:
        each = workers.gather_json(all_workers, each)[0]
    steps = max(1, round(60 * minutes / each))
    epochs = math.ceil(steps / (len(split.images) // settings.batch_size))
    speed = settings.batch_size / each
    print(f"{speed:,.0f} images/s: --epochs {epochs} --max-steps {steps} takes {minutes:g} minutes")
    return dataclasses.replace(config, training=dataclasses.replace(settings, epochs=epochs, max_steps=steps))


def _new_end(resumed: Checkpoint, config: Config, num_images: int) -> str | None:
    """A note for the user if the learning rate was falling already and the run gets another end."""
    old, new = (each.training.num_steps(num_images) for each in (resumed.config, config))
    falls = config.training.learning_rate_decay != "none" and old != new
    if not falls or resumed.step <= config.training.decay_start * min(old, new):
        return None
    return (
        f"note: the learning rate was falling towards step {old:,} and from here on falls towards step {new:,}: "
        f"a run of {new:,} steps in one go computes something else"
    )
