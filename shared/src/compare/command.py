"""The command line of a comparison: read the runs, compare them, write the files, print the tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ddpm_shared import claims, command_line, files, images, pages, validation
from ddpm_shared.compare import charts, parity_table, report, sample_grids, tables
from ddpm_shared.compare.comparison import compare
from ddpm_shared.compare.run_records import RunRecord, read_run
from ddpm_shared.config.help import default_is
from ddpm_shared.errors import UserError
from ddpm_shared.records import folder


@dataclass(frozen=True)
class Command:
    """Compare training runs: print a table, write report.html, comparison.json and loss.png."""

    runs: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="A B [C ...]")] = ()
    """Two or more run folders or metrics.json files; the first is the baseline."""
    out: Annotated[str | None, default_is("runs/compare/<utc>-<frameworks>")] = None
    """Folder to write to."""
    allow_different: bool = False
    """Compare even runs whose data, seed or settings differ."""
    parity: Annotated[str | None, default_is("runs/parity/parity.json, if it is there")] = None
    """A parity.json to show in the report."""


def main(argv: Sequence[str] | None = None) -> int:
    """Compare as the flags say; 0, however large the gaps. Raises UserError on bad input, OSError on a full disk."""
    command = command_line.parse_flags(Command, argv, "ddpm_shared.compare")
    if len(command.runs) < 2:
        raise UserError(f"a comparison needs two runs or more, not {len(command.runs)}: name the run folders")
    compared = [read_run(path) for path in command.runs]
    comparison = compare(compared, command.allow_different)
    if command.parity or parity_table.DEFAULT.is_file():
        comparison["parity"] = parity_table.read(Path(command.parity or parity_table.DEFAULT))
    grids = []
    for pair, run in zip(comparison["pairs"], compared[1:], strict=True):
        folders = compared[0].folder, run.folder
        config, classes = run.metrics["config"], run.metrics["dataset"].get("class_names", ())
        grids.append(sample_grids.compare(*folders, (pair["a"], pair["b"]), config, classes))
        pair["samples"] = grids[-1].record
    wrong = validation.fault(comparison, "comparison")
    assert wrong is None, wrong  # what we publish is what we say we publish

    out = folder.claim_output(command.out, "compare", _frameworks(compared))
    with claims.writing(out):
        files.write_json(out / "comparison.json", comparison)
        drawn = charts.curves(compared)
        page = report.render(comparison, drawn, [grid.pictures for grid in grids])
        files.write_atomically(out / "report.html", pages.to_bytes(page))
        images.write_figure(out / "loss.png", charts.overview(drawn))
    print(f"{tables.text(comparison)}\n\n{out / 'report.html'}, {out / 'comparison.json'}, {out / 'loss.png'}")
    return 0


def _frameworks(compared: Sequence[RunRecord]) -> str:
    return "-".join(dict.fromkeys(run.metrics["framework"] for run in compared))
