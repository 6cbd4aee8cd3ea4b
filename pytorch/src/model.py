"""The front door to the networks: build, initialise, load, compile, name parameters. Mirror: ddpm_tf.model.

Device, number format and memory format of a network are decided here, and nowhere in networks/.
"""

import sys
import types
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ddpm_shared.parameters import fourier_frequencies, initial_value
from ddpm_shared.records import checkpoint
from ddpm_shared.records.checkpoint import Checkpoint
from ddpm_torch import utils
from ddpm_torch.config import Config, NetworkName
from ddpm_torch.networks.denoise_net import DenoiseNet
from ddpm_torch.networks.dit import DiT
from ddpm_torch.networks.layers import BatchNorm
from ddpm_torch.networks.residual_unet import ResidualUNet
from ddpm_torch.networks.simple_unet import SimpleUNet
from ddpm_torch.networks.transformer_unet import TransformerUNet
from ddpm_torch.networks.unet import UNet

Network = UNet | TransformerUNet | ResidualUNet | SimpleUNet | DenoiseNet | DiT

NETWORKS: dict[NetworkName, type[Network]] = {
    "unet": UNet,
    "transformer_unet": TransformerUNet,
    "residual_unet": ResidualUNet,
    "simple_unet": SimpleUNet,
    "denoise_net": DenoiseNet,
    "dit": DiT,
}


def make_network(config: Config, seed: int | None = None) -> Network:
    """The network that `config` describes, on its device and in its precision, not in training (see set_training).

    In "bf16" the parameters are float32, and most of the arithmetic inside is bfloat16.

    Args:
        config: its network, precision and device are used.
        seed: of the initial values; without one the parameters are to be loaded.

    Raises:
        UserError: a GPU is asked for where there is none.

    Mirror: ddpm_tf.model.make_network.
    """
    device, dtype = utils.select_device(config.device), utils.dtype(config.precision)
    utils.set_tf32(config.tf32)
    network = NETWORKS[config.model.network](config.model, config.out_channels)
    set_training(network, False)
    # Channels innermost: the layout in which convolutions are fastest, on a CPU as on a GPU's tensor cores.
    network.to(device, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload] # unknown to it
    if config.precision == "bf16":  # a method, so that a copy of the network calls its own
        network.forward = types.MethodType(_forward_in_bfloat16, network)  # type: ignore[method-assign]
    if seed is not None:
        initialise(network, seed)
    return network


def _forward_in_bfloat16(network: nn.Module, x_t: Tensor, *others: Tensor) -> Tensor:
    with torch.autocast(x_t.device.type, torch.bfloat16):
        return type(network).forward(network, x_t, *others)


@torch.no_grad()
def initialise(network: Network, seed: int) -> None:
    """Set every parameter, and every buffer that is drawn, to its initial value, a function of seed, name and shape.

    Args:
        network: its `zero_at_start` names the weights that begin at zero, by the ends of their names; its
            `normal_at_start` names the buffers that are drawn, with their standard deviations.
        seed: 0 or more.

    Source: ddpm_shared.parameters.
    Mirror: ddpm_tf.model.initialise.
    """
    for name, parameter in named_parameters(network).items():
        value = initial_value(seed, name, tuple(parameter.shape), network.zero_at_start)
        parameter.copy_(torch.from_numpy(value))
    buffers = named_buffers(network)
    for name, scale in network.normal_at_start.items():
        buffers[name].copy_(torch.from_numpy(fourier_frequencies(seed, name, len(buffers[name]), scale)))


def set_training(network: nn.Module, training: bool) -> None:
    """Say whether BatchNorm takes the moments of its batch, or those that it remembers. Nothing else depends on it.

    Mirror: ddpm_tf.model.set_training.
    """
    network.train(training)


def seen_moments(network: nn.Module) -> list[Tensor]:
    """The moments of the batch that last went through each BatchNorm in training: a mean and a variance of each.

    Mirror: ddpm_tf.model.seen_moments.
    """
    return [moment for layer in _batch_norms(network) for moment in layer.seen or ()]


def remember_moments(network: nn.Module, moments: list[Tensor] | None = None) -> None:
    """Let each BatchNorm take in the moments of the batch that last went through it in training.

    Args:
        network: with any number of them, or none.
        moments: to take in instead, in the order of seen_moments.

    Mirror: ddpm_tf.model.remember_moments.
    """
    for i, layer in enumerate(_batch_norms(network)):
        if moments is not None:
            layer.seen = moments[2 * i], moments[2 * i + 1]
        layer.remember()


def _batch_norms(network: nn.Module) -> list[BatchNorm]:
    return [layer for layer in network.modules() if isinstance(layer, BatchNorm)]


@torch.no_grad()
def load(loaded: Checkpoint, prefix: str, config: Config) -> Callable[..., Tensor]:
    """The network of a checkpoint of either framework, ready to be called as `config` says: where and how.

    Args:
        loaded: with the tensors under `prefix`.
        prefix: "ema" for the averaged weights, "model" for the weights themselves.
        config: the checkpoint's, with the precision, device, threads and compiling that are wanted.

    Raises:
        UserError: the tensors do not fit the network.

    Mirror: ddpm_tf.model.load.
    """
    utils.set_threads(config.threads)
    network = make_network(config).requires_grad_(False)
    for place, tensors in ((prefix, named_parameters(network)), (checkpoint.BUFFERS, named_buffers(network))):
        values = checkpoint.select(loaded, place, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
        for name, tensor in tensors.items():
            tensor.copy_(torch.from_numpy(values[name]))
    return compiled(network, config.compile)


def compiled(network: Network, compile: bool = False) -> Callable[..., Tensor]:
    """`network`, made ready to be called many times.

    PyTorch runs it as it is, TensorFlow as one graph for every batch size: called directly, Keras would run it layer by
    layer. With `compile` it goes through the framework's compiler, torch.compile or XLA, at its first call; where
    PyTorch finds no C++ compiler, it prints that and goes on without.

    Returns:
        (x_t, t, labels=None) -> output, as the network's own.

    Mirror: ddpm_tf.model.compiled.
    """
    if not compile:
        return network
    from torch._dynamo.exc import BackendCompilerFailed  # here: it takes a second

    inner = torch.compile(network)

    def call(x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        nonlocal inner
        try:
            return inner(x_t, t, labels)
        except BackendCompilerFailed as error:
            reason = str(error.inner_exception).strip().partition("\n")[0]
            print(f"--compile: no working C++ compiler here ({reason}); going on without", file=sys.stderr)
            inner = network
            return network(x_t, t, labels)

    return call


def named_parameters(network: nn.Module) -> dict[str, Tensor]:
    """Every trainable parameter by its canonical name, in a fixed order. Mirror: ddpm_tf.model.named_parameters."""
    return dict(network.named_parameters())


def named_buffers(network: nn.Module) -> dict[str, Tensor]:
    """What a network holds beside its parameters, by canonical name: none in most.

    A checkpoint holds them; they are copied to the averaged network, not averaged.

    Mirror: ddpm_tf.model.named_buffers.
    """
    return dict(network.named_buffers())
