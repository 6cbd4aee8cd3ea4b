"""Comparing runs: the numbers are right, unlike runs are not taken for like ones, bad files are named."""

import copy
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from ddpm_shared import command_line, compare, machine
from ddpm_shared.compare import charts, command, comparison, gaps, run_records, verdict
from ddpm_shared.config import Config, to_dict
from ddpm_shared.datasets import Split
from ddpm_shared.errors import UserError
from ddpm_shared.records import run as run_folder
from ddpm_shared.records.scores import FASHION_FEATURES

Record = dict[str, Any]
BATCH = Config().training.batch_size  # 128


def metrics(
    framework: str = "torch",
    losses: Sequence[float] = (1.0, 0.5),
    grad_norms: Sequence[float] | None = None,
    ends: Sequence[int] | None = None,
    wall_s: Sequence[float] | None = None,
) -> Record:
    """A metrics.json made by hand; epochs end at the steps `ends` (default: the last), with that step's loss."""
    steps = [
        {
            "step": step,
            "epoch": 1,
            "images_seen": step * BATCH,
            "loss": loss,
            "grad_norm": grad_norms[step - 1] if grad_norms else 1.0,
            "learning_rate": 2e-4,
            "wall_s": wall_s[step - 1] if wall_s else float(step),
        }
        for step, loss in enumerate(losses, start=1)
    ]
    ends = ends if ends is not None else [len(losses)] if losses else []
    epochs = [
        {
            "epoch": epoch,
            "step": step,
            "train_loss": losses[step - 1],
            "validation_loss": 2 * losses[step - 1],
            "images_per_s": None,
            "wall_s": 99.5,
        }
        for epoch, step in enumerate(ends, start=1)
    ]
    return {
        "schema_version": 1,
        "framework": framework,
        "status": "completed",
        "config": to_dict(Config()),
        "environment": {
            "python": "3.11.7",
            "platform": "Linux",
            "packages": {"torch": "2.1", "tensorflow": "2.2", "numpy": "2.3"},
            "device": "cpu",
            "threads": 2,
            "cpu_count": 2,
            "git_commit": None,
            "argv": ["train"],
            "started_utc": "2026-01-01T00:00:00+00:00",
        },
        "dataset": {"name": "fashion-mnist", "split": "train", "num_images": 60_000, "sha256": "a" * 64},
        "parameters": 10,
        "history": {"steps": steps, "epochs": epochs},
        "final": {
            "step": len(losses),
            "images_seen": len(losses) * BATCH,
            "loss": losses[-1] if losses else None,
            "train_loss": epochs[-1]["train_loss"] if epochs else None,
            "validation_loss": epochs[-1]["validation_loss"] if epochs else None,
            "wall_s": 100.0,
        },
        "evaluation": {},
    }


SCORES = {
    **{"num_images": 256, "fid_fashion": 1.25, "kid_fashion": -0.1, "kid_fashion_std": 0.01},
    **{"inception_score_fashion": 8.5, "precision": 0.5, "recall": 0.25, "density": 1.5, "coverage": 1.0},
    **{"class_histogram": [256, *[0] * 9]},
}


def judged(values: Record, fid: float = 1.25) -> Record:
    """A copy of `values`, a run of two steps, with an evaluation at the end."""
    made = {"step": 2, "epoch": 1, "extractor_sha256": "c" * 64, "floor": SCORES, "wall_s": 99.0}
    record = made | SCORES | {"fid_fashion": fid}
    best = {"step": 2, "fid_fashion": fid, "checkpoint": "checkpoints/best.safetensors"}
    return put(put(values, "history.evaluations", [record]), "evaluation", record | {"best": best})


def run(values: Record, name: str = "run") -> compare.RunRecord:
    return compare.RunRecord(Path(name), values)


def pair(a: Record, b: Record) -> tuple[compare.RunRecord, compare.RunRecord]:
    return run(a, "first"), run(b, "second")


def compared(a: Record, b: Record, allow_different: bool = False) -> Record:
    """What comparison.json says of b against a."""
    found: Record = compare.compare(pair(a, b), allow_different)["pairs"][0]
    return found


def write(folder: Path, values: Record) -> str:
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps(values))
    return str(folder)


def put(values: Record, key: str, value: Any) -> Record:
    """A copy of `values` with the dotted `key` set."""
    changed = copy.deepcopy(values)
    *parents, last = key.split(".")
    inner = changed
    for parent in parents:
        inner = inner[parent]
    inner[last] = value
    return changed


A = metrics("torch")
B = metrics("tensorflow")


# What runs.py writes.


def test_what_a_run_writes_is_what_the_schema_says(tmp_path: Path) -> None:
    """Otherwise no run could be compared, or the published schema told something else than the files."""
    split = Split("fashion-mnist", "train", np.zeros((5, 28, 28, 1), np.uint8), np.zeros(5, np.uint8), "0" * 64)
    environment = machine.environment("cpu", 2)
    books = run_folder.Run(tmp_path / "run", "tensorflow", Config(), environment, split, 159_697)
    assert compare.read_run(books.folder).metrics["final"]["loss"] is None  # before the first step

    step = {"step": 1, "epoch": 1, "images_seen": 128, "loss": 0.1 + 0.2, "grad_norm": 1.0, "learning_rate": 1e-6}
    books.record_step(step)
    books.record_epoch({"epoch": 1, "step": 1, "train_loss": 0.3, "validation_loss": 0.4, "images_per_s": None})
    assert compare.read_run(books.folder).metrics["status"] == "running"

    books.finish("failed", 1, "the loss is not finite")
    read = compare.read_run(books.folder / "metrics.json")
    assert read.metrics["final"]["message"] == "the loss is not finite"
    assert read.steps[0]["loss"] == 0.1 + 0.2  # to the last bit
    assert read.metrics["config"] == to_dict(Config())


def test_the_schema_is_a_schema() -> None:
    """Otherwise a misspelt keyword could let every file pass."""
    jsonschema.Draft202012Validator.check_schema(compare.schema())


RECORDS = ["history.steps.0", "history.epochs.0", "history.evaluations.0", "history.evaluations.0.floor", "dataset", ""]


@pytest.mark.parametrize("key", [*RECORDS, "history", "evaluation.best"])
def test_records_are_exactly_the_contract(tmp_path: Path, key: str) -> None:
    """Otherwise the frameworks' files could grow apart, key by key, without anyone noticing."""

    def record(values: Any) -> Record:
        for part in key.split(".") if key else []:
            values = values[int(part) if part.isdigit() else part]
        found: Record = values
        return found

    whole = judged(A)
    compare.read_run(write(tmp_path / "whole", whole))
    for index, name in enumerate(record(whole)):
        if (key, name) == ("history", "evaluations"):  # runs of earlier versions have none
            continue
        shorter = copy.deepcopy(whole)
        del record(shorter)[name]
        with pytest.raises(UserError, match=f"'{name}' is a required property"):
            compare.read_run(write(tmp_path / f"without {index}", shorter))
    longer = copy.deepcopy(whole)
    record(longer)["mood"] = "good"
    with pytest.raises(UserError, match="'mood' was unexpected"):
        compare.read_run(write(tmp_path / "more", longer))


@pytest.mark.parametrize("key", ["config.new", "environment.new", "final.new", "evaluation.new"])
def test_records_that_may_grow_may_grow(tmp_path: Path, key: str) -> None:
    """Otherwise a new setting or a score would make all files unreadable."""
    compare.read_run(write(tmp_path / "run", put(judged(A), key, 1.5)))


def first_step(key: str, value: Any) -> Record:
    changed = copy.deepcopy(A)
    changed["history"]["steps"][0][key] = value
    return changed


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        (json.dumps(first_step("loss", float("nan"))), "NaN is not finite"),
        (json.dumps(first_step("loss", float("-inf"))), "-Infinity is not finite"),
        (json.dumps(A).replace('"loss": 1.0', '"loss": 1e999'), "1e999 is not finite"),
        (json.dumps([1]), "at its top level, [1] is not of type 'object'"),
        (json.dumps(first_step("loss", "low")), "at history.steps[0].loss, 'low' is not of type 'number'"),
        (json.dumps(first_step("step", True)), "at history.steps[0].step, True is not of type 'integer'"),
        (json.dumps(put(A, "status", "fine")), "at status, 'fine' is not one of ['running', 'completed', "),
        (json.dumps(put(A, "framework", "jax")), "at framework, 'jax' is not one of ['torch', 'tensorflow']"),
        (json.dumps(put(A, "schema_version", 2)), "at schema_version, 1 was expected"),
        (
            json.dumps(put(A, "history.epochs", {"x": "y" * 999})),
            "at history.epochs, it breaks the schema's rule 'type'",
        ),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(tmp_path: Path, content: str | bytes, complaint: str) -> None:
    """Otherwise the user sees a KeyError, or a plot of nonsense."""
    path = tmp_path / "metrics.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as caught:
        compare.read_run(tmp_path)
    assert str(caught.value).startswith(f"{path} is not ")
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """Otherwise a mistyped folder is a traceback."""
    for given, missing in ((tmp_path, tmp_path / "metrics.json"), (tmp_path / "nowhere", tmp_path / "nowhere")):
        with pytest.raises(UserError, match=f"^there is no {re.escape(str(missing))}: give a run folder"):
            compare.read_run(given)


# The numbers.


def test_step_valuesby_hand() -> None:
    """Otherwise the claim that the frameworks agree rests on wrong numbers. All gaps are exact in binary."""
    a = metrics("torch", [1.0, 2.0, 4.0, 8.0], grad_norms=[0.0, 0.0, 2.0, 2.0])
    b = metrics("tensorflow", [1.0, 2.0 + 2**-9, 5.0, 8.0, 77.0, 99.0], grad_norms=[0.0, 1.0, 2.0, 1.0, 7.0, 9.0])
    result = compared(a, b)
    assert result["common_steps"] == 4  # what only one run did is not compared
    assert result["loss"] == {  # of 0, 2**-10 < 0.001, 0.25, 0
        "max": 0.25,
        "max_at_step": 3,
        "median": 2**-11,
        "max_in_first_steps": 0.25,
        "first_step_above_threshold": 3,
        "equal_steps": 2,
        "steps_within_rounding": 2,
        "leading_steps_within_rounding": 1,
        "beyond_rounding": {"step": 2, "gap": 2**-10},
        "jump": {"step": 2, "gap": 2**-10, "largest_before": 0.0, "factor": 2.0**13},  # of float32's 2**-23
    }
    assert result["grad_norm"] == {  # of 0, 1 (from 0 to 1), 0, 0.5
        "max": 1.0,
        "max_at_step": 2,
        "median": 0.25,
        "max_in_first_steps": 1.0,
        "first_step_above_threshold": 2,
        "equal_steps": 2,
        "steps_within_rounding": 2,
        "leading_steps_within_rounding": 1,
        "beyond_rounding": {"step": 2, "gap": 1.0},
        "jump": {"step": 2, "gap": 1.0, "largest_before": 0.0, "factor": 2.0**23},
    }


def test_the_gap_is_relative_to_the_first_run() -> None:
    """Otherwise swapping A and B would go unnoticed, and "of A's" would be untrue."""
    assert_array_equal(gaps.relative_gap([2.0, 1.0, -4.0, 0.0, 0.0], [1.0, 2.0, 4.0, 0.0, -3.0]), [0.5, 1, 2, 0, 1])
    assert compared(metrics(losses=[2.0]), metrics(losses=[1.0]))["loss"]["max"] == 0.5
    assert compared(metrics(losses=[1.0]), metrics(losses=[2.0]))["loss"]["max"] == 1.0


@pytest.mark.parametrize(("step", "early"), [(100, 0.5), (101, 0.0)])
def test_the_first_hundred_steps_are_a_hundred(step: int, early: float) -> None:
    """Otherwise early agreement, where rounding has not grown yet, is judged by later steps or not at all."""
    losses = [1.0] * 150
    losses[step - 1] = 1.5
    result = compared(metrics(losses=[1.0] * 150), metrics("tensorflow", losses))["loss"]
    assert (result["max"], result["max_at_step"], result["max_in_first_steps"]) == (0.5, step, early)


def test_epochs_are_matched_by_step() -> None:
    """Otherwise an epoch that --max-steps cut short would be held against a whole one."""
    a, b = metrics("torch", [4.0, 2.0, 1.0, 1.0], ends=[2, 3]), metrics("tensorflow", [4.0, 3.0, 1.0, 1.0], ends=[2, 4])
    rows = compared(a, b)["epochs"]
    assert [(row["epoch"], row["step"], row["train_loss_gap"]) for row in rows] == [
        (1, 2, 0.5),
        (2, 3, None),
        (2, 4, None),
    ]
    assert rows[0] == {
        "epoch": 1,
        "step": 2,
        **{"train_loss_a": 2.0, "train_loss_b": 3.0, "train_loss_gap": 0.5},
        **{"validation_loss_a": 4.0, "validation_loss_b": 6.0, "validation_loss_gap": 0.5},
    }
    assert (rows[1]["train_loss_a"], rows[1]["train_loss_b"]) == (1.0, None)


@pytest.mark.parametrize(
    ("wall_s", "ends", "expected"),
    [
        ([60.0, 60.5, 61.0, 61.5], [4], 256.0),  # a first step that compiles for a minute
        ([1.0, 1.5, 12.0, 12.5, 23.0], [2, 4], 256.0),  # ten seconds of validation after steps 2 and 4
        ([1.0, 1.5, 2.0, 9.0, 9.5], [5], 256.0),  # a checkpoint of 6.5 seconds
        ([1.0], [1], None),  # only a first step
        ([1.0, 2.0, 3.0], [1, 2, 3], None),  # epochs of one step
        ([1.0, 1.0], [2], None),  # a clock that stands still
    ],
)
def test_images_per_s_is_that_of_training(wall_s: list[float], ends: list[int], expected: float | None) -> None:
    """Otherwise compiling, validation or a slow disk is taken for a slow framework. 128 images in 0.5 s are 256 / s."""
    assert run_records.images_per_s(run(metrics(losses=[1.0] * len(wall_s), ends=ends, wall_s=wall_s))) == expected


def test_the_last_judgement_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Otherwise one compares losses where the quality of the samples is known, or the files of old runs are refused.

    A is as runs were written before there was a judge, B as when it judged Fashion-MNIST only.
    """
    folders = [write(tmp_path / "a", A), write(tmp_path / "b", judged(B, fid=1.25))]
    out = tmp_path / "out"
    assert command.main([*folders, "--out", str(out)]) == 0
    result = json.loads((out / "comparison.json").read_text())
    keys = ("fid", "fid_fashion", "fid_images", "features")
    told = [tuple(each[key] for key in keys) for each in result["runs"]]
    assert told == [(None,) * 4, (1.25, 1.25, 256, FASHION_FEATURES)]
    assert result["not_comparable"] is None
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["fid", "none", "1.25"] in rows
    assert ["fid", "images", "none", "256"] in rows
    page = re.sub(r"\s+", " ", (out / "report.html").read_text())
    assert '<th scope="row">fid</th> <td>–</td> <td>1.25</td>' in page
    assert '<th scope="row">fid images</th> <td>–</td> <td>256</td>' in page
    assert result["runs"][1]["class_accuracy"] is None
    assert "class accuracy" not in page


NOW = {"fid": 1.25, "kid": -0.1, "kid_std": 0.01, "inception_score": None, "class_histogram": None}


@pytest.mark.parametrize(
    ("features", "sha256", "told"),
    [
        ("random features", "d" * 64, f"A was judged by {FASHION_FEATURES}, B was judged by random features."),
        (FASHION_FEATURES, "d" * 64, f"A was judged by {FASHION_FEATURES} (cccccccccccc), B was judged by"),
        (FASHION_FEATURES, "c" * 64, None),
    ],
)
def test_fids_of_two_kinds_of_features_are_not_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], features: str, sha256: str, told: str | None
) -> None:
    """Otherwise the run that was judged by milder eyes seems to draw better."""
    other = judged(B)
    for place in (other["evaluation"], other["history"]["evaluations"][0]):
        for key in (key for key in SCORES if "fashion" in key):
            del place[key]
        place.update(NOW, features=features, extractor_sha256=sha256)
    other["evaluation"]["best"] = {"step": 2, "fid": 1.25, "checkpoint": None}
    folders = [write(tmp_path / "a", judged(A)), write(tmp_path / "b", other)]
    out = tmp_path / "out"
    assert command.main([*folders, "--out", str(out)]) == 0
    result = json.loads((out / "comparison.json").read_text())
    jsonschema.validate(result, compare.schema("comparison"))
    page, text = (out / "report.html").read_text(), capsys.readouterr().out
    if told is None:
        assert result["not_comparable"] is None
        assert "not comparable" not in page + text
    else:
        assert result["not_comparable"].startswith(f"The FIDs are not comparable: {told}")
        assert result["not_comparable"] in text
        assert result["not_comparable"] in page


def test_the_accuracy_of_classes_is_told_where_there_are_any(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Otherwise one compares two class-conditional runs without seeing whether they draw what was asked for."""
    values = put(judged(B), "evaluation.class_accuracy", 0.875)
    folders = [write(tmp_path / "a", A), write(tmp_path / "b", values)]
    out = tmp_path / "out"
    assert command.main([*folders, "--out", str(out)]) == 0
    assert [each["class_accuracy"] for each in json.loads((out / "comparison.json").read_text())["runs"]] == [
        None,
        0.875,
    ]
    assert ["class", "accuracy", "none", "0.875"] in [line.split() for line in capsys.readouterr().out.splitlines()]
    page = re.sub(r"\s+", " ", (out / "report.html").read_text())
    assert '<th scope="row">class accuracy</th> <td>–</td> <td>0.875</td>' in page


# Like with like.


@pytest.mark.parametrize(
    ("key", "was", "other"),
    [
        ("seed", 0, 1),
        ("precision", "fp32", "bf16"),
        ("preset", "small", "tiny"),
        ("training.learning_rate", 1e-3, 1e-4),
        ("training.validation_images", None, 128),
        ("model.channel_mults", [1, 2, 4], [1, 2]),
        ("data.horizontal_flip", False, True),
    ],
)
def test_severalset_up_differently_are_refused(key: str, was: object, other: object) -> None:
    """Otherwise a difference of settings is taken for a difference of frameworks."""
    changed = put(B, f"config.{key}", other)
    with pytest.raises(UserError) as caught:
        compared(A, changed)
    told = f"first (A) and second (B) were set up differently: {key} is {was!r} in A and {other!r} in B; "
    assert str(caught.value).startswith(told)
    assert "--allow-different" in str(caught.value)

    result = compared(A, changed, allow_different=True)
    assert result["differences"] == {key: [was, other]}
    assert result["decisive_differences"] == [key]
    assert result["verdict"]["details"].endswith(f"But the runs were set up differently: {key}.")


def test_every_difference_is_named() -> None:
    """Otherwise the user mends one, runs for a day, and is told the next."""
    changed = put(put(put(B, "config.seed", 5), "config.diffusion.timesteps", 50), "dataset.sha256", "b" * 64)
    changed["dataset"]["name"] = "fashion-mnist-10k"
    del changed["config"]["training"]["ema_decay"]
    with pytest.raises(UserError) as caught:
        compared(A, changed)
    for part in (
        "seed is 0 in A and 5 in B",
        "diffusion.timesteps is 1000 in A and 50 in B",
        "training.ema_decay is 0.999 in A and None in B",
        "dataset.name is 'fashion-mnist' in A and 'fashion-mnist-10k' in B",
        f"dataset.sha256 is '{'a' * 64}' in A and '{'b' * 64}' in B",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("device", "gpu"),
        ("data.data_dir", "/elsewhere"),
        ("data.dataset", "fashion-mnist"),  # "auto" found the same bytes
        ("training.sample_every", 0),
        ("training.sample_images", 4),
        ("training.evaluate_every", 1),
        ("training.evaluate_images", 500),
        ("training.checkpoint_every", 7),
        ("training.keep_checkpoints", 1),
    ],
)
def test_what_decides_no_number_is_no_difference(key: str, value: object) -> None:
    """Otherwise a run on a GPU could not be laid over one on a CPU without switching all checks off."""
    assert compared(A, put(B, f"config.{key}", value))["differences"] == {}


@pytest.mark.parametrize(("key", "was", "other"), [("training.epochs", 20, 3), ("training.max_steps", None, 9)])
def test_another_length_is_told_but_no_reason_to_refuse(key: str, was: object, other: object) -> None:
    """Otherwise a short run could not be checked against the start of a long one."""
    result = compare.compare(pair(A, put(B, f"config.{key}", other)))
    assert result["pairs"][0]["differences"] == {key: [was, other]}
    assert f"set up differently: {key} is {was} in A and {other} in B" in compare.text(result)
    assert "set up differently" not in verdict.words(result["pairs"][0])


def test_a_run_is_not_compared_with_itself(tmp_path: Path) -> None:
    """Otherwise a slip of the hand proves that the frameworks agree to the last bit."""
    first, copied = write(tmp_path / "first", A), write(tmp_path / "copied", A)
    for other in (first, f"{first}/metrics.json", f"{first}/../first", copied):
        with pytest.raises(UserError, match="are one and the same run, or a copy of it: give different runs"):
            command.main([first, other, "--allow-different", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_severalwithout_a_common_step_are_refused() -> None:
    """Otherwise the statistics of nothing are NaN."""
    with pytest.raises(UserError, match="no step in common, the first having 2 steps and the second 0: "):
        compared(A, metrics("tensorflow", []))


def test_every_run_is_held_against_the_first() -> None:
    """Otherwise a third run that was set up differently, or is a copy, slips through beside a good pair."""
    c = metrics("torch", [1.0, 0.25])
    several = [run(values, name) for name, values in (("first", A), ("second", B), ("third", c))]
    assert [found["loss"]["max"] for found in compare.compare(several)["pairs"]] == [0.0, 0.5]
    with pytest.raises(
        UserError, match=r"^first \(A\) and third \(C\) were set up differently: seed is 0 in A and 3 in C;"
    ):
        compare.compare([*several[:2], run(put(c, "config.seed", 3), "third")])
    with pytest.raises(UserError, match=r"^second and copied are one and the same run"):
        compare.compare([*several[:2], run(B, "copied")])
    with pytest.raises(UserError, match=r"^first and third have no step in common"):
        compare.compare([*several[:2], run(metrics(losses=[]), "third")])


def test_settings_stand_side_by_side() -> None:
    """Otherwise the report hides what was different, or shows what was not."""
    result = compare.compare([run(A), run(put(B, "environment.threads", 8)), run(put(A, "config.device", "gpu"))])
    assert result["configuration"]["different"] == {"device": ["auto", "auto", "gpu"]}
    assert result["environment"]["different"] == {"threads": [2, 8, 2]}
    for settings in (result["configuration"], result["environment"]):
        assert not settings["different"].keys() & settings["equal"].keys()
    assert result["configuration"]["equal"]["data set.sha256"] == "a" * 64
    assert result["environment"]["equal"]["packages.numpy"] == "2.3"


def test_a_gap_is_judged_by_the_coarser_precision() -> None:
    """Otherwise float64 against float32 is called a fault for float32's own rounding."""
    a, b = (
        put(A, "config.precision", "fp64"),
        put(metrics("tensorflow", [1.0, 0.5 + 2**-24]), "config.precision", "fp32"),
    )
    result = compared(a, b, allow_different=True)
    assert result["rounding"] == {"precision": "fp32", "unit": 2**-23, "roundings": 16, "limit": 2**-19}
    assert result["loss"]["steps_within_rounding"] == 2
    assert compared(a, put(b, "config.precision", "fp64"))["loss"]["steps_within_rounding"] == 1


def test_an_unknown_precision_is_refused(tmp_path: Path) -> None:
    """Otherwise a run of a later version is judged by a rounding that is not its own."""
    path = write(tmp_path / "run", put(A, "config.precision", "fp8"))
    with pytest.raises(UserError, match=re.escape(f"{path}/metrics.json: unknown config.precision 'fp8'")):
        compare.read_run(path)


@pytest.mark.parametrize(
    ("values", "step"),
    [
        ([0, 0, 0, 1.1e-5], None),  # less than 100 roundings, 1.19e-5
        ([0, 0, 0, 1.3e-5], 4),
        ([1e-6, 0, 0, 0.99e-4], None),  # the largest before counts, not the one just before
        ([1e-6, 0, 0, 1.01e-4], 4),
        ([1e-7 * 10 ** (k / 10) for k in range(60)], None),  # tenfold in ten steps, as rounding grows in training
        ([1e-7 * 30**k for k in range(5)], None),
    ],
)
def test_what_counts_as_a_jump(values: list[float], step: int | None) -> None:
    """Otherwise the growth of rounding is called a fault, or a fault the growth of rounding."""
    jump = gaps.first_jump(np.arange(1, len(values) + 1), np.array(values, float), 2.0**-23)
    assert (jump and jump["step"]) == step


def test_labels_do_not_run_out() -> None:
    """Otherwise the 27th run has no name, or somebody else's."""
    names = run_records.labels(28)
    assert (names[0], names[25:]) == ("A", ["Z", "AA", "AB"])


# What is written and printed.


def no_constant(name: str) -> float:
    raise AssertionError(f"{name} in JSON")


def test_main_writes_the_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Otherwise a file is missing, not what its schema says, or one that no tool reads."""
    a = metrics("torch", [0.1 + 0.2, 0.7, 0.011], ends=[2, 3])
    b = metrics("tensorflow", [0.3, 0.7, 0.0112], ends=[2, 3])
    c = metrics("torch", [0.1 + 0.2, 0.7, 0.013], ends=[2, 3])
    out = tmp_path / "deep" / "out"
    folders = [write(tmp_path / name, values) for name, values in (("a", a), ("b", b), ("c", c))]
    assert command.main([*folders, "--out", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["comparison.json", "loss.png", "report.html"]

    result = json.loads((out / "comparison.json").read_text(), parse_constant=no_constant)
    jsonschema.validate(result, compare.schema("comparison"))
    assert [(each["label"], each["path"]) for each in result["runs"]] == list(zip("ABC", folders, strict=True))
    first, second = result["pairs"]
    assert (first["a"], first["b"], second["a"], second["b"]) == ("A", "B", "A", "C")
    assert first["epochs"][0]["train_loss_a"] == 0.7
    assert first["loss"]["max"] == (0.0112 - 0.011) / 0.011
    assert second["loss"]["max"] == (0.013 - 0.011) / 0.011  # to the baseline, not to B
    assert first["samples"]["absent"] == "A and B left no grid of samples"

    printed = capsys.readouterr().out
    assert all(verdict.words(each) in printed for each in result["pairs"])
    assert printed.endswith(f"{out / 'report.html'}, {out / 'comparison.json'}, {out / 'loss.png'}\n")
    with Image.open(out / "loss.png") as picture:
        assert picture.format == "PNG"
        assert picture.size == (1080, 840)


def test_the_schema_of_comparisons_is_strict() -> None:
    """Otherwise comparison.json could grow apart from its description without anyone noticing."""
    schema = compare.schema("comparison")
    jsonschema.Draft202012Validator.check_schema(schema)
    records: list[Record] = [schema, *schema["$defs"].values()]
    assert all(record["additionalProperties"] is False for record in records)
    assert all(set(record["required"]) == set(record["properties"]) for record in records)
    check = jsonschema.Draft202012Validator(schema).is_valid
    whole = json.loads(json.dumps(compare.compare(pair(A, B)))) | {"parity": None}
    whole["pairs"][0]["samples"] = dict.fromkeys(schema["$defs"]["pair"]["properties"]["samples"]["properties"])
    assert check(whole)
    assert not check(put(whole, "mood", "good"))
    assert not check(put(whole, "thresholds.gap", "small"))
    assert not check(whole | {"runs": whole["runs"][:1]})


def test_default_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise one comparison overwrites another, or litters the repository."""
    monkeypatch.chdir(tmp_path)
    arguments = [write(tmp_path / "a", A), write(tmp_path / "b", B)]
    assert command.main(arguments) == command.main(arguments) == 0
    written = sorted(Path("runs/compare").glob("*Z-torch-tensorflow*/comparison.json"))
    assert len(written) == 2


def test_tables_are_aligned() -> None:
    """Otherwise numbers stand under the wrong run."""
    a, b = metrics("torch", [0.5, 0.25], ends=[1, 2]), metrics("tensorflow", [0.5, 0.125], ends=[2])
    tables = compare.text(compare.compare(pair(a, b))).split("\n\n")[:3]
    each_run, each_epoch, step_by_step = (table.split("\n") for table in tables)
    for table in (each_run, each_epoch, step_by_step):
        assert len({len(line) for line in table}) == 1
    assert each_run[0].split() == ["run", "A", "B"]
    assert "framework".ljust(15) + "  " in each_run[2]
    assert [line.split() for line in each_epoch[1:]] == [
        ["1", "1", "0.5", "none", "none", "1", "none", "none"],
        ["2", "2", "0.25", "0.125", "0.5", "0.5", "0.25", "0.5"],
    ]
    assert step_by_step[5].split() == ["first", "step", "above", "0.001", "2", "none"]


@pytest.mark.parametrize(
    "losses",
    [
        pytest.param([1.0, 0.5], id="equal everywhere"),  # nothing to show on a logarithmic axis
        pytest.param([1.5, 0.0], id="equal nowhere, and a loss of 0"),
        pytest.param([1.0, *[0.01] * 999], id="long"),
    ],
)
def test_the_figure_shows_any_pair(losses: list[float]) -> None:
    """Otherwise the plot fails, or warns, just for the runs that agree best. Warnings are errors here."""
    buffer = io.BytesIO()
    drawn = charts.curves([*pair(A, metrics("tensorflow", losses)), run(metrics(losses=[1.0, 0.6]))])
    charts.overview(drawn).savefig(buffer, format="png", dpi=50)
    with Image.open(buffer) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50  # more than an empty frame
    assert (
        min(edge.min() for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1])) == 255
    )  # nothing runs over the edge


# The command line.


def code_of(run: Callable[[], int]) -> int | str | None:
    with pytest.raises(SystemExit) as caught:
        command_line.guard(run)
    return caught.value.code


def test_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Otherwise a script takes a refusal for a comparison, or a large gap for a failure."""
    a, far = write(tmp_path / "a", A), write(tmp_path / "far", metrics("tensorflow", [1000.0, 1000.0]))
    unlike = write(tmp_path / "unlike", put(B, "config.seed", 1))
    out = ["--out", str(tmp_path / "out")]
    assert code_of(lambda: command.main([a, far, *out])) == 0
    assert code_of(lambda: command.main([a, unlike, *out])) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert code_of(lambda: command.main([a, unlike, "--allow-different", *out])) == 0
    assert code_of(lambda: command.main([a, str(tmp_path / "nowhere"), *out])) == 2
    for given in ([], [a]):
        assert code_of(lambda given=given: command.main([*given, *out])) == 2  # type: ignore[misc]
        assert f"a comparison needs two runs or more, not {len(given)}: " in capsys.readouterr().err
    assert code_of(lambda: command.main([a, far, "--out", f"{a}/metrics.json"])) == 2  # a file, not a folder
    assert "metrics.json" in capsys.readouterr().err


def test_as_a_module(tmp_path: Path) -> None:
    """Otherwise `make compare` does nothing, or ends in a traceback."""
    line = [sys.executable, "-m", "ddpm_shared.compare", str(tmp_path / "x"), str(tmp_path / "y")]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: there is no {tmp_path / 'x'}")
    assert "Traceback" not in done.stderr


def test_a_run_of_an_older_version_is_not_set_up_differently() -> None:
    """Otherwise no run can be compared with one from before class labels, though both computed the same."""
    older = put(B, "config.seed", A["config"]["seed"])
    newer = put(put(A, "config.class_conditional", False), "config.training.label_drop", 0.1)
    assert comparison.set_up_differences(newer, older) == comparison.set_up_differences(A, older)
    conditional = put(newer, "config.class_conditional", True)
    assert comparison.set_up_differences(conditional, older)["class_conditional"] == (True, False)
