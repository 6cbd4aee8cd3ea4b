"""The records in metrics.jsonl and metrics.json, as types. The JSON Schema is ddpm_shared/metrics.schema.json."""

from typing import Literal, NotRequired, TypedDict

Status = Literal["running", "completed", "interrupted", "failed"]


class StepRecord(TypedDict):
    """One training step. Images are counted with repetition; times are in seconds since the run began."""

    step: int  # 1-based
    epoch: int  # 1-based
    images_seen: int
    loss: float
    grad_norm: float  # before clipping
    learning_rate: float
    wall_s: NotRequired[float]  # added by Run


class EpochRecord(TypedDict):
    """The end of an epoch."""

    epoch: int
    step: int
    train_loss: float  # mean over the epoch's steps
    validation_loss: float  # of the averaged weights
    images_per_s: float | None  # of the steps alone; None if none was made since a resumption
    wall_s: NotRequired[float]


class Scores(TypedDict):
    """The numbers that the judge computes from images. None is what needs a classifier, where there is none."""

    num_images: int
    fid: float
    kid: float
    kid_std: float
    inception_score: float | None
    precision: float
    recall: float
    density: float
    coverage: float
    class_histogram: list[int] | None  # how many images the classifier puts into each class
    # The same by the names of earlier versions, in the features of the classifier of Fashion-MNIST only.
    fid_fashion: NotRequired[float]
    kid_fashion: NotRequired[float]
    kid_fashion_std: NotRequired[float]
    inception_score_fashion: NotRequired[float]


class ScoresWithFloor(Scores):
    """The scores of samples, and as `floor` those of the same number of real images; None where these are too few."""

    features: str  # what they were judged by: numbers of two kinds of features do not compare
    extractor_sha256: str
    floor: Scores | None
    class_accuracy: NotRequired[float]  # share that is taken for the class asked for, in a class-conditional run


class EvaluationRecord(ScoresWithFloor):
    """An evaluation of samples during training."""

    step: int
    epoch: int
    wall_s: NotRequired[float]


class History(TypedDict):
    """All records of a run, oldest first."""

    steps: list[StepRecord]
    epochs: list[EpochRecord]
    evaluations: list[EvaluationRecord]


class Final(TypedDict):
    """The last numbers of a run."""

    step: int
    images_seen: int
    loss: float | None
    train_loss: float | None
    validation_loss: float | None
    wall_s: float
    message: NotRequired[str]
