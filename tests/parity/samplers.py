"""Whole trajectories of every sampler, on every spacing, for every kind of network, from the same noise."""

import itertools
from functools import partial
from typing import Any, get_args

import numpy as np

from ddpm_parity.prediction import PREDICTIONS, config_of, predicted
from ddpm_parity.quantities import Arrays, Quantity, of_the_largest
from ddpm_parity.sides import Array, Side, draw
from ddpm_parity.tolerances import ARITHMETIC, TRAJECTORIES, TRAJECTORIES_OF_EPS
from ddpm_shared.config import DiffusionConfig, Variance
from ddpm_shared.config.sampling import SAMPLER_FACTS, Spacing, times

STEPS = 7  # of 40, which it does not divide
IMAGES = (2, 3, 4, 2)
ETAS = (0.0, 0.6, 1.0)


def _denoiser(side: Side, config: DiffusionConfig, visited: list[int], clip_x_0: bool = True) -> Any:
    schedule = side.schedule(config)

    def ask(x_t: Any, i: int) -> Any:
        t = side.times(np.full(IMAGES[0], visited[i], np.int32))
        return predicted(side, config, x_t, t, clip_x_0, None, schedule)

    return ask


def _chain(side: Side, name: str, config: DiffusionConfig, spacing: Spacing, **options: Any) -> Arrays:
    """Every x_prev of a sampler, by its step."""
    visited = times(config.timesteps, STEPS, spacing)
    noise = {i: side.tensor(draw(*IMAGES, seed=i)) for i in range(STEPS)}
    sampler = getattr(side.samplers, name)
    chain = sampler(
        side.schedule(config, visited),
        _denoiser(side, config, visited),
        side.tensor(draw(*IMAGES, seed=100)),
        noise.__getitem__,
        **options,
    )
    return {f"i = {i}": side.array(x) for i, x in chain}


def _chains(side: Side, name: str) -> Arrays:
    """A sampler's trajectories, whatever the network tells, whatever the spacing."""
    found: dict[str, Array] = {}
    for prediction, spacing in itertools.product(PREDICTIONS, get_args(Spacing)):
        config = config_of(prediction, timesteps=40)
        for eta in ETAS if name == "ddim" else (None,):
            options = {} if eta is None else {"eta": eta}
            chain = _chain(side, name, config, spacing, **options)
            found |= {f"{prediction}, {spacing}, {options}: {i}": x for i, x in chain.items()}
    return found


def _variances(side: Side) -> Arrays:
    """The ancestral sampler with each reverse variance."""
    return {
        f"{variance}: {i}": x
        for variance in get_args(Variance)
        for i, x in _chain(side, "ancestral", config_of("eps", variance, timesteps=40), "trailing").items()
    }


def _inversion(side: Side, iterations: int) -> Arrays:
    config = DiffusionConfig(timesteps=40, beta_end=0.3)
    visited = times(40, STEPS, "trailing")
    chain = side.samplers.ddim_invert(
        side.schedule(config, visited),
        _denoiser(side, config, visited, clip_x_0=False),
        side.tensor(draw(*IMAGES)),
        iterations,
    )
    return {f"i = {i}": side.array(x) for i, x in chain}


def _slerp(side: Side) -> Arrays:
    x, y = (side.tensor(draw(*IMAGES, seed=seed)) for seed in range(2))
    weights = (np.zeros(2), np.array([0.25, 0.7]), np.ones(2))
    return {f"{w}": side.array(side.samplers.slerp(x, y, side.tensor(w))) for w in weights}


QUANTITIES = [
    *(
        Quantity(
            "samplers",
            name,
            partial(_chains, name=name),
            TRAJECTORIES_OF_EPS if name in ("plms", "heun") else TRAJECTORIES,
            of_the_largest,
        )
        for name in SAMPLER_FACTS
    ),
    Quantity("samplers", "ancestral, every variance", _variances, TRAJECTORIES, of_the_largest),
    Quantity("samplers", "ddim_invert", partial(_inversion, iterations=1), TRAJECTORIES, of_the_largest),
    Quantity("samplers", "ddim_invert, 4 iterations", partial(_inversion, iterations=4), TRAJECTORIES, of_the_largest),
    Quantity("samplers", "slerp", _slerp, ARITHMETIC, of_the_largest),
]
