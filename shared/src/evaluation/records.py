"""evaluation.json, as Python types."""

from typing import Any, NotRequired, TypedDict

from ddpm_shared.datasets.source import SplitRecord
from ddpm_shared.records.types import Scores

SCHEMA_VERSION = 1


class Floor(Scores):
    """The scores of real images."""

    split: str


class Memorised(TypedDict):
    """Whether images are copies. Distances are root-mean-square differences in grey levels to a training image."""

    median_distance: float
    median_distance_of_test_images: float
    share_closer_than_99_percent_of_test_images: float
    copies_of_training_images: int
    copies_of_test_images: int
    copies_of_each_other: int


class ClassScores(TypedDict):
    """How the images of one class compare with real ones of it; None where they are too few for a number."""

    num_images: int
    accuracy: float | None  # share of them that the classifier takes for the class
    fid: float | None
    fid_fashion: NotRequired[float | None]  # the same, of Fashion-MNIST
    precision: float | None
    recall: float | None


class ClassRecord(ClassScores):
    """The images that were asked for as one class."""

    label: int
    name: str
    floor: ClassScores  # of as many real images of the other split, or of all where it has fewer


class Classes(TypedDict):
    """Whether images show the class that was asked for; None is what only a classifier could say."""

    accuracy: float | None  # share of all images that the classifier takes for the class asked for
    worst: str | None  # the class of lowest accuracy
    per_class: list[ClassRecord]  # those asked for, by label


class Judgement(Scores):
    """What the judge finds out about images."""

    features: str  # what the images were judged by: numbers of two kinds of features do not compare
    feature_space: str  # the same in a sentence
    extractor_sha256: str
    reference: SplitRecord
    fid_floor: float | None
    floor: Floor | None  # None where there are too few real images for one
    memorised: Memorised
    classes: NotRequired[Classes | None]  # None without labels; absent in the files of earlier versions
    notes: list[str]


class InceptionRecord(TypedDict):
    """FID by the features of Inception; the floor is None where too few real images are left for it."""

    fid: float
    fid_floor: float | None
    floor_images: int
    weights_sha256: str
    rule: str


class SamplesRecord(TypedDict):
    """The file of images, and what they came from."""

    path: str
    sha256: str
    origin: dict[str, Any]


class Evaluation(Judgement):
    """evaluation.json."""

    schema_version: int
    created_utc: str
    samples: SamplesRecord
    inception: InceptionRecord | None
    seconds: float


class CorruptionRow(Scores, Memorised):
    """A row of corruptions.json."""
