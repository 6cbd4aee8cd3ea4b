"""What workers.py found, as tables, and their places in a page."""

from pathlib import Path
from typing import Any, get_args

import workers_model
from results import median, ratio
from table import figure, markdown, spread
from workers_model import Cluster, numbers_of

from ddpm_shared import files
from ddpm_shared.config import Reduce
from ddpm_shared.errors import UserError
from ddpm_shared.frameworks import FRAMEWORKS

Record = dict[str, Any]

REDUCES: tuple[Reduce, ...] = get_args(Reduce)
PLACES = ("scaling", "gather", "shards", "model")


def tables(report: Record) -> dict[str, str]:
    """What there is, by stage, as Markdown."""
    found = {}
    for stage, table in (("scaling", scaling_table), ("gather", gather_table), ("shards", shards_table)):
        units = {
            name: report["units"][f"{stage} {name}"] for name in FRAMEWORKS if f"{stage} {name}" in report["units"]
        }
        if units:
            warnings = sorted({f"**{unit['warning']}.**" for unit in units.values() if unit["warning"]})
            found[stage] = "\n\n".join([table(units), about(units), *warnings])
    if "model" in report:
        found["model"] = workers_model.document(Cluster(**report["model"]["cluster"]), report["model"])
    return found


def about(units: dict[str, Record]) -> str:
    """What was measured, and on what."""
    first = next(iter(units.values()))
    settings, computer, packages = first["settings"], first["machine"], first["environment"]["packages"]
    versions = ", ".join(f"{FRAMEWORKS[name].title} {packages[name]}" for name in units)
    on = f"{computer['cpu']}, {computer['cores']} cores; {versions}."
    if "preset" not in settings:
        return f"Medians of {settings['repeats']} rounds. {on}"
    network = "`{preset}`, batches of {batch_size}, {precision}".format(**settings)
    return f"{network}; medians of {settings['repeats']} rounds, with the spread of the middle half. {on}"


def scaling_table(units: dict[str, Record]) -> str:
    """A row for each team; ratios within a framework."""
    rows = []
    for unit in units.values():
        (_, fast), (_, slow), *_ = unit["rates"].items()
        for row, rates in unit["rates"].items():
            ratios = [ratio(median(rates), median(other)) for other in (fast, slow)]
            rows.append([row, spread(rates), *(figure(each, ".2f") for each in ratios)])
    many = next(iter(units.values()))["settings"]["workers"]
    columns = ["", "images/s", f"x one process of {many} threads", "x one process of 1 thread"]
    return markdown(columns, rows)


def gather_table(units: dict[str, Record]) -> str:
    """A row for each size; sent is what a worker sends in a step, by formula, and as the loopback counted it."""
    rows = []
    for framework, unit in units.items():
        for preset in unit["settings"]["sizes"]:
            numbers, cells = numbers_of(preset), []
            for reduce in REDUCES:
                rate, sent = median(unit["rates"][f"{preset} {reduce}"]), unit["traffic"].get(f"{preset} {reduce}")
                formula = workers_model.received(reduce, unit["settings"]["workers"], numbers)
                cells += [figure(formula / 1e6, ",.1f"), figure(sent and sent / 1e6, ",.1f")]
                cells.append(figure(rate and 1e3 / rate, ",.1f"))
            exact, fast = (median(unit["rates"][f"{preset} {reduce}"]) for reduce in REDUCES)
            rows.append(
                [f"{FRAMEWORKS[framework].title}, {preset}", f"{numbers:,}", *cells, figure(ratio(fast, exact), ".2f")]
            )
    columns = ["", "floats"]
    for reduce in REDUCES:
        columns += [f"{reduce}: MB to send", f"{reduce}: MB counted", f"{reduce}: ms"]
    return markdown([*columns, "exact / fast"], rows)


def shards_table(units: dict[str, Record]) -> str:
    """A row for each number of shards; ratios within a framework."""
    columns, rows = ["shards"], []
    for framework in units:
        columns += [f"{FRAMEWORKS[framework].title}, images/s", "x 1 shard"]
    for parts in next(iter(units.values()))["settings"]["shards"]:
        cells = [f"{parts}"]
        for unit in units.values():
            rates = unit["rates"].get(f"{parts}", [])
            cells += [spread(rates), figure(ratio(median(rates), median(unit["rates"].get("1", []))), ".2f")]
        rows.append(cells)
    return markdown(columns, rows)


def put(page: Path, found: dict[str, str]) -> None:
    """Write the tables into their places in a page.

    Raises:
        UserError: the page lacks the place of a table, of those found or of others.
        OSError: there is no such page.
    """
    text = page.read_text("utf-8")
    for stage in PLACES:
        begin, end = f"<!-- {stage}: written by tests/benchmarks/workers.py -->", f"<!-- end of {stage} -->"
        before, begins, rest = text.partition(begin)
        _, ends, after = rest.partition(end)
        if not (begins and ends):
            raise UserError(f"--page {page}: it has no place for {stage}; it needs the two lines {begin} and {end}")
        if stage in found:
            text = f"{before}{begin}\n{found[stage]}\n{end}{after}"
    files.write_atomically(page, text.encode())
