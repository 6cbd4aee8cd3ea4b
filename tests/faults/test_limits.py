"""Limits before work: what a file declares is looked at before it is opened, unpacked, decoded or believed."""

import gzip
import io
import json
import lzma
import os
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddpm_shared import compare, config, files, npz, pictures, reading
from ddpm_shared.compare import parity_table
from ddpm_shared.datasets import idx
from ddpm_shared.errors import UserError
from ddpm_shared.evaluation import inception, samples
from ddpm_shared.evaluation.extractor import Extractor
from ddpm_shared.records import checkpoint, history

WAY_OUT = "the way out"
READ: dict[str, Callable[[Path], Any]] = {
    "checkpoint": checkpoint.load,
    "metrics.json": compare.read_run,
    "metrics.jsonl": lambda path: history.read_history(path.parent, 1),
    "config.json": config.read,
    "parity.json": parity_table.read,
    "samples.npz": samples.read,
    "cache": lambda path: files.read_npz(path) or refuse(),
    "png": lambda path: pictures.read_png(path, WAY_OUT),
    "gif": lambda path: pictures.read_gif(path, WAY_OUT),
    "onnx": Extractor,
    "inception": lambda path: inception.load(path, 2048),
    "idx": idx.read_idx,
}


def refuse() -> None:
    raise UserError("made anew")


def refusal(read: Callable[[Path], Any], path: Path) -> str:
    """The sentence with which a file is refused, without taking much memory."""
    tracemalloc.start()
    try:
        with pytest.raises(UserError) as error:
            read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 32 * reading.MIB
    assert str(error.value).isprintable()
    return str(error.value)


@pytest.mark.parametrize("name", READ)
def test_only_a_regular_file_of_a_sensible_size_is_read(name: str, tmp_path: Path) -> None:
    """Otherwise a pipe hangs the command, and /dev/zero or a file of holes fills the memory."""
    path = tmp_path / "metrics.jsonl"
    os.mkfifo(path)
    refusal(READ[name], path)  # and it returns
    path.unlink()
    path.mkdir()
    refusal(READ[name], path)
    path.rmdir()
    path.symlink_to("/dev/zero")
    refusal(READ[name], path)
    path.unlink()
    with path.open("wb") as file:
        os.truncate(file.fileno(), 2**42)  # takes no place on the disk
    refusal(READ[name], path)
    path.unlink()
    path.symlink_to(path)  # to itself
    refusal(READ[name], path)


@pytest.mark.parametrize("name", sorted(READ.keys() - {"metrics.jsonl"}))
@pytest.mark.parametrize("path", ["a\0b", "x" * 5000, "two\nlines\x1b[2J", "no\udcffutf-8"])
def test_a_name_that_no_file_can_have_is_one_sentence(name: str, path: str) -> None:
    """Otherwise it is a traceback, or writes over the user's screen."""
    assert "\n" not in refusal(READ[name], Path(path))


# --- Archives -----------------------------------------------------------------------------------------------


def npy(shape: str, descr: str = "'|u1'", content: bytes = b"", version: int = 1) -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    return (
        b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(header)) + header + content
    )


def zipped(**entries: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(f"{name}.npy", content)
    return buffer.getvalue()


ARCHIVES = {
    "more than is there": (zipped(images=npy("(2000000000, 28, 28, 1)")), "declares 1,568,000,000,000 bytes and has 0"),
    "less than is there": (zipped(images=npy("(1,)", content=b"12")), "declares 1 bytes and has 2"),
    "beyond 64 bits": (zipped(images=npy(f"({10**30},)")), "declares 1,000,000,000,000,000,000,000,000,000,000 bytes"),
    "negative": (zipped(images=npy("(-1, -1)", content=b"1")), "has the shape (-1, -1)"),
    "true as a size": (zipped(images=npy("(True,)", content=b"1")), "has the shape (True,)"),
    "objects": (zipped(images=npy("(1,)", "'|O'", b"12345678")), "holds Python objects, which are not read"),
    "an unknown type": (zipped(images=npy("(1,)", "'<q9'")), "is not a whole .npz file ("),
    "a deep type": (zipped(images=npy("(1,)", 60 * "[" + 60 * "]")), "is not a whole .npz file ("),
    "no tuple": (zipped(images=npy("5", content=b"12345")), "is not a whole .npz file ("),
    "a program": (zipped(images=npy("__import__('os')")), "is not a whole .npz file ("),
    "unclosed": (zipped(images=npy("(1,").replace(b"}", b" ")), "is not a whole .npz file ("),
    "of version 9": (zipped(images=npy("(0,)", version=9)), "is of the unknown .npy format (9, 0)"),
    "a long header": (
        zipped(images=b"\x93NUMPY\x02\0\xff\xff\xff\x7f"),
        "of its array 'images' has 2,147,483,647",
    ),
    "no array": (zipped(images=b"hello"), "is not a whole .npz file ("),
    "no zip": (b"PK\x03\x04 and so on", "File is not a zip file"),
    "bare": (npy("(1,)", content=b"1"), "File is not a zip file"),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_an_archive_is_believed_only_where_its_sizes_agree(case: str, tmp_path: Path) -> None:
    """Otherwise a file of 300 bytes asks for terabytes, or runs as a program."""
    content, reason = ARCHIVES[case]
    path = tmp_path / "samples.npz"
    path.write_bytes(content)
    assert reason in refusal(samples.read, path)
    assert files.read_npz(path) is None  # in the cache: made anew


def test_an_archive_is_unpacked_only_as_far_as_it_may(tmp_path: Path) -> None:
    """Otherwise a file of a megabyte becomes gigabytes, in one array or in many."""
    path = tmp_path / "samples.npz"
    np.savez_compressed(path, images=np.zeros((10_000, 28, 28, 1), np.uint8), other=np.zeros(10**6))
    assert path.stat().st_size < reading.MIB
    with pytest.raises(UserError, match=r"unpacked it has 8,000,128 bytes, more than 1,048,576"):
        npz.read(path, WAY_OUT, ["other"], reading.MIB)
    with pytest.raises(UserError, match=r"unpacked it has 15,840,256 bytes, more than 10,000,000"):
        npz.read(path, WAY_OUT, at_most=10**7)
    assert npz.read(path, WAY_OUT, ["images"])["images"].shape == (10_000, 28, 28, 1)  # and the other is left alone


def test_arrays_come_back_as_numpy_reads_them(tmp_path: Path) -> None:
    """Otherwise the careful reader reads something else than np.load."""
    arrays = {
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big_endian": np.arange(3, dtype=">f4"),
        "empty": np.empty((0, 28, 28, 1), np.uint8),
        "scalar": np.array(1.5),
        "text": np.array("ä text"),
        "no_text": np.array(""),
        "half": np.arange(3, dtype=np.float16),
        "bools": np.array([True, False]),
    }
    np.savez(tmp_path / "x.npz", **arrays)
    found = npz.read(tmp_path / "x.npz", WAY_OUT)
    assert found.keys() == arrays.keys()
    with np.load(tmp_path / "x.npz") as loaded:
        for name, array in found.items():
            np.testing.assert_array_equal(array, loaded[name])
            assert array.dtype == loaded[name].dtype
            assert array.flags.writeable


@pytest.mark.parametrize("pack", [gzip.compress, partial(lzma.compress, preset=0)], ids=["gz", "xz"])
def test_data_are_decompressed_only_as_far_as_they_should_go(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    """Otherwise a .gz of 3 MB takes 3 GB and 40 seconds before it is refused."""
    start = b"\0\0\x08\x01" + (100).to_bytes(4, "big")
    path = tmp_path / "labels"
    path.write_bytes(pack(start + bytes(40 * reading.MIB)))
    assert "has more than 100 bytes after its header" in refusal(lambda path: idx.read_idx(path, (100,)), path)
    assert "has more than 100 bytes after its header" in refusal(idx.read_idx, path)
    path.write_bytes(pack(b"\0\0\x08\x03" + 12 * b"\xff"))
    assert "bytes by its shape, expected at most" in refusal(idx.read_idx, path)


@pytest.mark.parametrize("name", ["x.gz", "x.xz", "x"])
@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, bytes])
def test_the_first_bytes_say_how_a_file_is_packed(name: str, pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    """Otherwise a file that a server or a browser unpacked on the way is called damaged."""
    (tmp_path / name).write_bytes(pack(b"\0\0\x08\x01\0\0\0\x03abc"))
    assert idx.read_idx(tmp_path / name, (3,)).tobytes() == b"abc"


# --- Pictures -----------------------------------------------------------------------------------------------


def png(width: int, height: int) -> bytes:
    """A PNG that declares this size, all of it black."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(9000, 9000), (12_000, 12_000), (60_000, 60_000), (2**31 - 1, 2**31 - 1)])
def test_a_picture_is_measured_before_it_is_decoded(size: tuple[int, int], tmp_path: Path) -> None:
    """Otherwise a file of 60 bytes takes gigabytes, or a warning of another library stands above our sentence."""
    (tmp_path / "x.png").write_bytes(png(*size))
    assert "x.png is not a whole PNG (" in refusal(lambda path: pictures.read_png(path, WAY_OUT), tmp_path / "x.png")
    frame = struct.pack("<2H3B", 65_535, 65_535, 0, 0, 0) + b",\0\0\0\0" + struct.pack("<2HB", 65_535, 65_535, 0)
    (tmp_path / "x.gif").write_bytes(b"GIF89a" + frame + b"\x02\x02\x44\x01\0;")
    assert "x.gif is not a whole GIF (" in refusal(lambda path: pictures.read_gif(path, WAY_OUT), tmp_path / "x.gif")


def test_other_kinds_of_pictures_are_not_even_tried(tmp_path: Path) -> None:
    """Otherwise a file of another kind is given to any of Pillow's forty decoders."""
    (tmp_path / "x.png").write_bytes(b"P5 2 2 255\n1234")
    with pytest.raises(UserError, match=r"x\.png is not a whole PNG \(it begins as no such file does\)"):
        pictures.read_png(tmp_path / "x.png", WAY_OUT)


# --- JSON ---------------------------------------------------------------------------------------------------

NO_JSON = {
    "deep": 5000 * "[" + 5000 * "]",
    "deep in a key": '{"a":' * 40 + "1" + "}" * 40,
    "unclosed and deep": 100_000 * '{"a":[',
    "unclosed text": 40 * "[" + 200_000 * '\\"',  # hours, where each quote is tried in turn
    "a text cut in the middle": '[["' + 40 * "[" + "\\",
    "NaN": "[NaN]",
    "minus infinity": "[-Infinity]",
    "too large": "[1e999]",
    "too long": "[" + 5000 * "9" + "]",
    "twice": '{"a": 1, "b": {"c": 1, "c": 2}}',
    "two values": "{} {}",
    "a control character": '["\x07"]',
    "nothing": "",
    "zeros": "\0" * 100,
}


@pytest.mark.parametrize("case", NO_JSON)
def test_json_is_what_the_standard_says_and_no_deeper_than_ours(case: str) -> None:
    """Otherwise Python's own additions are believed, and other programs read something else."""
    with pytest.raises(UserError) as error:
        reading.parse_json(NO_JSON[case].encode(), "x.json", WAY_OUT)
    message = str(error.value)
    assert message.startswith("x.json is not JSON with finite numbers: ")
    assert message.endswith(f"; {WAY_OUT}")
    assert message.isprintable()
    assert len(message) < 400


def test_json_in_another_encoding_is_refused_and_a_mark_of_order_is_not() -> None:
    """Otherwise a file that Windows wrote is refused for three bytes, or one in UTF-16 read as something."""
    assert reading.parse_json(b'\xef\xbb\xbf{"a": ["\xc3\xa4"]}', "x", WAY_OUT) == {"a": ["ä"]}
    for encoding in ("utf-16", "utf-32", "latin-1"):
        with pytest.raises(UserError, match="is not JSON"):
            reading.parse_json('{"a": "ä"}'.encode(encoding), "x", WAY_OUT)


def test_brackets_in_texts_are_not_counted() -> None:
    """Otherwise a message of a run with many brackets makes its metrics.json unreadable."""
    value = {"message": 100 * '[{"\\', "list": [[]] * 100}
    assert reading.parse_json(json.dumps(value), "x", WAY_OUT) == value
