"""Class labels all the way: a small network with classes, guided drawing by every sampler, the bound, the inversion.

The network also predicts the variance, which guidance must leave alone. Of its three classes, one is in no batch.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ddpm_parity.data import labels_of
from ddpm_parity.quantities import Arrays, Measure, Quantity, elementwise, of_the_gradient, of_the_largest
from ddpm_parity.sampling import FEW, denoiser, oracle_s
from ddpm_parity.sides import Array, Oracle, Side, draw, random_parameters
from ddpm_parity.tolerances import FORWARD, GRADIENTS, GUIDED_INVERSION, GUIDED_STEPS, LABELLED_TERMS, LOSS, Tolerance
from ddpm_shared import batches
from ddpm_shared.config import Config, DiffusionConfig, ModelConfig, TrainingConfig
from ddpm_shared.config.sampling import Draw, Sampling
from ddpm_shared.datasets import Split
from ddpm_shared.oracle import bound as oracle_bound
from ddpm_shared.oracle import guidance as oracle_guidance
from ddpm_shared.oracle import processes as oracle_processes
from ddpm_shared.oracle import samplers as oracle_samplers
from ddpm_shared.oracle.networks import Network, loss_and_gradients

CLASSES = 3
MODEL = ModelConfig(
    base_channels=8,
    channel_mults=(1,),
    num_res_blocks=1,
    attention_resolutions=(),
    num_groups=4,
    image_size=6,
    image_channels=2,
    num_classes=CLASSES,
)
CONFIG = Config(
    device="cpu",
    class_conditional=True,
    model=MODEL,
    diffusion=DiffusionConfig(timesteps=40, beta_end=0.3, variance="learned_range"),
)
NULL = CLASSES  # the label of no class
LABELS = np.array([2, NULL, 0, NULL, 2, 0])  # none of class 1
ABSENT = 1
T = np.array([0, 39, 1, 20, 5, 30], np.int32)
IMAGES = (len(T), 6, 6, 2)
# Of the five times 7, 15, 23, 31 and 39, both ends of the interval are visited: they are in it.
GUIDANCE: dict[str, Any] = {"guidance": 3.0, "guidance_from": 15, "guidance_to": 31}
GUIDED = [dataclasses.replace(sampling, steps=5, spacing="trailing", **GUIDANCE) for sampling in FEW]
# Training and validation: ten images of the three classes, in batches of four. In the first, two labels are dropped.
TRAINED = dataclasses.replace(CONFIG, seed=6, training=TrainingConfig(batch_size=4, label_drop=0.5))
SPLIT = Split(
    "noise",
    "train",
    np.random.default_rng(1).integers(0, 256, size=(10, *IMAGES[1:]), dtype=np.uint8),
    np.arange(10, dtype=np.uint8) % CLASSES,
    "",
)
PIXELS = np.random.default_rng(0).integers(0, 256, size=IMAGES, dtype=np.uint8)


def weights(labels: Array) -> Array:
    """A mixture of each image's label and the next one's, [B, K + 1]: three parts and one."""
    rows = np.eye(CLASSES + 1)
    return 0.75 * rows[labels] + 0.25 * rows[np.roll(labels, -1)]


def network_of(side: Side) -> Any:
    """The network at random weights."""
    if isinstance(side, Oracle):
        shapes = side.shapes_of(lambda torch: torch.model.make_network(torch.configured(CONFIG), 0))
        return Network(random_parameters(shapes), MODEL)
    network = side.model.make_network(side.configured(CONFIG), 0)
    side.assign(network, random_parameters(side.shapes(network)))
    return network


def _network(side: Side) -> Any:
    return side.keep("network with classes", lambda: network_of(side))


def _called(side: Side) -> Any:
    """The network as the commands call it: in TensorFlow, one graph with labels and one without."""
    return side.keep(
        "network with classes, called",
        lambda: _network(side) if side.name == "oracle" else side.sampler(_network(side)),
    )


# --- The network --------------------------------------------------------------------------------------------


def _run(side: Side) -> dict[str, Arrays]:
    """Everything of one batch with labels, computed once for its three quantities."""
    x_t, target = draw(*IMAGES, seed=1), draw(*IMAGES[:3], 4, seed=2)
    network = network_of(side)  # one of its own, since it is watched
    if side.name == "oracle":
        network(x_t, T, LABELS)
        activations: Any = network.activations
        loss, gradients = loss_and_gradients(MODEL, network.parameters, x_t, T, target, LABELS)
    else:
        activations = side.watch(network)
        inputs = [side.tensor(x_t), side.times(T), side.labels(LABELS)]
        _, loss, gradients, _ = side.value_and_gradients(
            network, inputs, lambda output: side.mean_square(side.tensor(target) - output)
        )
    return {"layers": activations, "loss": {"loss": np.array(loss)}, "gradients": _by_row(gradients)}


def _by_row(gradients: Arrays) -> Arrays:
    """The gradients, with each row of the table of labels under a name of its own."""
    others = {name: gradient for name, gradient in gradients.items() if name != "label.weight"}
    rows = enumerate(gradients["label.weight"])
    return {f"label.weight, {'null' if k == NULL else f'class {k}'}": row for k, row in rows} | others


def _part(side: Side, part: str) -> Arrays:
    return side.keep("batch with labels", lambda: _run(side))[part]


def _outputs(side: Side, network_of: Callable[[Side], Any]) -> Arrays:
    """All ways to give labels."""
    network, x_t, t = network_of(side), side.tensor(draw(*IMAGES, seed=1)), side.times(T)
    given: dict[str, Any] = {
        "labels": LABELS,
        "all null": np.repeat(NULL, len(T)),
        "weights": weights(LABELS),
        "weights of one label": np.eye(CLASSES + 1)[LABELS],
    }
    outputs = {name: network(x_t, t, side.labels(labels)) for name, labels in given.items()} | {"none": network(x_t, t)}
    return {name: side.array(output) for name, output in outputs.items()}


def _losses(side: Side) -> Arrays:
    """The loss of a training step and of the validation; the averaged weights are others."""
    batch = batches.training_batch(SPLIT, TRAINED, 0)
    if isinstance(side, Oracle):
        model = _network(side)
        averaged = Network({name: 0.9 * value for name, value in model.parameters.items()}, MODEL)

        def loss(network: Network, batch: batches.Batch, labels: Array) -> float:
            given, schedule = oracle_guidance.condition(network, labels), side.schedule(CONFIG.diffusion)
            return oracle_bound.training_loss(schedule, given, *side.batch(batch.arrays), CONFIG.diffusion)

        truths = np.split(SPLIT.labels, [4, 8])
        pairs = zip(batches.validation_batches(SPLIT, TRAINED), truths, strict=True)
        losses = [loss(averaged, validation, labels) for validation, labels in pairs]
        return {
            "training": np.array(loss(model, batch, labels_of(SPLIT.labels, TRAINED, 0))),
            "validation": np.array(losses),
        }
    learner = side.learner.Learner(side.configured(TRAINED), 10)
    values = random_parameters(side.shapes(learner.model))
    side.assign(learner.model, values)
    side.assign(learner.ema_model, {name: 0.9 * value for name, value in values.items()})
    validation = [value for _, value in learner.validation_losses(batches.validation_batches(SPLIT, TRAINED))]
    return {"training": np.array(learner.train_step(batch, 0)[0]), "validation": np.array(validation)}


# --- What is done with it -----------------------------------------------------------------------------------


def _drawn(side: Side, draw: Draw, samplings: list[Sampling]) -> Arrays:
    config, network = side.configured(CONFIG), _called(side)
    result: dict[str, Array] = {}
    for sampling in samplings:
        if side.name == "oracle":
            x_0 = oracle_s(side, network, config, draw, sampling)
        else:
            last: dict[str, Any] = {}
            side.sampling.Sampler(network, config, sampling).draw(draw, lambda i, x, last=last: last.update(x_0=x))
            x_0 = side.array(last["x_0"])
        result[f"{sampling.sampler}, eta {sampling.eta}"] = x_0
    return result


def _rows(side: Side) -> Arrays:
    """From one class to another at the same noise, two images a row; the first and the last row are cut."""
    labels = np.eye(CLASSES + 1)[[0, 2, 0, 1]] * 0.4 + np.eye(CLASSES + 1)[[2, 2, 1, 1]] * 0.6
    return _drawn(side, Draw(7, 1, 4, labels=labels, same_noise=2), [GUIDED[0]])


def _bits(side: Side) -> Arrays:
    """The term of the bound of each image at its t, given its class, and given none."""
    arrays, network = (PIXELS, T, draw(*IMAGES, seed=3)), _called(side)
    result: dict[str, Array] = {}
    for name, labels in (("labels", LABELS), ("none", None)):
        if isinstance(side, Oracle):
            x_0, t, eps = side.batch(arrays)
            schedule, given = side.schedule(CONFIG.diffusion), oracle_guidance.condition(network, labels)
            terms = oracle_bound.variational_bound_term(schedule, given, x_0, t, eps, config=CONFIG.diffusion)
        else:
            terms = side.bound.Bound(network, side.configured(CONFIG)).term(arrays, labels)
        result |= {f"{name}, t = {t}": np.array(term) for t, term in zip(T, terms, strict=True)}
    return result


def _inverted(side: Side) -> Arrays:
    """The noise of images with their classes, guided, and what it draws."""
    sampling, network = Sampling("ddim", 5, **GUIDANCE), _called(side)
    if isinstance(side, Oracle):
        levels = oracle_processes.make_levels(CONFIG.diffusion, sampling.times(CONFIG.diffusion.timesteps))
        denoise = denoiser(side, network, CONFIG, sampling, LABELS)
        *_, (_, noise) = oracle_samplers.ddim_invert(levels, denoise, side.batch((PIXELS, T, np.empty(0)))[0], 2)
        *_, (_, back) = oracle_samplers.ddim(levels, denoise, noise, lambda i: noise)
    else:
        inverter = side.sampling.Inverter(network, side.configured(CONFIG), sampling, 2)
        noise, back = inverter.there_and_back(PIXELS, lambda: None, LABELS)
    return {"noise": noise, "back": back}


def _of_network(name: str, part: str, tolerance: Tolerance, measure: Measure) -> Quantity:
    return Quantity("labels", name, partial(_part, part=part), tolerance, measure)


QUANTITIES = [
    Quantity("labels", "output, however given", partial(_outputs, network_of=_network), FORWARD, of_the_largest),
    Quantity("labels", "output as commands call it", partial(_outputs, network_of=_called), FORWARD, of_the_largest),
    _of_network("output of every layer", "layers", FORWARD, of_the_largest),
    _of_network("loss", "loss", LOSS, of_the_largest),
    _of_network("gradient of every parameter, of the table row by row", "gradients", GRADIENTS, of_the_gradient),
    Quantity("labels", "losses of training and validation", _losses, LOSS, elementwise),
    Quantity(
        "labels",
        "guided images of every sampler",
        partial(_drawn, draw=Draw(7, 1, len(LABELS), labels=LABELS), samplings=GUIDED),
        GUIDED_STEPS,
        of_the_largest,
    ),
    Quantity("labels", "from one class to another at the same noise", _rows, GUIDED_STEPS, of_the_largest),
    Quantity("labels", "terms of the bound", _bits, LABELLED_TERMS, elementwise),
    Quantity("labels", "inversion, guided", _inverted, GUIDED_INVERSION, of_the_largest),
]
