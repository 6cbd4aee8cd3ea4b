"""What happens at the end of an epoch: the validation loss, a picture of samples, and an evaluation of samples."""

import math
from collections.abc import Callable, Iterator
from typing import cast

import numpy as np
from tqdm import tqdm

from ddpm_shared import images
from ddpm_shared.batches import validation_batches
from ddpm_shared.commands.labels import Labels
from ddpm_shared.commands.learner import Learner, finite_state, require_finite
from ddpm_shared.config import Config
from ddpm_shared.config.sampling import quick
from ddpm_shared.datasets import Split
from ddpm_shared.images import Pixels
from ddpm_shared.records.history import best_evaluation
from ddpm_shared.records.run import Run
from ddpm_shared.records.types import EpochRecord, EvaluationRecord, ScoresWithFloor

DRAWN_AT_ONCE = 64  # images, so that drawing takes no more memory than a training step of the default batch size

JudgeSamples = Callable[[Pixels, Labels | None], ScoresWithFloor]  # of images, and the classes asked for


def make_judge(train_split: Split, test_split: Split, num_images: int) -> JudgeSamples:
    """A function that evaluates `num_images` samples, with the floor for that number of images.

    A data set whose classifier was not trained yet is judged by random features: nobody has to train one first.

    Raises:
        UserError: too few images, real ones or samples, for an evaluation.
    """
    # Here, as most runs do not need onnxruntime.
    from ddpm_shared.evaluation import spaces
    from ddpm_shared.evaluation.judge import Judge, accuracy, require_enough

    require_enough(num_images, "--evaluate-images")
    judge = Judge(train_split, test_split, extractor=spaces.for_training(train_split, test_split))
    seen_by = {"features": judge.extractor.name, "extractor_sha256": judge.extractor.sha256}
    floor = judge.floor(num_images)

    def judged(pixels: Pixels, labels: Labels | None) -> ScoresWithFloor:
        extracted = judge.extractor(pixels)
        scores = cast(ScoresWithFloor, {**judge.scores(extracted), **seen_by, "floor": floor})
        right = None if labels is None else accuracy(extracted, labels)
        if right is not None:
            scores["class_accuracy"] = right
        return scores

    return judged


class EpochEnd:
    """The end of every epoch of a run.

    Args:
        config: all settings.
        learner: the tree's.
        records: the run folder to write to.
        test_split: the images of the validation loss.
        num_steps: training steps of the whole run.
        judge: as from make_judge; None if samples are not evaluated.
        check_stop: called between two parts of the work; raises to end it there.
    """

    def __init__(
        self,
        config: Config,
        learner: Learner,
        records: Run,
        test_split: Split,
        num_steps: int,
        judge: JudgeSamples | None,
        check_stop: Callable[[], None],
    ) -> None:
        self.config, self.settings = config, config.training
        self.learner, self.records, self.num_steps = learner, records, num_steps
        self.test_split = test_split
        self.judge, self.check_stop = judge, check_stop

    def __call__(self, step: int, epoch: int, images_per_s: float | None) -> None:
        """Close `epoch`, which ended with `step` (both 1-based), and record it.

        Raises:
            FloatingPointError: a validation loss or a state that is not finite.
        """
        record: EpochRecord = {
            "epoch": epoch,
            "step": step,
            "train_loss": self._train_loss(epoch),
            "validation_loss": self._validation_loss(step),
            "images_per_s": images_per_s,
        }
        tqdm.write(
            f"epoch {epoch}, step {step}: train loss {record['train_loss']:.5f}, "
            f"validation loss {record['validation_loss']:.5f}"
        )
        self._sample(step, epoch)
        self.records.record_epoch(record)

    def _train_loss(self, epoch: int) -> float:
        losses = [record["loss"] for record in self.records.history["steps"] if record["epoch"] == epoch]
        return sum(losses) / len(losses)

    def _validation_loss(self, step: int) -> float:
        count = total = 0.0
        losses = self.learner.validation_losses(validation_batches(self.test_split, self.config))
        num_images = len(self.test_split.images[: self.settings.validation_images])
        for number, loss in _with_bar(losses, "validation", num_images):
            self.check_stop()
            count, total = count + number, total + number * loss
        require_finite(math.isfinite(total), "validation loss", step, self.settings)
        return total / count

    def _sample(self, step: int, epoch: int) -> None:
        """Draw the picture and the samples to evaluate, where due: both begin with image 0 of the run's seed.

        A class-conditional network draws the classes in turn: image i of class i mod K.
        """

        def due(every: int) -> bool:
            return every > 0 and (step == self.num_steps or epoch % every == 0)

        shown = self.settings.sample_images if due(self.settings.sample_every) else 0
        evaluated = any(record["step"] == step for record in self.records.history["evaluations"])  # before a death
        judged = self.settings.evaluate_images if due(self.settings.evaluate_every) and not evaluated else 0
        if shown or judged:
            pixels = self._draw(max(shown, judged), "samples to evaluate" if judged else "samples")
        if shown:
            images.write_png(self.records.folder / "samples" / f"step_{step:08d}.png", self._picture(pixels[:shown]))
        if judged:
            self._evaluate(step, epoch, pixels[:judged])

    def _labels(self, first: int, count: int) -> Labels | None:
        """The classes of the images first .. first + count - 1; None if the network knows none."""
        return (
            np.arange(first, first + count) % self.config.model.num_classes if self.config.class_conditional else None
        )

    def _picture(self, pixels: Pixels) -> Pixels:
        labels = self._labels(0, len(pixels))
        return images.grid(pixels) if labels is None else images.by_class(pixels, labels, self.test_split.class_names)

    def _draw(self, count: int, name: str) -> Pixels:
        drawn = []
        total = count * (quick(self.config.diffusion).steps or 0)
        with tqdm(total=total, desc=name, unit="step", unit_scale=True, leave=False) as bar:
            for first in range(0, count, DRAWN_AT_ONCE):
                number = min(DRAWN_AT_ONCE, count - first)

                def on_step(t: int, number: int = number) -> None:
                    bar.update(number)
                    self.check_stop()

                drawn.append(self.learner.sample(number, on_step, first, self._labels(first, number)))
        return np.concatenate(drawn)

    def _evaluate(self, step: int, epoch: int, pixels: Pixels) -> None:
        """Evaluate samples, and save the state that drew them if they are the best so far."""
        assert self.judge is not None
        labels = self._labels(0, len(pixels))
        record = cast(EvaluationRecord, {"step": step, "epoch": epoch, **self.judge(pixels, labels)})
        before = [*self.records.history["evaluations"]]
        best = best_evaluation([*before, record])
        if best is record:
            self.records.save_best(step, finite_state(self.learner, step, self.settings))
        self.records.record_evaluation(record)
        rank = "best so far" if best is record else f"best {best['fid']:.4g} at step {best['step']}"
        if not_so := [each for each in before if each["extractor_sha256"] != record["extractor_sha256"]]:
            rank += f", not comparable with those judged by {not_so[-1]['features']}"
        of_class = f"; {record['class_accuracy']:.1%} of the class asked for" if "class_accuracy" in record else ""
        floor = f", floor {record['floor']['fid']:.4g}" if record["floor"] else ""
        tqdm.write(
            f"epoch {epoch}, step {step}: FID (by {record['features']}, {len(pixels)} images) "
            f"{record['fid']:.4g}{floor}, {rank}{of_class}"
        )


def _with_bar(losses: Iterator[tuple[int, float]], name: str, total: int) -> Iterator[tuple[int, float]]:
    with tqdm(total=total, desc=name, unit="img", leave=False) as bar:
        for number, loss in losses:
            bar.update(number)
            yield number, loss
