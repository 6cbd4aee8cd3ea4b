"""A look inside a network of either tree: what it says, what every layer in it says, and what weights it has."""

import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddpm_course.tree import Tree

Array = NDArray[np.float64]


def ask(tree: Tree, network: Any, x_t: NDArray[np.floating], t: Sequence[int]) -> Array:
    """What a network says of noisy images.

    Args:
        tree: the network's.
        network: from `tree.model.load` or `tree.model.make_network`, in float32, on the CPU.
        x_t: [B, H, W, C].
        t: [B], 0 .. T - 1.

    Returns:
        [B, H, W, C], e.g. eps_pred.
    """
    inputs = tree.data.to_tensor(np.asarray(x_t, np.float32)), tree.times(t)
    if tree.framework == "torch":
        with importlib.import_module("torch").no_grad():
            return tree.data.to_array(network(*inputs))
    return tree.data.to_array(network(*inputs))


def gradient(tree: Tree, network: Any, x_t: NDArray[np.floating], t: Sequence[int], pixel: tuple[int, int]) -> Array:
    """The gradient of one pixel of the first image's answer, by every pixel of every image that the network was given.

    Args:
        tree: as of `ask`.
        network: as of `ask`.
        x_t: as of `ask`.
        t: as of `ask`.
        pixel: row and column; its channels are added up.

    Returns:
        [B, H, W, C].
    """
    row, column = pixel
    inputs = tree.data.to_tensor(np.asarray(x_t, np.float32)), tree.times(t)
    if tree.framework == "torch":
        torch = importlib.import_module("torch")
        x = inputs[0].requires_grad_()
        answer = network(x, inputs[1])[0, :, row, column].sum()
        return tree.data.to_array(torch.autograd.grad(answer, x)[0])
    tf = importlib.import_module("tensorflow")

    def slope(x: Any, times: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            answer = tf.reduce_sum(network(x, times)[0, row, column])
        return tape.gradient(answer, x)

    # As a graph: operation by operation, TensorFlow prints an error on some processors, which is none.
    graph = tf.function(slope, autograph=False).get_concrete_function(*inputs)
    return tree.data.to_array(graph(*inputs))


def activations(tree: Tree, network: Any, x_t: NDArray[np.floating], t: Sequence[int]) -> dict[str, Array]:
    """What every layer of a network says on the way, by its canonical name, e.g. "down.0.residual.conv_1".

    Arguments as of `ask`, whose answer is that of "conv_out". Images are [B, H, W, C], tokens of attention [B, H*W, C].
    """
    network = layered(network)
    seen: dict[str, Array] = {}

    def keep(name: str, output: Any) -> None:
        seen[name] = tree.data.to_array(output) if len(output.shape) == 4 else output.numpy().astype(np.float64)

    forget = watch(network, keep)
    try:
        ask(tree, network, x_t, t)
    finally:
        forget()
    return seen


def watch(network: Any, keep: Callable[[str, Any], None]) -> Callable[[], None]:
    """Let `keep` be told the canonical name and the output of every layer, whenever it computes.

    Args:
        network: a module of either tree.
        keep: takes the name and the output, a tensor.

    Returns:
        What ends it.
    """
    return (_watch_torch if hasattr(network, "register_forward_hook") else _watch_tf)(network, keep)


def shapes(tree: Tree, network: Any) -> dict[str, tuple[int, ...]]:
    """The canonical shape of every parameter of a network, by its canonical name."""
    network = layered(network)
    if tree.framework == "torch":
        return {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    layouts, parameters = tree.model.layouts(network), tree.model.named_parameters(network)
    return {name: tree.model.canonical_shape(parameter, layouts[name]) for name, parameter in parameters.items()}


def layered(network: Any) -> Any:
    """TensorFlow's network comes wrapped into a graph, which has no layers: this is what was wrapped."""
    return getattr(network, "python_function", network)


def _watch_torch(network: Any, keep: Callable[[str, Any], None]) -> Callable[[], None]:
    hooks = [
        layer.register_forward_hook(lambda layer, inputs, output, name=name: keep(name, output))
        for name, layer in network.named_modules()
        if name and type(layer).__name__ != "ModuleList"
    ]

    def forget() -> None:
        for hook in hooks:
            hook.remove()

    return forget


def _watch_tf(network: Any, keep: Callable[[str, Any], None]) -> Callable[[], None]:
    """The same for Keras, which has no hooks: each layer's `call` is replaced for a while."""

    def watched(call: Callable[..., Any], name: str) -> Callable[..., Any]:
        def told(*inputs: Any) -> Any:
            output = call(*inputs)
            keep(name, output)
            return output

        return told

    layers = list(_keras_layers(network, ""))
    for name, layer in layers:
        layer.call = watched(layer.call, name)

    def forget() -> None:
        for _, layer in layers:
            del layer.call

    return forget


def _keras_layers(layer: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Every layer inside that has weights, by its canonical name. Padding and repeating are no layers in PyTorch."""
    base = importlib.import_module("keras").layers.Layer
    for attribute, value in vars(layer).items():
        for index, item in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(item, base) and not attribute.startswith("_") and item.variables:
                name = f"{prefix}{attribute}" if index is None else f"{prefix}{attribute}.{index}"
                yield name, item
                yield from _keras_layers(item, name + ".")
