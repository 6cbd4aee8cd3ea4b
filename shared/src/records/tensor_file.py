"""Reading a safetensors file: a header of JSON, which names tensors and their places, and then their bytes.

Source: https://github.com/huggingface/safetensors, "Format".
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
from numpy.typing import NDArray

from ddpm_shared import reading
from ddpm_shared.errors import UserError

HEADER = 16 * reading.MIB  # bytes; ours have a hundred for each tensor
COPIES = 3  # of a file, in memory, while it is read
FLOATS = {"F16": np.float16, "F32": np.float32, "F64": np.float64, "BF16": None}  # NumPy has no bfloat16
COUNTS = ("BOOL", "U8", "I8", "I16", "U16", "I32", "U32", "I64", "U64")


class Tensor(NamedTuple):
    """A tensor as it stands in the file."""

    name: str
    dtype: str  # in safetensors' words, e.g. "F32"
    shape: tuple[int, ...]
    data: Any  # its bytes

    @property
    def values(self) -> NDArray[np.floating]:
        """The numbers; 16-bit ones, of either kind, as float32."""
        if self.dtype == "BF16":  # the upper half of a float32
            halves = np.frombuffer(self.data, "<u2").astype(np.uint32) << 16
            return halves.view(np.float32).reshape(self.shape)
        values = np.frombuffer(self.data, FLOATS[self.dtype]).reshape(self.shape)
        return values.astype(np.float32 if self.dtype == "F16" else values.dtype)


class TensorFile(NamedTuple):
    """The content of a file."""

    sha256: str  # of the whole file
    metadata: dict[str, str]
    tensors: list[Tensor]  # by name


def read(path: Path, way_out: object, counts: bool = False) -> TensorFile:
    """Read a file once; what its header declares is compared with its size first.

    Args:
        path: the file.
        way_out: ends a message.
        counts: whether it may hold whole numbers beside its weights, as PyTorch's BatchNorm does; they are left out.

    Raises:
        UserError: no such file, not a whole one, or numbers that no network of ours has.
    """

    def message(reason: str) -> str:
        return f"{reading.name_of(path)} is not a whole safetensors file ({reason}): {way_out}"

    with reading.opened(path, way_out) as (file, size), reading.refusing(message):
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, HEADER):
            raise ValueError(f"it has {size:,} bytes, and its header would have {length:,}")
        header = reading.json_value(file.read(length))
        if (declared := 8 + length + _end(header)) != size:
            raise ValueError(f"it has {size:,} bytes, and its header declares {declared:,}")
        if COPIES * size > (memory := reading.memory()):
            raise ValueError(f"reading it takes {COPIES * size:,} bytes, and this machine has {memory:,}")
        file.seek(0)
        data = file.read(size)
        tensors = sorted(
            Tensor(name, stored["dtype"], tuple(stored["shape"]), stored["data"])
            for name, stored in safetensors.deserialize(data)  # type: ignore[no-untyped-call]
        )
    if counts:
        tensors = [each for each in tensors if each.dtype not in COUNTS]
    if foreign := [f"{each.name} ({each.dtype})" for each in tensors if each.dtype not in FLOATS]:
        raise UserError(
            f"{reading.name_of(path)} holds numbers that are no weights, {reading.listed(foreign)}; "
            f"weights are {', '.join(FLOATS)}: {way_out}"
        )
    return TensorFile(hashlib.sha256(data).hexdigest(), header.get("__metadata__", {}), tensors)


def _end(header: Any) -> int:
    """Where the last tensor ends, counted from the end of the header. Raises ValueError or the like for no header."""
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata are no texts")
    return max((tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"), default=0)


def checksum(metadata: Mapping[str, Any], tensors: Iterable[Tensor]) -> str:
    """SHA-256 of the metadata, in one fixed form, and of every tensor: name, type, shape and bytes, in order of names.

    Whatever bit of a file changes, either this or what is read stays the same, but never only one of them.
    """
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True, allow_nan=False).encode())
    for tensor in sorted(tensors):
        digest.update(json.dumps([tensor.name, tensor.dtype, tensor.shape]).encode())
        digest.update(tensor.data)
    return digest.hexdigest()
