"""TensorFlow's side; what each method does is said at PyTorch's."""

import contextlib
import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ddpm_parity.sides import Array, Parameters, Side
from ddpm_shared.config import Device, DiffusionConfig, Precision


class TensorFlow(Side):
    """The TensorFlow tree."""

    name = "tf"
    tree = "ddpm_tf"

    def __init__(self, precision: Precision, device: Device = "cpu") -> None:
        super().__init__(precision, device)
        self.tf.config.experimental.enable_tensor_float_32_execution(False)  # as in PyTorch

    def schedule(self, config: DiffusionConfig, steps: Sequence[int] | None = None) -> Any:
        return self.engine.make_schedule(config, self.dtype, steps)

    def batch(self, arrays: Any) -> Any:
        return self.data.to_batch(arrays, self.precision)

    def tensor(self, array: Array) -> Any:
        return self.tf.cast(self.tf.convert_to_tensor(array), self.dtype)

    def times(self, t: Array) -> Any:
        return self.tf.constant(t)

    def labels(self, labels: Array) -> Any:
        return self.data.to_labels(labels)

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
        return self.layer_class(kind)(*arguments, self.dtype.name)

    def convolution(self, in_channels: int, out_channels: int, kernel: tuple[int, int]) -> Any:
        layer = self.networks.layers.Conv2D(out_channels, kernel, padding="same", dtype=self.dtype.name)
        layer.build([None, None, None, in_channels])
        return layer

    def shapes(self, module: Any) -> dict[str, tuple[int, ...]]:
        layouts = self.model.layouts(module)
        parameters = self.model.named_parameters(module)
        return {name: self.model.canonical_shape(p, layouts[name]) for name, p in parameters.items()}

    def parameters(self, module: Any) -> Parameters:
        layouts = self.model.layouts(module)
        parameters = self.model.named_parameters(module)
        return {name: self.model.to_canonical(p.numpy(), layouts[name]) for name, p in parameters.items()}

    def assign(self, module: Any, values: Parameters) -> None:
        layouts = self.model.layouts(module)
        for name, parameter in self.model.named_parameters(module).items():
            parameter.assign(self.model.from_canonical(values[name], layouts[name]))

    def value_and_gradients(self, module: Any, inputs: Sequence[Any], loss: Callable[[Any], Any]) -> tuple[Any, ...]:
        wanted = [x for x in inputs if x.dtype.is_floating]
        with self.tf.GradientTape() as tape:
            for x in wanted:
                tape.watch(x)
            output = module(*inputs)
            value = loss(output)
        parameters, layouts = self.model.named_parameters(module), self.model.layouts(module)
        found = tape.gradient(value, [*parameters.values(), *wanted])
        gradients = {
            name: self.model.to_canonical(g.numpy(), layouts[name]) for name, g in zip(parameters, found, strict=False)
        }
        of_inputs = {f"input {i}": self.array(g) for i, g in enumerate(found[len(parameters) :])}
        return self.array(output), float(value), gradients, of_inputs

    def mean_square(self, x: Any) -> Any:
        return self.tf.reduce_mean(x**2)

    def dot(self, x: Any, y: Any) -> Any:
        return self.tf.reduce_sum(x * y)

    def channels(self, x: Any, y: Any) -> Any:
        return self.tf.concat([x, y], axis=-1)

    def slopes(self, function: Callable[[Any], Any], at: Array) -> Array:
        vector = self.tensor(at)
        with self.tf.GradientTape() as tape:
            tape.watch(vector)
            value = function(vector)
        return self.array(tape.gradient(value, vector))

    def sampler(self, network: Any) -> Any:
        return self.model.compiled(network)


@contextlib.contextmanager
def as_traced() -> Iterator[None]:
    """A context in which TensorFlow runs its graphs as they were traced.

    Otherwise it rewrites them first, which takes half of the time until the first result and changes rounding alone.
    """
    importlib.import_module("ddpm_tf")  # which imports TensorFlow quietly
    options = importlib.import_module("tensorflow").config.optimizer
    options.set_experimental_options({"disable_meta_optimizer": True})
    try:
        yield
    finally:
        options.set_experimental_options({"disable_meta_optimizer": False})
