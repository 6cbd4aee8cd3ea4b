"""How an answer is checked: run it, compare it, and recognise what went wrong.

    @exercise
    def square(answer):
        compare(answer(3.0), 9.0, {"that is twice the number": 6.0})

A check returns a CheckResult, which a notebook shows as one line; it never ends in a traceback.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

CLOSE = 1e-6  # of the largest number: an answer in float32 is right


@dataclass(frozen=True)
class CheckResult:
    """Whether an answer is right, and if not, what is off."""

    right: bool
    text: str

    def __repr__(self) -> str:
        return f"{'✓' if self.right else '✗'} {self.text}"


class Off(Exception):  # noqa: N818 (it is a finding)
    """What is off in an answer."""


def exercise(check: Callable[..., None]) -> Callable[..., CheckResult]:
    """Make a check of a function that raises Off, or what the answer raises, or nothing."""

    @functools.wraps(check)
    def checked(*arguments: Any) -> CheckResult:
        try:
            check(*arguments)
        except Off as off:
            return CheckResult(False, str(off))
        except Exception as error:
            return CheckResult(False, f"your code stops with {type(error).__name__}: {error}")
        return CheckResult(True, "right")

    return checked


def require_written(*found: object) -> None:
    """Raise Off where nothing was returned yet, or the dots."""
    if any(each is None or each is Ellipsis for each in found):
        raise Off("nothing yet: write the answer in place of the dots, and run both cells again")


def column(values: Any) -> Any:
    """[B] numbers against a batch of images, [B, 1, 1, 1]."""
    return values[:, None, None, None]


def compare(found: object, right: object, mistakes: Mapping[str, object] | None = None) -> None:
    """Compare an answer with the right one, and if it differs, with the results of usual mistakes.

    Args:
        found: what the learner's code returned.
        right: what it should be, a number or an array.
        mistakes: what to say -> the result that tells this mistake.

    Raises:
        Off: it is not right.
    """
    require_written(found)
    values = _numbers(found)
    expected = _numbers(right)
    if values.shape != expected.shape:
        raise Off(f"the shape is {_shape(values)}, expected {_shape(expected)}")
    if not np.isfinite(values).all():
        raise Off("some of it is not a finite number: look for a division by 0 or the root of a negative number")
    if _equal(values, expected):
        return
    for said, result in (mistakes or {}).items():
        if _equal(values, _numbers(result)):
            raise Off(said)
    where = np.unravel_index(np.argmax(np.abs(values - expected)), values.shape)
    place = f" at {[int(i) for i in where]}" if values.shape else ""
    raise Off(f"not yet: {values[where]:.6g}{place}, expected {expected[where]:.6g}")


def _numbers(value: object) -> Any:
    try:
        return np.asarray(value, np.float64)
    except (TypeError, ValueError):
        raise Off(f"that is a {type(value).__name__}, expected numbers") from None


def _shape(values: Any) -> str:
    return str(list(values.shape)) if values.shape else "a single number"


def _equal(a: Any, b: Any) -> bool:
    return a.shape == b.shape and bool(np.abs(a - b).max() <= CLOSE * max(np.abs(b).max(), 1e-12))
