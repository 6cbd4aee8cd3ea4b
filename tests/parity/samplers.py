"""Whole trajectories of every sampler, on every spacing, for every kind of network, from the same noise."""

import itertools
from functools import partial
from typing import Any, get_args

import numpy as np

from ddpm_parity.prediction import PREDICTIONS, config_of, predicted
from ddpm_parity.processes import VISITED
from ddpm_parity.processes import config_of as config_of_process
from ddpm_parity.quantities import Arrays, Quantity, elementwise, of_the_largest
from ddpm_parity.sides import Array, Side, draw
from ddpm_parity.solvers import IMAGES, STEPS, guess, steps_of
from ddpm_parity.tolerances import ARITHMETIC, LEVELS, TRAJECTORIES, TRAJECTORIES_OF_EPS, TRAJECTORIES_OF_PROCESSES
from ddpm_shared.config import DiffusionConfig, Variance
from ddpm_shared.config.samplers import SAMPLER_FACTS, Spacing
from ddpm_shared.config.sampling import times

# Those that need no derivatives by t, and so take the discrete process too.
ON_DDPM = [name for name, facts in SAMPLER_FACTS.items() if "ddpm" in facts.processes]
ETAS = (0.0, 0.6, 1.0)


def _denoiser(side: Side, config: DiffusionConfig, visited: list[int], clip_x_0: bool = True) -> Any:
    schedule = side.schedule(config)

    def denoise(x_t: Any, i: int) -> Any:
        t = side.times(np.full(IMAGES[0], visited[i], np.int32))
        return predicted(side, config, x_t, t, clip_x_0, None, schedule)

    return denoise


def _chain(side: Side, name: str, config: DiffusionConfig, spacing: Spacing, **options: Any) -> Arrays:
    """Every x_prev of a sampler, by its step."""
    visited = times(config.timesteps, STEPS, spacing)
    levels = side.processes.make_levels(config, visited)
    return steps_of(side, name, levels, _denoiser(side, config, visited), **options)


def _processes(side: Side) -> Arrays:
    """Every sampler on every continuous process, with a denoiser of x_0 and eps alone."""
    result: dict[str, Array] = {}
    for process, visited in VISITED.items():
        levels = side.processes.make_levels(config_of_process(process), visited, process)
        for name in ON_DDPM:
            steps = steps_of(side, name, levels, guess(levels))
            result |= {f"{process}, {name}: {i}": x for i, x in steps.items()}
    return result


def _levels(side: Side) -> Arrays:
    """Alpha and sigma of every process; with the times, all that samplers know of it."""
    result: dict[str, Array] = {}
    for process, visited in {"ddpm": np.array([0, 1, 499, 999]), **VISITED}.items():
        levels = side.processes.make_levels(config_of_process(process), visited, process)
        result |= {f"{process}: {name}": np.asarray(getattr(levels, name)) for name in ("alpha", "sigma", "times")}
    return result


def _chains(side: Side, name: str) -> Arrays:
    """A sampler's trajectories, whatever the network predicts, whatever the spacing."""
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
        side.processes.make_levels(config, visited),
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
        for name in ON_DDPM
    ),
    Quantity("samplers", "levels of every process", _levels, LEVELS, elementwise),
    Quantity("samplers", "every sampler on every process", _processes, TRAJECTORIES_OF_PROCESSES, of_the_largest),
    Quantity("samplers", "ancestral, every variance", _variances, TRAJECTORIES, of_the_largest),
    Quantity("samplers", "ddim_invert", partial(_inversion, iterations=1), TRAJECTORIES, of_the_largest),
    Quantity("samplers", "ddim_invert, 4 iterations", partial(_inversion, iterations=4), TRAJECTORIES, of_the_largest),
    Quantity("samplers", "slerp", _slerp, ARITHMETIC, of_the_largest),
]
