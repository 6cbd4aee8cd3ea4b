"""The pieces of a passport: each made by a process of one framework, and read from what it wrote."""

import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ddpm_shared import npz, reading, stopping
from ddpm_shared.errors import UserError
from ddpm_shared.frameworks import FRAMEWORKS
from ddpm_shared.passport.trace import Source, Step

Piece = Literal["trace", "layers", "training", "drawing"]
INTERRUPTED = 130
KILLED = -9


def make(folder: Path, framework: str, piece: Piece, seconds: float) -> dict[str, Any]:
    """Have a framework make a piece in a process of its own, whose peak of memory is then its own.

    Args:
        folder: with config.json, the settings; the piece is written there.
        framework: "torch" or "tensorflow".
        piece: which.
        seconds: that are timed.

    Raises:
        UserError: what the process says, or that the system ended it.
    """
    flags = [
        "--piece",
        piece,
        "--settings",
        str(folder / "config.json"),
        "--out",
        str(folder),
        "--seconds",
        str(seconds),
    ]
    code, said = ended([sys.executable, "-m", f"{FRAMEWORKS[framework].tree}.passport", *flags])
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    if code == KILLED:
        raise UserError(
            f"{FRAMEWORKS[framework].title} was ended by the system, as a rule for memory: take a smaller --batch-size"
        )
    if code != 0:
        *_, last = said.strip().splitlines() or [f"exit code {code}"]
        if code == 2:
            raise UserError(f"{FRAMEWORKS[framework].title}: {last.removeprefix('error: ')}")
        raise RuntimeError(f"{piece} in {FRAMEWORKS[framework].title} failed:\n{said}")
    result: dict[str, Any] = reading.read_json(folder / f"{framework}-{piece}.json", "make the passport again")
    return result


def ended(command: list[str]) -> tuple[int, str]:
    """Run a command to its end. Returns its exit code and what it said on stderr."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    )
    stopping.on_the_way_out(process.kill)  # of a process that has ended, it does nothing
    try:
        _, said = process.communicate()
    finally:
        process.kill()
    return process.returncode, said


def steps_of(traced: dict[str, Any]) -> list[Step]:
    """The steps of the piece "trace" or "layers"."""
    return [Step(**(step | {side: tuple(step[side]) for side in ("takes", "gives")})) for step in traced["steps"]]


def sources_of(traced: dict[str, Any]) -> dict[str, Source]:
    """Where the layers stand, of the piece "trace" or "layers"."""
    return {name: Source(**place) for name, place in traced["sources"].items()}


def gaps(folder: Path, precision: str) -> dict[str, float]:
    """How far apart the two frameworks are in each layer, of the piece "layers": max |a - b| / max |b|."""
    ours, theirs = (npz.read(folder / f"{framework}-{precision}.npz", "make it anew") for framework in FRAMEWORKS)
    if ours.keys() != theirs.keys():
        raise RuntimeError(f"layers of one framework alone: {sorted(ours.keys() ^ theirs.keys())}")
    return {name: gap(ours[name], theirs[name]) for name in ours}


def gap(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Max |a - b| / max |b|; infinite where the shapes differ or a number is not finite."""
    if a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return float("inf")
    return float(np.abs(a - b).max() / (np.abs(b).max() or 1.0))
