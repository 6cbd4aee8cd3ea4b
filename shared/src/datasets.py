"""Fashion-MNIST as uint8 arrays: locate, download, verify, parse.

    train, test = load("auto")          # images [N, 28, 28, 1] uint8, labels [N] uint8

Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747) is four IDX files. Wherever a file comes from, it is used
only when its decompressed bytes have the SHA-256 in FILES, so two runs of one name saw the same pixels. The
places are tried in this order: --data-dir, the user's cache folder, Debian's package, the mirrors on the web.
A sixth of it, fashion-mnist-10k, is inside this package and needs no network.

`python -m ddpm_shared.datasets` fetches, verifies and lists the files.
"""

import contextlib
import gzip
import hashlib
import lzma
import math
import os
import struct
import sys
import tempfile
import zlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import NamedTuple, get_args
from urllib.parse import urlsplit

import numpy as np
import platformdirs
import tyro
from numpy.typing import NDArray

from ddpm_shared.config import Dataset
from ddpm_shared.errors import UserError, choice

FULL, EMBEDDED = "fashion-mnist", "fashion-mnist-10k"
DATASETS = get_args(Dataset)
CLASS_NAMES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)

DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # apt-get install dataset-fashion-mnist
MIRRORS = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",  # official; the hash makes up for http
    "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
    "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
)
ATTEMPTS = 2  # at a mirror that has begun to send
TIMEOUT = (10, 30)  # seconds to connect, seconds of silence


class IdxFile(NamedTuple):
    """What one file must hold; `sha256` is of its decompressed bytes, header included."""

    name: str
    shape: tuple[int, ...]
    sha256: str


def _files(num_train: int, num_test: int, *hashes: str) -> tuple[IdxFile, ...]:
    return (
        IdxFile("train-images-idx3-ubyte", (num_train, 28, 28), hashes[0]),
        IdxFile("train-labels-idx1-ubyte", (num_train,), hashes[1]),
        IdxFile("t10k-images-idx3-ubyte", (num_test, 28, 28), hashes[2]),
        IdxFile("t10k-labels-idx1-ubyte", (num_test,), hashes[3]),
    )


FILES = {
    FULL: _files(
        60_000,
        10_000,
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
    EMBEDDED: _files(  # printed by shared/tools/embed_fashion_mnist.py
        10_000,
        2_000,
        "a0ee0c465e5db7116af73cfee623f6469b184c101b7c673b49da8f58c04c7dcf",
        "c9680bb3da9d0f14e28173c0ec374d65cc10b5aefce722dac8e9e39107fa2ace",
        "23afb44fa7e68345dc170691cd5915c4779c4f5b9f8ae734a8e67adbb4a181d7",
        "86ad12197ec84f51604677a8c6b8b3f7afe1505e289c98ac382984e289b610e6",
    ),
}


@dataclass(frozen=True)
class Split:
    """One split in memory."""

    name: str  # "fashion-mnist" or "fashion-mnist-10k"
    split: str  # "train" or "test"
    images: NDArray[np.uint8]  # [N, 28, 28, 1], 0 is background
    labels: NDArray[np.uint8]  # [N], indices into CLASS_NAMES
    sha256: str  # of the decompressed images file

    @property
    def record(self) -> dict[str, str | int]:
        """What JSON files say of it."""
        return {"name": self.name, "split": self.split, "num_images": len(self.images), "sha256": self.sha256}


class Found(NamedTuple):
    """One verified file: where it is and what it holds."""

    path: Path
    array: NDArray[np.uint8]


class _BadFileError(ValueError):
    """What is wrong with a file; where it lies decides what to do about it."""


# --- What a file holds --------------------------------------------------------------------------------------


def read_idx(
    path: str | Path,
    shape: tuple[int, ...] | None = None,
    sha256: str | None = None,
    way_out: str = "replace it with a fresh copy",
) -> NDArray[np.uint8]:
    """Read an IDX file: 00 00 08, the number of dimensions, every size as big-endian uint32, then the bytes.

    The checks run from the outside in: compression, magic, shape, length, hash.

    Args:
        path: the file; decompressed when its name ends in .gz or .xz.
        shape: the expected shape; None takes the header's word.
        sha256: the expected hash of the decompressed file, in hexadecimal; None takes any.
        way_out: what to tell the user to do about a bad file.

    Returns:
        A new array in the header's shape, uint8.

    Raises:
        UserError: a missing, damaged or different file: its path, what was found and what was expected.
    """
    try:
        return _parse(Path(path), shape, sha256)
    except _BadFileError as bad:
        raise UserError(f"{path} {bad}: {way_out}") from None


def _parse(path: Path, shape: tuple[int, ...] | None, sha256: str | None) -> NDArray[np.uint8]:
    data = _decompress(path)

    dimensions = data[3] if len(data) > 3 else 0
    if data[:3] != b"\0\0\x08" or (shape is not None and dimensions != len(shape)):
        wanted = "and the number of dimensions" if shape is None else f"{len(shape):02x}"
        found = data[:4].hex(" ") or "nothing"
        raise _BadFileError(f"starts with {found}, expected 00 00 08 {wanted} (IDX of unsigned bytes)")

    header = 4 + 4 * dimensions
    if len(data) < header:
        raise _BadFileError(f"ends after {len(data)} bytes, expected the shape of an array there")
    sizes = struct.unpack(f">{dimensions}I", data[4:header])
    if shape is not None and sizes != shape:
        raise _BadFileError(f"has shape {list(sizes)}, expected {list(shape)}")

    length = len(data) - header
    if length != math.prod(sizes):
        raise _BadFileError(f"has {length} bytes after its header, expected {math.prod(sizes)} by its shape")

    digest = hashlib.sha256(data).hexdigest()
    if sha256 is not None and digest != sha256:
        raise _BadFileError(f"has other content: SHA-256 {digest} when decompressed, expected {sha256}")
    return np.frombuffer(data, np.uint8, offset=header).reshape(sizes).copy()  # torch wants writable memory


def _decompress(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _BadFileError(f"cannot be read ({error.strerror}), expected an IDX file") from None
    if not data:
        raise _BadFileError("is empty, expected an IDX file")
    try:
        if path.suffix == ".gz":
            return gzip.decompress(data)
        return lzma.decompress(data) if path.suffix == ".xz" else data
    except EOFError:
        raise _BadFileError(f"breaks off after {len(data)} bytes, expected a complete .gz file") from None
    except (gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
        raise _BadFileError(f"is damaged ({error}), expected a sound {path.suffix} file") from None


# --- Where the files are ------------------------------------------------------------------------------------


def load(name: str, data_dir: str | None = None) -> tuple[Split, Split]:
    """The training and the test split of a data set.

    Args:
        name: "fashion-mnist" (60,000 and 10,000 images), "fashion-mnist-10k" (10,000 and 2,000, embedded), or
            "auto": the full set if it can be had, else the embedded one with a line on stderr.
        data_dir: the folder of the full set's four IDX files, .gz or unzipped; no other place is tried then.

    Returns:
        (train, test), images [N, 28, 28, 1] uint8 in 0 .. 255.

    Raises:
        UserError: an unknown name; a bad or missing file in data_dir; no good copy here and none to download.
    """
    name, found = fetch(name, data_dir)
    train_images, train_labels, test_images, test_labels = (file.array for file in found)
    return (
        Split(name, "train", train_images[..., None], train_labels, FILES[name][0].sha256),
        Split(name, "test", test_images[..., None], test_labels, FILES[name][2].sha256),
    )


def fetch(name: str, data_dir: str | None = None) -> tuple[str, list[Found]]:
    """Find, and if need be download, the verified files of a data set; arguments and errors as in `load`.

    Returns:
        The name of the data set, "auto" resolved, and its files in the order of FILES.
    """
    choice("dataset", name, DATASETS)
    if name == EMBEDDED:
        return EMBEDDED, _embedded()
    if data_dir is not None:  # the user said where: what is wrong there is an error, also under auto
        return FULL, _from_data_dir(os.path.expanduser(data_dir))
    try:
        return FULL, _full()
    except UserError as error:
        if name == FULL:
            raise UserError(f"{error}, or use --dataset {EMBEDDED}, which is in the package") from None
        _say(f"WARNING: USING {EMBEDDED}, 10,000 training images instead of 60,000: {error}")
    return EMBEDDED, _embedded()


def cache_dir() -> Path:
    """The folder of downloaded files: fashion-mnist under $DDPM_DUET_CACHE or the user's cache folder."""
    root = os.environ.get("DDPM_DUET_CACHE") or platformdirs.user_cache_dir("ddpm-duet")
    return Path(root).expanduser() / FULL


def _say(line: str) -> None:
    print(f"ddpm-duet: {line}", file=sys.stderr, flush=True)


def _find(folder: Path, file: IdxFile) -> Path | None:
    paths = (folder / (file.name + suffix) for suffix in (".gz", "", ".xz"))
    return next((path for path in paths if os.path.isfile(path)), None)


def _from_folder(folder: Path, way_out: str, name: str = FULL) -> list[Found] | None:
    """The files of a folder; None when one is missing, UserError when one is bad."""
    paths = [(file, path) for file in FILES[name] if (path := _find(folder, file))]
    if len(paths) < len(FILES[name]):
        return None
    return [Found(path, read_idx(path, file.shape, file.sha256, way_out)) for file, path in paths]


def _embedded() -> list[Found]:
    way_out = "the installed package is damaged, install ddpm-duet again"
    with resources.as_file(resources.files("ddpm_shared") / "embedded") as folder:
        found = _from_folder(folder, way_out, EMBEDDED)
    if found is None:
        raise UserError(f"{folder} does not hold the four files of {EMBEDDED}: {way_out}")
    return found


def _from_data_dir(data_dir: str) -> list[Found]:
    leave_out = "leave out --data-dir to have the data found or downloaded"
    if not os.path.isdir(data_dir):
        raise UserError(f"--data-dir {data_dir!r} is not a folder: name another, or {leave_out}")
    found = _from_folder(Path(data_dir), f"replace it with a fresh copy, or {leave_out}")
    if found is None:
        names = ", ".join(file.name for file in FILES[FULL] if not _find(Path(data_dir), file))
        raise UserError(f"--data-dir {data_dir!r} lacks {names} (.gz or unzipped): put it in, or {leave_out}")
    return found


def _full() -> list[Found]:
    """The cache, if it is complete and good; else Debian's folder; else the cache, filled from mirrors."""
    cache = cache_dir()
    cached = {}
    for file in FILES[FULL]:
        if path := _find(cache, file):
            try:
                cached[file] = Found(path, _parse(path, file.shape, file.sha256))
            except _BadFileError as bad:
                _say(f"removing a bad file from the cache: {path} {bad}")
                with contextlib.suppress(OSError):  # in somebody else's cache, it is only passed over
                    path.unlink()
    if len(cached) < len(FILES[FULL]):
        way_out = "run `apt-get install --reinstall dataset-fashion-mnist`, or name a good copy by --data-dir"
        if found := _from_folder(DEBIAN, way_out):
            return found
    return [cached.get(file) or _download(cache, file) for file in FILES[FULL]]


def _download(cache: Path, file: IdxFile) -> Found:
    """One file from the first mirror that has it; it gets its name in the cache after it was verified."""
    import pooch  # here, with what it imports: a fifth of a second that `--help` need not take
    import requests

    downloader = pooch.HTTPDownloader(progressbar=True, chunk_size=2**16, timeout=TIMEOUT)
    target = cache / f"{file.name}.gz"
    failures = []
    try:
        cache.mkdir(parents=True, exist_ok=True)
        # A folder of our own: no other run writes there, and it is removed on any exception, Ctrl-C included.
        with tempfile.TemporaryDirectory(prefix="download-", dir=cache) as temporary:
            part = Path(temporary) / target.name
            for mirror in MIRRORS:
                for _ in range(ATTEMPTS):
                    _say(f"downloading {mirror}{target.name}")
                    try:
                        downloader(mirror + target.name, str(part), None)
                        array = _parse(part, file.shape, file.sha256)
                        os.replace(part, target)
                        return Found(target, array)
                    except requests.RequestException as error:
                        reason = str(getattr(error.response, "status_code", type(error).__name__))
                        broke_off = isinstance(error, requests.exceptions.ChunkedEncodingError)
                    except _BadFileError as bad:
                        reason, broke_off = f"the file {bad}", True
                    failures.append(f"{urlsplit(mirror).netloc}: {reason}")
                    if not broke_off:
                        break  # no such machine or no such file: asking again will not help
    except OSError as error:  # a full disk, a folder that is not ours
        raise UserError(
            f"cannot write to the cache folder {cache} ({error.strerror}): make room there, or set "
            "DDPM_DUET_CACHE to another folder, or put the four files in --data-dir"
        ) from None
    tried = "; ".join(dict.fromkeys(failures))
    raise UserError(
        f"no copy of Fashion-MNIST on this machine and no download of {target.name} ({tried}): "
        f"connect and run again, or put the four files in --data-dir or in {cache} "
        "(Debian: apt-get install dataset-fashion-mnist)"
    )


def main(dataset: str = "auto", data_dir: str | None = None) -> int:
    """Fetch and verify a data set, and list its files.

    Args:
        dataset: auto, fashion-mnist or fashion-mnist-10k.
        data_dir: the folder of the full set's four IDX files, .gz or unzipped.
    """
    name, found = fetch(dataset, data_dir)
    print(f"{name}: {len(found[0].array)} training and {len(found[2].array)} test images, verified")
    for file, (path, array) in zip(FILES[name], found, strict=True):
        print(f"  {path}\n    {len(array)} {'images' if array.ndim == 3 else 'labels'}, sha256 {file.sha256}")
    return 0


if __name__ == "__main__":
    from ddpm_shared.command_line import guard

    guard(lambda: tyro.cli(main, prog="python -m ddpm_shared.datasets"))
