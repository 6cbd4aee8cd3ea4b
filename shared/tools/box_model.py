"""Put the averaged weights of a run into the package as shared/src/boxed/fashion-mnist.safetensors, in float16.

    python shared/tools/box_model.py RUN [--out FILE]

Prints how much the rounding changes the weights; the model card beside the file states what it does to the images.
"""

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from ddpm_shared import command_line
from ddpm_shared.records import checkpoint, folder


@dataclass(frozen=True)
class Options:
    """Box the averaged weights of a run."""

    run: tyro.conf.Positional[str]
    """A run folder (its newest checkpoint), or a .safetensors file."""
    out: str = str(checkpoint.BOXED)
    """Where to write."""


def box(options: Options) -> int:
    """Write the file. Returns the exit code; raises UserError where there is no checkpoint."""
    out = Path(options.out)
    loaded = checkpoint.load(folder.latest_checkpoint(Path(options.run)), ("ema",))
    rounded = {name: value.astype(np.float16) for name, value in loaded.tensors.items()}
    # Where it ran is nobody's business who has another machine.
    data = dataclasses.replace(loaded.config.data, data_dir=None)
    config = dataclasses.replace(loaded.config, device="auto", threads=None, compile=False, data=data)
    checkpoint.save(
        out,
        rounded,
        framework=loaded.framework,
        step=loaded.step,
        config=config,
        dataset_sha256=loaded.dataset_sha256,
        class_names=loaded.class_names,
    )
    before, after = (np.concatenate([v.ravel() for v in each.values()]) for each in (loaded.tensors, rounded))
    error = after.astype(np.float64) - before
    print(
        f"{out}: {out.stat().st_size / 1e6:.2f} MB, {before.size:,} weights of step {loaded.step:,}; rounding them to "
        f"float16 moves them by {np.linalg.norm(error) / np.linalg.norm(before):.1e} of their norm, and one by "
        f"{np.abs(error).max():.1e} at most; its SHA-256, for checkpoint.BOXED_SHA256 and the model card, is "
        f"{hashlib.sha256(out.read_bytes()).hexdigest()}"
    )
    return 0


if __name__ == "__main__":
    command_line.guard(lambda: box(tyro.cli(Options, prog="shared/tools/box_model.py")))
