"""The exercises of 04: training."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ddpm_course.exercises.checking import Off, compare, exercise, require_written
from ddpm_shared.config import TrainingConfig
from ddpm_shared.oracle import optimizer


@exercise
def learning_rate(answer: Callable[..., Any]) -> None:
    """(step, num_steps, rate, warmup_steps, decay_start, final) -> the rate at the 0-based step."""
    settings = TrainingConfig(
        learning_rate=1e-3, warmup_steps=100, learning_rate_decay="linear", decay_start=0.4, final_learning_rate=0.1
    )
    num_steps, steps = 1000, (0, 49, 99, 300, 400, 700, 999)
    rates = optimizer.learning_rates(settings, num_steps)
    late = optimizer.learning_rates(settings, num_steps + 1)
    found = [answer(step, num_steps, 1e-3, 100, 0.4, 0.1) for step in steps]
    require_written(*found)
    warm = [min(1, (step + 1) / 100) for step in steps]
    fall = [min(1.0, max(0.0, (step / num_steps - 0.4) / 0.6)) for step in steps]
    compare(
        found,
        [rates[step] for step in steps],
        {
            "step 0 does not move at all: the warm-up is (step + 1) / warmup_steps": [
                1e-3 * min(1, step / 100) * (1 - 0.9 * p) for step, p in zip(steps, fall, strict=True)
            ],
            "it falls to 0: stop at final times the rate": [
                1e-3 * w * (1 - p) for w, p in zip(warm, fall, strict=True)
            ],
            "it falls from the first step on: until decay_start * num_steps it stays": [
                1e-3 * w * (1 - 0.9 * step / num_steps) for w, step in zip(warm, steps, strict=True)
            ],
            "the warm-up is missing": [1e-3 * (1 - 0.9 * p) for p in fall],
            "the fall is missing": [1e-3 * w for w in warm],
            "your run has one step too many: it ends at num_steps, which is no step": [late[step] for step in steps],
        },
    )


@exercise
def adam_step(answer: Callable[..., Any]) -> None:
    """(p, m, v, g, rate, k) -> (p, m, v) after the k-th update: Kingma and Ba 2015, algorithm 1."""
    rng = np.random.default_rng(0)
    gradients = 1e-3 * rng.standard_normal((3, 5))
    start = rng.standard_normal(5)
    expected = optimizer.adam(start, list(gradients), [1e-2] * 3)

    def after(update: Callable[..., Any]) -> Any:
        return _adam(update, start, gradients, 1e-2)

    compare(
        after(answer),
        expected,
        {
            "the bias corrections are missing: early on, m and v are too small": after(_wrong(correct=False)),
            "epsilon belongs outside the root": after(_wrong(inside=True)),
            "your epsilon is Keras' 1e-7; the paper's is 1e-8": after(_wrong(epsilon=1e-7)),
            "it climbs: subtract": after(_wrong(sign=1.0)),
            "v is the average of the squares of the gradients": after(_wrong(square=False)),
        },
    )


def _adam(update: Callable[..., Any], p: Any, gradients: Any, rate: float) -> Any:
    """The parameters after one update for each gradient."""
    m, v = np.zeros_like(p), np.zeros_like(p)
    for k, g in enumerate(gradients, start=1):
        found = update(p, m, v, g, rate, k)
        require_written(found)
        if len(found) != 3:
            raise Off("return three arrays: the parameters, m and v")
        p, m, v = found
    return p


def _wrong(
    correct: bool = True, inside: bool = False, epsilon: float = 1e-8, sign: float = -1.0, square: bool = True
) -> Callable[..., Any]:
    def update(p: Any, m: Any, v: Any, g: Any, rate: float, k: int) -> Any:
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * (g**2 if square else np.abs(g))
        m_hat, v_hat = (m / (1 - 0.9**k), v / (1 - 0.999**k)) if correct else (m, v)
        root = np.sqrt(v_hat + epsilon) if inside else np.sqrt(v_hat) + epsilon
        return p + sign * rate * m_hat / root, m, v

    return update


@exercise
def average(answer: Callable[..., Any]) -> None:
    """(values [K + 1], decay) -> their moving average after K updates, with the warm-up (1 + k) / (10 + k)."""
    values = np.random.default_rng(1).standard_normal(200).cumsum()

    def moved(decay_of: Callable[[int], float], values: Any = values) -> float:
        found = values[0]
        for k, value in enumerate(values[1:], start=1):
            found = decay_of(k) * found + (1 - decay_of(k)) * value
        return float(found)

    compare(
        answer(values, 0.95),
        float(optimizer.ema(list(values), 0.95)),
        {
            "the warm-up is missing: early on the average forgets faster": moved(lambda k: 0.95),
            "the counting of k: it is 1 at the first update": moved(lambda k: min(0.95, k / (9 + k))),
            "old and new have changed places: decay is what stays of the average": moved(
                lambda k: 1 - min(0.95, (1 + k) / (10 + k))
            ),
            "the warm-up never ends: take the smaller of it and decay": moved(lambda k: (1 + k) / (10 + k)),
            "the first value is where the average begins, and no update": moved(
                lambda k: min(0.95, (1 + k) / (10 + k)), np.append(values[0], values)
            ),
        },
    )
