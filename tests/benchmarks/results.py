"""What the timings say: medians with their spread, ratios, shares of the machine's peak, and the targets."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from contenders import OURS, PRECISIONS, Contender

TRAINING_PASSES = 3  # forward, and backward a product for the input and one for the weights


@dataclass
class Row:
    """All that was measured of one contender."""

    contender: Contender
    facts: dict[str, Any] = field(default_factory=dict)  # parameters, flops, threads, version
    rates: dict[str, list[float]] = field(default_factory=dict)  # "train", "forward", "sample 50" ... -> images/s
    peak_memory_mib: float | None = None
    host_ms: dict[str, float] = field(default_factory=dict)  # ours: milliseconds a training step

    def rate(self, what: str) -> float | None:
        """The median images per second, or None if it was not measured."""
        return median(self.rates.get(what, []))

    def gflops(self, what: str) -> float | None:
        """GFLOP/s achieved in "train" or "forward"."""
        rate, flops = self.rate(what), self.facts.get("flops")
        if rate is None or not flops:
            return None
        return rate * flops * (TRAINING_PASSES if what == "train" else 1) / 1e9

    def host_share(self) -> float | None:
        """Data with noise, conversion and logging, as a share of a training step."""
        rate = self.rate("train")
        if not self.host_ms or rate is None:
            return None
        step_ms = 1e3 * self.contender.batch_size / rate
        return sum(self.host_ms[part] for part in ("data", "to_batch", "logging")) / step_ms


@dataclass(frozen=True)
class Target:
    """A goal, and what was reached."""

    what: str
    goal: float
    reached: float | None
    at_most: bool = False

    @property
    def verdict(self) -> str:
        """One of three."""
        if self.reached is None:
            return "not measured"
        met = self.reached <= self.goal if self.at_most else self.reached >= self.goal
        return "met" if met else "falls short"


def median(values: Sequence[float]) -> float | None:
    """The median, or None of nothing."""
    return float(np.median(values)) if len(values) else None


def middle_half(values: Sequence[float]) -> tuple[float, float]:
    """Between which two values the middle half lies."""
    low, high = np.percentile(values, (25, 75))
    return float(low), float(high)


def ratio(a: float | None, b: float | None) -> float | None:
    """The quotient, or None if one was not measured."""
    return None if a is None or not b else a / b


def best(rows: Iterable[Row], what: str, by: str, precision: str | None = None) -> float | None:
    """The highest median rate among the variants of `by`, in one precision or in any."""
    found = [
        rate
        for row in rows
        if row.contender.by == by and precision in (None, row.contender.precision)
        if (rate := row.rate(what)) is not None
    ]
    return max(found, default=None)


def memory(rows: Iterable[Row], by: str, precision: str) -> float | None:
    """MiB of the variant of `by` that nobody has asked anything special of."""
    plain = [r for r in rows if (r.contender.by, r.contender.precision) == (by, precision)]
    plain = [r for r in plain if not r.contender.channels_last and not r.contender.compiled]
    return plain[0].peak_memory_mib if plain else None


def share_flops(rows: Iterable[Row]) -> None:
    """Give our other rows the arithmetic that PyTorch counted of its tree's network: it is the same network."""
    ours = [row for row in rows if row.contender.ours]
    counted = [row.facts["flops"] for row in ours if "flops" in row.facts]
    for row in ours:
        if counted:
            row.facts["flops"] = max(counted)


def targets(rows: list[Row], startup: dict[str, dict[str, Any]], peers: bool) -> list[Target]:
    """Each goal of the project with the figure reached; "the best" is in any precision and layout."""
    found = []

    def against(what: str, by: str, precision: str | None, other: str) -> float | None:
        return ratio(best(rows, what, by, precision), best(rows, what, other))

    for by, goals in (("torch", {"bf16": 2.0, "fp32": 1.2}), ("tensorflow", {"bf16": 1.4, "fp32": 1.0})):
        for precision, goal in goals.items():
            reached = against("train", by, precision, "diffusers")
            found.append(Target(f"{by}, training in {precision}: times the best diffusers", goal, reached))
    if peers:
        reached = against("train", "torch", None, "smalldiffusion")
        found.append(Target("torch, training: times the best smalldiffusion", 1.2, reached))
    for by, goal in (("torch", 1.7), ("tensorflow", 1.0)):
        reached = against("forward", by, None, "diffusers")
        found.append(Target(f"{by}, forward: times the best diffusers", goal, reached))
    for by in OURS:
        shares = [s for row in rows if row.contender.by == by and (s := row.host_share()) is not None]
        what = f"{by}: data, noise and logging, % of a training step"
        found.append(Target(what, 3.0, 100 * max(shares) if shares else None, at_most=True))
    for by, goal in (("torch", 1.0), ("tensorflow", 1.3)):
        for precision in PRECISIONS:
            reached = ratio(memory(rows, by, precision), memory(rows, "diffusers", precision))
            what = f"{by}, peak memory in {precision}: times diffusers' in its default layout"
            found.append(Target(what, goal, reached, at_most=True))
    for module, measured in startup.items():
        found.append(Target(f"{module} --help, seconds", 0.5, measured.get("seconds"), at_most=True))
        imported = measured.get("framework_imported")
        what = f"{module} --help: frameworks imported"
        found.append(Target(what, 0, None if imported is None else int(imported), at_most=True))
    return found
