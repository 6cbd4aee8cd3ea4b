"""Damage done to a good file, and what became of it: refused, read as the same, accepted, or a fault of ours.

A mutation is decided by its random numbers alone: `mutate(data, form, random.Random("7-metrics.json-41"))` is the same
on every machine.
"""

import copy
import io
import json
import random
import time
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ddpm_shared.errors import UserError

Form = Literal["bytes", "json", "jsonl", "safetensors", "npz"]
Outcome = Literal["refused", "same", "accepted", "CRASH", "SILENT"]
OUTCOMES: tuple[Outcome, ...] = ("refused", "same", "accepted", "CRASH", "SILENT")
LONGEST = 2000  # characters of a message: a path, a cut piece of foreign text, the way out

# --- Bytes --------------------------------------------------------------------------------------------------


def _place(data: bytes, rng: random.Random) -> tuple[int, int]:
    """Begin and end of a block, of few bytes as often as of many."""
    size = min(len(data), rng.choice((1, 2, 4, 16, 100, 1000, 10_000)))
    begin = rng.randrange(len(data) - size + 1)
    return begin, begin + size


def flip_bit(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def flip_early_bit(data: bytes, rng: random.Random) -> bytes:
    return flip_bit(data[:100], rng) + data[100:]


def overwrite(data: bytes, rng: random.Random) -> bytes:
    begin, end = _place(data, rng)
    return data[:begin] + rng.randbytes(end - begin) + data[end:]


def zero(data: bytes, rng: random.Random) -> bytes:
    begin, end = _place(data, rng)
    return data[:begin] + bytes(end - begin) + data[end:]


def truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.choice((0, 1, 8, len(data) - 1, rng.randrange(len(data)), rng.randrange(len(data))))]


def remove(data: bytes, rng: random.Random) -> bytes:
    begin, end = _place(data, rng)
    return data[:begin] + data[end:]


def insert(data: bytes, rng: random.Random) -> bytes:
    begin, end = _place(data, rng)
    return data[:begin] + rng.randbytes(end - begin) + data[begin:]


def duplicate(data: bytes, rng: random.Random) -> bytes:
    begin, end = _place(data, rng)
    return data[:end] + data[begin:]


def swap(data: bytes, rng: random.Random) -> bytes:
    begin, end = _place(data, rng)
    middle = (begin + end) // 2
    return data[:begin] + data[middle:end] + data[begin:middle] + data[end:]


def append(data: bytes, rng: random.Random) -> bytes:
    return data + rng.choice((b"\0", b"\n", b"{}", bytes(4096), data, rng.randbytes(100)))


def huge_number(data: bytes, rng: random.Random) -> bytes:
    """What a length, a size or an offset in a header may become."""
    begin = rng.randrange(min(len(data), rng.choice((16, 400, len(data)))))
    width = rng.choice((2, 4, 8))
    return data[:begin] + rng.choice((b"\xff", b"\x7f", b"\0")) * width + data[begin + width :]


BYTES = (
    *(flip_bit, flip_early_bit, overwrite, zero, truncate, remove),
    *(insert, duplicate, swap, append, huge_number),
)

# --- JSON ---------------------------------------------------------------------------------------------------

# What a value may become, as JSON text; some of it is none.
VALUES = (
    *("null", "true", "false", "0", "-1", "1", "1.0", "1.5", "-0.0", "1e-320", "1e308", "1e999", "-1e999", "NaN"),
    *("Infinity", "9007199254740993", "1" + 30 * "0", "1" + 5000 * "0", '""', '"x"', '"5"', '"\\u0000"', '"\\ud800"'),
    *('"a\\nb"', '"' + 5000 * "y" + '"', "[]", "{}", "[1]", '{"a": 1}', 30 * "[" + 30 * "]", 3000 * "[" + 3000 * "]"),
    *(500 * '{"a":' + "1" + 500 * "}", "", '{"a": 1, "a": 2}'),
)
MARK = "\x00mark"


def _containers(value: Any) -> list[Any]:
    """All objects and arrays in `value` that hold something."""
    found, waiting = [], [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict | list) and each:
            found.append(each)
            waiting += each.values() if isinstance(each, dict) else each
    return found


def edit_json(text: str, rng: random.Random) -> str:
    """Another value, a key more, less or twice, an element more, less or elsewhere."""
    value = json.loads(text)
    if not (containers := _containers(value)):
        return rng.choice(VALUES)
    inner = rng.choice(containers)
    key = rng.choice(list(inner)) if isinstance(inner, dict) else rng.randrange(len(inner))
    kind = rng.choice(("value", "value", "value", "remove", "twice", "new", "move", "nudge"))
    raw = rng.choice(VALUES)
    if kind == "remove":
        del inner[key]
    elif kind == "nudge" and type(inner[key]) in (int, float):
        inner[key] += rng.choice((1, -1, 1000))
    elif kind == "twice" and isinstance(inner, dict):
        inner[key + MARK] = inner[key]
    elif kind == "twice":
        inner.insert(key, copy.deepcopy(inner[key]))
    elif kind == "new" and isinstance(inner, dict):
        inner["mood"] = MARK
    elif kind == "move":
        other = rng.choice(list(inner)) if isinstance(inner, dict) else rng.randrange(len(inner))
        inner[key], inner[other] = inner[other], inner[key]
    else:
        inner[key] = MARK
    marked = json.dumps(value)
    return marked.replace(json.dumps(MARK), raw).replace(json.dumps(MARK)[1:-1], "")


def edit_lines(data: bytes, rng: random.Random) -> bytes:
    """A line of JSON lines changed, removed, doubled, moved or cut."""
    lines = data.splitlines(keepends=True)
    number = rng.randrange(len(lines))
    kind = rng.choice(("edit", "edit", "edit", "remove", "twice", "move", "cut"))
    if kind == "edit":
        lines[number] = edit_json(lines[number].decode(), rng).encode() + b"\n"
    elif kind == "remove":
        del lines[number]
    elif kind == "twice":
        lines.insert(number, lines[number])
    elif kind == "move":
        lines.insert(rng.randrange(len(lines)), lines.pop(number))
    else:
        lines[number] = lines[number][: rng.randrange(len(lines[number]))]
    return b"".join(lines)


def edit_header(data: bytes, rng: random.Random) -> bytes:
    """The JSON header of a safetensors file, or the text of the metadata in it, changed; its length is right."""
    length = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + length].decode()
    if rng.random() < 0.5:
        values = json.loads(header)
        values["__metadata__"]["ddpm-duet"] = edit_json(values["__metadata__"]["ddpm-duet"], rng)
        header = json.dumps(values)
    else:
        header = edit_json(header, rng)
    encoded = header.encode("utf-8", "surrogatepass")
    return len(encoded).to_bytes(8, "little") + encoded + data[8 + length :]


def edit_entry(data: bytes, rng: random.Random) -> bytes:
    """An array of a .npz file changed, its checksum in the zip being right."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(list(entries))
    entries[name] = rng.choice(BYTES)(entries[name], rng)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for each, content in entries.items():
            archive.writestr(each, content)
    return buffer.getvalue()


def _edit_text(data: bytes, rng: random.Random) -> bytes:
    return edit_json(data.decode(), rng).encode("utf-8", "surrogatepass")


EDITS: dict[Form, Callable[[bytes, random.Random], bytes]] = {
    "json": _edit_text,
    "jsonl": edit_lines,
    "safetensors": edit_header,
    "npz": edit_entry,
}


def mutate(data: bytes, form: Form, rng: random.Random) -> tuple[str, bytes]:
    """The name of one random mutation, and `data` after it; half of them know the form of the file."""
    edit = EDITS.get(form)
    chosen = edit if edit and rng.random() < 0.5 else rng.choice(BYTES)
    return chosen.__name__.strip("_"), chosen(data, rng)


# --- Readers ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reader:
    """A reader, and what may become of a damaged file.

    Args:
        form: of the file.
        make: writes a good file into an empty folder and returns its path.
        read: reads it as our commands do, and uses the result; what it returns can be compared.
        strict: whether damage must be noticed, since the file has a checksum; else another valid file may be read.
    """

    form: Form
    make: Callable[[Path], Path]
    read: Callable[[Path], Any]
    strict: bool = False


@dataclass(frozen=True)
class Verdict:
    """What became of one damaged file."""

    outcome: Outcome
    reason: str  # the message, or what went wrong
    seconds: float


class Subject:
    """A reader with its good file in a folder of its own."""

    def __init__(self, reader: Reader, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.reader, self.path = reader, reader.make(folder)
        self.good = self.path.read_bytes()
        self.content = reader.read(self.path)

    def judge(self, data: bytes) -> Verdict:
        """Read the file with `data` in it."""
        self.path.write_bytes(data)
        began = time.perf_counter()
        outcome, reason = self._outcome()
        return Verdict(outcome, reason, time.perf_counter() - began)

    def _outcome(self) -> tuple[Outcome, str]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                content = self.reader.read(self.path)
        except UserError as error:
            message = str(error)
            if len(message) > LONGEST or not message.isprintable():
                return "CRASH", f"a message that is not one line: {message[:200]!r}"
            return "refused", message
        except Exception as error:
            return "CRASH", f"{type(error).__name__}: {str(error)[:200]}"
        if content == self.content:
            return "same", ""
        return ("SILENT", "something else was read without a word") if self.reader.strict else ("accepted", "")
