"""The trained model in the package: what it holds, that both frameworks draw the same with it, and how well."""

import dataclasses
import hashlib

import box_model
import numpy as np
import pytest
import safetensors.numpy
from numpy.testing import assert_array_equal

from ddpm_shared import datasets
from ddpm_shared.commands import bits as bits_command
from ddpm_shared.commands import invert as invert_command
from ddpm_shared.commands import sample as sample_command
from ddpm_shared.config import Config, DataConfig
from ddpm_shared.evaluation.extractor import Extractor
from ddpm_shared.evaluation.judge import Judge
from ddpm_shared.records import checkpoint
from ddpm_shared.records.checkpoint import BOXED, BOXED_CONDITIONAL

CARD = BOXED.with_name("MODEL_CARD.md").read_text()
# 2.3e-4 of the pixels differed, by one level.
COMPARED, DIFFERING, LEVELS = 8, 1e-3, 2
JUDGED = 128  # as many as the judge has features
# Fréchet distance over that of as many real images: seen 2.0; of a model of 20 minutes 3.5, and of noise more than 80.
FURTHER = 3


def drawn(tree, images, out, *argv):
    """What the default model draws in the few steps of `make sample-*`."""
    told = ["--sampler", "dpmpp_2m_sde", "--num-images", str(images), "--device", "cpu", "--out", str(out), *argv]
    assert tree.inference.main(told) == 0
    with np.load(out / "samples.npz") as archive:
        return archive["images"]


@pytest.mark.parametrize("file", [BOXED, BOXED_CONDITIONAL])
def test_the_card_is_of_this_file(file):
    """Otherwise its figures are those of another model."""
    assert hashlib.sha256(file.read_bytes()).hexdigest() in CARD
    loaded = checkpoint.load(file, ("ema",))
    assert f"{sum(value.size for value in loaded.tensors.values()):,} parameters" in CARD
    assert f"{loaded.step:,} steps" in CARD
    assert loaded.dataset_sha256 in CARD


@pytest.mark.parametrize("file", [BOXED, BOXED_CONDITIONAL])
def test_it_is_small_and_says_nothing_of_the_machine_that_made_it(file):
    """Otherwise it makes the package slow to install, or asks for a folder or threads that are not here."""
    assert file.stat().st_size <= 10e6
    assert {name.split("/")[0] for name in safetensors.numpy.load_file(file)} == {"ema"}
    config = checkpoint.load(file, ("ema",)).config
    assert (config.data.data_dir, config.device, config.threads, config.compile) == (None, "auto", None, False)


@pytest.mark.parametrize("read", [sample_command.parse, bits_command.parse, invert_command.parse])
def test_it_is_what_the_commands_take_unless_told_otherwise(read):
    """Otherwise the first thing that a newcomer sees is an error."""
    data = [] if read is sample_command.parse else ["--dataset", "fashion-mnist-10k"]
    assert read("torch", data).checkpoint.path == BOXED


def test_both_frameworks_draw_the_same_with_it_and_it_looks_real(both, tmp_path):
    """Otherwise they do not read the same weights, or the box holds a network that has learnt the wrong thing."""
    torch_tree, tf_tree = both
    images = drawn(torch_tree, JUDGED, tmp_path / "torch")
    apart = np.abs(images[:COMPARED].astype(int) - drawn(tf_tree, COMPARED, tmp_path / "tf"))
    assert (apart > 0).mean() < DIFFERING
    assert apart.max() <= LEVELS
    judge = Judge(*datasets.load(datasets.EMBEDDED))
    distance = judge.scores(judge.extractor(images))["fid_fashion"]
    assert distance < FURTHER * judge.floor(JUDGED)["fid_fashion"]


def test_both_frameworks_draw_the_classes_that_are_asked_for(both, tmp_path):
    """Otherwise `make sample-torch ARGS="--labels trouser --guidance 2"` draws something else."""
    torch_tree, tf_tree = both
    asked = "--labels", "all", "--guidance", "2"
    images = drawn(torch_tree, 10, tmp_path / "torch", *asked)
    apart = np.abs(images[:3].astype(int) - drawn(tf_tree, 3, tmp_path / "tf", *asked))
    assert (apart > 0).mean() < DIFFERING
    assert apart.max() <= LEVELS
    seen = Extractor()(images).probabilities.argmax(axis=1)
    assert (seen == np.arange(10)).mean() >= 0.8  # of 2,000 images 94.7 % were


@pytest.mark.parametrize("command", ["inference --raw", "train --resume"])
def test_it_cannot_be_trained_on(tree, tmp_path, guarded, monkeypatch, command):
    """Otherwise the user gets a traceback: the optimizer's state stayed with the run."""
    monkeypatch.chdir(tmp_path)
    main, argv = {
        "inference --raw": (tree.inference.main, ["--raw"]),
        "train --resume": (tree.train.main, ["--resume", str(BOXED)]),
    }[command]
    code, err = guarded(lambda: main(argv))
    assert (code, err.count("\n")) == (2, 1)
    assert "--raw and --resume need a checkpoint that a run wrote itself" in err


# --- The tool that makes it ---------------------------------------------------------------------------------


def test_a_box_holds_the_averages_in_float16(tmp_path, capsys):
    """Otherwise the package carries the optimizer, or the commands draw with half the digits they could have."""
    rng = np.random.default_rng(0)
    tensors = {f"{prefix}/x": rng.standard_normal(1000).astype(np.float32) for prefix in checkpoint.PREFIXES}
    config = Config(device="cpu", threads=1, data=DataConfig(data_dir="/home/me/data"))
    source, out = tmp_path / "run.safetensors", tmp_path / "box.safetensors"
    checkpoint.save(source, tensors, framework="torch", step=7, config=config, dataset_sha256="ab" * 32)
    assert box_model.box(box_model.Options(str(source), str(out))) == 0
    assert safetensors.numpy.load_file(out)["ema/x"].dtype == np.float16
    found = checkpoint.load(out, ("ema",))
    assert found.tensors.keys() == {"ema/x"}
    assert found.tensors["ema/x"].dtype == np.float32
    assert_array_equal(found.tensors["ema/x"], tensors["ema/x"].astype(np.float16).astype(np.float32))
    assert found.config == dataclasses.replace(config, device="auto", threads=None, data=DataConfig())
    assert "1,000 weights of step 7" in capsys.readouterr().out
