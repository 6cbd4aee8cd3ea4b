"""One framework's part of a passport, each piece in a process of its own: its peak of memory is then its own.

The commands `python -m ddpm_torch.passport` and `python -m ddpm_tf.passport` are for ddpm_shared.passport, which lays
both parts beside each other.
"""

import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ddpm_shared import batches, command_line, config, files
from ddpm_shared.config import Config, Precision
from ddpm_shared.config.checks import positive
from ddpm_shared.config.sampling import Draw, quick
from ddpm_shared.datasets import Split
from ddpm_shared.passport.pieces import Piece

SEED = 0
IMAGES, TIMES = 4, np.array([20, 400, 700, 990])  # for the layers' outputs, and for the receptive field
STEPS_BEFORE = 2  # of training, and images of a drawing, that are not timed: graphs are made then
LEAST = 3  # steps that are timed, however long they take


@dataclass(frozen=True)
class Command:
    """Measure a network in this framework. For ddpm_shared.passport."""

    piece: Piece
    """What to do."""
    settings: str
    """File of the settings, as config.json of a run."""
    out: str
    """Folder to write to."""
    seconds: float = 5.0
    """Seconds that are timed."""

    def __post_init__(self) -> None:
        positive(self, "seconds")


@dataclass(frozen=True)
class Plan:
    """A checked Command."""

    framework: str
    command: Command
    config: Config


def parse(framework: str, argv: Sequence[str] | None) -> Plan:
    """Read the flags, and the settings from their file.

    Raises:
        UserError: bad flags or a bad file.
    """
    command = command_line.parse_flags(Command, argv, f"ddpm_{'torch' if framework == 'torch' else 'tf'}.passport")
    return Plan(framework, command, config.read(Path(command.settings)))


def run(plan: Plan, tree: Any) -> int:
    """Do a piece, and write <framework>-<piece>.json, and the layers' outputs as .npz.

    Args:
        plan: from `parse`.
        tree: a namespace of the tree's modules and classes: model, trace, utils, Learner, Sampler.
    """
    pieces: dict[str, Callable[[Plan, Any], dict[str, Any]]] = {
        "trace": _trace,
        "layers": _layers,
        "training": _training,
        "drawing": _drawing,
    }
    tree.utils.set_threads(plan.config.threads)
    begun = peak()
    result = pieces[plan.command.piece](plan, tree)
    result |= {"peak_bytes": peak(), "peak_bytes_before": begun}
    files.write_json(Path(plan.command.out) / f"{plan.framework}-{plan.command.piece}.json", result)
    return 0


def _at_random(plan: Plan, tree: Any, precision: Precision) -> Any:
    """The network, none of whose weights is zero: a zero would hide what comes before it."""
    network = tree.model.make_network(dataclasses.replace(plan.config, precision=precision))
    network.zero_at_start = ()
    tree.model.initialise(network, SEED)
    return network


def _inputs(plan: Plan) -> tuple[Any, Any]:
    model = plan.config.model
    shape = (IMAGES, model.image_size, model.image_size, model.image_channels)
    # float32's digits, so that both precisions are given the same.
    return np.random.default_rng(SEED).standard_normal(shape).astype(np.float32).astype(np.float64), TIMES


def _trace(plan: Plan, tree: Any) -> dict[str, Any]:
    network = tree.model.make_network(plan.config)
    places = tree.trace.sources(network)
    return {
        "steps": [dataclasses.asdict(step) for step in tree.trace.trace(network)],
        "sources": {name: place._asdict() for name, place in places.items() if place is not None},
    }


def _layers(plan: Plan, tree: Any) -> dict[str, Any]:
    result = _trace(plan, tree)
    precisions: tuple[Precision, ...] = ("fp64", "fp32")
    for precision in precisions:
        network = _at_random(plan, tree, precision)
        outputs = tree.trace.activations(network, *_inputs(plan))
        files.write_npz(Path(plan.command.out) / f"{plan.framework}-{precision}.npz", **outputs)
        if precision == "fp64":
            result["receptive_field"] = list(tree.trace.receptive_field(network, *_inputs(plan)))
    return result


def _training(plan: Plan, tree: Any) -> dict[str, Any]:
    """Whole training steps, their batch and noise included, on images of noise: what they show costs no time."""
    config, model = plan.config, plan.config.model
    count = 4 * config.training.batch_size
    pixels = np.random.default_rng(SEED).integers(
        0, 256, (count, model.image_size, model.image_size, model.image_channels), np.uint8
    )
    labels = np.arange(count) % max(model.num_classes, 1)
    split = Split("noise", "train", pixels, labels, "0" * 64)
    learner, batch_of = tree.Learner(config, 1000), batches.Prefetcher(split, config)

    def step(number: int) -> int:
        learner.train_step(batch_of(number), number)
        return config.training.batch_size

    per_second, number = _per_second(step, plan.command.seconds)
    return {"images_per_second": per_second, "steps": number, "threads": learner.threads}


def _drawing(plan: Plan, tree: Any) -> dict[str, Any]:
    """Images are drawn as a training run draws its pictures; each step of each image is one use of the network."""
    config = plan.config
    network = tree.model.compiled(tree.model.make_network(config, SEED), config.compile)
    sampler = tree.Sampler(network, config, quick(config.diffusion))
    batch, steps = config.training.batch_size, [0]
    labels = np.zeros(batch, np.int64) if config.model.num_classes else None

    def count(i: int, x: Any) -> None:
        steps[0] += 1

    def draw(number: int) -> int:
        before = steps[0]
        sampler.draw(Draw(SEED, number * batch, batch, labels=labels), count)
        return batch * (steps[0] - before)

    per_second, number = _per_second(draw, plan.command.seconds)
    return {"images_per_second": per_second, "batches": number, "steps": steps[0] // (number + STEPS_BEFORE)}


def _per_second(work: Callable[[int], int], seconds: float) -> tuple[float, int]:
    """Images a second of calls that return how many they did, and the number of calls."""
    for number in range(STEPS_BEFORE):
        work(number)
    began, images, number = time.perf_counter(), 0, 0
    while number < LEAST or time.perf_counter() - began < seconds:
        images += work(STEPS_BEFORE + number)
        number += 1
    return images / (time.perf_counter() - began), number


def peak() -> int:
    """The largest resident memory that this process has had, in bytes."""
    import resource  # not on Windows

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most  # Linux counts in KiB
