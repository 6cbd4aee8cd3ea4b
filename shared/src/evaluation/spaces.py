"""Which features a data set is judged by: those of its classifier, or random ones. Numbers of two kinds do not compare.

Fashion-MNIST has its classifier in the package. Any other data set with classes gets one of the same kind by
`make judge`, which is kept in the user's cache folder under the hash of the data. Where there are no classes, or no
classifier is wanted, the features are those of a fixed network of random weights.
"""

import hashlib
from pathlib import Path
from typing import Literal

from ddpm_shared import datasets, files
from ddpm_shared.cache import cached
from ddpm_shared.datasets import Split, download
from ddpm_shared.errors import UserError
from ddpm_shared.evaluation.extractor import DIMENSIONS, RANDOM, Extracted, Extractor

Kind = Literal["auto", "classifier", "random"]

RANDOM_FEATURES = "random features of a fixed untrained network"
RECIPE = "1"  # of pytorch/tools/train_classifier.py: a classifier by another recipe is another file
FEWEST, FEWEST_CLASSES = 256, 2  # training images and classes that a classifier can be trained on


def of(train: Split, test: Split, kind: Kind = "auto") -> Extractor:
    """The feature extractor of a data set.

    Args:
        train: its training images.
        test: its test images.
        kind: "auto" is its classifier where one can be trained, else random features.

    Raises:
        UserError: its classifier is not there, or cannot be.
    """
    if kind == "random" or (kind == "auto" and why_no_classifier(train)):
        return _random(train)
    if train.name in datasets.FASHION:
        return Extractor()
    if reason := why_no_classifier(train):
        raise UserError(f"--features classifier: {reason}; take --features random")
    if file := _classifier(train, test):
        return file
    raise UserError(f"there is no classifier of {train.name} yet: {_remedy(train)}, or judge by --features random")


def for_training(train: Split, test: Split) -> Extractor:
    """As `of`, but random features, and a line on stderr, where there is no classifier yet: training needs none."""
    if train.name in datasets.FASHION or why_no_classifier(train):
        return of(train, test)
    if file := _classifier(train, test):
        return file
    download.report(f"samples are judged by {RANDOM_FEATURES}; for a classifier of {train.name}, {_remedy(train)}")
    return _random(train)


def seen(extractor: Extractor, split: Split) -> Extracted:
    """The features of a split's images, computed once."""
    count = len(split.images)
    shapes = {"features": (count, DIMENSIONS), "probabilities": (count, extractor.num_classes)}
    hashes = (split.sha256, str(count), extractor.file_sha256)
    raw = cached("features", hashes, lambda: extractor.raw(split.images, f"features, {split.split}"), shapes)
    return extractor.scaled(**raw)


def why_no_classifier(train: Split) -> str:
    """Why no classifier can be trained on a data set, "" if one can."""
    images, classes = len(train.images), len(train.class_names)
    if images < FEWEST or classes < FEWEST_CLASSES:
        return (
            f"{train.name} has {images:,} training images in {classes} classes, and a classifier needs {FEWEST} or more"
            f" in {FEWEST_CLASSES} or more"
        )
    return ""


def classifier_file(train: Split, test: Split) -> Path:
    """Where the classifier of a data set is cached; Fashion-MNIST's own is in the package, not there."""
    parts = [text for split in (train, test) for text in (split.sha256, str(len(split.images)))]
    key = hashlib.sha256(" ".join([*parts, RECIPE]).encode()).hexdigest()
    return files.cache_dir("evaluation") / f"classifier-{key[:32]}.onnx"


def _classifier(train: Split, test: Split) -> Extractor | None:
    file = classifier_file(train, test)
    if not file.is_file():
        return None
    return Extractor(file, f"the classifier of {train.name}", f"remove it, and {_remedy(train)}")


def _random(train: Split) -> Extractor:
    extractor = Extractor(RANDOM, RANDOM_FEATURES)
    extractor.scale_by(seen(extractor, train).features, train)
    return extractor


def _remedy(train: Split) -> str:
    flags = f"--dataset {train.name}" + (" --data-dir DIR" if train.name in datasets.OWN else "")
    return f'train one, which takes minutes, by make judge ARGS="{flags}"'
