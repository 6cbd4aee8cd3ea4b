"""What happens to an image in a network: layers, shapes, arithmetic, and how far it sees. Mirror: ddpm_tf.trace."""

import contextlib
from collections.abc import Iterator
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ddpm_shared.passport.trace import Call, Kind, Source, Step, source
from ddpm_torch.config import ModelConfig
from ddpm_torch.networks.dit import DiTBlock
from ddpm_torch.networks.layers import (
    AttentionBlock,
    BatchNorm,
    Downsample,
    LabelEmbedding,
    MultiHeadAttention,
    ResidualBlock,
    TransposedConvolution,
    Upsample,
)
from ddpm_torch.networks.residual_unet import BatchNormBlock, DeepAttention
from ddpm_torch.networks.simple_unet import Doubling
from ddpm_torch.networks.transformer_unet import Attention, FourierFeatures, Level, SpatialTransformer
from ddpm_torch.networks.unet import Stage

KINDS: dict[type[nn.Module], Kind] = {
    nn.Conv2d: "convolution",
    nn.ConvTranspose2d: "transposed convolution",
    nn.Linear: "linear",
    nn.GroupNorm: "group norm",
    BatchNorm: "batch norm",
    nn.LayerNorm: "layer norm",
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


def trace(network: nn.Module, size: tuple[int, int] | None = None) -> list[Step]:
    """What every layer of a network does with one image, in the order in which they begin.

    Args:
        network: from model.make_network.
        size: height and width of the image (default: those of the network's config).

    Mirror: ddpm_tf.trace.trace.
    """
    config = cast(ModelConfig, network.config)
    height, width = size or 2 * (config.image_size,)
    weight = next(network.parameters())
    x_t = torch.zeros(1, config.image_channels, height, width, dtype=weight.dtype, device=weight.device)
    with torch.no_grad(), _watched(network) as calls:
        network(x_t, torch.zeros(1, dtype=torch.int64, device=weight.device))
    first = {call.name: call for call in reversed(calls)}
    return [
        Step(
            call.name,
            KINDS[type(call.layer)],
            _shape(call.inputs[0]),
            _shape(_output(call)),
            _parameters(call.layer) if call is first[call.name] else 0,
            _multiply_adds(call.layer, call.inputs, call.output),
        )
        for call in calls
    ]


def activations(
    network: nn.Module, x_t: NDArray[np.floating], t: NDArray[np.integer]
) -> dict[str, NDArray[np.float64]]:
    """The output of every layer of a network by its canonical name; of one that is called twice, the last.

    Args:
        network: from model.make_network.
        x_t: [B, H, W, C].
        t: [B].

    Returns:
        Images as [B, H, W, C], tokens as [B, N, C].

    Mirror: ddpm_tf.trace.activations.
    """
    weight = next(network.parameters())
    images = torch.from_numpy(x_t).permute(0, 3, 1, 2).to(weight.device, weight.dtype)
    with torch.no_grad(), _watched(network) as calls:
        network(images, torch.from_numpy(t).to(weight.device))
    arrays = {call.name: _output(call).double().cpu().numpy() for call in calls}
    return {name: array.transpose(0, 2, 3, 1) if array.ndim == 4 else array for name, array in arrays.items()}


def receptive_field(network: nn.Module, x_t: NDArray[np.floating], t: NDArray[np.integer]) -> tuple[int, int]:
    """Rows and columns of the input on which the pixel in the middle of the output depends, by its gradient.

    Args:
        network: without a weight that is zero, in float64.
        x_t: [B, H, W, C], at which the gradient is taken; the extent is that of all B together.
        t: [B].

    Mirror: ddpm_tf.trace.receptive_field.
    """
    weight = next(network.parameters())
    images = torch.from_numpy(x_t).permute(0, 3, 1, 2).to(weight.device, weight.dtype).requires_grad_()
    output = network(images, torch.from_numpy(t).to(weight.device))
    middle = output[:, :, output.shape[2] // 2, output.shape[3] // 2].sum()
    (gradient,) = torch.autograd.grad(middle, images)
    seen = gradient.abs().amax(dim=(0, 1)) > 0  # [H, W]
    rows, columns = (torch.nonzero(seen.any(dim=axis))[:, 0] for axis in (1, 0))
    return int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1


def sources(network: nn.Module) -> dict[str, Source | None]:
    """Where every layer of a network stands in the repository, by its canonical name.

    Mirror: ddpm_tf.trace.sources.
    """
    places = {}
    layers = dict(network.named_modules())
    for name in _layers(network):
        *owner, attribute = name.split(".")
        if attribute.isdigit():  # in a list
            *owner, attribute = owner
        places[name] = source(type(layers[name]), type(layers[".".join(owner)]), attribute)
    return places


# --- PyTorch has hooks; Keras has none, so there each layer's `call` is replaced for a while.


@contextlib.contextmanager
def _watched(network: nn.Module) -> Iterator[list[Call]]:
    """The calls of all layers inside, while the block lasts."""
    calls: list[Call] = []
    running: list[Call] = []
    names = {id(layer): name for name, layer in _layers(network).items()}

    def enter(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        calls.append(Call(names[id(layer)], layer, inputs, running[-1] if running else None))
        running.append(calls[-1])

    def leave(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        running.pop().output = output

    hooks = [
        hook
        for layer in _layers(network).values()
        for hook in (layer.register_forward_pre_hook(enter), layer.register_forward_hook(leave))
    ]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def _layers(network: nn.Module) -> dict[str, nn.Module]:
    """Every layer inside by its canonical name."""
    return {name: layer for name, layer in network.named_modules() if name and not isinstance(layer, nn.ModuleList)}


def _output(call: Call) -> Tensor:
    """What a layer gives. Of a transposed convolution, each tree cuts off a part in its own place: what is left."""
    return call.around.output if type(call.layer) is nn.ConvTranspose2d and call.around else call.output


def _shape(x: Tensor) -> tuple[int, ...]:
    """Of one image: [C, H, W], [N, C], [C] or []."""
    return tuple(x.shape[1:])


def _parameters(layer: nn.Module) -> int:
    """A layer's own, without those of the layers inside."""
    return sum(parameter.numel() for parameter in layer.parameters(recurse=False))


def _multiply_adds(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> int:
    """A layer's own, for one image."""
    if isinstance(layer, nn.Conv2d):
        return layer.weight.numel() * output.shape[2:].numel()
    if isinstance(layer, nn.ConvTranspose2d):  # each pixel of the input adds its kernel
        return layer.weight.numel() * inputs[0].shape[2:].numel()
    if isinstance(layer, nn.Linear):
        return layer.weight.numel() * output.shape[1:-1].numel()
    if isinstance(layer, LabelEmbedding):
        return layer.weight.numel()
    if isinstance(layer, AttentionBlock | MultiHeadAttention | Attention):
        queries, keys = (_positions(tensor) for tensor in (inputs[0], inputs[-1]))
        return 2 * queries * keys * layer.query.out_features  # q k^T, and the weights times v
    return 0


def _positions(x: Tensor) -> int:
    """The pixels of images [B, C, H, W], or the tokens of [B, N, C]."""
    return x.shape[2:].numel() if x.ndim == 4 else x.shape[1]
