"""The sides of every comparison: PyTorch (torch_side.py), TensorFlow (tf_side.py) and, here, the oracle.

A quantity asks its side for tensors, a schedule, a network, and computes with them in the side's own precision. What it
returns is NumPy again, images [B, H, W, C] and parameters under their canonical names and layouts.
"""

import dataclasses
import importlib
import math
import types
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ddpm_course import inside
from ddpm_shared.batches import Arrays
from ddpm_shared.config import Config, Device, DiffusionConfig, ModelConfig, Precision
from ddpm_shared.oracle import bound as oracle_bound
from ddpm_shared.oracle import diffusion
from ddpm_shared.oracle import guidance as oracle_guidance
from ddpm_shared.oracle import prediction as oracle_prediction
from ddpm_shared.oracle import processes as oracle_processes
from ddpm_shared.oracle import samplers as oracle_samplers
from ddpm_shared.oracle import solvers as oracle_solvers

Array = NDArray[Any]
Parameters = dict[str, NDArray[np.float64]]


def draw(*shape: int, seed: int = 0) -> NDArray[np.float64]:
    """Standard normal numbers that float32 holds exactly, so that both precisions start from the same."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32).astype(np.float64)


def random_parameters(shapes: Mapping[str, tuple[int, ...]]) -> Parameters:
    """Random values for all parameters: the zeros of the real start would hide whole branches of the network."""
    values = {}
    for name, shape in shapes.items():
        scale = 1 / math.sqrt(math.prod(shape[1:])) if len(shape) > 1 else 0.1
        offset = 1.0 if len(shape) == 1 and name.endswith("weight") else 0.0  # of a normalisation
        values[name] = offset + scale * draw(*shape, seed=zlib.crc32(name.encode()))
    return values


class Side:
    """What PyTorch's and TensorFlow's side share. Results that several quantities need are kept in `self.kept`.

    Args:
        precision: "fp64" or "fp32".
        device: "cpu" or "gpu".
    """

    name: ClassVar[str]  # in messages
    tree: ClassVar[str]  # the package under test

    def __init__(self, precision: Precision, device: Device = "cpu") -> None:
        self.precision: Precision = precision
        self.device_name: Device = device
        self.device = self.utils.select_device(device)
        self.dtype = self.utils.dtype(precision)
        self.kept: dict[Any, Any] = {}
        self.other: Side  # of the same precision

    def __getattr__(self, module: str) -> Any:
        """A module of the tree, `side.engine`; looked up each time, so that a planted fault is seen."""
        if module.startswith("_") or module in ("other", "kept"):
            raise AttributeError(module)
        return importlib.import_module(f"{self.tree}.{module}")

    def configured(self, config: Config) -> Config:
        """`config` in this side's precision on its device."""
        return dataclasses.replace(config, precision=self.precision, device=self.device_name)

    def layer_class(self, kind: str) -> Any:
        """A class of the tree's networks/, by its name."""
        modules = (value for value in vars(self.networks).values() if isinstance(value, types.ModuleType))
        return next(getattr(module, kind) for module in modules if hasattr(module, kind))

    def network(self, config: ModelConfig, seed: int = 0) -> Any:
        """The network of these sizes at its initial values."""
        return self.model.make_network(
            self.configured(Config(model=config, class_conditional=config.num_classes > 0)), seed
        )

    def keep(self, key: Any, compute: Callable[[], Any]) -> Any:
        """compute(), once for this side."""
        if key not in self.kept:
            self.kept[key] = compute()
        return self.kept[key]

    def watch(self, module: Any) -> dict[str, Array]:
        """From now on, the output of every layer inside `module`, by its name, is kept in the dict returned."""
        seen: dict[str, Array] = {}
        inside.watch(module, lambda name, output: seen.update({name: self.array(output)}))
        return seen

    def fields(self, config: DiffusionConfig, steps: Sequence[int] | None = None) -> dict[str, Array]:
        """The arrays of the schedule by name."""
        return {name: self.array(value) for name, value in vars(self.schedule(config, steps)).items()}


class Oracle(Side):
    """ddpm_shared.oracle: float64 NumPy, written to be right, not fast.

    Args:
        torch: PyTorch's side, whose parameters' names and shapes, never values, are taken over.
    """

    name = "oracle"
    engine = diffusion
    prediction = oracle_prediction
    samplers = oracle_samplers
    solvers = oracle_solvers
    processes = oracle_processes
    guidance = oracle_guidance
    objective = bound = oracle_bound

    def __init__(self, torch: Any) -> None:
        self.precision, self.device_name, self.kept = "fp64", "cpu", {}
        self.torch = torch

    def shapes_of(self, make: Callable[[Any], Any]) -> dict[str, tuple[int, ...]]:
        """Canonical name and shape of each parameter of a module that make(PyTorch's side) builds."""
        shapes: dict[str, tuple[int, ...]] = self.torch.shapes(make(self.torch))
        return shapes

    def schedule(self, config: DiffusionConfig, steps: Sequence[int] | None = None) -> Any:
        return diffusion.make_schedule(config, steps)

    def fields(self, config: DiffusionConfig, steps: Sequence[int] | None = None) -> dict[str, Array]:
        return self.schedule(config, steps)

    def batch(self, arrays: Arrays) -> tuple[Array, Array, Array]:
        pixels, t, eps = arrays
        x_0 = pixels.astype(np.float32) / np.float32(127.5) - np.float32(1)  # in float32 by definition
        return x_0.astype(np.float64), t, eps

    def tensor(self, array: Array) -> Array:
        return array

    def times(self, t: Array) -> Array:
        return t

    def labels(self, labels: Array) -> Array:
        return labels

    def channels(self, x: Array, y: Array) -> Array:
        return np.concatenate([x, y], axis=-1)

    def array(self, tensor: Any) -> Array:
        return np.asarray(tensor)
