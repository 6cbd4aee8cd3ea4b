"""How far apart two runs are: the gap at every step, and when it is more than rounding.

The gap of B's value b to A's value a is |a - b| / |a|. Runs of one configuration draw the same batches, t and noise in
either framework, so that only rounding sets them apart at first. Training amplifies rounding, gradually: a gap that is
there at once, or jumps, has another cause.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddpm_shared.compare.records import EpochGaps, Event, Gaps, Jump, OddValidation, Rounding

Floats = NDArray[np.float64]
Steps = NDArray[np.int64]

THRESHOLD = 1e-3  # a gap too small to see in a plot of the losses
LARGEST = 1e100  # of a gap: what is made of gaps stays finite, as JSON needs it
FIRST_STEPS = 100  # where rounding has had little time to grow

# The distance from 1 to the next number of each format, and what to call it.
ROUNDING = {"fp64": 2.0**-52, "fp32": 2.0**-23, "bf16": 2.0**-8}
FORMATS = {"fp64": "float64", "fp32": "float32", "bf16": "bfloat16"}

ALL_STEPS = 1000  # so many are drawn one by one
MARKS = 400  # along the axis of a figure of more: a screen shows no finer, and the file stays small

# How many roundings a gap may be that is still called rounding. Measured on two CPUs, PyTorch against TensorFlow: in
# float32 (`tiny`, 156 steps; `base`, 470) the losses stay within 2 roundings until training amplifies them, at the
# earliest from step 47 on, and then need some ten steps to grow tenfold; in float64 (`tiny`, 100 steps) within 8. In
# bfloat16 only the network's inside is rounded so coarsely, and a loss, a mean in float32, stays within 0.01 roundings
# for 20 steps.
ROUNDINGS = {"fp64": 16, "fp32": 16, "bf16": 1}
START_STEPS = 10  # so early, amplified rounding is no explanation yet
# In the same runs no gap of losses or gradient norms was more than 4.8 times the largest before it.
JUMP_FACTOR = 100.0


def relative_gap(a: ArrayLike, b: ArrayLike) -> Floats:
    """|a - b| / |a|, float64 of the arguments' shape; where a is 0, it is 0 if b is 0 as well, and else 1.

    No gap is larger than LARGEST.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    scale = np.where(a == 0, np.abs(b), np.abs(a))
    with np.errstate(over="ignore"):
        gaps: Floats = np.divide(np.abs(a - b), scale, out=np.zeros(scale.shape), where=scale > 0)
    return np.minimum(gaps, LARGEST)


def step_gaps(a: Sequence[Event], b: Sequence[Event], key: str) -> tuple[Steps, Floats]:
    """The steps that both histories hold, [n] ascending, and the gap of `key` at each, [n]."""
    old, new = ({step["step"]: step[key] for step in steps} for steps in (a, b))
    steps = sorted(old.keys() & new.keys())
    return np.array(steps, np.int64), relative_gap([old[step] for step in steps], [new[step] for step in steps])


def rounding_of(*precisions: str) -> Rounding:
    """What counts as rounding between runs: their coarser precision, its unit, how many of these, and their product."""
    precision = max(precisions, key=lambda name: ROUNDING[name])
    unit, roundings = ROUNDING[precision], ROUNDINGS[precision]
    return {"precision": precision, "unit": unit, "roundings": roundings, "limit": roundings * unit}


def gap_statistics(steps: Steps, gaps: Floats, rounding: Rounding) -> Gaps:
    """The gaps of one quantity, summed up.

    Args:
        steps: [n] ascending, n >= 1.
        gaps: [n].
        rounding: as from rounding_of().

    Returns:
        JSON types: the largest gap, its step, the median, the largest of the first steps and the first step above
        THRESHOLD; how many steps are equal, how many within rounding, and how many of these come before the
        first that is not; that first one, as {step, gap}, or None; and the first jump, or None.
    """
    above = steps[gaps > THRESHOLD]
    beyond = np.flatnonzero(gaps > rounding["limit"])
    return {
        "max": float(gaps.max()),
        "max_at_step": int(steps[gaps.argmax()]),
        "median": float(np.median(gaps)),
        "max_in_first_steps": float(gaps[:FIRST_STEPS].max()),
        "first_step_above_threshold": int(above[0]) if len(above) else None,
        "equal_steps": int(np.count_nonzero(gaps == 0)),
        "steps_within_rounding": len(steps) - len(beyond),
        "leading_steps_within_rounding": int(beyond[0]) if len(beyond) else len(steps),
        "beyond_rounding": {"step": int(steps[beyond[0]]), "gap": float(gaps[beyond[0]])} if len(beyond) else None,
        "jump": first_jump(steps, gaps, rounding["unit"]),
    }


def first_jump(steps: Steps, gaps: Floats, unit: float) -> Jump | None:
    """The first step whose gap is more than JUMP_FACTOR times the largest before it, counted as one rounding at least.

    A single gap says little, since it may be 0 by chance between large ones; the largest so far only ever grows.

    Returns:
        {step, gap, largest_before, factor}, or None if there is no such step.
    """
    before = np.maximum.accumulate(np.concatenate([[0.0], gaps[:-1]]))
    factors = gaps / np.maximum(before, unit)
    jumps = np.flatnonzero(factors > JUMP_FACTOR)
    if not len(jumps):
        return None
    first = jumps[0]
    return {
        "step": int(steps[first]),
        "gap": float(gaps[first]),
        "largest_before": float(before[first]),
        "factor": float(factors[first]),
    }


def epoch_gaps(a: Sequence[Event], b: Sequence[Event]) -> list[EpochGaps]:
    """For each step at which a run ended an epoch: {kind}_a, {kind}_b and {kind}_gap, None where one did not.

    The records are matched by step, since --max-steps may have cut an epoch short in one run only.
    """
    old, new = ({epoch["step"]: epoch for epoch in epochs} for epochs in (a, b))
    return [_epoch_gaps(old.get(step), new.get(step)) for step in sorted(old.keys() | new.keys())]


def _epoch_gaps(a: Event | None, b: Event | None) -> EpochGaps:
    ended = a or b
    assert ended is not None  # at this step, one of the two ended an epoch
    train_a, train_b, train_gap = _losses(a, b, "train_loss")
    validation_a, validation_b, validation_gap = _losses(a, b, "validation_loss")
    return {
        "epoch": ended["epoch"],
        "step": ended["step"],
        "train_loss_a": train_a,
        "train_loss_b": train_b,
        "train_loss_gap": train_gap,
        "validation_loss_a": validation_a,
        "validation_loss_b": validation_b,
        "validation_loss_gap": validation_gap,
    }


def _losses(a: Event | None, b: Event | None, key: str) -> tuple[float | None, float | None, float | None]:
    x, y = (None if epoch is None else epoch[key] for epoch in (a, b))
    return x, y, None if x is None or y is None else float(relative_gap(x, y))


def odd_validation(
    epochs: Sequence[EpochGaps], steps: Steps, loss_gaps: Floats, rounding: Rounding
) -> OddValidation | None:
    """The first epoch whose validation losses are further apart than rounding and than any loss up to there.

    A validation loss is a mean over many batches, so where only the weights' rounding differs it is closer than the
    losses of single batches. One that is not points at what the losses do not see: the averaged weights, the
    validation itself.

    Returns:
        {step, gap, largest_loss_gap}, or None.
    """
    for row in epochs:
        gap = row["validation_loss_gap"]
        largest = float(loss_gaps[steps <= row["step"]].max(initial=0.0))
        if gap is not None and gap > max(rounding["limit"], largest):
            return {"step": row["step"], "gap": gap, "largest_loss_gap": largest}
    return None


def steps_a_mark(steps: int) -> int:
    """How many neighbouring steps share a mark in a figure; 1 where every step has its own."""
    return math.ceil(steps / MARKS) if steps > ALL_STEPS else 1
