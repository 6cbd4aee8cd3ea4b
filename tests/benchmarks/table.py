"""The report in Markdown, padded so that it reads in a terminal too."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from results import Row, Target, best, memory, middle_half, ratio

NOTHING = "-"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; the first column flush left, the others right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    rule = [("-" * (w - 1)) + ":" for w in widths]
    rule[0] = "-" * widths[0]

    def line(cells: Sequence[str]) -> str:
        first, *others = cells
        return "| " + " | ".join([first.ljust(widths[0]), *map(str.rjust, others, widths[1:])]) + " |"

    return "\n".join(map(line, [header, rule, *rows]))


def figure(value: float | None, form: str) -> str:
    """The number in that format, or a dash for none."""
    return NOTHING if value is None else format(value, form)


def spread(values: Sequence[float]) -> str:
    """E.g. "96 (94 .. 98)": the median, and between what the middle half lies."""
    if not values:
        return NOTHING
    middle, (low, high) = float(np.median(values)), middle_half(values)
    form = ",.0f" if middle >= 100 else ".1f" if middle >= 10 else ".2f"
    return f"{middle:{form}} ({low:{form}} .. {high:{form}})" if len(values) > 1 else f"{middle:{form}}"


def contenders(rows: list[Row], peaks: dict[str, dict[str, float]]) -> str:
    """One line a contender; "x diffusers" is against its best precision and layout, of memory in this precision."""

    def against(row: Row, what: str) -> str:
        return figure(ratio(row.rate(what), best(rows, what, "diffusers")), ".2f")

    def of_peak(row: Row, what: str) -> str:
        share = ratio(row.gflops(what), peaks.get(row.contender.precision, {}).get("conv"))
        return figure(None if share is None else 100 * share, ".0f")

    columns: dict[str, Callable[[Row], str]] = {
        "contender": lambda row: row.contender.name,
        "parameters": lambda row: figure(row.facts.get("parameters"), ",d"),
        "training img/s": lambda row: spread(row.rates.get("train", [])),
        "x diffusers": lambda row: against(row, "train"),
        "forward img/s": lambda row: spread(row.rates.get("forward", [])),
        "x diffusers ": lambda row: against(row, "forward"),
    }
    for what in sorted({w for row in rows for w in row.rates if w.startswith("sample")}, key=len):
        columns[f"{what.split()[1]}-step sampling img/s"] = lambda row, what=what: spread(row.rates.get(what, []))
    columns |= {
        "peak MiB": lambda row: figure(row.peak_memory_mib, ",.0f"),
        "x diffusers  ": lambda row: figure(
            ratio(row.peak_memory_mib, memory(rows, "diffusers", row.contender.precision)), ".2f"
        ),
        "MFLOP an image": lambda row: figure(ratio(row.facts.get("flops"), 1e6), ",.0f"),
        "% of peak, training": lambda row: of_peak(row, "train"),
        "forward": lambda row: of_peak(row, "forward"),
    }
    return markdown([name.strip() for name in columns], [[cell(row) for cell in columns.values()] for row in rows])


def host(rows: list[Row]) -> str:
    """What a training step of ours does outside the network."""
    ours = [row for row in rows if row.host_ms]
    header = ["outside the network, ms a step", "data", "of it noise", "to tensors", "logging", "% of a step"]
    cells = [
        [row.contender.name]
        + [figure(row.host_ms[part], ".2f") for part in ("data", "noise", "to_batch", "logging")]
        + [figure(None if (share := row.host_share()) is None else 100 * share, ".2f")]
        for row in ours
    ]
    return markdown(header, cells)


def startup(found: dict[str, dict[str, Any]]) -> str:
    """How long the commands take to print their help."""
    cells = [
        [
            f"python -m {module} --help",
            figure(one.get("seconds"), ".2f"),
            one.get("error") or ("yes" if one["framework_imported"] else "no"),
        ]
        for module, one in found.items()
    ]
    return markdown(["start-up", "seconds", "framework imported"], cells)


def targets(found: list[Target]) -> str:
    """Goal, figure and verdict."""
    cells = [
        [t.what, f"{'at most' if t.at_most else 'at least'} {t.goal:g}", figure(t.reached, ".2f"), t.verdict]
        for t in found
    ]
    return markdown(["target", "goal", "reached", "verdict"], cells)
