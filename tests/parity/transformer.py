"""The conditional score model's network: its layers alone, and the whole of it, with one context token and with two.

Sizes are odd somewhere on the way down, so that a transposed convolution that is a pixel off does not hide.
"""

import dataclasses
from functools import partial
from typing import Any

import numpy as np

from ddpm_parity.data import labels_of
from ddpm_parity.layers import Layer, output_and_gradients
from ddpm_parity.quantities import Arrays, Measure, Quantity, absolute, elementwise, of_the_gradient, of_the_largest
from ddpm_parity.sides import Array, Oracle, Side, draw, random_parameters
from ddpm_parity.tolerances import (
    FORWARD,
    FOURIER,
    GRADIENTS,
    INITIAL_VALUES,
    LOSS,
    TRANSFORMER_LAYERS,
    TRANSFORMER_LOSSES,
    Tolerance,
)
from ddpm_shared import batches, streams
from ddpm_shared.config import PRESETS, Config, DiffusionConfig, ModelConfig, TrainingConfig
from ddpm_shared.datasets import Split
from ddpm_shared.oracle import bound as oracle_bound
from ddpm_shared.oracle import guidance as oracle_guidance
from ddpm_shared.oracle.transformer_unet import TransformerNetwork, fourier_features, loss_and_gradients
from ddpm_shared.parameters import initial_value

CLASSES = 3
NULL = CLASSES
LABELLED = ModelConfig(  # 10 -> 5 -> 3 and back, with two image channels
    network="transformer_unet",
    base_channels=8,
    channel_mults=(1, 2, 3),
    attention_resolutions=(5, 3),
    num_groups=4,
    context_tokens=2,
    fourier_scale=20.0,
    image_size=10,
    image_channels=2,
    num_classes=CLASSES,
)
NETWORKS = {
    "one token": dataclasses.replace(LABELLED, context_tokens=1),
    "two tokens": LABELLED,
    "without classes": dataclasses.replace(LABELLED, context_tokens=1, num_classes=0),
    "score-transformer": dataclasses.replace(PRESETS["score-transformer"], num_classes=10),
}
SLOW = ("score-transformer",)
T = np.array([1e-5, 0.37, 1.0, 0.8])  # and no integers: what they are rounded to would be another time
LABELS = np.array([2, NULL, 0, 2])  # none of class 1
SEED = 3
ZERO_AT_START = ("conv_out.weight",)  # written again beside the trees' TransformerUNet.zero_at_start


# --- Layers alone -------------------------------------------------------------------------------------------

CONTEXT = 12  # channels


def _transposed(height: int, width: int, output_padding: int) -> tuple[str, Layer]:
    rows, columns = (2 * size - 1 + output_padding for size in (height, width))
    layer = Layer(
        lambda side: side.block("TransposedConvolution", 3, 4, output_padding),
        lambda n, x: n.transposed_convolution("layer", x, rows, columns),
        ((2, height, width, 3),),
        TransformerNetwork,
        LABELLED,
    )
    return f"TransposedConvolution, {height} x {width} to {rows} x {columns}", layer


def _attention(tokens: int) -> tuple[str, Layer]:
    layer = Layer(
        lambda side: side.block("Attention", 8, CONTEXT),
        lambda n, x, context: n.attention("layer", x, context),
        ((2, 6, 8), (2, tokens, CONTEXT)),
        TransformerNetwork,
        LABELLED,
    )
    return f"Attention to {tokens} token{'s' * (tokens > 1)}", layer


KINDS = dict(
    [
        *(_transposed(*sizes) for sizes in ((4, 4, 0), (4, 4, 1), (5, 3, 0), (3, 6, 1), (1, 2, 0))),
        *(_attention(tokens) for tokens in (1, 2, 5)),
    ]
) | {
    "SpatialTransformer": Layer(
        lambda side: side.block("SpatialTransformer", 8, CONTEXT),
        lambda n, x, context: n.spatial_transformer("layer", x, context),
        ((2, 3, 4, 8), (2, 2, CONTEXT)),
        TransformerNetwork,
        LABELLED,
    ),
    "Level with a transformer": Layer(
        lambda side: side.block("Level", 8, CONTEXT, True, LABELLED),
        lambda n, x, emb, context: n.level("layer", x, emb, context, True),
        ((2, 3, 4, 8), (2, CONTEXT), (2, 2, CONTEXT)),
        TransformerNetwork,
        LABELLED,
    ),
}


# --- What is drawn at the start -----------------------------------------------------------------------------


def frequencies(config: ModelConfig, seed: int) -> Array:
    """The buffer, by the oracle."""
    drawn = streams.generator(seed, "parameters/fourier.frequencies").normal(
        0.0, config.fourier_scale, config.base_channels * config.channel_mults[-1] // 2
    )
    return drawn.astype(np.float32).astype(np.float64)


def _at_the_start(side: Side) -> Arrays:
    """Every parameter, and the buffer, which has the same digits in every precision."""
    if isinstance(side, Oracle):
        shapes = side.shapes_of(lambda torch: torch.network(LABELLED))
        values: dict[str, Array] = {
            name: initial_value(SEED, name, shape, ZERO_AT_START) for name, shape in shapes.items()
        }
        return values | {"fourier.frequencies": frequencies(LABELLED, SEED)}
    network = side.network(LABELLED, SEED)
    buffers = {name: side.array(value) for name, value in side.model.named_buffers(network).items()}
    return {**side.parameters(network), **buffers}


def _features(side: Side) -> Arrays:
    """Of times of every process: in [0, 1], up to 80, whole numbers."""
    network = None if side.name == "oracle" else side.network(LABELLED, SEED)

    def features(t: Array) -> Array:
        if network is None:
            return fourier_features(t, frequencies(LABELLED, SEED))
        return side.array(network.fourier(side.times(t)))

    return {"t in [0, 1]": features(T), "t up to 80": features(80.0 * T), "whole t": features(np.arange(5, 8))}


# --- The whole network --------------------------------------------------------------------------------------


def _made(side: Side, name: str) -> Any:
    """The network at random weights."""
    config = NETWORKS[name]
    if isinstance(side, Oracle):
        parameters = random_parameters(side.shapes_of(lambda torch: torch.network(config)))
        return TransformerNetwork(parameters, config, frequencies(config, 0))
    network = side.network(config)
    side.assign(network, random_parameters(side.shapes(network)))
    return network


def _images(name: str) -> tuple[int, ...]:
    config = NETWORKS[name]
    return len(T), config.image_size, config.image_size, config.image_channels


def _run(side: Side, name: str) -> dict[str, Arrays]:
    """Everything of one batch with labels, if the network takes some; computed once for its three quantities."""
    config, network = NETWORKS[name], _made(side, name)
    x_t, target = draw(*_images(name), seed=1), draw(*_images(name), seed=2)
    if side.name == "oracle":
        labels = LABELS if config.num_classes else None
        network(x_t, T, labels)
        activations: Any = network.activations
        loss, gradients = loss_and_gradients(config, network.parameters, network.frequencies, x_t, T, target, labels)
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


def _part(side: Side, name: str, part: str) -> Arrays:
    return side.keep(("transformer", name), lambda: _run(side, name))[part]


def weights(labels: Array) -> Array:
    """A mixture of each image's label and the next one's, [B, K + 1]: three parts and one."""
    rows = np.eye(CLASSES + 1)
    return 0.75 * rows[labels] + 0.25 * rows[np.roll(labels, -1)]


def _outputs(side: Side, commands: bool) -> Arrays:
    """All ways to give labels and times, of the network itself or as the commands call it."""
    network = side.keep("transformer, two tokens", lambda: _made(side, "two tokens"))
    if commands and side.name != "oracle":
        network = side.sampler(network)
    x_t, t = side.tensor(draw(*_images("two tokens"), seed=1)), side.times(T)
    given: dict[str, Any] = {
        "labels": LABELS,
        "all null": np.repeat(NULL, len(T)),
        "weights": weights(LABELS),
        "weights of one label": np.eye(CLASSES + 1)[LABELS],
    }
    outputs = {name: network(x_t, t, side.labels(labels)) for name, labels in given.items()}
    outputs |= {"none": network(x_t, t), "whole t": network(x_t, side.times(np.array([0, 3, 1, 2], np.int32)))}
    return {name: side.array(output) for name, output in outputs.items()}


# Training and validation: ten images of the three classes, in batches of four. In the first, two labels are dropped.
TRAINED = Config(
    seed=6,
    device="cpu",
    class_conditional=True,
    model=LABELLED,
    diffusion=DiffusionConfig(timesteps=40, beta_end=0.3),
    training=TrainingConfig(batch_size=4, label_drop=0.5),
)
SPLIT = Split(
    "noise",
    "train",
    np.random.default_rng(1).integers(0, 256, size=(10, 10, 10, 2), dtype=np.uint8),
    np.arange(10, dtype=np.uint8) % CLASSES,
    "",
)


def _losses(side: Side) -> Arrays:
    """The loss of a training step and of the validation: the averaged weights are others, their buffer is the same."""
    batch = batches.training_batch(SPLIT, TRAINED, 0)
    if isinstance(side, Oracle):
        parameters, own = _made(side, "two tokens").parameters, frequencies(LABELLED, TRAINED.seed)

        def loss(factor: float, batch: batches.Batch, labels: Array) -> float:
            scaled = {name: factor * value for name, value in parameters.items()}
            network = oracle_guidance.condition(TransformerNetwork(scaled, LABELLED, own), labels)
            schedule = side.schedule(TRAINED.diffusion)
            return oracle_bound.training_loss(schedule, network, *side.batch(batch.arrays), TRAINED.diffusion)

        pairs = zip(batches.validation_batches(SPLIT, TRAINED), np.split(SPLIT.labels, [4, 8]), strict=True)
        return {
            "training": np.array(loss(1.0, batch, labels_of(SPLIT.labels, TRAINED, 0))),
            "validation": np.array([loss(0.9, validation, labels) for validation, labels in pairs]),
        }
    learner = side.learner.Learner(side.configured(TRAINED), 10)
    values = random_parameters(side.shapes(learner.model))
    side.assign(learner.model, values)
    side.assign(learner.ema_model, {name: 0.9 * value for name, value in values.items()})
    validation = [value for _, value in learner.validation_losses(batches.validation_batches(SPLIT, TRAINED))]
    return {"training": np.array(learner.train_step(batch, 0)[0]), "validation": np.array(validation)}


def _of_network(network: str, name: str, part: str, tolerance: Tolerance, measure: Measure) -> Quantity:
    compute = partial(_part, name=network, part=part)
    return Quantity("transformer", f"{network}: {name}", compute, tolerance, measure, slow=network in SLOW)


QUANTITIES = [
    *(
        Quantity("transformer", kind, partial(output_and_gradients, layer=layer), TRANSFORMER_LAYERS, of_the_largest)
        for kind, layer in KINDS.items()
    ),
    Quantity("transformer", "Fourier features", _features, FOURIER, absolute),
    Quantity("transformer", "initial values and frequencies", _at_the_start, INITIAL_VALUES, elementwise),
    *(
        quantity
        for network in NETWORKS
        for quantity in (
            _of_network(network, "output of every layer", "layers", FORWARD, of_the_largest),
            _of_network(network, "loss", "loss", LOSS, of_the_largest),
            _of_network(network, "gradient of every parameter", "gradients", GRADIENTS, of_the_gradient),
        )
    ),
    *(
        Quantity("transformer", name, partial(_outputs, commands=commands), FORWARD, of_the_largest)
        for name, commands in (("output, however given", False), ("output as commands call it", True))
    ),
    Quantity("transformer", "losses of training and validation", _losses, TRANSFORMER_LOSSES, elementwise),
]
