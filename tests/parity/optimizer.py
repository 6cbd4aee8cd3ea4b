"""Warm-up, clipping, Adam and the moving average on given gradients."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ddpm_parity.quantities import Arrays, Quantity, absolute, elementwise, of_the_largest
from ddpm_parity.sides import Array, Side, draw
from ddpm_parity.tolerances import ADAM, CLIPPING, EMA, WARM_UP
from ddpm_shared import reference

STEPS, RATE, WARM_UP_STEPS, DECAY = 30, 1e-2, 10, 0.7
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


def _warm_up(side: Side) -> Arrays:
    module = reference if side.name == "oracle" else side.optimizer
    return {
        "learning rate": np.array([module.warmup_learning_rate(k, RATE, WARM_UP_STEPS) for k in range(15)]),
        "without warm-up": np.array([module.warmup_learning_rate(k, RATE, 0) for k in range(3)]),
    }


def _clipping(side: Side) -> Arrays:
    """Once to a norm far below the gradients', once to one far above, which leaves them alone."""
    found: dict[str, Array] = {}
    for max_norm in (1e-3, 1e3):
        if side.name == "oracle":
            clipped, norm = reference.clip_by_global_norm({str(i): g for i, g in enumerate(_gradients(0))}, max_norm)
            values = list(clipped.values())
        else:
            values, norm = side.optimizer.clip_by_global_norm(side.constants(_gradients(0)), max_norm)
        found |= {f"to {max_norm:g}, {name}": value for name, value in _named(side, values).items()}
        found[f"to {max_norm:g}, norm"] = np.array(float(norm))
    return found


def _adam(side: Side) -> Arrays:
    rates = [reference.warmup_learning_rate(k, RATE, WARM_UP_STEPS) for k in range(STEPS)]
    if side.name == "oracle":
        history = [_gradients(k) for k in range(1, STEPS + 1)]
        return _named(side, [reference.adam(p, [step[i] for step in history], rates) for i, p in enumerate(_start())])
    parameters = side.variables(_start())
    adam = side.optimizer.Adam(parameters)
    for k, rate in enumerate(rates, start=1):
        adam.update(side.constants(_gradients(k)), side.scalar(rate), side.scalar(k))
    return _named(side, parameters)


def _ema(side: Side) -> Arrays:
    values = [_start(), *([draw(*shape, seed=k) for shape in SHAPES] for k in range(1, STEPS + 1))]
    if side.name == "oracle":
        return _named(side, [reference.ema([value[i] for value in values], DECAY) for i in range(len(SHAPES))])
    averages = side.variables(values[0])
    for k in range(1, STEPS + 1):
        decay = side.optimizer.warmup_ema_decay(k, DECAY)
        side.optimizer.update_ema(averages, side.variables(values[k]), side.scalar(decay))
    return _named(side, averages)


QUANTITIES = [
    Quantity("optimizer", "learning rate with warm-up", _warm_up, WARM_UP, elementwise),
    Quantity("optimizer", "clipping by the global norm", _clipping, CLIPPING, of_the_largest),
    Quantity("optimizer", f"Adam, {STEPS} updates", _adam, ADAM, absolute),
    Quantity("optimizer", f"moving average, {STEPS} updates", _ema, EMA, absolute),
]
