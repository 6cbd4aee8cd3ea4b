"""The training run around the mathematics: epochs, records, pictures, checkpoints, interruption.

Both trees hand it their Learner, so that a run keeps the same books whatever computes it.
"""

import contextlib
import dataclasses
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NoReturn, Protocol

import numpy as np
from tqdm import tqdm

from ddpm_shared import datasets, images, runs
from ddpm_shared.batches import Batch, Prefetcher, validation_batches
from ddpm_shared.checkpoint import Checkpoint, Tensors
from ddpm_shared.cli import TrainPlan
from ddpm_shared.config import Config
from ddpm_shared.datasets import Split
from ddpm_shared.errors import UserError
from ddpm_shared.images import Pixels
from ddpm_shared.interruption import Interrupted, StopSignals
from ddpm_shared.samplers import QUICK

WARM_UP_STEPS, TIMED_STEPS = 5, 20  # for --minutes
DRAWN_AT_ONCE = 64  # images, so that drawing takes no more memory than a training step of the default batch size


class Learner(Protocol):
    """What a tree brings: the network with its average and optimizer, on a device."""

    device_name: str
    threads: int
    num_parameters: int

    def train_step(self, batch: Batch, step: int) -> tuple[float, float, float]:
        """Make training step `step` (0-based) on its batch; return its loss, gradient norm and learning rate."""

    def validation_losses(self, batches: Iterable[Batch]) -> Iterator[tuple[int, float]]:
        """Number of images and mean loss of each batch, with the averaged weights."""

    def sample(self, num_images: int, on_step: Callable[[int], None], first: int = 0) -> Pixels:
        """Draw the images from `first` on with the averaged weights, calling on_step(t) after each step."""

    def tensors(self) -> Tensors:
        """All state, under a checkpoint's names."""

    def load(self, resumed: Checkpoint) -> None:
        """Take over the state of a checkpoint."""


def train(plan: TrainPlan, make_learner: Callable[[Config, int], Learner]) -> int:
    """The train command of both trees.

    Args:
        plan: the checked command.
        make_learner: (config, steps of the whole run) -> the tree's Learner at step 0.

    Returns:
        The exit code: 0 completed or stopped as planned, 1 non-finite loss, 130 or 143 interrupted.

    Raises:
        UserError: bad input.
        OSError: e.g. a full disk; the last checkpoint is whole.
    """
    framework, config = plan.framework, plan.config
    train_split, test_split = datasets.load(config.data.dataset, config.data.data_dir)
    if plan.resumed and plan.resumed.dataset_sha256 != train_split.sha256:
        raise UserError(
            f"{plan.resumed.path} was trained on data with SHA-256 {plan.resumed.dataset_sha256[:12]}..., but "
            f"{train_split.name} has {train_split.sha256[:12]}...: choose that data with --dataset or --data-dir"
        )
    _require_fitting(config, train_split)
    if plan.minutes:
        steps = config.training.num_steps(len(train_split.images))
        config = lasting(plan.minutes, config, make_learner(config, steps), train_split)
    loop = TrainingLoop(framework, config, train_split, test_split)
    learner = make_learner(config, loop.total)
    if plan.resumed:
        learner.load(plan.resumed)
        if note := _new_end(plan.resumed, config, len(train_split.images)):
            print(note)
    environment = runs.environment(learner.device_name, learner.threads)
    run = runs.Run(plan.folder, framework, config, environment, train_split, learner.num_parameters, plan.resumed)
    print(
        f"{framework} {environment['packages'][framework]} on {learner.device_name}, {learner.threads} threads, "
        f"{config.precision} | {config.preset}, {learner.num_parameters:,} parameters | {train_split.name}, "
        f"{len(train_split.images):,} images | {loop.total:,} steps of {config.training.batch_size} | {plan.folder}"
    )
    return loop.run(learner, run, plan.resumed.step if plan.resumed else 0, plan.stop_after)


def _require_fitting(config: Config, split: Split) -> None:
    batch_size, images = config.training.batch_size, split.images
    if batch_size > len(images):
        raise UserError(
            f"--batch-size {batch_size} is more than the {len(images)} training images: choose a smaller one"
        )
    size, channels = config.model.image_size, config.model.image_channels
    if images.shape[1:] != (size, size, channels):
        raise UserError(
            f"--image-size {size}, --image-channels {channels}: the images of {split.name} have "
            f"{' x '.join(map(str, images.shape[1:]))}: leave the flags out"
        )


def lasting(minutes: float, config: Config, learner: Learner, split: Split) -> Config:
    """`config` with as many steps as `learner`, which is of no use afterwards, makes in so many minutes.

    What comes between the steps, validation and pictures, is not counted.
    """
    settings, batch_of, seconds = config.training, Prefetcher(split, config), []
    for step in tqdm(range(WARM_UP_STEPS + TIMED_STEPS), desc="timing", unit="step", leave=False):
        began = time.perf_counter()
        learner.train_step(batch_of(step), step)
        seconds.append(time.perf_counter() - began)
    each = statistics.median(seconds[WARM_UP_STEPS:])
    steps = max(1, round(60 * minutes / each))
    epochs = math.ceil(steps / (len(split.images) // settings.batch_size))
    speed = settings.batch_size / each
    print(f"{speed:,.0f} images/s: --epochs {epochs} --max-steps {steps} takes {minutes:g} minutes")
    return dataclasses.replace(config, training=dataclasses.replace(settings, epochs=epochs, max_steps=steps))


def _new_end(resumed: Checkpoint, config: Config, num_images: int) -> str | None:
    """What to say where a run that was already slowing down gets another end."""
    old, new = (each.training.num_steps(num_images) for each in (resumed.config, config))
    falls = config.training.learning_rate_decay != "none" and old != new
    if not falls or resumed.step <= config.training.decay_start * min(old, new):
        return None
    return (
        f"note: the learning rate was falling towards step {old:,} and from here on falls towards step {new:,}: "
        f"a run of {new:,} steps in one go computes something else"
    )


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
        self.batch_of, self.test_split = Prefetcher(train_split, config), test_split
        self.steps_per_epoch = len(train_split.images) // settings.batch_size
        self.total = settings.num_steps(len(train_split.images))
        # Now, since looking at all real images takes a while: later it would come between two steps.
        self.judge = _judge(train_split, test_split, settings.evaluate_images) if settings.evaluate_every else None

    def run(self, learner: Learner, run: runs.Run, step: int, minutes: float | None = None) -> int:
        """Train from `step` to the end, or for so many minutes, and return the exit code, as in train()."""
        self.learner, self.books, self.step = learner, run, step
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
            print(f"{what} at step {self.step} of {self.total}; go on with --resume {run.folder}", file=sys.stderr)
            return self.stop.exit_code
        except FloatingPointError as error:
            kept = f"the checkpoint of step {self.saved} is kept" if self.saved else "there was no checkpoint yet"
            run.finish("failed", self.step, f"{error}; {kept}")
            print(f"error: {error}; {kept}", file=sys.stderr)
            return 1
        except BaseException as error:
            with contextlib.suppress(OSError):  # a full disk, perhaps: what matters is already written
                status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
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
            ended = ended and any(record["step"] == self.step for record in self.books.history["steps"])
            if ended and self.step not in [epoch["step"] for epoch in self.books.history["epochs"]]:
                self._end_epoch(images_since / seconds if seconds else None)
                seconds = images_since = 0.0
            if self.step > 0 and (last or self.step % self.settings.checkpoint_every == 0):
                self._save()
            if self.step >= self.total:
                return
            began = time.perf_counter()
            batch = self.batch_of(self.step)  # and the next one begins to be drawn, while this step is computed
            loss, grad_norm, learning_rate = self.learner.train_step(batch, self.step)
            seconds += time.perf_counter() - began
            images_since += self.settings.batch_size
            finite = math.isfinite(loss) and math.isfinite(grad_norm)
            self._require_finite(finite, "loss or its gradient", self.step + 1)
            self.step += 1
            self.books.record_step(
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
        losses = [record["loss"] for record in self.books.history["steps"] if record["epoch"] == self.epoch]
        count = total = 0.0
        batches = validation_batches(self.test_split, self.config)
        num_images = len(self.test_split.images[: self.settings.validation_images])
        for number, loss in self._watched(self.learner.validation_losses(batches), "validation", num_images):
            self.stop.check()
            count, total = count + number, total + number * loss
        self._require_finite(math.isfinite(total), "validation loss", self.step)
        record = {
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
        self.books.record_epoch(record)

    def _watched(self, batches: Iterator[tuple[int, float]], name: str, total: int) -> Iterator[tuple[int, float]]:
        with tqdm(total=total, desc=name, unit="img", leave=False) as bar:
            for batch in batches:
                bar.update(batch[0])
                yield batch

    def _sample(self) -> None:
        """Draw what this epoch is to show and what the judge is to see: both begin with image 0 of the run's seed."""
        shown = self.settings.sample_images if self._due(self.settings.sample_every) else 0
        judged = self.settings.evaluate_images if self._due(self.settings.evaluate_every) else 0
        if shown or judged:
            pixels = self._draw(max(shown, judged), "judged samples" if judged else "samples")
        if shown:
            path = self.books.folder / "samples" / f"step_{self.step:08d}.png"
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
        """Have samples judged, and keep the state that drew them if none before it drew better ones."""
        assert self.judge is not None
        record: runs.Record = {"step": self.step, "epoch": self.epoch} | self.judge(pixels)
        best = runs.best_evaluation([*self.books.history["evaluations"], record])
        if best is record:
            self.books.save_best(self.step, self._state())
        self.books.record_evaluation(record)
        known = "best so far" if best is record else f"best {best['fid_fashion']:.4g} at step {best['step']}"
        self.bar.write(
            f"epoch {self.epoch}, step {self.step}: FID (fashion features, {len(pixels)} images) "
            f"{record['fid_fashion']:.4g}, floor {record['floor']['fid_fashion']:.4g}, {known}"
        )

    def _save(self) -> None:
        if self.step and self.step != self.saved:
            self.books.save_checkpoint(self.step, self._state())
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


def _judge(train_split: Split, test_split: Split, num_images: int) -> Callable[[Pixels], runs.Record]:
    """A function: `num_images` samples -> what the run records of them, which the floor for so many is part of."""
    from ddpm_shared.evaluation.judge import Judge  # here: it needs onnxruntime, and most runs do not need it

    judge = Judge(train_split, test_split)
    always = {"extractor_sha256": judge.extractor.sha256, "floor": judge.floor(num_images)}
    return lambda pixels: judge.scores(judge.extractor(pixels)) | always
