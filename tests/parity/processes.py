"""The processes of continuous time: paths, derivatives, the SDE, log-SNR and its inverse, grids, the prior."""

from collections.abc import Callable
from functools import partial
from typing import Any, get_args

import numpy as np

from ddpm_parity.quantities import Arrays, Quantity, elementwise, of_the_largest
from ddpm_parity.sides import Array, Side
from ddpm_parity.tolerances import GRIDS_OF_TIMES, LEVELS, LOG_SNR, RATES
from ddpm_shared.config import DiffusionConfig
from ddpm_shared.config.diffusion import with_process
from ddpm_shared.config.processes import PROCESS_FACTS
from ddpm_shared.config.samplers import CONTINUOUS, Grid

# Times of each, from little noise to (nearly) nothing else. flow ends in pure noise.
VISITED: dict[str, Array] = {
    "vp": np.linspace(0.02, 1.0, 7),
    "sub_vp": np.linspace(0.02, 1.0, 7),
    "ve": np.linspace(0.05, 1.0, 7),
    "ve_exponential": np.linspace(0.02, 1.0, 7),
    "edm": np.geomspace(0.01, 50.0, 7),
    "flow": np.linspace(0.05, 1.0, 7),
}
# The smallest times too, where differences cancel.
SMALL = np.array([1e-5, 1e-3])
LOG_SNRS = np.array([8.0, 5.5, 1.5, 0.0, -0.7, -4.0, -7.5])


def config_of(process: str) -> DiffusionConfig:
    """The settings that --process brings."""
    return with_process(DiffusionConfig(), process) if process in PROCESS_FACTS else DiffusionConfig()


def _of_each(side: Side, compute: Callable[[str, DiffusionConfig, Any], Any], times: dict[str, Array]) -> Arrays:
    """compute(process, config, t) for each process, whose one or two results become parts."""
    result: dict[str, Array] = {}
    for process, t in times.items():
        found = compute(process, config_of(process), side.times(t))
        pair = found if isinstance(found, tuple) else (found,)
        result |= {f"{process}: {number}": side.array(value) for number, value in enumerate(pair)}
    return result


def _with_small(last: int | None = None) -> dict[str, Array]:
    return {process: np.concatenate([SMALL, t[:last]]) for process, t in VISITED.items()}


def _paths(side: Side) -> Arrays:
    times = {"ddpm": np.array([0, 1, 499, 999]), **_with_small()}
    return _of_each(side, lambda process, config, t: side.processes.PROCESSES[process](config, t), times)


def _rates(side: Side) -> Arrays:
    return _of_each(side, lambda process, config, t: side.processes.RATES[process](config, t), _with_small())


def _sde(side: Side) -> Arrays:
    """F and g^2, but in pure noise, where those of flow are infinite."""

    def both(process: str, config: DiffusionConfig, t: Any) -> Any:
        return side.processes.drift(config, t, process), side.processes.squared_diffusion(config, t, process)

    return _of_each(side, both, _with_small(-1))


def _log_snr(side: Side) -> Arrays:
    return _of_each(side, lambda process, config, t: side.processes.log_snr(config, t, process), _with_small(-1))


def _times(side: Side) -> Arrays:
    """The inverse of the log-SNR."""
    wanted = dict.fromkeys(VISITED, LOG_SNRS)
    return _of_each(side, lambda process, config, snr: side.processes.TIMES[process](config, snr), wanted)


def _matched(side: Side) -> Arrays:
    """The times of every process at the noise of one of vp, and of the discrete process."""
    times = {"ddpm": np.array([0.0, 10.0, 500.0, 999.0]), "vp": VISITED["vp"]}
    config = DiffusionConfig()
    return {
        f"{process} to {other}": np.asarray(side.processes.matched(config, t, process, other))
        for process, t in times.items()
        for other in CONTINUOUS
    }


def _grids(side: Side, sigma: bool = False) -> Arrays:
    """Every grid of every process, with few steps and with one: the times, or the noise there."""
    result: dict[str, Array] = {}
    for process in CONTINUOUS:
        for grid in get_args(Grid):
            if (grid, process) == ("shifted", "edm"):
                continue
            for steps, rho, shift in ((7, 7.0, 1.0), (5, 3.0, 3.0), (1, 7.0, 3.0)):
                times = np.asarray(side.processes.make_grid(config_of(process), steps, grid, process, rho, shift))
                if sigma:
                    times = side.processes.make_levels(config_of(process), times, process).sigma
                result[f"{process}, {grid}, {steps}, rho {rho:g}, shift {shift:g}"] = times
    return result


def _priors(side: Side) -> Arrays:
    return {
        process: np.array(side.processes.prior_scale(config_of(process), process)) for process in ("ddpm", *CONTINUOUS)
    }


QUANTITIES = [
    Quantity("processes", "alpha and sigma", _paths, LEVELS, elementwise),
    Quantity("processes", "derivatives of alpha and sigma", _rates, RATES, elementwise),
    Quantity("processes", "drift and squared diffusion", _sde, RATES, elementwise),
    Quantity("processes", "log-SNR", _log_snr, LOG_SNR, of_the_largest),
    Quantity("processes", "time of a log-SNR", _times, LOG_SNR, elementwise),
    Quantity("processes", "matched times", _matched, GRIDS_OF_TIMES, of_the_largest),
    Quantity("processes", "times of every grid", _grids, GRIDS_OF_TIMES, of_the_largest),
    Quantity("processes", "noise on every grid", partial(_grids, sigma=True), LEVELS, elementwise),
    Quantity("processes", "prior scale", _priors, LEVELS, elementwise),
]
