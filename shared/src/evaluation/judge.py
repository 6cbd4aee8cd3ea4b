"""The judge: how images compare with real ones, and how other real images would.

A distance between two sets is not 0 even if both are real, and grows as the sets shrink. So every number has its floor:
the same number for as many real images of the other split, which nothing that learned from the one can be expected to
beat.
"""

from typing import Any, Literal, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ddpm_shared import streams
from ddpm_shared.cache import Arrays, cached
from ddpm_shared.datasets import Split
from ddpm_shared.datasets.measures import digests
from ddpm_shared.errors import UserError
from ddpm_shared.evaluation import metrics, neighbours, spaces
from ddpm_shared.evaluation.extractor import DIMENSIONS, SHIPPED_SHA256, Extracted, Extractor
from ddpm_shared.evaluation.records import Classes, ClassRecord, ClassScores, Floor, Judgement, Memorised
from ddpm_shared.images import Pixels
from ddpm_shared.records.scores import with_fashion_keys
from ddpm_shared.records.types import Scores

T = TypeVar("T", Scores, ClassScores)

SplitName = Literal["train", "test"]

NEIGHBOUR_IMAGES = 10_000  # at most so many of each set in precision, recall, density and coverage
FEWEST_FOR_FID, FEWEST_NEIGHBOURS = DIMENSIONS + 1, 6  # images of a class, or of the real ones of it


class Judge:
    """Real images to compare others with; their features are computed once.

    Args:
        train: the training images.
        test: the test images.
        reference: which of the two others are compared with; the remaining one makes the floor.
        extractor: makes features of images (default: that of the data set, as spaces.of chooses it).

    Raises:
        UserError: no extractor, or one for other images; too few real images to compare with.
    """

    def __init__(
        self, train: Split, test: Split, reference: SplitName = "train", extractor: Extractor | None = None
    ) -> None:
        self.train, self.test = train, test
        self.reference, self.other = (train, test) if reference == "train" else (test, train)
        require_real(self.reference)
        self.extractor = extractor or spaces.of(train, test)
        self.extractor.require_fit(train)
        self.reference_extracted, self.other_extracted = (
            spaces.seen(self.extractor, split) for split in (self.reference, self.other)
        )
        self.moments = metrics.moments(self.reference_extracted.features)

    def scores(self, extracted: Extracted) -> Scores:
        """Every number that the features of images give, as `self.extractor` makes them.

        Raises:
            UserError: fewer images than features.
        """
        require_enough(count := len(extracted))
        near = _neighbour_metrics(extracted, self.reference_extracted)
        kid = metrics.kernel_distance(extracted.features, self.reference_extracted.features)
        classes, known = extracted.classes if extracted.knows_classes else None, self.extractor.num_classes
        scores: Scores = {
            "num_images": count,
            "fid": metrics.frechet_distance(metrics.moments(extracted.features), self.moments),
            "kid": kid.mean,
            "kid_std": kid.std,
            "inception_score": None if classes is None else metrics.inception_score(extracted.probabilities),
            "precision": near.precision,
            "recall": near.recall,
            "density": near.density,
            "coverage": near.coverage,
            "class_histogram": None if classes is None else np.bincount(classes, minlength=known).tolist(),
        }
        return self._named(scores)

    def _named(self, scores: T) -> T:
        return with_fashion_keys(scores) if self.extractor.sha256 == SHIPPED_SHA256 else scores

    def floor(self, count: int) -> Scores | None:
        """The scores of `count` real images of the other split, or of all of it where it has fewer.

        None where these are fewer than features.
        """
        some = _some(self.other_extracted, count)
        return None if len(some) < DIMENSIONS else self.scores(some)

    def classes(self, extracted: Extracted, labels: NDArray[np.int64]) -> Classes:
        """Whether images show the class asked for, and how those of each class compare with real ones of it.

        Args:
            extracted: of N images, as `self.extractor` makes it; N >= 1.
            labels: [N], the classes asked for.
        """
        per_class = [
            self._class(extracted.take(np.flatnonzero(labels == each)), int(each)) for each in np.unique(labels)
        ]
        told = [(each["accuracy"], each["name"]) for each in per_class if each["accuracy"] is not None]
        return {
            "accuracy": accuracy(extracted, labels),
            "worst": min(told, key=lambda each: each[0])[1] if told else None,
            "per_class": per_class,
        }

    def _class(self, extracted: Extracted, label: int) -> ClassRecord:
        real, other = (
            of_split.take(np.flatnonzero(split.labels == label))
            for of_split, split in (
                (self.reference_extracted, self.reference),
                (self.other_extracted, self.other),
            )
        )
        scores, floor = (
            self._named(_class_scores(each, real, label)) for each in (extracted, _some(other, len(extracted)))
        )
        name = self.reference.class_names[label]
        return cast(ClassRecord, {"label": label, "name": name, **scores, "floor": floor})

    def nearest(
        self, pixels: Pixels, description: str = "nearest training images"
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Index and distance of each image's nearest training image, under a progress bar of that name."""
        with tqdm(total=len(pixels), desc=description, unit="img", leave=False) as bar:
            return neighbours.nearest(pixels, self.train.images, bar.update)

    def honest_distances(self) -> NDArray[np.float64]:
        """How far each test image is from its nearest training image, [N]."""

        def compute() -> Arrays:
            return {"distance": self.nearest(self.test.images, "nearest, test images")[1]}

        hashes = [text for split in (self.train, self.test) for text in (split.sha256, str(len(split.images)))]
        return cached("nearest", tuple(hashes), compute, {"distance": (len(self.test.images),)})["distance"]

    def evaluate(
        self,
        pixels: Pixels,
        extracted: Extracted,
        distances: NDArray[np.float64],
        labels: NDArray[np.int64] | None = None,
    ) -> Judgement:
        """All that evaluation.json states of images; arguments and errors as in `scores`, `memorised`, `classes`."""
        scores, floor = self.scores(extracted), self.floor(len(pixels))
        classes = None if labels is None else self.classes(extracted, labels)
        memorised = self.memorised(pixels, distances)
        return {
            "features": self.extractor.name,
            "feature_space": self.extractor.space,
            "extractor_sha256": self.extractor.sha256,
            "reference": self.reference.record,
            **scores,
            "fid_floor": floor and floor["fid"],
            "floor": cast(Floor, {**floor, "split": self.other.split}) if floor else None,
            "memorised": memorised,
            "classes": classes,
            "notes": notes(len(pixels), memorised, floor, self.other) + (class_notes(classes) if classes else []),
        }

    def memorised(self, pixels: Pixels, distance: NDArray[np.float64]) -> Memorised:
        """Whether images are copies: of training images, nearly or exactly, or of each other.

        Args:
            pixels: [N, H, W, C] uint8.
            distance: [N] of each to its nearest training image.
        """
        honest = self.honest_distances()
        return {
            "median_distance": float(np.median(distance)),
            "median_distance_of_test_images": float(np.median(honest)),
            "share_closer_than_99_percent_of_test_images": float(np.mean(distance < np.quantile(honest, 0.01))),
            "copies_of_training_images": int(neighbours.copies(pixels, self.train.images).sum()),
            "copies_of_test_images": int(neighbours.copies(pixels, self.test.images).sum()),
            "copies_of_each_other": len(pixels) - len(set(digests(pixels))),
        }


def require_enough(count: int, flag: str = "--num-images") -> None:
    """Raise UserError if there are fewer images than features; `flag` sets how many are drawn."""
    if count < DIMENSIONS:
        raise UserError(
            f"{count} images are too few for a judgement: the covariance of {DIMENSIONS} features needs {DIMENSIONS} "
            f"images, and numbers worth comparing need 2,000: draw more with {flag}"
        )


def require_real(split: Split) -> None:
    """Raise UserError if there are fewer real images than features."""
    if len(split.images) < DIMENSIONS:
        raise UserError(
            f"the {split.split} split of {split.name} has {len(split.images)} images, too few to judge others by: the "
            f"covariance of {DIMENSIONS} features needs {DIMENSIONS} images: get more of them"
        )


def notes(count: int, memorised: Memorised, floor: Scores | None, other: Split) -> list[str]:
    """What a reader of the numbers of `count` images must know before believing them, in sentences."""
    sentences = []
    of_split = {"training": memorised["copies_of_training_images"], "test": memorised["copies_of_test_images"]}
    for split, copies in of_split.items():
        if copies:
            which = "All" if copies == count else f"{copies:,} of the {count:,}"
            sentences.append(f"{which} images are {split} images, copied exactly: what is judged here was not drawn.")
    if repeated := memorised["copies_of_each_other"]:
        sentences.append(f"{repeated:,} of the {count:,} images repeat another one exactly.")
    if floor is None:
        sentences.append(
            f"There is no floor: the {other.split} split has {len(other.images)} images, and {DIMENSIONS} are needed."
        )
    elif floor["num_images"] < count:
        sentences.append(
            f"The floor is that of {floor['num_images']:,} real images, all there are, and so a little higher than "
            f"that of {count:,} would be."
        )
    return sentences


def class_notes(classes: Classes) -> list[str]:
    """What a reader of the numbers of classes must know as well, in sentences."""
    sentences, per_class = [], classes["per_class"]

    def of(names: list[str], every: str) -> str:
        return every if len(names) == len(per_class) else ", ".join(names)

    if few := [each["name"] for each in per_class if each["fid"] is None]:
        sentences.append(
            f"No Fréchet distance of {of(few, 'any class')}: the covariance of {DIMENSIONS} features needs "
            f"{FEWEST_FOR_FID} images of a class."
        )
    if fewer := [each["name"] for each in per_class if each["floor"]["num_images"] < each["num_images"]]:
        sentences.append(f"The floor of {of(fewer, 'each class')} is that of fewer real images, all there are.")
    return sentences


def accuracy(extracted: Extracted, labels: NDArray[np.integer[Any]] | int) -> float | None:
    """The share of N images that the classifier takes for the class asked for, [N] or one for all.

    None without a classifier, or without images.
    """
    known = extracted.knows_classes and len(extracted) > 0
    return float(np.mean(extracted.classes == labels)) if known else None


def _class_scores(extracted: Extracted, real: Extracted, label: int) -> ClassScores:
    """How images compare with real ones, all of the class `label`."""
    fewest = min(len(extracted), len(real))
    distance = near = None
    if fewest >= FEWEST_FOR_FID:
        distance = metrics.frechet_distance(*(metrics.moments(each.features) for each in (extracted, real)))
    if fewest >= FEWEST_NEIGHBOURS:
        near = _neighbour_metrics(extracted, real)
    return {
        "num_images": len(extracted),
        "accuracy": accuracy(extracted, label),
        "fid": distance,
        "precision": near and near.precision,
        "recall": near and near.recall,
    }


def _neighbour_metrics(extracted: Extracted, real: Extracted) -> metrics.NeighbourMetrics:
    """Of as many images of each, the first of those extracted."""
    matched = min(len(extracted), len(real), NEIGHBOUR_IMAGES)
    return metrics.neighbour_metrics(_some(real, matched).features, extracted.features[:matched])


def _some(extracted: Extracted, count: int) -> Extracted:
    """`count` of the images, the same ones every time, or all where there are fewer."""
    return extracted.take(_chosen(len(extracted), min(count, len(extracted))))


def _chosen(available: int, count: int) -> NDArray[np.int64]:
    """`count` of the indices below `available`, the same ones every time."""
    return streams.generator(0, streams.EVALUATION_SUBSET).permutation(available)[:count]
