"""Checkpoints: nothing in them is believed before it is checked, and a damaged one leads to the newest whole one."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from fuzz_readers import CONFIG, TENSORS
from numpy.testing import assert_array_equal

from ddpm_shared import validation
from ddpm_shared.config import to_dict
from ddpm_shared.errors import UserError
from ddpm_shared.evaluation import extractor
from ddpm_shared.frameworks import FRAMEWORKS
from ddpm_shared.records import checkpoint

KNOWN: dict[str, Any] = {"framework": "torch", "step": 7, "config": CONFIG, "dataset_sha256": "ab" * 32}
METADATA = {"format": "ddpm-duet/1", **KNOWN, "config": to_dict(CONFIG)}


@pytest.fixture(autouse=True)
def nothing_said() -> Iterator[None]:
    """As in a new process."""
    checkpoint._said.clear()
    yield
    checkpoint._said.clear()


def write_raw(path: Path, tensors: dict[str, tuple[str, list[int], bytes]], metadata: object = METADATA) -> Path:
    """A safetensors file of any number formats, (dtype, shape, bytes) by name."""
    header: dict[str, Any] = {"__metadata__": {"ddpm-duet": json.dumps(metadata)}}
    end = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end := end + len(data)]}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(data for _, _, data in tensors.values()))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as error:
        checkpoint.load(path)
    assert str(error.value).isprintable()
    return str(error.value)


# --- Checksums ----------------------------------------------------------------------------------------------


def test_a_flipped_bit_is_found_whatever_is_asked_for(tmp_path: Path) -> None:
    """Otherwise sampling believes a file of which the optimizer's state is broken, and training goes on with it."""
    path = tmp_path / "step_00000007.safetensors"
    checkpoint.save(path, TENSORS, **KNOWN)
    data = bytearray(path.read_bytes())
    place = data.rindex(TENSORS["adam_v/x"].tobytes())
    data[place] ^= 1
    path.write_bytes(data)
    for prefixes in ((), ("ema",), checkpoint.PREFIXES):
        with pytest.raises(UserError, match=r"step_00000007.safetensors is damaged \(its SHA-256 is "):
            checkpoint.load(path, prefixes)


@pytest.mark.parametrize(("version", "metadata"), [("ddpm-duet/1", {}), ("ddpm-duet/2", {"codec": {"kind": "pixels"}})])
def test_a_file_without_checksum_is_read_and_one_line_says_so(
    version: str, metadata: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Otherwise a checkpoint of last year cannot be used; or its user believes that it was checked."""
    for name in ("a", "b"):
        safetensors.numpy.save_file(
            TENSORS, tmp_path / name, {"ddpm-duet": json.dumps({**METADATA, **metadata, "format": version})}
        )
        assert checkpoint.load(tmp_path / name).step == 7
    line = f"{tmp_path / 'a'} has no checksum (format {version}): it cannot be checked for damage\n"
    assert capsys.readouterr().err == line
    checkpoint.save(tmp_path / "c", TENSORS, **KNOWN)
    checkpoint._said.clear()
    checkpoint.load(tmp_path / "c")
    assert capsys.readouterr().err == ""


def test_what_is_in_the_package_is_checked_by_the_hash_in_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Otherwise a broken installation draws other images, and judges them by other features, without a word."""
    checkpoint.load(checkpoint.BOXED)
    extractor.Extractor()
    assert capsys.readouterr().err == ""
    for module, name, use, said in (
        (checkpoint, "BOXED", lambda path: checkpoint.load(path), "is damaged (its SHA-256 is "),
        (checkpoint, "BOXED_CONDITIONAL", lambda path: checkpoint.load(path), "is damaged (its SHA-256 is "),
        (extractor, "SHIPPED", lambda path: extractor.Extractor(), "has SHA-256 "),
        (extractor, "RANDOM", lambda path: extractor.Extractor(path), "has SHA-256 "),
    ):
        data = bytearray(getattr(module, name).read_bytes())
        data[len(data) // 2] ^= 16
        (tmp_path / name).write_bytes(data)
        monkeypatch.setattr(module, name, tmp_path / name)
        with pytest.raises(UserError) as error:
            use(tmp_path / name)
        assert str(error.value).startswith(f"{tmp_path / name} {said}")
        assert str(error.value).endswith("the installed package is damaged, install ddpm-duet again")


def test_the_checksum_covers_what_it_should(tmp_path: Path) -> None:
    """Otherwise two tensors can change places, or a setting can change, and the sum stays."""
    sums = set()
    pair = {"model/a": np.zeros(2, np.float32), "model/b": np.ones(2, np.float32)}
    swapped = {"model/a": pair["model/b"], "model/b": pair["model/a"]}
    reshaped = pair | {"model/a": np.zeros((1, 2), np.float32)}
    wider = pair | {"model/a": np.zeros(1)}  # as many bytes
    settings = dataclasses.replace(CONFIG, seed=5)
    for tensors, changed in [
        *((each, {}) for each in (pair, swapped, reshaped, wider)),
        *((pair, each) for each in ({"step": 8}, {"framework": "tensorflow"}, {"config": settings})),
        (pair, {"dataset_sha256": "cd" * 32}),
    ]:
        checkpoint.save(tmp_path / "x", tensors, **KNOWN | changed)
        with safetensors.safe_open(tmp_path / "x", framework="numpy") as file:
            sums.add(json.loads(file.metadata()["ddpm-duet"])["sha256"])
    assert len(sums) == 8
    loaded = checkpoint.load(tmp_path / "x")
    assert loaded.sha256 == hashlib.sha256((tmp_path / "x").read_bytes()).hexdigest()  # that of the whole file


# --- The way out --------------------------------------------------------------------------------------------


def test_a_damaged_checkpoint_leads_to_the_newest_whole_one(tmp_path: Path) -> None:
    """Otherwise the user tries one file after the other, or gives the run up."""
    for step in (9, 10, 11, 100_000_000):
        checkpoint.save(tmp_path / f"step_{step:08d}.safetensors", TENSORS, **KNOWN)
    ninth, tenth, eleventh, last = (tmp_path / f"step_{step:08d}.safetensors" for step in (9, 10, 11, 100_000_000))
    (tmp_path / "step_x.safetensors").write_bytes(tenth.read_bytes())  # none of a run's
    (tmp_path / "best.safetensors").write_bytes(tenth.read_bytes())
    (tmp_path / "step_00000012.safetensors").mkdir()
    assert checkpoint.newest_whole(tmp_path) == last  # by number, not by name
    assert checkpoint.newest_whole(tmp_path, [last, eleventh]) == tenth
    last.write_bytes(b"")
    eleventh.write_bytes(eleventh.read_bytes()[:-1])
    assert refusal(last).endswith(f": take {tenth}, the newest whole checkpoint beside it")
    assert refusal(eleventh).endswith(f": take {tenth}, the newest whole checkpoint beside it")
    data = bytearray(tenth.read_bytes())
    data[-1] ^= 1
    tenth.write_bytes(data)
    ninth.unlink()
    assert refusal(tenth).endswith(": there is no other whole checkpoint beside it, take one from elsewhere")
    assert checkpoint.newest_whole(tmp_path) is None
    assert checkpoint.newest_whole(tmp_path / "nowhere") is None


# --- Number formats -----------------------------------------------------------------------------------------


def test_bfloat16_is_widened_as_float16_is(tmp_path: Path) -> None:
    """Otherwise a checkpoint that another tool made smaller ends in a traceback."""
    values = np.array([[1.0, -2.5, 0.0], [3e38, 1e-38, -0.0]], np.float32)
    halves = (values.view(np.uint32) >> 16).astype("<u2")
    path = write_raw(tmp_path / "x", {"model/x": ("BF16", [2, 3], halves.tobytes())})
    found = checkpoint.load(path).tensors["model/x"]
    assert found.dtype == np.float32
    assert_array_equal(found.view(np.uint32) >> 16, halves)
    path = write_raw(tmp_path / "x", {"model/x": ("F16", [3], np.array([1, -2.5, 0], np.float16).tobytes())})
    assert checkpoint.load(path).tensors["model/x"].tolist() == [1, -2.5, 0]


@pytest.mark.parametrize(
    ("dtype", "size"),
    [
        *(("I8", 1), ("U8", 1), ("BOOL", 1), ("I16", 2), ("I32", 4), ("I64", 8), ("U64", 8)),
        *(("F8_E4M3", 1), ("F8_E5M2", 1), ("C64", 8)),
    ],
)
def test_numbers_that_are_no_weights_are_refused_by_name(dtype: str, size: int, tmp_path: Path) -> None:
    """Otherwise quantised weights are drawn from as they are, and the images are noise."""
    tensors = {"model/x": ("F32", [1], bytes(4)), "adam_m/y": (dtype, [3], bytes(3 * size))}
    message = refusal(write_raw(tmp_path / "x", tensors))
    assert f"x holds numbers that are no weights, adam_m/y ({dtype}); weights are F16, F32, F64, BF16: " in message


# --- Metadata -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"step": -3}, "at step, -3 is less than the minimum of 0"),
        ({"step": 10**18}, "at step, 1000000000000000000 is greater than the maximum of 9007199254740992"),
        ({"step": 10**9}, "is of step 1,000,000,000, and a run of its settings ends before 15,625,000"),
        ({"step": True}, "at step, True is not of type 'integer'"),
        ({"step": 7.0}, "at step, 7.0 is not of type 'integer'"),
        ({"step": "7"}, "at step, '7' is not of type 'integer'"),
        ({"step": None}, "at step, None is not of type 'integer'"),
        ({"framework": "jax"}, "at framework, 'jax' is not one of ['torch', 'tensorflow']"),
        ({"framework": ["torch"]}, "at framework, ['torch'] is not one of"),
        ({"dataset_sha256": "ab" * 32 + "\n"}, "at dataset_sha256, "),
        ({"dataset_sha256": "AB" * 32}, "at dataset_sha256, "),
        ({"config": None}, "at config, None is not of type 'object'"),
        ({"config": []}, "at config, [] is not of type 'object'"),
        ({"config": {"model": None}}, "at model, None is not of type 'object'"),
        ({"config": {"training": {"epochs": True}}}, "at training.epochs, True is not of type 'integer'"),
        ({"mood": "good"}, "'mood' was unexpected"),
        ({"codec": {"kind": "pixels"}}, "'codec' was unexpected"),  # /1 had none
    ],
)
def test_metadata_are_checked(changed: dict[str, Any], reason: str, tmp_path: Path) -> None:
    """Otherwise a run trains backwards from step -3, or to the end of time, and says "done"."""
    path = write_raw(tmp_path / "x", {"model/x": ("F32", [1], bytes(4))}, {**METADATA, **changed})
    message = refusal(path)
    assert reason in message
    assert message.endswith("take one from elsewhere")


def test_the_schema_knows_the_frameworks_and_the_formats() -> None:
    """Otherwise a third framework, or a new format, is written and cannot be read."""
    definitions = validation.schema("checkpoint")["$defs"]
    assert definitions["framework"]["enum"] == list(FRAMEWORKS)
    assert set(checkpoint.FORMATS.values()) == {name for name in definitions if name.startswith("format_")}
    for version, part in checkpoint.FORMATS.items():
        assert definitions[part]["properties"]["format"]["const"] == version


@pytest.mark.parametrize("size", [2**40, 2**63, 2**64 - 1, 10**8, 3])
def test_a_header_is_only_read_where_it_can_be(size: int, tmp_path: Path) -> None:
    """Otherwise eight bytes of a damaged file ask for sixteen million terabytes."""
    (tmp_path / "x").write_bytes(size.to_bytes(8, "little") + b"{}")
    assert f"it has 10 bytes, and its header would have {size:,}" in refusal(tmp_path / "x")


def test_a_file_whose_header_declares_another_size_is_refused_unread(tmp_path: Path) -> None:
    """Otherwise a terabyte of holes is read before anybody sees that it is none of ours."""
    path = write_raw(tmp_path / "x", {"model/x": ("F32", [1], bytes(4))})
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(2**42)
    assert f"(it has {2**42:,} bytes, and its header declares {size:,})" in refusal(path)
    header = {"model/x": {"dtype": "F32", "shape": [2**40 - 32], "data_offsets": [0, 2**42 - 128]}}
    text = json.dumps(header).encode().ljust(120)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(2**42)
    assert f"(reading it takes {3 * 2**42:,} bytes, and this machine has " in refusal(path)
