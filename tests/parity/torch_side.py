"""PyTorch's side. Its methods say what TensorFlow's of the same names do."""

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ddpm_parity.sides import Array, Parameters, Side
from ddpm_shared.config import Device, DiffusionConfig, Precision


class Torch(Side):
    """The PyTorch tree."""

    name = "torch"
    tree = "ddpm_torch"

    def __init__(self, precision: Precision, device: Device = "cpu") -> None:
        super().__init__(precision, device)
        # TF32 keeps ten bits of a float32's fraction: both frameworks would use it on a GPU, each in its own places.
        self.torch.backends.cuda.matmul.allow_tf32 = self.torch.backends.cudnn.allow_tf32 = False

    def schedule(self, config: DiffusionConfig, steps: Sequence[int] | None = None) -> Any:
        """The engine's Schedule."""
        return self.engine.make_schedule(config, self.dtype, self.device, steps)

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

    def labels(self, labels: Array) -> Any:
        """[B] classes, or [B, K + 1] weights."""
        return self.data.to_labels(labels, self.device)

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
        """A layer of the tree's networks/."""
        return self.layer_class(kind)(*arguments).to(self.device, self.dtype)

    def convolution(self, in_channels: int, out_channels: int, kernel: tuple[int, int]) -> Any:
        """A plain layer, for kernels that no block has."""
        padding = (kernel[0] // 2, kernel[1] // 2)
        layer = self.torch.nn.Conv2d(in_channels, out_channels, kernel, padding=padding)
        return layer.to(self.device, self.dtype)

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

    def channels(self, x: Any, y: Any) -> Any:
        """The channels of two batches of images, one after the other."""
        return self.torch.cat([x, y], dim=1)

    def slopes(self, function: Callable[[Any], Any], at: Array) -> Array:
        """The gradient of function(a vector) -> scalar."""
        vector = self.tensor(at).requires_grad_()
        return self.array(self.torch.autograd.grad(function(vector), vector)[0])

    def sampler(self, network: Any) -> Any:
        """The network as the tree's own sampling command calls it."""
        return network
