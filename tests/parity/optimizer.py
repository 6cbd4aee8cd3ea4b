"""The learning rate, clipping, Adam and the moving average on given gradients."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ddpm_parity.quantities import Arrays, Quantity, absolute, elementwise, of_the_largest
from ddpm_parity.sides import Array, Side, draw
from ddpm_parity.tolerances import ADAM, CLIPPING, EMA, LEARNING_RATE
from ddpm_shared.config import TrainingConfig
from ddpm_shared.oracle import optimizer

STEPS, DECAY = 30, 0.7
RATES = TrainingConfig(learning_rate=1e-2, warmup_steps=10, learning_rate_decay="none")
SHAPES = ((4, 3, 2), (5, 4), (6,))


def _start() -> list[Array]:
    return [draw(*shape, seed=99) for shape in SHAPES]


def _gradients(step: int) -> list[Array]:
    # Over eight orders of magnitude: where they are tiny, epsilon's size and place in Adam show.
    powers = np.random.default_rng(step)
    return [
        (draw(*shape, seed=step) * 10.0 ** powers.integers(-9, -1, size=shape)).astype(np.float32).astype(np.float64)
        for shape in SHAPES
    ]


def _named(side: Side, values: Sequence[Any]) -> Arrays:
    return {f"tensor {index}": side.array(value) for index, value in enumerate(values)}


def _learning_rate(side: Side) -> Arrays:
    settings = {
        "with warm-up": RATES,
        "without": TrainingConfig(learning_rate_decay="none"),
        "linear decay": replace(RATES, learning_rate_decay="linear", decay_start=0.5),
        "cosine decay": replace(RATES, learning_rate_decay="cosine"),
        "decay from the start": TrainingConfig(learning_rate_decay="linear", decay_start=0.0, final_learning_rate=0.0),
        "decay during the warm-up": replace(RATES, learning_rate_decay="cosine", decay_start=0.1),
    }
    if side.name == "oracle":
        return {name: optimizer.learning_rates(each, STEPS) for name, each in settings.items()}
    rate = side.optimizer.scheduled_learning_rate
    return {name: np.array([rate(k, STEPS, each) for k in range(STEPS)]) for name, each in settings.items()}


def _clipping(side: Side) -> Arrays:
    """Once to a norm far below the gradients', once to one far above, which leaves them alone."""
    found: dict[str, Array] = {}
    for max_norm in (1e-3, 1e3):
        if side.name == "oracle":
            clipped, norm = optimizer.clip_by_global_norm({str(i): g for i, g in enumerate(_gradients(0))}, max_norm)
            values = list(clipped.values())
        else:
            values, norm = side.optimizer.clip_by_global_norm(side.constants(_gradients(0)), max_norm)
        found |= {f"to {max_norm:g}, {name}": value for name, value in _named(side, values).items()}
        found[f"to {max_norm:g}, norm"] = np.array(float(norm))
    return found


def _adam(side: Side) -> Arrays:
    rates = optimizer.learning_rates(RATES, STEPS).tolist()
    if side.name == "oracle":
        history = [_gradients(k) for k in range(1, STEPS + 1)]
        return _named(side, [optimizer.adam(p, [step[i] for step in history], rates) for i, p in enumerate(_start())])
    parameters = side.variables(_start())
    adam = side.optimizer.Adam(parameters)
    for k, rate in enumerate(rates, start=1):
        adam.update(side.constants(_gradients(k)), side.scalar(rate), side.scalar(k))
    return _named(side, parameters)


def _ema(side: Side) -> Arrays:
    values = [_start(), *([draw(*shape, seed=k) for shape in SHAPES] for k in range(1, STEPS + 1))]
    if side.name == "oracle":
        return _named(side, [optimizer.ema([value[i] for value in values], DECAY) for i in range(len(SHAPES))])
    averages = side.variables(values[0])
    for k in range(1, STEPS + 1):
        decay = side.optimizer.warmup_ema_decay(k, DECAY)
        side.optimizer.update_ema(averages, side.variables(values[k]), side.scalar(decay))
    return _named(side, averages)


QUANTITIES = [
    Quantity("optimizer", "learning rate", _learning_rate, LEARNING_RATE, elementwise),
    Quantity("optimizer", "clipping by the global norm", _clipping, CLIPPING, of_the_largest),
    Quantity("optimizer", f"Adam, {STEPS} updates", _adam, ADAM, absolute),
    Quantity("optimizer", f"moving average, {STEPS} updates", _ema, EMA, absolute),
]
