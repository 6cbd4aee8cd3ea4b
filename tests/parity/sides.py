"""The three sides of every comparison: PyTorch, TensorFlow and the oracle, behind one set of methods.

A quantity asks its side for tensors, a schedule, a network, and computes with them in the side's own precision. What it
returns is NumPy again, images [B, H, W, C] and parameters under their canonical names and layouts.
"""

import dataclasses
import functools
import importlib
import importlib.util
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ddpm_shared import reference
from ddpm_shared.config import Config, Device, DiffusionConfig, ModelConfig, Precision
from ddpm_shared.errors import UserError

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

    def __getattr__(self, module: str) -> ModuleType:
        """A module of the tree, `side.engine`; looked up each time, so that a planted fault is seen."""
        if module.startswith("_") or module in ("other", "kept"):
            raise AttributeError(module)
        return importlib.import_module(f"{self.tree}.{module}")

    def __str__(self) -> str:
        return f"{self.name}, {self.precision}"

    def configured(self, config: Config) -> Config:
        """`config` in this side's precision on its device."""
        return dataclasses.replace(config, precision=self.precision, device=self.device_name)

    def keep(self, key: Any, compute: Callable[[], Any]) -> Any:
        """compute(), once for this side."""
        if key not in self.kept:
            self.kept[key] = compute()
        return self.kept[key]


class Torch(Side):
    """The PyTorch tree."""

    name = "torch"
    tree = "ddpm_torch"

    def schedule(self, config: DiffusionConfig) -> Any:
        """The engine's Schedule."""
        return self.engine.make_schedule(config, self.dtype, self.device)

    def fields(self, config: DiffusionConfig) -> dict[str, Array]:
        """The arrays of the schedule by name."""
        return {name: self.array(value) for name, value in vars(self.schedule(config)).items()}

    def batch(self, arrays: Any) -> Any:
        """ddpm_shared.batches' arrays as the network gets them."""
        return self.data.to_batch(arrays, self.precision, self.device)

    def tensor(self, array: Array) -> Any:
        """A NumPy array in this side's precision, on its device; images turn from [B, H, W, C] to [B, C, H, W]."""
        if array.ndim == 4:
            return self.data.to_tensor(array, self.device).to(self.dtype)
        return self.torch.from_numpy(np.array(array)).to(self.device, self.dtype)

    def times(self, t: Array) -> Any:
        """[B] integer times."""
        return self.torch.from_numpy(np.array(t)).to(self.device)

    def array(self, tensor: Any) -> Array:
        """The inverse of `tensor`."""
        value: Array = tensor.detach().cpu().numpy()
        return value.transpose(0, 2, 3, 1) if value.ndim == 4 else value

    @property
    def torch(self) -> Any:
        """The framework."""
        return importlib.import_module("torch")

    def cast(self, tensor: Any) -> Any:
        """A tensor of the tree in this side's precision."""
        return tensor.to(self.dtype)

    def scalar(self, value: float) -> Any:
        """A number that changes from step to step, as this tree's train step passes it."""
        return value

    def variables(self, arrays: Sequence[Array]) -> list[Any]:
        """Parameters to be updated in place."""
        return [self.torch.from_numpy(np.array(a)).to(self.device, self.dtype) for a in arrays]

    def constants(self, arrays: Sequence[Array]) -> list[Any]:
        """Gradients."""
        return self.variables(arrays)

    def block(self, kind: str, *arguments: Any) -> Any:
        """A class of the tree's model.py."""
        return getattr(self.model, kind)(*arguments).to(self.device, self.dtype)

    def convolution(self, in_channels: int, out_channels: int, kernel: tuple[int, int]) -> Any:
        """A plain layer, for kernels that no block has."""
        padding = (kernel[0] // 2, kernel[1] // 2)
        layer = self.torch.nn.Conv2d(in_channels, out_channels, kernel, padding=padding)
        return layer.to(self.device, self.dtype)

    def network(self, config: ModelConfig, seed: int = 0) -> Any:
        """The U-Net at its initial values."""
        return self.model.UNet(config, seed, self.precision).to(self.device)

    def shapes(self, module: Any) -> dict[str, tuple[int, ...]]:
        """Canonical shape of each parameter."""
        return {name: tuple(p.shape) for name, p in module.named_parameters()}

    def parameters(self, module: Any) -> Parameters:
        """Values of the parameters, canonical."""
        return {name: p.detach().cpu().numpy() for name, p in module.named_parameters()}

    def assign(self, module: Any, values: Parameters) -> None:
        """Set every parameter."""
        with self.torch.no_grad():
            for name, parameter in module.named_parameters():
                parameter.copy_(self.torch.from_numpy(values[name]))

    def watch(self, module: Any) -> dict[str, Array]:
        """From now on, the output of every layer inside `module`, by its name, is kept in the dict returned."""
        seen: dict[str, Array] = {}
        for name, layer in module.named_modules():
            if name and not isinstance(layer, self.torch.nn.ModuleList):
                layer.register_forward_hook(
                    lambda layer, inputs, output, name=name: seen.update({name: self.array(output)})
                )
        return seen

    def value_and_gradients(self, module: Any, inputs: Sequence[Any], loss: Callable[[Any], Any]) -> tuple[Any, ...]:
        """module(*inputs), loss of it, and the loss's gradients by parameter name and by input."""
        leaves = [x.requires_grad_() if x.is_floating_point() else x for x in inputs]
        wanted = [x for x in leaves if x.is_floating_point()]
        parameters = dict(module.named_parameters())
        output = module(*leaves)
        value = loss(output)
        found = self.torch.autograd.grad(value, [*parameters.values(), *wanted])
        gradients = dict(zip(parameters, (g.cpu().numpy() for g in found), strict=False))
        of_inputs = {f"input {i}": self.array(g) for i, g in enumerate(found[len(parameters) :])}
        return self.array(output), value.item(), gradients, of_inputs

    def mean_square(self, x: Any) -> Any:
        """Mean of the squares of all elements."""
        return self.torch.mean(x**2)

    def dot(self, x: Any, y: Any) -> Any:
        """Sum of the products."""
        return self.torch.sum(x * y)

    def sampler(self, network: Any) -> Any:
        """The network as the tree's own sampling command calls it."""
        return network


class TensorFlow(Side):
    """The TensorFlow tree; what each method does is said at Torch's."""

    name = "tf"
    tree = "ddpm_tf"

    def schedule(self, config: DiffusionConfig) -> Any:
        return self.engine.make_schedule(config, self.dtype)

    def fields(self, config: DiffusionConfig) -> dict[str, Array]:
        return {name: self.array(value) for name, value in vars(self.schedule(config)).items()}

    def batch(self, arrays: Any) -> Any:
        return self.data.to_batch(arrays, self.precision)

    def tensor(self, array: Array) -> Any:
        return self.tf.cast(self.tf.convert_to_tensor(array), self.dtype)

    def times(self, t: Array) -> Any:
        return self.tf.constant(t)

    def array(self, tensor: Any) -> Array:
        return np.asarray(tensor.numpy())

    @property
    def tf(self) -> Any:
        """The framework."""
        return importlib.import_module("tensorflow")

    def cast(self, tensor: Any) -> Any:
        return self.tf.cast(tensor, self.dtype)

    def scalar(self, value: float) -> Any:
        return self.tf.constant(value, self.tf.float64)

    def variables(self, arrays: Sequence[Array]) -> list[Any]:
        return [self.tf.Variable(self.tensor(a)) for a in arrays]

    def constants(self, arrays: Sequence[Array]) -> list[Any]:
        return [self.tensor(a) for a in arrays]

    def block(self, kind: str, *arguments: Any) -> Any:
        return getattr(self.model, kind)(*arguments, self.dtype.name)

    def convolution(self, in_channels: int, out_channels: int, kernel: tuple[int, int]) -> Any:
        layer = self.model.layers.Conv2D(out_channels, kernel, padding="same", dtype=self.dtype.name)
        layer.build([None, None, None, in_channels])
        return layer

    def network(self, config: ModelConfig, seed: int = 0) -> Any:
        return self.model.UNet(config, seed, self.precision)

    def shapes(self, module: Any) -> dict[str, tuple[int, ...]]:
        return {name: self.model.canonical_shape(p) for name, p in self.model.named_parameters(module)}

    def parameters(self, module: Any) -> Parameters:
        return {name: self.model.to_canonical(p.numpy()) for name, p in self.model.named_parameters(module)}

    def assign(self, module: Any, values: Parameters) -> None:
        for name, parameter in self.model.named_parameters(module):
            parameter.assign(self.model.from_canonical(values[name]))

    def watch(self, module: Any) -> dict[str, Array]:
        seen: dict[str, Array] = {}

        def wrap(layer: Any, name: str) -> None:
            call = layer.call

            @functools.wraps(call)
            def watched(*arguments: Any) -> Any:
                output = call(*arguments)
                seen[name] = self.array(output)
                return output

            layer.call = watched  # Keras has no hooks

        for name, layer in self._layers(module, ""):
            wrap(layer, name)
        return seen

    def _layers(self, layer: Any, prefix: str) -> Any:
        for name, value in vars(layer).items():
            inside = enumerate(value) if isinstance(value, list) else [(None, value)]
            for index, item in inside:
                # Padding and upsampling, layers without weights in Keras, are mere operations in PyTorch.
                if isinstance(item, self.model.layers.Layer) and not name.startswith("_") and item.variables:
                    path = f"{prefix}{name}" if index is None else f"{prefix}{name}.{index}"
                    yield path, item
                    yield from self._layers(item, path + ".")

    def value_and_gradients(self, module: Any, inputs: Sequence[Any], loss: Callable[[Any], Any]) -> tuple[Any, ...]:
        wanted = [x for x in inputs if x.dtype.is_floating]
        with self.tf.GradientTape() as tape:
            for x in wanted:
                tape.watch(x)
            output = module(*inputs)
            value = loss(output)
        parameters = dict(self.model.named_parameters(module))
        found = tape.gradient(value, [*parameters.values(), *wanted])
        gradients = {name: self.model.to_canonical(g.numpy()) for name, g in zip(parameters, found, strict=False)}
        of_inputs = {f"input {i}": self.array(g) for i, g in enumerate(found[len(parameters) :])}
        return self.array(output), float(value), gradients, of_inputs

    def mean_square(self, x: Any) -> Any:
        return self.tf.reduce_mean(x**2)

    def dot(self, x: Any, y: Any) -> Any:
        return self.tf.reduce_sum(x * y)

    def sampler(self, network: Any) -> Any:
        return self.model.compiled(network)


class Oracle(Side):
    """ddpm_shared.reference and reference_model: float64 NumPy, written to be right, not fast. Needs no framework."""

    name = "oracle"
    engine = reference

    def __init__(self) -> None:
        self.precision, self.device_name, self.kept = "fp64", "cpu", {}
        self.torch = Torch("fp64")  # whose parameters' names and shapes, never values, are taken over

    def shapes_of(self, make: Callable[[Torch], Any]) -> dict[str, tuple[int, ...]]:
        """Canonical name and shape of each parameter of a module of the PyTorch tree."""
        return self.torch.shapes(make(self.torch))

    def schedule(self, config: DiffusionConfig) -> Any:
        return reference.linear_schedule(config.timesteps, config.beta_start, config.beta_end)

    def fields(self, config: DiffusionConfig) -> dict[str, Array]:
        return self.schedule(config)

    def tensor(self, array: Array) -> Array:
        return array

    def times(self, t: Array) -> Array:
        return t

    def array(self, tensor: Any) -> Array:
        return np.asarray(tensor)


def installed(framework: str) -> bool:
    """Whether it is there. From the root, the folder tensorflow/ can be imported as well, but has no origin."""
    spec = importlib.util.find_spec(framework)
    return spec is not None and spec.origin is not None


def sides(precision: Precision, device: Device = "cpu", oracle: Oracle | None = None) -> dict[str, Side]:
    """The three by name; an oracle may serve both precisions, so that it computes everything once.

    Raises:
        UserError: a framework is not installed, or there is no GPU.
    """
    for framework in ("torch", "tensorflow"):
        if not installed(framework):
            raise UserError(f"{framework} is not installed, and parity compares both frameworks: run `make setup`")
    torch, tf = Torch(precision, device), TensorFlow(precision, device)
    torch.other, tf.other = tf, torch
    return {"torch": torch, "tf": tf, "oracle": oracle or Oracle()}
