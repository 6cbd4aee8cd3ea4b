"""What is predicted in continuous time: every prediction on every process, preconditioning, densities, losses.

Whatever a process allows is compared: what --process brings, and every other prediction and weighting.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, get_args

import numpy as np

from ddpm_parity.prediction import OF_OUTPUT, difference
from ddpm_parity.processes import VISITED
from ddpm_parity.quantities import Arrays, Quantity, elementwise, of_the_largest
from ddpm_parity.sides import Array, Oracle, Side, draw
from ddpm_parity.tolerances import (
    CONTINUOUS_CONVERSIONS,
    CONTINUOUS_LOSSES,
    CONTINUOUS_SLOPES,
    CONTINUOUS_TIMES,
    CONTINUOUS_WEIGHTS,
    ONE_LOSS,
    PRECONDITIONED,
    PRECONDITIONING,
)
from ddpm_shared.config import DiffusionConfig, LossWeighting, Prediction, with_process
from ddpm_shared.config.sampling import CONTINUOUS
from ddpm_shared.oracle import continuous as oracle
from ddpm_shared.oracle import prediction as oracle_prediction

SIGMA_DATA = 0.7
# Both ends of training, and in between.
TIMES = {name: np.concatenate([[0.002 if name == "edm" else 1e-5], times]) for name, times in VISITED.items()}
COUNT = len(TIMES["vp"])
IMAGES = (COUNT, 3, 4, 2)
# Both tails of every density, and in between.
UNIFORM = np.array([1e-6, 0.02, 0.2, 0.4, 0.6, 0.8, 0.98, 0.999])
SLOPES_AT = np.array([0.3, -0.2])
DENSITIES: dict[str, tuple[str, dict[str, Any]]] = {
    "uniform": ("vp", {}),
    "uniform in sigma": ("edm", {"time_density": "uniform"}),
    "log-normal of EDM": ("edm", {}),
    "log-normal, another": ("edm", {"density_mean": 0.4, "density_deviation": 0.7}),
    "logit-normal": ("flow", {}),
    "logit-normal, to the noise": ("vp", {"time_density": "logit_normal", "density_mean": 0.8}),
    "logit-normal, beyond the first t": ("flow", {"density_mean": -9.0, "density_deviation": 3.0}),
    "shifted": ("flow", {"time_density": "shifted"}),
    "shifted to the image": ("ve", {"time_density": "shifted", "density_shift": 0.4}),
}


def config_of(process: str, **more: Any) -> DiffusionConfig:
    """What --process brings, and `more`."""
    return dataclasses.replace(with_process(DiffusionConfig(), process), sigma_data=SIGMA_DATA, **more)  # type: ignore[arg-type]


def predictions_of(process: str) -> list[Prediction]:
    """What a network may predict in a process."""
    without = ("mean", "eps", "score") if process == "flow" else ("mean",)
    return [name for name in get_args(Prediction) if name not in without]


def weightings_of(process: str) -> list[LossWeighting]:
    """The weightings of a process."""
    return [name for name in get_args(LossWeighting) if (process, name) != ("flow", "likelihood")]


def configs() -> Iterator[tuple[str, DiffusionConfig]]:
    """Every prediction on every process, by name; without preconditioning."""
    for process in CONTINUOUS:
        for prediction in predictions_of(process):
            config = config_of(process, prediction=prediction, preconditioning="none")
            yield f"{process}, {prediction}", config


def preconditioned() -> Iterator[tuple[str, DiffusionConfig]]:
    """Every preconditioning on every process, by name."""
    for process in CONTINUOUS:
        scale = {"time_scale": 3.0}
        yield f"{process}, none", config_of(process, preconditioning="none", **scale)
        if process != "flow":
            yield f"{process}, score_sde", config_of(process, preconditioning="score_sde", prediction="score", **scale)
            for prediction in ("x_0", "F"):
                yield (
                    f"{process}, edm, {prediction}",
                    config_of(process, preconditioning="edm", prediction=prediction, **scale),
                )


def _of_each_time(values: Array, name: str, t: Array) -> Arrays:
    """The parts of a batch, each image by itself: at one time numbers are larger than at another."""
    return {f"{name}, t = {time:.3g}": part for time, part in zip(t, values, strict=True)}


def _converted(side: Side, call: str) -> Arrays:
    """Any output to x_0 or to eps."""
    x_t, output = (side.tensor(draw(*IMAGES, seed=seed)) for seed in range(2))
    result: dict[str, Array] = {}
    for name, config in configs():
        times = TIMES[config.process]
        if isinstance(side, Oracle):
            schedule, index = oracle.levels_of(config, times)
            convert = getattr(oracle_prediction, call)
            value = convert(schedule, config.prediction, x_t, index, output, SIGMA_DATA)
        else:
            level = side.prediction.level_at(config, side.times(times), side.dtype)
            value = getattr(side.prediction, call)(level, config.prediction, x_t, output)
        result |= _of_each_time(side.array(value), name, times)
    return result


def _targets(side: Side) -> Arrays:
    x_0, eps = (side.tensor(draw(*IMAGES, seed=seed)) for seed in range(2))
    result: dict[str, Array] = {}
    for name, config in configs():
        times = TIMES[config.process]
        if isinstance(side, Oracle):
            schedule, index = oracle.levels_of(config, times)
            x_t = side.engine.q_sample(schedule, x_0, index, eps)
            value = oracle_prediction.target(schedule, config.prediction, x_0, x_t, index, eps, SIGMA_DATA)
        else:
            level = side.prediction.level_at(config, side.times(times), side.dtype)
            value = side.prediction.target(level, config.prediction, x_0, eps)
        result |= _of_each_time(side.array(value), name, times)
    return result


def _denoised(side: Side) -> Arrays:
    """x_0, clipped, and eps, of a preconditioned network on each process as --process brings it."""
    x_t, result = draw(*IMAGES), dict[str, Array]()
    for process, clip in itertools.product(CONTINUOUS, (True, False)):
        config, times = config_of(process), TIMES[process]
        alpha, sigma = (size.reshape(-1, 1, 1, 1) for size in oracle.levels_of(config, times)[0].values())
        given = side.tensor((x_t * np.hypot(alpha, sigma)).astype(np.float32).astype(np.float64))
        if isinstance(side, Oracle):
            predicted = oracle.denoise(stand_in(side), config, given, times, clip)
        else:
            t = side.times(times)
            level = side.prediction.level_at(config, t, side.dtype)
            network = side.preconditioning.precondition(stand_in(side), config)
            clipping = side.prediction.make_clipping(clip)
            predicted = side.prediction.denoise(level, network, config, given, t, clipping)
        for part in ("x_0", "eps"):
            result |= _of_each_time(side.array(getattr(predicted, part)), f"{process}, {clip}: {part}", times)
    return result


# --- Preconditioning ----------------------------------------------------------------------------------------


def stand_in(side: Side, slopes: Any = (0.3, 0.1)) -> Callable[[Any, Any], Any]:
    """A stand-in for the network, which depends on its time: one slope is that of x, the other that of the time."""

    def network(x: Any, t: Any) -> Any:
        time = (t if isinstance(side, Oracle) else side.cast(t))[:, None, None, None]
        return slopes[0] * x + 0.0002 * x**3 + slopes[1] * (1.0 + time) / (1.0 + 0.01 * time**2)

    return network


def _factors(side: Side) -> Arrays:
    result: dict[str, Array] = {}
    for name, config in preconditioned():
        times = TIMES[config.process]
        if isinstance(side, Oracle):
            factors: Any = oracle.preconditioning(config, times)
        else:
            factors = side.preconditioning.preconditioning(config, side.times(times), side.dtype)
        for part, value in factors._asdict().items():
            array = np.array(value) if isinstance(value, float) else side.array(value)
            result[f"{name}: {part}"] = np.broadcast_to(array.ravel(), len(times))
    return result


def _preconditioned(side: Side) -> Arrays:
    """The output of a network in its preconditioning."""
    x_t, result = side.tensor(draw(*IMAGES)), dict[str, Array]()
    for name, config in preconditioned():
        module, times = oracle if isinstance(side, Oracle) else side.preconditioning, TIMES[config.process]
        value = module.precondition(stand_in(side), config)(x_t, side.times(times))
        result |= _of_each_time(side.array(value), name, times)
    return result


# --- Training -----------------------------------------------------------------------------------------------


def _times(side: Side) -> Arrays:
    """The times of every density: at both tails, and for a stratified batch."""
    module, result = oracle if isinstance(side, Oracle) else side.objective, dict[str, Array]()
    for name, (process, settings) in DENSITIES.items():
        t = module.times_of(config_of(process, **settings), side.times(UNIFORM))
        result[name] = side.array(t)
    return result


def _weights(side: Side) -> Arrays:
    result: dict[str, Array] = {}
    for name, config in configs():
        times = TIMES[config.process]
        for weighting in weightings_of(config.process):
            weighted = dataclasses.replace(config, loss_weighting=weighting)
            if isinstance(side, Oracle):
                value = oracle.weights_of(weighted, times)
            else:
                t = side.times(times)
                level = side.prediction.level_at(weighted, t, side.dtype)
                value = side.array(side.objective.error_weight(level, weighted, t))
            result[f"{name}, {weighting}"] = value.ravel()
    return result


def loss_of(side: Side, config: DiffusionConfig, slopes: Any = (0.3, 0.1), network: Any = None) -> Any:
    """The training loss of the stand-in of these slopes, or of another network."""
    x_0, eps = side.tensor(np.clip(draw(*IMAGES), -1, 1)), side.tensor(draw(*IMAGES, seed=1))
    network = network or stand_in(side, slopes)
    if isinstance(side, Oracle):
        return oracle.training_loss(network, x_0, UNIFORM, eps, config)
    schedule = side.schedule(config)
    return side.objective.training_loss(schedule, network, x_0, side.times(UNIFORM), eps, config)


def _losses(side: Side) -> Arrays:
    """What --process brings, and every other prediction and weighting."""
    kinds = dict(preconditioned()) | {f"{process}, its own": config_of(process) for process in CONTINUOUS}
    for name, config in configs():
        for weighting in weightings_of(config.process):
            kinds[f"{name}, {weighting}"] = dataclasses.replace(config, loss_weighting=weighting)
    return {name: np.asarray(side.array(loss_of(side, config))) for name, config in kinds.items()}


def _slopes(side: Side) -> Arrays:
    """The gradients of the losses of what --process brings; the oracle's are differences."""
    result: dict[str, Array] = {}
    for process in CONTINUOUS:
        config = config_of(process)
        if isinstance(side, Oracle):
            result[process] = np.array([difference(partial(_nudged, side, config, i), OF_OUTPUT) for i in range(2)])
        else:
            result[process] = side.slopes(partial(loss_of, side, config), SLOPES_AT)
    return result


def _nudged(side: Side, config: DiffusionConfig, index: int, step: float) -> Any:
    return loss_of(side, config, SLOPES_AT + step * np.eye(2)[index])


def _same_losses(side: Side) -> Arrays:
    """The loss of one denoiser, whatever it is made to predict: a weighting is of the loss, not of the prediction.

    The oracle's denoiser predicts x_0; those of the trees all there is. EDM's F with the simple weighting, and EDM's
    preconditioning, has the loss of x_0 with EDM's weighting.
    """
    result: dict[str, Array] = {}
    for process in CONTINUOUS:
        predictions = predictions_of(process)
        for weighting, prediction in itertools.product(weightings_of(process), predictions):
            chosen = "x_0" if isinstance(side, Oracle) else prediction
            settings: dict[str, Any] = {"loss_weighting": weighting, "preconditioning": "none"}
            if weighting == "simple":  # of F
                if prediction != "F" or process == "flow":
                    continue
                settings = {"preconditioning": "edm"}
                settings["loss_weighting"] = "edm" if chosen == "x_0" else "simple"
                config = config_of(process, prediction=chosen, **settings)
                loss = loss_of(side, config)
            else:
                config = config_of(process, prediction=chosen, time_scale=1.0, **settings)
                loss = loss_of(side, config, network=_restated(side, config))
            result[f"{process}, {weighting}, {prediction}"] = np.asarray(side.array(loss))
    return result


def _restated(side: Side, config: DiffusionConfig) -> Callable[[Any, Any], Any]:
    """The denoiser x_0 = 0.1 x_t / (alpha + sigma) as a network of what `config` predicts."""
    if isinstance(side, Oracle):

        def of_x_0(x_t: Array, t: Array) -> Array:
            alpha, sigma = (size.reshape(-1, 1, 1, 1) for size in oracle.levels_of(config, t)[0].values())
            return 0.1 * x_t / (alpha + sigma)

        return of_x_0

    def network(x_t: Any, t: Any) -> Any:
        level = side.prediction.level_at(config, t, side.dtype)
        x_0 = 0.1 * x_t / (level.alpha + level.sigma)
        return side.prediction.target(level, config.prediction, x_0, (x_t - level.alpha * x_0) / level.sigma)

    return network


QUANTITIES = [
    Quantity(
        "continuous", "any output to x_0", partial(_converted, call="to_x_0"), CONTINUOUS_CONVERSIONS, of_the_largest
    ),
    Quantity(
        "continuous", "any output to eps", partial(_converted, call="to_eps"), CONTINUOUS_CONVERSIONS, of_the_largest
    ),
    Quantity("continuous", "the target of each", _targets, CONTINUOUS_CONVERSIONS, of_the_largest),
    Quantity("continuous", "denoise", _denoised, PRECONDITIONED, of_the_largest),
    Quantity("continuous", "factors of the preconditioning", _factors, PRECONDITIONING, elementwise),
    Quantity("continuous", "a network in its preconditioning", _preconditioned, PRECONDITIONED, of_the_largest),
    Quantity("continuous", "times of every density", _times, CONTINUOUS_TIMES, elementwise),
    Quantity("continuous", "weights of the losses", _weights, CONTINUOUS_WEIGHTS, elementwise),
    Quantity("continuous", "training_loss of every kind", _losses, CONTINUOUS_LOSSES, elementwise),
    Quantity("continuous", "gradient of training_loss", _slopes, CONTINUOUS_SLOPES, of_the_largest),
    Quantity("continuous", "one loss, whatever is predicted", _same_losses, ONE_LOSS, elementwise),
]
