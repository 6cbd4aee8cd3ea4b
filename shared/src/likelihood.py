"""The run around the variational bound: which image at which t, progress, interruption, the estimate and its picture.

All terms of an image are T evaluations of the network. A run may ask an image at every stride-th t only, image i at
t = i mod stride, i mod stride + stride, ..., so that `stride` consecutive images, a group, are asked at each t once.
The terms of a group add up to an unbiased estimate of the whole bound, and the groups' spread tells its standard error.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray
from tqdm import tqdm

from ddpm_shared import files, images, runs, streams
from ddpm_shared.batches import Arrays
from ddpm_shared.cli import BoundPlan
from ddpm_shared.errors import UserError
from ddpm_shared.images import Pixels
from ddpm_shared.interruption import Interrupted, StopSignals
from ddpm_shared.pages import BLUE, VERMILION

Floats = NDArray[np.float64]
Record = dict[str, Any]

PARTIAL = "bits_per_dim.partial.npz"
DIVERGENCE, DECODER = BLUE, VERMILION


class Bound(Protocol):
    """What a tree brings: the bound's terms by a network on a device, in bits per dimension."""

    device_name: str
    threads: int

    def prior(self, pixels: Pixels) -> Floats:
        """The prior's term of each image, [B]."""

    def term(self, arrays: Arrays) -> Floats:
        """Each image's term at its t, [B], from images [B, H, W, C] uint8, t [B] int32, eps [B, H, W, C] float64."""


@dataclass(frozen=True)
class Found:
    """What is known of the first n images, in bits per dimension."""

    prior: Floats  # [n]
    terms: Floats  # [n, ceil(T / stride)], as terms_of() gives them
    seconds: float


def run(plan: BoundPlan, bound: Bound) -> int:
    """Ask for all terms batch by batch and write bits_per_dim.json and bits_per_dim.png.

    What is finished is kept in bits_per_dim.partial.npz; the same command with --out goes on from there.

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
    environment = runs.environment(bound.device_name, bound.threads)
    plan.out.mkdir(parents=True, exist_ok=True)  # what cannot be written to should say so before the work
    version = environment["packages"][plan.framework]
    print(f"{plan.framework} {version} on {bound.device_name} | {plan.test.name}, {command.num_images:,} test images")
    if plan.other_data:
        print(f"{path} was trained on another training set than that of {plan.test.name}")
    partial, origin = (
        plan.out / PARTIAL,
        plan.origin(clip_x_0=command.clip_x_0, stride=command.stride, images=plan.test.sha256),
    )
    found = _finished(partial, plan, origin)
    evaluations = timesteps / command.stride  # of the network for an image, on average
    total, done = (round(number * evaluations) for number in (command.num_images, len(found.prior)))
    bar = tqdm(total=total, initial=done, unit="term", unit_scale=True)
    try:
        with StopSignals() as stop, bar:

            def on_terms(count: int) -> None:
                bar.update(count)
                stop.check()

            while (first := len(found.prior)) < command.num_images:
                began = time.perf_counter()
                pixels = plan.test.images[first : min(first + command.batch_size, command.num_images)]
                terms = terms_of(bound, pixels, first, command.seed, command.stride, timesteps, on_terms)
                found = Found(
                    np.concatenate([found.prior, bound.prior(pixels)]),
                    np.concatenate([found.terms, terms]),
                    found.seconds + time.perf_counter() - began,
                )
                if len(found.prior) < command.num_images:
                    files.write_npz(partial, origin=origin, **vars(found))
    except Interrupted:
        kept = f"interrupted; {len(found.prior)} finished images are kept"
        print(f"{kept}: the same command with --out {plan.out} goes on", file=sys.stderr)
        return stop.exit_code
    result = {
        "framework": plan.framework,
        "checkpoint": {"path": str(path), "sha256": plan.checkpoint.sha256, "step": plan.checkpoint.step},
        "weights": plan.prefix,
        "num_images": command.num_images,
        "stride": command.stride,
        "seed": command.seed,
        "precision": command.precision,
        "clip_x_0": command.clip_x_0,
        "dataset": {"name": plan.test.name, "split": plan.test.split, "sha256": plan.test.sha256},
        **estimate(found.prior, found.terms, command.stride, timesteps),
        "seconds": found.seconds,
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
        first: the index of the first one; an image's t and noise depend on its index, seed and stride alone, not on B.
        seed: of the noise.
        stride: image i is asked at t = i mod stride, i mod stride + stride, ...
        timesteps: T.
        on_terms: called with the number of terms that were just computed.

    Returns:
        [B, ceil(T / stride)], NaN where t would be beyond T - 1.

    Raises:
        UserError: a term is not finite.
    """
    terms = np.full((len(pixels), -(-timesteps // stride)), np.nan)
    index = np.arange(first, first + len(pixels))
    for block in range(terms.shape[1]):
        t = (block * stride + index % stride).astype(np.int32)
        asked = np.flatnonzero(t < timesteps)  # all, except perhaps in the last block
        if not asked.size:
            continue
        shape = (1, *pixels.shape[1:])
        eps = [streams.normal(seed, streams.BOUND_EPS, int(t[i]), shape, int(index[i])) for i in asked]
        found = bound.term((pixels[asked], t[asked], np.concatenate(eps)))
        if not np.isfinite(found).all():
            at = t[asked][~np.isfinite(found)][0]
            raise UserError(f"the term at t = {at} is not finite: take another checkpoint, or --precision fp64")
        terms[asked, block] = found
        on_terms(len(asked))
    return terms


def estimate(prior: Floats, terms: Floats, stride: int, timesteps: int) -> Record:
    """The bound from the terms of N images, in bits per dimension.

    Args:
        prior: [N].
        terms: [N, ceil(T / stride)] of terms_of(); stride divides N.
        stride: images in a group.
        timesteps: T.

    Returns:
        bits_per_dim and its standard_error (None for a single group), the means of which it is the sum: prior and
        terms [T], and decoder, the first of these.
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


def headline(result: Record) -> str:
    """The estimate in a few words."""
    error = "" if result["standard_error"] is None else f" ± {result['standard_error']:.4f}"
    return f"at most {result['bits_per_dim']:.4f}{error} bits per dimension, on {result['num_images']:,} images"


def picture(result: Record) -> Figure:
    """The terms over t; and, since nearly all bits are in the first few, added up from t = T - 1 down on a log axis."""
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


def _finished(partial: Path, plan: BoundPlan, origin: str) -> Found:
    """What an interrupted run of the same command found, of no images where there is none."""
    blocks = -(-plan.config.diffusion.timesteps // plan.command.stride)
    nothing = Found(np.empty(0), np.empty((0, blocks)), 0.0)
    kept = files.read_npz(partial)
    if kept is None or str(kept.get("origin")) != origin:
        return nothing
    found = Found(kept["prior"], kept["terms"], float(kept["seconds"]))
    print(f"going on after the {len(found.prior)} images in {partial}")
    count = plan.command.num_images
    return Found(found.prior[:count], found.terms[:count], found.seconds)
