"""The residual U-Net: BatchNorm, its other layers alone, and the whole of it, in training and in use.

Sizes are odd somewhere on the way down, and heights are not widths, so that nothing that is a pixel off hides.
"""

import dataclasses
import zlib
from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np

from ddpm_parity.layers import Layer, output_and_gradients
from ddpm_parity.quantities import Arrays, Measure, Quantity, elementwise, of_the_gradient, of_the_largest
from ddpm_parity.sides import Array, Oracle, Side, draw, random_parameters
from ddpm_parity.tolerances import (
    FORWARD,
    GRADIENTS,
    INITIAL_VALUES,
    LOSS,
    ONE_PIXEL,
    RELU_GRADIENTS,
    RESIDUAL_LAYERS,
    RUNNING_MOMENTS,
    Tolerance,
)
from ddpm_shared.config import PRESETS, ModelConfig
from ddpm_shared.oracle.residual_unet import ResidualNetwork, loss_and_gradients, running
from ddpm_shared.parameters import initial_value

CLASSES = 3
NULL = CLASSES
LABELLED = ModelConfig(  # 9 -> 5 -> 3 and back, with two image channels
    network="residual_unet",
    base_channels=8,
    channel_mults=(1, 2, 3),
    attention_resolutions=(),
    attention_heads=3,
    attention_blocks=2,
    time_channels=12,
    image_size=9,
    image_channels=2,
    num_classes=CLASSES,
)
NETWORKS = {
    "with classes": LABELLED,
    "without classes or attention": dataclasses.replace(
        LABELLED, num_classes=0, activation="relu", attention_blocks=0, image_size=10
    ),
    "residual-batchnorm": dataclasses.replace(PRESETS["residual-batchnorm"], num_classes=10),
}
SLOW = ("residual-batchnorm",)
T = np.array([0, 999, 370, 12])
LABELS = np.array([2, NULL, 0, 2])  # none of class 1
SEED = 3
ZERO_AT_START = ("project.weight", "conv_out.weight")  # written again beside the trees' ResidualUNet.zero_at_start
BATCH_NORMS = (".norm_1.weight", ".norm_2.weight", ".norm_skip.weight")  # a name that ends so is BatchNorm's
RUNNING = ("running_mean", "running_var")


# --- Moments ------------------------------------------------------------------------------------------------


def moment(name: str, channels: int) -> Array:
    """Numbers that a buffer could hold, [C]: means about 0, variances about 1; float32 holds them exactly."""
    drawn = draw(channels, seed=zlib.crc32(name.encode()))
    return np.exp2(np.round(drawn)) if name.endswith("var") else 0.5 * drawn


def moments_of(shapes: dict[str, tuple[int, ...]]) -> dict[str, Array]:
    """A network's buffers, filled by `moment`, from the shapes of its parameters."""
    norms = {name.removesuffix("weight"): shape[0] for name, shape in shapes.items() if name.endswith(BATCH_NORMS)}
    names = [(norm + kind, channels) for norm, channels in norms.items() for kind in RUNNING]
    return {name: moment(name, channels) for name, channels in names}


def buffers(side: Side, module: Any) -> dict[str, Array]:
    """What a module of a tree holds."""
    return {name: side.array(value) for name, value in side.model.named_buffers(module).items()}


def assign_moments(side: Side, module: Any, values: Arrays | None = None) -> None:
    """Let a module hold these moments, by default those of `moment`."""
    for name, buffer in side.model.named_buffers(module).items():
        value = moment(name, buffer.shape[0]) if values is None else values[name]
        if side.name == "torch":
            buffer.copy_(side.tensor(value))
        else:
            buffer.assign(value)


# --- Layers alone -------------------------------------------------------------------------------------------


def _block(side: Any, training: bool, kind: str, arguments: tuple[Any, ...]) -> Any:
    module = side.block(kind, *arguments)
    assign_moments(side, module)
    side.model.set_training(module, training)
    return module


def _in_modes(
    name: str, norms: Iterable[tuple[str, int]], layer: Layer, kind: str, *arguments: Any
) -> dict[str, Layer]:
    """A layer in training, and in use with the moments of `norms`, (name inside it, channels)."""
    fixed = {f"layer.{norm}{what}": moment(norm + what, channels) for norm, channels in norms for what in RUNNING}
    return {
        f"{name}, {mode}": dataclasses.replace(
            layer,
            make=partial(_block, training=training, kind=kind, arguments=arguments),
            network=partial(ResidualNetwork, moments=None if training else fixed),
        )
        for mode, training in (("in training", True), ("in use", False))
    }


def _unmade(side: Any) -> Any:
    raise AssertionError("_in_modes says how")


def _batch_norm(*shape: int) -> dict[str, Layer]:
    layer = Layer(_unmade, lambda n, x: n.batch_norm("layer", x), (shape,), config=LABELLED)
    images, height, width, channels = shape
    return _in_modes(
        f"BatchNorm of {images} x {height} x {width} pixels", [("", channels)], layer, "BatchNorm", channels
    )


def _residual_block(wide: int, stride: int, height: int, width: int, activation: Any) -> dict[str, Layer]:
    config = dataclasses.replace(LABELLED, activation=activation)
    norms = ["norm_1.", "norm_2.", *(["norm_skip."] if stride > 1 or wide != 4 else [])]
    layer = Layer(_unmade, lambda n, x: n.block("layer", x, stride), ((3, height, width, 4),), config=config)
    name = f"BatchNormBlock, 4 to {wide} channels, stride {stride}, {height} x {width}, {activation}"
    return _in_modes(name, [(norm, wide) for norm in norms], layer, "BatchNormBlock", 4, wide, stride, config)


def _heads(heads: int) -> Layer:
    return Layer(
        lambda side: side.block("MultiHeadAttention", 12, heads),
        lambda n, x: n.multi_head_attention("layer", x, heads),
        ((2, 5, 12),),
        ResidualNetwork,
        LABELLED,
    )


ONE = "BatchNorm of 1 x 1 x 1 pixels, in training"
KINDS: dict[str, Layer] = {
    **_batch_norm(3, 4, 5, 6),
    **_batch_norm(1, 1, 1, 6),
    **_batch_norm(2, 1, 1, 3),
    **_residual_block(4, 1, 5, 4, "relu"),
    **_residual_block(6, 1, 5, 4, "silu"),
    **_residual_block(4, 2, 6, 8, "gelu"),
    **_residual_block(6, 2, 7, 4, "tanh"),
    "MultiHeadAttention, 1 head": _heads(1),
    "MultiHeadAttention, 3 heads": _heads(3),
    "DeepAttention": Layer(
        lambda side: side.block("DeepAttention", 12, 3),
        lambda n, x: n.deep_attention("layer", x),
        ((2, 3, 4, 12),),
        ResidualNetwork,
        LABELLED,
    ),
}
# Three batches of as many pixels as they please, the last of a single one.
BATCHES = ((2, 3, 4, 5), (4, 1, 2, 5), (1, 1, 1, 5))


def _running(side: Side) -> Arrays:
    """What BatchNorm remembers: three batches, and nothing of a fourth, which no step followed."""
    names = f"layer.{RUNNING[0]}", f"layer.{RUNNING[1]}"
    images = [draw(*shape, seed=seed) for seed, shape in enumerate(BATCHES)]
    if isinstance(side, Oracle):
        parameters = {"layer.weight": np.ones(5), "layer.bias": np.zeros(5)}
        history = []
        for x in images:
            network = ResidualNetwork(parameters, LABELLED)
            network.batch_norm("layer", x)
            history.append(network.batch_moments)
        return {
            kind: running(moment(kind, 5), [moments[name] for moments in history])
            for kind, name in zip(RUNNING, names, strict=True)
        }
    module = _block(side, True, "BatchNorm", (5,))
    module(side.tensor(7.0 + images[1]))
    for x in images:
        module(side.tensor(x))
        side.model.remember_moments(module)
    module(side.tensor(7.0 + images[0]))
    return buffers(side, module)


# --- What is there at the start -----------------------------------------------------------------------------


def _at_the_start(side: Side) -> Arrays:
    """Every parameter, and the moments: 0 and 1."""
    if isinstance(side, Oracle):
        shapes = side.shapes_of(lambda torch: torch.network(LABELLED))
        values: dict[str, Array] = {
            name: initial_value(SEED, name, shape, ZERO_AT_START) for name, shape in shapes.items()
        }
        moments = moments_of(shapes)
        return values | {name: np.full(len(m), float(name.endswith("var"))) for name, m in moments.items()}
    network = side.network(LABELLED, SEED)
    return {**side.parameters(network), **buffers(side, network)}


# --- The whole network --------------------------------------------------------------------------------------


def made(side: Side, config: ModelConfig, training: bool) -> Any:
    """The network at random weights, and in use with the moments of `moment`."""
    if isinstance(side, Oracle):
        shapes = side.shapes_of(lambda torch: torch.network(config))
        return ResidualNetwork(random_parameters(shapes), config, None if training else moments_of(shapes))
    network = side.network(config)
    side.assign(network, random_parameters(side.shapes(network)))
    assign_moments(side, network)
    side.model.set_training(network, training)
    return network


def images_of(config: ModelConfig) -> tuple[int, ...]:
    """The shape of a batch for T."""
    return len(T), config.image_size, config.image_size, config.image_channels


def _run(side: Side, name: str, training: bool) -> dict[str, Arrays]:
    """Everything of one batch with labels, if the network takes some; computed once for its three quantities."""
    config = NETWORKS[name]
    network = made(side, config, training)
    x_t, target = draw(*images_of(config), seed=1), draw(*images_of(config), seed=2)
    if isinstance(side, Oracle):
        labels = LABELS if config.num_classes else None
        network(x_t, T, labels)
        activations: Any = network.activations
        loss, gradients = loss_and_gradients(config, network.parameters, x_t, T, target, labels, network.moments)
    else:
        activations = side.watch(network)
        inputs = [side.tensor(x_t), side.times(T), *([side.labels(LABELS)] if config.num_classes else [])]
        _, loss, gradients, _ = side.value_and_gradients(
            network, inputs, lambda output: side.mean_square(side.tensor(target) - output)
        )
        # Keras' layer gives all patches, of which TransposedConvolution takes its part; PyTorch's gives that part.
        patches = [layer for layer in activations if layer.startswith("up.") and layer.endswith(".conv")]
        for layer in patches:
            del activations[layer]
    return {"layers": activations, "loss": {"loss": np.array(loss)}, "gradients": gradients}


def _part(side: Side, name: str, training: bool, part: str) -> Arrays:
    return side.keep(("residual", name, training), lambda: _run(side, name, training))[part]


def weights(labels: Array) -> Array:
    """A mixture of each image's label and the next one's, [B, K + 1]: three parts and one."""
    rows = np.eye(CLASSES + 1)
    return 0.75 * rows[labels] + 0.25 * rows[np.roll(labels, -1)]


def _outputs(side: Side, commands: bool) -> Arrays:
    """All ways to give labels and times, of the network in use itself or as the commands call it."""
    network = side.keep("residual, in use", lambda: made(side, LABELLED, False))
    if commands and side.name != "oracle":
        network = side.sampler(network)
    x_t, t = side.tensor(draw(*images_of(LABELLED), seed=1)), side.times(T)
    given: dict[str, Any] = {
        "labels": LABELS,
        "all null": np.repeat(NULL, len(T)),
        "weights": weights(LABELS),
        "weights of one label": np.eye(CLASSES + 1)[LABELS],
    }
    outputs = {name: network(x_t, t, side.labels(labels)) for name, labels in given.items()}
    outputs |= {"none": network(x_t, t), "fractions": network(x_t, side.times(np.array([0.5, 3.25, 0.0, 998.9])))}
    return {name: side.array(output) for name, output in outputs.items()}


def _of_network(network: str, training: bool, name: str, part: str, tolerance: Tolerance, measure: Measure) -> Quantity:
    compute = partial(_part, name=network, training=training, part=part)
    mode = "in training" if training else "in use"
    return Quantity("residual", f"{network}, {mode}: {name}", compute, tolerance, measure, slow=network in SLOW)


QUANTITIES = [
    *(
        Quantity(
            "residual",
            kind,
            partial(output_and_gradients, layer=layer),
            ONE_PIXEL if kind == ONE else RESIDUAL_LAYERS,
            of_the_largest,
        )
        for kind, layer in KINDS.items()
    ),
    Quantity("residual", "moments that BatchNorm remembers", _running, RUNNING_MOMENTS, elementwise),
    Quantity("residual", "initial values and moments", _at_the_start, INITIAL_VALUES, elementwise),
    *(
        quantity
        for network in NETWORKS
        for training in (True, False)
        for quantity in (
            _of_network(network, training, "output of every layer", "layers", FORWARD, of_the_largest),
            _of_network(network, training, "loss", "loss", LOSS, of_the_largest),
            _of_network(
                network,
                training,
                "gradient of every parameter",
                "gradients",
                RELU_GRADIENTS if network in SLOW and training else GRADIENTS,
                of_the_gradient,
            ),
        )
    ),
    *(
        Quantity("residual", name, partial(_outputs, commands=commands), FORWARD, of_the_largest)
        for name, commands in (("output, however given", False), ("output as commands call it", True))
    ),
]
