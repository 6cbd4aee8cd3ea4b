"""The front door to the networks: build, initialise, load, compile, name parameters. Mirror: ddpm_torch.model.

Device, number format and memory format of a network are decided here, and nowhere in networks/.
"""

import collections
from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from numpy.typing import NDArray

from ddpm_shared.parameters import fourier_frequencies, initial_value
from ddpm_shared.records import checkpoint
from ddpm_shared.records.checkpoint import Checkpoint
from ddpm_tf import utils
from ddpm_tf.config import Config, NetworkName
from ddpm_tf.networks.denoise_net import DenoiseNet
from ddpm_tf.networks.dit import DiT
from ddpm_tf.networks.layers import BatchNorm, GroupNorm, LabelEmbedding, one_hot
from ddpm_tf.networks.residual_unet import ResidualUNet
from ddpm_tf.networks.simple_unet import SimpleUNet
from ddpm_tf.networks.transformer_unet import FourierFeatures, TransformerUNet
from ddpm_tf.networks.unet import UNet

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

    Mirror: ddpm_torch.model.make_network.
    """
    utils.select_device(config.device)
    utils.set_tf32(config.tf32)
    policy = {"fp32": "float32", "fp64": "float64", "bf16": "mixed_bfloat16"}[config.precision]
    network = NETWORKS[config.model.network](config.model, config.out_channels, policy)
    # Keras makes the weights at the first call.
    shape = [1, config.model.image_size, config.model.image_size, config.model.image_channels]
    network(tf.zeros(shape, utils.dtype(config.precision)), tf.zeros([1], tf.int32))
    if seed is not None:
        initialise(network, seed)
    return network


def initialise(network: Network, seed: int) -> None:
    """Set every parameter, and every buffer that is drawn, to its initial value, a function of seed, name and shape.

    Args:
        network: its `zero_at_start` names the weights that begin at zero, by the ends of their names; its
            `normal_at_start` names the buffers that are drawn, with their standard deviations.
        seed: 0 or more.

    Source: ddpm_shared.parameters.
    Mirror: ddpm_torch.model.initialise.
    """
    layout_of = layouts(network)
    for name, parameter in named_parameters(network).items():
        layout = layout_of[name]
        value = initial_value(seed, name, canonical_shape(parameter, layout), network.zero_at_start)
        parameter.assign(from_canonical(value, layout))
    buffers = named_buffers(network)
    for name, scale in network.normal_at_start.items():
        buffers[name].assign(fourier_frequencies(seed, name, buffers[name].shape[0], scale))


def set_training(network: layers.Layer, training: bool) -> None:
    """Say whether BatchNorm takes the moments of its batch, or those that it remembers. Nothing else depends on it.

    Mirror: ddpm_torch.model.set_training.
    """
    for layer in _batch_norms(network):
        layer.training = training


def seen_moments(network: layers.Layer) -> list[tf.Tensor]:
    """The moments of the batch that last went through each BatchNorm in training: a mean and a variance of each.

    Mirror: ddpm_torch.model.seen_moments.
    """
    return [moment for layer in _batch_norms(network) for moment in layer.seen or ()]


def remember_moments(network: layers.Layer, moments: list[tf.Tensor] | None = None) -> None:
    """Let each BatchNorm take in the moments of the batch that last went through it in training.

    Args:
        network: with any number of them, or none.
        moments: to take in instead, in the order of seen_moments.

    Mirror: ddpm_torch.model.remember_moments.
    """
    for i, layer in enumerate(_batch_norms(network)):
        if moments is not None:
            layer.seen = moments[2 * i], moments[2 * i + 1]
        layer.remember()


def _batch_norms(network: layers.Layer) -> list[BatchNorm]:
    return [layer for layer in network._flatten_layers() if isinstance(layer, BatchNorm)]


def load(loaded: Checkpoint, prefix: str, config: Config) -> Callable[..., tf.Tensor]:
    """The network of a checkpoint of either framework, ready to be called as `config` says: where and how.

    Args:
        loaded: with the tensors under `prefix`.
        prefix: "ema" for the averaged weights, "model" for the weights themselves.
        config: the checkpoint's, with the precision, device, threads and compiling that are wanted.

    Raises:
        UserError: the tensors do not fit the network.

    Mirror: ddpm_torch.model.load.
    """
    utils.set_threads(config.threads)
    network = make_network(config)
    layout_of = layouts(network)
    for place, variables in ((prefix, named_parameters(network)), (checkpoint.BUFFERS, named_buffers(network))):
        shapes = {name: canonical_shape(variable, layout_of[name]) for name, variable in variables.items()}
        values = checkpoint.select(loaded, place, shapes)
        for name, variable in variables.items():
            variable.assign(from_canonical(values[name], layout_of[name]))
    return compiled(network, config.compile)


def compiled(network: Network, compile: bool = False) -> Callable[..., tf.Tensor]:
    """`network`, made ready to be called many times.

    PyTorch runs it as it is, TensorFlow as one graph for every batch size: called directly, Keras would run it layer by
    layer. With `compile` it goes through the framework's compiler, torch.compile or XLA, at its first call; where
    PyTorch finds no C++ compiler, it prints that and goes on without.

    Returns:
        (x_t, t, labels=None) -> output, as the network's own.

    Mirror: ddpm_torch.model.compiled.
    """
    size, channels = network.config.image_size, network.config.image_channels
    images = tf.TensorSpec([None, size, size, channels], network.variable_dtype)
    times = tf.TensorSpec([None], tf.float64)  # whole or not
    classes = network.config.num_classes

    def graph(*signature: tf.TensorSpec) -> Callable[..., tf.Tensor]:
        # Autograph would translate the source; here no tensor decides a branch.
        return tf.function(network, input_signature=signature, autograph=False, jit_compile=compile)

    unlabelled = graph(images, times)
    labelled = graph(images, times, tf.TensorSpec([None, classes + 1], network.variable_dtype))

    def call(x_t: tf.Tensor, t: tf.Tensor, labels: tf.Tensor | None = None) -> tf.Tensor:
        t = tf.cast(t, tf.float64)
        if labels is None:
            return unlabelled(x_t, t)
        return labelled(x_t, t, one_hot(labels, classes, x_t.dtype)) if classes else network(x_t, t, labels)

    call.python_function = network  # type: ignore[attr-defined] # as of a tf.function: what is inside
    return call


def named_parameters(network: layers.Layer) -> dict[str, keras.Variable]:
    """Every trainable parameter by its canonical name, in a fixed order. Mirror: ddpm_torch.model.named_parameters."""
    return _named(network, network.trainable_weights)


def named_buffers(network: layers.Layer) -> dict[str, keras.Variable]:
    """What a network holds beside its parameters, by canonical name: none in most.

    A checkpoint holds them; they are copied to the averaged network, not averaged.

    Mirror: ddpm_torch.model.named_buffers.
    """
    return _named(network, network.non_trainable_weights)


# --- PyTorch's names and layouts are the canonical ones, so its tree needs nothing like the rest of this file.

Layout = tuple[int, ...]  # the axes of a variable in canonical order

# What has variables: each kind of layer with Keras' name of a variable -> (canonical name, layout).
LEAVES: dict[type[layers.Layer], dict[str, tuple[str, Layout]]] = {
    layers.Conv2D: {"kernel": ("weight", (3, 2, 0, 1)), "bias": ("bias", (0,))},  # HWIO -> OIHW
    layers.Conv2DTranspose: {"kernel": ("weight", (3, 2, 0, 1)), "bias": ("bias", (0,))},  # [H, W, out, in] -> IOHW
    layers.Dense: {"kernel": ("weight", (1, 0)), "bias": ("bias", (0,))},  # [in, out] -> [out, in]
    GroupNorm: {"gamma": ("weight", (0,)), "beta": ("bias", (0,))},
    layers.LayerNormalization: {"gamma": ("weight", (0,)), "beta": ("bias", (0,))},
    BatchNorm: {
        "weight": ("weight", (0,)),
        "bias": ("bias", (0,)),
        "running_mean": ("running_mean", (0,)),
        "running_var": ("running_var", (0,)),
    },
    LabelEmbedding: {"weight": ("weight", (0, 1))},
    FourierFeatures: {"frequencies": ("frequencies", (0,))},
}


def layouts(network: layers.Layer) -> dict[str, Layout]:
    """The layout of every parameter and buffer, by its canonical name; it follows from the kind of layer it is in."""
    return {name: layout for name, _, layout in _walk(network)}


def to_canonical(value: NDArray[np.floating], layout: Layout) -> NDArray[np.floating]:
    """Keras' order of axes to the canonical one, e.g. a convolution's HWIO -> OIHW."""
    return value.transpose(layout)


def from_canonical(value: NDArray[np.floating], layout: Layout) -> NDArray[np.floating]:
    """The inverse of to_canonical, e.g. OIHW -> HWIO."""
    return value.transpose(np.argsort(layout))


def canonical_shape(variable: keras.Variable, layout: Layout) -> tuple[int, ...]:
    """The shape of to_canonical(variable, layout)."""
    return tuple(variable.shape[axis] for axis in layout)


def _walk(layer: layers.Layer, prefix: str = "") -> Iterator[tuple[str, keras.Variable, Layout]]:
    """Canonical name, variable and layout of all that LEAVES knows, in the order in which the attributes were made."""
    if type(layer) in LEAVES:
        for variable in layer.weights:
            if known := LEAVES[type(layer)].get(variable.name):
                yield prefix + known[0], variable, known[1]
        return
    for attribute, value in vars(layer).items():
        if attribute.startswith("_"):  # Keras' own book-keeping
            continue
        if isinstance(value, layers.Layer):
            yield from _walk(value, f"{prefix}{attribute}.")
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, layers.Layer):
                    yield from _walk(item, f"{prefix}{attribute}.{index}.")


def _named(network: layers.Layer, variables: list[keras.Variable]) -> dict[str, keras.Variable]:
    """`variables` by canonical name, each of which must have exactly one: else it would not be trained or saved."""
    wanted = {id(variable): variable for variable in variables}
    pairs = [(name, variable) for name, variable, _ in _walk(network) if id(variable) in wanted]
    times = collections.Counter(id(variable) for _, variable in pairs)
    for key, variable in wanted.items():
        assert times[key] == 1, (
            f"{variable.path} of {type(network).__name__} has {times[key]} canonical names, not one: "
            "give its kind of layer an entry in ddpm_tf.model.LEAVES, and hold the layer in one attribute"
        )
    named = dict(pairs)
    assert len(named) == len(pairs), f"two variables of {type(network).__name__} have one canonical name"
    return named
