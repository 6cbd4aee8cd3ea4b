"""The passport of a network: its trace, its drawing and its command."""

import dataclasses
import importlib
import io
import json
import math
import re
import sys
from contextlib import redirect_stderr
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from ddpm_shared.config import PRESET_OF, PRESETS, Config, ModelConfig, size, with_preset
from ddpm_shared.errors import UserError
from ddpm_shared.passport import command, layout, page, pieces, svg, units
from ddpm_shared.passport.trace import ROOT, Step, total

LINK = "{http://www.w3.org/2000/svg}a"
TWO = ModelConfig(
    network="denoise_net", base_channels=4, channel_mults=(1,), attention_resolutions=(), time_channels=6, image_size=5
)
ODD = ModelConfig(
    network="simple_unet",
    base_channels=4,
    channel_mults=(1, 2),
    attention_resolutions=(),
    time_channels=6,
    image_size=5,
)


def traced(tree, model):
    return tree.trace.trace(tree.model.make_network(Config(model=model, device="cpu")))


def test_the_trace_of_two_convolutions_is_what_one_counts_by_hand(tree):
    """Otherwise parameters and arithmetic in every passport are wrong, and equal in both frameworks."""
    assert traced(tree, TWO) == [
        Step("conv_in", "convolution", (1, 5, 5), (4, 5, 5), 4 * 9 + 4, 25 * 4 * 9),
        Step("time", "linear", (6,), (4,), 6 * 4 + 4, 24),
        Step("conv_out", "convolution", (4, 5, 5), (1, 5, 5), 4 * 9 + 1, 25 * 4 * 9),
    ]


def test_the_trace_of_a_small_u_is_what_one_counts_by_hand(tree):
    """Otherwise strided and transposed convolutions are counted at the wrong size, where 5 becomes 3 and 5 again."""
    assert traced(tree, ODD) == [
        Step("time_1", "linear", (1,), (6,), 12, 6),
        Step("time_2", "linear", (6,), (8,), 56, 48),
        Step("conv_in", "convolution", (1, 5, 5), (4, 5, 5), 40, 25 * 36),
        Step("down.0", "downsampling", (4, 5, 5), (8, 3, 3), 0, 0),
        Step("down.0.conv", "convolution", (4, 5, 5), (8, 3, 3), 4 * 8 * 9 + 8, 9 * 4 * 8 * 9),
        Step("middle.0", "convolution", (8, 3, 3), (8, 3, 3), 8 * 8 * 9 + 8, 9 * 8 * 8 * 9),
        Step("middle.1", "convolution", (8, 3, 3), (8, 3, 3), 8 * 8 * 9 + 8, 9 * 8 * 8 * 9),
        Step("up.0", "upsampling", (8, 3, 3), (4, 5, 5), 0, 0),
        Step("up.0.conv", "transposed convolution", (8, 3, 3), (4, 5, 5), 8 * 4 * 16 + 4, 9 * 8 * 4 * 16),
        Step("conv_out", "convolution", (8, 5, 5), (1, 5, 5), 8 * 9 + 1, 25 * 8 * 9),
    ]


def test_watching_a_network_leaves_nothing_behind(tree):
    """Otherwise each later step of a training is written down as well, until the memory is full."""
    network = tree.model.make_network(Config(model=TWO, device="cpu"), 0)
    first = tree.trace.trace(network)
    x_t, t = np.ones((1, 5, 5, 1)), np.array([3])
    before = tree.trace.activations(network, x_t, t)
    assert tree.trace.trace(network) == first
    assert list(before) == [step.name for step in first]
    assert before["conv_in"].shape == (1, 5, 5, 4)


@pytest.fixture(scope="module")
def traces(both):
    """The trace and the sources of every preset, in PyTorch; both frameworks' are compared in the parity suite."""
    tree, found = both[0], {}
    for preset in PRESETS:
        config = dataclasses.replace(with_preset(Config(), preset), device="cpu")
        network = tree.model.make_network(config)
        found[preset] = config, tree.trace.trace(network), tree.trace.sources(network), network
    return found


@pytest.mark.parametrize("preset", PRESETS)
def test_the_sums_are_those_of_other_counters(traces, preset):
    """Otherwise a layer is missing in the passport, or counted twice."""
    torch = pytest.importorskip("torch")
    counter = importlib.import_module("torch.utils.flop_counter")
    config, steps, _, network = traces[preset]
    assert total(steps, "parameters") == size.num_parameters(config)
    model = config.model
    with torch.no_grad(), counter.FlopCounterMode(display=False) as counted:
        network(torch.zeros(1, model.image_channels, model.image_size, model.image_size), torch.zeros(1))
    assert counted.get_total_flops() == 2 * total(steps, "multiply_adds")


@pytest.mark.parametrize("preset", PRESETS)
def test_every_layer_has_its_line_of_source(traces, preset):
    """Otherwise a reader who follows a box of the drawing lands somewhere else."""
    _, steps, places, _ = traces[preset]
    for step in steps:
        place = places[step.name]
        assert place is not None, step.name
        line = (ROOT / place.file).read_text().splitlines()[place.line - 1]
        parts = [part for part in step.name.split(".") if not part.isdigit()]
        assert line.startswith("class ") or line.strip().startswith(f"self.{parts[-1]}"), f"{step.name}: {line}"


@pytest.mark.parametrize("preset", PRESETS)
def test_a_drawing_is_well_formed_and_nothing_lies_on_anything(traces, preset):
    """Otherwise a browser shows an error instead of a network, or boxes that hide each other."""
    _, steps, places, _ = traces[preset]
    drawing = layout.draw("a <name> & more", preset, steps, {"torch": places, "tensorflow": places})
    for index, box in enumerate(drawing.boxes):
        assert box.x >= 0
        assert box.x + box.width <= layout.WIDTH
        assert box.bottom <= drawing.height
        for other in drawing.boxes[index + 1 :]:
            apart = box.x + box.width <= other.x or other.x + other.width <= box.x
            assert apart or box.bottom <= other.y or other.bottom <= box.y, (box.title, other.title)
    shown = {step.name for step in steps} & {box.title for box in drawing.boxes}
    path = [unit for unit in units.units(steps) if not unit.of_the_time]
    assert shown == {unit.name for unit in path}
    links = [element.get("href") for element in ElementTree.fromstring(svg.svg(drawing, "..")).iter(LINK)]
    assert len(links) == 3 * len(drawing.boxes), "a box, and a word for each framework"
    for link in links:
        file, _, line = (link or "").partition("#L")
        assert (ROOT / "docs" / file).is_file()
        assert 1 <= int(line) <= len((ROOT / "docs" / file).read_text().splitlines())


def test_bridges_are_those_of_the_networks(traces):
    """Otherwise a drawing shows a skip connection that is not there."""

    def bridges(preset):
        path = [unit for unit in units.units(traces[preset][1]) if not unit.of_the_time]
        return {(start.name, end.name) for start, end in units.bridges(path)}

    assert bridges("small") == {
        ("down.4", "up.0"),
        ("down.3", "up.1"),
        ("down.2", "up.3"),
        ("down.1", "up.4"),
        ("down.0", "up.6"),
        ("conv_in", "up.7"),
    }
    assert bridges("score-transformer") == {("down.4", "up.2"), ("down.2", "up.4"), ("down.0", "conv_out")}
    assert bridges("residual-batchnorm") == {("down.2", "up.1"), ("down.1", "up.3"), ("down.0", "up.5")}
    assert bridges("simple-unet") == {("down.0", "up.1"), ("conv_in", "conv_out")}
    assert bridges("dit-small") == bridges("two-convolutions") == set()


def test_the_time_enters_where_the_networks_take_it(traces):
    """Otherwise a reader looks for the time in the wrong layer."""

    def timed(preset):
        return units.takes_time([unit for unit in units.units(traces[preset][1]) if not unit.of_the_time])

    assert timed("residual-batchnorm") == timed("simple-unet") == {"middle.0"}
    assert timed("dit-small") == {*(f"blocks.{number}" for number in range(6)), "out"}
    assert {"down.0", "middle.1", "up.7"} <= timed("small")
    assert not {"conv_in", "down.1", "up.2", "conv_out"} & timed("small")


def test_a_deep_transformer_is_drawn_short(both):
    """Otherwise the drawing of a published size has thirty boxes that are alike."""
    steps = traced(both[0], dataclasses.replace(PRESETS["dit-small"], base_channels=12, depth=28))
    titles = [box.title for box in layout.draw("dit", "deep", steps, {}).boxes]
    assert titles[1:] == ["patch_in", "blocks.0 to blocks.27, 28 alike", "out"]


@pytest.mark.parametrize(
    ("changes", "title", "says"),
    [
        ({}, "the time t \N{RIGHTWARDS ARROW} time", "t: here the time enters"),
        ({"num_classes": 3}, "the time t \N{RIGHTWARDS ARROW} time", "t: here the time enters, and with it the class"),
        ({"num_classes": 3, "uses_time": False}, "the class, and not the time", "t: here the class enters"),
        ({"uses_time": False}, "conv_in", None),
    ],
)
def test_a_drawing_says_what_the_network_is_given(both, changes, title, says):
    """Otherwise a network with classes and without a time cannot be drawn, or the drawing promises a time."""
    drawing = layout.draw("denoise_net", "small", traced(both[0], dataclasses.replace(TWO, **changes)), {})
    assert drawing.boxes[0].title == title
    assert [line for _, line in drawing.footer if line.startswith("t:")] == [says] * (says is not None)
    ElementTree.fromstring(svg.svg(drawing, ".."))


def test_the_gap_of_two_outputs():
    """Otherwise a passport says that the frameworks agree where one of them has no number, or another shape."""
    a = np.array([1.0, -4.0])
    assert pieces.gap(a + np.array([0.0, 0.5]), a) == 0.125
    assert pieces.gap(a, a) == pieces.gap(0 * a, 0 * a) == 0
    assert pieces.gap(a, a[:1]) == pieces.gap(np.array([np.nan, 1.0]), a) == math.inf


# --- The command ------------------------------------------------------------------------------------------------


def here(line):
    """pieces.ended in this process: a framework takes seconds to import."""
    module = line[line.index("-m") + 1]
    said = io.StringIO()
    with redirect_stderr(said):
        try:
            return importlib.import_module(module).main(line[line.index("-m") + 2 :]), said.getvalue()
        except UserError as error:
            return 2, f"error: {error}\n"


TINY = ["--preset", "tiny", "--image-size", "8", "--batch-size", "2", "--seconds", "0.01"]


def test_a_passport_in_both_frameworks(both, tmp_path, monkeypatch, capsys):
    """Otherwise `make passport` writes half of it, or numbers of one framework under the other's name."""
    monkeypatch.setattr(pieces, "ended", here)
    out = tmp_path / "passport"
    (tmp_path / "fid.json").write_text('{"tiny": 12.5}')
    assert command.main([*TINY, "--out", str(out), "--fid", str(tmp_path / "fid.json")]) == 0
    said = capsys.readouterr()
    assert said.out == f"{out}\n"
    assert "tiny: speed and memory of training, TensorFlow\n" in said.err
    made = json.loads((out / "passport.json").read_text())
    config = command.Command(preset="tiny", image_size=8).config("tiny")
    assert made["parameters"] == size.num_parameters(config) == sum(step["parameters"] for step in made["steps"])
    assert made["receptive_field"] == [8, 8], "GroupNorm sees the whole image"
    assert 0 < made["gaps"]["fp64"]["largest"] < 1e-12 < made["gaps"]["fp32"]["largest"] < 1e-4
    assert made["gaps"]["fp64"]["layers"].keys() == {step["name"] for step in made["steps"]}
    for measured in made["frameworks"].values():
        assert measured["training"]["images_per_second"] > 0
        assert measured["drawing"]["images_per_second"] > measured["training"]["images_per_second"]
        assert measured["training"]["peak_bytes"] > 50e6
    text = (out / "passport.md").read_text()
    assert "| FID | 12.5 |" in text
    assert "| sees | whole image |" in text
    for target in set(re.findall(r"\]\(([^)#]+)", text)):
        assert (out / target).is_file(), target
    assert (out / "drawing.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match="already holds a passport: choose another --out"):
        command.main([*TINY, "--out", str(out)])


def test_one_framework_alone_makes_its_half(both, tmp_path, monkeypatch, capsys):
    """Otherwise somebody with PyTorch alone gets a traceback, or a gap to nothing."""
    monkeypatch.setattr(pieces, "ended", here)
    monkeypatch.setattr(command, "installed", lambda name: name == "torch")
    assert command.main([*TINY, "--no-speed", "--out", str(tmp_path / "half")]) == 0
    assert "TensorFlow is not installed: this is the other framework's half\n" in capsys.readouterr().err
    made = json.loads((tmp_path / "half/passport.json").read_text())
    assert made["gaps"] == {}
    assert made["frameworks"] == {"torch": {}}


def test_the_table_goes_between_its_markers(tmp_path, monkeypatch):
    """Otherwise `make passports` writes over a page that people wrote."""
    monkeypatch.setattr(pieces, "ended", here)
    monkeypatch.setattr(command, "PRESET_OF", {"denoise_net": "two-convolutions"})
    monkeypatch.setattr(command, "installed", lambda name: name == "torch")
    target = tmp_path / "page.md"
    target.write_text(f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n")
    command.main(["--every", "--no-speed", "--image-size", "8", "--page", str(target), "--out", str(tmp_path / "out")])
    lines = target.read_text().splitlines()
    assert (lines[0], lines[1], lines[-2], lines[-1]) == ("before", page.BEGIN, page.END, "after")
    assert lines[4].startswith("| denoise_net | two-convolutions | 1,217 | 0.1 | 5 x 5 pixels | - |")
    assert (tmp_path / "network-two-convolutions.svg").is_file()
    target.write_text("no place")
    with pytest.raises(UserError, match="it has no place for the table"):
        page.write_table(target, [])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--network", "vit"], "vit"),
        (["--network", "dit", "--preset", "tiny"], "give one of them"),
        (["--page", "x.md"], "give --every with it"),
        (["--seconds", "0"], "--seconds 0.0: must be positive"),
        (["--image-size", "0"], "--image-size"),
        (["--network", "dit", "--image-size", "27"], "--patch-size 2: must divide the size of the images, 27"),
        (["--fid", "nowhere.json"], "nowhere.json"),
        (["--every", "--page", "nowhere.md"], "there is no such file"),
    ],
)
def test_bad_input_gets_one_sentence(arguments, sentence, tmp_path, monkeypatch, guarded):
    """Otherwise a slip of the pen is answered with a traceback, or after minutes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pieces, "ended", lambda line: pytest.fail("a process was started"))
    code, err = guarded(lambda: command.main(arguments))
    assert code == 2
    assert sentence in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_what_a_process_says_reaches_the_user(tmp_path):
    """Otherwise an error in the other process is lost, or comes as a traceback."""
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"^PyTorch: .*config\.json"):
        pieces.make(tmp_path, "torch", "trace", 1.0)
    killed = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
    assert pieces.ended(killed) == (pieces.KILLED, "")


def test_the_page_shows_every_network():
    """Otherwise a network is in the house that nobody finds, or its drawing is not there."""
    text = (ROOT / "docs" / "networks.md").read_text()
    for network, preset in PRESET_OF.items():
        assert f"### {network}, preset {preset}\n" in text
        assert f'src="network-{preset}.svg"' in text
        for kind, most in (("svg", 60_000), ("png", 120_000)):
            drawn = ROOT / "docs" / f"network-{preset}.{kind}"
            assert drawn.stat().st_size < most
    for drawn in Path(ROOT / "docs").glob("network-*.svg"):
        for element in ElementTree.fromstring(drawn.read_text()).iter(LINK):
            assert (drawn.parent / (element.get("href") or "").partition("#")[0]).is_file()
