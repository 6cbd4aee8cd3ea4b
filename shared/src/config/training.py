"""Settings of the training."""

import sys
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from ddpm_shared.config.checks import fraction, positive, require, whole
from ddpm_shared.config.help import default_is
from ddpm_shared.errors import choice

LearningRateDecay = Literal["none", "linear", "cosine"]
Reduce = Literal["exact", "fast"]

PICTURE_IMAGES = 10_000  # in a picture of samples: more is no picture any more
EVALUATION_IMAGES = 1_000_000  # the largest evaluations of the field take 50,000


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of the training. The defaults are those of the reference in docs/recipe.md."""

    epochs: int = 20
    """Passes over the training images."""
    max_steps: Annotated[int | None, default_is("no limit")] = None
    """Largest number of steps: the run ends there, even within an epoch."""
    batch_size: int = 128
    """Images in a training step."""
    learning_rate: float = 1e-3
    """Adam's step size after the warm-up."""
    warmup_steps: int = 300
    """Steps over which the learning rate grows linearly from 0."""
    learning_rate_decay: LearningRateDecay = "linear"
    """Shape of the learning rate's decay, which begins after the fraction --decay-start of the run."""
    decay_start: float = 0.3
    """Fraction of the run before the decay, in [0, 1)."""
    final_learning_rate: float = 0.02
    """Learning rate at the end of the decay, as a fraction of --learning-rate."""
    max_grad_norm: float = 1.0
    """Largest global norm of the gradients: longer ones are scaled down to it."""
    ema_decay: float = 0.999
    """Decay of the exponential moving average of the weights; early on it is (1 + k) / (10 + k) at update k."""
    label_drop: float = 0.1
    """With --class-conditional: probability that an image's label is dropped, for the unconditional prediction."""
    validation_images: Annotated[int | None, default_is("all")] = None
    """Number of test images for the validation loss at the end of each epoch."""
    sample_every: int = 5
    """Epochs between pictures of samples; one more is drawn at the end. 0 draws none."""
    sample_images: int = 16
    """Images in such a picture."""
    shards: int = 1
    """Equal parts of a batch, whose gradients are computed one by one and added in a fixed order. With several workers,
    a multiple of their number. The result depends on the shards, never on how many workers compute them."""
    reduce: Reduce = "exact"
    """How several workers add their gradients: exact, in that order; fast, as the framework's library does, which
    rounds otherwise but sends less."""
    loss_curve: bool = False
    """Draw the losses of the whole run at its end, as loss.png."""
    evaluate_every: int = 0
    """Epochs between evaluations of samples, with one more at the end; the best checkpoint is saved. 0 makes none."""
    evaluate_images: int = 256
    """Images drawn for an evaluation."""
    checkpoint_every: int = 500
    """Steps between checkpoints; one more is written at the end."""
    keep_checkpoints: int = 3
    """Number of checkpoints that stay in the run folder: the newest."""

    def __post_init__(self) -> None:
        choice("learning_rate_decay", self.learning_rate_decay, get_args(LearningRateDecay))
        choice("reduce", self.reduce, get_args(Reduce))
        whole(
            self,
            "shards",
            "epochs",
            "max_steps",
            "batch_size",
            "validation_images",
            "checkpoint_every",
            "keep_checkpoints",
        )
        whole(self, "warmup_steps", "sample_every", "evaluate_every", least=0)
        whole(self, "sample_images", most=PICTURE_IMAGES)
        whole(self, "evaluate_images", most=EVALUATION_IMAGES)
        require(
            self.batch_size % self.shards == 0,
            "--shards",
            self.shards,
            f"must divide --batch-size {self.batch_size}: the shards are equal parts of a batch",
        )
        positive(self, "learning_rate", "max_grad_norm")
        fraction(self, "ema_decay", "decay_start", "final_learning_rate", "label_drop")

    def num_steps(self, num_images: int) -> int:
        """Training steps of the whole run on `num_images` images; an epoch leaves out what fills no batch."""
        return min(self.epochs * (num_images // self.batch_size), self.max_steps or sys.maxsize)
