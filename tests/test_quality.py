"""The samplers' benchmark (tests/benchmarks/quality.py): what it draws, keeps, refuses and shows. Nothing is timed."""

import dataclasses
import json
import signal

import machine
import numpy as np
import pytest
import quality
from PIL import Image

from ddpm_shared import files
from ddpm_shared.config.sampling import Sampling
from ddpm_shared.errors import UserError
from ddpm_shared.records import checkpoint

pytestmark = pytest.mark.parametrize("tree", ["torch"], indirect=True)


@pytest.fixture(scope="module", autouse=True)
def _few_real_images_and_a_quiet_machine(few_images):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "watch", lambda: machine.Busy(0.0))
        yield


def options(out, **changes):
    few = {"images": 128, "batch_size": 64, "steps": (2, 3), "samplers": ("ddim", "heun"), "device": "cpu"}
    return quality.Options(**few | {"out": str(out)} | changes)


@pytest.fixture(scope="module")
def measured(tree, tmp_path_factory):
    """The folder of a real, small run."""
    out = tmp_path_factory.mktemp("measured")
    assert quality.quality(options(out, samplers=("ancestral", "ddim", "heun"), threads=1)) == 0
    return out


@pytest.fixture
def drawn(tree, few_images, monkeypatch):
    """A sampler that does nothing: it lists (sampler, steps, first image) and hands out real images."""
    calls = []

    class Sampler:
        device_name, threads = "cpu", 1

        def __init__(self, network, config, sampling):
            self.network, self.sampling = network, sampling

        def draw(self, draw, on_step=None):
            if on_step:  # not to warm up
                calls.append((self.sampling.sampler, self.sampling.steps, draw.first))
                for i in reversed(range(self.sampling.steps)):
                    self.network(None, None)
                    on_step(i, None)
            return few_images[1].images[draw.first : draw.first + draw.count]

    monkeypatch.setattr(tree.sampling, "Sampler", Sampler)
    monkeypatch.setattr(tree.model, "load", lambda loaded, prefix, config: lambda x_t, t: None)
    return calls


def cells(out):
    return json.loads((out / "quality.json").read_text())["cells"]


def test_a_cell_holds_the_images_of_its_seed(tree, measured):
    """Otherwise the batches overlap or differ in noise, and what is judged is not what the sampling command draws."""
    loaded = checkpoint.load("tests/parity/trained.safetensors", ("ema",))
    config = dataclasses.replace(loaded.config, device="cpu", threads=1)
    network = tree.model.load(loaded, "ema", config)
    expected = tree.sampling.sample(network, config, Sampling("heun", 3), 0, 128)
    found = files.read_npz(measured / "images" / "heun-trailing-3.npz")["images"]
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_what_is_said_of_a_cell(measured):
    """Otherwise Heun would seem as cheap as it is good, or other noise be taken for another solution."""
    report = json.loads((measured / "quality.json").read_text())
    found = report["cells"]
    assert [cell["evaluations"] for cell in found.values()] == [2, 2, 3, 3, 3, 5]
    assert all(cell["seconds"] > 0 and cell["fid_fashion"] > report["floor"]["fid_fashion"] for cell in found.values())
    rms = {name: cell["rms_to_most_steps"] for name, cell in found.items()}
    assert 0.05 < rms["ddim-trailing-2"] < 1
    assert rms["ddim-trailing-3"] == rms["heun-trailing-3"] == 0
    assert rms["ancestral-trailing-2"] is rms["ancestral-trailing-3"] is None
    assert report["starts"][0]["environment"]["device"] == "cpu"


def test_the_tables_and_pictures_show_every_sampler(measured):
    """Otherwise the run ends with nothing to look at, or a row is missing."""
    rows = [line.split("|")[1].strip() for line in (measured / "quality.md").read_text().splitlines() if "|" in line]
    table = ["steps", "-" * len("ancestral"), "ancestral", "ddim", "heun"]
    assert rows == [*table, *table, "steps", "-" * len("steps"), "ddim", "heun"]
    for name in ("quality.png", "quality-grid.png"):
        with Image.open(measured / name) as picture:
            assert min(picture.size) > 150
            assert len(picture.convert("L").getcolors()) > 20  # something is drawn


def test_an_interrupted_run_goes_on_after_the_finished_cells(drawn, tree, tmp_path, guarded, monkeypatch):
    """Otherwise Ctrl-C after an hour costs the hour, ends in a traceback, or leaves half a cell as a whole one."""
    draw = tree.sampling.Sampler.draw

    def stopped(self, images, on_step=None):
        if self.sampling.sampler == "heun" and on_step:
            signal.raise_signal(signal.SIGINT)
        return draw(self, images, on_step)

    with monkeypatch.context() as patch:
        patch.setattr(tree.sampling.Sampler, "draw", stopped)
        code, said = guarded(lambda: quality.quality(options(tmp_path)))
    assert code == 130
    assert "interrupted; 1 finished cells are kept: the same command goes on" in said
    assert list(cells(tmp_path)) == ["ddim-trailing-2"]
    drawn.clear()
    assert quality.quality(options(tmp_path)) == 0
    expected = [("heun", 2, 0), ("heun", 2, 64), ("ddim", 3, 0), ("ddim", 3, 64), ("heun", 3, 0), ("heun", 3, 64)]
    assert drawn == expected
    assert len(json.loads((tmp_path / "quality.json").read_text())["starts"]) == 2


def test_other_samplers_and_steps_and_spacings_join(drawn, tmp_path):
    """Otherwise one more sampler costs a run of all, or pushes the others out of the tables."""
    assert quality.quality(options(tmp_path)) == 0
    drawn.clear()
    assert quality.quality(options(tmp_path, samplers=("plms",), steps=(3,), spacings=("leading",))) == 0
    assert drawn == [("plms", 3, 0), ("plms", 3, 64)]
    drawn.clear()
    assert quality.quality(options(tmp_path)) == 0  # which only shows again
    assert drawn == []
    text = (tmp_path / "quality.md").read_text()
    assert len(cells(tmp_path)) == 5
    assert [text.count(label) for label in ("ddim, trailing", "heun, trailing", "plms, leading")] == [3, 3, 3]


def test_cells_of_other_settings_are_refused(drawn, tmp_path, guarded):
    """Otherwise distances of 128 and of 500 images, or of two checkpoints, stand in one table."""
    assert quality.quality(options(tmp_path)) == 0
    before = (tmp_path / "quality.json").read_bytes()
    drawn.clear()
    code, said = guarded(lambda: quality.quality(options(tmp_path, images=129, seed=1)))
    assert code == 2
    assert "other settings (images was 128, now 129; seed was 0, now 1): choose another --out" in said
    assert len(said.splitlines()) == 1
    assert drawn == []
    assert (tmp_path / "quality.json").read_bytes() == before


def test_what_cannot_be_measured_is_refused_before_any_work(drawn, tmp_path):
    """Otherwise the run ends at its last and longest cell, or at the judge."""
    for wrong, message in (
        ({"steps": (2, 1001)}, "must be at most the 1000"),
        ({"images": 127}, "--images 127: must be 128 or more"),
        ({"samplers": ()}, "--samplers nothing: must be one or more"),
        ({"checkpoint": str(tmp_path)}, "holds no checkpoint"),
    ):
        with pytest.raises(UserError, match=message):
            quality.quality(options(tmp_path, **wrong))
    assert drawn == []
    assert not (tmp_path / "quality.json").exists()


def test_a_busy_machine_is_told(drawn, tmp_path, monkeypatch, capfd):
    """Otherwise seconds from beside a forgotten training run look as trustworthy as others."""
    monkeypatch.setattr(machine, "watch", lambda: machine.Busy(0.5, ("trainer, pid 9: 50%",)))
    assert quality.quality(options(tmp_path, steps=(2,))) == 0
    assert "warning: measured on a busy machine" in capfd.readouterr().err
    assert "trainer, pid 9" in (tmp_path / "quality.md").read_text()
