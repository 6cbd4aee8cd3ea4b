"""The U-Net of convolutions alone, the two convolutions and the diffusion transformer: their layers, and the whole.

Sizes are odd somewhere on the way down, grids have more columns than rows, and images have two channels or three, so
that nothing that is a pixel off, or turned round, hides.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ddpm_parity.data import labels_of
from ddpm_parity.layers import Layer, output_and_gradients
from ddpm_parity.quantities import Arrays, Measure, Quantity, absolute, elementwise, of_the_gradient, of_the_largest
from ddpm_parity.sides import Array, Oracle, Side, draw, random_parameters
from ddpm_parity.tolerances import (
    EXACT,
    FORWARD,
    GRADIENTS,
    INITIAL_VALUES,
    LOSS,
    POSITIONS,
    ZOO_FUNCTIONS,
    ZOO_LAYERS,
    ZOO_LOSSES,
    Tolerance,
)
from ddpm_parity.training import Plan, quantities, small_emoji
from ddpm_shared import batches
from ddpm_shared.config import PRESETS, Config, DataConfig, DiffusionConfig, ModelConfig, TrainingConfig
from ddpm_shared.datasets import Split
from ddpm_shared.oracle import bound as oracle_bound
from ddpm_shared.oracle import dit as oracle_dit
from ddpm_shared.oracle import guidance as oracle_guidance
from ddpm_shared.oracle import layers as oracle_layers
from ddpm_shared.oracle.denoise_net import DenoiseNetwork
from ddpm_shared.oracle.dit import DiTNetwork
from ddpm_shared.oracle.networks import Network, gradients_of, loss_and_gradients
from ddpm_shared.oracle.simple_unet import SimpleNetwork
from ddpm_shared.parameters import initial_value

CLASSES = 3
NULL = CLASSES
SIMPLE = ModelConfig(  # 10 -> 5 -> 3 and back
    network="simple_unet",
    base_channels=8,
    channel_mults=(1, 2, 3),
    attention_resolutions=(),
    time_channels=6,
    image_size=10,
    image_channels=2,
    num_classes=CLASSES,
)
TWO = ModelConfig(
    network="denoise_net",
    base_channels=8,
    channel_mults=(1,),
    attention_resolutions=(),
    activation="tanh",
    time_channels=10,
    image_size=5,
    image_channels=3,
    num_classes=CLASSES,
)
PATCHES = ModelConfig(  # 3 x 3 patches of 3 x 3 pixels
    network="dit",
    base_channels=12,
    channel_mults=(1,),
    attention_resolutions=(),
    attention_heads=3,
    time_channels=10,
    patch_size=3,
    depth=2,
    image_size=9,
    image_channels=2,
    num_classes=CLASSES,
)
SMALL = {"simple_unet": SIMPLE, "denoise_net": TWO, "dit": PATCHES}
NETWORKS = SMALL | {
    "simple_unet without classes": dataclasses.replace(SIMPLE, num_classes=0, activation="gelu"),
    "denoise_net without classes": dataclasses.replace(TWO, num_classes=0, activation="silu"),
    "denoise_net without time": dataclasses.replace(TWO, uses_time=False, num_classes=0, activation="relu"),
    "denoise_net without time, with classes": dataclasses.replace(TWO, uses_time=False, activation="gelu"),
    "dit without classes": dataclasses.replace(PATCHES, num_classes=0, attention_heads=1),
    "simple-unet": PRESETS["simple-unet"],
    "two-convolutions": PRESETS["two-convolutions"],
    "dit-small": PRESETS["dit-small"],
}
SLOW = ("simple-unet", "dit-small")
ORACLES: dict[str, type[Network]] = {"simple_unet": SimpleNetwork, "denoise_net": DenoiseNetwork, "dit": DiTNetwork}
# Written again beside each network's zero_at_start in the trees.
ZERO_AT_START = {
    "simple_unet": ("conv_out.weight",),
    "denoise_net": ("conv_out.weight",),
    "dit": ("modulation.weight", "out.weight"),
}
T = np.array([0.0, 999.0, 37.5, 500.0])  # as whole numbers, the third would be another time
LABELS = np.array([2, NULL, 0, 2])  # none of class 1
SEED = 3


# --- Layers alone -------------------------------------------------------------------------------------------


def _doubling(height: int, width: int, size: int) -> tuple[str, Layer]:
    layer = Layer(
        lambda side: side.block("Doubling", 3, 4, size),
        lambda n, x: n.doubling("layer", x, min(size, 2 * height), min(size, 2 * width)),
        ((2, height, width, 3),),
        SimpleNetwork,
        SIMPLE,
    )
    return f"Doubling, {height} x {width} cut to {size}", layer


KINDS = dict(_doubling(*sizes) for sizes in ((4, 4, 8), (4, 4, 7), (5, 4, 8), (2, 4, 4), (1, 1, 1))) | {
    "DiTBlock": Layer(
        lambda side: side.block("DiTBlock", PATCHES),
        lambda n, tokens, emb: n.block("layer", tokens, emb),
        ((2, 6, 12), (2, 12)),
        DiTNetwork,
        PATCHES,
    ),
}


# --- Functions alone ----------------------------------------------------------------------------------------

# One pixel of each place and channel has its number: what goes where is exact.
GRID = np.arange(2 * 6 * 9 * 2, dtype=np.float64).reshape(2, 6, 9, 2)


def _patches(side: Side) -> Arrays:
    """Of 6 x 9 pixels with two channels, in patches of 3: two rows, three columns; and back."""
    if isinstance(side, Oracle):
        tokens = oracle_dit.patches(GRID, 3)
        return {"patches": tokens, "images": oracle_dit.images(tokens, 3, 2)}
    dit = side.networks.dit
    tokens = dit.patches(side.tensor(GRID), 3)
    return {"patches": side.array(tokens), "images": side.array(dit.images(tokens, 3, 2))}


def _positions(side: Side) -> Arrays:
    """Of grids with more columns than rows, and more rows than columns; 12 numbers are the least that turn."""
    positions: Any = oracle_dit.positions if isinstance(side, Oracle) else side.networks.dit.positions
    grids = ((2, 3, 12), (5, 2, 8), (1, 4, 8), (14, 14, 192))
    return {f"{rows} x {columns}, {dim}": side.array(positions(rows, columns, dim)) for rows, columns, dim in grids}


# Small ones too: their deviation of some thousandths is as large as the root of the norm's epsilon.
TOKENS = {"tokens": draw(2, 4, 12), "small tokens": 1e-3 * draw(2, 4, 12)}


def _modulated(side: Side) -> Arrays:
    """The value, for tokens of which the norm's epsilon is a part too."""
    shift, scale = draw(2, 12, seed=1), draw(2, 12, seed=2)
    modulated: Any = oracle_dit.modulated if isinstance(side, Oracle) else side.networks.dit.modulated
    return {
        name: side.array(modulated(*(side.tensor(array) for array in (tokens, shift, scale))))
        for name, tokens in TOKENS.items()
    }


POINTS = np.concatenate([draw(20, seed=5), [0.0, -1e-8, 8.0, -8.0, 30.0, -30.0]])


def _function(side: Side, name: str) -> Arrays:
    """The value and the slope at points, also far out."""
    if isinstance(side, Oracle):
        function = oracle_layers.ACTIVATIONS.get(name, oracle_layers.gelu_tanh)  # type: ignore[call-overload]
        value, slopes = gradients_of(lambda a: function(a["x"]), {"x": POINTS})
        return {"value": value, "slope": slopes["x"]}
    layers = side.networks.layers
    function = layers.ACTIVATIONS.get(name, layers.gelu_tanh)
    slope = side.slopes(lambda x: side.dot(function(x), side.tensor(np.ones(len(POINTS)))), POINTS)
    return {"value": side.array(function(side.tensor(POINTS))), "slope": slope}


def _at_the_start(side: Side, name: str) -> Arrays:
    """Every parameter."""
    config = SMALL[name]
    if isinstance(side, Oracle):
        shapes = side.shapes_of(lambda torch: torch.network(config))
        return {key: initial_value(SEED, key, shape, ZERO_AT_START[name]) for key, shape in shapes.items()}
    values: Arrays = side.parameters(side.network(config, SEED))
    return values


# --- The whole network --------------------------------------------------------------------------------------


def _made(side: Side, name: str) -> Any:
    """The network at random weights."""
    config = NETWORKS[name]
    if isinstance(side, Oracle):
        parameters = random_parameters(side.shapes_of(lambda torch: torch.network(config)))
        return ORACLES[config.network](parameters, config)
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
        kind = ORACLES[config.network]
        loss, gradients = loss_and_gradients(config, network.parameters, x_t, T, target, labels, kind=kind)
    else:
        activations = side.watch(network)
        # Whole times have no gradient, which PyTorch would miss in a network that ignores the time.
        t = side.times(T if config.uses_time else T.astype(np.int32))
        inputs = [side.tensor(x_t), t, *([side.labels(LABELS)] if config.num_classes else [])]
        _, loss, gradients, _ = side.value_and_gradients(
            network, inputs, lambda output: side.mean_square(side.tensor(target) - output)
        )
        # Keras' layer gives all patches, of which Doubling takes its part; PyTorch's gives nearly that part.
        for layer in [each for each in activations if each.startswith("up.") and each.endswith(".conv")]:
            del activations[layer]
    return {"layers": activations, "loss": {"loss": np.array(loss)}, "gradients": gradients}


def _part(side: Side, name: str, part: str) -> Arrays:
    return side.keep(("zoo", name), lambda: _run(side, name))[part]


def weights(labels: Array) -> Array:
    """A mixture of each image's label and the next one's, [B, K + 1]: three parts and one."""
    rows = np.eye(CLASSES + 1)
    return 0.75 * rows[labels] + 0.25 * rows[np.roll(labels, -1)]


def _outputs(side: Side, name: str, commands: bool) -> Arrays:
    """All ways to give labels and times, of the network itself or as the commands call it."""
    network = side.keep(f"{name} of the zoo", lambda: _made(side, name))
    if commands and side.name != "oracle":
        network = side.sampler(network)
    x_t, t = side.tensor(draw(*_images(name), seed=1)), side.times(T)
    given: dict[str, Any] = {
        "labels": LABELS,
        "all null": np.repeat(NULL, len(T)),
        "weights": weights(LABELS),
        "weights of one label": np.eye(CLASSES + 1)[LABELS],
    }
    outputs = {key: network(x_t, t, side.labels(labels)) for key, labels in given.items()}
    outputs |= {"none": network(x_t, t), "whole t": network(x_t, side.times(np.array([0, 3, 1, 2], np.int32)))}
    return {key: side.array(output) for key, output in outputs.items()}


# --- Training -----------------------------------------------------------------------------------------------

# Ten images of the three classes, in batches of four. In the first, two labels are dropped.
TRAINED = {
    name: Config(
        seed=6,
        device="cpu",
        class_conditional=True,
        model=config,
        diffusion=DiffusionConfig(timesteps=40, beta_end=0.3),
        training=TrainingConfig(batch_size=4, label_drop=0.5),
    )
    for name, config in SMALL.items()
}


def split_for(config: ModelConfig) -> Split:
    """Ten images of noise, as large as the network takes them."""
    shape = (10, config.image_size, config.image_size, config.image_channels)
    pixels = np.random.default_rng(1).integers(0, 256, size=shape, dtype=np.uint8)
    return Split("noise", "train", pixels, np.arange(10, dtype=np.uint8) % CLASSES, "")


def _losses(side: Side, name: str) -> Arrays:
    """The loss of a training step and of the validation, in which the averaged weights are others."""
    config, split = TRAINED[name], split_for(SMALL[name])
    batch = batches.training_batch(split, config, 0)
    if isinstance(side, Oracle):
        parameters = random_parameters(side.shapes_of(lambda torch: torch.network(config.model)))

        def loss(factor: float, batch: batches.Batch, labels: Array) -> float:
            scaled = {key: factor * value for key, value in parameters.items()}
            network = oracle_guidance.condition(ORACLES[name](scaled, config.model), labels)
            schedule = side.schedule(config.diffusion)
            return oracle_bound.training_loss(schedule, network, *side.batch(batch.arrays), config.diffusion)

        pairs = zip(batches.validation_batches(split, config), np.split(split.labels, [4, 8]), strict=True)
        return {
            "training": np.array(loss(1.0, batch, labels_of(split.labels, config, 0))),
            "validation": np.array([loss(0.9, validation, labels) for validation, labels in pairs]),
        }
    learner = side.learner.Learner(side.configured(config), 10)
    values = random_parameters(side.shapes(learner.model))
    side.assign(learner.model, values)
    side.assign(learner.ema_model, {key: 0.9 * value for key, value in values.items()})
    validation = [value for _, value in learner.validation_losses(batches.validation_batches(split, config))]
    return {"training": np.array(learner.train_step(batch, 0)[0]), "validation": np.array(validation)}


def _plan(name: str) -> Plan:
    """A hundred steps on the emoji, 8 x 8 in colour, with classes."""
    model = dataclasses.replace(SMALL[name], image_size=8, image_channels=3, num_classes=9, patch_size=2)
    config = Config(
        seed=1,
        device="cpu",
        class_conditional=True,
        data=DataConfig(dataset="emoji", horizontal_flip=True),
        model=model,
        training=TrainingConfig(
            epochs=100, max_steps=100, batch_size=8, learning_rate=1e-3, warmup_steps=10, validation_images=20
        ),
    )
    return Plan(config, 100, splits=small_emoji, kind=ORACLES[name], zero_at_start=ZERO_AT_START[name])


HUNDRED = {name: _plan(name) for name in SMALL}


# --- All ----------------------------------------------------------------------------------------------------


def _of_network(network: str, name: str, part: str, tolerance: Tolerance, measure: Measure) -> Quantity:
    compute = partial(_part, name=network, part=part)
    return Quantity("zoo", f"{network}: {name}", compute, tolerance, measure, slow=network in SLOW)


def _of_each(what: str, compute: Callable[..., Arrays], tolerance: Tolerance, measure: Measure) -> list[Quantity]:
    return [Quantity("zoo", f"{name}: {what}", partial(compute, name=name), tolerance, measure) for name in SMALL]


QUANTITIES = [
    *(
        Quantity("zoo", kind, partial(output_and_gradients, layer=layer), ZOO_LAYERS, of_the_largest)
        for kind, layer in KINDS.items()
    ),
    Quantity("zoo", "patches and images", _patches, EXACT, absolute),
    Quantity("zoo", "positions", _positions, POSITIONS, absolute),
    Quantity("zoo", "modulated", _modulated, ZOO_LAYERS, of_the_largest),
    *(
        Quantity("zoo", name, partial(_function, name=name), ZOO_FUNCTIONS, of_the_largest)
        for name in ("gelu_tanh", *oracle_layers.ACTIVATIONS)
    ),
    *_of_each("initial values", _at_the_start, INITIAL_VALUES, elementwise),
    *(
        quantity
        for network in NETWORKS
        for quantity in (
            _of_network(network, "output of every layer", "layers", FORWARD, of_the_largest),
            _of_network(network, "loss", "loss", LOSS, of_the_largest),
            _of_network(network, "gradient of every parameter", "gradients", GRADIENTS, of_the_gradient),
        )
    ),
    *_of_each("output, however given", partial(_outputs, commands=False), FORWARD, of_the_largest),
    *_of_each("output as commands call it", partial(_outputs, commands=True), FORWARD, of_the_largest),
    *_of_each("losses of training and validation", _losses, ZOO_LOSSES, elementwise),
    *(quantity for name, plan in HUNDRED.items() for quantity in quantities(plan, f"100 steps of {name}", "zoo")),
]
