"""Tables for a terminal."""

from collections.abc import Sequence
from typing import Any

from ddpm_shared.reading import one_line


def aligned(rows: Sequence[Sequence[Any]], digits: int) -> list[str]:
    """A line for each row, the first column flush left and the others right; floats have so many significant digits.

    Text may come from foreign files: it stays on its line.
    """
    cells = [
        ["none" if v is None else f"{v:.{digits}g}" if isinstance(v, float) else one_line(v) for v in row]
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *(map(str.rjust, row[1:], widths[1:]))]) for row in cells]
