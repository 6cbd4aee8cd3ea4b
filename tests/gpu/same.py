"""Are two checkpoints equal? Prints the SHA-256 of the tensors of each, and how far apart they are if not.

    .venv/bin/python tests/gpu/same.py RUN RUN [RUN ...]

Each is a run folder (its newest checkpoint) or a file. The first is compared with each of the others.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from ddpm_shared import command_line
from ddpm_shared.config import require
from ddpm_shared.records import checkpoint, folder
from ddpm_shared.records.checkpoint import Tensors


@dataclass(frozen=True)
class Options:
    """Compare the tensors of checkpoints."""

    runs: tyro.conf.Positional[tuple[str, ...]]
    """Run folders or checkpoint files, two or more."""

    def __post_init__(self) -> None:
        require(len(self.runs) >= 2, "runs", self.runs, "name two or more")


def sha256(tensors: Tensors) -> str:
    """Of names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {value.shape}\n".encode() + np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def gap(a: Tensors, b: Tensors) -> str:
    """How far apart two sets of tensors are, in words."""
    if a.keys() != b.keys():
        return f"tensors of one alone: {sorted(a.keys() ^ b.keys())[:3]}"
    if sha256(a) == sha256(b):
        return "equal, to the last bit"
    gaps = {name: float(np.abs(a[name].astype(np.float64) - b[name]).max(initial=0)) for name in a}
    worst = max(gaps, key=lambda name: gaps[name])
    unlike = sum(each > 0 for each in gaps.values())
    size = float(np.abs(b[worst]).max())
    return f"not equal: {unlike} of {len(a)} tensors differ, by {gaps[worst]:.3g} at most ({worst}, up to {size:.3g})"


def compare(options: Options) -> int:
    """Print what there is to say. Returns 0 if all are equal, else 1."""
    loaded = [checkpoint.load(folder.latest_checkpoint(Path(run))).tensors for run in options.runs]
    for run, tensors in zip(options.runs, loaded, strict=True):
        print(f"{sha256(tensors)}  {run}")
    for run, tensors in zip(options.runs[1:], loaded[1:], strict=True):
        print(f"{run} against {options.runs[0]}: {gap(tensors, loaded[0])}")
    return int(len({sha256(tensors) for tensors in loaded}) > 1)


if __name__ == "__main__":
    command_line.guard(lambda: compare(tyro.cli(Options, prog="tests/gpu/same.py")))
