"""loss.png of a run folder: the loss of the training and, at the end of each epoch, that of the validation."""

from pathlib import Path

import numpy as np

from ddpm_shared import images
from ddpm_shared.pages import BLUE, VERMILION
from ddpm_shared.records.types import History

POINTS = 400  # of the training's curve: each is the mean of as many steps


def write(path: Path, history: History) -> None:
    """Draw the losses of `history` into a PNG file, atomically. Raises OSError, e.g. for a full disk."""
    from matplotlib.figure import Figure  # here: it takes half a second

    losses = np.array([record["loss"] for record in history["steps"]])
    every = max(1, len(losses) // POINTS)
    means = [group.mean() for group in np.split(losses, range(every, len(losses), every))]
    picture = Figure(figsize=(7, 4), layout="constrained")
    axes = picture.subplots()
    label = "training" if every == 1 else f"training, means of {every} steps"
    axes.plot(np.minimum(np.arange(1, len(means) + 1) * every, len(losses)), means, color=BLUE, label=label)
    ends, validation = ([record[key] for record in history["epochs"]] for key in ("step", "validation_loss"))
    axes.plot(ends, validation, "o-", markersize=3, color=VERMILION, label="validation, averaged weights")
    axes.set(xlabel="training step", ylabel="loss", yscale="log", title=path.parent.name)
    axes.grid(alpha=0.15)
    axes.legend()
    images.write_figure(path, picture)
