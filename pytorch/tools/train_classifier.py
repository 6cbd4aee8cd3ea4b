"""Train the classifier that the judge sees a data set with: `make judge ARGS="--dataset X"`.

    python pytorch/tools/train_classifier.py --dataset X [--data-dir DIR] [--epochs N] [--seed N] [--out FILE]

It is cached where `make evaluate` looks for it, under the hash of the data. The one of Fashion-MNIST in the package,
shared/src/evaluation/classifier.onnx, was made with --dataset fashion-mnist --epochs 20 and --out. classifier.py has
the network and its training. Nothing is chosen by the test images; their accuracy is measured once, on the file
written.
"""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from ddpm_shared import claims, command_line, datasets, files, frameworks
from ddpm_shared.config import RealImages
from ddpm_shared.config.checks import LARGEST_SEED, whole
from ddpm_shared.config.help import default_is
from ddpm_shared.datasets import Split
from ddpm_shared.errors import UserError
from ddpm_shared.evaluation import spaces
from ddpm_shared.evaluation.extractor import Extractor
from ddpm_shared.evaluation.judge import accuracy

NEEDED = ("torch", "onnx", "onnxscript")
EPOCHS, FEWEST_STEPS = 10, 1000  # by default: so many epochs, and of a small data set more


@dataclass(frozen=True)
class Command:
    """Train a classifier of a data set, by whose features the judge compares images; print its test accuracy."""

    data: RealImages = field(default_factory=RealImages)
    epochs: Annotated[int | None, default_is(f"{EPOCHS}, or more of a small data set: {FEWEST_STEPS:,} steps")] = None
    """Passes over the training images."""
    seed: int = 0
    """Seed of initial weights, batches and augmentation."""
    out: Annotated[str | None, default_is("where make evaluate looks for it")] = None
    """File to write."""

    def __post_init__(self) -> None:
        whole(self, "epochs")
        whole(self, "seed", least=0, most=LARGEST_SEED)


def main(argv: Sequence[str] | None = None) -> int:
    """Train, write the file, print its accuracy. Returns 0; raises UserError on bad input."""
    command = command_line.parse_flags(Command, argv, "train_classifier")
    if absent := [name for name in NEEDED if not frameworks.installed(name)]:
        raise UserError(
            f"make judge trains in PyTorch and needs {' and '.join(absent)}, not installed here: "
            f"pip install {' '.join(absent)}, or judge by --features random"
        )
    train, test = datasets.load(command.data.dataset, command.data.data_dir, command.data.folder)
    if train.name in datasets.FASHION and command.out is None:
        raise UserError(
            "the classifier of Fashion-MNIST is in the package: name another data set by --dataset, or, to train it "
            "anew, a file by --out"
        )
    if reason := spaces.why_no_classifier(train):
        raise UserError(f"{reason}: judge by --features random, which make evaluate takes here")
    out = Path(command.out) if command.out else spaces.classifier_file(train, test)
    with claims.writing(out.parent):
        began = time.perf_counter()
        data = trained(command, train)
        files.write_atomically(out, data)
    seconds = time.perf_counter() - began
    extracted = Extractor(out)(test.images, "test images")
    right = accuracy(extracted, test.labels)
    print(f"{out}: {len(data):,} bytes, sha256 {hashlib.sha256(data).hexdigest()}, trained in {seconds:,.0f} s")
    print(f"accuracy: {right:.2%} of the {len(test.images):,} test images of {test.name}")
    return 0


def trained(command: Command, split: Split) -> bytes:
    """The classifier after its training, as ONNX."""
    import classifier  # here: PyTorch takes seconds

    steps_an_epoch = classifier.steps_an_epoch(split)
    epochs = command.epochs or max(EPOCHS, -(-FEWEST_STEPS // steps_an_epoch))
    model = classifier.train(split, epochs, command.seed, datasets.flips(command.data.dataset))
    classifier.standardize(model, split)
    return classifier.exported(model, split)


if __name__ == "__main__":
    command_line.guard(main)
