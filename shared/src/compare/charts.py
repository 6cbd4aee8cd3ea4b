"""The figures of a comparison, for loss.png and, as SVG that takes its colours from the page, for report.html.

A curve must never hide another, least of all one that equals it: the baseline is broad and pale, the others are thin
and on top of it.
"""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from ddpm_shared import images
from ddpm_shared.compare import gaps, verdict
from ddpm_shared.compare.gaps import Floats, Steps
from ddpm_shared.compare.records import Event, Rounding
from ddpm_shared.compare.run_records import RunRecord, labels, summary
from ddpm_shared.frameworks import FRAMEWORKS
from ddpm_shared.pages import COLOURS

# The names of the colours in report.css, the baseline's first.
PALETTE = {colour: f"--run-{number}" for number, colour in enumerate(COLOURS)}
DASHES = ("-", "--", ":")  # set the seventh run apart from the second
INK = "#010203"  # stands for the page's text colour until svg() replaces it

SVG_INCHES = (5.0, 3.6)  # such that its type is readable at a phone's width and not huge at half a desktop's


@dataclass(frozen=True)
class Curve:
    """One run's values, or its gaps, over the steps; `run` is its place in the comparison, the baseline's being 0."""

    run: int
    label: str  # e.g. "A"
    name: str  # e.g. "A: PyTorch 2.13.0 on cpu"
    steps: Steps
    values: Floats


@dataclass(frozen=True)
class Curves:
    """All the curves of a comparison; the gaps are those of every run but the baseline, to the baseline."""

    loss: list[Curve]
    loss_gap: list[Curve]
    grad_norm: list[Curve]
    grad_norm_gap: list[Curve]
    validation_loss: list[Curve]
    rounding: Rounding  # of the coarsest precision


def curves(compared: Sequence[RunRecord]) -> Curves:
    """The curves of runs, the baseline first."""
    rounding = gaps.rounding_of(*(run.metrics["config"]["precision"] for run in compared))
    drawn: dict[str, list[Curve]] = {
        key: [] for key in ("loss", "loss_gap", "grad_norm", "grad_norm_gap", "validation_loss")
    }
    for index, (label, run) in enumerate(zip(labels(len(compared)), compared, strict=True)):
        of = summary(label, run)
        named = index, label, f"{label}: {FRAMEWORKS[of['framework']].title} {of['version']} on {of['device']}"
        for key in ("loss", "grad_norm"):
            drawn[key].append(Curve(*named, *_columns(run.steps, "step", key)))
            if index:
                drawn[f"{key}_gap"].append(Curve(*named, *gaps.step_gaps(compared[0].steps, run.steps, key)))
        drawn["validation_loss"].append(Curve(*named, *_columns(run.epochs, "epoch", "validation_loss")))
    return Curves(**drawn, rounding=rounding)


def _columns(records: Sequence[Event], x: str, key: str) -> tuple[Steps, Floats]:
    return np.array([record[x] for record in records], np.int64), np.array([record[key] for record in records])


def style(run: int) -> tuple[str, str]:
    """Colour and line style of a run."""
    later = run - 1
    if run == 0:
        return COLOURS[0], DASHES[0]
    return COLOURS[1 + later % (len(COLOURS) - 1)], DASHES[later // (len(COLOURS) - 1) % len(DASHES)]


def width(run: int, runs: int, broad: float, thin: float) -> float:
    """Of a run's line or dots: broad for the baseline, thin for the last run, those between in geometric steps."""
    return broad * (thin / broad) ** (run / max(runs - 1, 1))


def grouped(steps: Steps, values: Floats, edges: Steps) -> tuple[Steps, list[Floats]]:
    """The values between neighbouring edges, groups without any left out, and the median step of each group."""
    cuts = np.flatnonzero(np.diff(np.digitize(steps, edges))) + 1
    groups = [(s, v) for s, v in zip(np.split(steps, cuts), np.split(values, cuts), strict=True) if len(s)]
    return np.array([int(np.median(s)) for s, _ in groups], np.int64), [v for _, v in groups]


def _longest(curves: Sequence[Curve]) -> int:
    return max((int(curve.steps[-1]) for curve in curves if len(curve.steps)), default=0)


def draw_values(axes: Axes, curves: Sequence[Curve], title: str, ylabel: str) -> None:
    """Each run's values over the steps; of many steps, the means of neighbours and the range of the baseline's."""
    longest = _longest(curves)
    every = gaps.steps_a_mark(longest)
    values = np.concatenate([curve.values for curve in curves])
    for curve in curves:
        colour, dash = style(curve.run)
        look: dict[str, Any] = {
            "linewidth": width(curve.run, len(curves), 4.0, 0.9),
            "alpha": 0.45 if curve.run == 0 else 1.0,
        }
        steps, drawn = curve.steps, curve.values
        if every > 1:
            steps, groups = grouped(steps, drawn, np.arange(1, longest + every, every))
            drawn = np.array([group.mean() for group in groups])
            if curve.run == 0:
                low, high = ([f(group) for group in groups] for f in (np.min, np.max))
                axes.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(steps, drawn, dash, color=colour, label=curve.name, **look)
    if 0 < 10 * values.min(initial=1.0) < values.max(initial=0.0):
        axes.set_yscale("log")
        decades = float(np.log10(values.max() / values.min()))
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 3 else (1.0,)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
    _finish(axes, title, ylabel)


def draw_gaps(axes: Axes, curves: Sequence[Curve], rounding: Rounding, title: str) -> None:
    """Each pair's gaps on a logarithmic axis; equal values, which have no place there, are ticks at the bottom.

    Many steps are on a logarithmic axis as well, since rounding grows early on, and neighbours there share a mark: a
    dot at the median of their gaps, in a line from the smallest to the largest.
    """
    longest = _longest(curves)
    thin = gaps.steps_a_mark(longest) > 1
    edges = np.unique(np.geomspace(1, longest + 1, gaps.MARKS).astype(np.int64)) if thin else np.arange(1, longest + 2)
    levels = [rounding["unit"], gaps.THRESHOLD]
    for row, curve in enumerate(curves):
        colour, _ = style(curve.run)
        apart = curve.values > 0
        if apart.any():
            steps, groups = grouped(curve.steps[apart], curve.values[apart], edges)
            low, dots, high = ([float(f(group)) for group in groups] for f in (np.min, np.median, np.max))
            if thin:
                axes.vlines(steps, low, high, color=colour, linewidth=0.8, alpha=0.35)
            size = 5.0 if longest < 500 else 3.5
            axes.plot(steps, dots, ".", color=colour, markersize=size, markeredgewidth=0, label=curve.name)
            levels += [min(low), max(high)]
        if not apart.all():
            equal, _ = grouped(curve.steps[~apart], curve.values[~apart], edges)
            heights = np.full(len(equal), 0.035 + 0.06 * row)
            axes.plot(equal, heights, "|", color=colour, markersize=6, transform=axes.get_xaxis_transform())
    bottom, top = np.log10(min(levels)) - 0.4, np.log10(max(levels)) + 0.4
    bottom -= 0.07 * len(curves) * (top - bottom)  # room for the ticks
    axes.set_yscale("log")
    axes.set_ylim(10**bottom, 10**top)
    axes.axhspan(10**bottom, rounding["limit"], color=INK, alpha=0.05, linewidth=0)
    named = f"{gaps.FORMATS[rounding['precision']]}\nrounding"
    for level, label in ((gaps.THRESHOLD, verdict.gap(gaps.THRESHOLD)), (rounding["unit"], named)):
        axes.axhline(level, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), alpha=0.7)
        offset: dict[str, Any] = {
            "xycoords": ("axes fraction", "data"),
            "xytext": (4, 0),
            "textcoords": "offset points",
        }
        axes.annotate(label, (1, level), va="center", color=INK, fontsize="small", **offset)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _power_of_ten(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    if thin:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
    others = "run" if len(curves) > 1 else curves[0].label
    _finish(axes, title, f"|{others} − A| / |A|")


def _power_of_ten(value: float) -> str:
    """10⁻³ as plain text, which an SVG can show in the page's own font."""
    return "10" + f"{round(np.log10(value))}".translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def draw_epochs(axes: Axes, curves: Sequence[Curve], title: str, ylabel: str) -> None:
    """Each run's values by epoch, as draw_values but with a dot each."""
    for curve in curves:
        colour, dash = style(curve.run)
        line, dot = (width(curve.run, len(curves), *ends) for ends in ((4.0, 0.9), (11.0, 4.5)))
        look: dict[str, Any] = {
            "linewidth": line,
            "markersize": dot,
            "markeredgewidth": 0,
            "alpha": 0.45 if curve.run == 0 else 1.0,
        }
        axes.plot(curve.steps, curve.values, f"o{dash}", color=colour, label=curve.name, **look)
    axes.margins(y=0.15)
    epochs = [step for curve in curves for step in curve.steps]
    beyond = max(0.5, 0.1 * (max(epochs) - min(epochs)))  # a single epoch has room, but no fractions of itself
    axes.set_xlim(min(epochs) - beyond, max(epochs) + beyond)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7, min_n_ticks=1))
    _finish(axes, title, ylabel, "epoch")


def _finish(axes: Axes, title: str, ylabel: str, xlabel: str = "training step") -> None:
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.set_title(title, fontsize="medium", fontweight="bold", loc="left")
    axes.grid(color=INK, alpha=0.12, linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def overview(drawn: Curves) -> Figure:
    """The losses of all runs laid over each other and, below, the gaps to the baseline: loss.png."""
    picture = Figure(figsize=(9, 7), layout="constrained")
    above, below = picture.subplots(2, 1)
    every = gaps.steps_a_mark(_longest(drawn.loss))
    title = "Training loss of every step" if every == 1 else f"Training loss, means of {every} steps, range of A's"
    draw_values(above, drawn.loss, title, "loss (mean squared error)")
    draw_gaps(below, drawn.loss_gap, drawn.rounding, "Gap of the losses, step by step (ticks at the bottom: equal)")
    above.legend(fontsize="small")
    return picture


def svg(draw: Callable[[Axes], None], name: str, title: str) -> str:
    """A figure as an <svg> element for an HTML page.

    It scales to its container, inherits the page's font, text colour and run colours, and shares no id with another.

    Args:
        draw: draws on the axes it is given.
        name: sets its ids apart from those of other figures on the page.
        title: what is to be seen, for those who cannot see it; plain text.
    """
    ink = ("axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "text.color", "xtick.color", "ytick.color")
    settings: dict[Any, Any] = dict.fromkeys(ink, INK) | {"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 10}
    buffer = io.StringIO()
    with mpl.rc_context(settings):
        picture = Figure(figsize=SVG_INCHES, layout="constrained")
        draw(picture.subplots())
        images.save_literally(picture, buffer, format="svg", transparent=True)
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text[text.index("<svg") :], flags=re.DOTALL)
    view = re.search(r'viewBox="[^"]*"', text)
    assert view is not None  # matplotlib always writes one
    described = title.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    head = f'<svg role="img" aria-label="{described}" {view[0]} xmlns:xlink="http://www.w3.org/1999/xlink">'
    text = head + f"<title>{described}</title>" + text[text.index(">") + 1 :]
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r"font: (?:(bold|[0-9]+) )?([0-9.]+)px [^;\"]*", _font, text)
    text = text.replace(INK, "currentColor")
    for colour, variable in PALETTE.items():
        text = text.replace(colour, f"var({variable})")
    return re.sub(r"\n\s*", "\n", text)


def _font(match: "re.Match[str]") -> str:
    weight = f"font-weight: {match[1]}; " if match[1] else ""
    return f"{weight}font-size: {match[2]}px"
