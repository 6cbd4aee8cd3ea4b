"""What is compared: a quantity is one function of a side, and its gap between two sides is one number."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddpm_parity.tolerances import Tolerance

Arrays = Mapping[str, NDArray[np.generic]]  # the parts of a quantity by name, images [B, H, W, C]
Compute = Callable[[Any], Arrays]  # of a Side of sides.py

SMALL_PART = 1e-2


@dataclass(frozen=True)
class Gap:
    """How far apart two sides are, and where they are furthest apart."""

    size: float
    where: str


# --- Measures: two arrays and the largest magnitude of the whole quantity -> the gap of each element ---------

Measure = Callable[[NDArray[np.float64], NDArray[np.float64], float], NDArray[np.float64]]


def elementwise(a: NDArray[np.float64], b: NDArray[np.float64], largest: float) -> NDArray[np.float64]:
    """|a - b| / |b|, element by element, 0 / 0 being 0: where every digit of every number counts."""
    return np.where(a == b, 0.0, np.abs(a - b) / np.abs(b))


def of_the_largest(a: NDArray[np.float64], b: NDArray[np.float64], largest: float) -> NDArray[np.float64]:
    """|a - b| / max |b| of the part: sums of many terms lose digits where they happen to cancel."""
    return np.abs(a - b) / (np.abs(b).max() or 1.0)


def of_the_gradient(a: NDArray[np.float64], b: NDArray[np.float64], largest: float) -> NDArray[np.float64]:
    """As of_the_largest, but a part that is all small, a difference of large terms, is held to 1 % of the largest."""
    return np.abs(a - b) / (max(np.abs(b).max(), SMALL_PART * largest) or 1.0)


def absolute(a: NDArray[np.float64], b: NDArray[np.float64], largest: float) -> NDArray[np.float64]:
    """|a - b|: for weights, which are of order 1 by construction."""
    return np.abs(a - b)


def pixels(a: NDArray[np.float64], b: NDArray[np.float64], largest: float) -> NDArray[np.float64]:
    """The share of pixels that differ by one grey level; infinite if one differs by more."""
    apart = np.abs(a - b)
    return np.full(a.shape, np.inf if apart.max() > 1 else np.count_nonzero(apart) / apart.size)


# --- Quantities ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Quantity:
    """One row of the table: what each side computes, how two results are compared, and what gap passes."""

    subject: str
    name: str
    compute: Compute
    tolerance: Tolerance
    measure: Measure
    slow: bool = False  # minutes: `make test-slow`, and `make parity ARGS=--all`

    def __str__(self) -> str:
        return f"{self.subject}: {self.name}"

    def gap(self, a: Arrays, b: Arrays) -> Gap:
        """The largest gap of any element of any part; infinite where a part, a shape or a finite value is missing."""
        if a.keys() != b.keys():
            return Gap(np.inf, f"{', '.join(sorted(a.keys() ^ b.keys()))}, which one side lacks")
        largest = max(float(np.abs(np.asarray(part, np.float64)).max()) for part in b.values())
        worst = Gap(-1.0, "")
        for name in a:
            x, y = np.asarray(a[name], np.float64), np.asarray(b[name], np.float64)
            if x.shape != y.shape:
                return Gap(np.inf, f"{name}, of shapes {x.shape} and {y.shape}")
            if not (np.isfinite(x).all() and np.isfinite(y).all()):
                return Gap(np.inf, f"{name}, which is not finite")
            with np.errstate(divide="ignore", invalid="ignore"):
                gaps = self.measure(x, y, largest)
            index = np.unravel_index(gaps.argmax(), gaps.shape)
            if gaps[index] > worst.size:
                worst = Gap(float(gaps[index]), f"{name}{[int(i) for i in index] or ''}")
        return worst


@dataclass(frozen=True)
class Verdict:
    """The gaps of a quantity between its three pairs of sides, "torch, oracle" and so on, and whether they pass."""

    quantity: Quantity
    precision: str
    tolerance: float
    gaps: dict[tuple[str, str], Gap]

    @property
    def faults(self) -> list[str]:
        """One sentence for each pair that is too far apart."""
        return [
            f"{self.quantity}, {self.precision}: {a} against {b} differ by {gap.size:.3g}, more than "
            f"{self.tolerance:.3g}, at {gap.where}"
            for (a, b), gap in self.gaps.items()
            if not gap.size <= self.tolerance
        ]


def judge(quantity: Quantity, results: Mapping[str, Arrays], precision: str, device: str = "cpu") -> Verdict:
    """Compare the results of the sides, by name, each with each."""
    names = list(results)
    pairs = [(a, b) for index, a in enumerate(names) for b in names[index + 1 :]]
    gaps = {(a, b): quantity.gap(results[a], results[b]) for a, b in pairs}
    return Verdict(quantity, precision, quantity.tolerance.on(device, precision), gaps)
