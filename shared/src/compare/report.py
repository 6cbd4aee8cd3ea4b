"""report.html: a comparison as one self-contained page that opens from disk, without scripts or a network."""

from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict

from markupsafe import Markup

from ddpm_shared import pages
from ddpm_shared.compare import charts, verdict
from ddpm_shared.compare.charts import Curves
from ddpm_shared.compare.gaps import FORMATS
from ddpm_shared.compare.records import Comparison, Pair
from ddpm_shared.compare.run_records import shown
from ddpm_shared.images import Pixels

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


def render(comparison: Comparison, drawn: Curves, pictures: Sequence[Mapping[str, Pixels]]) -> str:
    """The page.

    Args:
        comparison: as in comparison.json, which holds every number that the page states.
        drawn: the curves of its figures.
        pictures: of each pair, as sample_grids.compare gives them.
    """
    return (
        pages.templates("ddpm_shared.compare", gap=verdict.gap)
        .get_template("report.html.j2")
        .render(
            comparison=comparison,
            figures=figures(comparison, drawn),
            pictures=[{name: pages.png_uri(pixels) for name, pixels in of_pair.items()} for of_pair in pictures],
            epochs=epochs(comparison["pairs"]),
            shown=shown(comparison["runs"]),
            formats=FORMATS,
            kinds=verdict.KINDS,
            tones=TONES,
            fastest=max((run["images_per_s"] or 0.0 for run in comparison["runs"]), default=0.0),
        )
    )


class EpochRow(TypedDict):
    """The validation losses of all runs at a step that ended an epoch; None where a run did not end one there."""

    epoch: int
    step: int
    baseline: float | None
    others: list[tuple[float | None, float | None]]  # each run's, and its gap


def epochs(pairs: Sequence[Pair]) -> list[EpochRow]:
    """The validation losses of all runs, by the step that ended an epoch."""
    by_step: dict[int, EpochRow] = {}
    for index, pair in enumerate(pairs):
        for ended in pair["epochs"]:
            row = by_step.setdefault(
                ended["step"],
                {
                    "epoch": ended["epoch"],
                    "step": ended["step"],
                    "baseline": None,
                    "others": [(None, None)] * len(pairs),
                },
            )
            row["baseline"] = ended["validation_loss_a"]
            row["others"][index] = ended["validation_loss_b"], ended["validation_loss_gap"]
    return [by_step[step] for step in sorted(by_step)]


def figures(comparison: Comparison, drawn: Curves) -> dict[str, Markup]:
    """The page's figures as SVG, by name; without one of the validation losses where there are none."""
    runs, pairs = comparison["runs"], comparison["pairs"]
    names = ", ".join(run["label"] for run in runs)

    ends = "; ".join(
        f"{run['label']} from {run['first_loss']:.4g} to {run['last_loss']:.4g}"
        for run in runs
        if run["first_loss"] is not None and run["last_loss"] is not None
    )

    def largest(key: Literal["loss", "grad_norm"]) -> str:
        return ", ".join(
            f"{pair['b']} {verdict.gap(pair[key]['max'])} (step {pair[key]['max_at_step']})" for pair in pairs
        )

    drawings = {
        "loss": (
            lambda axes: charts.draw_values(axes, drawn.loss, "Training loss", "loss (mean squared error)"),
            f"Line chart: the training losses of runs {names} over the steps; {ends}.",
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
    # svg() escapes the title; the rest is drawn here.
    return {name: Markup(charts.svg(draw, name.replace("_", "-"), title)) for name, (draw, title) in drawings.items()}
