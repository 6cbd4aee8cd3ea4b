"""What quality.py found, as Markdown and as two pictures."""

from pathlib import Path
from typing import Any, Literal

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator
from table import figure, markdown

from ddpm_shared import files, images
from ddpm_shared.config.samplers import Spacing
from ddpm_shared.config.sampling import Sampling
from ddpm_shared.errors import UserError
from ddpm_shared.images import Pixels

Record = dict[str, Any]
Name = Literal["ancestral", "ddim", "ddim-eta-1", "plms", "dpmpp_2m", "dpmpp_2m_sde", "heun"]

CONTENDERS: dict[Name, tuple[str, Sampling, str, str]] = {  # label, sampling, colour (Okabe and Ito 2008), marker
    "ancestral": ("ancestral", Sampling("ancestral"), "#000000", "o"),
    "ddim": ("ddim", Sampling("ddim"), "#0072B2", "s"),
    "ddim-eta-1": ("ddim, eta 1", Sampling("ddim", eta=1.0), "#56B4E9", "D"),
    "plms": ("plms", Sampling("plms"), "#009E73", "^"),
    "dpmpp_2m": ("dpmpp_2m", Sampling("dpmpp_2m"), "#D55E00", "v"),
    "dpmpp_2m_sde": ("dpmpp_2m_sde", Sampling("dpmpp_2m_sde"), "#E69F00", "P"),
    "heun": ("heun", Sampling("heun"), "#CC79A7", "X"),
}
LINES: dict[Spacing, str] = {"trailing": "-", "leading": "-.", "linspace": ":"}
SHOWN_STEPS, SHOWN_IMAGES = (5, 10, 20, 50), 6  # of quality-grid.png


def lines(report: Record) -> dict[str, list[Record]]:
    """What a sampler is called -> its cells, those of few steps first; with several spacings, a line for each."""
    cells = sorted(report["cells"].values(), key=lambda cell: cell["steps"])
    spacings = [spacing for spacing in LINES if spacing in {cell["spacing"] for cell in cells}]
    found = {}
    for name, (label, *_) in CONTENDERS.items():
        for spacing in spacings:
            line = [cell for cell in cells if (cell["sampler"], cell["spacing"]) == (name, spacing)]
            found[f"{label}, {spacing}" if len(spacings) > 1 else label] = line
    return {label: line for label, line in found.items() if line}


def steps_of(report: Record) -> list[int]:
    """All numbers of steps that any sampler took."""
    return sorted({cell["steps"] for cell in report["cells"].values()})


def document(report: Record) -> str:
    """The tables in Markdown, padded so that they read in a terminal too."""
    floor, steps, settings, ran = report["floor"], steps_of(report), report["settings"], report["starts"][-1]
    real, environment = settings["dataset"], ran["environment"]

    def table(key: str, form: str) -> str:
        values = {label: {cell["steps"]: cell[key] for cell in line} for label, line in lines(report).items()}
        rows = [[label, *(figure(found.get(n), form) for n in steps)] for label, found in values.items()]
        return markdown(["steps", *map(str, steps)], [row for row in rows if {*row[1:]} != {"-"}])

    return "\n\n".join(
        [
            "# Samplers by the number of their steps",
            f"{settings['images']} images of each, seed {settings['seed']}, {settings['framework']} on "
            f"{environment['device']}, {environment['threads']} threads; commit {environment['git_commit']}.",
            *(f"**Warning:** {each['warning']}." for each in report["starts"] if each["warning"]),
            f"Fréchet distance to the {real['num_images']:,} training images of {real['name']}, by the shipped judge; "
            f"the floor, that of {floor['num_images']:,} real test images, is {floor['fid_fashion']:.2f}:",
            table("fid_fashion", ".2f"),
            "Seconds for all images:",
            table("seconds", ".1f"),
            "Root mean squared difference to the images of the same sampler with the most steps, where black and white "
            "are -1 and 1; only of samplers that draw no noise on the way:",
            table("rms_to_most_steps", ".3f"),
            "",
        ]
    )


def curves(report: Record) -> Figure:
    """Fréchet distance over steps, and over evaluations of the network, of which a step of Heun's takes two."""
    picture, floor, ticks = Figure(figsize=(12, 5.4), layout="constrained"), report["floor"], steps_of(report)
    panels = picture.subplots(1, 2, sharey=True)
    for axes, key in zip(panels, ("steps", "evaluations"), strict=True):
        for label, line in lines(report).items():
            _, _, colour, marker = CONTENDERS[name := line[0]["sampler"]]
            x, y = ([cell[what] for cell in line] for what in (key, "fid_fashion"))
            drawn = axes.loglog(x, y, LINES[line[0]["spacing"]], color=colour, marker=marker, label=label)
            # ddim with eta 1 draws what ancestral does, and lies upon it.
            drawn[0].set(markersize=10, linewidth=3) if name == "ancestral" else drawn[0].set(markersize=7)
        told = f"floor: {floor['num_images']:,} real images"
        axes.axhline(floor["fid_fashion"], color="0.35", linestyle="--", label=told)
        axes.set_xticks(ticks, [str(n) for n in ticks])
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.minorticks_off()
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelleft=True)
    panels[0].set(xlabel="steps", ylabel="Fréchet distance")
    panels[1].set(xlabel="evaluations of the network, for an image")
    picture.suptitle(f"{report['settings']['images']} images of each sampler beside real ones: lower is better")
    picture.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    return picture


def grid(report: Record, out: Path) -> Figure:
    """The same first images by every sampler, a row each, at some numbers of steps, a group of columns each."""
    found, steps = lines(report), steps_of(report)
    shown = [n for n in SHOWN_STEPS if n in steps] or steps[: len(SHOWN_STEPS)]
    picture = Figure(figsize=(1.5 + 2.7 * len(shown), 0.4 + 0.5 * len(found)), layout="constrained")
    panels = picture.subplots(len(found), len(shown), squeeze=False)
    for row, (label, line) in zip(panels, found.items(), strict=True):
        for axes, n in zip(row, shown, strict=True):
            for cell in [cell for cell in line if cell["steps"] == n]:
                first = images.grid(pixels_of(out, cell["name"])[:SHOWN_IMAGES], SHOWN_IMAGES, scale=1, gap=1)
                axes.imshow(first[..., 0], cmap="gray", vmin=0, vmax=255)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        row[0].set_ylabel(label, rotation=0, ha="right", va="center")
    for axes, n in zip(panels[0], shown, strict=True):
        axes.set_title(f"{n} steps", fontsize="medium")
    return picture


def pixels_of(out: Path, name: str) -> Pixels:
    """The images of a finished cell. Raises UserError where they are no more."""
    file = out / "images" / f"{name}.npz"
    if (found := files.read_npz(file)) is None:
        raise UserError(f"the images of a finished cell are not in {file}: choose another --out")
    return found["images"]
