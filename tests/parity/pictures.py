"""Every kind of data set from its files to a batch: pixels, labels and flips, against pictures written out by hand.

The trees read the files by ddpm_shared.datasets, as a run does. The oracle never opens them by it: it knows what was
put into them, or reads them byte by byte. Pictures are of a few colours, no two of their rows, columns and channels
alike, and what stands beside the middle square, or under a transparent pixel, would be seen.
"""

import contextlib
import dataclasses
import hashlib
import io
import lzma
import os
import struct
import tempfile
import zlib
from collections.abc import Callable
from functools import partial
from importlib import resources
from pathlib import Path
from unittest import mock

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ddpm_parity.quantities import Arrays, Quantity, absolute
from ddpm_parity.sides import Side
from ddpm_parity.tolerances import EXACT
from ddpm_shared import batches, datasets, streams
from ddpm_shared.config import Config, DataConfig, FolderConfig, TrainingConfig
from ddpm_shared.datasets import Split, Verified
from ddpm_shared.datasets.idx import IdxFile

Pixels = NDArray[np.uint8]
Known = tuple[Pixels, list[int]]  # images [N, H, W, C] and their labels
Splits = tuple[Known, Known]  # to train and to test

SEED, FEW = 8, 24
RNG = np.random.default_rng(7)


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of data set: its files, how a run reads them, and what is in them."""

    name: str
    write: Callable[[Path], None]
    load: Callable[[Path], tuple[Split, Split]]
    known: Callable[[], Splits]


def _noise(*shape: int) -> Pixels:
    return RNG.integers(0, 256, size=shape, dtype=np.uint8)


def _nothing(folder: Path) -> None:
    """The files are in the package."""


# --- In the package: grey and colour ------------------------------------------------------------------------


def _packaged(name: str, folder: Path) -> tuple[Split, Split]:
    few = [dataclasses.replace(s, images=s.images[:FEW], labels=s.labels[:FEW]) for s in datasets.load(name)]
    return few[0], few[1]


def _bytes_of(place: str, shape: tuple[int, ...], dimensions: int) -> Splits:
    """The first images of an embedded set: bytes behind a header of 4 and of 4 for each dimension."""
    folder = resources.files("ddpm_shared").joinpath("embedded", place)

    def read(name: str, skip: int, count: int) -> bytes:
        with lzma.open(io.BytesIO(folder.joinpath(f"{name}.xz").read_bytes())) as file:
            return file.read(skip + count)[skip:]

    def split(name: str) -> Known:
        images = read(f"{name}-images-idx{dimensions}-ubyte", 4 + 4 * dimensions, FEW * int(np.prod(shape)))
        labels = read(f"{name}-labels-idx1-ubyte", 8, FEW)
        return np.frombuffer(images, np.uint8).reshape(FEW, *shape), list(labels)

    return split("train"), split("t10k")


# --- Published sets, in the layout of their files -----------------------------------------------------------

LETTERS: Known = (_noise(4, 28, 28, 1), [0, 25, 3, 0])
PHOTOGRAPHS: Known = (_noise(4, 32, 32, 3), [9, 0, 4, 99])
COARSE = (3, 1, 19, 0)  # labels, of which nothing is seen


def _rows(name: str, rows: list[bytes], folder: Path) -> tuple[Split, Split]:
    """The splits of rows of bytes, of which all are to train, or to test where there are too few for both."""
    array = np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), -1)
    file = IdxFile(name, array.shape, "")
    splits = datasets.DATASETS[name].splits([Verified(folder, file, array)])
    (split,) = (split for split in splits if len(split.images))
    return split, split


def _of_emnist(name: str, first_label: int) -> list[bytes]:
    """Label by label from first_label on; column by column, the leftmost first."""
    columns = [bytes(int(image[row, column, 0]) for column in range(28) for row in range(28)) for image in LETTERS[0]]
    return [bytes([label + first_label]) + each for label, each in zip(LETTERS[1], columns, strict=True)]


def _of_cifar(coarse: bool) -> list[bytes]:
    """All red bytes of an image, row by row, then all green and all blue ones."""
    planes = [b"".join(image[:, :, colour].tobytes() for colour in range(3)) for image in PHOTOGRAPHS[0]]
    labels = [bytes([c, fine] if coarse else [fine]) for c, fine in zip(COARSE, PHOTOGRAPHS[1], strict=True)]
    return [label + each for label, each in zip(labels, planes, strict=True)]


# --- The user's own four files ------------------------------------------------------------------------------

OWN = {1: ((_noise(5, 6, 6, 1), [0, 2, 1, 0, 2]), (_noise(2, 6, 6, 1), [1, 0]))}
OWN[3] = ((_noise(5, 6, 6, 3), OWN[1][0][1]), (_noise(2, 6, 6, 3), OWN[1][1][1]))


def _write_idx(channels: int, folder: Path) -> None:
    for name, (images, labels) in zip(("train", "t10k"), OWN[channels], strict=True):
        shape = images.shape if channels == 3 else images.shape[:3]
        header = struct.pack(f">4B{len(shape)}I", 0, 0, 8, len(shape), *shape)
        (folder / f"{name}-images-idx{len(shape)}-ubyte").write_bytes(header + images.tobytes())
        header = struct.pack(">4BI", 0, 0, 8, 1, len(labels))
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(header + bytes(labels))


# --- A folder of pictures -----------------------------------------------------------------------------------

SIZE, SIDE, TEST_SHARE = 8, 16, 0.3  # of the images, and of the middle squares of the pictures
RGB, PALETTE, GREY, RGBA = 2, 3, 0, 6  # PNG's colour types
QUADRANTS = ((200, 40, 10), (30, 180, 64), (20, 50, 220), (251, 220, 40))  # top left, top right, below the same
GREYS = ((10, 10, 10), (90, 90, 90), (170, 170, 170), (250, 250, 250))
FAINT = ((254, 204, 224), (255, 255, 255), (30, 180, 64), (255, 255, 255))  # what _alpha() looks like on white


def _png(colour_type: int, pixels: NDArray[np.integer], depth: int = 8, **chunks: bytes) -> bytes:
    """A PNG file of pixels [H, W, samples] with more chunks before those of its pixels."""
    rows = pixels.astype(">u2" if depth == 16 else np.uint8)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)  # 0: no filter
    header = struct.pack(">2I5B", pixels.shape[1], pixels.shape[0], depth, colour_type, 0, 0, 0)
    parts = [(b"IHDR", header), *((name.encode(), data) for name, data in chunks.items())]
    parts += [(b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    of_4 = struct.Struct(">I").pack
    chunked = (of_4(len(data)) + name + data + of_4(zlib.crc32(name + data)) for name, data in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunked)


def _quarters(colours: tuple[tuple[int, ...], ...], side: int) -> NDArray[np.int64]:
    """[side, side, samples]: a colour in each quarter."""
    rows = np.array(colours).reshape(2, 2, -1)
    return rows.repeat(side // 2, axis=0).repeat(side // 2, axis=1)


def _grain() -> NDArray[np.int64]:
    """QUADRANTS in squares of 2 x 2 that are half a level darker on average, which is rounded up."""
    grain = np.tile([[-3, 2], [-5, 4]], (SIDE // 2, SIDE // 2))[..., None]
    return _quarters(QUADRANTS, SIDE) + grain


def _wide() -> NDArray[np.int64]:
    """Twice as wide as high; the middle square is QUADRANTS."""
    return np.pad(_quarters(QUADRANTS, SIDE), ((0, 0), (SIDE // 2, SIDE // 2), (0, 0)), constant_values=77)


def _alpha() -> NDArray[np.int64]:
    """A fifth of a colour; nothing, of two colours that are not to be seen; and a whole colour."""
    return _quarters(((250, 0, 100, 51), (90, 0, 0, 0), (30, 180, 64, 255), (0, 0, 255, 0)), SIDE)


def _turned() -> NDArray[np.int64]:
    """As a camera saves it that was held on its side: its first row is the right edge, its first column the top."""
    upright = _quarters(QUADRANTS, SIDE)
    return np.array([[upright[j, SIDE - 1 - i] for j in range(SIDE)] for i in range(SIDE)])


def _exif(orientation: int) -> bytes:
    """EXIF of one entry: tag 274, of type 3 (16 bits), one value."""
    return b"MM\0*" + struct.pack(">I", 8) + struct.pack(">3HI2HI", 1, 274, 3, 1, orientation, 0, 0)


def _cmyk() -> bytes:
    """A JPEG whose blocks of 8 x 8 are each of one value, which loses nothing: cyan, magenta and yellow, no black."""
    inks = 255 - _quarters(QUADRANTS, SIDE)
    pixels = np.concatenate([inks, np.zeros_like(inks[..., :1])], axis=-1).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels, "CMYK").save(buffer, "JPEG", quality=100, subsampling=0)
    return buffer.getvalue()


def _files() -> dict[str, tuple[bytes, tuple[tuple[int, ...], ...]]]:
    """Path -> the file, and the colours of the quarters of its image."""
    index = _quarters(((0,), (1,), (2,), (3,)), SIDE)
    palette = bytes(value for colour in QUADRANTS for value in colour)
    return {
        "cats/grain.png": (_png(RGB, _grain()), QUADRANTS),
        "cats/wide.png": (_png(RGB, _wide()), QUADRANTS),
        "cats/high.png": (_png(RGB, _wide().swapaxes(0, 1)), tuple(QUADRANTS[i] for i in (0, 2, 1, 3))),
        "cats/alpha.png": (_png(RGBA, _alpha()), FAINT),
        "cats/turned.png": (_png(RGB, _turned(), eXIf=_exif(6)), QUADRANTS),
        "dogs/deep.png": (_png(GREY, _quarters(GREYS, SIDE)[..., :1] * 257, depth=16), GREYS),
        "dogs/palette.png": (_png(PALETTE, index, PLTE=palette), QUADRANTS),
        "dogs/grey.png": (_png(GREY, _quarters(GREYS, SIDE)[..., :1]), GREYS),
        "dogs/small/ink.jpg": (_cmyk(), QUADRANTS),
    }


def _write_folder(folder: Path) -> None:
    for name, (content, _) in _files().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def _known_folder(grey: bool) -> Splits:
    """By the hashes of the paths: the lowest are to test."""
    hashes = {name: hashlib.sha256(name.encode()).digest() for name in _files()}
    names = sorted(hashes, key=hashes.__getitem__)
    tested = sum(int.from_bytes(hashes[name]) < TEST_SHARE * 2**256 for name in names)

    def image(name: str) -> NDArray[np.int64]:
        pixels = _quarters(_files()[name][1], SIZE)
        return np.floor(pixels @ [[0.299], [0.587], [0.114]] + 0.5).astype(np.int64) if grey else pixels

    def split(names: list[str]) -> Known:
        return np.array([image(name) for name in names], np.uint8), [int(name.startswith("dogs")) for name in names]

    return split(names[tested:]), split(names[:tested])


def _own(name: str, config: FolderConfig | None, folder: Path) -> tuple[Split, Split]:
    return datasets.load(name, str(folder), config)


# --- The quantity -------------------------------------------------------------------------------------------

KINDS = [
    Kind("grey", _nothing, partial(_packaged, "fashion-mnist-10k"), partial(_bytes_of, "", (28, 28, 1), 3)),
    Kind("colour", _nothing, partial(_packaged, "emoji"), partial(_bytes_of, "emoji", (32, 32, 3), 4)),
    *(
        Kind(name, _nothing, partial(_rows, name, _of_emnist(name, first)), lambda: (LETTERS, LETTERS))
        for name, first in (("emnist-letters", 1), ("emnist-balanced", 0))
    ),
    *(
        Kind(name, _nothing, partial(_rows, name, _of_cifar(coarse)), lambda: (PHOTOGRAPHS, PHOTOGRAPHS))
        for name, coarse in (("cifar10", False), ("cifar100", True))
    ),
    *(
        Kind(f"idx in {name}", partial(_write_idx, count), partial(_own, "idx", None), partial(OWN.__getitem__, count))
        for name, count in (("grey", 1), ("colour", 3))
    ),
    *(
        Kind(f"folder in {name}", _write_folder, partial(_own, "folder", config), partial(_known_folder, grey))
        for name, grey, config in (
            ("colour", False, FolderConfig(image_size=SIZE, test_share=TEST_SHARE)),
            ("grey", True, FolderConfig(image_size=SIZE, test_share=TEST_SHARE, channels="grey")),
        )
    ),
]


def _loaded(kind: Kind) -> tuple[Split, Split]:
    """The splits of its files, which are written anew, so that nothing of them is cached."""
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.dict(os.environ, DDPM_DUET_CACHE=os.path.join(folder, "cache")),
        contextlib.redirect_stderr(io.StringIO()),  # the progress bar
    ):
        place = Path(folder, "files")
        place.mkdir()
        kind.write(place)
        return kind.load(place)


def _batches(side: Side, kind: Kind) -> Arrays:
    """Two batches of all images of each split, in the order and with the flips of the seed."""
    arrays: dict[str, NDArray[np.generic]] = {}
    if side.name == "oracle":
        for name, (images, labels) in zip(("train", "test"), kind.known(), strict=True):
            for step in (0, 1):
                order = streams.batch_indices(SEED, step, len(images), len(images))
                flips = streams.flips(SEED, step, len(images))
                shown = [np.fliplr(images[i]) if flip else images[i] for i, flip in zip(order, flips, strict=True)]
                x_0, _, _ = side.batch((np.array(shown), order, np.empty(0)))
                arrays |= {f"{name} {step}: x_0": x_0, f"{name} {step}: labels": np.array([labels[i] for i in order])}
        return arrays
    for name, split in zip(("train", "test"), _loaded(kind), strict=True):
        training = TrainingConfig(batch_size=len(split.images))
        config = Config(seed=SEED, data=DataConfig(horizontal_flip=True), training=training)
        for step in (0, 1):
            batch = batches.training_batch(split, config, step)
            x_0, _, _ = side.batch(batch.arrays)
            arrays[f"{name} {step}: x_0"] = side.array(x_0)
            arrays[f"{name} {step}: labels"] = side.array(side.labels(batch.labels))
    return arrays


QUANTITIES = [
    Quantity("data", f"pixels, flips and labels of {kind.name}", partial(_batches, kind=kind), EXACT, absolute)
    for kind in KINDS
]
