"""Classifier-free guidance, at the scales that need one evaluation and at those that need two."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ddpm_parity.engine import T
from ddpm_parity.prediction import PREDICTIONS, config_of
from ddpm_parity.quantities import Arrays, Quantity, absolute, of_the_largest
from ddpm_parity.sides import Array, Oracle, Side, draw
from ddpm_parity.tolerances import ARITHMETIC, CONVERSIONS, ONE_THING

IMAGES = (len(T), 5, 4, 2)
SCALES = (0.0, 0.4, 1.0, 3.0)


def _network(side: Side, learned: bool = False) -> Any:
    """A stand-in for a network with labels: a label, any number, changes all channels."""

    def network(x_t: Any, t: Any, labels: Any = None) -> Any:
        shift = 0.0 if labels is None else labels
        output = 0.3 * x_t + 0.002 * x_t**3 + shift
        return side.channels(output, 0.4 * x_t - 2.0 * shift) if learned else output

    return network


def _guided(side: Side) -> Arrays:
    x_t, labels = side.tensor(draw(*IMAGES)), side.tensor(draw(len(T), 1, 1, 1, seed=1))
    result: dict[str, Array] = {}
    for learned in (False, True):
        network = _network(side, learned)
        plain = side.guidance.condition(network, None)
        result[f"no labels, learned {learned}"] = side.array(plain(x_t, side.times(T)))
        for scale in SCALES:
            guided = side.guidance.condition(network, labels, scale)
            result[f"scale {scale}, learned {learned}"] = side.array(guided(x_t, side.times(T)))
    return result


def _x_0(side: Side, prediction: Any, x_t: Any, output: Any) -> Any:
    schedule, t = side.schedule(config_of(prediction)), side.times(T)
    if isinstance(side, Oracle):
        return side.prediction.to_x_0(schedule, prediction, x_t, t, output)
    return side.prediction.to_x_0(side.prediction.level_of(schedule, t), prediction, x_t, output)


def _same_image(side: Side) -> Arrays:
    """The guided image, whatever is predicted: the oracle guides the images, the trees guide the outputs."""
    x_t, labels = side.tensor(draw(*IMAGES)), side.tensor(draw(len(T), 1, 1, 1, seed=1))
    network = _network(side)
    result: dict[str, Array] = {}
    for prediction in PREDICTIONS:
        if isinstance(side, Oracle):

            def image(x_t: Any, t: Any, labels: Any = None, prediction: Any = prediction) -> Any:
                return _x_0(side, prediction, x_t, network(x_t, t, labels))

            x_0 = side.guidance.condition(image, labels, 3.0)(x_t, side.times(T))
        else:
            output = side.guidance.condition(network, labels, 3.0)(x_t, side.times(T))
            x_0 = _x_0(side, prediction, x_t, output)
        result |= {f"{prediction}, t = {t}": part for t, part in zip(T, side.array(x_0), strict=True)}
    return result


def _one_thing(side: Side) -> Arrays:
    """How far the image of guided outputs is from the guided image, of its largest number, [B, H, W, C]: nothing.

    Of each prediction, and of two more directions a x_0 + b eps: the score and the velocity of a flow.
    """
    x_t, labels, t = side.tensor(draw(*IMAGES)), side.tensor(draw(len(T), 1, 1, 1, seed=1)), side.times(T)
    network, fields = _network(side), side.fields(config_of("eps"))
    alpha, sigma = (
        side.tensor(fields[name][T][:, None, None, None])
        for name in ("sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod")
    )
    image_of: dict[str, Callable[[Any, Any], Any]] = {
        "score": lambda x_t, output: (x_t + sigma**2 * output) / alpha,
        "flow": lambda x_t, output: (x_t - sigma * output) / (alpha + sigma),
        **{prediction: partial(_x_0, side, prediction) for prediction in PREDICTIONS},
    }
    result: dict[str, Array] = {}
    for name, image in image_of.items():

        def whole(x_t: Any, t: Any, labels: Any = None, image: Any = image) -> Any:
            return image(x_t, network(x_t, t, labels))

        of_outputs = image(x_t, side.guidance.condition(network, labels, 3.0)(x_t, t))
        guided = side.array(side.guidance.condition(whole, labels, 3.0)(x_t, t))
        result[name] = (side.array(of_outputs) - guided) / np.abs(guided).max(axis=(1, 2, 3), keepdims=True)
    return {name: np.zeros(IMAGES) for name in result} if side.name == "oracle" else result


QUANTITIES = [
    Quantity("guidance", "condition at every scale", _guided, ARITHMETIC, of_the_largest),
    Quantity("guidance", "guided outputs are guided images", _same_image, CONVERSIONS, of_the_largest),
    Quantity("guidance", "guiding any prediction guides the image", _one_thing, ONE_THING, absolute),
]
