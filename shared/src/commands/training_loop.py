"""The training loop: steps, checkpoints and interruption. The end of an epoch is epoch_end.py.

Both trees give it their Learner, so that a run leaves the same records whatever computes it. With several workers, the
chief runs this loop, and the others `follow` it: they make the same steps, and write nothing.
"""

import contextlib
import math
import signal
import sys
import time
from typing import NoReturn

from tqdm import tqdm

from ddpm_shared.batches import Prefetcher
from ddpm_shared.commands.epoch_end import EpochEnd, JudgeSamples
from ddpm_shared.commands.interruption import Interrupted, StopSignals
from ddpm_shared.commands.learner import Learner, finite_state, require_finite
from ddpm_shared.config import Config
from ddpm_shared.datasets import Split
from ddpm_shared.records import loss_curve
from ddpm_shared.records.run import Run
from ddpm_shared.records.types import Status, StepRecord
from ddpm_shared.workers import ALONE, WorkerLost, Workers, proceed


class TrainingLoop:
    """The steps of a run, from one of them to the end.

    Args:
        config: all settings.
        train_split: the images to learn from.
        test_split: the images of the validation loss.
        learner: the tree's, in the state after `step` steps.
        records: the run folder to write to.
        judge: evaluates samples; None if they are not evaluated.
        step: training steps already made.
        minutes: time limit, after which the run stops as if interrupted; None for no limit.
        workers: this process, the chief, among several; None if it is alone.
    """

    def __init__(
        self,
        config: Config,
        train_split: Split,
        test_split: Split,
        learner: Learner,
        records: Run,
        judge: JudgeSamples | None = None,
        step: int = 0,
        minutes: float | None = None,
        workers: Workers | None = None,
    ) -> None:
        self.settings, self.learner, self.records = config.training, learner, records
        self.workers, self.together = workers, workers is not None  # whether the other workers wait for the next step
        self.batch_of = Prefetcher(train_split, config, (workers.place if workers else ALONE).share)
        self.steps_per_epoch = len(train_split.images) // self.settings.batch_size
        self.num_steps = self.settings.num_steps(len(train_split.images))
        self.step, self.minutes, self.stop = step, minutes, StopSignals(minutes)
        self.end_epoch = EpochEnd(config, learner, records, test_split, self.num_steps, judge, self.stop.check)
        self.made = step  # steps that the learner has made; for a moment, one more than self.step
        self.unrecorded: StepRecord | None = None  # the record of a step on its way to the log
        # The step of the newest checkpoint in the folder; a run that continues in a new folder has none there yet.
        self.saved = step if (records.folder / "checkpoints" / "latest").is_file() else None

    @property
    def epoch(self) -> int:
        """The 1-based epoch of the step just made."""
        return (self.step - 1) // self.steps_per_epoch + 1

    def run(self) -> int:
        """Train to the end, or until a signal or the time limit.

        Returns:
            The exit code: 0 completed or stopped by the time limit, 1 a number that is not finite, 128 and the
            signal's number if interrupted.
        """
        records = self.records
        try:
            with self.stop, self._bar() as bar:
                try:
                    self._steps(bar)
                except Interrupted:
                    self._save()
                    raise
                finally:
                    self._let_go()
        except Interrupted:
            records.finish("interrupted", self.step)
            what = "interrupted" if self.stop.received else f"stopped after {self.minutes:g} minutes"
            where = f"step {self.step} of {self.num_steps}"
            print(f"{what} at {where}; continue with --resume {records.folder}", file=sys.stderr)
            return self.stop.exit_code
        except FloatingPointError as error:
            self._save_if_whole()
            last = f"the checkpoint of step {self.saved} is whole" if self.saved else "there was no checkpoint yet"
            records.finish("failed", self.step, f"{error}; {last}")
            print(f"error: {error}; {last}", file=sys.stderr)
            return 1
        except BaseException as error:
            stopped = isinstance(error, KeyboardInterrupt)  # by a second Ctrl-C, which waits for nothing
            if not stopped:
                self._save_if_whole()
            with contextlib.suppress(OSError):  # a full disk, perhaps: what matters is already written
                status: Status = "interrupted" if stopped else "failed"
                records.finish(status, self.step, f"{type(error).__name__}: {error}")
            raise
        records.finish("completed", self.step)
        if self.settings.loss_curve:
            loss_curve.write(records.folder / "loss.png", records.history)
        print(f"done: {records.folder / 'metrics.json'}")
        return 0

    def _steps(self, bar: "tqdm[NoReturn]") -> None:
        # Ends of epochs and checkpoints come before the next step, so that a run resumed just there still makes them.
        batch_size = self.settings.batch_size
        seconds = images_since = 0.0
        while True:
            last = self.step == self.num_steps
            if self._epoch_is_open(last):
                self.end_epoch(self.step, self.epoch, images_since / seconds if seconds else None)
                seconds = images_since = 0.0
            if self.step > 0 and (last or self.step % self.settings.checkpoint_every == 0):
                self._save()
            if self.step >= self.num_steps:
                return
            self._go_on_together()
            began = time.perf_counter()
            batch = self.batch_of(self.step)  # and the next one begins to be drawn, while this step is computed
            loss, grad_norm, learning_rate = self.learner.train_step(batch, self.step)
            self.made = self.step + 1
            seconds += time.perf_counter() - began
            images_since += batch_size
            finite = math.isfinite(loss) and math.isfinite(grad_norm)
            require_finite(finite, "loss or its gradient", self.step + 1, self.settings)
            self.step += 1
            self.unrecorded = {
                "step": self.step,
                "epoch": self.epoch,
                "images_seen": self.step * batch_size,
                "loss": loss,
                "grad_norm": grad_norm,
                "learning_rate": learning_rate,
            }
            self._record_step()
            bar.set_postfix(loss=f"{loss:.4f}", epoch=self.epoch, refresh=False)
            bar.update(batch_size)
            self.stop.check()

    def _go_on_together(self) -> None:
        """Wait until all workers are here. Raises Interrupted if one of them was stopped."""
        if self.workers and not proceed(self.workers):
            self.together = False
            self.stop.received = self.stop.received or signal.SIGINT
            raise Interrupted

    def _let_go(self) -> None:
        """Tell the workers that wait for the next step that there is none."""
        lost = isinstance(sys.exception(), WorkerLost | KeyboardInterrupt)  # then they have ended, or end by themselves
        if self.workers and self.together and not lost:
            self.together = False
            with contextlib.suppress(WorkerLost):
                proceed(self.workers, stop=True)

    def _epoch_is_open(self, last: bool) -> bool:
        """Whether an epoch ended with this step and is not recorded yet."""
        history = self.records.history
        ended = self.step > 0 and (last or self.step % self.steps_per_epoch == 0)
        # A checkpoint that was taken out of its run folder comes without the losses of its epoch.
        known = any(record["step"] == self.step for record in history["steps"])
        return ended and known and self.step not in [epoch["step"] for epoch in history["epochs"]]

    def _save(self) -> None:
        if self.step and self.step != self.saved:
            self.records.save_checkpoint(self.step, finite_state(self.learner, self.step, self.settings))
            self.saved = self.step

    def _record_step(self) -> None:
        if self.unrecorded:
            self.records.record_step(self.unrecorded)
            self.unrecorded = None

    def _save_if_whole(self) -> None:
        """Save the state that an exception left, if it is that after the last recorded step, and finite."""
        with contextlib.suppress(Exception):  # a full disk, perhaps: what ended the run is what to tell
            if self.made == self.step and self.learner.whole:
                self._record_step()
                self._save()

    def _bar(self) -> "tqdm[NoReturn]":
        batch_size, framework = self.settings.batch_size, self.records.framework
        return tqdm(total=self.num_steps * batch_size, initial=self.step * batch_size, desc=framework, unit="img")


def follow(config: Config, train_split: Split, learner: Learner, workers: Workers, step: int) -> int:
    """What every worker but the chief does: its share of each step, until the chief or a signal ends it.

    Args:
        config: all settings.
        train_split: the images to learn from.
        learner: the tree's, in the state after `step` steps.
        workers: this process among them.
        step: training steps already made.

    Returns:
        0: the chief says how it ended.

    Raises:
        WorkerLost: another worker has ended.
    """
    batch_of = Prefetcher(train_split, config, workers.place.share)
    with StopSignals() as stop:
        while proceed(workers, stop=stop.received is not None):
            learner.train_step(batch_of(step), step)
            step += 1
    return 0
