"""Checkpoints that either framework writes and either reads: safetensors with canonical names and layouts.

The tensors are `model/<name>`, `ema/<name>`, `adam_m/<name>` and `adam_v/<name>` (names and layouts as in
parameters.py); `buffers/<name>`, what a network holds beside its parameters; and `codec/<name>`, what the codec needs
that makes x_0 of pixels. The header's metadata holds a JSON object with `format`, `framework`, `step`, `config`,
`dataset_sha256` and `codec`, e.g. {"kind": "pixels"}. Format /1 has no buffers and no codec, and is read as pixels.
"""

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from ddpm_shared import config as configs
from ddpm_shared import files
from ddpm_shared.errors import UserError

FORMAT = "ddpm-duet/2"
BOXED = Path(__file__).parents[1] / "boxed" / "fashion-mnist.safetensors"  # the trained model in the package
PREFIXES = ("model", "ema", "adam_m", "adam_v")  # a tensor of each for every parameter
BUFFERS, CODEC = "buffers", "codec"
PIXELS = {"kind": "pixels"}  # the codec whose x_0 is the image itself
CODECS = ("pixels",)  # the kinds that this version knows

_V1 = {"framework", "step", "config", "dataset_sha256"}
KEYS = {"ddpm-duet/1": _V1, FORMAT: _V1 | {"codec"}}  # of the metadata, by format
PLACES = {"ddpm-duet/1": PREFIXES, FORMAT: (*PREFIXES, BUFFERS, CODEC)}  # of tensors, by format

Tensors = dict[str, NDArray[np.floating]]


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds."""

    path: Path
    framework: str  # of the run that wrote it: "torch" or "tensorflow"
    step: int  # training steps done
    config: configs.Config
    dataset_sha256: str
    tensors: Tensors
    codec: dict[str, Any] = field(default_factory=PIXELS.copy)

    @functools.cached_property
    def sha256(self) -> str:
        """Of the whole file, which is read for it when it is first asked for."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


def save(
    path: Path,
    tensors: Tensors,
    *,
    framework: str,
    step: int,
    config: configs.Config,
    dataset_sha256: str,
    codec: Mapping[str, Any] = PIXELS,
) -> None:
    """Write a checkpoint atomically. Raises OSError on a full disk; an older file of that name is then untouched."""
    metadata = {
        "format": FORMAT,
        "framework": framework,
        "step": step,
        "config": configs.to_dict(config),
        "dataset_sha256": dataset_sha256,
        "codec": dict(codec),
    }
    arrays = {name: np.asarray(value, order="C") for name, value in tensors.items()}
    files.write_atomically(path, safetensors.numpy.save(arrays, {"ddpm-duet": json.dumps(metadata)}))


def load(path: str | Path, prefixes: tuple[str, ...] = PREFIXES) -> Checkpoint:
    """Read a checkpoint, of its parameters only those under `prefixes`; what is stored in float16 comes as float32.

    Raises:
        UserError: no such file, a truncated or foreign file, a tensor under no prefix, NaN or infinite values, or a
            codec or format of a newer version.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}: give a .safetensors file that a training run wrote")
    try:
        with safetensors.safe_open(str(path), framework="numpy") as file:
            metadata = json.loads((file.metadata() or {}).get("ddpm-duet", "{}"))
            # A foreign file may hold number formats that NumPy does not know: its tensors are not touched.
            version = metadata.get("format") if isinstance(metadata, dict) else None
            names = list(file.keys()) if version in KEYS else []
            wanted = {*prefixes, BUFFERS, CODEC}
            tensors: Tensors = {name: _widened(file.get_tensor(name)) for name in names if _prefix(name) in wanted}
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{path} is not a whole safetensors file ({error}): take an earlier checkpoint of the run"
        ) from None
    if version not in KEYS:
        raise UserError(
            f"{path} is not a checkpoint that this version reads: its format is {version!r}, not {FORMAT!r} or older"
        )
    if missing := KEYS[version] - set(metadata):
        raise UserError(f"{path} lacks {_listed(sorted(missing))} in its metadata: take another checkpoint of the run")
    codec = metadata.get("codec", PIXELS)
    if (kind := codec.get("kind") if isinstance(codec, dict) else codec) not in CODECS:
        raise UserError(
            f"{path} has a codec of kind {kind!r}, which this version does not know: read it with the newer version of "
            "ddpm-duet that wrote it"
        )
    if surplus := [name for name in names if _prefix(name) not in PLACES[version]]:
        raise UserError(f"{path} holds {_listed(surplus)}, which no run writes: take another checkpoint of the run")
    broken = [name for name, value in tensors.items() if not np.isfinite(value).all()]
    if broken:
        raise UserError(f"{path} holds NaN or infinite values in {_listed(broken)}: take an earlier checkpoint")
    return Checkpoint(
        path=path,
        framework=metadata["framework"],
        step=metadata["step"],
        config=configs.from_dict(metadata["config"], str(path)),
        dataset_sha256=metadata["dataset_sha256"],
        tensors=tensors,
        codec=codec,
    )


def select(checkpoint: Checkpoint, prefix: str, shapes: Mapping[str, tuple[int, ...]]) -> Tensors:
    """The tensors under `prefix`, without it, once they are exactly those that the network has.

    Args:
        checkpoint: a loaded file.
        prefix: one of PREFIXES, or BUFFERS.
        shapes: the canonical names and shapes of the network's parameters, or of its buffers.

    Raises:
        UserError: none at all; missing, surplus or wrong-shaped tensors, listed by name.
    """
    selected = {
        name.removeprefix(prefix + "/"): value
        for name, value in checkpoint.tensors.items()
        if name.startswith(prefix + "/")
    }
    if not selected and prefix in PREFIXES:
        raise UserError(
            f"{checkpoint.path} holds no {prefix} tensors: --raw and --resume need a checkpoint that a run wrote itself"
        )
    faults = []
    if missing := sorted(set(shapes) - set(selected)):
        faults.append(f"missing {_listed(missing)}")
    if surplus := sorted(set(selected) - set(shapes)):
        faults.append(f"surplus {_listed(surplus)}")
    if wrong := sorted(name for name in set(selected) & set(shapes) if selected[name].shape != tuple(shapes[name])):
        faults.append(f"other shape {_listed([f'{n} {selected[n].shape}, not {tuple(shapes[n])}' for n in wrong])}")
    if faults:
        raise UserError(
            f"the {prefix} tensors in {checkpoint.path} do not fit the network: {'; '.join(faults)}. "
            "Use the checkpoint with the configuration that it was trained with"
        )
    return selected


def _widened(value: NDArray[np.floating]) -> NDArray[np.floating]:
    return value.astype(np.float32) if value.dtype == np.float16 else value


def _prefix(name: str) -> str:
    return name.split("/", 1)[0]


def _listed(names: list[str], at_most: int = 5) -> str:
    more = f" and {len(names) - at_most} more" if len(names) > at_most else ""
    return ", ".join(names[:at_most]) + more
