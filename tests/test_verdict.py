"""The verdict in words: it says what the numbers are, neither more nor less, and every number is in comparison.json."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddpm_shared import compare, machine
from ddpm_shared.compare import verdict
from ddpm_shared.config import Config, to_dict
from ddpm_shared.datasets import Split
from ddpm_shared.records import run as run_folder

Record = dict[str, Any]
SPLIT = Split("fashion-mnist", "train", np.zeros((5, 28, 28, 1), np.uint8), np.zeros(5, np.uint8), "0" * 64)
STEPS = 156
LOSSES = np.linspace(1.0, 0.1, STEPS)
ROUNDING = 2.0**-23

# Gaps that were measured between PyTorch and TensorFlow in float32, or drawn as such: one rounding for 80 steps, then
# tenfold every ten.
MEASURED = np.where(np.arange(STEPS) < 80, ROUNDING, ROUNDING * 10 ** ((np.arange(STEPS) - 79) / 10)).clip(max=0.03)
NONE = np.zeros(STEPS)

Make = Callable[..., compare.RunRecord]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes a run by run_folder.Run, as training does."""

    def made(
        framework: str = "torch",
        gaps: Sequence[float] = NONE,
        grad_gaps: Sequence[float] | None = None,
        validation: float | None = 0.2,
        status: str = "completed",
        first: int = 1,
        **config: Any,
    ) -> compare.RunRecord:
        folder = tmp_path / f"{framework}-{len(list(tmp_path.iterdir()))}"
        books = run_folder.Run(folder, framework, Config(**config), machine.environment("cpu", 2), SPLIT, 10)
        grad_gaps = gaps if grad_gaps is None else grad_gaps
        for index, (loss, gap, grad_gap) in enumerate(zip(LOSSES, gaps, grad_gaps, strict=False)):
            if index + 1 < first:
                continue
            place = {"step": index + 1, "epoch": 1, "images_seen": 128 * index + 128, "learning_rate": 1e-3}
            found = {"loss": float(loss * (1 + gap)), "grad_norm": float(1 + grad_gap), "wall_s": float(index)}
            books.history["steps"].append(place | found)
        step = len(gaps)
        if validation is not None:
            books.record_epoch(
                {"epoch": 1, "step": step, "train_loss": 0.5, "validation_loss": validation, "images_per_s": None}
            )
        books.finish(status, step)
        return compare.read_run(folder)

    return made


def judged(*compared: compare.RunRecord, allow_different: bool = False) -> tuple[str, str, Record]:
    """Kind and words of the first pair's verdict, and the whole comparison."""
    result = compare.compare(compared, allow_different)
    return result["pairs"][0]["verdict"]["kind"], verdict.words(result["pairs"][0]), result


def numbers(value: Any) -> set[str]:
    """Every number in nested JSON, in each way that a verdict writes numbers."""
    if isinstance(value, dict | list | tuple):
        return set().union(*map(numbers, value.values() if isinstance(value, dict) else value))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return set()
    return {str(value)} if isinstance(value, int) else {verdict.gap(value), verdict.loss(value), verdict.factor(value)}


def jump(at: int, size: float) -> np.ndarray:
    """Gaps of a rounding until step `at`, then `size`."""
    return np.where(np.arange(STEPS) < at - 1, ROUNDING, size)


# name: (what B is made of, the kind, what must be said, what must not)
CASES: dict[str, tuple[Record, str, list[str], list[str]]] = {
    "the same framework twice": (
        {"framework": "torch"},
        "identical",
        [
            "PyTorch (B) and PyTorch (A) are identical to the last bit",
            "all 156 common steps, and the validation losses,",
        ],
        ["rounding", "differ"],
    ),
    "rounding only": (
        {"gaps": [ROUNDING] * STEPS},
        "rounding",
        ["TensorFlow (B) and PyTorch (A) computed the same, to float32 rounding: over 156 common steps"],
        ["grows", "not rounding", "Fewer than"],
    ),
    "equal losses, gradients that differ by rounding": (
        {"grad_gaps": [2 * ROUNDING] * STEPS},
        "rounding",
        ["the losses are equal to the last bit", "The gradient norms differ by 2.4e-7 at most"],
        ["identical"],
    ),
    "rounding that training amplifies": (
        {"gaps": MEASURED, "validation": 0.2001},
        "amplified",
        [
            "computed the same: equal to float32 rounding for the first 92 steps; the gap of the losses then grows",
            "passes 0.1 % at step 120, and is 3 % at most",
            "The validation losses after step 156, 0.2 and 0.2001, differ by 5.0e-4.",
        ],
        ["not rounding", "jump"],
    ),
    "amplified, but never large": (
        {"gaps": [*[ROUNDING] * 80, *[40 * ROUNDING] * 76]},
        "amplified",
        ["for the first 80 steps", "never passes 0.1 %, and is 4.8e-6 at most (step "],
        ["not rounding"],
    ),
    "different from step 1": (
        {"gaps": [0.12] * STEPS},
        "apart",
        [
            "did not compute the same: the losses differ by 12 % at step 1 already, before any update. That is not "
            "rounding, which needs more steps to grow: it is a difference between the programs or their set-ups."
        ],
        ["computed the same:"],
    ),
    "a small difference from step 1": (
        {"gaps": [32 * ROUNDING] * STEPS},
        "apart",
        ["differ by 3.8e-6 at step 1 already"],
        ["computed the same:"],
    ),
    "another optimizer": (
        {"gaps": [0, 0, *[1e-5] * 154]},
        "apart",
        ["agree at first but differ by 1.0e-5 at step 3 already. That is not rounding", "optimizer"],
        ["before any update"],
    ),
    "another backward pass": (
        {"grad_gaps": [0.5] * STEPS},
        "apart",
        ["the gradient norms differ by 50 % at step 1 already. That is not rounding"],
        ["computed the same:"],
    ),
    "a jump": (
        {"gaps": jump(120, 0.04)},
        "jump",
        ["But at step 120 the gap of the losses jumps 3.4e5-fold, from at most 1.2e-7 to 4 %.", "for 119 steps"],
        ["grows little by little, as"],
    ),
    "a jump of the gradients": (
        {"grad_gaps": jump(120, 0.04)},
        "jump",
        ["at step 120 the gap of the gradient norms jumps"],
        ["computed the same:"],
    ),
    "another average of the weights": (
        {"gaps": [ROUNDING] * STEPS, "validation": 0.21},
        "validation",
        ["trained alike", "But after step 156 they differ by 5 %, more than any loss up to there (1.2e-7)"],
        ["computed the same"],
    ),
    "very short": (
        {"gaps": [ROUNDING] * 3},
        "rounding",
        [
            "over 3 common steps",
            "B 3; the verdict rests on the 3 that both",
            "Fewer than 100 steps show that two programs start alike",
        ],
        [],
    ),
    "a single step": ({"gaps": [0.0]}, "identical", ["norms of the one common step are equal"], []),
    "failed": ({"gaps": [ROUNDING] * 120, "status": "failed"}, "rounding", ["TensorFlow (B) failed at step 120."], []),
    "interrupted": ({"gaps": NONE[:150], "status": "interrupted"}, "identical", ["was interrupted at step 150."], []),
    "killed": (
        {"gaps": NONE[:150], "status": "running"},
        "identical",
        ["had not ended when it was read, at step 150"],
        [],
    ),
    "without a start": (
        {"gaps": [0.01] * STEPS, "first": 101},
        "unknown",
        ["their first step in common is 101, so how they parted is not on record. Over 56 common steps"],
        ["not rounding", "computed the same"],
    ),
    "no validation": (
        {"validation": None},
        "identical",
        ["gradient norms of all 156 common steps are equal"],
        ["validation"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_verdict_says_what_happened(make: Make, case: str) -> None:
    """Otherwise a fault is excused as rounding, or rounding reported as a fault, in the one place everybody reads."""
    values, kind, told, untold = CASES[case]
    found, words, _ = judged(make(), make(**({"framework": "tensorflow"} | values)))
    assert found == kind, words
    for part in told:
        assert part in words
    for part in untold:
        assert part not in words


@pytest.mark.parametrize("case", CASES)
def test_every_number_of_the_verdict_is_in_the_comparison(make: Make, case: str) -> None:
    """Otherwise the words state what no file holds, and nobody could check them."""
    values = CASES[case][0]
    _, words, result = judged(make(), make(**({"framework": "tensorflow"} | values)))
    whole = json.loads(json.dumps(result))
    for pair in whole["pairs"]:
        del pair["verdict"]
    stated = re.findall(r"(?<![\w.-])\d+(?:\.\d+)?(?:e-?\d+)?(?: %)?", words)
    assert stated
    assert set(stated) <= numbers(whole)


@pytest.mark.parametrize(("precision", "unit"), [("fp64", 2.0**-52), ("fp32", 2.0**-23)])
def test_rounding_is_that_of_the_precision(make: Make, precision: str, unit: float) -> None:
    """Otherwise float64 runs that agree to float32 only are called equal."""
    for gap, kind in ((8 * unit, "rounding"), (64 * unit, "apart")):
        found, words, _ = judged(
            make(precision=precision), make("tensorflow", gaps=[gap] * STEPS, grad_gaps=NONE, precision=precision)
        )
        assert found == kind
        if kind == "rounding":
            assert verdict.FORMATS[precision] + " rounding" in words


def test_a_different_set_up_is_never_left_out(make: Make) -> None:
    """Otherwise a difference of settings reads as one between the frameworks."""
    found, words, _ = judged(make(), make("tensorflow", gaps=[0.12] * STEPS, seed=1), allow_different=True)
    assert found == "apart"
    assert words.endswith("But the runs were set up differently, which may be why they part: seed.")


def test_three_runs_have_two_verdicts(make: Make) -> None:
    """Otherwise a third run is compared with the wrong one, or not at all."""
    result = judged(make(), make("tensorflow", gaps=[ROUNDING] * STEPS), make(gaps=[0.12] * STEPS))[2]
    assert [pair["verdict"]["kind"] for pair in result["pairs"]] == ["rounding", "apart"]
    assert "PyTorch (C) and PyTorch (A) did not" in result["pairs"][1]["verdict"]["lead"]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (0.0, "0"),
        (5.94e-6, "5.9e-6"),
        (9.99e-4, "1.0e-3"),
        (1e-3, "0.1 %"),
        (0.0324, "3.2 %"),
        (2.5, "250 %"),
        (1e-12, "1.0e-12"),
    ],
)
def test_gaps_in_words(value: float, told: str) -> None:
    """Otherwise a gap reads as another."""
    assert verdict.gap(value) == told


def test_every_kind_is_described() -> None:
    """Otherwise a rare verdict ends the comparison with a KeyError."""
    kinds = compare.schema("comparison")["$defs"]["pair"]["properties"]["verdict"]["properties"]["kind"]["enum"]
    assert list(verdict.KINDS) == kinds
    assert {case[1] for case in CASES.values()} == set(kinds)
    assert to_dict(Config())["precision"] in verdict.FORMATS
