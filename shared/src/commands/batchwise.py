"""Values of every image, batch by batch: finished images are saved, so that an interrupted command can continue."""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ddpm_shared import files
from ddpm_shared.commands.interruption import Interrupted, StopSignals

Floats = NDArray[np.float64]
Values = Mapping[str, Floats]  # by name, [n, ...] of n images
Evaluate = Callable[[slice, Callable[[int], None]], Values]


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
    partial: Path,
    origin: str,
    nothing: Values,
    number: int,
    batch_size: int,
    evaluate: Evaluate,
    parts: float,
    unit: str,
) -> Finished | int:
    """The values of the images 0 .. number - 1, or the exit code if a signal interrupted that.

    Args:
        partial: where finished images are saved on the way; the same command continues from there.
        origin: everything that the values depend on, as NetworkPlan.origin has it.
        nothing: the values of no image, [0, ...].
        number: images.
        batch_size: images at a time.
        evaluate: (which images, on_parts) -> their values; it calls on_parts(count) after so many parts of the work.
        parts: of an image, on average.
        unit: what a part is, in the progress bar.
    """
    done = finished(partial, origin, nothing).first(number)
    total, initial = (round(count * parts) for count in (number, done.count))
    bar = tqdm(total=total, initial=initial, unit=unit, unit_scale=True)
    try:
        with StopSignals() as stop, bar:

            def on_parts(count: int) -> None:
                bar.update(count)
                stop.check()

            while done.count < number:
                began = time.perf_counter()
                values = evaluate(slice(done.count, min(done.count + batch_size, number)), on_parts)
                joined = {name: np.concatenate([array, values[name]]) for name, array in done.values.items()}
                done = Finished(joined, done.seconds + time.perf_counter() - began)
                if done.count < number:
                    files.write_npz(partial, origin=origin, seconds=done.seconds, **done.values)
    except Interrupted:
        saved = f"interrupted; {done.count} finished images are saved"
        print(f"{saved}: the same command with --out {partial.parent} continues", file=sys.stderr)
        return stop.exit_code
    return done


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
