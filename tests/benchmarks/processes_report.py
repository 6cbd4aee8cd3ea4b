"""What processes.py found, as Markdown and as two pictures."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator
from processes_cells import COLUMNS, SOLVERS, TITLES, Cell, Framework, Record
from processes_order import STEPS
from table import NOTHING, figure, markdown

from ddpm_shared import files, images
from ddpm_shared.config.processes import PROCESS_FACTS, ProcessName
from ddpm_shared.config.samplers import PROCESS_SAMPLING, SAMPLER_FACTS, SamplerName
from ddpm_shared.errors import UserError
from ddpm_shared.images import Pixels
from ddpm_shared.pages import COLOURS

SHOWN_IMAGES = 8  # of each cell of processes-sheet.png
STYLES: dict[SamplerName, tuple[str, str]] = {  # colour, marker: open ones draw noise
    name: (COLOURS[i % len(COLOURS)], "osD^vPX<>*h"[i]) for i, name in enumerate(SOLVERS)
}


def read(out: Path) -> Record:
    """All that is finished: "cells", "floor" and "orders", of which any may be empty or None."""

    def optional(name: str) -> Any:
        return json.loads((out / name).read_text()) if (out / name).is_file() else None

    cells = [json.loads(file.read_text()) for file in sorted(out.glob("cells/*.json"))]
    cells.sort(key=lambda c: (c["framework"] != "torch", SOLVERS.index(c["sampler"]), c["budget"], c["fid"]))
    if len({json.dumps({**cell["settings"], "checkpoint": None}, sort_keys=True) for cell in cells}) > 1:
        raise UserError(f"{out / 'cells'} holds cells of several settings, which one table cannot show")
    return {"cells": cells, "floor": optional("floor.json"), "orders": optional("orders.json") or {}}


def write(out: Path) -> int:
    """Write processes.json, processes.md and the pictures of what is finished. Returns the exit code, 0."""
    report = read(out)
    files.write_json(out / "processes.json", report)
    text = document(report)
    files.write_atomically(out / "processes.md", text.encode())
    shown = [out / "processes.md"]
    if report["cells"]:
        images.write_figure(out / "processes.png", curves(report), dpi=90)
        images.write_figure(out / "processes-sheet.png", sheet(report, out), dpi=90)
        shown += [out / "processes.png", out / "processes-sheet.png"]
    print(text + "\n" + ", ".join(map(str, shown)))
    return 0


def budgets_of(cells: Iterable[Record]) -> list[int]:
    """All numbers of evaluations."""
    return sorted({cell["budget"] for cell in cells})


def columns_of(cells: Iterable[Record]) -> list[ProcessName]:
    """All processes, in the order of the table."""
    there = {cell["process"] for cell in cells}
    order = [*COLUMNS, *(name for name in PROCESS_FACTS if name not in COLUMNS)]
    return [name for name in order if name in there]


def best(cells: Iterable[Record], **wanted: Any) -> Record | None:
    """The cell of the smallest distance among those with these properties, e.g. over several grids."""
    found = [cell for cell in cells if all(cell[key] == value for key, value in wanted.items())]
    return min(found, key=lambda cell: cell["fid"], default=None)


# --- Tables -------------------------------------------------------------------------------------------------


def document(report: Record) -> str:
    """The tables."""
    parts = ["# Solvers in every process"]
    for framework, title in TITLES.items():
        cells = [cell for cell in report["cells"] if cell["framework"] == framework]
        if cells:
            parts += [
                f"## {title}",
                introduction(report, cells),
                distances(cells),
                "The best of each process:",
                winners(cells),
            ]
    if len({cell["framework"] for cell in report["cells"]}) > 1:
        parts += ["## PyTorch and TensorFlow, the same cells", beside(report["cells"])]
    if report["orders"]:
        parts += [
            "## Order of convergence",
            f"Observed on Gaussian data, from {STEPS[0]} to {STEPS[1]} steps:",
            orders(report["orders"]),
        ]
    return "\n\n".join([*parts, ""])


def introduction(report: Record, cells: list[Record]) -> str:
    """What was drawn, from what, and what the numbers are."""
    settings, floor = cells[0]["settings"], report["floor"]
    steps = {cell["process"]: cell["trained_steps"] for cell in cells}
    same = len(set(steps.values())) == 1
    told = f"{next(iter(steps.values())):,} steps" if same else ", ".join(f"{k}: {v:,} steps" for k, v in steps.items())
    grids = {cell["grid"] for cell in cells if cell["grid"] not in (None, PROCESS_SAMPLING[cell["process"]][1])}
    tried = f" Each is the best of its process's own grid and {', '.join(sorted(grids))}." if grids else ""
    real = settings["dataset"]
    return (
        f"Fréchet distance of {settings['images']:,} images with at most {' / '.join(map(str, budgets_of(cells)))} "
        f"evaluations of the network, in {settings['precision']}, seed {settings['seed']}, to the "
        f"{real['num_images']:,} training images of {real['name']}, by the shipped judge; as many real images of the "
        f"test set have {floor['fid']:.2f}. Networks of {told}.{tried}"
    )


def distances(cells: list[Record]) -> str:
    """The table: a row for each solver, a column for each process, in a cell the distance at each budget."""
    columns, budgets = columns_of(cells), budgets_of(cells)
    rows = []
    for sampler in SOLVERS:
        row = []
        for process in columns:
            found = [best(cells, sampler=sampler, process=process, budget=n) for n in budgets]
            some = any(found)
            row.append(" / ".join(figure(c and c["fid"], ".1f") for c in found) if some else NOTHING)
        if {*row} != {NOTHING}:
            rows.append([sampler, *row])
    return markdown(["solver", *(PROCESS_FACTS[name].title for name in columns)], rows)


def winners(cells: list[Record]) -> str:
    """The best solver of each process at each budget."""
    columns, budgets = columns_of(cells), budgets_of(cells)
    rows = []
    for n in budgets:
        found = [best(cells, process=process, budget=n) for process in columns]
        rows.append([str(n), *(f"{c['sampler']} {c['fid']:.1f}" if c else NOTHING for c in found)])
    return markdown(["evaluations", *(PROCESS_FACTS[name].title for name in columns)], rows)


def beside(cells: list[Record]) -> str:
    """Where both frameworks drew: their distances."""
    rows = []
    for cell in cells:
        same = {key: cell[key] for key in ("process", "sampler", "grid", "budget")}
        other = best(cells, framework="tf", **same) if cell["framework"] == "torch" else None
        if other:
            told = f"{cell['process']}, {cell['sampler']}, {cell['evaluations']} evaluations"
            rows.append([told, f"{cell['fid']:.2f}", f"{other['fid']:.2f}"])
    return markdown(["", *TITLES.values()], rows)


def orders(found: dict[str, Record]) -> str:
    """Over what each solver integrates, what N steps cost, and the order that each process shows."""
    columns = [name for name in COLUMNS if any(name in row for row in found.values())]
    rows = []
    for sampler in [name for name in SOLVERS if name in found]:
        facts, cost = SAMPLER_FACTS[sampler], Cell("torch", "vp", sampler, "uniform", 1).cost(100) - 100
        each = facts.evaluations
        more = cost - 100 * (each - 1)
        evaluations = ("N" if each == 1 else f"{each}N") + (f" {'+' if more > 0 else '-'} {abs(more)}" if more else "")
        rows.append([sampler, facts.over, evaluations, *(figure(found[sampler].get(name), ".2f") for name in columns)])
    return markdown(["solver", "over", "evaluations", *(PROCESS_FACTS[name].title for name in columns)], rows)


# --- Pictures -----------------------------------------------------------------------------------------------


def curves(report: Record) -> Figure:
    """Distance over evaluations: a panel for each process, a line for each solver."""
    framework = report["cells"][0]["framework"]
    cells = [cell for cell in report["cells"] if cell["framework"] == framework]
    columns, budgets = columns_of(cells), budgets_of(cells)
    picture = Figure(figsize=(3.1 * len(columns) + 2.2, 4.4), layout="constrained")
    panels = picture.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    for axes, process in zip(panels, columns, strict=True):
        for sampler in SOLVERS:
            found = [best(cells, process=process, sampler=sampler, budget=n) for n in budgets]
            line = [cell for cell in found if cell]
            if line:
                colour, marker = STYLES[sampler]
                style = {"color": colour, "marker": marker, "markersize": 5, "linewidth": 1.1}
                if SAMPLER_FACTS[sampler].noisy:
                    style |= {"markerfacecolor": "white", "linestyle": "--"}
                axes.loglog([c["evaluations"] for c in line], [c["fid"] for c in line], label=sampler, **style)
        axes.axhline(report["floor"]["fid"], color="0.35", linestyle=":", label="real images")
        axes.set(title=PROCESS_FACTS[process].title, xlabel="evaluations")
        axes.set_xticks(budgets, [str(n) for n in budgets])
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.minorticks_off()
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelleft=True)
    panels[0].set_ylabel("Fréchet distance")
    handles: dict[str, Any] = {}
    for axes in panels:
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    picture.legend(handles.values(), handles.keys(), loc="outside right center", frameon=False)
    return picture


def sheet(report: Record, out: Path) -> Figure:
    """The same first images: a row for each process, by its best solver, a group of columns for each budget."""
    framework: Framework = report["cells"][0]["framework"]
    cells = [cell for cell in report["cells"] if cell["framework"] == framework]
    columns, budgets = columns_of(cells), budgets_of(cells)
    high = math.ceil(SHOWN_IMAGES / 4)
    picture = Figure(figsize=(1.0 + 2.4 * len(budgets), (0.3 + 0.62 * high) * len(columns)), layout="constrained")
    panels = picture.subplots(len(columns), len(budgets), squeeze=False)
    for row, process in zip(panels, columns, strict=True):
        for axes, n in zip(row, budgets, strict=True):
            cell = best(cells, process=process, budget=n)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            if cell:
                shown = images.grid(pixels_of(out, cell["name"])[:SHOWN_IMAGES], 4, scale=1, gap=1)
                axes.imshow(np.squeeze(shown, -1) if shown.shape[-1] == 1 else shown, cmap="gray", vmin=0, vmax=255)
                axes.set_title(f"{cell['sampler']}, {cell['evaluations']}", fontsize="small")
        row[0].set_ylabel(PROCESS_FACTS[process].title)
    return picture


def pixels_of(out: Path, name: str) -> Pixels:
    """The images of a finished cell. Raises UserError where they are no more."""
    file = out / "images" / f"{name}.npz"
    if (found := files.read_npz(file)) is None:
        raise UserError(f"the images of a finished cell are not in {file}: choose another --out")
    return found["images"]
