"""comparison.json, as Python types. What each key means, comparison.schema.json says."""

from collections.abc import Mapping
from typing import Any, TypedDict

SCHEMA_VERSION = 1

Metrics = Mapping[str, Any]  # a run's metrics.json, checked against metrics.schema.json
Event = Mapping[str, Any]  # a step or an epoch of its history


class Thresholds(TypedDict):
    """What the words of the verdicts mean."""

    gap: float
    first_steps: int
    start_steps: int
    jump_factor: float


class RunSummary(TypedDict):
    """What one run was and came to."""

    label: str
    path: str
    framework: str
    version: str | None
    git_commit: str | None
    status: str
    message: str | None
    precision: str
    parameters: int
    steps: int
    device: str
    threads: int
    images_per_s: float | None
    wall_s: float
    first_loss: float | None
    last_loss: float | None
    train_loss: float | None
    validation_loss: float | None
    fid: float | None
    fid_fashion: float | None
    fid_images: int | None
    features: str | None
    extractor_sha256: str | None
    class_accuracy: float | None


class Rounding(TypedDict):
    """What counts as rounding between runs: their coarser precision, its unit, how many of these, their product."""

    precision: str
    unit: float
    roundings: int
    limit: float


class StepGap(TypedDict):
    """A gap at a step."""

    step: int
    gap: float


class Jump(StepGap):
    """A gap that is far above all gaps before it."""

    largest_before: float
    factor: float


class OddValidation(StepGap):
    """A gap of validation losses that is larger than any gap of losses before it."""

    largest_loss_gap: float


class Gaps(TypedDict):
    """The gaps of one quantity at the common steps of two runs."""

    max: float
    max_at_step: int
    median: float
    max_in_first_steps: float
    first_step_above_threshold: int | None
    equal_steps: int
    steps_within_rounding: int
    leading_steps_within_rounding: int
    beyond_rounding: StepGap | None
    jump: Jump | None


class EpochGaps(TypedDict):
    """The losses of two runs at a step that ended an epoch; None where one did not end one there."""

    epoch: int
    step: int
    train_loss_a: float | None
    train_loss_b: float | None
    train_loss_gap: float | None
    validation_loss_a: float | None
    validation_loss_b: float | None
    validation_loss_gap: float | None


class PixelDifference(TypedDict):
    """How far apart two pictures are."""

    pixels: int
    differing_pixels: int
    largest_difference: int
    amplification: int


class GridDifference(TypedDict):
    """How far apart two runs' grids of samples are; all but `absent` is None where there are no two grids."""

    absent: str | None
    file: str | None
    pixels: int | None
    differing_pixels: int | None
    largest_difference: int | None
    amplification: int | None


class PairVerdict(TypedDict):
    """What a pair of runs shows, in words."""

    kind: str
    lead: str
    details: str


class PairNumbers(TypedDict):
    """One run, b, against the baseline, a: all but the verdict."""

    a: str
    b: str
    differences: dict[str, list[Any]]
    decisive_differences: list[str]
    common_steps: int
    first_common_step: int
    last_common_step: int
    rounding: Rounding
    loss: Gaps
    grad_norm: Gaps
    epochs: list[EpochGaps]
    odd_validation: OddValidation | None
    relative_speed: float | None
    samples: GridDifference | None


class Pair(PairNumbers):
    """One run, b, against the baseline, a."""

    verdict: PairVerdict


class Settings(TypedDict):
    """Settings of all runs by dotted key: each key's values where they differ, its one value where they are equal."""

    different: dict[str, list[Any]]
    equal: dict[str, Any]


class ParityRow(TypedDict):
    """A quantity of parity.json; None is what was not computed."""

    subject: str
    quantity: str
    precision: str
    torch_oracle: float | None
    tf_oracle: float | None
    torch_tf: float | None
    tolerance: float
    passed: bool


class Parity(TypedDict):
    """parity.json, as the report shows it."""

    path: str
    created_utc: str
    device: str
    quantities: int
    agreeing: int
    planted_faults: int | None
    caught_faults: int | None
    rows: list[ParityRow]


class Comparison(TypedDict):
    """comparison.json."""

    schema_version: int
    created_utc: str
    thresholds: Thresholds
    runs: list[RunSummary]
    not_comparable: str | None
    pairs: list[Pair]
    configuration: Settings
    environment: Settings
    steps_a_mark: int
    parity: Parity | None
