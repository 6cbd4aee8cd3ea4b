"""Asking for a class: the flags of inference, inversion and bits with a class-conditional network, and what they write.

The network is a small one with random weights, so that a label and the lack of one both change every pixel.
"""

import dataclasses
import json
import os
import signal

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from ddpm_shared import datasets, images
from ddpm_shared.commands import bits_estimate, labels, sample
from ddpm_shared.config import Config, DataConfig, DiffusionConfig, ModelConfig
from ddpm_shared.config.sampling import Sampling
from ddpm_shared.errors import UserError
from ddpm_shared.records import checkpoint

NAMES = datasets.fashion_mnist.CLASS_NAMES
T = 10
MODEL = ModelConfig(
    base_channels=8, channel_mults=(1, 2), num_res_blocks=1, attention_resolutions=(), num_groups=4, num_classes=10
)
CONFIG = Config(
    preset="tiny",
    class_conditional=True,
    data=DataConfig(dataset="fashion-mnist-10k"),
    model=MODEL,
    diffusion=DiffusionConfig(timesteps=T, beta_end=0.5),
)
TRAIN, TEST = datasets.load("fashion-mnist-10k")


def write(tree, folder, config=CONFIG, class_names=NAMES):
    """A checkpoint with random weights."""
    path = folder / "checkpoints" / "step_00000009.safetensors"
    learner = tree.learner.Learner(config, 9)
    rng, tensors = np.random.default_rng(0), learner.tensors()
    for name, value in sorted(tensors.items()):
        tensors[name] = (value + 0.2 * rng.standard_normal(value.shape)).astype(np.float32)
    known = {"framework": tree.framework, "step": 9, "config": config, "dataset_sha256": TRAIN.sha256}
    checkpoint.save(path, tensors, **known, class_names=class_names)
    return path


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """One checkpoint, from which both frameworks draw."""
    import conftest

    return write(conftest.require("torch"), tmp_path_factory.mktemp("conditional"))


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _kept(request, keep_networks):
    """TensorFlow makes and traces the network once, not once a command."""
    if "tree" in request.fixturenames:
        keep_networks(request.getfixturevalue("tree"))


def draw(tree, source, out, *argv):
    """The arrays of samples.npz."""
    flags = ["--checkpoint", str(source), "--out", str(out), "--device", "cpu", "--sampler", "ddim", "--steps", "3"]
    assert tree.inference.main([*flags, *argv]) == 0
    with np.load(out / "samples.npz") as archive:
        return dict(archive)


# --- What --labels names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all", range(10)),
        ("ALL", range(10)),
        ("3", [3]),
        ("3,1, 3", [3, 1, 3]),
        ("trouser,bag", [1, 8]),
        ("Ankle boot,ankle-boot,ANKLEBOOT,ankle", [9, 9, 9, 9]),
        ("t-shirt/top,T-Shirt", [0, 0]),
        ("shirt", [6]),
        ("8,trouser", [8, 1]),
        ("boot,top", [9, 0]),
    ],
)
def test_classes_by_number_and_name(text, expected):
    """Otherwise a user who asks for trousers gets something else."""
    assert_array_equal(labels.asked_for(text, NAMES), expected)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("10", r"no class '10'; this network has 0 T-shirt/top, 1 Trouser, .*, 9 Ankle boot$"),
        ("-1", "no class '-1'"),
        ("hat", "no class 'hat'"),
        ("", "no class ''"),
        ("bag,", "no class ''"),
        ("s", "'s' may be T-shirt/top or Sandal or Shirt or Sneaker"),
        ("1.0", "no class '1.0'"),
        ("٣", "no class"),
        ("9" * 5000, "no class"),
        ("/", "no class '/'"),
    ],
)
def test_a_class_that_is_not_there(text, words):
    """Otherwise the user sees a traceback, or images of a class that was not meant."""
    with pytest.raises(UserError, match=words) as caught:
        labels.asked_for(text, NAMES)
    assert "\n" not in str(caught.value)


def test_numbers_may_be_names():
    """Otherwise the digit 3 of a data set of digits is not the class 3."""
    digits = ("zero", "one", "2", "3")
    assert_array_equal(labels.asked_for("3,one,0", digits), [3, 1, 0])
    assert labels.names_of((), 3) == ("0", "1", "2")
    with pytest.raises(UserError, match=r"this network has 0, 1, 2$"):
        labels.asked_for("x", labels.names_of((), 3))


# --- Drawing ------------------------------------------------------------------------------------------------


def test_labels_repeat_over_the_images(tree, written, tmp_path, capsys):
    """Otherwise image i is not of the class that a program outside expects of it."""
    saved = draw(tree, written, tmp_path / "out", "--labels", "trouser,8,ankle", "--num-images", "5", "--guidance", "2")
    assert_array_equal(saved["labels"], [1, 8, 9, 1, 8])
    assert saved["labels"].dtype == np.int64
    origin = json.loads(str(saved["origin"]))
    assert (origin["labels"], origin["guidance"]) == ([1, 8, 9], 2.0)
    assert "Trouser, Bag, Ankle boot, guidance 2 (Ho and Salimans' w = 1)" in capsys.readouterr().out


def test_every_class_in_turn_by_default(tree, written, tmp_path):
    """Otherwise a class-conditional network draws one class, or none, unless told."""
    plain = draw(tree, written, tmp_path / "plain", "--num-images", "12")
    assert_array_equal(plain["labels"], np.arange(12) % 10)
    named = draw(tree, written, tmp_path / "all", "--num-images", "12", "--labels", "all", "--batch-size", "5")
    assert np.abs(plain["images"].astype(int) - named["images"]).max() <= 1


def test_the_noise_is_the_images_own(tree, written, tmp_path):
    """Otherwise a sheet of scales or classes compares images that began from different noise."""
    drawn = {
        label: draw(tree, written, tmp_path / label, "--labels", label, "--num-images", "3")["images"]
        for label in ("0", "5,0,0")
    }
    assert_array_equal(drawn["0"][1:], drawn["5,0,0"][1:])
    assert (drawn["0"][0] != drawn["5,0,0"][0]).mean() > 0.1


def test_scale_0_ignores_the_label_and_scale_1_is_no_guidance(tree, written, tmp_path):
    """Otherwise the scale is off by one, and 'off' is another image than the network's own."""
    of = {
        (label, scale): draw(
            tree, written, tmp_path / f"{label}-{scale}", "--labels", label, "--guidance", scale, "--num-images", "2"
        )["images"]
        for label in ("2", "7")
        for scale in ("0", "1", "3")
    }
    assert_array_equal(of["2", "0"], of["7", "0"])
    for scale in ("1", "3"):
        assert (of["2", scale] != of["7", scale]).mean() > 0.1
    assert_array_equal(
        of["2", "1"], draw(tree, written, tmp_path / "plain", "--labels", "2", "--num-images", "2")["images"]
    )


def test_outside_of_its_interval_guidance_is_off(tree, written, tmp_path):
    """Otherwise --guidance-from and --guidance-to do nothing, or the opposite. Three steps of ddim visit 2, 6 and 9."""

    def images_of(*argv):
        return draw(tree, written, tmp_path / "-".join(argv), "--labels", "4", "--num-images", "2", *argv)["images"]

    whole, off = images_of("--guidance", "5"), images_of("--guidance", "1")
    assert_array_equal(images_of("--guidance", "5", "--guidance-from", "3", "--guidance-to", "5"), off)
    assert_array_equal(images_of("--guidance", "5", "--guidance-from", "2", "--guidance-to", "9"), whole)
    part = images_of("--guidance", "5", "--guidance-from", "6", "--guidance-to", "6")
    assert (part != off).any()
    assert (part != whole).any()


def test_both_frameworks_draw_the_same(both, written, tmp_path):
    """Otherwise the class or the guidance means something else in the other framework."""
    flags = ("--guidance", "3", "--guidance-from", "3", "--num-images", "6")
    a, b = (draw(tree, written, tmp_path / tree.name, *flags) for tree in both)
    assert_array_equal(a["labels"], b["labels"])
    assert np.abs(a["images"].astype(int) - b["images"]).max() <= 1


def test_from_one_label_to_the_next(tree, written, tmp_path):
    """Otherwise the ends of a row are not the two classes, or its noise changes on the way."""
    flags = ("--labels", "1,8,9", "--interpolate-labels", "4", "--num-images", "8", "--batch-size", "3")
    rows = draw(tree, written, tmp_path / "rows", *flags)
    assert "labels" not in rows  # the images between are of no class
    trousers = draw(tree, written, tmp_path / "1", "--labels", "1", "--num-images", "1")["images"][0]
    bags = draw(tree, written, tmp_path / "8", "--labels", "8", "--num-images", "2")["images"]
    found = rows["images"].astype(int)
    assert np.abs(found[0] - trousers).max() <= 1
    assert np.abs(found[3] - bags[0]).max() <= 1
    assert np.abs(found[4] - bags[1]).max() <= 1
    assert (np.abs(np.diff(found[:4], axis=0)) > 0).mean() > 0.05


def test_an_interrupted_drawing_goes_on(tree, written, tmp_path, monkeypatch):
    """Otherwise images that were drawn are drawn again, or those of other labels are taken for them."""
    real, calls = tree.sampling.Sampler.draw, []

    def interrupted(self, draw, on_step):
        calls.append(draw.first)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, draw, on_step)

    flags = ["--checkpoint", str(written), "--device", "cpu", "--sampler", "ddim", "--steps", "2", "--num-images", "4"]
    flags += ["--batch-size", "2", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(tree.sampling.Sampler, "draw", interrupted)
    assert tree.inference.main([*flags, "--labels", "3,4"]) == 128 + signal.SIGTERM
    assert tree.inference.main([*flags, "--labels", "3,4"]) == 0
    assert calls == [0, 2, 2]
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert tree.inference.main([*flags, "--labels", "3,5", "--overwrite"]) == 0
    with np.load(tmp_path / "out" / "samples.npz") as archive:
        assert_array_equal(archive["labels"], [3, 5, 3, 5])


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--labels", "hat"], "there is no class 'hat'"),
        (["--guidance", "-1"], r"--guidance -1\.0: must be 0 \(unconditional\), 1 \(conditional\)"),
        (["--guidance", "nan"], "--guidance nan: must be 0"),
        (["--guidance", "inf"], "--guidance inf: must be 0"),
        (["--guidance-from", "3"], "are the interval of --guidance"),
        (["--guidance", "2", "--guidance-from", "8", "--guidance-to", "3"], "the first and the last t"),
        (["--guidance", "2", "--guidance-from", "10"], "t goes up to 9 only"),
        (["--interpolate-labels", "1"], "must be 2 or more"),
        (["--interpolate-labels", "4", "--labels", "3"], "name two or more"),
        (["--interpolate-labels", "4", "--interpolate", "4", "--sampler", "ddim"], "take one of the two"),
    ],
)
def test_what_cannot_be_asked_for(tree, written, tmp_path, argv, words):
    """Otherwise the user gets other images than were asked for, or a traceback."""
    with pytest.raises(UserError, match=words):
        tree.inference.main(["--checkpoint", str(written), "--out", str(tmp_path / "out"), *argv])
    assert not list((tmp_path / "out").glob("*.npz"))


@pytest.mark.parametrize("argv", [["--labels", "all"], ["--guidance", "2"], ["--interpolate-labels", "4"]])
def test_an_unconditional_network_knows_no_classes(tree, tmp_path, argv):
    """Otherwise a user believes that these are trousers."""
    from ddpm_parity.sampling import TRAINED

    with pytest.raises(UserError, match="its network knows no classes: take one that was trained with --class-cond"):
        tree.inference.main(["--checkpoint", str(TRAINED), "--out", str(tmp_path / "out"), *argv])


def test_the_model_in_the_package_that_can_do_it():
    """Otherwise `make sample-torch ARGS="--labels trouser"` fails, or the images of every other command change."""
    assert sample.SampleCommand().file == "boxed"
    assert sample.SampleCommand(labels="bag").file == "boxed-conditional"
    assert sample.SampleCommand(sampling=Sampling(guidance=2.0)).file == "boxed-conditional"
    assert sample.SampleCommand(checkpoint="runs/x", labels="bag").file == "runs/x"


# --- The picture --------------------------------------------------------------------------------------------


def test_a_row_for_each_class(tmp_path):
    """Otherwise nobody sees which class failed."""
    pixels = np.arange(7, dtype=np.uint8)[:, None, None, None] * 30 + np.zeros((7, 5, 5, 3), np.uint8)
    picture = images.by_class(pixels, np.array([8, 1, 8, 1, 1, 8, 0]), NAMES, scale=4, gap=2)
    rows = [pixels[[0, 2, 5]], pixels[[1, 3, 4]], pixels[[6]]]
    width = 3 * 22 + 2
    assert picture.shape[0] == 3 * 22 + 2
    for row, part in enumerate(rows):
        expected = images.grid(part, 3, 4, 2)
        assert_array_equal(picture[row * 22 : row * 22 + 24, -width:], expected)
        name = picture[row * 22 : row * 22 + 22, :-width]
        assert name.min() < 100  # its name
        assert_array_equal(name[..., 0], name[..., 2])
    many = images.by_class(pixels[[0] * 20], np.zeros(20, int), ["a name of more than twenty-four letters"])
    assert many.shape[0] == 3 * (5 * images.SCALE + images.GAP) + images.GAP  # eight in a row


def test_the_grid_of_a_drawing_has_a_row_a_class(tree, written, tmp_path):
    """Otherwise the picture of a class-conditional network mixes its classes."""
    saved = draw(tree, written, tmp_path / "out", "--labels", "9,2", "--num-images", "4")
    with Image.open(tmp_path / "out" / "grid.png") as picture:
        assert_array_equal(np.asarray(picture), images.by_class(saved["images"], saved["labels"], NAMES)[..., 0])


# --- Inversion and bits per dimension -----------------------------------------------------------------------


def test_the_inversion_takes_the_true_labels(tree, written, tmp_path, monkeypatch):
    """Otherwise the noise is that of another class's image."""
    taken, real = [], tree.sampling.Inverter.there_and_back

    def watched(self, pixels, on_step, labels):
        taken.extend(labels)
        return real(self, pixels, on_step, labels)

    monkeypatch.setattr(tree.sampling.Inverter, "there_and_back", watched)
    flags = ["--checkpoint", str(written), "--num-images", "3", "--batch-size", "2", "--steps", "2", "--device", "cpu"]
    assert tree.inversion.main([*flags, "--out", str(tmp_path / "out")]) == 0
    assert taken == TEST.labels[:3].tolist()
    assert json.loads((tmp_path / "out" / "inversion.json").read_text())["class_conditional"] is True


def test_bits_take_the_true_labels_and_have_a_table_of_classes(both, written, tmp_path, capsys):
    """Otherwise the bound is that of the wrong class, or nobody sees which class is hard."""
    flags = ["--checkpoint", str(written), "--num-images", "20", "--stride", "2", "--device", "cpu"]
    found = []
    for tree in both:
        assert tree.bits.main([*flags, "--out", str(tmp_path / tree.name)]) == 0
        found.append(json.loads((tmp_path / tree.name / "bits_per_dim.json").read_text()))
        with_labels = tree.bound.Bound(tree.model.load(checkpoint.load(written), "ema", CONFIG), CONFIG)
        arrays = TEST.images[:2], np.array([4, 4], np.int32), np.zeros((2, 28, 28, 1))
        of = [with_labels.term(arrays, each) for each in (None, np.array([0, 0]), TEST.labels[:2].astype(np.int64))]
        assert not (of[0] == of[1]).any()
        assert not (of[1] == of[2]).any()
    assert_allclose(found[0]["bits_per_dim"], found[1]["bits_per_dim"], rtol=1e-6)
    assert [each["name"] for each in found[0]["classes"]] == list(NAMES)
    assert [each["num_images"] for each in found[0]["classes"]] == np.bincount(TEST.labels[:20], minlength=10).tolist()
    assert found[0]["class_conditional"] is True
    assert "Ankle boot" in capsys.readouterr().out


def test_bits_of_classes_by_hand():
    """Otherwise a class is given terms of another one, or counts those at some t twice."""
    nan = np.nan
    prior = np.array([1.0, 1.0, 3.0, 1.0, 5.0, 1.0])
    terms = np.array([[10.0, 30.0], [20.0, nan], [12.0, 32.0], [24.0, nan], [0.0, 0.0], [26.0, nan]])
    of = bits_estimate.of_classes(prior, terms, 2, np.array([0, 0, 0, 0, 1, 2]), ("a", "b", "c"))
    # a: t = 0 and 2 of the images 0 and 2, 40 and 44; t = 1 of 1 and 3, 20 and 24; prior (1 + 1 + 3 + 1) / 4.
    assert of[0] == {"name": "a", "num_images": 4, "bits_per_dim": 65.5, "standard_error": 8**0.5}
    for record, name in zip(of[1:], "bc", strict=True):  # no image of theirs at the other times
        assert record == {"name": name, "num_images": 1, "bits_per_dim": None, "standard_error": None}
    assert "too few images" in bits_estimate.table(of)


def test_one_class_is_the_whole_estimate():
    """Otherwise the table of classes and the number above it are two estimates."""
    rng = np.random.default_rng(0)
    prior, terms = rng.random(12), rng.random((12, 4))
    whole = bits_estimate.estimate(prior, terms, 3, 12)
    (one,) = bits_estimate.of_classes(prior, terms, 3, np.zeros(12, int), ("all",))
    assert_allclose(one["bits_per_dim"], whole["bits_per_dim"], rtol=1e-14)


def test_data_of_other_classes(tree, written, tmp_path, monkeypatch):
    """Otherwise class 3 of the data is taken for class 3 of a network that learned other classes."""
    other = dataclasses.replace(TEST, class_names=("a", "b"))
    monkeypatch.setattr(datasets, "load", lambda name, data_dir, folder: (TRAIN, other))
    for module, argv in ((tree.bits, ["--stride", "10"]), (tree.inversion, ["--steps", "2"])):
        with pytest.raises(UserError, match="has 2 classes, and the network 10: take the data set that it was trained"):
            module.main(["--checkpoint", str(written), "--num-images", "10", "--out", str(tmp_path / "out"), *argv])


# --- Records ------------------------------------------------------------------------------------------------


def test_class_names_stay_with_the_weights(tree, tmp_path):
    """Otherwise a network trained on one data set draws by the names of another, or by none."""
    assert checkpoint.load(write(tree, tmp_path / "named")).class_names == NAMES
    assert checkpoint.load(write(tree, tmp_path / "unnamed", class_names=())).class_names == ()
    with pytest.raises(UserError, match="names 2 classes, and its network has 10"):
        checkpoint.load(write(tree, tmp_path / "wrong", class_names=("a", "b")))
