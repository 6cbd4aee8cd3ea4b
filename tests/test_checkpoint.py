"""Checkpoint files: exactly what was saved comes back, and a bad file is never taken for a good one."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from numpy.testing import assert_array_equal

from ddpm_shared import config as configs
from ddpm_shared import files
from ddpm_shared.config import Config
from ddpm_shared.errors import UserError
from ddpm_shared.records import checkpoint

CONFIG = dataclasses.replace(configs.with_preset(Config(), "tiny"), seed=3)
SHAPES = {"conv.weight": (3, 2, 3, 3), "conv.bias": (3,), "time.weight": (4, 5), "scale": ()}


ALONE = "there is no other whole checkpoint beside it, take one from elsewhere"


def tensors(dtype=np.float32):
    rng = np.random.default_rng(0)
    return {
        f"{prefix}/{name}": np.asarray(rng.standard_normal(shape), dtype)
        for prefix in checkpoint.PREFIXES
        for name, shape in SHAPES.items()
    }


def save(path, values, **changed):
    known = {"framework": "torch", "step": 7, "config": CONFIG, "dataset_sha256": "ab" * 32}
    checkpoint.save(path, values, **(known | changed))
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoints" / "step_00000007.safetensors"  # save makes the folder


def refusal(path):
    """The one sentence, or two, with which the file is refused; it names the file."""
    with pytest.raises(UserError) as error:
        checkpoint.load(path)
    message = str(error.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_everything_comes_back_to_the_last_bit(path, dtype):
    """Otherwise a resumed run is not the one that was interrupted."""
    values = tensors(dtype)
    tiny = np.finfo(dtype).smallest_subnormal
    values["model/conv.bias"] = np.array([-0.0, tiny, np.finfo(dtype).max], dtype)
    loaded = checkpoint.load(save(path, values))
    assert loaded.tensors.keys() == values.keys()
    for name, value in values.items():
        assert loaded.tensors[name].dtype == dtype
        assert loaded.tensors[name].shape == value.shape
        assert loaded.tensors[name].tobytes() == value.tobytes()
    assert (loaded.path, loaded.framework, loaded.step) == (path, "torch", 7)
    assert loaded.config == CONFIG
    assert loaded.dataset_sha256 == "ab" * 32


def test_transposed_tensors_are_stored_as_they_read(path):
    """Otherwise TensorFlow's kernels, saved as transposed views, come back scrambled: safetensors writes raw memory."""
    values = {"model/w": np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1), "model/v": np.arange(10.0)[::-2]}
    loaded = checkpoint.load(save(path, values))
    for name, value in values.items():
        assert_array_equal(loaded.tensors[name], value)


def test_the_same_state_makes_the_same_file(path, tmp_path):
    """Otherwise the hash of a checkpoint says nothing, and equal runs cannot be recognised by it."""
    first, second = save(path, tensors()), save(tmp_path / "b.safetensors", tensors())
    assert first.read_bytes() == second.read_bytes()
    other = tensors()
    other["model/scale"] = other["model/scale"] + 1
    hashes = {checkpoint.load(p).sha256 for p in (first, second, save(tmp_path / "c.safetensors", other))}
    assert len(hashes) == 2


def test_only_what_is_asked_for_is_read(path):
    """Otherwise sampling needs memory for the optimizer's state, and is refused for weights that it never uses."""
    values = tensors() | {"model/scale": np.array(np.nan)}
    loaded = checkpoint.load(save(path, values), ("ema",))
    assert loaded.tensors.keys() == {f"ema/{name}" for name in SHAPES}


def test_the_file_is_an_ordinary_safetensors_file(path):
    """Otherwise other tools cannot open it, and the format is not the one that the design documents."""
    save(path, tensors())
    assert safetensors.numpy.load_file(path).keys() == tensors().keys()
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata = json.loads(file.metadata()["ddpm-duet"])
    assert re.fullmatch("[0-9a-f]{64}", metadata.pop("sha256"))
    assert metadata == {
        "format": "ddpm-duet/2",
        "framework": "torch",
        "step": 7,
        "config": configs.to_dict(CONFIG),
        "dataset_sha256": "ab" * 32,
        "codec": {"kind": "pixels"},
    }


def test_a_file_of_the_first_format_is_read_as_ever(path):
    """Otherwise the model in the package, and every run of the last year, can no longer be sampled or resumed."""
    metadata = {"format": "ddpm-duet/1", "framework": "tensorflow", "step": 7, "dataset_sha256": "ab" * 32}
    path.parent.mkdir()
    header = {"ddpm-duet": json.dumps(metadata | {"config": configs.to_dict(CONFIG)})}
    safetensors.numpy.save_file(tensors(), path, header)
    loaded = checkpoint.load(path)
    assert (loaded.framework, loaded.step, loaded.config, loaded.codec) == ("tensorflow", 7, CONFIG, checkpoint.PIXELS)
    for prefix in checkpoint.PREFIXES:
        for name, value in checkpoint.select(loaded, prefix, SHAPES).items():
            assert_array_equal(value, tensors()[f"{prefix}/{name}"])
    assert checkpoint.select(loaded, checkpoint.BUFFERS, {}) == {}
    safetensors.numpy.save_file({**tensors(), "buffers/x": np.ones(2)}, path, header)
    assert "holds buffers/x, which no run writes" in refusal(path)  # a file of /1 has none


def test_buffers_and_what_the_codec_needs_come_back_whatever_is_read(path):
    """Otherwise a network with running statistics, or the latents of an autoencoder, are drawn wrong."""
    more = {"buffers/norm.running_mean": np.arange(3.0), "codec/decoder.weight": np.ones((2, 2))}
    loaded = checkpoint.load(save(path, tensors() | more), ("ema",))
    assert loaded.tensors.keys() == {f"ema/{name}" for name in SHAPES} | more.keys()
    shapes = {"norm.running_mean": (3,)}
    assert_array_equal(checkpoint.select(loaded, checkpoint.BUFFERS, shapes)["norm.running_mean"], np.arange(3.0))
    for wrong, fault in [
        ({}, "surplus norm.running_mean"),
        (shapes | {"norm.count": ()}, "missing norm.count"),
        ({"norm.running_mean": (4,)}, "other shape norm.running_mean (3,), not (4,)"),
    ]:
        with pytest.raises(UserError) as error:
            checkpoint.select(loaded, checkpoint.BUFFERS, wrong)
        assert str(error.value).startswith(f"the buffers tensors in {path} do not fit the network: {fault}. ")


def test_a_codec_of_a_newer_version_is_refused(path):
    """Otherwise latents are taken for pixels, and drawn as noise."""
    save(path, tensors(), codec={"kind": "autoencoder"})
    assert refusal(path) == (
        f"{path} has a codec of kind 'autoencoder', which this version does not know: read it with the newer version "
        "of ddpm-duet that wrote it"
    )


# --- Bad files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -400, -1])
def test_a_truncated_file_is_refused(path, keep):
    """Otherwise a file whose copy broke off is sampled with whatever its missing tensors hold."""
    data = save(path, tensors()).read_bytes()
    path.write_bytes(data[:keep])
    assert "is not a whole safetensors file (" in refusal(path)


@pytest.mark.parametrize(
    "data", [b"\xff" * 1000, b"PK\x03\x04 a zip, as torch.save writes it", b"\x02" + b"\0" * 7 + b"[]"]
)
def test_another_kind_of_file_is_refused(path, data):
    """Otherwise a .pt file given by mistake ends in a traceback."""
    path.parent.mkdir()
    path.write_bytes(data)
    assert refusal(path).endswith(f"): {ALONE}")


def test_a_safetensors_file_of_something_else_is_refused(path):
    """Otherwise the weights of another project are tried; NumPy does not even know all of their number formats."""
    path.parent.mkdir()
    safetensors.numpy.save_file({"model/x": np.ones(2)}, path)
    assert refusal(path).endswith(f"its format is None, not 'ddpm-duet/2' or older; {ALONE}")
    header = json.dumps({"model/x": {"dtype": "I32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    assert "holds numbers that are no weights, model/x (I32); weights are F16, F32, F64, BF16" in refusal(path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"format": "ddpm-duet/3"}, "its format is 'ddpm-duet/3', not 'ddpm-duet/2' or older"),
        (["ddpm-duet/1"], "its format is None"),
        ({"format": "ddpm-duet/1", "step": 1, "config": {}}, "at its top level, 'framework' is a required property"),
        (
            {"format": "ddpm-duet/2", "framework": "torch", "step": 1, "config": {}, "dataset_sha256": "ab" * 32},
            "at its top level, 'codec' is a required property",
        ),
        (
            {
                **{"format": "ddpm-duet/1", "framework": "torch", "step": 1, "dataset_sha256": "ab" * 32},
                "config": {"new": 1},
            },
            "'new' was unexpected",
        ),
    ],
)
def test_a_file_of_another_version_is_refused(path, metadata, message):
    """Otherwise a setting that this version does not know is dropped, and another network sampled."""
    path.parent.mkdir()
    safetensors.numpy.save_file({"model/x": np.ones(2)}, path, {"ddpm-duet": json.dumps(metadata)})
    assert message in refusal(path)


def test_a_tensor_under_no_prefix_is_refused_by_name(path):
    """Otherwise a renamed prefix, say of the optimizer's state, is silently left out of what is resumed."""
    save(path, {**tensors(), "adam_w/time.weight": np.zeros(2)})
    assert "holds adam_w/time.weight, which no run writes" in refusal(path)
    with pytest.raises(UserError, match="adam_w"):  # however little of the file is wanted
        checkpoint.load(path, ("ema",))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_values_are_refused_by_name(path, value):
    """Otherwise a run that diverged is sampled, and all its images are black."""
    values = tensors()
    values["ema/conv.weight"][1, 0, 2, 2] = value
    message = refusal(save(path, values))
    assert message == f"{path} holds NaN or infinite values in ema/conv.weight: {ALONE}"


def test_a_long_list_is_cut(path):
    """Otherwise the sentence that matters drowns in a hundred names."""
    values = {f"model/{letter}": np.array(np.nan) for letter in "hgfedcba"}
    assert "in model/a, model/b, model/c, model/d, model/e and 3 more: there" in refusal(save(path, values))


def test_no_file_there(tmp_path):
    """Otherwise a mistyped --checkpoint ends in a traceback."""
    for place in (tmp_path / "nothing.safetensors", tmp_path):
        assert refusal(place) == f"no checkpoint at {place}: give a .safetensors file that a training run wrote"


# --- Whether it fits the network ----------------------------------------------------------------------------


def test_what_fits_is_handed_over(path):
    """Otherwise the good file is refused, or its groups get mixed up."""
    values = tensors()
    loaded = checkpoint.load(save(path, values))
    for prefix in checkpoint.PREFIXES:
        selected = checkpoint.select(loaded, prefix, SHAPES)
        assert selected.keys() == SHAPES.keys()
        for name, value in selected.items():
            assert_array_equal(value, values[f"{prefix}/{name}"])


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"conv.bias": None}, "missing conv.bias"),
        ({"more": np.zeros(2)}, "surplus more"),
        ({"time.weight": None, "time_1.weight": np.zeros((4, 5))}, "missing time.weight; surplus time_1.weight"),
        (
            {"time.weight": np.zeros((5, 4))},
            "other shape time.weight (5, 4), not (4, 5)",
        ),  # as many numbers, transposed
        ({"scale": np.zeros(1)}, "other shape scale (1,), not ()"),
        (
            {"scale": None, "x": np.zeros(1), "conv.bias": np.zeros(4)},
            "missing scale; surplus x; other shape conv.bias (4,), not (3,)",
        ),
    ],
)
@pytest.mark.parametrize("prefix", ["ema", "adam_v"])
def test_what_does_not_fit_is_named(path, prefix, change, fault):
    """Otherwise part of the network keeps its random start, or a transposed kernel is loaded without a word."""
    values = tensors()
    for name, value in change.items():
        values.pop(f"{prefix}/{name}", None)
        if value is not None:
            values[f"{prefix}/{name}"] = value
    loaded = checkpoint.load(save(path, values))
    with pytest.raises(UserError) as error:
        checkpoint.select(loaded, prefix, SHAPES)
    assert str(error.value) == (
        f"the {prefix} tensors in {path} do not fit the network: {fault}. "
        "Use the checkpoint with the configuration that it was trained with"
    )
    other = "model" if prefix == "ema" else "ema"
    assert checkpoint.select(loaded, other, SHAPES).keys() == SHAPES.keys()


# --- Writing ------------------------------------------------------------------------------------------------


def test_a_write_that_fails_leaves_the_old_file(path, monkeypatch):
    """Otherwise a full disk costs the last good checkpoint as well as the new one."""
    old = save(path, tensors()).read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, full)
            with pytest.raises(OSError, match="No space left on device") as error:
                save(path, tensors(), step=8)
        assert error.value.filename == str(path)  # what the user is told
        assert path.read_bytes() == old
        assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_write_that_is_stopped_leaves_the_old_file(path, monkeypatch):
    """Otherwise a second Ctrl-C during the saving leaves half a checkpoint under the good name."""
    old = save(path, tensors()).read_bytes()

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", stopped)
    with pytest.raises(KeyboardInterrupt):
        save(path, tensors(), step=8)
    assert path.read_bytes() == old
    assert [file.name for file in path.parent.iterdir()] == [path.name]


LIMITED = """
import resource, signal, sys
from pathlib import Path
from ddpm_shared import files
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that the write fails with EFBIG, as it would with ENOSPC
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
files.write_atomically(Path(sys.argv[1]), b"x" * 4000)
try:
    files.write_atomically(Path(sys.argv[1]), b"y" * 6000)
except OSError as error:
    print(error.filename, Path(sys.argv[1]).read_bytes() == b"x" * 4000)
"""


def test_a_real_write_that_breaks_off_leaves_the_old_file(tmp_path):
    """Otherwise what the operating system wrote before it refused lies about as a file."""
    target = tmp_path / "file"
    done = subprocess.run([sys.executable, "-c", LIMITED, target], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(target), "True"], done.stderr
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    """Otherwise the user learns that something could not be written, but not what."""
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        files.write_atomically(tmp_path / "file" / "under" / "it", b"")


def test_json_is_exact_and_never_holds_nan(tmp_path):
    """Otherwise metrics.json holds rounded losses, or a NaN that JSON does not know and other programs reject."""
    target = tmp_path / "a.json"
    values = [0.1 + 0.2, 1e-300, 2**60, None, "ä"]
    files.write_json(target, values)
    assert json.loads(target.read_text()) == values
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not JSON compliant"):
            files.write_json(target, {"loss": [bad]})
    assert json.loads(target.read_text()) == values
    assert [Path(name).name for name in tmp_path.iterdir()] == ["a.json"]
