"""How speed depends on batch size, width and sampling steps: three panels, for our two trees in both precisions."""

import dataclasses
from pathlib import Path
from typing import Any

from contenders import Contender
from crew import Crew
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from results import median
from rounds import Call, forward, progress, run, sampling, total_work, training

from ddpm_shared import images

BATCH_SIZES = (1, 4, 16, 64, 128, 256)
WIDTHS = (16, 32, 48, 64)  # base-channels, multiples of --num-groups
STEPS = (10, 25, 50, 100)
REPEATS = 3

Curves = dict[str, list[dict[str, Any]]]  # panel -> points {name, do, x, rates}

COLOURS = {  # Okabe and Ito 2008
    "ours torch bf16": "#D55E00",
    "ours torch fp32": "#E69F00",
    "ours tensorflow bf16": "#0072B2",
    "ours tensorflow fp32": "#56B4E9",
}
STYLES = {"train": "-", "forward": "--", "sample": "-"}


def measure(contenders: list[Contender], sample_images: int) -> Curves:
    """Time `contenders` at every point, interleaved at each; a crew of its own for each point, so none sees another."""
    found: Curves = {"batch size": [], "base channels": [], "sampling steps": []}
    for size in BATCH_SIZES:
        sized = [dataclasses.replace(c, batch_size=size) for c in contenders]
        found["batch size"] += _point(sized, size, f"batch size {size}")
    for width in WIDTHS:
        wide = [dataclasses.replace(c, base_channels=width) for c in contenders]
        found["base channels"] += _point(wide, width, f"base channels {width}")
    with Crew(contenders) as crew:
        for steps in STEPS:
            calls = [sampling(c.name, steps, sample_images) for c in contenders]
            found["sampling steps"] += _timed(crew, calls, steps, f"{steps} sampling steps")
    return found


def _point(contenders: list[Contender], x: int, title: str) -> list[dict[str, Any]]:
    calls = [kind(c.name, c.batch_size) for kind in (training, forward) for c in contenders]
    with Crew(contenders) as crew:
        return _timed(crew, calls, x, title)


def _timed(crew: Crew, calls: list[Call], x: int, title: str) -> list[dict[str, Any]]:
    with progress(total_work(calls, REPEATS), title) as bar:
        rates = run(crew, calls, REPEATS, bar)
    return [
        {"name": call.name, "do": call.do, "x": x, "images": call.images, "rates": found}
        for call, found in zip(calls, rates, strict=True)
        if found
    ]


def draw(path: Path, curves: Curves, preset: str) -> None:
    """Write the three panels as PNG."""
    picture = Figure(figsize=(13, 4.8), layout="constrained")
    for axes, (title, points) in zip(picture.subplots(1, 3), curves.items(), strict=True):
        for name, do in dict.fromkeys((point["name"], point["do"]) for point in points):
            line = [point for point in points if (point["name"], point["do"]) == (name, do)]
            rates = [median(point["rates"]) for point in line]
            in_seconds = do == "sample"
            y = [point["images"] / r if in_seconds else r for point, r in zip(line, rates, strict=True)]
            axes.plot([p["x"] for p in line], y, STYLES[do], color=COLOURS[name], marker="o", markersize=4)
        x = sorted({point["x"] for point in points})
        sampled = title == "sampling steps"
        axes.set_xscale("linear" if sampled else "log")
        axes.set_xticks(x, [str(value) for value in x])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.25)
        axes.set(xlabel=title, ylabel="seconds" if sampled else "images a second")
        axes.set_title(f"drawing {points[0]['images']} images" if sampled and points else f"speed by {title}")
    keys = [Line2D([], [], color=colour, label=name) for name, colour in COLOURS.items()]
    keys += [Line2D([], [], color="0.3", linestyle=STYLES[do], label=do) for do in ("train", "forward")]
    picture.legend(handles=keys, loc="outside lower center", ncols=len(keys), frameon=False)
    picture.suptitle(f"{preset}: medians of {REPEATS}")
    images.write_figure(path, picture)
