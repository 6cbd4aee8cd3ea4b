"""The equations of the diffusion on images that are no square and have two channels, at both ends of time."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ddpm_parity.quantities import Arrays, Quantity, of_the_largest
from ddpm_parity.sides import Side, draw
from ddpm_parity.tolerances import ARITHMETIC, EMBEDDING
from ddpm_shared.config import DiffusionConfig
from ddpm_shared.oracle import networks

CONFIG = DiffusionConfig()
T = np.array([0, 1, 2, 499, 998, 999], np.int32)  # both ends, where faults by one live


def eps_model(x_t: Any, t: Any) -> Any:
    """A stand-in for the network that any array library can compute; a fault in t shows through the schedule."""
    return 0.3 * x_t + 0.002 * x_t**3


def _equation(call: Callable[..., Any], *parts: str) -> Callable[[Side], Arrays]:
    """call(engine, schedule, t, x_0, x_t, noise) on a side, its results named by `parts`."""

    def compute(side: Side) -> Arrays:
        images = (side.tensor(draw(len(T), 5, 4, 2, seed=seed)) for seed in range(3))
        result = call(side.engine, side.schedule(CONFIG), side.times(T), *images)
        values = result if isinstance(result, tuple) else (result,)
        return {part: side.array(value) for part, value in zip(parts, values, strict=True)}

    return compute


EQUATIONS = {
    "q_sample": _equation(lambda engine, s, t, x_0, x_t, eps: engine.q_sample(s, x_0, t, eps), "x_t"),
    "predict_x_0": _equation(lambda engine, s, t, x_0, x_t, eps: engine.predict_x_0(s, x_t, t, eps), "x_0_pred"),
    "q_posterior": _equation(
        lambda engine, s, t, x_0, x_t, eps: engine.q_posterior(s, x_0, x_t, t), "mean", "variance", "log_variance"
    ),
    "p_sample": _equation(lambda engine, s, t, x_0, x_t, z: engine.p_sample(s, eps_model, x_t, t, z), "x_prev"),
    "p_sample, not clipped": _equation(
        lambda engine, s, t, x_0, x_t, z: engine.p_sample(s, eps_model, x_t, t, z, clip_x_0=False), "x_prev"
    ),
    "diffusion_loss": _equation(
        lambda engine, s, t, x_0, x_t, eps: engine.diffusion_loss(s, eps_model, x_0, t, eps), "loss"
    ),
}


def _embedding(side: Side) -> Arrays:
    if side.name == "oracle":
        return {f"dim {dim}": networks.timestep_embedding(T, dim) for dim in (4, 16, 32, 64)}
    embeddings = {dim: side.networks.layers.timestep_embedding(side.times(T), dim) for dim in (4, 16, 32, 64)}
    return {f"dim {dim}": side.array(side.cast(value)) for dim, value in embeddings.items()}


QUANTITIES = [
    *(Quantity("engine", name, compute, ARITHMETIC, of_the_largest) for name, compute in EQUATIONS.items()),
    Quantity("embedding", "timestep_embedding at both ends", _embedding, EMBEDDING, of_the_largest),
]
