"""The published data sets: each family's files in their real layout, with a few images, by download and by folder.

No test has the real files, which cannot be downloaded here; their hashes come from public sources (docs/datasets.md).
"""

import functools
import gzip
import hashlib
import http.server
import io
import struct
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from ddpm_shared import datasets
from ddpm_shared.config import Dataset, FolderConfig
from ddpm_shared.datasets import archives, cifar, emnist, mnist
from ddpm_shared.datasets.idx import IdxFile
from ddpm_shared.datasets.verified import BadFileError
from ddpm_shared.errors import UserError

RNG = np.random.default_rng(0)


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


# --- The registry -------------------------------------------------------------------------------------------


def test_every_set_has_its_facts_and_as_many_names_as_classes() -> None:
    """Otherwise a passport has holes, or a class is drawn under another's name."""
    classes = {"mnist": 10, "kmnist": 10, "emnist-letters": 26, "emnist-balanced": 47, "cifar10": 10, "cifar100": 100}
    for name, number in classes.items():
        source = datasets.DATASETS[name]
        assert source.name == name
        assert len(set(source.class_names)) == number
        assert all([*source.facts[:4]])
    assert list(cifar.CLASS_NAMES["cifar100"]) == sorted(cifar.CLASS_NAMES["cifar100"]), "the files have them so"
    assert datasets.DATASETS["emnist-balanced"].class_names[9:12] == ("9", "A", "B")
    assert set(datasets.NAMES) <= set(get_args(Dataset))


def test_photographs_are_flipped_and_letters_are_not() -> None:
    """Otherwise a model learns mirrored letters, or from half as many photographs as it could."""
    assert {name for name in datasets.NAMES if datasets.flips(name)} >= {"cifar10", "cifar100"}
    assert not any(datasets.flips(name) for name in datasets.NAMES if "mnist" in name or name == "idx")


def test_the_size_is_known_before_the_files_are_read() -> None:
    """Otherwise a network of another size is built, and refused after a download."""
    sizes = {name: datasets.image_size(name, FolderConfig()) for name in ("mnist", "emnist-letters", "cifar10", "idx")}
    assert sizes == {"mnist": 28, "emnist-letters": 28, "cifar10": 32, "idx": None}


# --- Each family, a few images of it ------------------------------------------------------------------------

# An F: no turn or mirror image of it is the same.
F = np.zeros((28, 28), np.uint8)
F[4:24, 8] = F[4, 8:20] = F[13, 8:16] = 255
SHADES = np.arange(1, 6, dtype=np.uint8) * 50
GLYPHS = F[None] // 255 * SHADES[:, None, None]  # five of them, 3 to train and 2 to test
LABELS = np.array([1, 26, 2, 3, 1], np.uint8)


def colours(number: int) -> np.ndarray:
    """Images [N, 32, 32, 3] with a red upper half, a green left edge, and noise in blue."""
    images = np.zeros((number, 32, 32, 3), np.uint8)
    images[:, :16, :, 0] = 200
    images[:, :, :4, 1] = 100
    images[..., 2] = RNG.integers(0, 256, images.shape[:3])
    return images


def records(images: np.ndarray, *labels: list[int]) -> bytes:
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    return np.column_stack([*(np.array(each, np.uint8) for each in labels), planes]).astype(np.uint8).tobytes()


TEN, HUNDRED = colours(14), colours(5)


def of_mnist(patch: pytest.MonkeyPatch, name: str, packed: bool) -> dict[str, bytes]:
    arrays = (GLYPHS[:3], LABELS[:3] % 10, GLYPHS[3:], LABELS[3:] % 10)
    names = [file.name for file in mnist.SETS[name].files]
    sent = {f"{file}.gz": gzip.compress(idx(array), mtime=0) for file, array in zip(names, arrays, strict=True)}
    hashes = [sha256(sent[f"{file}.gz"] if packed else gzip.decompress(sent[f"{file}.gz"])) for file in names]
    wanted = tuple(
        IdxFile(file, array.shape, digest, packed) for file, array, digest in zip(names, arrays, hashes, strict=True)
    )
    patch.setitem(mnist.SETS, name, mnist.SETS[name].__class__(**{**vars(mnist.SETS[name]), "files": wanted}))
    return sent


def of_emnist(patch: pytest.MonkeyPatch, name: str) -> dict[str, bytes]:
    stored = GLYPHS.transpose(0, 2, 1)
    labels = LABELS if name == "emnist-letters" else LABELS - 1
    members = {"gzip/emnist-mnist-mapping.txt": b"0 48\n"}
    for split, part in (("train", slice(0, 3)), ("test", slice(3, 5))):
        members[f"gzip/{name}-{split}-images-idx3-ubyte.gz"] = gzip.compress(idx(stored[part]))
        members[f"gzip/{name}-{split}-labels-idx1-ubyte.gz"] = gzip.compress(idx(labels[part]))
    archive = zipped(members)
    patch.setitem(emnist.NUMBERS, name, (3, 2))
    patch.setattr(emnist, "SHA256", sha256(archive))
    return {"gzip.zip": archive}


def of_cifar(patch: pytest.MonkeyPatch, name: str) -> dict[str, bytes]:
    if name == "cifar10":
        parts = {f"data_batch_{i + 1}": slice(2 * i, 2 * i + 2) for i in range(5)} | {"test_batch": slice(10, 14)}
        members = {
            f"cifar-10-batches-bin/{part}.bin": records(TEN[at], [i % 10 for i in range(14)][at])
            for part, at in parts.items()
        }
        order = list(members)
        archive = tarred({file: members[file] for file in [*order[2:], *order[:2]]})  # in another order
    else:
        members = {
            "cifar-100-binary/train.bin": records(HUNDRED[:3], [0, 1, 2], [99, 5, 6]),
            "cifar-100-binary/test.bin": records(HUNDRED[3:], [3, 4], [7, 0]),
        }
        archive = tarred({"cifar-100-binary/fine_label_names.txt": b"apple\n", **members})
    patch.setattr(cifar, "NUM_TEST", 4 if name == "cifar10" else 2)
    real, length = cifar.FILES[name], {"cifar10": 3073, "cifar100": 3074}[name]
    listed = tuple((file, len(content) // length, sha256(content)) for file, content in members.items())
    patch.setitem(cifar.FILES, name, cifar.CifarFile(real.name, len(archive), sha256(archive), real.num_labels, listed))
    return {real.name: archive}


def of(name: str, patch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The few images of a set as the mirrors would have them; the hashes in the code are changed to theirs."""
    if name in mnist.SETS:
        return of_mnist(patch, name, packed=name == "kmnist")
    return of_emnist(patch, name) if name.startswith("emnist") else of_cifar(patch, name)


SETS = ("mnist", "kmnist", "emnist-letters", "emnist-balanced", "cifar10", "cifar100")


def check(name: str, train: datasets.Split, test: datasets.Split) -> None:
    """The images upright and in their colours, the labels from 0."""
    assert [train.name, train.split, test.name, test.split] == [name, "train", name, "test"]
    for split in (train, test):
        assert split.images.dtype == split.labels.dtype == np.uint8
        assert split.images.flags.c_contiguous
        assert split.images.flags.writeable
        assert split.class_names == datasets.DATASETS[name].class_names
    assert train.sha256 != test.sha256
    if name == "cifar10":
        np.testing.assert_array_equal(np.concatenate([train.images, test.images]), TEN)
        assert [*train.labels, *test.labels] == [i % 10 for i in range(14)]
    elif name == "cifar100":
        np.testing.assert_array_equal(np.concatenate([train.images, test.images]), HUNDRED)
        assert [*train.labels, *test.labels] == [99, 5, 6, 7, 0], "the fine ones"
    else:
        np.testing.assert_array_equal(np.concatenate([train.images, test.images])[..., 0], GLYPHS)
        labels = LABELS % 10 if name in mnist.SETS else LABELS - 1
        np.testing.assert_array_equal([*train.labels, *test.labels], labels)


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, dict[str, bytes]], list[str]]]:
    """A function: a server on this machine has these files and is a set's only mirror; returns its log."""
    folder, asked = tmp_path / "mirror", []
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            asked.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("DDPM_DUET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def serve(name: str, sent: dict[str, bytes]) -> list[str]:
        for file, content in sent.items():
            (folder / file).write_bytes(content)
        here = (f"http://127.0.0.1:{server.server_port}/",)
        monkeypatch.setattr(emnist, "MIRRORS", here)
        monkeypatch.setattr(cifar, "MIRRORS", dict.fromkeys(cifar.MIRRORS, here))
        if name in mnist.SETS:
            wanted = mnist.SETS[name]
            monkeypatch.setitem(mnist.SETS, name, wanted.__class__(**{**vars(wanted), "mirrors": here}))
        return asked

    yield serve
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("name", SETS)
def test_a_set_is_downloaded_once_verified_and_read_as_it_is(
    name: str, mirror: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Otherwise letters lie on their side, photographs are blue, or every run downloads half a gigabyte."""
    sent = of(name, monkeypatch)
    asked = mirror(name, sent)
    check(name, *datasets.load(name))
    assert sorted(asked) == sorted(f"/{file}" for file in sent)
    check(name, *datasets.load(name))
    assert len(asked) == len(sent), "the second time, from the cache"
    assert "downloading http://127.0.0.1" in capfd.readouterr().err


@pytest.mark.parametrize("name", SETS)
def test_a_folder_with_the_mirrors_files_needs_no_network(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a class room without the internet has no data."""
    sent = of(name, monkeypatch)
    with pytest.raises(UserError, match=f"lacks .*{next(iter(sent)).split('.')[0]}.* put it in, or leave out --data-"):
        datasets.load(name, str(tmp_path))
    for file, content in sent.items():
        (tmp_path / file).write_bytes(content)
    check(name, *datasets.load(name, str(tmp_path)))
    file, content = max(sent.items(), key=lambda item: len(item[1]))
    (tmp_path / file).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(
        UserError, match=f"{file} (has other content: SHA-256|is damaged).*replace it with a fresh copy"
    ):
        datasets.load(name, str(tmp_path))


def test_mnist_may_be_unzipped_and_kmnist_whose_hash_is_of_the_gz_may_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a file is taken whose pixels nobody verified."""
    for name in ("mnist", "kmnist"):
        for file, content in of(name, monkeypatch).items():
            (tmp_path / file.removesuffix(".gz")).write_bytes(gzip.decompress(content))
    check("mnist", *datasets.load("mnist", str(tmp_path)))
    with pytest.raises(UserError, match=r"lacks .*train-images-idx3-ubyte.* \(\.gz, as the mirrors have them\)"):
        datasets.load("kmnist", str(tmp_path))


def test_the_hash_of_a_split_is_that_of_its_published_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise two that trained on the same pixels could not see that they did."""
    for name in ("mnist", "kmnist", "emnist-letters", "cifar100"):
        for file, content in of(name, monkeypatch).items():
            (tmp_path / file).write_bytes(content)
        train, test = datasets.load(name, str(tmp_path))
        stored = GLYPHS.transpose(0, 2, 1) if name == "emnist-letters" else GLYPHS
        contents = (idx(stored[:3]), idx(stored[3:]))
        if name == "cifar100":
            contents = (records(HUNDRED[:3], [0, 1, 2], [99, 5, 6]), records(HUNDRED[3:], [3, 4], [7, 0]))
        assert [train.sha256, test.sha256] == [sha256(content) for content in contents]


def test_other_content_of_a_member_is_refused_though_the_archive_is_the_right_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the hashes of the content that are published would be there for show."""
    sent = of("cifar100", monkeypatch)
    file = cifar.FILES["cifar100"]
    members = ((*file.members[0][:2], "0" * 64), file.members[1])
    monkeypatch.setitem(cifar.FILES, "cifar100", cifar.CifarFile(**{**vars(file), "members": members}))
    (tmp_path / file.name).write_bytes(sent[file.name])
    with pytest.raises(UserError, match=r"has other content in cifar-100-binary/train\.bin: SHA-256"):
        datasets.load("cifar100", str(tmp_path))


def test_an_archive_that_breaks_off_is_tried_again_and_leaves_nothing(
    mirror: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Otherwise half of an archive of 535 MB stays on the disk, once for each attempt."""
    sent = of("emnist-letters", monkeypatch)
    asked = mirror("emnist-letters", {name: content[:-100] for name, content in sent.items()})
    with pytest.raises(UserError, match=r"no copy of EMNIST .* put the archive gzip\.zip in --data-dir"):
        datasets.load("emnist-letters")
    assert asked == ["/gzip.zip"] * 2
    assert [path.name for path in (tmp_path / "cache/emnist").iterdir()] == [".lock"]


# --- Archives ------------------------------------------------------------------------------------------------


def members(path: Path, content: bytes, **sizes: int) -> dict[str, bytes]:
    path.write_bytes(content)
    return archives.members(path, sha256(content), sizes)


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_a_member_is_read_by_its_whole_name_and_nothing_is_written(
    pack: Callable[[dict[str, bytes]], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise an archive could put a file anywhere on the user's disk."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    content = pack({"../evil": b"x", "/tmp/evil": b"y", "x/a": b"no", "a": b"yes", "b": b"too"})
    assert members(tmp_path / "archive", content, a=3, b=3) == {"a": b"yes", "b": b"too"}
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["archive", "here"]


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_a_member_that_is_missing_or_too_large_is_named(
    pack: Callable[[dict[str, bytes]], bytes], tmp_path: Path
) -> None:
    """Otherwise a packed file of a kilobyte fills the memory."""
    content = pack({"a": bytes(10**6)})
    assert len(content) < 2000
    with pytest.raises(BadFileError, match="has 1,000,000 bytes in a, expected 1,000"):
        members(tmp_path / "archive", content, a=1000)
    with pytest.raises(BadFileError, match="lacks b, expected an archive with it"):
        members(tmp_path / "archive", content, b=10**6)


def test_what_is_beside_the_members_of_a_tar_is_not_unpacked_without_end(tmp_path: Path) -> None:
    """Otherwise a bomb is unpacked for hours, to be skipped."""
    with pytest.raises(BadFileError, match="would become larger than its images are"):
        members(tmp_path / "archive", tarred({"bomb": bytes(2**22), "a": b"x"}), a=1)


def test_a_link_in_a_tar_is_not_followed(tmp_path: Path) -> None:
    """Otherwise a member's content could be another file of the user's."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        entry = tarfile.TarInfo("a")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(entry)
    with pytest.raises(BadFileError, match="lacks a"):
        members(tmp_path / "archive", buffer.getvalue(), a=10**6)


def test_an_archive_with_another_hash_is_not_even_opened(tmp_path: Path) -> None:
    """Otherwise a hostile file is given to two libraries before it is refused."""
    path = tmp_path / "archive"
    path.write_bytes(b"anything")
    with pytest.raises(BadFileError, match=f"has other content: SHA-256 {sha256(b'anything')}, expected {'0' * 64}"):
        archives.members(path, "0" * 64, {"a": 1})
    with pytest.raises(BadFileError, match=r"is no regular file"):
        archives.members(tmp_path, "0" * 64, {"a": 1})
