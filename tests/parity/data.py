"""What training starts from: batches as the network sees them, and the initial value of every parameter."""

import dataclasses
from functools import partial

import numpy as np

from ddpm_parity import network
from ddpm_parity.network import SLOW, ZERO_AT_START
from ddpm_parity.quantities import Arrays, Quantity, absolute, elementwise
from ddpm_parity.sides import Array, Side
from ddpm_parity.tolerances import BATCHES, EXACT, INITIAL_VALUES
from ddpm_shared import batches, streams
from ddpm_shared.config import PRESETS, Config, DataConfig, DiffusionConfig, ModelConfig, TrainingConfig
from ddpm_shared.datasets import Split
from ddpm_shared.parameters import initial_value

PIXELS = np.random.default_rng(0).integers(0, 256, size=(50, 6, 5, 3), dtype=np.uint8)  # no two axes alike
SPLIT = Split("noise", "train", PIXELS, np.arange(50, dtype=np.uint8), "")
CONFIG = Config(
    seed=4,
    data=DataConfig(horizontal_flip=True),
    diffusion=DiffusionConfig(timesteps=40),
    training=TrainingConfig(batch_size=8),
)
LABELLED = dataclasses.replace(
    CONFIG,
    class_conditional=True,
    model=ModelConfig(num_classes=50),
    training=TrainingConfig(batch_size=8, label_drop=0.4),
)
NETWORKS = {**network.NETWORKS, "tiny with classes": dataclasses.replace(PRESETS["tiny"], num_classes=10)}


def _batches(side: Side) -> Arrays:
    return {
        f"step {step}: {name}": side.array(tensor)
        for step in (0, 5, 6, 13)  # six steps are an epoch
        for name, tensor in zip(
            ("x_0", "t", "eps"), side.batch(batches.training_batch(SPLIT, CONFIG, step).arrays), strict=True
        )
    }


def labels_of(labels: Array, config: Config, step: int) -> Array:
    """The labels of a training step, [B], by the oracle: image by image, num_classes where the label is dropped."""
    size, drawn = config.training.batch_size, streams.generator(config.seed, "train/drop", step)
    images = streams.batch_indices(config.seed, step, len(labels), size)
    return np.array(
        [labels[i] if drawn.random() >= config.training.label_drop else config.model.num_classes for i in images],
        np.int64,
    )


def _labels(side: Side) -> Arrays:
    """Of six batches, of which the last begins the second epoch, and of all validation, which drops none."""
    if side.name == "oracle":
        training = {f"step {step}": labels_of(SPLIT.labels, LABELLED, step) for step in range(7)}
        return training | {"validation": SPLIT.labels.astype(np.int64)}
    validation = [batch.labels for batch in batches.validation_batches(SPLIT, LABELLED)]
    training = {f"step {step}": batches.training_batch(SPLIT, LABELLED, step).labels for step in range(7)}
    values = training | {"validation": np.concatenate(validation)}
    return {name: side.array(side.labels(labels)) for name, labels in values.items()}


def _to_pixels(side: Side) -> Arrays:
    x = np.linspace(-1.2, 1.2, 6 * 5 * 4 * 3).reshape(6, 5, 4, 3).astype(np.float32)
    if side.name == "oracle":
        return {"pixels": np.clip(np.rint((x.astype(np.float64) + 1) * 127.5), 0, 255)}
    return {"pixels": side.data.to_pixels(side.tensor(x))}


def _initial_values(side: Side, preset: str) -> Arrays:
    config, seed = NETWORKS[preset], 3
    if side.name == "oracle":
        shapes = side.shapes_of(lambda torch: torch.network(config))
        return {name: initial_value(seed, name, shape, ZERO_AT_START) for name, shape in shapes.items()}
    return side.parameters(side.network(config, seed))


QUANTITIES = [
    Quantity("data", "batches: x_0, t and eps", _batches, BATCHES, elementwise),
    Quantity("data", "batches: labels, some of them dropped", _labels, EXACT, absolute),
    Quantity("data", "samples to pixels", _to_pixels, EXACT, absolute),
    *(
        Quantity(
            "parameters",
            f"initial values of {preset}",
            partial(_initial_values, preset=preset),
            INITIAL_VALUES,
            elementwise,
            slow=preset in SLOW,
        )
        for preset in NETWORKS
    ),
]
