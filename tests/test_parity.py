"""Every quantity of the parity suite, PyTorch, TensorFlow and the oracle, each with each, and the suite's own tools."""

import json

import numpy as np
import pytest

from ddpm_parity import __main__ as command
from ddpm_parity import quantities, report, residual_training, training
from ddpm_parity.faults import MUTATIONS
from ddpm_parity.quantities import Quantity, judge
from ddpm_parity.suite import PRECISIONS, QUANTITIES
from ddpm_parity.tolerances import GPU_FACTOR, Tolerance
from ddpm_shared.errors import UserError
from ddpm_shared.parameters import initial_value

# What agrees for a hundred steps in float64 is compared for fewer steps in float32, and for all in `make test-slow`.
LONG_RUNS = ("exchange: ", "residual training: 100 steps", "zoo: 100 steps")


@pytest.mark.parametrize(
    ("quantity", "precision"),
    [
        pytest.param(
            q,
            precision,
            id=f"{q}-{precision}",
            marks=[pytest.mark.slow] * (q.slow or (precision == "fp32" and str(q).startswith(LONG_RUNS))),
        )
        for q in QUANTITIES
        for precision in PRECISIONS
    ],
)
def test_three_sides_agree(suite, quantity, precision):
    """Otherwise the two frameworks compute two models, or both another one than the papers'."""
    verdict = suite.judge(quantity, precision)
    assert len(verdict.gaps) == 3
    assert not verdict.faults, "\n".join(verdict.faults)


def test_every_preset_layer_and_step_is_among_the_quantities():
    """Otherwise a subject drops out of the suite and nobody notices that it is no longer compared."""
    names = {str(q) for q in QUANTITIES}
    assert len(names) == len(QUANTITIES)
    for preset in ("tiny", "small", "base", "large", "colour"):
        assert f"network: {preset}: gradient of every parameter" in names
    assert "transformer: score-transformer: gradient of every parameter" in names
    for preset in ("simple-unet", "two-convolutions", "dit-small"):
        assert f"zoo: {preset}: gradient of every parameter" in names
    assert "residual: residual-batchnorm, in training: gradient of every parameter" in names
    assert {q.subject for q in QUANTITIES} == {
        "schedule", "engine", "embedding", "prediction", "guidance", "samplers", "layers", "network", "labels",
        "data", "parameters", "optimizer", "training", "exchange", "sampling", "bound", "colour",
        "transformer", "residual", "residual training", "zoo", "passport", "processes", "solvers", "likelihood",
        "continuous", "continuous training", "continuous drawing", "workers",
    }  # fmt: skip


def test_the_compared_run_learns(suite):
    """Otherwise a hundred steps agree because nothing happens in them, or labels agree because none is used."""
    run = training.whole(suite.sides["fp64"]["torch"], training.HUNDRED)
    assert len(run.losses) == 100
    assert np.mean(run.losses[-20:]) < 0.7 * run.losses[0]
    start, end = initial_value(1, "label.weight", (11, 32)), run.tensors[100]["model/label.weight"]
    assert np.abs(end - start).max(axis=1).min() > 1e-3  # each class, and the null label


def test_the_compared_run_with_batch_norm_learns(suite):
    """Otherwise a hundred steps agree because nothing happens in them, or moments because they stay at 0 and 1."""
    run = residual_training.whole(suite.sides["fp64"]["torch"], residual_training.HUNDRED)
    assert np.mean(run.losses[-20:]) < 0.5 * run.losses[0]
    moments = {name: value for name, value in run.tensors[100].items() if name.startswith("buffers/")}
    assert len(moments) == 2 * 14
    for name, value in moments.items():
        assert np.abs(value - name.endswith("var")).max() > 0.1, name


# --- A comparison that cannot fail proves nothing -----------------------------------------------------------


def quantity(measure, tolerance=1e-6):
    return Quantity("subject", "name", lambda side: {}, Tolerance(tolerance, tolerance), measure)


ONE = {"part": np.array([[1.0, -4.0], [0.0, 2.0]])}


@pytest.mark.parametrize(
    ("measure", "changed", "size"),
    [
        (quantities.elementwise, [[1.0, -4.0], [0.0, 2.5]], 0.2),
        (quantities.elementwise, [[1.0, -4.0], [1e-9, 2.0]], 1.0),
        (quantities.of_the_largest, [[1.0, -4.0], [0.0, 2.2]], 0.05),
        (quantities.absolute, [[1.0, -4.0], [0.0, 2.2]], 0.2),
        (quantities.pixels, [[1.0, -4.0], [0.0, 3.0]], 0.25),
        (quantities.pixels, [[1.0, -4.0], [0.0, 4.0]], np.inf),
    ],
)
def test_a_gap_is_measured_as_its_name_says(measure, changed, size):
    """Otherwise a tolerance bounds something else than the documentation says."""
    gap = quantity(measure).gap(ONE, {"part": np.array(changed)})
    assert gap.size == pytest.approx(size, rel=1e-12)
    assert gap.where == (
        "part[1, 0]" if changed[1][0] else "part[1, 1]" if measure is not quantities.pixels else gap.where
    )
    assert quantity(measure).gap(ONE, ONE).size == 0.0


def test_small_gradients_are_held_to_a_hundredth_of_the_largest():
    """Otherwise rounding in a gradient that cancels out fails the suite, or a wrong large one passes it."""
    large, small = np.array([100.0]), np.array([1e-3])
    gap = quantity(quantities.of_the_gradient).gap({"a": large, "b": small + 1e-4}, {"a": large, "b": small})
    assert gap.size == pytest.approx(1e-4)
    gap = quantity(quantities.of_the_gradient).gap({"a": large + 1e-4, "b": small}, {"a": large, "b": small})
    assert gap.size == pytest.approx(1e-6)
    assert gap.where == "a[0]"


@pytest.mark.parametrize(
    ("other", "where"),
    [
        ({"part": np.full((2, 2), np.nan)}, "part, which is not finite"),
        ({"part": np.array([[np.inf, -4.0], [0.0, 2.0]])}, "part, which is not finite"),
        ({"part": np.zeros(4)}, "part, of shapes"),
        ({}, "part, which one side lacks"),
        ({"part": ONE["part"], "more": np.zeros(1)}, "more, which one side lacks"),
    ],
)
@pytest.mark.parametrize("measure", [quantities.elementwise, quantities.of_the_largest, quantities.absolute])
def test_what_cannot_be_compared_never_passes(measure, other, where):
    """Otherwise NaN, a missing tensor or a broadcast shape counts as agreement."""
    for results in ({"torch": ONE, "tf": other}, {"torch": other, "tf": ONE}):
        (fault,) = judge(quantity(measure, 1e9), results, "fp64").faults
        assert fault.startswith("subject: name, fp64: torch against tf differ by inf")
        assert where in fault


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_two_sides_with_the_same_fault_do_not_agree(value):
    """Otherwise two networks that both overflow are said to be equal."""
    broken = {"part": np.array([1.0, value])}
    for measure in (quantities.elementwise, quantities.of_the_largest, quantities.absolute, quantities.pixels):
        assert quantity(measure).gap(broken, broken).size == np.inf


def test_a_failure_names_the_pair_the_place_and_the_bound():
    """Otherwise the reader knows that something differs, but not which side to look at."""
    results = {"torch": ONE, "tf": {"part": ONE["part"] * 1.1}, "oracle": ONE}
    verdict = judge(quantity(quantities.of_the_largest), results, "fp32")
    assert [pair for pair, gap in verdict.gaps.items() if gap.size > 1e-6] == [("torch", "tf"), ("tf", "oracle")]
    assert verdict.faults == [
        "subject: name, fp32: torch against tf differ by 0.0909, more than 1e-06, at part[0, 1]",
        "subject: name, fp32: tf against oracle differ by 0.1, more than 1e-06, at part[0, 1]",
    ]


def test_the_gpu_has_a_tolerance_of_its_own_and_exact_stays_exact():
    """Otherwise a GPU run is judged by bounds that were measured on a CPU."""
    assert Tolerance(1e-12, 1e-6).on("gpu", "fp32") == GPU_FACTOR * 1e-6
    assert Tolerance(1e-12, 1e-6).on("cpu", "fp64") == 1e-12
    assert Tolerance(0.0, 0.0).on("gpu", "fp64") == 0.0


# --- make parity --------------------------------------------------------------------------------------------


def test_parity_prints_the_table_and_writes_it(both, tmp_path, capsys):
    """Otherwise a bug report comes without the numbers that it is about."""
    assert command.main(["--subjects", "schedule", "optimizer", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "parity.json").read_text())
    assert found["passed"] is True
    assert found["mutations"] is None
    assert {row["subject"] for row in found["rows"]} == {"schedule", "optimizer"}
    assert all(max(row["torch_oracle"], row["tf_oracle"], row["torch_tf"]) <= row["tolerance"] for row in found["rows"])
    printed, written = capsys.readouterr().out, (tmp_path / "parity.md").read_text()
    for output in (printed, written):
        assert "32 of 32 comparisons agree on cpu." in output
        assert "posterior_variance" in output


def test_parity_exits_non_zero_where_two_sides_differ(both, tmp_path, capsys, monkeypatch):
    """Otherwise a broken build passes in a script that trusts the exit code."""
    wrong = Quantity(
        "schedule", "broken", lambda side: {"x": np.array([np.inf if side.name == "tf" else 1.0])}, Tolerance(1, 1),
        quantities.absolute,
    )  # fmt: skip
    monkeypatch.setattr(command, "QUANTITIES", [wrong])
    assert command.main(["--subjects", "schedule", "--out", str(tmp_path)]) == 1
    assert "tf against oracle differ by inf, more than 1, at x, which is not finite" in capsys.readouterr().out
    row = json.loads((tmp_path / "parity.json").read_text())["rows"][0]
    assert (row["passed"], row["tf_oracle"], row["torch_oracle"]) == (False, None, 0.0)
    assert "| inf |" in (tmp_path / "parity.md").read_text()


def test_bad_flags_get_one_sentence():
    """Otherwise a misspelt subject compares nothing and reports success."""
    with pytest.raises(UserError, match=r"unknown subject 'layer'.*layers"):
        command.main(["--subjects", "layer"])
    with pytest.raises(UserError, match=r"holds no checkpoint"):
        command.main(["--checkpoint", "nowhere"])


def test_the_report_lists_survivors():
    """Otherwise a fault that the suite does not see is hidden behind the count of those that it does."""
    found = report.record([], [(MUTATIONS[0], None)], device="cpu", created_utc="", environment={})
    assert not found["passed"]
    assert "1 faults planted, 1 survived." in report.text(found)
    assert f"survived: torch, engine.py: {MUTATIONS[0].name}" in report.text(found)
