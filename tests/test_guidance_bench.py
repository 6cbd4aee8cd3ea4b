"""The measurement of guidance (tests/benchmarks/guidance.py): what it draws, counts, keeps and shows. Nothing is timed.

Both trees draw with a network that has hardly learned, so the numbers are those of noise; that they are the right ones
is the matter here.
"""

import importlib
import json

import machine
import numpy as np
import pytest
from PIL import Image

from ddpm_shared import datasets, files
from ddpm_shared.batches import training_batch
from ddpm_shared.errors import UserError
from ddpm_shared.records import checkpoint, folder

RUN = {
    **{"preset": "tiny", "base-channels": 8, "channel-mults": 1, "num-groups": 4, "num-res-blocks": 1},
    **{"dataset": "fashion-mnist-10k", "timesteps": 20, "batch-size": 16, "max-steps": 5, "device": "cpu", "seed": 3},
    **{"validation-images": 16, "sample-every": 0},
    **{"warmup-steps": 0, "learning-rate": 0.05, "ema-decay": 0},  # what five steps teach must be seen
}


@pytest.fixture(scope="module")
def guidance(both, few_images):
    """The script, on few images and a quiet machine; a network is loaded once, for Keras takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "watch", lambda: machine.Busy(0.0))
        for tree in both:
            networks = {}

            def load(loaded, prefix, config, load=tree.model.load, networks=networks):
                key = (loaded.sha256, config)
                if key not in networks:
                    networks[key] = load(loaded, prefix, config)
                return networks[key]

            patch.setattr(tree.model, "load", load)
        yield importlib.import_module("guidance")


@pytest.fixture(scope="module")
def runs(both, guidance, tmp_path_factory):
    """A class-conditional run and one without classes."""
    made = {}
    told = [word for name, value in RUN.items() for word in (f"--{name}", str(value))]
    for name, flags in {"checkpoint": ["--class-conditional", "--label-drop", "0.3"], "unconditional": []}.items():
        made[name] = tmp_path_factory.mktemp("runs") / name
        assert both[0].train.main([*told, *flags, "--run-dir", str(made[name])]) == 0
    return made


def options(guidance, runs, out, **changes):
    few = {"scales": (1, 3), "intervals": ((3, 5, 12),), "images": 128, "steps": 2, "batch_size": 64}
    few |= {"sampler": "ddim", "precision": "fp32", "dataset": "fashion-mnist-10k"}
    return guidance.Options(**few | {name: str(run) for name, run in runs.items()} | {"out": str(out)} | changes)


@pytest.fixture(scope="module")
def measured(guidance, runs, tmp_path_factory):
    """The folder of a small measurement by both frameworks."""
    out = tmp_path_factory.mktemp("measured")
    assert guidance.run(options(guidance, runs, out, stages=("audit", "draw", "report"))) == 0
    return out


@pytest.mark.slow
def test_every_way_of_drawing_has_its_numbers(measured):
    """Otherwise a row of the table is another scale's, or compares sets of images that were not drawn alike."""
    report = json.loads((measured / "guidance.json").read_text())
    ways = [(c["scale"], c["interval"], c["framework"], c["evaluations"]) for c in report["cells"]]
    assert ways == [
        *[(1.0, None, "torch", 2), (1.0, None, "tf", 2)],
        *[(3.0, None, "torch", 4), (3.0, None, "tf", 4)],
        *[(3.0, [5, 12], "torch", 3), (3.0, [5, 12], "tf", 3)],  # of the times 9 and 19, one
        *[(None, None, "torch", 2), (None, None, "tf", 2)],
    ]
    drawn = {file.parent.name: files.read_npz(file)["images"] for file in measured.glob("cells/*/samples.npz")}
    assert len({images.tobytes() for name, images in drawn.items() if name.startswith("torch")}) == 4
    assert all(len(images) == 128 for images in drawn.values())
    for cell in report["cells"][1::2]:
        differing, of, levels = cell["differing_from_torch"]
        assert differing < of / 1000
        assert levels <= 1


@pytest.mark.slow
def test_the_accuracy_is_of_the_class_asked_for(measured, guidance):
    """Otherwise guidance seems to draw what was asked for, or not to."""
    judge = guidance.Judge(*datasets.load("fashion-mnist-10k"))
    real = judge.other
    dresses = real.labels == 3
    seen = judge.extractor(real.images[dresses]).probabilities.argmax(1)
    labels = np.where(real.labels == 4, 5, real.labels)  # the coats are said to be sandals
    name = guidance.Cell("torch", 2.0)
    files.write_npz(measured / "asked" / "cells" / name.name / "samples.npz", images=real.images, labels=labels)
    found = guidance.scores(measured / "asked", name, judge)
    assert found["accuracy_of"][3] == pytest.approx((seen == 3).mean())
    assert found["accuracy_of"][5] < 0.7 < found["accuracy_of"][9]
    assert found["accuracy_of"][4] is None
    right = judge.extractor(real.images).probabilities.argmax(1) == labels
    assert found["accuracy"] == pytest.approx(right.mean())


@pytest.mark.slow
def test_the_rows_are_counted_as_they_were_trained(measured, guidance, runs):
    """Otherwise the null label is said to have learned from images that it never had."""
    run = checkpoint.load(folder.latest_checkpoint(runs["checkpoint"]), ("ema",))
    train_split = datasets.load("fashion-mnist-10k")[0]
    batches = [training_batch(train_split, run.config, step).labels for step in range(run.step)]
    audit = json.loads((measured / "audit.json").read_text())
    assert audit["steps"] == len(batches) == 5
    assert audit["images"] == np.bincount(np.concatenate(batches), minlength=11).tolist()
    assert audit["steps_with"] == [sum(k in labels for labels in batches) for k in range(11)]
    assert audit["images"][-1] > 10
    assert all(way > 0 for way, images in zip(audit["way"], audit["images"], strict=True) if images)


@pytest.mark.slow
def test_the_tables_and_pictures_show_all(measured):
    """Otherwise the measurement ends with nothing to look at, or a framework is missing."""
    text = (measured / "guidance.md").read_text()
    for row in ("s = 1 (w = 0)", "s = 3 (w = 2)", "s = 3 (w = 2), t 5 .. 12", "unconditional model"):
        assert text.count(f"| {row} ") >= 2
    assert "| no label " in text
    for name in ("guidance.png", "guidance-sheet.png"):
        with Image.open(measured / name) as picture:
            assert min(picture.size) > 150
            assert len(picture.convert("L").getcolors()) > 20  # something is drawn


@pytest.mark.slow
def test_what_is_finished_is_not_drawn_again(measured, guidance, runs, both, monkeypatch):
    """Otherwise an interruption costs hours, or one more scale costs a run of all."""
    drawn = []
    for tree in both:
        monkeypatch.setattr(tree.inference, "main", lambda argv, name=tree.name: drawn.append((name, argv)) or 130)
    assert guidance.run(options(guidance, runs, measured, stages=("draw",))) == 0
    assert drawn == []
    assert guidance.run(options(guidance, runs, measured, stages=("draw",), scales=(1, 2))) == 130
    ((name, argv),) = drawn
    assert name == "torch"
    assert argv[-4:] == ["--labels", "all", "--guidance", "2"]


@pytest.mark.slow
def test_other_settings_are_refused(measured, guidance, runs, guarded):
    """Otherwise distances of 128 and of 129 images, or of two checkpoints, stand in one table."""
    code, said = guarded(lambda: guidance.run(options(guidance, runs, measured, stages=("draw",), images=129)))
    assert code == 2
    assert "is of other settings (images was 128, now 129): choose another --out" in said
    with pytest.raises(UserError, match="must be a class-conditional one"):
        guidance.run(options(guidance, runs, measured, stages=("audit",), **{"checkpoint": str(runs["unconditional"])}))


def test_a_step_is_timed_each_way(guidance, runs, tmp_path, monkeypatch):
    """Otherwise the cost of guidance is that of another batch, or of a first call that compiles."""
    facts = importlib.import_module("guidance_facts")
    monkeypatch.setattr(facts, "BATCH", 2)
    monkeypatch.setattr(facts, "ROUNDS", 2)
    asked = {"stages": ("time", "report"), "frameworks": ("torch",)}
    assert guidance.run(options(guidance, runs, tmp_path, **asked)) == 0
    for precision in ("fp32", "bf16"):
        found = json.loads((tmp_path / f"seconds-torch-{precision}.json").read_text())
        assert [len(rounds) for rounds in found["seconds_a_step"].values()] == [2] * 4
    assert "| PyTorch, fp32 |" in (tmp_path / "guidance.md").read_text()
