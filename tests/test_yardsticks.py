"""Other people's models (tests/benchmarks/yardsticks.py): that they train as they should, and are kept and judged.

Where their networks are not the matter, a convolution or two stand in for them. Nothing is timed.
"""

import copy
import importlib
import json
import signal
import sys

import machine
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from ddpm_shared import files
from ddpm_shared.errors import UserError

pytestmark = pytest.mark.parametrize("tree", ["torch"], indirect=True)
THEIRS = {"smalldiffusion", "accelerate", "einops", "psutil", "torchvision"}  # what is imported from build/peers


@pytest.fixture(scope="module")
def script(tree, few_images):
    """The script with small batches, few real images and a quiet machine; its imports from build/peers are undone."""
    found, before, path = importlib.import_module("yardsticks"), set(sys.modules), list(sys.path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "watch", lambda: machine.Busy(0.0))
        patch.setattr(found, "BATCH", 4)
        yield found
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if name.split(".")[0] in THEIRS:
            del sys.modules[name]


@pytest.fixture
def yardsticks(script, monkeypatch):
    """The same with a small network and three sampling steps for diffusers."""
    nn = script.torch.nn

    class Small(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.SiLU(), nn.Conv2d(4, 1, 3, padding=1))

        def forward(self, x_t, t):
            return self.net(x_t)

    monkeypatch.setattr(script.peers, "Diffusers", Small)
    monkeypatch.setattr(script.RECIPES["diffusers"], "sampling_steps", 3)
    return script


def run(script, out, /, **changes):
    few = {"yardsticks": ("diffusers",), "steps": 6, "images": 150}
    return script.yardsticks(script.Options(**few | {"out": str(out)} | changes))


def report(out):
    return json.loads((out / "yardsticks.json").read_text())


def recipe(script, name):
    if name == "smalldiffusion" and not (script.peers.INSTALLED / name).is_dir():
        pytest.skip("make bench-peers has not been run")
    return script.RECIPES[name]


@pytest.mark.parametrize("name", ["diffusers", "smalldiffusion"])
def test_the_real_networks_train_and_draw(script, few_images, name, monkeypatch):
    """Otherwise the command ends in a traceback, or compares a network of another size than `base`."""
    monkeypatch.setattr(recipe(script, name), "sampling_steps", 2)
    training = script.Training(name, few_images[0].images, 0)
    before = copy.deepcopy(training.weights)
    assert all(0.5 < training.advance() < 2 for _ in range(2))  # an untrained network knows nothing of eps
    assert all((old != new).any() for old, new in zip(before, training.weights, strict=True))
    with script.tqdm(disable=True) as bar:
        training.draw(3, script.StopSignals(), bar)
    assert training.drawn.shape == (3, 28, 28, 1)
    assert len(np.unique(training.drawn)) > 20
    assert training.describe()["parameters"] == pytest.approx(3_938_625, rel=0.03)
    assert training.describe()["images_seen"] == 8


def test_smalldiffusion_s_steps_are_those_of_its_own_loop(script, few_images):
    """Otherwise it would be judged by our idea of its training."""
    recipe(script, "smalldiffusion")
    ours, theirs = [script.Training("smalldiffusion", few_images[0].images, 0) for _ in range(2)]
    chosen = [script.torch.randint(300, (script.BATCH,), generator=theirs.batches).numpy() for _ in range(3)]
    loader = [script.data.to_images(few_images[0].images[i], script.torch.float32) for i in chosen]
    arguments = theirs.recipe.schedule, theirs.recipe.accelerator
    noise = script.torch.get_rng_state()
    losses = [
        step.loss.item()
        for step in theirs.recipe.theirs.training_loop(loader, theirs.recipe.net, *arguments, epochs=1, lr=7e-4)
    ]
    script.torch.set_rng_state(noise)
    assert [ours.advance() for _ in range(3)] == losses
    for a, b in zip(ours.weights, theirs.weights, strict=True):
        assert_array_equal(a.detach(), b.detach())


def test_images_are_drawn_with_the_averaged_weights(yardsticks, few_images):
    """Otherwise the moving average, which makes much of the quality, is kept for nothing, or training goes on in it."""
    training = yardsticks.Training("diffusers", few_images[0].images, 0)
    for _ in range(4):
        training.advance()
    raw, seen = copy.deepcopy(training.weights), []
    training.recipe.net.register_forward_hook(lambda net, *_: seen.append(copy.deepcopy(list(net.parameters()))))
    with yardsticks.tqdm(disable=True) as bar:
        training.draw(1, yardsticks.StopSignals(), bar)
    assert len(seen) == 3
    for used, average, weight, old in zip(seen[-1], training.ema.shadow_params, training.weights, raw, strict=True):
        assert_array_equal(used.detach(), average)
        assert_array_equal(weight.detach(), old.detach())
        assert (average != weight).any()


def test_what_a_run_leaves(yardsticks, few_images, tmp_path):
    """Otherwise there is nothing to quote, or a number that does not belong to the images beside it."""
    assert run(yardsticks, tmp_path) == 0
    found = report(tmp_path)["yardsticks"]["diffusers"]
    drawn = files.read_npz(tmp_path / "diffusers" / "samples.npz")["images"]
    judge = yardsticks.Judge(*few_images)
    assert found["fid_fashion"] == judge.scores(judge.extractor(drawn))["fid_fashion"]
    assert (found["steps"], found["images_seen"], found["num_images"]) == (6, 24, 150)
    assert report(tmp_path)["floor"] == judge.floor(150)
    rows = [line for line in (tmp_path / "yardsticks.md").read_text().splitlines() if line.startswith("|")]
    assert [row.split("|")[1].strip() for row in rows[2:]] == ["diffusers", "150 real test images: the floor"]
    assert f"{found['fid_fashion']:.2f}" in rows[2]
    with Image.open(tmp_path / "diffusers" / "grid.png") as picture:
        assert picture.size == (466, 466)  # 8 x 8 images


@pytest.mark.parametrize("after", [4, 6 + 4], ids=["training", "sampling"])
def test_an_interrupted_run_goes_on_to_the_same_images(yardsticks, tmp_path, guarded, monkeypatch, after):
    """Otherwise Ctrl-C costs all that was trained, or what comes out depends on who had to wait."""
    assert run(yardsticks, tmp_path / "whole") == 0
    forward, calls = yardsticks.peers.Diffusers.forward, []

    def stopped(self, x_t, t):
        calls.append(t)
        if len(calls) == after:  # six training steps, then three sampling steps a batch
            signal.raise_signal(signal.SIGINT)
        return forward(self, x_t, t)

    with monkeypatch.context() as patch:
        patch.setattr(yardsticks.peers.Diffusers, "forward", stopped)
        code, said = guarded(lambda: run(yardsticks, tmp_path / "parts"))
    assert code == 130
    assert "interrupted; what was trained and drawn is kept: the same command goes on there" in said
    assert len(calls) == after
    calls.clear()
    monkeypatch.setattr(yardsticks.peers.Diffusers, "forward", stopped)
    with monkeypatch.context() as patch:
        patch.setattr(signal, "raise_signal", lambda number: None)
        assert run(yardsticks, tmp_path / "parts") == 0
    assert len(calls) == {4: 2 + 6, 10: 3}[after]  # of two batches, the first had been drawn
    whole, parts = (files.read_npz(tmp_path / n / "diffusers" / "samples.npz")["images"] for n in ("whole", "parts"))
    assert_array_equal(whole, parts)


def test_what_is_finished_is_not_done_again(yardsticks, tmp_path, monkeypatch):
    """Otherwise to see the table again takes an hour."""
    assert run(yardsticks, tmp_path) == 0
    monkeypatch.setattr(yardsticks, "Training", None)
    text = (tmp_path / "yardsticks.md").read_text()
    assert run(yardsticks, tmp_path) == 0
    assert (tmp_path / "yardsticks.md").read_text() == text


def test_minutes_are_turned_into_steps_by_the_measured_speed(yardsticks, tmp_path, monkeypatch, capfd):
    """Otherwise a yardstick trains for longer or shorter than it says; and a busy machine must be told."""
    monkeypatch.setattr(yardsticks, "speed", lambda training, stop: 0.5)
    monkeypatch.setattr(machine, "watch", lambda: machine.Busy(0.5, ("trainer, pid 9: 50%",)))
    assert run(yardsticks, tmp_path, steps=None, minutes=0.2) == 0
    found = report(tmp_path)["yardsticks"]["diffusers"]
    assert (found["steps"], found["measured"]["images_per_s"]) == (6, 2.0)
    assert "warning: measured on a busy machine" in capfd.readouterr().err
    assert "trainer, pid 9" in (tmp_path / "yardsticks.md").read_text()


def test_the_speed_is_that_of_warm_steps(yardsticks, few_images, monkeypatch):
    """Otherwise the first steps, which allocate and choose kernels, make the yardstick's time shorter."""
    training = yardsticks.Training("diffusers", few_images[0].images, 0)
    warm_up, timed = yardsticks.WARM_UP_STEPS, yardsticks.TIMED_STEPS
    took = iter([100.0] * warm_up + [0.25] * timed)
    monkeypatch.setattr(training, "advance", lambda: setattr(training, "training_s", training.training_s + next(took)))
    assert yardsticks.speed(training, yardsticks.StopSignals()) == pytest.approx(4)


def test_other_settings_are_refused(yardsticks, tmp_path, guarded):
    """Otherwise models of different training stand in one table as if they were alike."""
    assert run(yardsticks, tmp_path) == 0
    for changes, message in (
        ({"steps": 7}, "diffusers in {} is for --steps 6, not --steps 7: choose another --out"),
        ({"steps": None, "minutes": 1.0}, "diffusers in {} is for --steps 6, not --minutes 1: choose another"),
        ({"images": 160, "seed": 1}, "other settings (images was 150, now 160; seed was 0, now 1): choose another"),
    ):
        code, said = guarded(lambda changes=changes: run(yardsticks, tmp_path, **changes))
        assert code == 2
        assert message.format(tmp_path) in said
        assert len(said.splitlines()) == 1


def test_what_cannot_be_done_is_refused_before_any_work(yardsticks, tmp_path, monkeypatch):
    """Otherwise the run ends after its first and longest part."""
    monkeypatch.setattr(yardsticks.peers, "INSTALLED", tmp_path / "peers")
    for wrong, message in (
        ({"yardsticks": ("diffusers", "smalldiffusion")}, "`make bench-peers` installs it"),
        ({"yardsticks": ()}, "--yardsticks nothing: must be one or more"),
        ({"images": 127}, "--images 127: must be 128 or more"),
        ({"steps": 0}, "--steps 0: must be 1 or more"),
        ({"threads": 0}, "--threads 0: must be 1 or more"),
        ({"minutes": 0.0}, "--minutes 0.0: must be more than 0"),
    ):
        with pytest.raises(UserError, match=message):
            run(yardsticks, tmp_path / "out", **wrong)
    assert not (tmp_path / "out").exists()


def test_a_damaged_state_and_a_diverged_network_are_told(yardsticks, tmp_path, monkeypatch):
    """Otherwise the one is a traceback from within PyTorch, and the other a judgement of noise."""
    (tmp_path / "diffusers").mkdir()
    (tmp_path / "diffusers" / "state.pt").write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(UserError, match=r"state\.pt is damaged: remove it"):
        run(yardsticks, tmp_path)
    recipe = yardsticks.RECIPES["diffusers"]
    loss = recipe.loss
    monkeypatch.setattr(recipe, "loss", lambda self, x_0: loss(self, x_0) * float("nan"))
    with pytest.raises(UserError, match="the loss of diffusers is nan at step 1"):
        run(yardsticks, tmp_path / "nan")
