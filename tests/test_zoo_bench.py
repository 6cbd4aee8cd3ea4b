"""The networks measured (tests/benchmarks/zoo.py): what is trained, drawn, kept and shown.

The networks have hardly learned, so the distances are those of noise; that they are of the right images is the matter.
"""

import json

import numpy as np
import pytest
import zoo
from PIL import Image

from ddpm_shared import datasets, files
from ddpm_shared.errors import UserError
from ddpm_shared.evaluation.judge import Judge
from ddpm_shared.records import checkpoint, folder

ENTRIES = ("denoise_net", "denoise_net-time")
SHORT = {"networks": ENTRIES, "max_steps": 2, "images": 128, "steps": 2, "precision": "fp32", "threads": 1}


@pytest.fixture(scope="module")
def measured(few_images, tmp_path_factory):
    """The folder of a small measurement."""
    out = tmp_path_factory.mktemp("zoo")
    assert zoo.run(zoo.Options(**SHORT, dataset="fashion-mnist-10k", out=str(out))) == 0
    return out


def options(out, **changes):
    return zoo.Options(**SHORT | {"dataset": "fashion-mnist-10k", "out": str(out)} | changes)


def test_each_network_is_trained_as_all_others(measured):
    """Otherwise a preset's own training, or the time that one of them was given, makes the difference."""
    with_time, without = (
        checkpoint.load(folder.latest_checkpoint(measured / f"torch-{entry}")).config for entry in reversed(ENTRIES)
    )
    assert (with_time.model.uses_time, without.model.uses_time) == (True, False)
    assert with_time.training == without.training
    assert with_time.training.learning_rate == 1e-3
    assert with_time.preset == "two-convolutions"
    assert {zoo.PRESET_OF[entry] for entry in zoo.ENTRIES if entry in zoo.PRESET_OF} == set(zoo.PRESET_OF.values())


def test_what_is_reported_is_of_the_images_drawn(measured):
    """Otherwise a network has the distance of another one's images."""
    report = json.loads((measured / "zoo.json").read_text())
    judge = Judge(*datasets.load("fashion-mnist-10k"))
    for entry in ENTRIES:
        drawn = files.read_npz(measured / f"torch-{entry}" / "drawn" / "samples.npz")["images"]
        assert report["networks"][entry]["scores"]["fid"] == judge.scores(judge.extractor(drawn))["fid"]
    assert json.loads((measured / "fid.json").read_text()) == {
        "two-convolutions": report["networks"]["denoise_net"]["scores"]["fid"]
    }
    assert "| denoise_net-time |      9,473 |     2 |" in (measured / "zoo.md").read_text()
    with Image.open(measured / "zoo.png") as picture:
        assert len(np.unique(np.asarray(picture.convert("L")))) > 50


def test_what_is_finished_is_not_made_again(measured, monkeypatch):
    """Otherwise an hour of training is lost with the report."""
    monkeypatch.setattr(zoo.Options, "command", lambda self, name: pytest.fail(f"{name} was called"))
    assert zoo.run(options(measured)) == 0


def test_too_few_images_to_judge_are_refused(tmp_path):
    """Otherwise the distance of fewer images than features is a number without a meaning."""
    with pytest.raises(UserError, match="--images 100: must be 128 or more"):
        options(tmp_path, images=100)
