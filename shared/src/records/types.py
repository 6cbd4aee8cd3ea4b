"""What metrics.jsonl and metrics.json hold, as types. The JSON Schema is ddpm_shared/metrics.schema.json."""

from typing import Literal, NotRequired, TypedDict

Status = Literal["running", "completed", "interrupted", "failed"]


class StepRecord(TypedDict):
    """One training step. Images are counted with repetition; times are in seconds since the run began."""

    step: int  # 1-based: steps made
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
    images_per_s: float | None  # of the steps alone; None where none was made since a resumption
    wall_s: NotRequired[float]


class Scores(TypedDict):
    """What the judge computes from images; `floor` holds the same of real ones."""

    num_images: int
    fid_fashion: float
    kid_fashion: float
    kid_fashion_std: float
    inception_score_fashion: float
    precision: float
    recall: float
    density: float
    coverage: float
    class_histogram: list[int]


class Judgement(Scores):
    """The scores of samples beside those of as many real images."""

    extractor_sha256: str
    floor: Scores


class EvaluationRecord(Judgement):
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
