"""Bits per dimension: the flags, the plan, the loop over images and times, and the estimate.

All terms of one image take T evaluations of the network. With a stride, image i is evaluated only at
t = i mod stride, i mod stride + stride, ..., so that `stride` consecutive images, a group, have each t once.
The terms of a group add up to an unbiased estimate of the whole bound. The spread of the groups gives its standard
error.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol, TypedDict

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ddpm_shared import files, images, machine, streams
from ddpm_shared.batches import Arrays
from ddpm_shared.command_line import parse_flags
from ddpm_shared.commands.base import DataCommand, NetworkPlan, load_data, load_network, results_folder
from ddpm_shared.commands.interruption import Interrupted, StopSignals
from ddpm_shared.config import require
from ddpm_shared.config.help import default_is
from ddpm_shared.datasets import Split
from ddpm_shared.errors import UserError
from ddpm_shared.frameworks import FRAMEWORKS
from ddpm_shared.images import Pixels
from ddpm_shared.machine import Environment

if TYPE_CHECKING:  # matplotlib takes a third of a second, which --help need not wait for
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

PARTIAL = "bits_per_dim.partial.npz"
DIVERGENCE, DECODER = "#0072b2", "#d55e00"  # distinct for every kind of colour vision (Okabe and Ito 2008)


@dataclass(frozen=True)
class BitsCommand(DataCommand):
    """Compute bits per dimension: an upper bound on the mean -log2 p(x_0) of test images under a trained network.

    The training loss weighs the terms of the bound differently, for better pictures, so training does not minimise this
    number. Writes bits_per_dim.json, and bits_per_dim.png, which shows the terms over t.
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
        require(self.stride >= 1, "--stride", self.stride, "must be 1 or more")


@dataclass(frozen=True)
class BitsPlan(NetworkPlan):
    """A checked BitsCommand."""

    command: BitsCommand
    test: Split
    other_data: bool  # whether the network was trained on another data set than that of `test`


def parse(framework: str, argv: Sequence[str] | None) -> BitsPlan:
    """Read the flags of bits per dimension of the tree of `framework`, and load the weights and images that they name.

    Raises:
        UserError: a value that is wrong or does not fit the checkpoint or the data.
    """
    command = parse_flags(BitsCommand, argv, f"{FRAMEWORKS[framework].tree}.bits")
    number, stride = command.num_images, command.stride
    require(number % stride == 0, "--num-images", number, f"must be a multiple of --stride {stride}")
    loaded, config, prefix = load_network(framework, command)
    timesteps = config.diffusion.timesteps
    require(stride <= timesteps, "--stride", stride, f"{loaded.path} was trained with {timesteps} steps only")
    out = results_folder(framework, command, "bits-per-dim", "bits_per_dim.json")
    train, test = load_data(command, config)
    other_data = train.sha256 != loaded.dataset_sha256
    return BitsPlan(framework, command, loaded, config, prefix, out, test, other_data)


class Bound(Protocol):
    """What a tree provides: the terms of the bound for a network on a device, in bits per dimension."""

    device_name: str
    threads: int

    def prior(self, pixels: Pixels) -> Floats:
        """The prior term of each image, [B]."""

    def term(self, arrays: Arrays) -> Floats:
        """Each image's term at its t, [B], from images [B, H, W, C] uint8, t [B] int32, eps [B, H, W, C] float64."""


@dataclass(frozen=True)
class Terms:
    """The terms of the first n images, in bits per dimension."""

    prior: Floats  # [n]
    terms: Floats  # [n, ceil(T / stride)], as terms_of returns them
    seconds: float


def run(plan: BitsPlan, bound: Bound) -> int:
    """Evaluate all terms batch by batch and write bits_per_dim.json and bits_per_dim.png.

    Finished images are saved in bits_per_dim.partial.npz; the same command with --out continues from there.

    Args:
        plan: which images, and at which stride.
        bound: the tree's.

    Returns:
        The exit code: 0, or 130 or 143 if interrupted.

    Raises:
        UserError: a term is not finite.
    """
    command, path = plan.command, plan.checkpoint.path
    timesteps = plan.config.diffusion.timesteps
    environment = machine.environment(bound.device_name, bound.threads)
    plan.out.mkdir(parents=True, exist_ok=True)  # a folder that cannot be written to is reported before the work
    version = environment["packages"][plan.framework]
    print(f"{plan.framework} {version} on {bound.device_name} | {plan.test.name}, {command.num_images:,} test images")
    if plan.other_data:
        print(f"{path} was trained on another training set than that of {plan.test.name}")
    partial = plan.out / PARTIAL
    origin = plan.origin(clip_x_0=command.clip_x_0, stride=command.stride, images=plan.test.sha256)
    done = _finished(partial, plan, origin)
    evaluations = timesteps / command.stride  # of the network for an image, on average
    total, initial = (round(number * evaluations) for number in (command.num_images, len(done.prior)))
    bar = tqdm(total=total, initial=initial, unit="term", unit_scale=True)
    try:
        with StopSignals() as stop, bar:

            def on_terms(count: int) -> None:
                bar.update(count)
                stop.check()

            while (first := len(done.prior)) < command.num_images:
                began = time.perf_counter()
                pixels = plan.test.images[first : min(first + command.batch_size, command.num_images)]
                terms = terms_of(bound, pixels, first, command.seed, command.stride, timesteps, on_terms)
                done = Terms(
                    np.concatenate([done.prior, bound.prior(pixels)]),
                    np.concatenate([done.terms, terms]),
                    done.seconds + time.perf_counter() - began,
                )
                if len(done.prior) < command.num_images:
                    files.write_npz(partial, origin=origin, **vars(done))
    except Interrupted:
        saved = f"interrupted; {len(done.prior)} finished images are saved"
        print(f"{saved}: the same command with --out {plan.out} continues", file=sys.stderr)
        return stop.exit_code
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
        **estimate(done.prior, done.terms, command.stride, timesteps),
        "seconds": done.seconds,
        "environment": environment,
    }
    files.write_json(plan.out / "bits_per_dim.json", result)
    images.write_figure(plan.out / "bits_per_dim.png", picture(result))
    partial.unlink(missing_ok=True)
    print(f"{headline(result)}: {plan.out / 'bits_per_dim.json'}, {plan.out / 'bits_per_dim.png'}")
    return 0


def terms_of(
    bound: Bound,
    pixels: Pixels,
    first: int,
    seed: int,
    stride: int,
    timesteps: int,
    on_terms: Callable[[int], None] = lambda count: None,
) -> Floats:
    """The terms of the images first .. first + B - 1, in bits per dimension.

    Args:
        bound: the tree's.
        pixels: [B, H, W, C] uint8, those images.
        first: index of the first image. An image's t and noise depend on its index, the seed and the stride, not on B.
        seed: seed of the noise.
        stride: image i is evaluated at t = i mod stride, i mod stride + stride, ...
        timesteps: T.
        on_terms: called with the number of terms just computed.

    Returns:
        [B, ceil(T / stride)], NaN where t would be above T - 1.

    Raises:
        UserError: a term is not finite.
    """
    terms = np.full((len(pixels), -(-timesteps // stride)), np.nan)
    index = np.arange(first, first + len(pixels))
    for block in range(terms.shape[1]):
        t = (block * stride + index % stride).astype(np.int32)
        chosen = np.flatnonzero(t < timesteps)  # all, except perhaps in the last block
        if not chosen.size:
            continue
        shape = (1, *pixels.shape[1:])
        eps = [streams.normal(seed, streams.BOUND_EPS, int(t[i]), shape, int(index[i])) for i in chosen]
        values = bound.term((pixels[chosen], t[chosen], np.concatenate(eps)))
        if not np.isfinite(values).all():
            first_t = t[chosen][~np.isfinite(values)][0]
            raise UserError(f"the term at t = {first_t} is not finite: take another checkpoint, or --precision fp64")
        terms[chosen, block] = values
        on_terms(len(chosen))
    return terms


class Estimate(TypedDict):
    """The bound, in bits per dimension: `bits_per_dim` is the sum of `prior` and of all `terms`."""

    bits_per_dim: float
    standard_error: float | None  # None for a single group of images
    prior: float
    decoder: float  # the first of `terms`
    terms: list[float]  # [T]


class BitsRecord(Estimate):
    """bits_per_dim.json."""

    framework: str
    checkpoint: dict[str, str | int]  # path, sha256, step
    weights: str
    num_images: int
    stride: int
    seed: int
    precision: str
    clip_x_0: bool
    dataset: dict[str, str]  # name, split, sha256
    seconds: float
    environment: Environment


def estimate(prior: Floats, terms: Floats, stride: int, timesteps: int) -> Estimate:
    """The bound from the terms of N images, in bits per dimension.

    Args:
        prior: [N].
        terms: [N, ceil(T / stride)], as terms_of returns them; stride divides N.
        stride: images in a group.
        timesteps: T.

    Returns:
        Means over the images, and the standard error of their sum.
    """
    groups = terms.reshape(-1, stride, terms.shape[1]).swapaxes(1, 2)  # the last two axes: t
    groups = groups.reshape(len(groups), -1)[:, :timesteps]
    totals = prior.reshape(-1, stride).mean(axis=1) + groups.sum(axis=1)
    means = groups.mean(axis=0)
    return {
        "bits_per_dim": float(totals.mean()),
        "standard_error": float(totals.std(ddof=1) / np.sqrt(len(totals))) if len(totals) > 1 else None,
        "prior": float(prior.mean()),
        "decoder": float(means[0]),
        "terms": means.tolist(),
    }


def headline(result: BitsRecord) -> str:
    """The estimate in a few words."""
    error = "" if result["standard_error"] is None else f" ± {result['standard_error']:.4f}"
    return f"at most {result['bits_per_dim']:.4f}{error} bits per dimension, on {result['num_images']:,} images"


def picture(result: BitsRecord) -> "Figure":
    """The terms over t, and their sums from t on; over a log axis, since the first few terms hold nearly all bits."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    terms = np.array(result["terms"])
    t, sums = np.arange(len(terms)), result["prior"] + np.cumsum(terms[::-1])[::-1]
    figure = Figure(figsize=(9, 7), layout="constrained")
    figure.suptitle(headline(result), fontweight="bold")
    above, below = figure.subplots(2, 1)
    above.axhline(result["prior"], color="black", linewidth=0.8, linestyle="--", label=f"prior: {result['prior']:.2g}")
    above.plot(t[1:], terms[1:], ".", color=DIVERGENCE, markersize=4, label="divergence of the step to t − 1")
    above.plot(t[0], terms[0], "D", color=DECODER, label=f"decoder, t = 0: {terms[0]:.3g}")
    above.set(yscale="log", xlabel="t", ylabel="bits per dimension")
    above.xaxis.set_major_locator(MaxNLocator(integer=True))
    above.legend(fontsize="small")
    below.plot(t + 1, sums, ".-", color=DIVERGENCE, markersize=5, linewidth=1)
    below.plot(1, sums[0], "D", color=DECODER)
    below.set(xscale="log", ylim=(0, None), xlabel="t + 1", ylabel="prior and all terms from t on")
    below.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    for axes in (above, below):
        axes.grid(alpha=0.2, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _finished(partial: Path, plan: BitsPlan, origin: str) -> Terms:
    """The terms that an interrupted run of the same command saved; none if there was none."""
    blocks = -(-plan.config.diffusion.timesteps // plan.command.stride)
    nothing = Terms(np.empty(0), np.empty((0, blocks)), 0.0)
    saved = files.read_npz(partial)
    if saved is None or str(saved.get("origin")) != origin:
        return nothing
    done = Terms(saved["prior"], saved["terms"], float(saved["seconds"]))
    print(f"continuing after the {len(done.prior)} images in {partial}")
    count = plan.command.num_images
    return Terms(done.prior[:count], done.terms[:count], done.seconds)
