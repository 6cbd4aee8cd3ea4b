"""Values of every image in float64: finished images are saved, so that an interrupted command can continue."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ddpm_shared import files
from ddpm_shared.commands import rounds
from ddpm_shared.commands.base import NetworkPlan
from ddpm_shared.workers import Workers

Floats = NDArray[np.float64]
Values = Mapping[str, Floats]  # by name, [n, ...] of n images


@dataclass(frozen=True)
class Finished:
    """The values of the first n images, and the seconds that they took."""

    values: Values
    seconds: float

    @property
    def count(self) -> int:
        """The number n."""
        return len(next(iter(self.values.values())))

    def first(self, count: int) -> "Finished":
        """The same of the first `count` images."""
        return Finished({name: array[:count] for name, array in self.values.items()}, self.seconds)


def evaluate_all(
    plan: NetworkPlan,
    all_workers: Workers,
    partial: Path,
    origin: str,
    nothing: Values,
    evaluate: rounds.Make,
    parts: float,
    unit: str,
) -> Finished | int:
    """The values of all images of a command, or the exit code of a worker that is not to write them.

    Args:
        plan: how many images, in batches of which size.
        all_workers: this process among those that share out the batches.
        partial: where the chief saves finished images on the way; the same command continues from there.
        origin: everything that the values depend on, as NetworkPlan.origin has it.
        nothing: the values of no image, [0, ...].
        evaluate: (which images, on_parts) -> their values; it calls on_parts(count) after so many parts of the work.
        parts: of an image, on average.
        unit: what a part is, in the progress bar.

    Returns and Raises: as in rounds.make_all.
    """
    saved = Finished(nothing, 0.0)
    if plan.place.chief:
        saved = finished(partial, origin, nothing).first(plan.command.num_images)
    began = time.perf_counter() - saved.seconds

    def save(values: rounds.Values) -> None:
        files.write_npz(partial, origin=origin, seconds=time.perf_counter() - began, **values)

    done = rounds.make_all(plan, all_workers, origin, saved.values, evaluate, save, parts, unit)
    return done if isinstance(done, int) else Finished(done, time.perf_counter() - began)


def finished(partial: Path, origin: str, nothing: Values) -> Finished:
    """The values that an interrupted run of the same command saved; none if there was none.

    Args and shapes: as in evaluate_all.
    """
    saved = files.read_npz(partial) or {}
    fit = saved.keys() == {"origin", "seconds", *nothing} and all(
        array.dtype == np.float64 and np.isfinite(array).all() for name, array in saved.items() if name != "origin"
    )
    if not fit or str(saved["origin"]) != origin or saved["seconds"].shape:
        return Finished(nothing, 0.0)
    values = {name: saved[name] for name in nothing}
    counts = {array.shape[:1] for array in values.values()}
    if len(counts) > 1 or any(values[name].shape[1:] != array.shape[1:] for name, array in nothing.items()):
        return Finished(nothing, 0.0)
    done = Finished(values, float(saved["seconds"]))
    print(f"continuing after the {done.count} images in {partial}")
    return done
