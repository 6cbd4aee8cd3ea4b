"""What guidance.py found, as Markdown and as two pictures."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator
from numpy.typing import NDArray
from results import median
from table import figure, markdown

from ddpm_shared import files, images
from ddpm_shared.errors import UserError
from ddpm_shared.images import Pixels
from ddpm_shared.pages import COLOURS

Record = dict[str, Any]
Framework = Literal["torch", "tf"]

TITLES: dict[Framework, str] = {"torch": "PyTorch", "tf": "TensorFlow"}
STYLES: dict[Framework, Record] = {  # TensorFlow's markers are open and around PyTorch's, since the points coincide
    "torch": {"color": COLOURS[0], "markersize": 5},
    "tf": {"color": COLOURS[1], "markersize": 10, "fillstyle": "none", "linestyle": ":"},
}
INTERVAL_MARKERS = "sD^vP"
COLUMNS = 10  # of the sheet: an image of each class
WHITE = 250  # a pixel of this level or more is white
QUALITIES = {  # title -> key, format
    "FID": ("fid_fashion", ".2f"),
    "KID": ("kid_fashion", ".3f"),
    "precision": ("precision", ".3f"),
    "recall": ("recall", ".3f"),
    "density": ("density", ".2f"),
    "coverage": ("coverage", ".3f"),
    "class accuracy": ("accuracy", ".3f"),
    "white pixels": ("white", ".2%"),
}


@dataclass(frozen=True)
class Cell:
    """What one set of images is drawn by."""

    framework: Framework
    scale: float | None  # of guidance; None: by the unconditional model
    interval: tuple[int, int] | None = None  # first and last t of guidance; None: all

    @property
    def name(self) -> str:
        """Its folder."""
        kind = "unconditional" if self.scale is None else f"s{self.scale:g}"
        return "-".join([self.framework, kind, *map(str, self.interval or ())])


def saved(folder: Path) -> dict[str, NDArray[Any]]:
    """The images and labels of a cell. Raises UserError where they are no more."""
    if (found := files.read_npz(folder / "samples.npz")) is None:
        raise UserError(f"the images of a finished cell are not in {folder}: choose another --out")
    return found


def read(out: Path) -> Record:
    """All that is finished: "cells", "floor", "audit" and "seconds", of which any may be empty or None."""

    def optional(name: str) -> Any:
        return json.loads((out / name).read_text()) if (out / name).is_file() else None

    records = [json.loads(file.read_text()) for file in out.glob("cells/*/record.json")]
    finished = [record for record in records if "fid_fashion" in record]
    order = list(TITLES)
    finished.sort(key=lambda c: (c["scale"] is None, c["scale"], c["interval"] or [], order.index(c["framework"])))
    seconds = [json.loads(file.read_text()) for file in out.glob("seconds-*.json")]
    seconds.sort(key=lambda s: (s["precision"], order.index(s["framework"])))
    return {"cells": finished, "floor": optional("floor.json"), "audit": optional("audit.json"), "seconds": seconds}


def write(out: Path) -> int:
    """Write guidance.json, guidance.md and the pictures of what is finished. Returns the exit code, 0."""
    report = read(out)
    for each in differing(report["cells"], out):
        each["cell"]["differing_from_torch"] = each["judged"]
        each["cell"]["differing_from_torch_fp32"] = each["shown"]
    files.write_json(out / "guidance.json", report)
    text = document(report)
    files.write_atomically(out / "guidance.md", text.encode())
    shown = [out / "guidance.md"]
    if report["cells"]:
        images.write_figure(out / "guidance.png", curves(report))
        images.write_figure(out / "guidance-sheet.png", sheet(report, out))
        shown += [out / "guidance.png", out / "guidance-sheet.png"]
    print(text + "\n" + ", ".join(map(str, shown)))
    return 0


def how(cell: Record) -> str:
    """E.g. "s = 3 (w = 2), t 200 .. 700"."""
    if cell["scale"] is None:
        return "unconditional model"
    told = f"s = {cell['scale']:g} (w = {cell['scale'] - 1:g})"
    return f"{told}, t {cell['interval'][0]} .. {cell['interval'][1]}" if cell["interval"] else told


# --- Tables -------------------------------------------------------------------------------------------------


def document(report: Record) -> str:
    """The tables."""
    parts = ["# What guidance does"]
    if report["cells"]:
        settings = report["cells"][0]["settings"]
        parts += [
            f"{settings['images']:,} images of each, seed {settings['seed']}, {settings['steps']} steps of "
            f"{settings['sampler']}, {settings['precision']}; beside {settings['dataset']['num_images']:,} training "
            f"images of {settings['dataset']['name']}; PyTorch / TensorFlow where they differ:",
            qualities(report),
            "Accuracy by class, PyTorch where it drew:",
            by_class(report),
        ]
        if rows := [cell for cell in report["cells"] if "differing_from_torch" in cell]:
            parts += ["Pixels that differ between the frameworks:", differences(rows)]
    if report["audit"]:
        parts += [f"The rows of the label table after {report['audit']['steps']:,} steps:", rows_of(report["audit"])]
    if report["seconds"]:
        warnings = {each["warning"] for each in report["seconds"] if each["warning"]}
        parts += [*(f"**Warning:** {each}." for each in sorted(warnings)), "Milliseconds of a step:", cost(report)]
    return "\n\n".join([*parts, ""])


def qualities(report: Record) -> str:
    """Every number of every way of drawing, PyTorch's / TensorFlow's where they differ, and of real images."""
    ways: dict[str, list[Record]] = {}
    for cell in report["cells"]:
        ways.setdefault(how(cell), []).append(cell)

    def line(cells: list[Record]) -> list[str]:
        shown = [[figure(cell.get(key), form) for cell in cells] for key, form in QUALITIES.values()]
        return [" / ".join(values if len(set(values)) > 1 else values[:1]) for values in shown]

    rows = []
    for told, cells in ways.items():
        by = "both" if len(cells) == len(TITLES) else TITLES[cells[0]["framework"]]
        rows.append([told, by, str(cells[0]["evaluations"]), *line(cells)])
    if report["floor"]:
        rows.append(["floor: real images", "", "", *line([report["floor"]])])
    return markdown(["", "drawn by", "evaluations", *QUALITIES], rows)


def by_class(report: Record) -> str:
    """The share of a class's images that the classifier sees as it."""
    names = (report["floor"] or {}).get("class_names") or [str(k) for k in range(COLUMNS)]
    first = {how(cell): cell for cell in reversed(report["cells"]) if cell["accuracy_of"]}
    rows = [[told, *(figure(share, ".3f") for share in cell["accuracy_of"])] for told, cell in reversed(first.items())]
    return markdown(["", *names], rows)


def differing(cells: list[Record], out: Path) -> list[Record]:
    """For each cell of TensorFlow's whose sister is there: "cell", and (pixels, of all, largest) twice.

    "judged": of the images that are judged; "shown": of those of the sheet, in fp32.
    """
    found = []
    for cell in cells:
        sister = {**cell, "framework": "torch"}
        if cell["framework"] == "tf" and any(name_of(other) == name_of(sister) for other in cells):
            parts = {
                part: apart(*(saved(out / folder / name_of(c))["images"] for c in (cell, sister)))
                for part, folder in (("judged", "cells"), ("shown", "sheet"))
            }
            found.append({"cell": cell, **parts})
    return found


def name_of(cell: Record) -> str:
    """The folder of a cell's record."""
    interval = tuple(cell["interval"]) if cell["interval"] else None
    return Cell(cell["framework"], cell["scale"], interval).name


def apart(a: Pixels, b: Pixels) -> list[int]:
    """How many pixels differ, of how many, and by how many levels at most."""
    difference = np.abs(a.astype(int) - b)
    return [int((difference > 0).sum()), a.size, int(difference.max())]


def differences(cells: list[Record]) -> str:
    """How many pixels of the judged images and of the sheet's differ, and by how much."""

    def told(found: list[int]) -> list[str]:
        return [f"{found[0]:,} of {found[1]:,}", str(found[2])]

    rows = [[how(c), *told(c["differing_from_torch_fp32"]), *told(c["differing_from_torch"])] for c in cells]
    precision = cells[0]["settings"]["precision"]
    return markdown(["", "sheet, fp32", "largest, levels", f"judged, {precision}", "largest, levels"], rows)


def rows_of(audit: Record) -> str:
    """What trained each row of the label table."""
    keys = ("names", "images", "steps_with", "way")
    rows = [[name, f"{n:,}", f"{s:,}", f"{w:.3f}"] for name, n, s, w in zip(*(audit[k] for k in keys), strict=True)]
    return markdown(["row", "images", "steps with any", "way from the initial row (rms)"], rows)


def cost(report: Record) -> str:
    """Medians of a step, and a guided one as a multiple of the conditional one."""
    ways = list(report["seconds"][0]["seconds_a_step"])
    rows = []
    for each in report["seconds"]:
        medians = [median(each["seconds_a_step"][way]) or 0.0 for way in ways]
        told = f"{TITLES[each['framework']]}, {each['precision']}"
        rows.append([told, *(f"{1000 * value:.0f}" for value in medians), f"{medians[2] / medians[0]:.2f}"])
    return markdown([f"B = {report['seconds'][0]['batch_size']}", *ways, "guided : conditional"], rows)


# --- Pictures -----------------------------------------------------------------------------------------------


def curves(report: Record) -> Figure:
    """Fréchet distance, class accuracy, precision and recall over the scale, in both conventions."""
    picture = Figure(figsize=(12, 8.6), layout="constrained")
    panels = picture.subplots(2, 2).ravel()
    for axes, title in zip(panels, ("FID", "class accuracy", "precision", "recall"), strict=True):
        panel(axes, report, title)
    panels[0].set_yscale("log")
    panels[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panels[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panels[0].minorticks_off()
    names = dict(zip(*reversed(panels[0].get_legend_handles_labels()), strict=True))
    picture.legend(names.values(), names.keys(), loc="outside lower center", ncols=4, frameon=False)
    number = report["cells"][0]["settings"]["images"]
    picture.suptitle(f"{number:,} images of each: guidance by s = w + 1 (the paper's w is on top)")
    return picture


def panel(axes: Axes, report: Record, title: str) -> None:
    """One number over the scale."""
    key, _ = QUALITIES[title]
    spans = sorted({tuple(cell["interval"]) for cell in report["cells"] if cell["interval"]})
    for framework, style in STYLES.items():
        own = [cell for cell in report["cells"] if cell["framework"] == framework and cell[key] is not None]
        line = [cell for cell in own if cell["scale"] is not None and not cell["interval"]]
        points = [cell["scale"] for cell in line], [cell[key] for cell in line]
        axes.plot(*points, marker="o", label=TITLES[framework], **style)
        for marker, (first, last) in zip(INTERVAL_MARKERS, spans, strict=False):
            within = [cell for cell in own if cell["interval"] == [first, last]]
            points = [cell["scale"] for cell in within], [cell[key] for cell in within]
            told = f"{TITLES[framework]}, t {first} .. {last} only"
            axes.plot(*points, marker=marker, **style | {"linestyle": "none", "label": told})
        for cell in own if framework == "torch" else []:
            if cell["scale"] is None:
                axes.axhline(cell[key], color=COLOURS[2], linestyle="-.", label="unconditional model")
    if report["floor"]:
        axes.axhline(report["floor"][key], color="0.35", linestyle="--", label="floor: real images")
    axes.set(xlabel="s (1: conditional)", ylabel=title)
    axes.secondary_xaxis("top", functions=(lambda s: s - 1, lambda w: w + 1)).set_xlabel("w")
    axes.grid(alpha=0.25)


def sheet(report: Record, out: Path) -> Figure:
    """Rows: the ways of drawing. Columns: images of one noise and class, by each framework, and where they differ."""
    rows = list(dict.fromkeys(map(how, report["cells"])))
    drawn: dict[str, dict[str, Pixels]] = {title: {} for title in TITLES.values()}
    for cell in report["cells"]:
        pixels = saved(out / "sheet" / name_of(cell))["images"]
        drawn[TITLES[cell["framework"]]][how(cell)] = pixels
    groups = {title: found for title, found in drawn.items() if found}
    if len(groups) == len(TITLES):
        a, b = groups.values()
        both = {row: ((a[row] != b[row]) * 255).astype(np.uint8) for row in rows if row in a and row in b}
        groups["pixels that differ"] = both
    picture = Figure(figsize=(1.9 + 4 * len(groups), 0.5 + 0.4 * len(rows)), layout="constrained")
    for axes, (title, found) in zip(picture.subplots(1, len(groups), squeeze=False)[0], groups.items(), strict=True):
        blank = np.full_like(next(iter(found.values())), 255)
        canvas = images.grid(np.concatenate([found.get(row, blank) for row in rows]), COLUMNS, scale=2, gap=2)
        axes.imshow(canvas, cmap="gray", vmin=0, vmax=255, interpolation="none")
        middles = (np.arange(len(rows)) + 0.5) * canvas.shape[0] / len(rows)
        axes.set(title=title, xticks=[], yticks=[])
        if title == "pixels that differ":
            axes.set_title(f"{title}, of {blank.size:,}")
            axes.set_yticks(middles, [f"{(found[row] > 0).sum() if row in found else '-'}" for row in rows])
            axes.yaxis.tick_right()
        elif axes.get_subplotspec().is_first_col():
            axes.set_yticks(middles, rows)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    return picture
