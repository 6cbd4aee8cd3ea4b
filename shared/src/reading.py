"""Reading files that may be damaged, endless or somebody else's: limits before work, one sentence for every fault.

A reader asks `read_bytes` or `opened` for the content, which only a regular file of a sensible size has. It gives the
content to a library inside `refusing`, and any exception of that library becomes a UserError. The str() of a `way_out`
ends the message; it is made only when there is one.
"""

import contextlib
import gzip
import json
import lzma
import math
import os
import re
import stat
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import safetensors
from PIL import Image, UnidentifiedImageError

from ddpm_shared.errors import UserError

# What each library raises on a broken file. onnxruntime's kinds have only Exception in common: see
# evaluation/extractor.py.
BROKEN_BY: dict[str, tuple[type[Exception], ...]] = {
    "the system": (OSError, EOFError, MemoryError),
    "json": (ValueError, RecursionError, OverflowError),  # ValueError: UnicodeDecodeError and JSONDecodeError, too
    "NumPy": (ValueError, TypeError, SyntaxError, OverflowError, MemoryError, tokenize.TokenError, struct.error),
    "zipfile": (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, KeyError, IndexError, struct.error),
    "gzip, lzma": (gzip.BadGzipFile, zlib.error, lzma.LZMAError, MemoryError),
    "safetensors": (safetensors.SafetensorError,),
    "Pillow": (
        *(OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError),
        *(struct.error, zlib.error, Image.DecompressionBombError, Warning),  # warnings are errors in `refusing`
    ),
}
BROKEN = tuple(dict.fromkeys(kind for kinds in BROKEN_BY.values() for kind in kinds))

MIB = 2**20
JSON_AT_MOST = 512 * MIB  # a metrics.json of two million steps
DEEPEST = 32  # nested objects and arrays in JSON; our own files have at most 7
LONGEST_INTEGER = 40  # digits: a seed may have 128 bits, and nothing else comes near
SHOWN = 200  # characters of foreign text in a message


def one_line(text: object, at_most: int = SHOWN) -> str:
    """Foreign text as part of a message: one line of printable characters, cut after `at_most` of them."""
    text = str(text)[: 4 * at_most]
    line = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
    return line if len(line) <= at_most else line[:at_most] + "..."


def listed(names: Sequence[str], at_most: int = 5) -> str:
    """Foreign names as part of a message: the first few, and how many more there are."""
    more = f" and {len(names) - at_most} more" if len(names) > at_most else ""
    return ", ".join(one_line(name, 80) for name in names[:at_most]) + more


def name_of(path: object) -> str:
    """A path as part of a message: whole, and on one line."""
    return one_line(path, 4096)


@contextlib.contextmanager
def refusing(message: Callable[[str], str]) -> Iterator[None]:
    """Raise UserError(message(reason)) for whatever a library raises in the block, or warns of, on a broken file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    except UserError:
        raise
    except BROKEN as error:
        raise UserError(message(_reason(error))) from None


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, UnidentifiedImageError):  # its text names an object of ours and where that is in memory
        return "it begins as no such file does"
    if isinstance(error, KeyError):
        return one_line(f"it lacks {error}")
    text = error.args[0] if error.args and isinstance(error.args[0], str) else str(error)
    first = next((line for line in text.splitlines() if line.strip()), "")
    return one_line(first or type(error).__name__)


@contextlib.contextmanager
def opened(path: Path, way_out: object) -> Iterator[tuple[BinaryIO, int]]:
    """A regular file, open for reading, and its size in bytes.

    A pipe or a device is refused before it is opened, since it may wait for ever or never end.

    Raises:
        UserError: no such file, or none that can be read; also where reading fails within the block.
    """
    try:
        _require_regular(os.stat(path), path, way_out)
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            _require_regular(status, path, way_out)  # it may have been replaced in between
            yield file, status.st_size
    except FileNotFoundError:
        raise UserError(f"there is no {name_of(path)}: {way_out}") from None
    except UserError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        raise UserError(f"cannot read {name_of(path)} ({_reason(error)}): {way_out}") from None


def _require_regular(status: os.stat_result, path: Path, way_out: object) -> None:
    if not stat.S_ISREG(status.st_mode):
        what = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or a device"
        raise UserError(f"{name_of(path)} is {what}, not a file: {way_out}")


def read_bytes(path: Path, way_out: object, at_most: int) -> bytes:
    """The content of a regular file of `at_most` so many bytes.

    Raises:
        UserError: no such file, none that can be read, or a larger one; the message ends with the way out.
    """
    with opened(path, way_out) as (file, size):
        if size > at_most:
            raise UserError(f"{name_of(path)} has {size:,} bytes, and such a file has at most {at_most:,}: {way_out}")
        return file.read(size)


def memory() -> int:
    """Bytes of this machine's memory."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not on this system
        return 2**34


# --- JSON ---------------------------------------------------------------------------------------------------

# A text or a bracket. A text that is not closed ends with the file, or each of its quotes would be tried in turn.
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)


def read_json(path: Path, way_out: object, at_most: int = JSON_AT_MOST) -> Any:
    """The value in a JSON file.

    Raises:
        UserError: no such file, one that is too large, or not JSON as `parse_json` takes it.
    """
    return parse_json(read_bytes(path, way_out, at_most), str(path), way_out)


def parse_json(data: bytes | str, source: str, way_out: object) -> Any:
    """The value of a JSON text: UTF-8, finite numbers, no key twice, nested at most DEEPEST deep.

    Args:
        data: the text; a byte-order mark is allowed.
        source: begins the message.
        way_out: ends it.

    Raises:
        UserError: anything else.
    """
    with refusing(lambda reason: f"{name_of(source)} is not JSON with finite numbers: {reason}; {way_out}"):
        return json_value(data)


def json_value(data: bytes | str) -> Any:
    """The value of a JSON text as in `parse_json`. Raises one of BROKEN, for a reader that has its own message."""
    text = data.decode("utf-8-sig") if isinstance(data, bytes) else data.removeprefix("\ufeff")
    _require_shallow(text)
    return _DECODER.decode(text)


def _require_shallow(text: str) -> None:
    if text.count("[") + text.count("{") <= DEEPEST:
        return
    depth = 0
    for token in _TOKEN.finditer(text):
        character = text[token.start()]
        depth += (character in "[{") - (character in "]}")
        if depth > DEEPEST:
            raise ValueError(f"it is nested more than {DEEPEST} deep")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{one_line(text, 40)} is not finite")
    return value


def _integer(text: str) -> int:
    if len(text) > LONGEST_INTEGER:
        raise ValueError(f"{one_line(text, 40)} is too long for a number")
    return int(text)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        double = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it has the key {one_line(double, 40)!r} twice")
    return values


_DECODER = json.JSONDecoder(
    parse_float=_finite, parse_int=_integer, parse_constant=_finite, object_pairs_hook=_without_doubles
)
