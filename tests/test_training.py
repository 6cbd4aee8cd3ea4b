"""The training run: what it leaves, and that no interruption, death or failure changes or spoils the result.

The first half trains real networks, as small as they get, on 64 images. The rest puts a learner of a few numbers in
their place: what is tested there is the loop around the learner, and both trees have it in common.
"""

import contextlib
import dataclasses
import errno
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import numpy as np
import pytest
from numpy.testing import assert_allclose
from PIL import Image

from ddpm_shared import compare, datasets, files, images
from ddpm_shared.batches import training_batch
from ddpm_shared.commands import epoch_end, interruption, training_loop
from ddpm_shared.commands import train as train_command
from ddpm_shared.config.sampling import QUICK
from ddpm_shared.errors import UserError
from ddpm_shared.evaluation import judge
from ddpm_shared.records import checkpoint, loss_curve
from ddpm_shared.records import folder as run_folders
from ddpm_shared.records import history as run_history
from ddpm_shared.records import run as run_record

# 4 steps an epoch, 8 in all; checkpoints after 3, 6 and 8, so that an epoch's end and a checkpoint are two things.
STEPS, STEPS_PER_EPOCH = 8, 4
FLAGS = [
    *("--preset", "tiny", "--base-channels", "8", "--channel-mults", "1", "--num-groups", "4"),
    *("--dataset", "fashion-mnist-10k", "--timesteps", "20", "--batch-size", "16", "--epochs", "2"),
    *("--warmup-steps", "3", "--learning-rate-decay", "linear", "--checkpoint-every", "3", "--device", "cpu"),
    *("--validation-images", "20", "--sample-images", "4", "--sample-every", "1"),
]

# Losses of a run that the other framework went on with, relative; seen: 5e-8, one step of float32 at 1.
CROSS_FRAMEWORK = 5e-7


@pytest.fixture(scope="module")
def embedded():
    """The embedded images, all of them."""
    return datasets.load(datasets.EMBEDDED)


@pytest.fixture(scope="module", autouse=True)
def data(embedded):
    """The embedded images, cut to 64 and 30, for the whole file."""
    cut = [
        dataclasses.replace(split, images=split.images[:number], labels=split.labels[:number])
        for split, number in zip(embedded, (64, 30), strict=True)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load", lambda name, data_dir=None, folder=None: tuple(cut))
        yield cut


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def train(tree, *argv):
    return tree.train.main([*FLAGS, *map(str, argv)])


def resume(tree, folder, *argv):
    return tree.train.main(["--resume", str(folder), *argv])


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def without_times(folder):
    """The history, without what differs between two runs of the same numbers."""
    timed = {"wall_s", "images_per_s"}
    return {
        kind: [{key: value for key, value in record.items() if key not in timed} for record in records]
        for kind, records in metrics(folder)["history"].items()
    }


def last_tensors(folder):
    return checkpoint.load(run_folders.latest_checkpoint(folder)).tensors


def best(folder):
    """The checkpoint that metrics.json names as the best, once it is the one that it says it is."""
    told = metrics(folder)["evaluation"]["best"]
    found = checkpoint.load(folder / told["checkpoint"])
    assert found.step == told["step"]
    return found


def assert_same_state(ours, theirs):
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name].tobytes() != theirs[name].tobytes()] == []


def assert_same_result(folder, other):
    """Losses, epochs, evaluations, pictures and all state, to the last bit."""
    assert without_times(folder) == without_times(other)
    assert_same_state(last_tensors(folder), last_tensors(other))
    if metrics(other)["evaluation"]:
        assert metrics(folder)["evaluation"]["best"] == metrics(other)["evaluation"]["best"]
        assert_same_state(best(folder).tensors, best(other).tensors)
    pictures = [{p.name: p.read_bytes() for p in (run / "samples").iterdir()} for run in (folder, other)]
    assert pictures[0] == pictures[1]


def die(folder, step, checkpoint_step):
    """Leave of a finished run what it had left if it had been killed while it recorded step + 1."""
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    events = [json.loads(line) for line in lines]
    last = events.index(next(e for e in events if e["event"] == "step" and e["step"] == step))
    (folder / "metrics.jsonl").write_text("".join(lines[: last + 1]) + lines[last][:50])
    for file in (folder / "checkpoints").glob("step_*"):
        if int(file.stem.removeprefix("step_")) > checkpoint_step:
            file.unlink()
    (folder / "checkpoints" / "latest").write_text(f"step_{checkpoint_step:08d}.safetensors\n")
    return folder


# --- Real networks ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A function: tree -> a copy of the folder of its whole run, which is made once."""
    made = {}

    def copy(tree):
        if tree.name not in made:
            made[tree.name] = tmp_path_factory.mktemp(tree.name) / "run"
            assert train(tree, "--run-dir", made[tree.name]) == 0
        return Path(shutil.copytree(made[tree.name], tmp_path_factory.mktemp("copy") / "run"))

    return copy


def signal_in(tree, patch, method, call, number):
    """Have the process signal itself halfway through the call-th call of a method of the learner."""
    learner = tree.learner.Learner
    original = getattr(learner, method)
    calls = []

    def kill_if(halfway):
        if halfway and len(calls) == call:
            os.kill(os.getpid(), number)

    def train_step(self, batch, step):
        calls.append(step)
        kill_if(True)
        return original(self, batch, step)

    def validation_losses(self, batches):
        calls.append(0)
        for index, batch in enumerate(original(self, batches)):
            kill_if(index == 1)
            yield batch

    def sample(self, num_images, on_step, first=0, labels=None):
        calls.append(0)
        return original(self, num_images, lambda t: (kill_if(t == 10), on_step(t)), first, labels)

    patch.setattr(learner, method, locals()[method])


def test_a_run_leaves_everything(tree, finished, data):
    """Otherwise a run that seemed to work has nothing to sample, compare or resume from."""
    folder = finished(tree)
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == [
        "checkpoints/latest",
        "checkpoints/step_00000003.safetensors",
        "checkpoints/step_00000006.safetensors",
        "checkpoints/step_00000008.safetensors",
        "config.json",
        "environment.json",
        "metrics.json",
        "metrics.jsonl",
        "samples/step_00000004.png",
        "samples/step_00000008.png",
    ]
    found = metrics(folder)
    jsonschema.validate(found, compare.schema())
    assert (found["status"], found["framework"]) == ("completed", tree.framework)
    assert found["environment"]["packages"].keys() >= {tree.framework, "numpy", "ddpm-duet"}
    assert found["dataset"]["sha256"] == data[0].sha256
    steps = found["history"]["steps"]
    assert [record["step"] for record in steps] == list(range(1, STEPS + 1))
    assert [record["epoch"] for record in steps] == [1, 1, 1, 1, 2, 2, 2, 2]
    assert [record["images_seen"] for record in steps] == [16 * step for step in range(1, STEPS + 1)]
    epochs = found["history"]["epochs"]
    assert [(record["epoch"], record["step"]) for record in epochs] == [(1, 4), (2, 8)]
    assert epochs[0]["train_loss"] == math.fsum(record["loss"] for record in steps[:4]) / 4
    # An untrained network predicts 0, and the mean square of the noise of 16 images of 784 pixels is 1 give or take
    # 5 standard deviations of its estimate, sqrt(2 / 12544).
    assert abs(steps[0]["loss"] - 1) < 0.065
    assert epochs[1]["validation_loss"] < epochs[0]["validation_loss"] < steps[0]["loss"]  # it learns
    assert found["parameters"] == sum(
        value.size for name, value in last_tensors(folder).items() if name.startswith("model/")
    )
    with Image.open(folder / "samples" / "step_00000008.png") as picture:
        assert picture.size == (2 * 58 + 2, 2 * 58 + 2)  # four images of 28 pixels, doubled, and gaps of two


def test_a_run_that_was_interrupted_everywhere_ends_as_if_it_had_not(tree, finished, tmp_path, capfd):
    """Otherwise Ctrl-C costs work, or changes the result: no resumed number could be trusted."""
    folder = tmp_path / "run"
    for method, call, number, at, epochs_done in [
        ("train_step", 2, signal.SIGINT, 2, 0),  # within the first epoch
        ("validation_losses", 1, signal.SIGTERM, 4, 0),  # at its end, none of it recorded
        ("sample", 2, signal.SIGINT, 8, 1),  # at the end of the run
    ]:
        with pytest.MonkeyPatch.context() as patch:
            signal_in(tree, patch, method, call, number)
            code = resume(tree, folder) if folder.exists() else train(tree, "--run-dir", folder)
        assert code == 128 + number
        found = metrics(folder)
        assert (found["status"], found["final"]["step"]) == ("interrupted", at)
        assert len(found["history"]["epochs"]) == epochs_done
        assert checkpoint.load(run_folders.latest_checkpoint(folder)).step == at
        assert f"interrupted at step {at} of {STEPS}; continue with --resume {folder}" in capfd.readouterr().err
    assert resume(tree, folder) == 0
    assert metrics(folder)["status"] == "completed"
    assert_same_result(folder, finished(tree))


def test_a_run_that_died_goes_on_from_its_last_checkpoint(tree, finished):
    """Otherwise a power cut ends a run, or the steps that it had recorded since the checkpoint count twice."""
    whole = finished(tree)
    folder = die(finished(tree), step=5, checkpoint_step=3)
    assert resume(tree, folder) == 0
    assert_same_result(folder, whole)


@pytest.mark.parametrize("first", ["torch", "tf"])
def test_the_other_framework_goes_on_with_a_run(both, finished, first):
    """Otherwise a checkpoint does not hold all that the update depends on, or a layout is swapped on the way."""
    began, goes_on = both if first == "torch" else reversed(both)
    whole = finished(began)
    source = die(finished(began), step=5, checkpoint_step=3)
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    assert resume(goes_on, source) == 0
    assert {path: path.read_bytes() for path in source.rglob("*") if path.is_file()} == before
    (folder,) = (run_folders.RUNS / goes_on.framework).iterdir()
    found = metrics(folder)
    jsonschema.validate(found, compare.schema())
    assert (found["framework"], found["status"]) == (goes_on.framework, "completed")
    ours, theirs = without_times(folder), without_times(whole)
    assert ours["steps"][:3] == theirs["steps"][:3]
    for kind, key in [("steps", "loss"), ("epochs", "train_loss"), ("epochs", "validation_loss")]:
        assert_allclose(
            [record[key] for record in ours[kind]],
            [record[key] for record in theirs[kind]],
            rtol=CROSS_FRAMEWORK,
        )


def breakable(tree, function):
    """The function, which takes a tensor as its third argument, and what to call to have it fail from then on.

    It fails as a lack of memory does: in TensorFlow while the graph runs, not while it is made.
    """
    if tree.name == "torch":
        broken = []

        def may_fail(*arguments):
            if broken:
                raise RuntimeError("broken")
            return function(*arguments)

        return may_fail, lambda: broken.append(True)
    tf = pytest.importorskip("tensorflow")
    sound = tf.Variable(True)

    def may_fail_in_the_graph(first, second, third, *more):
        with tf.control_dependencies([tf.debugging.Assert(sound, ["broken"])]):
            third = tf.identity(third)
        return function(first, second, third, *more)

    return may_fail_in_the_graph, lambda: sound.assign(False)


@pytest.mark.parametrize(("part", "whole"), [("training_loss", True), ("update_ema", False)])
def test_a_state_is_whole_unless_a_step_was_changing_it(tree, data, monkeypatch, part, whole):
    """Otherwise half of an update is saved as a state, or too little memory costs the steps since a checkpoint."""
    function, fail = breakable(tree, getattr(tree.learner, part))
    monkeypatch.setattr(tree.learner, part, function)
    config = train_command.parse(tree.framework, FLAGS).config
    learner = tree.learner.Learner(config, STEPS)
    learner.train_step(training_batch(data[0], config, 0), 0)
    before = {name: value.copy() for name, value in learner.tensors().items()}
    assert learner.whole
    fail()
    with pytest.raises(Exception, match="broken"):
        learner.train_step(training_batch(data[0], config, 1), 1)
    assert learner.whole == whole
    if whole:
        assert_same_state(learner.tensors(), before)


def test_a_run_that_diverges_fails_with_a_hint(tree, tmp_path, capfd):
    """Otherwise it goes on for hours over NaN, or ends in a traceback."""
    folder = tmp_path / "run"
    assert train(tree, "--run-dir", folder, "--learning-rate", "1e30", "--checkpoint-every", 1) == 1
    message = "the loss or its gradient is not finite at step 2: lower --learning-rate (now 1e+30) or lengthen --warmup"
    assert f"error: {message}" in capfd.readouterr().err
    assert_failed(folder, message)


def test_an_image_does_not_depend_on_how_many_are_drawn_at_once(tree):
    """Otherwise the samples that are judged are not those that the same weights and seed give later.

    No pixel is seen to differ; one level in one of a thousand is allowed, as in test_sampling.py.
    """
    learner = tree.learner.Learner(train_command.parse(tree.framework, FLAGS).config, STEPS)
    whole = learner.sample(5, lambda t: None)
    seen = []
    parts = [learner.sample(number, seen.append, first) for number, first in ((3, 0), (2, 3))]
    assert seen == 2 * list(reversed(range(20)))
    apart = np.abs(np.concatenate(parts).astype(int) - whole.astype(int))
    assert apart.max() <= 1
    assert apart.mean() <= 1e-3
    assert len({image.tobytes() for image in whole}) == 5


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Where the real judge keeps what it saw in the real images: once for the whole file."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def real_images(embedded, cache, monkeypatch):
    """All the embedded images as the data set, for the judge, which 30 are not enough for."""
    monkeypatch.setenv("DDPM_DUET_CACHE", str(cache))
    monkeypatch.setattr(datasets, "load", lambda name, data_dir=None, folder=None: embedded)
    return embedded


def test_samples_are_judged_while_training(tree, real_images, tmp_path):
    """Otherwise --evaluate-every gives other numbers than judging the same samples by hand, or none."""
    folder, out = tmp_path / "run", tmp_path / "out"
    flags = ["--max-steps", 1, "--timesteps", 4, "--evaluate-every", 1, "--evaluate-images", 128]
    assert train(tree, "--run-dir", folder, *flags) == 0
    found = metrics(folder)
    jsonschema.validate(found, compare.schema())
    evaluation = found["evaluation"]
    assert evaluation["best"] == {
        "step": 1,
        **{key: evaluation["fid"] for key in ("fid", "fid_fashion")},
        "checkpoint": "checkpoints/best.safetensors",
    }
    assert evaluation["fid"] > 20 * evaluation["floor"]["fid"]  # of noise, and of real images
    draw = ["--checkpoint", str(folder / "checkpoints" / "best.safetensors"), "--num-images", "128", "--out", str(out)]
    assert tree.inference.main([*draw, "--sampler", QUICK.sampler, "--device", "cpu"]) == 0
    with np.load(out / "samples.npz") as archive:
        judged = judge.Judge(*real_images)
        by_hand = judged.scores(judged.extractor(archive["images"]))
    assert {key: evaluation[key] for key in by_hand} == by_hand
    assert evaluation["floor"] == judged.floor(128)


def test_black_images_are_judged(tree, real_images, tmp_path, monkeypatch):
    """Otherwise a network that draws nothing yet ends its run by a NaN among the scores."""

    class Black(Fake):
        def sample(self, num_images, on_step, first=0, labels=None):
            return np.zeros((num_images, 28, 28, 1), np.uint8)

    Fake.plan, Fake.calls = {}, []
    monkeypatch.setattr(tree.learner, "Learner", Black)
    assert train(tree, "--run-dir", tmp_path / "run", "--max-steps", 1, "--evaluate-every", 1) == 0
    found = metrics(tmp_path / "run")
    jsonschema.validate(found, compare.schema())
    assert sorted(found["evaluation"]["class_histogram"]) == [*[0] * 9, 256]


GIVE = "give a run folder with checkpoints/latest in it, or a file"


@pytest.mark.parametrize("module", ["train", "inference"])
def test_bad_input_is_one_sentence_without_a_traceback(tree, tmp_path, module):
    """Otherwise a typo shows the user a page of our code, or of TensorFlow's greetings."""
    flag, message = {
        "train": (
            "--preset=huge",
            "error: unknown preset 'huge': choose one of tiny, small, base, large, colour, score-transformer, "
            "residual-batchnorm, simple-unet, two-convolutions, dit-small\n",
        ),
        "inference": ("--checkpoint=x", f"error: x holds no checkpoint: {GIVE}\n"),
    }[module]
    done = subprocess.run(
        [sys.executable, "-m", f"ddpm_{tree.name}.{module}", flag],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, "", message)


# --- The loop around the learner ----------------------------------------------------------------------------


class Fake:
    """A learner of one number, which moves a little towards 1 at each step. `plan` holds what else it should do."""

    device_name, threads, num_parameters, whole = "cpu", 1, 1, True
    plan: dict[tuple[str, int], object]  # (method, step) -> what to call there first, or what to return
    calls: list[tuple[str, int]]

    def __init__(self, config, num_steps, workers=None):
        self.config, self.step = config, 0
        self.state = {f"{prefix}/x": np.zeros(1) for prefix in checkpoint.PREFIXES}

    def _planned(self, method, otherwise):
        self.calls.append((method, self.step))
        planned = self.plan.get((method, self.step))
        if callable(planned):
            planned()
        return otherwise if planned is None or callable(planned) else planned

    def train_step(self, batch, step):  # noqa: D102
        assert step == self.step
        self.step += 1
        self.whole = False
        x = self.state["model/x"]
        x += (1 - x) / (3 + step)
        result = self._planned("train_step", (float(1 - x[0]), 0.5, 1e-4))
        self.whole = True
        return result

    def validation_losses(self, batches):  # noqa: D102
        count = sum(len(batch.pixels) for batch in batches)
        yield from self._planned("validation_losses", [(count, float(self.state["model/x"][0]))])

    def sample(self, num_images, on_step, first=0, labels=None):  # noqa: D102
        self._planned("sample", None)
        on_step(0)
        pixels = np.zeros((num_images, 28, 28, 1), np.uint8)
        pixels[:, 0, 0, 0] = range(first, first + num_images)
        pixels[:, 0, 1, 0] = self.step
        pixels[:, 0, 2, 0] = 99 if labels is None else labels
        return pixels

    def tensors(self):  # noqa: D102
        return self._planned("tensors", self.state)

    def load(self, resumed):  # noqa: D102
        self.step = resumed.step
        self.state = {name: value.copy() for name, value in resumed.tensors.items()}


class FakeJudge:
    """A judge that goes by the step that drew the samples: `fids` holds what it says, `shown` what it was shown."""

    fids: dict[int, float]
    shown: list[images.Pixels]
    sha256 = "cd" * 32

    name = "the classifier of cloth"

    def __init__(self, train_split, test_split, extractor=None):
        self.extractor = self

    def __call__(self, pixels):  # noqa: D102
        self.shown.append(pixels)
        return pixels

    def scores(self, seen):  # noqa: D102
        return {
            **{"num_images": len(seen), "fid": self.fids.get(int(seen[0, 0, 1, 0]), 9.5)},
            **{"kid": -0.5, "kid_std": 0.1, "inception_score": 1.5, "precision": 0.5},
            **{"recall": 0.25, "density": 1.5, "coverage": 1.0, "class_histogram": [len(seen), *[0] * 9]},
        }

    def floor(self, count):  # noqa: D102
        return self.scores(np.zeros((count, 28, 28, 1), np.uint8)) | {"fid": 0.125}


JUDGED = ("--evaluate-every", 1, "--evaluate-images", 150)


@pytest.fixture
def fids(monkeypatch):
    """What FakeJudge, in the judge's place, says of the samples of each step."""
    FakeJudge.fids, FakeJudge.shown = {}, []
    monkeypatch.setattr(judge, "Judge", FakeJudge)
    return FakeJudge.fids


@pytest.fixture
def fake(tree, monkeypatch):
    """Fake in the place of the tree's Learner, with an empty plan."""
    Fake.plan, Fake.calls = {}, []
    monkeypatch.setattr(tree.learner, "Learner", Fake)
    return Fake


def last_line(text):
    return text.replace("\r", "\n").rstrip("\n").rpartition("\n")[2]


def assert_failed(folder, message):
    """The run failed, says why, and holds nothing but finite numbers."""
    found = metrics(folder)
    jsonschema.validate(found, compare.schema())
    assert found["status"] == "failed"
    assert message in found["final"]["message"]
    for file in ("metrics.json", "metrics.jsonl"):
        assert not {"NaN", "Infinity"} & set((folder / file).read_text().replace(",", " ").replace("}", " ").split())
    for path in (folder / "checkpoints").glob("step_*"):
        checkpoint.load(path)  # which refuses NaN and infinities


def planted(kind, step):
    """Something that is not finite, in one of the four places where it can come up, seen after `step`."""
    return {
        "loss": ("train_step", (math.nan, 0.5, 1e-4)),
        "gradient": ("train_step", (0.5, math.inf, 1e-4)),
        "validation loss": ("validation_losses", [(10, 0.5), (10, math.nan)]),
        "state": ("tensors", {f"{prefix}/x": np.array([math.nan]) for prefix in checkpoint.PREFIXES}),
    }[kind]


@pytest.mark.parametrize(
    ("kind", "step", "what", "kept"),
    [
        ("loss", 1, "loss or its gradient", None),
        ("loss", 7, "loss or its gradient", 6),
        ("gradient", 4, "loss or its gradient", 3),
        ("validation loss", 4, "validation loss", 4),  # the state is finite
        ("validation loss", 8, "validation loss", 8),
        ("state", 6, "learner's state", 3),
    ],
)
def test_nothing_that_is_not_finite_is_written(tree, fake, tmp_path, capfd, kind, step, what, kept):
    """Otherwise NaN replaces the last good checkpoint, or makes metrics.json unreadable."""
    method, value = planted(kind, step)
    fake.plan[method, step] = value
    folder = tmp_path / "run"
    assert train(tree, "--run-dir", folder, "--keep-checkpoints", 1) == 1
    hint = f"the {what} is not finite at step {step}: "
    hint += "lower --learning-rate (now 0.001) or lengthen --warmup-steps (now 3)"
    rest = f"the checkpoint of step {kept} is whole" if kept else "there was no checkpoint yet"
    assert last_line(capfd.readouterr().err) == f"error: {hint}; {rest}"
    assert_failed(folder, f"{hint}; {rest}")
    if kept:
        assert checkpoint.load(run_folders.latest_checkpoint(folder)).step == kept
        fake.plan.clear()
        assert resume(tree, folder) == 0
        assert metrics(folder)["final"]["step"] == STEPS


@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
def test_a_second_signal_acts_at_once(tree, fake, tmp_path, guarded, number, name):
    """Otherwise a step that hangs can only be killed."""

    def twice():
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    fake.plan["train_step", 5] = twice
    folder = tmp_path / "run"
    code, err = guarded(lambda: train(tree, "--run-dir", folder))
    assert (code, last_line(err)) == (130, "interrupted")
    assert metrics(folder)["status"] == "interrupted"
    assert checkpoint.load(run_folders.latest_checkpoint(folder)).step == 3
    assert signal.getsignal(number) is before  # the handlers of whoever called are back
    fake.plan.clear()
    assert resume(tree, folder) == 0


@pytest.mark.parametrize("method", ["validation_losses", "sample"])
def test_a_signal_does_not_wait_for_the_end_of_an_epoch(tree, fake, tmp_path, monkeypatch, method):
    """Otherwise Ctrl-C during the pictures of a large network seems to do nothing for minutes."""
    parts = []

    def hundred(on_step=lambda t: None):
        for part in range(100):
            parts.append(part)
            if part == 2:
                os.kill(os.getpid(), signal.SIGINT)
            on_step(part)
            yield 1, 0.5

    replacement = {
        "validation_losses": lambda self, batches: hundred(),
        "sample": lambda self, num_images, on_step, first, labels: list(hundred(on_step)),
    }[method]
    monkeypatch.setattr(fake, method, replacement)
    assert train(tree, "--run-dir", tmp_path / "run") == 130
    assert parts == [0, 1, 2]
    assert metrics(tmp_path / "run")["history"]["epochs"] == []


@pytest.mark.parametrize("moment", ["checkpoint", "metrics"])
def test_a_full_disk_is_one_sentence_and_the_run_can_go_on(tree, fake, tmp_path, guarded, monkeypatch, moment):
    """Otherwise the user sees a traceback of ours for a fault of the disk, or loses the run to it."""
    whole, folder = tmp_path / "whole", tmp_path / "run"
    assert train(tree, "--run-dir", whole) == 0
    fake.calls.clear()
    write = files.write_atomically
    failing = "step_00000006.safetensors" if moment == "checkpoint" else "metrics.json"

    def full(path, content):
        if path.name == failing and ("train_step", 6) in fake.calls:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_atomically", full)
        code, err = guarded(lambda: train(tree, "--run-dir", folder))
    path = folder / "checkpoints" / failing if moment == "checkpoint" else folder / failing
    assert code == 1
    assert last_line(err) == (f"error: No space left on device ({path}): free space or correct the path, and run again")
    assert "Traceback" not in err
    assert metrics(folder)["status"] == ("failed" if moment == "checkpoint" else "running")
    assert checkpoint.load(run_folders.latest_checkpoint(folder)).step == (3 if moment == "checkpoint" else 8)
    assert resume(tree, folder) == 0
    assert_same_result(folder, whole)


def test_a_bug_of_ours_is_recorded_and_raised(tree, fake, tmp_path):
    """Otherwise a crash leaves a run that claims to be running, or hides its traceback."""

    def broken():
        raise ZeroDivisionError("a bug")

    fake.plan["train_step", 5] = broken
    folder = tmp_path / "run"
    with pytest.raises(ZeroDivisionError):
        train(tree, "--run-dir", folder)
    assert_failed(folder, "ZeroDivisionError: a bug")
    # It came while the step was changing the state.
    assert checkpoint.load(run_folders.latest_checkpoint(folder)).step == 3


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("the driver"), SystemExit(3), UserError("too large")])
def test_whatever_ends_a_run_saves_it_first(tree, fake, tmp_path, monkeypatch, error):
    """Otherwise an exception costs all steps since the last checkpoint."""

    def broken(self, step):
        if step == 5:
            raise error
        return before(self, step)

    before, folder, whole = training_loop.Prefetcher.__call__, tmp_path / "run", tmp_path / "whole"
    assert train(tree, "--run-dir", whole) == 0
    with monkeypatch.context() as patch:
        patch.setattr(training_loop.Prefetcher, "__call__", broken)
        with pytest.raises(type(error)):
            train(tree, "--run-dir", folder)
    assert metrics(folder)["status"] == "failed"
    assert checkpoint.load(run_folders.latest_checkpoint(folder)).step == 5
    assert resume(tree, folder) == 0
    assert_same_result(folder, whole)


def test_a_step_whose_record_could_not_be_written_is_recorded_before_it_is_saved(tree, fake, tmp_path, monkeypatch):
    """Otherwise the run goes on after a step that its log lacks."""

    def broken(self, kind, record):
        if record.get("step") == 5 and kind == "step" and not failed:
            failed.append(kind)
            raise OSError(errno.EIO, "Input/output error")
        before(self, kind, record)

    failed, before, folder = [], run_record.Run._record, tmp_path / "run"
    monkeypatch.setattr(run_record.Run, "_record", broken)
    with pytest.raises(OSError, match="Input/output"):
        train(tree, "--run-dir", folder)
    assert checkpoint.load(run_folders.latest_checkpoint(folder)).step == 5
    assert resume(tree, folder) == 0
    assert [record["step"] for record in metrics(folder)["history"]["steps"]] == list(range(1, STEPS + 1))


def test_a_finished_run_can_be_made_longer(tree, fake, tmp_path):
    """Otherwise more epochs mean a new run from the start."""
    longer, folder = tmp_path / "longer", tmp_path / "run"
    assert train(tree, "--run-dir", longer, "--epochs", 3) == 0
    assert train(tree, "--run-dir", folder) == 0
    assert resume(tree, folder) == 0  # nothing left to do
    assert metrics(folder)["final"]["step"] == STEPS
    assert resume(tree, folder, "--epochs", "3") == 0
    assert_same_result(folder, longer)


def test_a_longer_run_says_so_if_its_learning_rate_had_begun_to_fall(tree, fake, tmp_path, capsys):
    """Otherwise its rate jumps up again, and nobody knows why it is not the run of so many steps in one go."""
    folder = tmp_path / "run"
    early = ("--max-steps", 40, "--epochs", 10, "--decay-start", 0.25, "--stop-after", 1e-9)
    assert train(tree, "--run-dir", folder, *early) == 0
    assert resume(tree, folder, "--max-steps", "20") == 0  # step 1 comes before the fall of either
    assert "note:" not in capsys.readouterr().out
    assert resume(tree, folder, "--max-steps", "40") == 0
    assert "the learning rate was falling towards step 20 and from here on falls towards" in capsys.readouterr().out


def test_a_run_stopped_after_some_time_goes_on_as_if_it_had_not(tree, fake, tmp_path, capsys, monkeypatch):
    """Otherwise a run that has the laptop for twenty minutes a day is not the run that has it for an hour."""
    folder, whole = tmp_path / "run", tmp_path / "whole"
    assert train(tree, "--run-dir", whole) == 0
    now = [0.0]
    monkeypatch.setattr(interruption, "time", SimpleNamespace(monotonic=lambda: now[0]))
    fake.plan["train_step", 5] = lambda: now.append(now.pop() + 20 * 60)
    assert train(tree, "--run-dir", folder, "--stop-after", 20) == 0
    assert (metrics(folder)["status"], metrics(folder)["final"]["step"]) == ("interrupted", 5)
    assert f"stopped after 20 minutes at step 5 of 8; continue with --resume {folder}" in capsys.readouterr().err
    fake.plan.clear()
    assert resume(tree, folder, "--stop-after", "20") == 0
    assert_same_result(folder, whole)


def test_minutes_become_steps(tree, fake, tmp_path, capsys, monkeypatch):
    """Otherwise the learning rate falls towards an end that the time given does not reach."""
    clock = itertools.count(0.0, 0.25)  # a step takes a quarter of a second
    monkeypatch.setattr(train_command, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    folder = tmp_path / "run"
    assert train(tree, "--run-dir", folder, "--minutes", 0.05) == 0
    assert "64 images/s: --epochs 3 --max-steps 12 takes 0.05 minutes" in capsys.readouterr().out
    assert metrics(folder)["final"]["step"] == 12
    assert (
        checkpoint.load(run_folders.latest_checkpoint(folder)).config.training.max_steps == 12
    )  # so it can be resumed


def test_max_steps_ends_a_run_within_an_epoch(tree, fake, tmp_path):
    """Otherwise --max-steps goes on to the epoch's end, or leaves no checkpoint, losses or picture."""
    folder = tmp_path / "run"
    assert train(tree, "--run-dir", folder, "--max-steps", 5, "--sample-every", 9) == 0
    history = metrics(folder)["history"]
    assert len(history["steps"]) == 5
    assert [(record["epoch"], record["step"]) for record in history["epochs"]] == [(1, 4), (2, 5)]
    assert history["epochs"][1]["train_loss"] == history["steps"][4]["loss"]
    assert checkpoint.load(run_folders.latest_checkpoint(folder)).step == 5
    assert [path.name for path in (folder / "samples").iterdir()] == ["step_00000005.png"]
    assert resume(tree, folder, "--max-steps", "7") == 0
    assert [record["step"] for record in metrics(folder)["history"]["steps"]] == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(("every", "drawn"), [(0, []), (1, [4, 8, 12]), (2, [8, 12]), (5, [12])])
def test_pictures_come_every_so_many_epochs_and_at_the_end(tree, fake, tmp_path, every, drawn):
    """Otherwise --sample-every 0 costs hours of sampling, or the last model has no picture."""
    folder = tmp_path / "run"
    assert train(tree, "--run-dir", folder, "--epochs", 3, "--sample-every", every) == 0
    assert sorted(path.name for path in folder.glob("samples/*")) == [f"step_{step:08d}.png" for step in drawn]


def test_the_losses_of_the_whole_run_are_drawn_at_its_end_if_asked_for(tree, fake, tmp_path, monkeypatch):
    """Otherwise the picture lacks the steps before an interruption, or puts losses at other steps."""
    drawn = []
    monkeypatch.setattr(images, "write_figure", lambda path, figure: drawn.append((path, figure.axes[0].lines)))
    folder = tmp_path / "run"
    train(tree, "--run-dir", folder, "--loss-curve", "--max-steps", 6)
    resume(tree, folder, "--max-steps", str(STEPS))
    monkeypatch.setattr(loss_curve, "POINTS", 3)
    train(tree, "--run-dir", tmp_path / "thin", "--loss-curve")
    train(tree, "--run-dir", tmp_path / "none")
    history = metrics(folder)["history"]
    losses = [record["loss"] for record in history["steps"]]
    validation = [[record[key] for record in history["epochs"]] for key in ("step", "validation_loss")]
    assert [path for path, _ in drawn] == [folder / "loss.png", folder / "loss.png", tmp_path / "thin" / "loss.png"]
    training, ends = drawn[1][1]
    assert training.get_xydata().tolist() == [[step, loss] for step, loss in enumerate(losses, 1)]
    assert ends.get_xydata().T.tolist() == validation
    thin = drawn[2][1][0].get_xydata()
    assert thin[:, 0].tolist() == [2, 4, 6, 8]
    assert_allclose(thin[:, 1], np.reshape(losses, (4, 2)).mean(1))


@pytest.mark.parametrize(("every", "judged"), [(1, [4, 8, 12]), (2, [8, 12]), (5, [12])])
def test_samples_are_judged_every_so_many_epochs_and_at_the_end(tree, fake, fids, tmp_path, every, judged):
    """Otherwise the last model has no score, or scores cost more time than was asked for."""
    folder = tmp_path / "run"
    assert train(tree, "--run-dir", folder, *JUDGED, "--epochs", 3, "--evaluate-every", every) == 0
    found = metrics(folder)
    jsonschema.validate(found, compare.schema())
    evaluations = found["history"]["evaluations"]
    assert [(record["step"], record["epoch"]) for record in evaluations] == [(step, step // 4) for step in judged]
    assert found["evaluation"].items() >= evaluations[-1].items()
    assert (evaluations[0]["num_images"], evaluations[0]["floor"]["num_images"]) == (150, 150)
    assert (evaluations[0]["fid"], evaluations[0]["floor"]["fid"]) == (9.5, 0.125)
    assert run_history.read_history(folder, 12)["evaluations"] == evaluations


def test_a_run_that_is_not_judged_needs_no_judge(tree, fake, tmp_path, monkeypatch):
    """Otherwise every run waits for a classifier to look at 70,000 images, and fails where onnxruntime is broken."""
    monkeypatch.setitem(sys.modules, "ddpm_shared.evaluation.judge", None)  # importing it raises ImportError
    assert train(tree, "--run-dir", tmp_path / "run") == 0
    found = metrics(tmp_path / "run")
    assert (found["evaluation"], found["history"]["evaluations"]) == ({}, [])
    with pytest.raises(ImportError):
        train(tree, "--run-dir", tmp_path / "judged", *JUDGED)


def test_real_images_that_are_too_few_are_refused_at_once(tree, fake, fids, tmp_path, monkeypatch):
    """Otherwise a run trains for an epoch before it says that it cannot be judged."""

    def floor(self, count):
        raise UserError("30 images are too few")

    monkeypatch.setattr(FakeJudge, "floor", floor)
    with pytest.raises(UserError, match="30 images are too few"):
        train(tree, "--run-dir", tmp_path / "run", *JUDGED)
    assert not (tmp_path / "run").exists()


def test_samples_that_are_too_few_to_be_judged_are_refused_at_once(tree, fake, fids, tmp_path):
    """Otherwise a run trains for an epoch before it says that it cannot be judged."""
    few = judge.DIMENSIONS - 1
    with pytest.raises(UserError, match=rf"^{few} images are too few for a judgement: .* with --evaluate-images$"):
        train(tree, "--run-dir", tmp_path / "run", *JUDGED, "--evaluate-images", few)
    assert not (tmp_path / "run").exists()
    assert train(tree, "--run-dir", tmp_path / "unjudged", "--evaluate-images", few) == 0


def test_what_is_shown_and_what_is_judged_are_drawn_once(tree, fake, fids, tmp_path):
    """Otherwise the grid costs its time twice, is another picture in a run that is judged, or the judge sees less."""
    plain, folder = tmp_path / "plain", tmp_path / "run"
    assert train(tree, "--run-dir", plain) == 0
    fake.calls.clear()
    assert train(tree, "--run-dir", folder, *JUDGED) == 0
    assert epoch_end.DRAWN_AT_ONCE == 64
    assert Counter(fake.calls)["sample", 4] == 3  # 64, 64 and 22
    assert [shown[:, 0, 0, 0].tolist() for shown in FakeJudge.shown] == 2 * [list(range(150))]
    for name in ("step_00000004.png", "step_00000008.png"):
        assert (folder / "samples" / name).read_bytes() == (plain / "samples" / name).read_bytes()
    many = ["--sample-images", 200, "--max-steps", 4]
    assert train(tree, "--run-dir", tmp_path / "many", *JUDGED, *many) == 0
    assert len(FakeJudge.shown[-1]) == 150
    pixels = images.grid(fake(None, STEPS).sample(200, lambda t: None))
    with Image.open(tmp_path / "many" / "samples" / "step_00000004.png") as picture:
        assert picture.size == pixels.shape[1::-1]


def test_classes_are_drawn_in_turn_and_judged(tree, fake, fids, tmp_path, monkeypatch, capsys):
    """Otherwise a class-conditional run is judged by what nobody asked for, or its picture mixes the classes."""
    monkeypatch.setattr(judge, "accuracy", lambda seen, labels: float(np.mean(seen[:, 0, 2, 0] == labels)))
    folder = tmp_path / "run"
    assert train(tree, "--run-dir", folder, *JUDGED, "--class-conditional", "--sample-images", 25) == 0
    assert FakeJudge.shown[0][:, 0, 2, 0].tolist() == [i % 10 for i in range(150)]  # in parts of 64
    found = metrics(folder)
    jsonschema.validate(found, compare.schema())
    assert [record["class_accuracy"] for record in found["history"]["evaluations"]] == [1, 1]
    assert found["evaluation"]["class_accuracy"] == 1
    assert (
        "step 4: FID (by the classifier of cloth, 150 images) 9.5, floor 0.125, best so far; 100.0% of the class"
        in (capsys.readouterr().out)
    )
    names = datasets.load(datasets.EMBEDDED)[1].class_names
    picture = images.by_class(FakeJudge.shown[0][:25], np.arange(25) % 10, names)
    with Image.open(folder / "samples" / "step_00000004.png") as file:
        np.testing.assert_array_equal(np.asarray(file).reshape(picture.shape), picture)
    die(folder, step=7, checkpoint_step=6)
    assert resume(tree, folder) == 0
    assert without_times(folder)["evaluations"] == [
        {key: value for key, value in record.items() if key != "wall_s"} for record in found["history"]["evaluations"]
    ]


def test_the_best_checkpoint_is_kept_beside_the_last(tree, fake, fids, tmp_path, capsys):
    """Otherwise the weights that drew the best samples are gone, or those are kept that drew the worst."""
    fids.update({4: 2.0, 8: 1.03125, 12: 1.03125, 16: 31.25})
    folder, shorter = tmp_path / "run", tmp_path / "shorter"
    assert train(tree, "--run-dir", folder, *JUDGED, "--epochs", 4, "--keep-checkpoints", 1) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "FID" in line]
    assert lines == [
        "epoch 1, step 4: FID (by the classifier of cloth, 150 images) 2, floor 0.125, best so far",
        "epoch 2, step 8: FID (by the classifier of cloth, 150 images) 1.031, floor 0.125, best so far",
        "epoch 3, step 12: FID (by the classifier of cloth, 150 images) 1.031, floor 0.125, best 1.031 at step 8",
        "epoch 4, step 16: FID (by the classifier of cloth, 150 images) 31.25, floor 0.125, best 1.031 at step 8",
    ]
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == [
        "best.safetensors",
        "latest",
        "step_00000016.safetensors",
    ]
    assert best(folder).step == 8
    assert train(tree, "--run-dir", shorter) == 0
    assert_same_state(best(folder).tensors, last_tensors(shorter))

    branch = tmp_path / "branch"
    assert resume(tree, folder / "checkpoints" / "best.safetensors", "--run-dir", str(branch)) == 0
    assert_same_history(branch, folder)
    assert metrics(branch)["evaluation"]["best"] == {"step": 8, "fid": 1.03125, "checkpoint": None}


def test_a_judged_run_that_was_interrupted_or_died_ends_as_if_it_had_not(tree, fake, fids, tmp_path):
    """Otherwise an epoch is judged twice or not at all, or the best checkpoint is not the one that it would be."""
    fids.update({4: 3.0, 8: 2.0, 12: 2.5})
    whole, folder = tmp_path / "whole", tmp_path / "run"
    flags = [*JUDGED, "--epochs", 3, "--keep-checkpoints", 9]
    assert train(tree, "--run-dir", whole, *flags) == 0
    fake.calls.clear()

    def stop_in_the_second_batch():
        if fake.calls.count(("sample", 8)) == 2:
            os.kill(os.getpid(), signal.SIGINT)

    fake.plan["sample", 8] = stop_in_the_second_batch
    assert train(tree, "--run-dir", folder, *flags) == 130
    assert fake.calls.count(("sample", 8)) == 2  # not to the end of the drawing
    assert [record["step"] for record in metrics(folder)["history"]["evaluations"]] == [4]
    assert best(folder).step == 4
    fake.plan.clear()
    assert resume(tree, folder) == 0
    assert_same_result(folder, whole)

    die(folder, step=9, checkpoint_step=6)
    assert checkpoint.load(folder / "checkpoints" / "best.safetensors").step == 8  # of what is taken back
    fake.plan["train_step", 7] = lambda: os.kill(os.getpid(), signal.SIGINT)
    assert resume(tree, folder) == 130
    assert metrics(folder)["evaluation"]["best"] == {"step": 4, "fid": 3.0, "checkpoint": None}
    fake.plan.clear()
    assert resume(tree, folder) == 0
    assert_same_result(folder, whole)


def test_samples_are_judged_once_whenever_a_run_dies(tree, fake, fids, tmp_path, monkeypatch):
    """Otherwise a run that died between two records of an epoch's end holds one evaluation twice."""

    def dies(self, record):
        raise ZeroDivisionError

    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("ddpm_shared.records.run.Run.record_epoch", dies)
        with pytest.raises(ZeroDivisionError):
            train(tree, "--run-dir", folder, *JUDGED)
    assert checkpoint.load(run_folders.latest_checkpoint(folder)).step == 4  # what ended the run saved it
    assert resume(tree, folder) == 0
    assert [record["step"] for record in metrics(folder)["history"]["evaluations"]] == [4, 8]
    assert [record["step"] for record in metrics(folder)["history"]["epochs"]] == [4, 8]


def test_a_state_that_is_not_finite_is_not_kept_as_the_best(tree, fake, fids, tmp_path):
    """Otherwise NaN takes the place of the best checkpoint, since its samples were judged before they were checked."""
    fids.update({4: 2.0, 8: 1.0})
    method, value = planted("state", 8)
    fake.plan[method, 8] = value
    folder = tmp_path / "run"
    assert train(tree, "--run-dir", folder, *JUDGED, "--epochs", 3) == 1
    assert_failed(folder, "the learner's state is not finite at step 8")
    assert best(folder).step == 4


def test_the_validation_loss_is_the_mean_over_images(tree, fake, tmp_path):
    """Otherwise the smaller last batch counts as much as a whole one, and the loss depends on the batch size."""
    fake.plan["validation_losses", 4] = [(16, 1.0), (4, 2.0)]
    folder = tmp_path / "run"
    assert train(tree, "--run-dir", folder) == 0
    assert metrics(folder)["history"]["epochs"][0]["validation_loss"] == 1.2


def test_the_validation_loss_is_taken_over_the_images_that_were_asked_for(tree, fake, tmp_path):
    """Otherwise --validation-images changes nothing, or the test images are taken from the training images."""
    seen = []

    class Watching(Fake):
        def validation_losses(self, batches):
            seen.append(np.concatenate([batch.pixels for batch in batches]))
            yield len(seen[-1]), 1.0

    for number, expected in [("7", 7), ("1000", 30), ("None", 30)]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tree.learner, "Learner", Watching)
            train(tree, "--run-dir", tmp_path / number, "--validation-images", number, "--max-steps", 1)
        assert len(seen[-1]) == expected
        assert (seen[-1] == datasets.load("")[1].images[:expected]).all()


def test_each_step_is_made_once(tree, fake, tmp_path):
    """Otherwise a step is skipped or repeated, also where a run was resumed, and the same seed gives another model."""
    folder = tmp_path / "run"
    fake.plan["train_step", 5] = lambda: os.kill(os.getpid(), signal.SIGINT)
    assert train(tree, "--run-dir", folder) == 130
    assert resume(tree, folder) == 0
    calls = Counter(fake.calls)
    assert {step: calls["train_step", step] for step in range(1, STEPS + 1)} == dict.fromkeys(range(1, STEPS + 1), 1)
    assert [step for step in range(20) if calls["validation_losses", step]] == [4, 8]


def test_a_run_that_goes_on_in_a_new_folder_can_be_sampled_and_resumed(tree, fake, tmp_path):
    """Otherwise a finished run that was taken over has no checkpoint in its folder."""
    folder = tmp_path / "run"
    assert train(tree, "--run-dir", folder) == 0
    file = run_folders.latest_checkpoint(folder)
    assert resume(tree, file, "--run-dir", str(tmp_path / "done")) == 0
    assert checkpoint.load(run_folders.latest_checkpoint(tmp_path / "done")).step == STEPS
    assert_same_history(tmp_path / "done", folder)

    # Interrupted before its first own step: at the end of the epoch whose end the first run did not see.
    die(folder, step=8, checkpoint_step=6)
    shutil.rmtree(folder / "samples")
    cut = tmp_path / "cut"
    fake.plan["validation_losses", 8] = lambda: os.kill(os.getpid(), signal.SIGTERM)
    assert resume(tree, folder / "checkpoints" / "step_00000006.safetensors", "--run-dir", str(cut)) == 143
    fake.plan.clear()
    assert resume(tree, cut) == 0
    assert_same_history(cut, tmp_path / "done")


def assert_same_history(folder, other):
    assert without_times(folder) == without_times(other)


@pytest.mark.parametrize("step", [3, 4, 8])
def test_a_checkpoint_without_its_run_folder_goes_on(tree, fake, tmp_path, step):
    """Otherwise a file that was copied to another machine cannot be trained on: its history stayed behind."""
    folder = tmp_path / "run"
    assert train(tree, "--run-dir", folder, "--max-steps", step, "--checkpoint-every", step) == 0
    file = Path(shutil.copy(run_folders.latest_checkpoint(folder), tmp_path / "alone.safetensors"))
    new = tmp_path / "deep" / "new"
    assert resume(tree, file, "--run-dir", str(new), "--max-steps", "8") == 0
    found = metrics(new)
    jsonschema.validate(found, compare.schema())
    assert [record["step"] for record in found["history"]["steps"]] == list(range(step + 1, STEPS + 1))
    assert checkpoint.load(run_folders.latest_checkpoint(new)).step == STEPS


# --- What cannot be run -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "difference"),
    [(["--seed", "5"], "seed was 0, now 5"), (["--learning-rate", "1"], "training.learning_rate was 0.001, now 1.0")],
)
def test_a_resumed_run_with_other_settings_is_refused(tree, fake, tmp_path, guarded, argv, difference):
    """Otherwise one run holds the results of two."""
    folder = tmp_path / "run"
    assert train(tree, "--run-dir", folder) == 0
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    code, err = guarded(lambda: resume(tree, folder, *argv))
    assert code == 2
    assert err.startswith(f"error: a resumed run must keep its settings, but {difference}. Leave these flags out")
    assert err.count("\n") == 1
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_resumed_run_has_its_length(tree, fake, tmp_path, guarded):
    """Otherwise --minutes makes a run of another length, whose learning rate it did not follow."""
    folder = tmp_path / "run"
    assert train(tree, "--run-dir", folder) == 0
    code, err = guarded(lambda: resume(tree, folder, "--minutes", "5"))
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(
        "error: --minutes 5.0: a resumed run has its length already; stop it earlier with --stop-after"
    )


def test_a_run_folder_that_exists_is_refused(tree, fake, tmp_path):
    """Otherwise a second run overwrites the first."""
    folder = tmp_path / "run"
    assert train(tree, "--run-dir", folder) == 0
    with pytest.raises(
        UserError, match="already holds files: choose another --run-dir, or continue the run in it with"
    ):
        train(tree, "--run-dir", folder)


def test_a_batch_larger_than_the_data_is_refused(tree, fake, tmp_path):
    """Otherwise an epoch has no step, and the run divides by zero or never ends."""
    with pytest.raises(
        UserError, match=r"^--batch-size 65: is more than the 64 training images: choose a smaller one$"
    ):
        train(tree, "--run-dir", tmp_path / "run", "--batch-size", 65)
    assert not (tmp_path / "run").exists()
    assert train(tree, "--run-dir", tmp_path / "run", "--batch-size", 64) == 0


def test_the_network_is_built_for_the_images_of_the_data(tree, fake, tmp_path):
    """Otherwise a --config of other data trains a network that its own images do not fit."""
    (tmp_path / "settings.json").write_text('{"model": {"image_size": 14, "image_channels": 3}}')
    folder = tmp_path / "run"
    flags = ["--attention-resolutions", "--config", tmp_path / "settings.json"]
    assert train(tree, "--run-dir", folder, *flags) == 0
    model = metrics(folder)["config"]["model"]
    assert (model["image_size"], model["image_channels"]) == (28, 1)
    assert json.loads((folder / "config.json").read_text())["model"] == model
    assert checkpoint.load(run_folders.latest_checkpoint(folder)).config.model.image_size == 28


def test_images_that_are_not_square_are_refused(tree, fake, tmp_path, monkeypatch, data):
    """Otherwise a network of squares is given other images, and fails inside the framework."""
    wide = [dataclasses.replace(split, images=np.pad(split.images, ((0, 0), (0, 0), (2, 2), (0, 0)))) for split in data]
    monkeypatch.setattr(datasets, "load", lambda name, data_dir=None, folder=None: tuple(wide))
    with pytest.raises(UserError, match=r"^--dataset fashion-mnist-10k: has images of 28 x 32: they must be square$"):
        train(tree, "--run-dir", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_other_data_than_the_checkpoint_s_is_refused(tree, fake, tmp_path, monkeypatch, data):
    """Otherwise the second half of a run learns from other images than the first."""
    folder = tmp_path / "run"
    assert train(tree, "--run-dir", folder) == 0
    other = [dataclasses.replace(data[0], sha256="cd" * 32), data[1]]
    monkeypatch.setattr(datasets, "load", lambda name, data_dir=None, folder=None: tuple(other))
    with pytest.raises(UserError) as error:
        resume(tree, folder, "--epochs", "3")
    assert str(error.value) == (
        f"{run_folders.latest_checkpoint(folder)} was trained on data with SHA-256 {data[0].sha256[:12]}..., but "
        "fashion-mnist-10k has cdcdcdcdcdcd...: choose that data with --dataset or --data-dir"
    )


def test_a_checkpoint_of_another_network_is_refused(tree, tmp_path):
    """Otherwise a file whose tensors do not match its settings is loaded in part."""
    config = train_command.parse(tree.framework, FLAGS).config
    path = tmp_path / "a" / "checkpoints" / "step_00000003.safetensors"
    checkpoint.save(
        path,
        {f"{prefix}/x": np.zeros(1) for prefix in checkpoint.PREFIXES},
        framework=tree.framework,
        step=3,
        config=config,
        dataset_sha256=datasets.load("")[0].sha256,
    )
    with pytest.raises(UserError, match=r"^the model tensors in .* do not fit the network: missing conv_in\.bias, "):
        resume(tree, path, "--run-dir", str(tmp_path / "run"))
    with contextlib.suppress(FileNotFoundError):
        assert list((tmp_path / "run").iterdir()) == []
