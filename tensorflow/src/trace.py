"""What happens to an image in a network: layers, shapes, arithmetic, and how far it sees. Mirror: ddpm_torch.trace."""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from keras import layers
from numpy.typing import NDArray

from ddpm_shared.passport.trace import Call, Kind, Source, Step, source
from ddpm_tf.networks.dit import DiTBlock
from ddpm_tf.networks.layers import (
    AttentionBlock,
    BatchNorm,
    Downsample,
    GroupNorm,
    LabelEmbedding,
    MultiHeadAttention,
    ResidualBlock,
    TransposedConvolution,
    Upsample,
)
from ddpm_tf.networks.residual_unet import BatchNormBlock, DeepAttention
from ddpm_tf.networks.simple_unet import Doubling
from ddpm_tf.networks.transformer_unet import Attention, FourierFeatures, Level, SpatialTransformer
from ddpm_tf.networks.unet import Stage

KINDS: dict[type[layers.Layer], Kind] = {
    layers.Conv2D: "convolution",
    layers.Conv2DTranspose: "transposed convolution",
    layers.Dense: "linear",
    GroupNorm: "group norm",
    BatchNorm: "batch norm",
    layers.LayerNormalization: "layer norm",
    AttentionBlock: "attention",
    MultiHeadAttention: "attention",
    Attention: "attention",
    LabelEmbedding: "label table",
    FourierFeatures: "Fourier features",
    ResidualBlock: "residual block",
    BatchNormBlock: "residual block",
    SpatialTransformer: "transformer",
    DeepAttention: "attention block",
    DiTBlock: "transformer",
    Stage: "stage",
    Level: "stage",
    Downsample: "downsampling",
    Upsample: "upsampling",
    TransposedConvolution: "upsampling",
    Doubling: "upsampling",
}


def trace(network: layers.Layer, size: tuple[int, int] | None = None) -> list[Step]:
    """What every layer of a network does with one image, in the order in which they begin.

    Args:
        network: from model.make_network.
        size: height and width of the image (default: those of the network's config).

    Mirror: ddpm_torch.trace.trace.
    """
    height, width = size or 2 * (network.config.image_size,)
    with _watched(network) as calls:
        network(tf.zeros([1, height, width, network.config.image_channels], network.variable_dtype), tf.zeros([1]))
    first = {call.name: call for call in reversed(calls)}
    return [
        Step(
            call.name,
            KINDS[type(call.layer)],
            _taken(call),
            _shape(_output(call)),
            _parameters(call.layer) if call is first[call.name] else 0,
            _multiply_adds(call.layer, call.inputs, call.output),
        )
        for call in calls
    ]


def activations(
    network: layers.Layer, x_t: NDArray[np.floating], t: NDArray[np.integer]
) -> dict[str, NDArray[np.float64]]:
    """The output of every layer of a network by its canonical name; of one that is called twice, the last.

    Args:
        network: from model.make_network.
        x_t: [B, H, W, C].
        t: [B].

    Returns:
        Images as [B, H, W, C], tokens as [B, N, C].

    Mirror: ddpm_torch.trace.activations.
    """
    with _watched(network) as calls:
        network(tf.constant(x_t, network.variable_dtype), tf.constant(t))
    return {call.name: _output(call).numpy().astype(np.float64) for call in calls}


def receptive_field(network: layers.Layer, x_t: NDArray[np.floating], t: NDArray[np.integer]) -> tuple[int, int]:
    """Rows and columns of the input on which the pixel in the middle of the output depends, by its gradient.

    Args:
        network: without a weight that is zero, in float64.
        x_t: [B, H, W, C], at which the gradient is taken; the extent is that of all B together.
        t: [B].

    Mirror: ddpm_torch.trace.receptive_field.
    """
    images = tf.constant(x_t, network.variable_dtype)
    with tf.GradientTape() as tape:
        tape.watch(images)
        output = network(images, tf.constant(t))
        middle = tf.reduce_sum(output[:, output.shape[1] // 2, output.shape[2] // 2, :])
    seen = tf.reduce_max(tf.abs(tape.gradient(middle, images)), axis=[0, 3]) > 0  # [H, W]
    rows, columns = (tf.where(tf.reduce_any(seen, axis=axis))[:, 0] for axis in (1, 0))
    return int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1


def sources(network: layers.Layer) -> dict[str, Source | None]:
    """Where every layer of a network stands in the repository, by its canonical name.

    Mirror: ddpm_torch.trace.sources.
    """
    places = {}
    inside: dict[str, layers.Layer] = {"": network, **_layers(network)}
    for name in _layers(network):
        *owner, attribute = name.split(".")
        if attribute.isdigit():  # in a list
            *owner, attribute = owner
        places[name] = source(type(inside[name]), type(inside[".".join(owner)]), attribute)
    return places


# --- PyTorch has hooks; Keras has none, so there each layer's `call` is replaced for a while.


@contextlib.contextmanager
def _watched(network: layers.Layer) -> Iterator[list[Call]]:
    """The calls of all layers inside, while the block lasts."""
    calls: list[Call] = []
    running: list[Call] = []

    def watched(name: str, layer: layers.Layer, call: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
        def seen(*inputs: Any) -> tf.Tensor:
            calls.append(Call(name, layer, inputs, running[-1] if running else None))
            running.append(calls[-1])
            output = call(*inputs)
            running.pop().output = output
            return output

        return seen

    inside = _layers(network)
    for name, layer in inside.items():
        layer.call = watched(name, layer, layer.call)
    try:
        yield calls
    finally:
        for layer in inside.values():
            del layer.call


def _layers(layer: layers.Layer, prefix: str = "") -> dict[str, layers.Layer]:
    """Every layer inside that has weights, by its canonical name. Padding and repeating are no layers in PyTorch."""
    inside: dict[str, layers.Layer] = {}
    for attribute, value in vars(layer).items():
        for index, item in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(item, layers.Layer) and not attribute.startswith("_") and item.variables:
                name = f"{prefix}{attribute}" if index is None else f"{prefix}{attribute}.{index}"
                inside |= {name: item, **_layers(item, name + ".")}
    return inside


def _output(call: Call) -> tf.Tensor:
    """What a layer gives. Of a transposed convolution, each tree cuts off a part in its own place: what is left."""
    return call.around.output if type(call.layer) is layers.Conv2DTranspose and call.around else call.output


def _taken(call: Call) -> tuple[int, ...]:
    """The shape of a layer's input, without its padding: PyTorch pads inside its convolutions, we before Keras'."""
    shape = _shape(call.inputs[0])
    if isinstance(call.layer, layers.Conv2D) and call.layer.padding == "valid":
        rows, columns = (side - kernel + 1 for side, kernel in zip(shape[1:], call.layer.kernel_size, strict=True))
        return shape[0], rows, columns
    return shape


def _shape(x: tf.Tensor) -> tuple[int, ...]:
    """Of one image: [C, H, W], [N, C], [C] or []."""
    _, *shape = x.shape
    return (shape[2], shape[0], shape[1]) if len(shape) == 3 else tuple(shape)


def _parameters(layer: layers.Layer) -> int:
    """A layer's own, without those of the layers inside."""
    return 0 if _layers(layer) else sum(math.prod(variable.shape) for variable in layer.trainable_variables)


def _multiply_adds(layer: layers.Layer, inputs: tuple[tf.Tensor, ...], output: tf.Tensor) -> int:
    """A layer's own, for one image."""
    if isinstance(layer, layers.Conv2D):
        return math.prod(layer.kernel.shape) * math.prod(output.shape[1:3])
    if isinstance(layer, layers.Conv2DTranspose):  # each pixel of the input adds its kernel
        return math.prod(layer.kernel.shape) * math.prod(inputs[0].shape[1:3])
    if isinstance(layer, layers.Dense):
        return math.prod(layer.kernel.shape) * math.prod(output.shape[1:-1])
    if isinstance(layer, LabelEmbedding):
        return math.prod(layer.weight.shape)
    if isinstance(layer, AttentionBlock | MultiHeadAttention | Attention):
        queries, keys = (_positions(tensor) for tensor in (inputs[0], inputs[-1]))
        return 2 * queries * keys * layer.query.units  # q k^T, and the weights times v
    return 0


def _positions(x: tf.Tensor) -> int:
    """The pixels of images [B, H, W, C], or the tokens of [B, N, C]."""
    return math.prod(x.shape[1:-1])
