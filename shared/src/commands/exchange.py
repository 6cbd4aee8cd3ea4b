"""Going on from a network that somebody trained elsewhere: the flags, the plan, and the run folder made of it."""

import argparse
import dataclasses
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from ddpm_shared import claims, datasets, files, machine, memory
from ddpm_shared import config as configs
from ddpm_shared.command_line import parse_flags, require_words
from ddpm_shared.commands.learner import Learner
from ddpm_shared.config import Config, flag, require
from ddpm_shared.config.data import LARGEST_IMAGE, SMALLEST_IMAGE
from ddpm_shared.config.help import default_is
from ddpm_shared.config.model import SETTINGS_OF
from ddpm_shared.datasets import measures
from ddpm_shared.errors import UserError
from ddpm_shared.exchange import convert, layouts, sizes, weights
from ddpm_shared.exchange.layouts import Layout
from ddpm_shared.exchange.weights import PickleReader, Tensors
from ddpm_shared.frameworks import FRAMEWORKS
from ddpm_shared.reading import name_of, one_line
from ddpm_shared.records import folder as folders
from ddpm_shared.records import picture_list
from ddpm_shared.records.run import Run

# Settings of the network that no shape shows.
UNSEEN = {name: SETTINGS_OF[name] for name in ("num_groups", "activation", "attention_heads")}
RECORD = "imported.json"  # of a run folder: where its weights came from
MESSAGE = "imported: no step was trained here"


@dataclass(frozen=True)
class ImportCommand:
    """Make a run of the weights of a network that was trained elsewhere in PyTorch, to draw from and to go on with.

    The sizes of the network come from the shapes of the weights. What these do not show is given by the flags.
    """

    weights: Annotated[str | None, default_is("required")] = None
    """File of the weights, a state_dict: .safetensors, or in PyTorch's tree also .pt, .pth, .bin, .ckpt."""
    layout: Annotated[str | None, default_is("the one whose names they have")] = None
    """Names of the weights: one of the layouts of --network, or a mapping file of your own, .json."""
    part: Annotated[str | None, default_is("the only one")] = None
    """Dict of tensors to take, where a .pt file has several, e.g. ema."""
    run_dir: Annotated[str | None, default_is("runs/<framework>/<utc>-<preset>")] = None
    """Folder to write the run to."""
    settings: Config = field(default_factory=Config)


@dataclass(frozen=True)
class ImportPlan:
    """A checked ImportCommand. This process has claimed the folder."""

    framework: str
    config: Config
    folder: Path
    source: Path
    layout: Layout
    tensors: Tensors
    rows: int  # of its table of classes; 0 without one


@claims.released_on_error()
def parse(framework: str, argv: Sequence[str] | None, read_pickle: PickleReader) -> ImportPlan:
    """Read the flags of the tree of `framework` and the weights that they name.

    Args:
        framework: "torch" or "tensorflow".
        argv: the arguments; None for those of the process.
        read_pickle: the tree's, for .pt files.

    Raises:
        UserError: a value that is wrong, or weights that no network of ours has.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    require_words(arguments)
    # The values that the flags override come from the weights, so these flags are read first.
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    # nargs="?": that a value is missing, parse_flags will say.
    for name in ("--weights", "--layout", "--part", "--preset", "--network", "--process", "--dataset"):
        first.add_argument(name, nargs="?")
    first.add_argument("--image-size", "--image_size", nargs="?")
    known, _ = first.parse_known_args(arguments)
    module = f"{FRAMEWORKS[framework].tree}.exchange"
    if known.weights is None or {"-h", "--help"} & set(arguments):
        parse_flags(ImportCommand, arguments, module)
        raise UserError("--weights: name the file of the weights, a state_dict as .safetensors")
    source = Path(known.weights)
    tensors = weights.read(source, known.part, read_pickle)
    network = known.network
    if known.preset in configs.PRESETS:
        network = network or configs.PRESETS[known.preset].network
    layout = layouts.recognised(tensors, network if network in configs.PRESET_OF else None, known.layout, str(source))
    shown = sizes.inferred(layout, {name: value.shape for name, value in tensors.items()})
    settings = _settings(known, layout, shown, source)
    command = parse_flags(ImportCommand, arguments, module, default=ImportCommand(settings=settings))
    config = command.settings
    require(
        config.model.network == layout.network,
        "--network",
        config.model.network,
        f"layout {one_line(layout.name, 60)} is of {layout.network}",
    )
    require(
        shown.rows > 0 or not config.class_conditional,
        "--class-conditional with --weights",
        source,
        "its network has no table of classes",
    )
    memory.require_room_to_train(config)
    folder = folders.claim_output(command.run_dir, framework, config.preset)
    folders.require_free(folder)
    return ImportPlan(framework, config, folder, source, layout, tensors, shown.rows)


def _settings(known: Any, layout: Layout, shown: sizes.Sizes, source: Path) -> Config:
    """The settings that the flags override: of the preset, then what the layout and the shapes show."""
    settings = Config()
    if known.preset in configs.PRESETS:
        settings = configs.with_preset(settings, known.preset)
    if settings.model.network != layout.network:
        settings = configs.with_network(settings, layout.network)
    if known.process in configs.PROCESS_FACTS:
        diffusion = configs.with_process(settings.diffusion, known.process)
        if layout.network == "transformer_unet":  # its frequencies are for t itself
            diffusion = dataclasses.replace(diffusion, time_scale=1.0)
        settings = dataclasses.replace(settings, diffusion=diffusion)
    data, image = settings.data, known.image_size
    folder = data.folder
    if image and re.fullmatch("[0-9]{1,4}", image) and SMALLEST_IMAGE <= int(image) <= LARGEST_IMAGE:
        folder = dataclasses.replace(folder, image_size=int(image))
    if known.dataset:
        data = dataclasses.replace(data, horizontal_flip=datasets.flips(known.dataset))
    side = datasets.image_size(known.dataset or data.dataset, folder) or settings.model.image_size
    model = sizes.with_sizes(settings.model, shown, side)
    if "beside" in layout.values:
        model |= weights.settings_beside(source, layout.values["beside"], bool(shown.attention_levels))
    if shown.learned_variance:
        settings = dataclasses.replace(
            settings, diffusion=dataclasses.replace(settings.diffusion, variance="learned_range")
        )
    return dataclasses.replace(
        settings,
        data=data,
        class_conditional=shown.rows > 0,
        model=dataclasses.replace(settings.model, **model),
    )


def run(plan: ImportPlan, make_learner: Callable[[Config, int], Learner]) -> int:
    """Convert the weights, and write the run folder with a checkpoint of step 0.

    Args:
        plan: the checked command.
        make_learner: (config, steps of the whole run) -> the tree's Learner, whose network says what it needs.

    Returns:
        The exit code.

    Raises:
        UserError: the weights do not fit the network, or not the data; then nothing is written.
    """
    with claims.writing(plan.folder):
        return _import(plan, make_learner)


def _import(plan: ImportPlan, make_learner: Callable[[Config, int], Learner]) -> int:
    config, source, layout = plan.config, plan.source, plan.layout
    train_split, test_split = datasets.load(config.data.dataset, config.data.data_dir, config.data.folder)
    channels, classes = train_split.images.shape[-1], len(train_split.class_names)
    require(
        channels == config.model.image_channels,
        "--dataset",
        config.data.dataset,
        f"its images have {channels} channels, and the network in {name_of(source)} is for "
        f"{config.model.image_channels}",
    )
    require(
        not config.class_conditional or plan.rows in (classes, classes + 1),
        "--dataset",
        config.data.dataset,
        f"it has {classes} classes, and the table in {name_of(source)} has {plan.rows} rows: one for each class, and "
        "perhaps one more for none",
    )
    sigma_data = None
    if config.diffusion.needs_sigma_data:
        counts = measures.level_counts(train_split.images).sum(axis=0)
        _, sigma_data, _ = measures.moments(counts.astype(np.float64))
    config = configs.fitted(config, train_split.images.shape[1:], classes, sigma_data)
    learner = make_learner(config, config.training.num_steps(len(train_split.images)))
    state = learner.tensors()
    # Every place of a checkpoint has the same names, so one shape stands for all of them.
    shapes = {name.partition("/")[2]: value.shape for name, value in state.items()}
    values = convert.converted(layout, config, plan.tensors, shapes, str(source))
    for name, value in state.items():
        place, _, key = name.partition("/")
        with np.errstate(over="ignore"):  # it is said below
            new = np.zeros_like(value) if place.startswith("adam") else values[key].astype(value.dtype)
        if not np.isfinite(new).all():
            raise UserError(f"{name_of(source)} holds numbers in {key} that --precision {config.precision} cannot hold")
        state[name] = new
    picture_list.write(plan.folder, train_split, test_split)
    environment = machine.environment(learner.device_name, learner.threads)
    records = Run(plan.folder, plan.framework, config, environment, train_split, learner.num_parameters)
    record = {
        "weights": str(source),
        "layout": layout.name,
        "network": layout.network,
        "tensors": len(plan.tensors),
        "assumed": layout.values.get("assumes", []),
    }
    files.write_json(plan.folder / RECORD, record)
    path = records.save_checkpoint(0, state)
    records.finish("interrupted", 0, MESSAGE)
    model = config.model
    print(
        f"{name_of(source)}: {layout.network}, {learner.num_parameters:,} parameters, as "
        f"{one_line(layout.name, 60)} names them | "
        f"channels {model.base_channels} x {model.channel_mults}, {model.num_classes} classes | {path}"
    )
    unseen = (name for name, networks in UNSEEN.items() if layout.network in networks)
    taken = [f"{flag(name)} {getattr(model, name)}" for name in unseen]
    taken += [one_line(each) for each in layout.values.get("assumes", [])]
    print("what weights do not show, and is taken to be so: " + "; ".join(taken))
    print(f"go on with --resume {plan.folder}, draw with --checkpoint {plan.folder}, in either framework")
    return 0
