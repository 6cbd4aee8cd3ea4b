"""Data: no bad file is ever taken for a good one, and every way to fail says the way out."""

import errno
import functools
import gzip
import hashlib
import http.server
import importlib.util
import lzma
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import get_args

import numpy as np
import pytest

from ddpm_shared import datasets, files
from ddpm_shared.config import Dataset
from ddpm_shared.datasets import EMBEDDED, FULL, Split, download, fashion_mnist, packaged, transfer
from ddpm_shared.datasets.idx import IdxFile, read_idx
from ddpm_shared.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
BUILDER = ROOT / "shared/tools/embed_fashion_mnist.py"
COMMITTED = ROOT / "shared/src/embedded"
NAMES = [file.name for file in fashion_mnist.FILES[FULL]]
DEBIAN = fashion_mnist.DEBIAN  # the fixture `tiny` points fashion_mnist.DEBIAN elsewhere


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


IMAGES = np.arange(3 * 2 * 2, dtype=np.uint8).reshape(3, 2, 2)
PAYLOADS = dict(
    zip(
        NAMES,
        map(idx, (IMAGES, np.array([0, 1, 2], np.uint8), IMAGES[:2] + 100, np.array([3, 4], np.uint8))),
        strict=True,
    )
)
TINY = tuple(
    IdxFile(name, shape, hashlib.sha256(PAYLOADS[name]).hexdigest())
    for name, shape in zip(NAMES, [(3, 2, 2), (3,), (2, 2, 2), (2,)], strict=True)
)


def write(folder: Path, **changed: bytes) -> Path:
    """A folder with the four tiny files; `train_images_idx3_ubyte=...` puts other bytes in that .gz."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        packed = changed.get(name.replace("-", "_"), gzip.compress(PAYLOADS[name]))
        (folder / f"{name}.gz").write_bytes(packed)
    return folder


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The (absent) cache folder of a world with no network, where Fashion-MNIST has five images."""
    monkeypatch.setitem(fashion_mnist.FILES, FULL, TINY)
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "debian")
    monkeypatch.setattr(fashion_mnist, "MIRRORS", ())
    monkeypatch.setenv("DDPM_DUET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "cache" / FULL


def listed(folder: Path) -> list[str]:
    """The files of a folder in the cache, but for its lock."""
    return sorted(name for name in os.listdir(folder) if name != ".lock")


def is_tiny(splits: tuple[Split, Split]) -> bool:
    train, test = splits
    return (
        [train.name, train.split, test.name, test.split] == [FULL, "train", FULL, "test"]
        and np.array_equal(train.images[..., 0], IMAGES)
        and np.array_equal(test.images[..., 0], IMAGES[:2] + 100)
        and train.labels.tolist() == [0, 1, 2]
        and test.labels.tolist() == [3, 4]
        and [train.sha256, test.sha256] == [TINY[0].sha256, TINY[2].sha256]
    )


# --- The reader ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("suffix", "pack"), [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress)])
def test_a_good_file_is_read_packed_or_not(tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes]) -> None:
    """Otherwise users who unzipped their copy, or the embedded set, would be locked out."""
    path = tmp_path / f"images{suffix}"
    path.write_bytes(pack(PAYLOADS[NAMES[0]]))
    array = read_idx(path)
    np.testing.assert_array_equal(array, IMAGES)
    assert array.dtype == np.uint8
    assert array.flags.writeable, "torch.from_numpy warns about memory it may not write to"


GOOD = PAYLOADS[NAMES[0]]
PACKED = gzip.compress(GOOD, mtime=0)
OTHER = GOOD[:-1] + b"\xff"
BAD_FILES = {
    "empty": (b"", "is empty, expected an IDX file"),
    "truncated gz": (PACKED[:-9], f"breaks off after {len(PACKED) - 9} bytes, expected a complete .gz file"),
    "a web page": (
        b"<html>Please log in",
        "is damaged (Not a gzipped file (b'<h')), expected a sound .gz file",
    ),
    "corrupt gz": (PACKED[:10] + b"\xff" * 9 + PACKED[19:], "is damaged (Error -3 while decompressing"),
    "bad checksum": (PACKED[:-8] + bytes(4) + PACKED[-4:], "is damaged (CRC check failed"),
    "no magic": (gzip.compress(b""), "starts with nothing, expected 00 00 08 03 (IDX of unsigned bytes)"),
    "wrong type": (
        gzip.compress(b"\0\0\x0d" + GOOD[3:]),
        "starts with 00 00 0d 03, expected 00 00 08 03 (IDX of unsigned bytes)",
    ),
    "labels for images": (
        gzip.compress(PAYLOADS[NAMES[1]]),
        "starts with 00 00 08 01, expected 00 00 08 03 (IDX of unsigned bytes)",
    ),
    "half a header": (gzip.compress(GOOD[:9]), "ends after 9 bytes, expected the shape of an array there"),
    "test for train": (gzip.compress(PAYLOADS[NAMES[2]]), "has shape [2, 2, 2], expected [3, 2, 2]"),
    "payload too short": (
        gzip.compress(GOOD[:-1]),
        "has 11 bytes after its header, expected 12 by its shape",
    ),
    "payload too long": (
        gzip.compress(GOOD + b"\0"),
        "has more than 12 bytes after its header, expected 12 by its shape",
    ),
    "other pixels": (
        gzip.compress(OTHER),
        f"has other content: SHA-256 {hashlib.sha256(OTHER).hexdigest()} when decompressed, expected {TINY[0].sha256}",
    ),
}
bad_files = pytest.mark.parametrize(("content", "message"), BAD_FILES.values(), ids=list(BAD_FILES))


@bad_files
def test_every_kind_of_bad_file_is_named_with_found_expected_and_way_out(
    tmp_path: Path, content: bytes, message: str
) -> None:
    """Otherwise the user learns that something is wrong, but not what to replace."""
    path = tmp_path / "images.gz"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_idx(path, TINY[0].shape, TINY[0].sha256)
    assert str(caught.value).startswith(f"{path} {message}")
    assert str(caught.value).endswith(": replace it with a fresh copy")


def test_an_xz_cut_short_and_a_missing_file_are_user_errors(tmp_path: Path) -> None:
    """Otherwise a damaged install would end in a traceback."""
    path = tmp_path / "images.xz"
    path.write_bytes(lzma.compress(GOOD)[:-20])
    with pytest.raises(UserError, match=r"images\.xz breaks off after \d+ bytes, expected a complete \.xz file"):
        read_idx(path)
    with pytest.raises(UserError, match=r"none\.gz cannot be read \(No such file or directory\), expected"):
        read_idx(tmp_path / "none.gz")


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
def test_no_cut_and_no_flipped_byte_passes_the_reader(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    """Otherwise some damage would train a model on other pixels, or escape as an exception of zlib."""
    path = tmp_path / f"images{ {bytes: '', gzip.compress: '.gz', lzma.compress: '.xz'}[pack] }"
    packed = pack(GOOD)
    for position in range(len(packed)):
        path.write_bytes(packed[:position])
        with pytest.raises(UserError):
            read_idx(path, TINY[0].shape, TINY[0].sha256)
        path.write_bytes(packed[:position] + bytes([packed[position] ^ 0x55]) + packed[position + 1 :])
        try:  # a byte that carries no data, such as the clock in a .gz, may change
            np.testing.assert_array_equal(read_idx(path, TINY[0].shape, TINY[0].sha256), IMAGES)
        except UserError:
            continue


# --- Folders ------------------------------------------------------------------------------------------------


def test_data_dir_is_used_packed_or_unzipped_and_before_every_other_place(tiny: Path, tmp_path: Path) -> None:
    """Otherwise --data-dir would be overruled by whatever lies in the cache."""
    write(tiny, train_images_idx3_ubyte=b"bad")
    folder = write(tmp_path / "mine")
    (folder / NAMES[0]).write_bytes(GOOD)
    (folder / f"{NAMES[0]}.gz").unlink()
    for name in (FULL, "auto"):
        assert is_tiny(datasets.load(name, str(folder)))
    assert (tiny / f"{NAMES[0]}.gz").read_bytes() == b"bad", "the cache was none of its business"


def test_a_tilde_in_data_dir_is_the_home_folder(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise --data-dir=~/data, which the shell does not expand, would not be found."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    write(tmp_path / "mine")
    assert is_tiny(datasets.load(FULL, "~/mine"))


@pytest.mark.parametrize("name", [FULL, "auto"])
@bad_files
def test_a_bad_file_in_data_dir_is_an_error_also_under_auto(
    tiny: Path, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    """Otherwise a user who named a folder would be given other data than is in it."""
    write(tiny)
    folder = write(tmp_path / "mine", train_images_idx3_ubyte=content)
    with pytest.raises(UserError) as caught:
        datasets.load(name, str(folder))
    assert str(caught.value).startswith(f"{folder / NAMES[0]}.gz {message}")
    assert "replace it with a fresh copy, or leave out --data-dir" in str(caught.value)
    assert (folder / f"{NAMES[0]}.gz").exists(), "a user's own file is never deleted"


@pytest.mark.parametrize("name", [FULL, "auto"])
def test_a_data_dir_that_lacks_files_says_which(tiny: Path, tmp_path: Path, name: str) -> None:
    """Otherwise the user would compare two lists of four names by eye."""
    write(tiny)
    folder = write(tmp_path / "mine")
    (folder / f"{NAMES[1]}.gz").unlink()
    (folder / f"{NAMES[2]}.gz").unlink()
    with pytest.raises(UserError, match=f"mine' lacks {NAMES[1]}, {NAMES[2]} .* put it in, or leave out --data-dir"):
        datasets.load(name, str(folder))
    with pytest.raises(UserError, match="absent' is not a folder: name another, or leave out --data-dir"):
        datasets.load(name, str(tmp_path / "absent"))


def test_the_cache_is_used_before_debian_and_debian_before_the_network(tiny: Path, tmp_path: Path) -> None:
    """Otherwise data on the machine would be downloaded again, or an old copy preferred to the user's."""
    debian = write(tmp_path / "debian")
    name, found = datasets.fetch(FULL)
    assert name == FULL
    assert [file.path for file in found] == [debian / f"{name}.gz" for name in NAMES]
    write(tiny)
    assert [file.path.parent for file in datasets.fetch(FULL)[1]] == [tiny] * 4
    assert is_tiny(datasets.load("auto"))


@bad_files
def test_a_bad_file_in_debians_folder_is_an_error(tiny: Path, tmp_path: Path, content: bytes, message: str) -> None:
    """Otherwise a damaged system package would go unnoticed for ever."""
    debian = write(tmp_path / "debian", train_images_idx3_ubyte=content)
    with pytest.raises(UserError) as caught:
        datasets.load(FULL)
    assert str(caught.value).startswith(f"{debian / NAMES[0]}.gz {message}")
    assert "apt-get install --reinstall dataset-fashion-mnist" in str(caught.value)


@bad_files
def test_a_bad_file_in_the_cache_is_reported_deleted_and_replaced_by_the_next_place(
    tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], content: bytes, message: str
) -> None:
    """Otherwise one broken download would block the project until the user finds the cache folder."""
    write(tiny, train_images_idx3_ubyte=content)
    write(tmp_path / "debian")
    assert is_tiny(datasets.load(FULL))
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"ddpm-duet: removing a bad file from the cache: {tiny / NAMES[0]}.gz {message}")
    assert not (tiny / f"{NAMES[0]}.gz").exists()


def test_the_cache_follows_its_environment_variable_and_else_the_platform(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Otherwise a classroom could not share one cache, or downloads would land in the repository."""
    monkeypatch.setenv("DDPM_DUET_CACHE", str(tmp_path))
    assert files.cache_dir(FULL) == tmp_path / FULL
    monkeypatch.setenv("DDPM_DUET_CACHE", "")
    assert files.cache_dir(FULL) == Path(files.platformdirs.user_cache_dir("ddpm-duet")) / FULL


# --- Downloads ----------------------------------------------------------------------------------------------


class Handler(http.server.BaseHTTPRequestHandler):
    """Mirrors on 127.0.0.1: the first part of the path says how one behaves."""

    def __init__(self, requests: list[str], *args: object) -> None:
        self.requests = requests
        super().__init__(*args)  # type: ignore[arg-type]

    def do_GET(self) -> None:  # noqa: D102
        self.requests.append(self.path)
        _, mirror, name = self.path.split("/")
        packed = gzip.compress(PAYLOADS[name.removesuffix(".gz")], mtime=0)
        if mirror == "missing":
            self.send_error(404)
            return
        cut = mirror == "cut" or (mirror == "cut-once" and self.requests.count(self.path) == 1)
        body = {"garbage": b"<html>Please log in", "short": packed[:-9]}.get(mirror, packed)
        self.send_response(200)
        if mirror != "short":  # without a length, only the gzip checks can tell that it was cut
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)

    def log_message(self, *args: object) -> None:  # noqa: D102
        pass


@pytest.fixture
def mirrors(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[str]]]:
    """A function that sets the mirrors to the named behaviours and returns the log of their requests."""
    requests: list[str] = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, requests))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()

    def use(*behaviours: str) -> list[str]:
        root = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(fashion_mnist, "MIRRORS", tuple(f"{root}/{behaviour}/" for behaviour in behaviours))
        return requests

    yield use
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_download_fills_the_cache_and_the_next_run_needs_no_network(
    tiny: Path, mirrors: Callable[..., list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    """Otherwise every run would download 30 MB."""
    requests = mirrors("good")
    assert is_tiny(datasets.load(FULL))
    assert requests == [f"/good/{name}.gz" for name in NAMES]
    assert listed(tiny) == sorted(f"{name}.gz" for name in NAMES)
    assert f"ddpm-duet: downloading {fashion_mnist.MIRRORS[0]}{NAMES[0]}.gz" in capfd.readouterr().err
    mirrors()
    assert is_tiny(datasets.load(FULL))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("first", ["missing", "garbage", "cut", "short"])
def test_the_second_mirror_serves_what_the_first_does_not(
    tiny: Path, mirrors: Callable[..., list[str]], first: str
) -> None:
    """Otherwise one server that is down, sends a log-in page or drops connections would stop everybody."""
    requests = mirrors(first, "good")
    assert is_tiny(datasets.load("auto"))
    assert requests.count(f"/good/{NAMES[0]}.gz") == 1
    assert requests.count(f"/{first}/{NAMES[0]}.gz") == (1 if first == "missing" else download.ATTEMPTS)
    assert listed(tiny) == sorted(f"{name}.gz" for name in NAMES)


def test_a_transfer_that_broke_off_is_tried_again_at_the_same_mirror(
    tiny: Path, mirrors: Callable[..., list[str]]
) -> None:
    """Otherwise a hiccup of the network would need a second run by hand."""
    requests = mirrors("cut-once")
    assert is_tiny(datasets.load(FULL))
    assert requests == [f"/cut-once/{name}.gz" for name in NAMES for _ in range(2)]


def test_when_all_mirrors_fail_one_error_names_each_and_the_three_ways_out(
    tiny: Path, mirrors: Callable[..., list[str]]
) -> None:
    """Otherwise a learner on a train would not know of the embedded set, and a bad file might stay."""
    mirrors("missing", "garbage", "cut", "short")
    fashion_mnist.MIRRORS += ("http://127.0.0.1:1/closed/",)  # undone with the rest by the fixture
    with pytest.raises(UserError) as caught:
        datasets.load(FULL)
    message = str(caught.value)
    reasons = [
        "127.0.0.1:1: ConnectionError",
        ": 404",
        "Not a gzipped file",
        "the transfer breaks off",
        "breaks off after",
    ]
    ways_out = [
        "connect and run again",
        f"put the four files in --data-dir or in {tiny}",
        "apt-get install dataset-fashion-mnist",
        "--dataset fashion-mnist-10k",
    ]
    assert [part for part in reasons + ways_out if part not in message] == []
    assert "\n" not in message
    assert listed(tiny) == []


def test_files_already_in_the_cache_are_not_fetched_again(
    tiny: Path, mirrors: Callable[..., list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    """Otherwise a download that was interrupted would begin at zero, or a bad file would survive it."""
    write(tiny, t10k_images_idx3_ubyte=b"bad")
    requests = mirrors("good")
    assert is_tiny(datasets.load(FULL))
    assert requests == [f"/good/{NAMES[2]}.gz"]
    assert is_tiny(datasets.load(FULL))
    assert capfd.readouterr().err.count("removing a bad file") == 1


@pytest.mark.parametrize(
    ("failure", "raised", "message"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt, None),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            UserError,
            "No space left on device.*DDPM_DUET_CACHE",
        ),
    ],
    ids=["Ctrl-C", "full disk"],
)
def test_a_download_that_is_stopped_leaves_nothing_in_the_cache(
    tiny: Path,
    mirrors: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
    failure: BaseException,
    raised: type[BaseException],
    message: str | None,
) -> None:
    """Otherwise half a file would be found by the next run, or fill the disk."""
    mirrors("good")
    sent = transfer._chunks

    def stopped(address: str, most: int) -> Iterator[bytes]:
        yield next(sent(address, most))[:20]
        assert [path.stat().st_size for path in tiny.glob("download-*/*")] == [0], "it is on its way, in a buffer"
        raise failure

    monkeypatch.setattr(transfer, "_chunks", stopped)
    with pytest.raises(raised, match=message):
        datasets.load(FULL)
    assert listed(tiny) == []


def test_a_cache_that_cannot_be_written_is_a_user_error_and_auto_goes_on(
    tiny: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Otherwise a read-only home folder would end in a traceback."""
    tiny.parent.write_text("a file where the folder should be")
    with pytest.raises(UserError, match=r"cannot write to the cache folder .* set DDPM_DUET_CACHE"):
        datasets.load(FULL)
    assert datasets.load("auto")[0].name == EMBEDDED
    assert "cannot write to the cache folder" in capfd.readouterr().err


# --- Names and the embedded set -----------------------------------------------------------------------------


def test_an_unknown_name_lists_the_allowed_ones() -> None:
    """Otherwise a typing error would send the user to the source."""
    with pytest.raises(UserError, match="unknown dataset 'mnst': choose one of auto, fashion-mnist, fashion-mnist-10k"):
        datasets.load("mnst")


def test_the_names_a_user_may_give_are_those_in_the_registry() -> None:
    """Otherwise `--dataset` lists a set that does not load, or hides one that does."""
    assert get_args(Dataset) == datasets.NAMES


def test_a_source_is_what_its_splits_are(embedded: tuple[Split, Split]) -> None:
    """Otherwise a network is built for other images, or a class gets another's name."""
    source = datasets.DATASETS[EMBEDDED]
    for split in embedded:
        assert split.images.shape[1:] == source.shape
        assert split.class_names == source.class_names == fashion_mnist.CLASS_NAMES
        assert split.labels.max() == len(source.class_names) - 1


def test_auto_without_the_full_set_takes_the_embedded_one_and_says_so_in_one_line(
    tiny: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Otherwise results on a sixth of the data would be taken for results on all of it."""
    assert [split.name for split in datasets.load("auto")] == [EMBEDDED, EMBEDDED]
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("ddpm-duet: WARNING: USING fashion-mnist-10k, 10,000 training images instead of 60,000")
    assert "no copy of Fashion-MNIST on this machine" in lines[0]
    assert "connect and run again, or put the four files in --data-dir or in" in lines[0]


def test_auto_goes_on_when_debians_copy_is_damaged_and_names_it(
    tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Otherwise a learner who named no folder would be stopped by one only an administrator can mend."""
    debian = write(tmp_path / "debian", train_images_idx3_ubyte=b"bad")
    assert datasets.load("auto")[0].name == EMBEDDED
    assert f"instead of 60,000: {debian / NAMES[0]}.gz is damaged" in capfd.readouterr().err


def test_a_damaged_package_says_install_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Otherwise the one set that needs no network could be wrong without a word."""
    monkeypatch.setattr(packaged.resources, "files", lambda package: tmp_path)
    with pytest.raises(UserError, match=r"does not hold the 4 files .* install ddpm-duet again"):
        datasets.load(EMBEDDED)
    (tmp_path / "embedded").mkdir()
    for path in COMMITTED.glob("*.xz"):
        (tmp_path / "embedded" / path.name).write_bytes(path.read_bytes()[:-50])
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte.xz breaks off .* install ddpm-duet again"):
        datasets.load(EMBEDDED)


@pytest.fixture(scope="module")
def embedded() -> tuple[Split, Split]:
    return datasets.load(EMBEDDED)


@pytest.fixture(scope="module")
def full() -> tuple[Split, Split]:
    if not DEBIAN.is_dir():
        pytest.skip("the full set is not installed: apt-get install dataset-fashion-mnist")
    return datasets.load(FULL, str(DEBIAN))


@pytest.fixture(scope="module")
def builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("embed_fashion_mnist", BUILDER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_embedded_set_is_balanced_and_in_the_promised_shape(embedded: tuple[Split, Split]) -> None:
    """Otherwise a model trained on it would prefer a class."""
    for split, which, per_class in zip(embedded, ("train", "test"), (1000, 200), strict=True):
        assert (split.name, split.split) == (EMBEDDED, which)
        assert split.images.shape == (10 * per_class, 28, 28, 1)
        assert split.images.dtype == split.labels.dtype == np.uint8
        assert split.images.max() == 255
        assert np.bincount(split.labels).tolist() == [per_class] * 10
        header = struct.pack(">4B3I", 0, 0, 8, 3, *split.images.shape[:3])
        assert hashlib.sha256(header + split.images.tobytes()).hexdigest() == split.sha256
    assert len(fashion_mnist.CLASS_NAMES) == 10


def test_the_embedded_set_is_small_and_carries_its_license() -> None:
    """Otherwise every clone and every wheel would grow, or break the terms it is passed on under."""
    of_fashion = [path for path in COMMITTED.iterdir() if path.is_file()]
    assert sorted(path.name for path in of_fashion) == ["NOTICE", *sorted(f"{name}.xz" for name in NAMES)]
    assert sum(path.stat().st_size for path in of_fashion) <= 6_000_000
    notice = (COMMITTED / "NOTICE").read_text()
    assert "MIT" in notice
    assert "Copyright (c) 2017 Zalando SE" in notice


def test_the_full_set_has_its_published_numbers(full: tuple[Split, Split]) -> None:
    """Otherwise training and test data might have changed places: their hashes alone would not tell."""
    for split, which, per_class in zip(full, ("train", "test"), (6000, 1000), strict=True):
        assert (split.name, split.split) == (FULL, which)
        assert split.images.shape == (10 * per_class, 28, 28, 1)
        assert np.bincount(split.labels).tolist() == [per_class] * 10
    assert full[0].labels[:4].tolist() == [
        9,
        0,
        0,
        3,
    ]  # the first row of every tutorial: a boot, two tops, a dress


def test_the_embedded_images_are_the_full_sets_own_each_once_train_from_train_and_test_from_test(
    embedded: tuple[Split, Split], full: tuple[Split, Split], builder: ModuleType
) -> None:
    """Otherwise a test image might have been trained on, or a picture been changed or counted twice."""
    for part, whole in zip(embedded, full, strict=True):
        chosen = builder.choose(whole.split, whole.labels)
        assert part.split == whole.split
        assert len(chosen) < len(whole.labels)
        assert (np.diff(chosen) > 0).all(), "ascending and no index twice"
        np.testing.assert_array_equal(part.images, whole.images[chosen])
        np.testing.assert_array_equal(part.labels, whole.labels[chosen])


def test_the_builder_writes_the_committed_files(
    full: tuple[Split, Split], builder: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Otherwise nobody could say where the embedded bytes come from."""
    builder.main(data_dir=str(DEBIAN), out=tmp_path)
    output = capsys.readouterr().out
    for file in fashion_mnist.FILES[EMBEDDED]:
        built, committed = tmp_path / f"{file.name}.xz", COMMITTED / f"{file.name}.xz"
        assert built.read_bytes() == committed.read_bytes(), "same pixels in other bytes would be another liblzma"
        assert f"{built.name}  {committed.stat().st_size} bytes  payload sha256 {file.sha256}" in output


# --- The command line ---------------------------------------------------------------------------------------


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "ddpm_shared.datasets", *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def test_the_command_lists_the_files_and_exits_with_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise `make data` would not show what was found where."""
    monkeypatch.setenv("DDPM_DUET_CACHE", str(tmp_path))
    done = command("--dataset", EMBEDDED, "--out", str(tmp_path / "sheet.png"))
    assert done.returncode == 0
    assert done.stdout.startswith("fashion-mnist-10k: 10000 training and 2000 test images, verified\n")
    for file in fashion_mnist.FILES[EMBEDDED]:
        assert f"{file.name}.xz\n" in done.stdout
        assert file.sha256 in done.stdout


def test_the_command_ends_a_user_error_with_one_line_and_status_two(tmp_path: Path) -> None:
    """Otherwise a wrong folder would greet a beginner with a traceback, or a script go on without data."""
    done = command("--data-dir", str(tmp_path / "absent"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: --data-dir")
    assert done.stderr.count("\n") == 1
