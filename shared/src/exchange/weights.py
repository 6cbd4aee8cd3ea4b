"""Reading the weights of another program: tensors by name, of a .safetensors file or of a pickle of PyTorch's."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddpm_shared import reading
from ddpm_shared.errors import UserError
from ddpm_shared.reading import listed, name_of, one_line
from ddpm_shared.records import tensor_file

Tensors = dict[str, NDArray[np.floating]]
PickleReader = Callable[[Path], Mapping[str, Any]]  # what a tree has for .pt files: nested dicts of arrays

PICKLES = (".pt", ".pth", ".bin", ".ckpt")
WAY_OUT = "give the state_dict of a network, as .safetensors, or for PyTorch's tree as .pt"
WRAPPERS = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put before every name
SETTINGS_AT_MOST = reading.MIB  # of a file beside the weights


def read(path: Path, part: str | None, read_pickle: PickleReader) -> Tensors:
    """The tensors in a file by name, without what wraps all the names.

    Args:
        path: .safetensors, or one of PICKLES.
        part: which of several dicts of tensors in a pickle, e.g. "ema"; dots between nested keys.
        read_pickle: of the tree.

    Raises:
        UserError: no such file, a damaged one, or none of tensors.
    """
    if path.suffix == ".safetensors":
        if part is not None:
            raise UserError(f"--part {one_line(part, 60)}: is for a .pt file, and a .safetensors has no parts")
        tensors = {each.name: each.values for each in tensor_file.read(path, WAY_OUT, counts=True).tensors}
    elif path.suffix in PICKLES:
        tensors = _part(read_pickle(path), part, path)
    else:
        raise UserError(f"--weights {name_of(path)}: its name must end in .safetensors, or in {', '.join(PICKLES)}")
    if not tensors:
        raise UserError(f"{name_of(path)} holds no weights: {WAY_OUT}")
    for wrapper in WRAPPERS:
        if all(name.startswith(wrapper) for name in tensors):
            tensors = {name.removeprefix(wrapper): value for name, value in tensors.items()}
    return tensors


def _part(content: Mapping[str, Any], part: str | None, path: Path) -> Tensors:
    parts = _parts(content)
    if part is None and len(parts) > 1:
        raise UserError(f"{name_of(path)} holds tensors in several places: choose one by --part {listed(list(parts))}")
    if part is not None and part not in parts:
        raise UserError(f"--part {one_line(part, 60)}: {name_of(path)} has {listed(list(parts)) or 'no tensors'}")
    return parts[part] if part is not None else next(iter(parts.values()), {})


def _parts(content: Mapping[str, Any], place: str = "") -> dict[str, Tensors]:
    """Every dict in a file that has tensors, by its place. Optimizers' states, which go by number, have none."""
    tensors = {
        name: value
        for name, value in content.items()
        if isinstance(name, str) and isinstance(value, np.ndarray) and np.issubdtype(value.dtype, np.floating)
    }
    found = {place or "all": tensors} if any("." in name for name in tensors) else {}
    for name, value in content.items():
        if isinstance(name, str) and isinstance(value, Mapping):
            found |= _parts(value, f"{place}.{name}" if place else name)
    return found


def settings_beside(path: Path, beside: Mapping[str, Any], attention: bool) -> dict[str, Any]:
    """Settings of ours in the file of settings that the other program leaves beside its weights; {} if there is none.

    Args:
        path: of the weights.
        beside: a layout's: the `file`, what it `must` say, each with the reason, and what is taken from it.
        attention: whether the network has attention; what the file says of it does not matter otherwise.

    Raises:
        UserError: it says something that our network cannot compute.
    """
    file = path.parent / str(beside["file"])
    if not file.is_file():
        return {}
    values = reading.read_json(file, "repair it, or move it away", SETTINGS_AT_MOST)
    for name, (wanted, reason) in beside["must"].items():
        if not isinstance(values, dict) or name not in values or ("attention" in name and not attention):
            continue
        if values[name] != wanted:
            said = one_line(json.dumps(values[name]), 40)
            raise UserError(f"{name_of(file)} says {name} = {said}, and ours would have {json.dumps(wanted)}: {reason}")
    taken = beside["takes"].items() if isinstance(values, dict) else ()
    return {ours: values[theirs] for ours, theirs in taken if isinstance(values.get(theirs), int)}
