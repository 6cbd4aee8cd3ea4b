"""Checkpoints that either framework writes and either reads: safetensors with canonical names and layouts.

The tensors are `model/<name>`, `ema/<name>`, `adam_m/<name>` and `adam_v/<name>` (names and layouts as in
parameters.py); `buffers/<name>`, what a network holds beside its parameters; and `codec/<name>`, what the codec needs
that makes x_0 of pixels. The header's metadata holds a JSON object with `format`, `framework`, `step`, `config`,
`dataset_sha256`, `codec`, e.g. {"kind": "pixels"}, for a class-conditional network `class_names`, and `sha256`, the
checksum of all of it. Format /1 has no buffers, no codec, no classes and no checksum, and is read as pixels.
"""

import contextlib
import json
import os
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from ddpm_shared import config as configs
from ddpm_shared import files, reading, validation
from ddpm_shared.errors import UserError
from ddpm_shared.reading import listed, name_of
from ddpm_shared.records import tensor_file
from ddpm_shared.records.tensor_file import Tensor, TensorFile

FORMAT = "ddpm-duet/2"
BOXED = Path(__file__).parents[1] / "boxed" / "fashion-mnist.safetensors"  # the trained model in the package
BOXED_SHA256 = "48807f3200b0a690f2dea536c92802132dc612c6e446ca940783a46f089482ca"  # of that file
BOXED_CONDITIONAL = BOXED.with_name("fashion-mnist-conditional.safetensors")  # the class-conditional one
BOXED_CONDITIONAL_SHA256 = "2cff6f6c02bfd395898ac0aa24da2935425a057ceb6bd574f38ea3a17a320f80"
PREFIXES = ("model", "ema", "adam_m", "adam_v")  # a tensor of each for every parameter
BUFFERS, CODEC = "buffers", "codec"
PIXELS = {"kind": "pixels"}  # the codec whose x_0 is the image itself
CODECS = ("pixels",)  # the kinds that this version knows

FORMATS = {"ddpm-duet/1": "format_1", FORMAT: "format_2"}  # parts of checkpoint.schema.json
PLACES = {"ddpm-duet/1": PREFIXES, FORMAT: (*PREFIXES, BUFFERS, CODEC)}  # of tensors, by format
NAMES = {"float16": "F16", "float32": "F32", "float64": "F64"}  # of number formats, NumPy's and safetensors'
STEP_FILE = re.compile(r"step_(\d+)\.safetensors")  # the name of a run's checkpoint
MOST_IMAGES = 10**8  # in a data set, far more than any here: so many steps an epoch has at most

_said: list[Path] = []  # the file of which this process said that it has no checksum: one line is enough

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
    sha256: str  # of the whole file
    codec: dict[str, Any] = field(default_factory=PIXELS.copy)
    class_names: tuple[str, ...] = ()  # of a class-conditional network, by label


def save(
    path: Path,
    tensors: Tensors,
    *,
    framework: str,
    step: int,
    config: configs.Config,
    dataset_sha256: str,
    codec: Mapping[str, Any] = PIXELS,
    class_names: Sequence[str] = (),
) -> None:
    """Write a checkpoint atomically; `class_names` are those of a class-conditional network.

    Raises:
        OSError: e.g. a full disk; an older file of that name is then untouched.
    """
    metadata = {
        "format": FORMAT,
        "framework": framework,
        "step": step,
        "config": configs.to_dict(config),
        "dataset_sha256": dataset_sha256,
        "codec": dict(codec),
    }
    if config.class_conditional and class_names:
        metadata["class_names"] = list(class_names)
    arrays = {name: np.asarray(value, order="C") for name, value in tensors.items()}
    stored = [Tensor(name, NAMES[value.dtype.name], value.shape, value) for name, value in arrays.items()]
    metadata["sha256"] = tensor_file.checksum(metadata, stored)
    files.write_atomically(path, safetensors.numpy.save(arrays, {"ddpm-duet": json.dumps(metadata)}))


def load(path: str | Path, prefixes: tuple[str, ...] = PREFIXES) -> Checkpoint:
    """Read a checkpoint, of its parameters only those under `prefixes`; 16-bit numbers come as float32.

    The checksum of the whole file is verified in any case. A file that has none is read, and one line on stderr says
    so.

    Raises:
        UserError: no such file; a damaged or foreign file, with the newest whole checkpoint beside it; a codec or
            format of a newer version.
    """
    path = Path(path)
    if not os.path.isfile(path):
        raise UserError(f"no checkpoint at {name_of(path)}: give a .safetensors file that a training run wrote")
    loaded, unverified = _read(path, prefixes, _WayOut(path))
    if unverified and not _said:
        _said.append(path)
        note = f"{name_of(path)} has no checksum (format {unverified}): it cannot be checked for damage"
        with contextlib.suppress(OSError, ValueError):  # nobody may be there to read it
            print(note, file=sys.stderr)
    return loaded


def newest_whole(folder: Path, besides: Collection[Path] = ()) -> Path | None:
    """The newest whole checkpoint step_<step>.safetensors of a folder, by its number, `besides` left out; or None."""
    names = ((STEP_FILE.fullmatch(path.name), path) for path in folder.glob("step_*.safetensors"))
    numbered = [(int(match[1]), path) for match, path in names if match]
    for _, path in sorted(numbered, reverse=True):
        if path not in besides:
            try:
                _read(path, PREFIXES, "")
            except UserError:
                continue
            return path
    return None


def _in_the_package(path: Path) -> str | None:
    """The SHA-256 that a file of the package must have; None for any other file."""
    return {BOXED: BOXED_SHA256, BOXED_CONDITIONAL: BOXED_CONDITIONAL_SHA256}.get(path)


class _WayOut:
    """The end of a message about a damaged checkpoint; str() looks at the files beside it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        if _in_the_package(self.path):
            return "the installed package is damaged, install ddpm-duet again"
        newest = newest_whole(self.path.parent, (self.path,))
        if newest is None:
            return "there is no other whole checkpoint beside it, take one from elsewhere"
        return f"take {name_of(newest)}, the newest whole checkpoint beside it"


def _read(path: Path, prefixes: tuple[str, ...], way_out: object) -> tuple[Checkpoint, str | None]:
    """The checkpoint, and its format if it has no checksum. Raises UserError, which ends with the way out."""
    file = tensor_file.read(path, way_out)
    metadata, unverified = _metadata(file, path, way_out)
    stored = {tensor.name: tensor for tensor in file.tensors}
    if surplus := [name for name in stored if _prefix(name) not in PLACES[metadata["format"]]]:
        raise UserError(f"{name_of(path)} holds {listed(surplus)}, which no run writes: {way_out}")
    wanted = {*prefixes, BUFFERS, CODEC}
    tensors: Tensors = {name: each.values for name, each in stored.items() if _prefix(name) in wanted}
    if broken := [name for name, value in tensors.items() if not np.isfinite(value).all()]:
        raise UserError(f"{name_of(path)} holds NaN or infinite values in {listed(broken)}: {way_out}")
    try:
        config, step = configs.from_dict(metadata["config"], f"the config in {name_of(path)}"), metadata["step"]
    except UserError as error:
        raise UserError(f"{error}; {way_out}") from None
    if step > (most := config.training.epochs * max(1, MOST_IMAGES // config.training.batch_size)):
        raise UserError(
            f"{name_of(path)} is of step {step:,}, and a run of its settings ends before {most:,}: {way_out}"
        )
    names, classes = metadata.get("class_names", ()), config.model.num_classes
    if names and len(names) != classes:
        raise UserError(f"{name_of(path)} names {len(names)} classes, and its network has {classes}: {way_out}")
    loaded = Checkpoint(
        path=path,
        framework=metadata["framework"],
        step=step,
        config=config,
        dataset_sha256=metadata["dataset_sha256"],
        tensors=tensors,
        sha256=file.sha256,
        codec=metadata.get("codec", PIXELS),
        class_names=tuple(metadata.get("class_names", ())),
    )
    return loaded, unverified


def _metadata(file: TensorFile, path: Path, way_out: object) -> tuple[dict[str, Any], str | None]:
    """The metadata, checked, and their format if there was no checksum to check them and the tensors with."""
    metadata = reading.parse_json(file.metadata.get("ddpm-duet", "{}"), f"the metadata of {name_of(path)}", way_out)
    version = metadata.get("format") if isinstance(metadata, dict) else None
    if version not in tuple(FORMATS):
        newer = isinstance(version, str) and re.fullmatch(r"ddpm-duet/\d+", version)
        remedy = f"read it with the newer version of ddpm-duet that wrote it, or {way_out}" if newer else way_out
        raise UserError(
            f"{name_of(path)} is not a checkpoint that this version reads: its format is "
            f"{reading.one_line(repr(version), 40)}, not {FORMAT!r} or older; {remedy}"
        )
    part = f"checkpoint#{FORMATS[version]}"
    validation.checked(metadata, part, str(path), f"a checkpoint of format {version}", way_out)
    if boxed := _in_the_package(path):
        expected, found = boxed, file.sha256
    else:
        rest = {key: value for key, value in metadata.items() if key != "sha256"}
        expected, found = metadata.get("sha256"), tensor_file.checksum(rest, file.tensors)
    if expected is not None and found != expected:
        raise UserError(
            f"{name_of(path)} is damaged (its SHA-256 is {found[:12]}..., not {expected[:12]}...): {way_out}"
        )
    if (kind := metadata.get("codec", PIXELS)["kind"]) not in CODECS:
        raise UserError(
            f"{name_of(path)} has a codec of kind {reading.one_line(repr(kind), 40)}, which this version does not "
            "know: read it with the newer version of ddpm-duet that wrote it"
        )
    return metadata, None if expected else version


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
        faults.append(f"missing {listed(missing)}")
    if surplus := sorted(set(selected) - set(shapes)):
        faults.append(f"surplus {listed(surplus)}")
    if wrong := sorted(name for name in set(selected) & set(shapes) if selected[name].shape != tuple(shapes[name])):
        faults.append(f"other shape {listed([f'{n} {selected[n].shape}, not {tuple(shapes[n])}' for n in wrong])}")
    if faults:
        raise UserError(
            f"the {prefix} tensors in {checkpoint.path} do not fit the network: {'; '.join(faults)}. "
            "Use the checkpoint with the configuration that it was trained with"
        )
    return selected


def _prefix(name: str) -> str:
    return name.split("/", 1)[0]
