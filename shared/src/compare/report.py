"""report.html: a comparison as one self-contained page that opens from disk, without scripts or a network."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
from markupsafe import Markup

from ddpm_shared import images
from ddpm_shared.compare import charts, verdict
from ddpm_shared.compare.charts import Curves
from ddpm_shared.compare.gaps import FORMATS
from ddpm_shared.images import Pixels

Record = dict[str, Any]

# A verdict's colour, beside its words: nothing is wrong, look closer, something is wrong.
TONES = {
    "identical": "good",
    "rounding": "good",
    "amplified": "good",
    "validation": "doubt",
    "unknown": "doubt",
    "jump": "bad",
    "apart": "bad",
}


def render(comparison: Record, drawn: Curves, pictures: Sequence[Mapping[str, Pixels]]) -> str:
    """The page.

    Args:
        comparison: as in comparison.json, which holds every number that the page states.
        drawn: the curves of its figures.
        pictures: of each pair, as sample_grids.compare gives them.
    """
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            comparison=comparison,
            figures=figures(comparison, drawn),
            pictures=[{name: data_uri(pixels) for name, pixels in of_pair.items()} for of_pair in pictures],
            epochs=epochs(comparison["pairs"]),
            frameworks=verdict.FRAMEWORKS,
            formats=FORMATS,
            kinds=verdict.KINDS,
            tones=TONES,
            fastest=max((run["images_per_s"] or 0.0 for run in comparison["runs"]), default=0.0),
        )
    )


def environment(*packages: str) -> jinja2.Environment:
    """What fills the templates of this package and, looked through first, those of `packages`."""
    found = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(package) for package in (*packages, "ddpm_shared.compare")]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"shown": shown, "gap": verdict.gap, "duration": duration}
    return found


def epochs(pairs: Sequence[Record]) -> list[Record]:
    """The validation losses of all runs by the step that ended an epoch, None where a run did not end one there."""
    by_step: dict[int, Record] = {}
    for index, pair in enumerate(pairs):
        for found in pair["epochs"]:
            nothing = {"epoch": found["epoch"], "step": found["step"], "others": [(None, None)] * len(pairs)}
            row = by_step.setdefault(found["step"], nothing)
            row["baseline"] = found["validation_loss_a"]
            row["others"][index] = found["validation_loss_b"], found["validation_loss_gap"]
    return [by_step[step] for step in sorted(by_step)]


def figures(comparison: Record, drawn: Curves) -> dict[str, Markup]:
    """The page's figures as SVG, by name; without one of the validation losses where there are none."""
    runs, pairs = comparison["runs"], comparison["pairs"]
    names = ", ".join(run["label"] for run in runs)

    def ends(first: str, last: str) -> str:
        told = [(run["label"], run[first], run[last]) for run in runs if run[first] is not None]
        return "; ".join(f"{label} from {a:.4g} to {b:.4g}" for label, a, b in told)

    def largest(key: str) -> str:
        told = (f"{pair['b']} {verdict.gap(pair[key]['max'])} (step {pair[key]['max_at_step']})" for pair in pairs)
        return ", ".join(told)

    drawings = {
        "loss": (
            lambda axes: charts.draw_values(axes, drawn.loss, "Training loss", "loss (mean squared error)"),
            f"Line chart: the training losses of runs {names} over the steps; {ends('first_loss', 'last_loss')}.",
        ),
        "loss_gap": (
            lambda axes: charts.draw_gaps(axes, drawn.loss_gap, drawn.rounding, "Gap of the losses"),
            f"Dots: the gap of the losses to the baseline's at every step; largest gap: {largest('loss')}.",
        ),
        "grad_norm": (
            lambda axes: charts.draw_values(axes, drawn.grad_norm, "Gradient norm", "global norm before clipping"),
            f"Line chart: the gradient norms of runs {names} over the steps.",
        ),
        "grad_norm_gap": (
            lambda axes: charts.draw_gaps(axes, drawn.grad_norm_gap, drawn.rounding, "Gap of the gradient norms"),
            f"Dots: the gap of the gradient norms to the baseline's at every step; largest: {largest('grad_norm')}.",
        ),
    }
    if any(len(curve.steps) for curve in drawn.validation_loss):
        drawings["validation_loss"] = (
            lambda axes: charts.draw_epochs(
                axes, drawn.validation_loss, "Validation loss", "loss (mean squared error)"
            ),
            f"Line chart: the validation losses of runs {names} by epoch; the table beside it has the values.",
        )
    # svg() escapes what is told; the rest is drawn here.
    return {name: Markup(charts.svg(draw, name.replace("_", "-"), told)) for name, (draw, told) in drawings.items()}


def data_uri(pixels: Pixels) -> str:
    """A picture as the address of an <img> that needs no file."""
    return "data:image/png;base64," + base64.b64encode(images.png(pixels)).decode()


def shown(value: Any) -> str:
    """A value of JSON as a table shows it; a dash where there is none."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.6g}"
    return ", ".join(map(shown, value)) if isinstance(value, list | tuple) else str(value)


def duration(seconds: float) -> str:
    """Seconds as hours, minutes and seconds, e.g. "1:02:03"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
