"""Tables for a terminal."""

from collections.abc import Sequence
from typing import Any


def aligned(rows: Sequence[Sequence[Any]], digits: int) -> list[str]:
    """A line for each row, the first column flush left and the others right; floats have so many significant digits."""
    cells = [["none" if v is None else f"{v:.{digits}g}" if isinstance(v, float) else str(v) for v in r] for r in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *(map(str.rjust, row[1:], widths[1:]))]) for row in cells]
