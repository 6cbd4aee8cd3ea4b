"""Why equal programs part: `base` in both frameworks, in float32 and in float64, and in one from nudged weights.

    .venv/bin/python tests/benchmarks/divergence.py

Draws docs/divergence.png from the losses of five runs. Each run's losses are kept in --out, so an interrupted command,
given again, repeats the unfinished run only.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from matplotlib.figure import Figure
from tqdm import tqdm

import ddpm_tf.learner
import ddpm_torch.learner
from ddpm_shared import batches, datasets, files
from ddpm_shared.compare.gaps import relative_gap
from ddpm_shared.config import Config, Precision, TrainingConfig, with_preset

PAIRS = {  # label -> the two runs, colour (Okabe and Ito 2008)
    "PyTorch and TensorFlow, float32": ("torch-fp32", "tf-fp32", "#D55E00"),
    "PyTorch and PyTorch from weights rounded to float32, both in float64": ("torch-fp64", "rounded-fp64", "#E69F00"),
    "PyTorch and TensorFlow, float64": ("torch-fp64", "tf-fp64", "#0072B2"),
}


@dataclass(frozen=True)
class Options:
    """Train, compare and draw."""

    steps: int = 250
    """Training steps of each run."""
    batch_size: int = 16
    """Images a step; smaller than a real run's, since float64 is slow."""
    out: str = "runs/divergence"
    """Where the losses are kept."""
    figure: str = "docs/divergence.png"
    """The picture."""


def losses(name: str, options: Options) -> np.ndarray:
    """The loss of every step of one run, [steps]; from the file if it is there."""
    path = Path(options.out) / f"{name}-{options.batch_size}x{options.steps}.json"
    if path.is_file():
        return np.array(json.loads(path.read_text()))
    by, precision = name.split("-")
    chosen: Precision = "fp64" if precision == "fp64" else "fp32"
    # The rates that docs/divergence.md tells of.
    training = TrainingConfig(
        batch_size=options.batch_size, learning_rate=2e-4, warmup_steps=200, learning_rate_decay="none"
    )
    config = with_preset(Config(precision=chosen, device="cpu", training=training), "base")
    learner = (ddpm_tf if by == "tf" else ddpm_torch).learner.Learner(config, options.steps)
    if by == "rounded":  # once, at the start, and so are the averages, which begin as a copy
        with torch.no_grad():
            for p in [*learner.parameters, *learner.averages]:
                p.copy_(p.float().double())
    batch_of = batches.Prefetcher(datasets.load("auto")[0], config)
    found = [learner.train_step(batch_of(step), step)[0] for step in tqdm(range(options.steps), desc=name)]
    files.write_json(path, found)
    return np.array(found)


def main(options: Options) -> None:
    """Train what is not there yet, print how the gaps grow, draw them."""
    picture = Figure(figsize=(9, 5), layout="constrained")
    axes = picture.subplots()
    steps = np.arange(1, options.steps + 1)
    for label, (a, b, colour) in PAIRS.items():
        gaps = relative_gap(losses(a, options), losses(b, options))
        axes.semilogy(steps[gaps > 0], gaps[gaps > 0], color=colour, linewidth=1.2, label=label)
        decades = ", ".join(
            f"{first + 1} .. {first + 50}: {np.median(gaps[first : first + 50]):.1e}"
            for first in range(0, options.steps, 50)
        )
        print(f"{label}\n  largest {gaps.max():.2e} at step {gaps.argmax() + 1}; medians of steps {decades}")
    for precision, level in {"float32": 2.0**-23, "float64": 2.0**-52}.items():
        axes.axhline(level, color="0.45", linewidth=0.9, linestyle="--")
        axes.annotate(f"{precision}\nrounding", (1.01, level), xycoords=("axes fraction", "data"), va="center")
    axes.set(
        title=f"Gap between the losses of two runs of base, batches of {options.batch_size}",
        xlabel="training step",
        ylabel="|A - B| / |A|",
    )
    axes.grid(alpha=0.25)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, -0.35), frameon=False)
    Path(options.figure).parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(options.figure, dpi=110)
    print(options.figure)


if __name__ == "__main__":
    main(tyro.cli(Options, prog="tests/benchmarks/divergence.py"))
