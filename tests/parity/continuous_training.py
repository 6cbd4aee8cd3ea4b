"""Training in continuous time: batches, and twenty whole steps of each process, with classes and in colour."""

import dataclasses
from typing import Any

import numpy as np

from ddpm_parity.continuous import config_of
from ddpm_parity.data import SPLIT
from ddpm_parity.quantities import Arrays, Quantity, absolute, elementwise
from ddpm_parity.sides import Array, Oracle, Side
from ddpm_parity.tolerances import BATCHES, EXACT
from ddpm_parity.training import IN_COLOUR, Plan, quantities, small_emoji
from ddpm_shared import batches, streams
from ddpm_shared.config import Config, TrainingConfig

STEPS, VALIDATION_IMAGES = 20, 11
# Beside what --process brings: a batch with one time in each part of the density.
TRAINED: dict[str, dict[str, Any]] = {"vp": {}, "ve": {}, "edm": {"stratified": True}, "flow": {}}
BATCH = Config(seed=4, training=TrainingConfig(batch_size=8, validation_images=VALIDATION_IMAGES))


def plan_of(process: str) -> Plan:
    """The run of twenty steps."""
    config = dataclasses.replace(
        IN_COLOUR,
        diffusion=config_of(process, **TRAINED[process]),
        training=dataclasses.replace(IN_COLOUR.training, epochs=STEPS, max_steps=STEPS),
    )
    return Plan(config, STEPS, splits=small_emoji)


def _numbers(seed: int, stream: str, step: int, count: int, stratified: bool) -> Array:
    """The oracle's: the middles of 2^52 equal parts of 0 .. 1, or each in a part of its own."""
    drawn = streams.generator(seed, stream, step).integers(0, 2**52, size=count)
    u = np.array([(int(each) + 0.5) * 2.0**-52 for each in drawn])
    return (u + np.arange(count)) / count if stratified else u


def _uniform(side: Side) -> Arrays:
    """The numbers that times are made of, in training and validation."""
    result: dict[str, Array] = {}
    for stratified in (False, True):
        config = dataclasses.replace(BATCH, diffusion=config_of("vp", stratified=stratified))
        for step in (0, 5, 6):
            name, size = f"stratified {stratified}, step {step}", config.training.batch_size
            if isinstance(side, Oracle):
                result[name] = _numbers(config.seed, "train/u", step, size, stratified)
            else:
                result[name] = side.array(side.batch(batches.training_batch(SPLIT, config, step).arrays)[1])
        name = f"stratified {stratified}, validation"
        if isinstance(side, Oracle):
            result[name] = _numbers(config.seed, "validation/u", 0, VALIDATION_IMAGES, False)
        else:
            validation = (side.batch(batch.arrays)[1] for batch in batches.validation_batches(SPLIT, config))
            result[name] = np.concatenate([side.array(u) for u in validation])
    return result


def _shares(side: Side) -> Arrays:
    """The numbers of the parts of a batch that two workers draw are those of the whole."""
    config = dataclasses.replace(BATCH, diffusion=config_of("edm", stratified=True))
    shares = [(0, 1)] if isinstance(side, Oracle) else [(0, 2), (1, 2)]
    parts = [batches.training_batch(SPLIT, config, 3, share) for share in shares]
    return {"u": np.concatenate([part.t for part in parts]), "eps": np.concatenate([part.eps for part in parts])}


QUANTITIES = [
    Quantity("continuous training", "uniform numbers of batches", _uniform, EXACT, absolute),
    Quantity("continuous training", "batches in two parts", _shares, BATCHES, elementwise),
    *(
        quantity
        for process in TRAINED
        for quantity in quantities(plan_of(process), f"{STEPS} steps in {process}", "continuous training")
    ),
]
