"""What the training commands need of a tree's Learner, and the check that its state is finite."""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ddpm_shared.batches import Batch
from ddpm_shared.config import TrainingConfig
from ddpm_shared.images import Pixels
from ddpm_shared.records.checkpoint import Checkpoint, Tensors


class Learner(Protocol):
    """What a tree provides: the network, the average of its weights and the optimizer, on a device."""

    device_name: str
    threads: int
    num_parameters: int

    @property
    def whole(self) -> bool:
        """Whether the state is that after a step; False if an exception came while a step was changing it."""

    def train_step(self, batch: Batch, step: int) -> tuple[float, float, float]:
        """Make training step `step` (0-based) on its batch; return its loss, gradient norm and learning rate."""

    def validation_losses(self, batches: Iterable[Batch]) -> Iterator[tuple[int, float]]:
        """Number of images and mean loss of each batch, with the averaged weights."""

    def sample(
        self,
        num_images: int,
        on_step: Callable[[int], None],
        first: int = 0,
        labels: NDArray[np.int64] | None = None,
    ) -> Pixels:
        """Draw the images from `first` on, of these classes, with the averaged weights; on_step(t) after each step."""

    def tensors(self) -> Tensors:
        """All state, under a checkpoint's names."""

    def load(self, resumed: Checkpoint) -> None:
        """Take over the state of a checkpoint."""


def require_finite(finite: bool, what: str, step: int, settings: TrainingConfig) -> None:
    """Raise FloatingPointError, with a hint, unless `what` is finite at `step`."""
    if not finite:
        raise FloatingPointError(
            f"the {what} is not finite at step {step}: lower --learning-rate (now {settings.learning_rate}) "
            f"or lengthen --warmup-steps (now {settings.warmup_steps})"
        )


def finite_state(learner: Learner, step: int, settings: TrainingConfig) -> Tensors:
    """All state of the learner, to be saved. Raises FloatingPointError if any of it is NaN or infinite."""
    tensors = learner.tensors()
    finite = all(np.isfinite(value).all() for value in tensors.values())
    require_finite(finite, "learner's state", step, settings)  # before it replaces a good checkpoint
    return tensors
