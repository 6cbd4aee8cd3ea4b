"""Likelihood by the probability-flow ODE: the flags, the plan, and what is written.

The loop over batches: rounds.py. The estimate: likelihood_estimate.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np

from ddpm_shared import claims, files, images, machine, workers
from ddpm_shared.command_line import parse_flags
from ddpm_shared.commands import batchwise
from ddpm_shared.commands.base import DataCommand, NetworkPlan, load_data, load_network, results_folder
from ddpm_shared.commands.bits_estimate import table
from ddpm_shared.commands.labels import Labels, true_labels
from ddpm_shared.commands.likelihood_estimate import (
    Likelihood,
    LikelihoodRecord,
    Settings,
    bits_of,
    estimate,
    headline,
    of_classes,
    picture,
)
from ddpm_shared.config import require
from ddpm_shared.config.checks import positive, whole
from ddpm_shared.config.help import default_is
from ddpm_shared.datasets import Split
from ddpm_shared.frameworks import FRAMEWORKS
from ddpm_shared.workers import Workers

PARTIAL, RESULT, PICTURE = "likelihood.partial.npz", "likelihood.json", "likelihood.png"
EXACT = 1024  # numbers in an image, at most: the exact trace takes as many products at each level
PROBES = 1000

OdeGrid = Literal["log_snr", "karras"]


@dataclass(frozen=True)
class LikelihoodCommand(DataCommand):
    """Compute the likelihood of test images under a trained network, in bits per dimension, by its ODE.

    The probability-flow ODE takes an image to noise, and the trace of the network's Jacobian along the way says how
    density changes. The grey levels are spread evenly over their bins, so on average the number is an upper bound of
    -log2 P of the images, up to the error of the steps. A class-conditional network is given the true labels. Writes
    likelihood.json, and likelihood.png, which shows the bits of images and classes.
    """

    num_images: int = 100
    """Number of images: the first of the test set."""
    batch_size: int = 16
    """Images in a batch. A gradient needs much more memory than drawing does."""
    steps: int = 100
    """Number of noise levels that the ODE visits. The network is evaluated twice at each, once with its gradient. Twice
    as many change the bits of the network in the package by 0.0006."""
    grid: Annotated[OdeGrid | None, default_is("log_snr")] = None
    """Levels where time is continuous: evenly in log-SNR (log_snr), or in (sigma / alpha)^(1/rho) (karras)."""
    rho: float = 7.0
    """Exponent of the karras grid: more of the levels are at little noise."""
    probes: int = 1
    """Random probes of each image, Hutchinson's: more reduce the error of the trace, which no image is biased by."""
    exact_trace: bool = False
    """Compute the trace exactly, by a product with the Jacobian for every number of an image: for small images."""
    out: Annotated[str | None, default_is("runs/likelihood/<utc>-<framework>")] = None
    """Folder to write to."""

    def __post_init__(self) -> None:
        super().__post_init__()
        whole(self, "steps", least=2)
        whole(self, "probes", most=PROBES)
        positive(self, "rho", most=1000.0)
        require(
            not self.exact_trace or self.probes == 1, "--probes", self.probes, "--exact-trace needs none: leave one out"
        )
        require(self.rho == 7.0 or self.grid == "karras", "--rho", self.rho, "is an option of --grid karras")


@dataclass(frozen=True)
class LikelihoodPlan(NetworkPlan):
    """A checked LikelihoodCommand."""

    command: LikelihoodCommand
    test: Split
    other_data: bool  # whether the network was trained on another data set than that of `test`
    labels: Labels | None  # the true ones, for a class-conditional network

    @property
    def grid(self) -> OdeGrid:
        """Of a continuous process."""
        return self.command.grid or "log_snr"


@claims.released_on_error()
def parse(framework: str, argv: Sequence[str] | None) -> LikelihoodPlan:
    """Read the flags of the likelihood of the tree of `framework`, and load the weights and images that they name.

    Raises:
        UserError: a value that is wrong or does not fit the checkpoint or the data.
    """
    command = parse_flags(LikelihoodCommand, argv, f"{FRAMEWORKS[framework].tree}.likelihood")
    place = workers.place(framework)
    loaded, config, prefix = load_network(framework, command, place)
    diffusion, dimensions = config.diffusion, config.model.image_size**2 * config.model.image_channels
    if diffusion.process == "ddpm":
        # Its last time has no signal with zero_terminal_snr, and no place on the way from an image to noise.
        times = diffusion.timesteps - diffusion.zero_terminal_snr
        require(command.steps <= times, "--steps", command.steps, f"{loaded.path} was trained with {times} times only")
        require(
            command.grid is None,
            "--grid",
            command.grid,
            "the network was trained at whole times, of which the ODE takes the nearest: leave it out",
        )
    require(
        not command.exact_trace or dimensions <= EXACT,
        "--exact-trace",
        command.exact_trace,
        f"an image of {dimensions:,} numbers takes as many products at each level, and {EXACT:,} are the most: "
        "leave it out, and add --probes 10",
    )
    train, test = load_data(command, config)
    labels = true_labels(test, config, command.num_images)
    other_data = train.sha256 != loaded.dataset_sha256
    out = results_folder(framework, command, "likelihood", RESULT, place)
    return LikelihoodPlan(framework, command, loaded, config, prefix, out, place, test, other_data, labels)


def run(plan: LikelihoodPlan, likelihood: Likelihood, all_workers: Workers) -> int:
    """Compute the bits of all images batch by batch and write likelihood.json and likelihood.png.

    Finished images are saved in likelihood.partial.npz; the same command with --out continues from there.

    Args:
        plan: which images, and how.
        likelihood: the tree's.
        all_workers: this process among those that share out the batches.

    Returns:
        The exit code: 0, or 128 and the signal's number if interrupted.

    Raises:
        UserError: the bits are not finite; the workers differ, or one has ended.
    """
    with plan.writing():
        return _evaluate_all(plan, likelihood, all_workers)


def _evaluate_all(plan: LikelihoodPlan, likelihood: Likelihood, all_workers: Workers) -> int:
    command, path = plan.command, plan.checkpoint.path
    process = plan.config.diffusion.process
    continuous = process != "ddpm"
    environment = machine.environment(likelihood.device_name, likelihood.threads)
    version = environment["packages"][plan.framework]
    plan.say(
        f"{plan.framework} {version} on {likelihood.device_name} | {plan.test.name}, {command.num_images:,} test images"
    )
    if plan.other_data:
        plan.say(f"{path} was trained on another training set than that of {plan.test.name}")
    probes = None if command.exact_trace else command.probes
    settings: Settings = {
        "steps": command.steps,
        "grid": plan.grid if continuous else None,
        "rho": command.rho if continuous and plan.grid == "karras" else None,
        "probes": probes,
    }
    partial = plan.out / PARTIAL

    def evaluate(rows: slice, on_products: Callable[[int], None]) -> batchwise.Values:
        labels = None if plan.labels is None else plan.labels[rows]
        pixels = plan.test.images[rows]
        return {"bits": bits_of(likelihood, pixels, rows.start, command.seed, probes, labels, on_products)}

    shape = plan.test.images.shape[1:]
    products = command.steps * (int(np.prod(shape)) if command.exact_trace else command.probes)  # of an image
    done = batchwise.evaluate_all(
        plan,
        all_workers,
        partial,
        plan.origin(images=plan.test.sha256, **settings),
        {"bits": np.empty(0)},
        evaluate,
        products,
        "product",
    )
    if isinstance(done, int):
        return done
    bits = done.values["bits"]
    names = plan.test.class_names
    result: LikelihoodRecord = {
        "framework": plan.framework,
        "checkpoint": {"path": str(path), "sha256": plan.checkpoint.sha256, "step": plan.checkpoint.step},
        "weights": plan.prefix,
        "process": process,
        **settings,
        "smallest_noise": likelihood.smallest_noise,
        "trace": "exact" if command.exact_trace else "hutchinson",
        "num_images": command.num_images,
        "seed": command.seed,
        "precision": command.precision,
        "class_conditional": plan.labels is not None,
        "dataset": {"name": plan.test.name, "split": plan.test.split, "sha256": plan.test.sha256},
        **estimate(bits),
        "classes": of_classes(bits, plan.test.labels[: command.num_images].astype(np.int64), names),
        "seconds": done.seconds,
        "environment": environment,
    }
    images.write_figure(plan.out / PICTURE, picture(result))
    files.write_json(plan.out / RESULT, result)  # last: without it, the same command goes on
    partial.unlink(missing_ok=True)
    if result["classes"]:
        print(table(result["classes"]))
    print(f"{headline(result)}: {plan.out / RESULT}, {plan.out / PICTURE}")
    if not continuous:
        target = "bits-tf" if plan.framework == "tensorflow" else "bits-torch"
        print(f'the variational bound of the same network: make {target} ARGS="--checkpoint {command.checkpoint}"')
    return 0
