"""Bits per dimension: the flags, the plan, and what is written.

The loop over batches: rounds.py. Which image at which t: bits_estimate.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from ddpm_shared import claims, files, images, machine, memory, workers
from ddpm_shared.command_line import parse_flags
from ddpm_shared.commands import batchwise
from ddpm_shared.commands.base import DataCommand, NetworkPlan, load_data, load_network, results_folder
from ddpm_shared.commands.bits_estimate import (
    BitsRecord,
    Bound,
    estimate,
    headline,
    of_classes,
    picture,
    table,
    terms_of,
)
from ddpm_shared.commands.labels import Labels, true_labels
from ddpm_shared.config import require
from ddpm_shared.config.checks import whole
from ddpm_shared.config.help import default_is
from ddpm_shared.datasets import Split
from ddpm_shared.frameworks import FRAMEWORKS
from ddpm_shared.workers import Workers

PARTIAL = "bits_per_dim.partial.npz"


@dataclass(frozen=True)
class BitsCommand(DataCommand):
    """Compute bits per dimension: an upper bound on the mean -log2 p(x_0) of test images under a trained network.

    The training loss weighs the terms of the bound differently, for better pictures, so training does not minimise this
    number. A class-conditional network is given the true labels. Writes bits_per_dim.json, and bits_per_dim.png, which
    shows the terms over t.
    """

    num_images: int = 500
    """Number of images: the first of the test set. A multiple of --stride."""
    clip_x_0: bool = True
    """Clip the predicted x_0 to [-1, 1] at every step."""
    stride: int = 10
    """Evaluate image i only at t = i mod stride, then every stride-th t. 1 uses every t: exact, and slow."""
    out: Annotated[str | None, default_is("runs/bits-per-dim/<utc>-<framework>")] = None
    """Folder to write to."""

    def __post_init__(self) -> None:
        super().__post_init__()
        whole(self, "stride")


@dataclass(frozen=True)
class BitsPlan(NetworkPlan):
    """A checked BitsCommand."""

    command: BitsCommand
    test: Split
    other_data: bool  # whether the network was trained on another data set than that of `test`
    labels: Labels | None  # the true ones, for a class-conditional network


@claims.released_on_error()
def parse(framework: str, argv: Sequence[str] | None) -> BitsPlan:
    """Read the flags of bits per dimension of the tree of `framework`, and load the weights and images that they name.

    Raises:
        UserError: a value that is wrong or does not fit the checkpoint or the data.
    """
    command = parse_flags(BitsCommand, argv, f"{FRAMEWORKS[framework].tree}.bits")
    number, stride = command.num_images, command.stride
    require(number % stride == 0, "--num-images", number, f"must be a multiple of --stride {stride}")
    place = workers.place(framework)
    loaded, config, prefix = load_network(framework, command, place)
    timesteps = config.diffusion.timesteps
    require(
        config.diffusion.process == "ddpm",
        "--checkpoint",
        loaded.path,
        f"was trained in {config.diffusion.process}, and this bound is a sum over the steps of ddpm: compute its "
        "likelihood, by make likelihood-torch or likelihood-tf",
    )
    require(stride <= timesteps, "--stride", stride, f"{loaded.path} was trained with {timesteps} steps only")
    terms = 2 * 8 * number * -(-timesteps // stride)  # in float64, and their copy with the last batch
    memory.require_room_to_draw(config, command.batch_size, number, terms)
    train, test = load_data(command, config)
    labels = true_labels(test, config, number)
    other_data = train.sha256 != loaded.dataset_sha256
    out = results_folder(framework, command, "bits-per-dim", "bits_per_dim.json", place)
    return BitsPlan(framework, command, loaded, config, prefix, out, place, test, other_data, labels)


def run(plan: BitsPlan, bound: Bound, all_workers: Workers) -> int:
    """Evaluate all terms batch by batch and write bits_per_dim.json and bits_per_dim.png.

    Finished images are saved in bits_per_dim.partial.npz; the same command with --out continues from there.

    Args:
        plan: which images, and at which stride.
        bound: the tree's.
        all_workers: this process among those that share out the batches.

    Returns:
        The exit code: 0, or 128 and the signal's number if interrupted.

    Raises:
        UserError: a term is not finite; the workers differ, or one has ended.
    """
    with plan.writing():
        return _evaluate_all(plan, bound, all_workers)


def _evaluate_all(plan: BitsPlan, bound: Bound, all_workers: Workers) -> int:
    command, path = plan.command, plan.checkpoint.path
    timesteps = plan.config.diffusion.timesteps
    environment = machine.environment(bound.device_name, bound.threads)
    version = environment["packages"][plan.framework]
    plan.say(
        f"{plan.framework} {version} on {bound.device_name} | {plan.test.name}, {command.num_images:,} test images"
    )
    if plan.other_data:
        plan.say(f"{path} was trained on another training set than that of {plan.test.name}")
    partial = plan.out / PARTIAL
    origin = plan.origin(clip_x_0=command.clip_x_0, stride=command.stride, images=plan.test.sha256)
    blocks = -(-timesteps // command.stride)
    nothing = {"prior": np.empty(0), "terms": np.empty((0, blocks))}

    def evaluate(rows: slice, on_terms: Callable[[int], None]) -> batchwise.Values:
        pixels, labels = plan.test.images[rows], None if plan.labels is None else plan.labels[rows]
        terms = terms_of(bound, pixels, rows.start, command.seed, command.stride, timesteps, on_terms, labels)
        return {"prior": bound.prior(pixels), "terms": terms}

    evaluations = timesteps / command.stride  # of the network for an image, on average
    done = batchwise.evaluate_all(plan, all_workers, partial, origin, nothing, evaluate, evaluations, "term")
    if isinstance(done, int):
        return done
    prior, terms = done.values["prior"], done.values["terms"]
    result: BitsRecord = {
        "framework": plan.framework,
        "checkpoint": {"path": str(path), "sha256": plan.checkpoint.sha256, "step": plan.checkpoint.step},
        "weights": plan.prefix,
        "num_images": command.num_images,
        "stride": command.stride,
        "seed": command.seed,
        "precision": command.precision,
        "clip_x_0": command.clip_x_0,
        "dataset": {"name": plan.test.name, "split": plan.test.split, "sha256": plan.test.sha256},
        "class_conditional": plan.labels is not None,
        **estimate(prior, terms, command.stride, timesteps),
        "classes": of_classes(
            prior,
            terms,
            command.stride,
            plan.test.labels[: command.num_images].astype(np.int64),
            plan.test.class_names,
        ),
        "seconds": done.seconds,
        "environment": environment,
    }
    images.write_figure(plan.out / "bits_per_dim.png", picture(result))
    files.write_json(plan.out / "bits_per_dim.json", result)  # last: without it, the same command goes on
    partial.unlink(missing_ok=True)
    if result["classes"]:
        print(table(result["classes"]))
    print(f"{headline(result)}: {plan.out / 'bits_per_dim.json'}, {plan.out / 'bits_per_dim.png'}")
    return 0
