"""What a network may predict: every conversion, both limits of x_0, every variance, the losses and their gradients."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any, get_args

import numpy as np

from ddpm_parity.engine import T, eps_model
from ddpm_parity.quantities import Arrays, Quantity, elementwise, of_the_largest
from ddpm_parity.sides import Array, Oracle, Side, draw
from ddpm_parity.tolerances import CONVERSIONS, LOSSES, SLOPES
from ddpm_shared.config import DiffusionConfig, LossWeighting, Prediction, Variance
from ddpm_shared.oracle import weights as oracle_weights

PREDICTIONS: tuple[Prediction, ...] = get_args(Prediction)
WEIGHTINGS = [name for name in get_args(LossWeighting) if name not in ("likelihood", "edm")]  # those of ddpm
LIMITS = {"not clipped": (False, None), "clipped": (True, None), "dynamic threshold": (True, 0.9)}
IMAGES = (len(T), 5, 4, 2)
SLOPES_AT = np.array([0.3, -0.2])
# Steps of the oracle's differences, of which that of the sixth order is exact on the square of the output's error.
OF_OUTPUT, OF_VARIANCE = 0.1, 1e-3


def config_of(prediction: Prediction, variance: Variance = "fixed_small", **more: Any) -> DiffusionConfig:
    """A cosine process, which has no linear one's coincidences, and ends in pure noise where it may."""
    return DiffusionConfig(
        schedule="cosine",
        prediction=prediction,
        variance=variance,
        zero_terminal_snr=prediction not in ("eps", "score"),
        sigma_data=0.7 if prediction == "F" else None,
        **more,
    )


def network_of(side: Side, config: DiffusionConfig) -> Callable[[Any, Any], Any]:
    """A stand-in for the network that any array library can compute, with as many channels as it needs."""
    if config.variance != "learned_range":
        return eps_model
    return lambda x_t, t: side.channels(eps_model(x_t, t), 0.4 * x_t)


def predicted(
    side: Side, config: DiffusionConfig, x_t: Any, t: Any, clip_x_0: bool, quantile: float | None, schedule: Any = None
) -> Any:
    """The side's Predicted."""
    schedule = schedule or side.schedule(config)
    network = network_of(side, config)
    if isinstance(side, Oracle):
        return side.prediction.denoise(schedule, network, config, x_t, t, clip_x_0, quantile)
    level, clipping = (
        side.prediction.level_of(schedule, t, config.sigma_data),
        side.prediction.make_clipping(clip_x_0, quantile),
    )
    return side.prediction.denoise(level, network, config, x_t, t, clipping)


def _conversions(side: Side, call: str) -> Arrays:
    x, output = (side.tensor(draw(*IMAGES, seed=seed)) for seed in range(2))
    result: dict[str, Array] = {}
    for prediction in PREDICTIONS:
        config, convert, t = config_of(prediction), getattr(side.prediction, call), side.times(T)
        schedule = side.schedule(config)
        if isinstance(side, Oracle):
            value = convert(schedule, prediction, x, t, output, config.sigma_data or 1.0)
        else:
            value = convert(side.prediction.level_of(schedule, t, config.sigma_data), prediction, x, output)
        result |= {f"{prediction}, t = {t}": part for t, part in zip(T, side.array(value), strict=True)}
    return result


def _targets(side: Side) -> Arrays:
    x_0, eps = (side.tensor(draw(*IMAGES, seed=seed)) for seed in range(2))
    result: dict[str, Array] = {}
    for prediction in PREDICTIONS:
        config, t = config_of(prediction), side.times(T)
        schedule = side.schedule(config)
        if isinstance(side, Oracle):
            x_t = side.engine.q_sample(schedule, x_0, t, eps)
            value = side.prediction.target(schedule, prediction, x_0, x_t, t, eps, config.sigma_data or 1.0)
        else:
            level = side.prediction.level_of(schedule, t, config.sigma_data)
            value = side.prediction.target(level, prediction, x_0, eps)
        result[prediction] = side.array(value)
    return result


def _denoised(side: Side, limit: str) -> Arrays:
    x_t = side.tensor(draw(*IMAGES))
    found: dict[str, Array] = {}
    for prediction, variance in itertools.product(PREDICTIONS, get_args(Variance)):
        answer = predicted(side, config_of(prediction, variance), x_t, side.times(T), *LIMITS[limit])
        found |= {f"{prediction}: x_0": side.array(answer.x_0), f"{prediction}: eps": side.array(answer.eps)}
        fraction = np.broadcast_to(side.array(answer.fraction), IMAGES)
        found[f"{variance}: fraction"] = fraction
    return found


def _log_variances(side: Side) -> Arrays:
    fraction = side.tensor(draw(*IMAGES))
    value = side.prediction.reverse_log_variance(side.schedule(config_of("v")), side.times(T), fraction)
    return {"log_variance": side.array(value)}


def _weights(side: Side) -> Arrays:
    result: dict[str, Array] = {}
    for prediction in PREDICTIONS:
        config, t = config_of(prediction), side.times(T)
        schedule = side.schedule(config)
        if isinstance(side, Oracle):
            weight = oracle_weights.loss_weight(schedule, prediction, t, 5.0, config.sigma_data or 1.0)
        else:
            level = side.prediction.level_of(schedule, t, config.sigma_data)
            weight = side.objective.loss_weight(level, prediction, 5.0)
        result[prediction] = side.array(weight).ravel()
    return result


def _loss(side: Side, config: DiffusionConfig, slopes: Any = None) -> Any:
    """The training loss; `slopes`, if given, are the weights of a network of two numbers: of output and variance."""
    x_0, eps = (side.tensor(np.clip(draw(*IMAGES), -1, 1)), side.tensor(draw(*IMAGES, seed=1)))
    network = network_of(side, config)
    if slopes is not None:
        a, b = slopes[0], slopes[1]

        def network(x_t: Any, t: Any) -> Any:
            return side.channels(a * x_t, b * x_t) if config.variance == "learned_range" else a * x_t

    return side.objective.training_loss(side.schedule(config), network, x_0, side.times(T), eps, config)


def _losses(side: Side) -> Arrays:
    kinds = itertools.product(PREDICTIONS, get_args(Variance), WEIGHTINGS)
    return {
        f"{prediction}, {variance}, {weighting}": np.asarray(
            side.array(_loss(side, config_of(prediction, variance, loss_weighting=weighting)))
        )
        for prediction, variance, weighting in kinds
    }


def _slopes(side: Side) -> Arrays:
    """The losses' gradients. The oracle's are differences: of all but the bound by the output."""
    found: dict[str, Array] = {}
    for prediction in PREDICTIONS:
        if isinstance(side, Oracle):  # the bound has no weighting
            learned = config_of(
                prediction, "learned_range", loss_weighting="min_snr"
            )  # not large, whatever is predicted
            of_variance = difference(partial(_nudged, side, learned, 1), OF_VARIANCE)
        for weighting in WEIGHTINGS:
            name = f"{prediction}, {weighting}"
            if isinstance(side, Oracle):
                plain = config_of(prediction, loss_weighting=weighting)
                of_output = difference(partial(_nudged, side, plain, 0), OF_OUTPUT)
                found[name] = np.array([of_output, of_variance])
            else:
                learned = config_of(prediction, "learned_range", loss_weighting=weighting)
                found[name] = side.slopes(partial(_loss, side, learned), SLOPES_AT)
    return found


def _nudged(side: Side, config: DiffusionConfig, index: int, step: float) -> Any:
    """The loss where one slope is off by `step`."""
    slopes = SLOPES_AT.copy()
    slopes[index] += step
    return _loss(side, config, slopes)


def difference(function: Callable[[float], Any], step: float) -> float:
    """The derivative at 0 by central differences of the sixth order."""
    weights = {1: 3 / 4, 2: -3 / 20, 3: 1 / 60}
    return sum(w * float(function(k * step) - function(-k * step)) for k, w in weights.items()) / step


QUANTITIES = [
    Quantity("prediction", "any output to x_0", partial(_conversions, call="to_x_0"), CONVERSIONS, of_the_largest),
    Quantity("prediction", "any output to eps", partial(_conversions, call="to_eps"), CONVERSIONS, of_the_largest),
    Quantity("prediction", "the target of each", _targets, CONVERSIONS, of_the_largest),
    *(
        Quantity("prediction", f"denoise, {limit}", partial(_denoised, limit=limit), CONVERSIONS, of_the_largest)
        for limit in LIMITS
    ),
    Quantity("prediction", "reverse_log_variance", _log_variances, CONVERSIONS, of_the_largest),
    Quantity("prediction", "weights of the losses", _weights, CONVERSIONS, elementwise),
    Quantity("prediction", "training_loss of every kind", _losses, LOSSES, elementwise),
    Quantity("prediction", "gradient of training_loss", _slopes, SLOPES, of_the_largest),
]
