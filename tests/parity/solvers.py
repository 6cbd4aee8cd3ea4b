"""The solvers in t on every process that they take, heun with churn, and Gaussian data, of which the truth is known."""

from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ddpm_parity.processes import VISITED, config_of
from ddpm_parity.quantities import Arrays, Quantity, elementwise, of_the_largest
from ddpm_parity.sides import Array, Side, draw
from ddpm_parity.tolerances import CHURN, EXACT_PATH, SOLVERS
from ddpm_shared.config.samplers import CONTINUOUS, SAMPLER_FACTS, SamplerName
from ddpm_shared.oracle.gaussian import Gaussian, make_gaussian

STEPS = 7
IMAGES = (2, 3, 4, 2)
SOLVERS_IN_T: tuple[SamplerName, ...] = ("euler", "heun_t", "rk4", "euler_maruyama", "pc")
PATH_STEPS = 256


class Guess(NamedTuple):
    """What a denoiser must have, and no more."""

    x_0: Any
    eps: Any


def guess(levels: Any) -> Any:
    """A denoiser on any levels: an x_0 that depends on x, and the eps that is left of x."""

    def denoise(x: Any, i: int) -> Guess:
        alpha, sigma = float(levels.alpha[i]), float(levels.sigma[i])
        x_0 = 0.3 * x / (alpha + sigma) + 0.1
        return Guess(x_0, (x - alpha * x_0) / sigma)

    return denoise


def knowing(side: Side, data: Gaussian) -> Any:
    """The perfect denoiser of Gaussian data, on any levels: levels -> (x, i) -> Guess."""

    def on(levels: Any) -> Any:
        def denoise(x: Any, i: int) -> Guess:
            predicted = data.predict(side.array(x).astype(np.float64), float(levels.alpha[i]), float(levels.sigma[i]))
            return Guess(side.tensor(predicted.x_0), side.tensor(predicted.eps))

        return denoise

    return on


def unordered(side: Side, process: str, times: Any) -> Any:
    """Levels at any times."""
    options = {} if side.name == "oracle" else {"ordered": False}
    return side.processes.make_levels(config_of(process), times, process, **options)


def middle(side: Side, process: str, times: Array, denoiser: Any) -> Any:
    """The waypoints of rk4: halfway between each time and the one before, of which the first has 0."""
    levels = unordered(side, process, (times + np.append(0.0, times[:-1])) / 2)
    return side.solvers.Waypoints(levels, denoiser(levels))


def raised(side: Side, process: str, levels: Any, denoiser: Any, *churn: float) -> Any:
    """The waypoints of heun with churn."""
    ratio = side.solvers.churned(levels, *churn)
    higher = unordered(side, process, side.processes.times_at_ratio(config_of(process), ratio, process))
    return side.solvers.Waypoints(higher, denoiser(higher))


def options_of(side: Side, name: str, process: str, times: Array, denoiser: Any) -> dict[str, Any]:
    """What a solver needs besides levels, a denoiser and noise."""
    if name == "rk4":
        return {"middle": middle(side, process, times, denoiser)}
    if name == "pc":
        noise = {(i, k): side.tensor(draw(*IMAGES, seed=200 + 10 * i + k)) for i in range(STEPS) for k in range(2)}
        return {"corrector_z_at": lambda i, k: noise[i, k], "corrector_steps": 2, "corrector_snr": 0.2}
    return {}


def steps_of(side: Side, name: str, levels: Any, denoise: Any, **options: Any) -> Arrays:
    """Every x_prev of a sampler, by its step."""
    noise = {i: side.tensor(draw(*IMAGES, seed=i)) for i in range(STEPS)}
    chain = getattr(side.samplers, name)(
        levels, denoise, side.tensor(draw(*IMAGES, seed=100)), noise.__getitem__, **options
    )
    return {f"i = {i}": side.array(x) for i, x in chain}


def _on_every_process(side: Side, name: SamplerName) -> Arrays:
    result: dict[str, Array] = {}
    for process in SAMPLER_FACTS[name].processes:
        times = VISITED[process]
        levels = side.processes.make_levels(config_of(process), times, process)
        options = options_of(side, name, process, times, guess)
        result |= {f"{process}: {i}": x for i, x in steps_of(side, name, levels, guess(levels), **options).items()}
    return result


# (S_churn, S_tmin, S_tmax): all raised as far as it goes, and some a little.
CHURNS = ((40.0,), (1.5, 0.1, 10.0))


def _churned(side: Side) -> Arrays:
    """The ratios up to which noise is added; infinite in pure noise, of which the inverse is compared."""
    result: dict[str, Array] = {}
    for process in CONTINUOUS:
        levels = side.processes.make_levels(config_of(process), VISITED[process], process)
        result |= {f"{process}, {churn}": 1.0 / np.asarray(side.solvers.churned(levels, *churn)) for churn in CHURNS}
    return result


def _heun_with_churn(side: Side) -> Arrays:
    result: dict[str, Array] = {}
    for process in CONTINUOUS:
        levels = side.processes.make_levels(config_of(process), VISITED[process], process)
        for churn in CHURNS:
            options = {"raised": raised(side, process, levels, guess, *churn), "churn_noise": 1.007}
            steps = steps_of(side, "heun", levels, guess(levels), **options)
            result |= {f"{process}, {churn}: {i}": x for i, x in steps.items()}
    return result


def gaussian() -> Gaussian:
    """Images of which each pixel is correlated with each."""
    size = int(np.prod(IMAGES[1:]))
    mixing = draw(size, size, seed=7) / 8
    return make_gaussian(0.3 * draw(size, seed=8), mixing @ mixing.T + 0.01 * np.eye(size))


def _gaussian_steps(side: Side) -> Arrays:
    """Solvers with the perfect denoiser, in which each pixel depends on all."""
    denoiser = knowing(side, gaussian())
    result: dict[str, Array] = {}
    names: tuple[SamplerName, ...] = ("ddim", "heun", "dpmpp_2m", *SOLVERS_IN_T)
    for name in names:
        for process in ("vp", "edm") if "flow" not in SAMPLER_FACTS[name].processes else ("vp", "edm", "flow"):
            levels = side.processes.make_levels(config_of(process), VISITED[process], process)
            options = options_of(side, name, process, VISITED[process], denoiser)
            steps = steps_of(side, name, levels, denoiser(levels), **options)
            result |= {f"{name}, {process}: {i}": x for i, x in steps.items()}
    return result


def _exact_path(side: Side) -> Arrays:
    """Where the ODE leads from much noise to little: the oracle has the closed form, the trees go in small steps."""
    result: dict[str, Array] = {}
    for process in CONTINUOUS:
        config, data = config_of(process), gaussian()
        times = side.processes.times_at_ratio(config, np.geomspace(0.1, 3.0, PATH_STEPS + 1), process)
        levels = side.processes.make_levels(config, times, process)
        x = draw(*IMAGES, seed=100) * float(levels.sigma[-1])
        if side.name == "oracle":
            there, here = ((float(levels.alpha[i]), float(levels.sigma[i])) for i in (0, -1))
            result[process] = data.travel(x, here, there)
            continue
        denoiser = knowing(side, data)
        waypoints = middle(side, process, times, denoiser)
        chain = side.samplers.rk4(levels, denoiser(levels), side.tensor(x), lambda i: None, waypoints)
        result[process] = next(side.array(x) for i, x in chain if i == 1)
    return result


QUANTITIES = [
    *(
        Quantity("solvers", name, partial(_on_every_process, name=name), SOLVERS, of_the_largest)
        for name in SOLVERS_IN_T
    ),
    Quantity("solvers", "levels of churn", _churned, CHURN, elementwise),
    Quantity("solvers", "heun with churn", _heun_with_churn, SOLVERS, of_the_largest),
    Quantity("solvers", "Gaussian data", _gaussian_steps, SOLVERS, of_the_largest),
    Quantity("solvers", "the exact path of Gaussian data", _exact_path, EXACT_PATH, of_the_largest),
]
