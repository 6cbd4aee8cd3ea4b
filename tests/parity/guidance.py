"""Classifier-free guidance, at the scales that need one evaluation and at those that need two."""

from typing import Any

from ddpm_parity.engine import T
from ddpm_parity.prediction import PREDICTIONS, config_of
from ddpm_parity.quantities import Arrays, Quantity, of_the_largest
from ddpm_parity.sides import Array, Oracle, Side, draw
from ddpm_parity.tolerances import ARITHMETIC, CONVERSIONS

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


QUANTITIES = [
    Quantity("guidance", "condition at every scale", _guided, ARITHMETIC, of_the_largest),
    Quantity("guidance", "guided outputs are guided images", _same_image, CONVERSIONS, of_the_largest),
]
