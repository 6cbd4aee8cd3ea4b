"""The training loop: steps, epochs and what happens at their ends, checkpoints, interruption.

Both trees hand it their Learner, so that a run leaves the same records whatever computes it.
"""

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import NoReturn, Protocol, cast

import numpy as np
from tqdm import tqdm

from ddpm_shared import images
from ddpm_shared.commands.interruption import Interrupted, StopSignals
from ddpm_shared.config import Config
from ddpm_shared.config.sampling import QUICK
from ddpm_shared.datasets import Split
from ddpm_shared.images import Pixels
from ddpm_shared.records.checkpoint import Checkpoint, Tensors
from ddpm_shared.records.history import best_evaluation
from ddpm_shared.records.run import Run
from ddpm_shared.records.types import EpochRecord, EvaluationRecord, ScoresWithFloor, Status

DRAWN_AT_ONCE = 64  # images, so that drawing takes no more memory than a training step of the default batch size


class Learner(Protocol):
    """What a tree brings: the network with its average and optimizer, on a device."""

    device_name: str
    threads: int
    num_parameters: int

    def train_step(self, pixels: Pixels, step: int) -> tuple[float, float, float]:
        """Make training step `step` (0-based) and return its loss, gradient norm and learning rate."""

    def validation_losses(self, pixels: Pixels) -> Iterator[tuple[int, float]]:
        """Number of images and mean loss of each batch of `pixels`, with the averaged weights."""

    def sample(self, num_images: int, on_step: Callable[[int], None], first: int = 0) -> Pixels:
        """Draw the images from `first` on with the averaged weights, calling on_step(t) after each step."""

    def tensors(self) -> Tensors:
        """All state, under a checkpoint's names."""

    def load(self, resumed: Checkpoint) -> None:
        """Take over the state of a checkpoint."""


class TrainingLoop:
    """Steps, epochs and what happens at their ends.

    Args:
        framework: for messages.
        config: all settings.
        train_split: images to learn from.
        test_split: images for the validation loss.

    Raises:
        UserError: no judge of samples.
    """

    def __init__(self, framework: str, config: Config, train_split: Split, test_split: Split) -> None:
        settings = config.training
        self.framework, self.config, self.settings = framework, config, settings
        self.train_pixels = train_split.images
        self.validation_pixels = test_split.images[: settings.validation_images]
        self.steps_per_epoch = len(self.train_pixels) // settings.batch_size
        self.total = settings.num_steps(len(self.train_pixels))
        # Now, since looking at all real images takes a while: later it would come between two steps.
        self.judge = _judge(train_split, test_split, settings.evaluate_images) if settings.evaluate_every else None

    def run(self, learner: Learner, run: Run, step: int, minutes: float | None = None) -> int:
        """Train from `step` to the end, or for so many minutes, and return the exit code, as in train()."""
        self.learner, self.records, self.step = learner, run, step
        # The step of the newest checkpoint in the folder; a run that goes on in a new folder has none there yet.
        self.saved = step if (run.folder / "checkpoints" / "latest").is_file() else None
        try:
            with StopSignals(minutes) as self.stop, self._bar() as self.bar:
                try:
                    self._steps()
                except Interrupted:
                    self._save()
                    raise
        except Interrupted:
            run.finish("interrupted", self.step)
            what = "interrupted" if self.stop.received else f"stopped after {minutes:g} minutes"
            print(f"{what} at step {self.step} of {self.total}; continue with --resume {run.folder}", file=sys.stderr)
            return self.stop.exit_code
        except FloatingPointError as error:
            last = f"the checkpoint of step {self.saved} is whole" if self.saved else "there was no checkpoint yet"
            run.finish("failed", self.step, f"{error}; {last}")
            print(f"error: {error}; {last}", file=sys.stderr)
            return 1
        except BaseException as error:
            with contextlib.suppress(OSError):  # a full disk, perhaps: what matters is already written
                status: Status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
                run.finish(status, self.step, f"{type(error).__name__}: {error}")
            raise
        run.finish("completed", self.step)
        print(f"done: {run.folder / 'metrics.json'}")
        return 0

    def _steps(self) -> None:
        # The ends of epochs and checkpoints come before the next step: a run resumed there still gets its due.
        seconds = images_since = 0.0
        while True:
            last = self.step == self.total
            ended = self.step > 0 and (last or self.step % self.steps_per_epoch == 0)
            # A checkpoint that was taken out of its run folder comes without the losses to close an epoch with.
            ended = ended and any(record["step"] == self.step for record in self.records.history["steps"])
            if ended and self.step not in [epoch["step"] for epoch in self.records.history["epochs"]]:
                self._end_epoch(images_since / seconds if seconds else None)
                seconds = images_since = 0.0
            if self.step > 0 and (last or self.step % self.settings.checkpoint_every == 0):
                self._save()
            if self.step >= self.total:
                return
            began = time.perf_counter()
            loss, grad_norm, learning_rate = self.learner.train_step(self.train_pixels, self.step)
            seconds += time.perf_counter() - began
            images_since += self.settings.batch_size
            finite = math.isfinite(loss) and math.isfinite(grad_norm)
            self._require_finite(finite, "loss or its gradient", self.step + 1)
            self.step += 1
            self.records.record_step(
                {
                    "step": self.step,
                    "epoch": self.epoch,
                    "images_seen": self.step * self.settings.batch_size,
                    "loss": loss,
                    "grad_norm": grad_norm,
                    "learning_rate": learning_rate,
                }
            )
            self.bar.set_postfix(loss=f"{loss:.4f}", epoch=self.epoch, refresh=False)
            self.bar.update(self.settings.batch_size)
            self.stop.check()

    @property
    def epoch(self) -> int:
        """The 1-based epoch of the step just made."""
        return (self.step - 1) // self.steps_per_epoch + 1

    def _end_epoch(self, images_per_s: float | None) -> None:
        losses = [record["loss"] for record in self.records.history["steps"] if record["epoch"] == self.epoch]
        count = total = 0.0
        for batch, loss in self._watched(
            self.learner.validation_losses(self.validation_pixels), "validation", len(self.validation_pixels)
        ):
            self.stop.check()
            count, total = count + batch, total + batch * loss
        self._require_finite(math.isfinite(total), "validation loss", self.step)
        record: EpochRecord = {
            "epoch": self.epoch,
            "step": self.step,
            "train_loss": sum(losses) / len(losses),
            "validation_loss": total / count,
            "images_per_s": images_per_s,
        }
        self.bar.write(
            f"epoch {self.epoch}, step {self.step}: train loss {record['train_loss']:.5f}, "
            f"validation loss {record['validation_loss']:.5f}"
        )
        self._sample()
        self.records.record_epoch(record)

    def _watched(self, batches: Iterator[tuple[int, float]], name: str, total: int) -> Iterator[tuple[int, float]]:
        with tqdm(total=total, desc=name, unit="img", leave=False) as bar:
            for batch in batches:
                bar.update(batch[0])
                yield batch

    def _sample(self) -> None:
        """Draw the grid and the images to evaluate, if they are due: both begin with image 0 of the run's seed."""
        shown = self.settings.sample_images if self._due(self.settings.sample_every) else 0
        judged = self.settings.evaluate_images if self._due(self.settings.evaluate_every) else 0
        if shown or judged:
            pixels = self._draw(max(shown, judged), "judged samples" if judged else "samples")
        if shown:
            path = self.records.folder / "samples" / f"step_{self.step:08d}.png"
            images.write_png(path, images.grid(pixels[:shown]))
        if judged:
            self._evaluate(pixels[:judged])

    def _due(self, every: int) -> bool:
        return every > 0 and (self.step == self.total or self.epoch % every == 0)

    def _draw(self, count: int, name: str) -> Pixels:
        drawn = []
        total = count * len(QUICK.times(self.config.diffusion.timesteps))
        with tqdm(total=total, desc=name, unit="step", unit_scale=True, leave=False) as bar:
            for first in range(0, count, DRAWN_AT_ONCE):
                number = min(DRAWN_AT_ONCE, count - first)

                def on_step(t: int, number: int = number) -> None:
                    bar.update(number)
                    self.stop.check()

                drawn.append(self.learner.sample(number, on_step, first))
        return np.concatenate(drawn)

    def _evaluate(self, pixels: Pixels) -> None:
        """Evaluate samples, and save the state that drew them if they are the best so far."""
        assert self.judge is not None
        record = cast(EvaluationRecord, {"step": self.step, "epoch": self.epoch, **self.judge(pixels)})
        best = best_evaluation([*self.records.history["evaluations"], record])
        if best is record:
            self.records.save_best(self.step, self._state())
        self.records.record_evaluation(record)
        standing = "best so far" if best is record else f"best {best['fid_fashion']:.4g} at step {best['step']}"
        self.bar.write(
            f"epoch {self.epoch}, step {self.step}: FID (fashion features, {len(pixels)} images) "
            f"{record['fid_fashion']:.4g}, floor {record['floor']['fid_fashion']:.4g}, {standing}"
        )

    def _save(self) -> None:
        if self.step and self.step != self.saved:
            self.records.save_checkpoint(self.step, self._state())
            self.saved = self.step

    def _state(self) -> Tensors:
        tensors = self.learner.tensors()
        finite = all(np.isfinite(value).all() for value in tensors.values())
        self._require_finite(finite, "learner's state", self.step)  # before it takes the place of a good one
        return tensors

    def _require_finite(self, finite: bool, what: str, step: int) -> None:
        if not finite:
            raise FloatingPointError(
                f"the {what} is not finite at step {step}: lower --learning-rate (now {self.settings.learning_rate}) "
                f"or lengthen --warmup-steps (now {self.settings.warmup_steps})"
            )

    def _bar(self) -> "tqdm[NoReturn]":
        batch = self.settings.batch_size
        return tqdm(total=self.total * batch, initial=self.step * batch, desc=self.framework, unit="img")


def _judge(train_split: Split, test_split: Split, num_images: int) -> Callable[[Pixels], ScoresWithFloor]:
    """A function: `num_images` samples -> what the run records of them, with the floor for this many."""
    from ddpm_shared.evaluation.judge import Judge  # here: it needs onnxruntime, and most runs do not need it

    judge = Judge(train_split, test_split)
    sha256, floor = judge.extractor.sha256, judge.floor(num_images)
    return lambda pixels: cast(
        ScoresWithFloor, {**judge.scores(judge.extractor(pixels)), "extractor_sha256": sha256, "floor": floor}
    )
