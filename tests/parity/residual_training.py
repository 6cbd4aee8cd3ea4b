"""Training of the residual U-Net: some steps from random weights, a hundred from the start, and runs carried over.

Beside what training.py compares, there is what BatchNorm remembers, which the averaged network gets as it is.
"""

import dataclasses
from functools import partial

import numpy as np

from ddpm_parity import training
from ddpm_parity.data import labels_of
from ddpm_parity.quantities import Arrays, Quantity, absolute, elementwise, of_the_gradient, of_the_largest
from ddpm_parity.residual import LABELLED, ZERO_AT_START, assign_moments, buffers, moments_of
from ddpm_parity.sides import Array, Oracle, Side, random_parameters
from ddpm_parity.tolerances import (
    RESIDUAL_HISTORY,
    RESIDUAL_LOSSES,
    RESIDUAL_MOMENTS,
    RESIDUAL_RUNNING,
    RESIDUAL_STATES,
)
from ddpm_parity.training import Plan, Run
from ddpm_shared import batches
from ddpm_shared.config import Config, ModelConfig, TrainingConfig
from ddpm_shared.datasets import Split
from ddpm_shared.oracle import diffusion, optimizer
from ddpm_shared.oracle.residual_unet import ResidualNetwork, loss_and_gradients, running
from ddpm_shared.parameters import initial_value
from ddpm_shared.records import checkpoint


def small_clothes() -> tuple[Split, Split]:
    """The part of Fashion-MNIST in the package, every third pixel of its rows and columns: 10 x 10."""
    train, test = training.clothes()
    first, second = (dataclasses.replace(split, images=split.images[:, ::3, ::3].copy()) for split in (train, test))
    return first, second


MODEL = dataclasses.replace(
    LABELLED, channel_mults=(1, 2, 2), attention_heads=2, attention_blocks=1, image_size=10, image_channels=1,
    num_classes=10,
)  # fmt: skip
CONFIG = Config(
    seed=1,
    device="cpu",
    class_conditional=True,
    model=MODEL,
    training=dataclasses.replace(training.LABELLED.training, batch_size=6, validation_images=9),
)
HUNDRED = Plan(CONFIG, 100, (94,), small_clothes)
# From random weights and moments, which no zero hides; the learning rate has no warm-up, so that four steps are steps.
FEW = Plan(
    dataclasses.replace(
        CONFIG, training=TrainingConfig(batch_size=4, learning_rate=1e-2, validation_images=5, label_drop=0.5)
    ),
    4,
    splits=small_clothes,
)


def run(side: Side, plan: Plan) -> Run:
    """Train a tree, from random weights and moments, to the end of the plan."""
    train, test = plan.splits()
    learner = side.learner.Learner(side.configured(plan.config), plan.steps)
    for network in (learner.model, learner.ema_model):
        side.assign(network, random_parameters(side.shapes(network)))
        assign_moments(side, network)
    records = [learner.train_step(batches.training_batch(train, plan.config, step), step) for step in range(plan.steps)]
    validation = [loss for _, loss in learner.validation_losses(batches.validation_batches(test, plan.config))]
    losses, norms, rates = np.array(records).T
    tensors = {**learner.tensors(), **{f"of the average/{k}": v for k, v in buffers(side, learner.ema_model).items()}}
    return Run(losses, norms, rates, np.array(validation), {plan.steps: tensors})


def run_oracle(oracle: Oracle, plan: Plan, at_random: bool) -> Run:
    """The same run by the oracle: every update, of the moments too, from the whole history."""
    train, test = plan.splits()
    config, steps, settings = plan.config, plan.steps, plan.config.training
    schedule = oracle.schedule(config.diffusion)
    shapes = oracle.shapes_of(lambda torch: torch.network(config.model))
    if at_random:
        parameters, begun = random_parameters(shapes), moments_of(shapes)
    else:
        parameters = {name: initial_value(config.seed, name, shape, ZERO_AT_START) for name, shape in shapes.items()}
        begun = {name: np.full(len(m), float(name.endswith("var"))) for name, m in moments_of(shapes).items()}
    rates = optimizer.learning_rates(settings, steps)
    moments: list[dict[str, Array]] = []
    history, vectors, records = [], [_vector(parameters)], []
    for step in range(steps):
        x_0, t, eps = oracle.batch(batches.training_batch(train, config, step).arrays)
        labels = labels_of(train.labels, config, step)
        x_t = diffusion.q_sample(schedule, x_0, t, eps)
        shards = zip(*(np.split(part, settings.shards) for part in (x_t, t, eps, labels)), strict=True)
        found = [_of_shard(config.model, parameters, *shard) for shard in shards]
        loss = float(np.mean([each[0] for each in found]))
        gradients = _mean([each[1] for each in found])
        moments.append(_mean([each[2] for each in found]))
        clipped, norm = optimizer.clip_by_global_norm(gradients, settings.max_grad_norm)
        records.append((loss, norm, rates[step]))
        history.append(_vector({name: clipped[name] for name in shapes}))
        m_hat, v_hat = optimizer.adam_moments(np.array(history))
        vectors.append(vectors[-1] - rates[step] * m_hat / (np.sqrt(v_hat) + 1e-8))
        parameters = _unpacked(vectors[-1], shapes)
    averaged = optimizer.ema(vectors, settings.ema_decay)
    states = (vectors[-1], averaged, m_hat * (1 - training.BETA_1**steps), v_hat * (1 - training.BETA_2**steps))
    tensors = {
        f"{prefix}/{name}": value
        for prefix, vector in zip(checkpoint.PREFIXES, states, strict=True)
        for name, value in _unpacked(vector, shapes).items()
    }
    remembered = {name: running(start, [each[name] for each in moments]) for name, start in begun.items()}
    for prefix in ("buffers", "of the average") if at_random else ("buffers",):
        tensors |= {f"{prefix}/{name}": value for name, value in remembered.items()}
    network = ResidualNetwork(_unpacked(averaged, shapes), config.model, remembered)
    validation, first = [], 0
    for batch in batches.validation_batches(test, config):
        x_0, t, eps = oracle.batch(batch.arrays)
        labelled = partial(network, labels=test.labels[first : first + len(t)])
        validation.append(diffusion.diffusion_loss(schedule, labelled, x_0, t, eps))
        first += len(t)
    losses, norms, numbers = np.array(records).T
    return Run(losses, norms, numbers, np.array(validation), {steps: tensors})


def _of_shard(
    model: ModelConfig, parameters: dict[str, Array], x_t: Array, t: Array, eps: Array, labels: Array
) -> tuple[float, dict[str, Array], dict[str, Array]]:
    """Loss, gradients, and the moments that BatchNorm saw: those of these images alone."""
    network = ResidualNetwork(parameters, model)
    network(x_t, t, labels)
    return *loss_and_gradients(model, parameters, x_t, t, eps, labels), network.batch_moments


def _mean(parts: list[dict[str, Array]]) -> dict[str, Array]:
    return {name: np.mean([part[name] for part in parts], axis=0) for name in parts[0]}


def _vector(arrays: dict[str, Array]) -> Array:
    return np.concatenate([array.ravel() for array in arrays.values()])


def _unpacked(vector: Array, shapes: dict[str, tuple[int, ...]]) -> dict[str, Array]:
    parts = np.split(vector, np.cumsum([np.prod(shape, dtype=int) for shape in shapes.values()])[:-1])
    return {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


def whole(side: Side, plan: Plan) -> Run:
    """All steps on one side."""
    if isinstance(side, Oracle):
        return side.keep(("residual training", plan), lambda: run_oracle(side, plan, plan is FEW))
    return (
        side.keep(("residual training", plan), lambda: run(side, plan)) if plan is FEW else training.whole(side, plan)
    )


def _losses(side: Side, plan: Plan) -> Arrays:
    """Of every step, and at the end of the averaged network, which has the moments of the trained one."""
    run = whole(side, plan)
    return {"loss": run.losses, "validation loss": run.validation_losses, "gradient norm": run.grad_norms}


def _state(side: Side, plan: Plan, prefixes: tuple[str, ...], begun_by: str = "") -> Arrays:
    """What prefixes of the last checkpoint hold; a run that `begun_by` began is resumed here, if this is the other."""
    carried = begun_by and side.name not in (begun_by, "oracle")
    run = training.resumed(side, plan, plan.carried[0]) if carried else whole(side, plan)
    return {name: value for name, value in run.tensors[plan.steps].items() if name.startswith(prefixes)}


STATES = {
    "weights and averaged weights": (("model/", "ema/"), RESIDUAL_STATES, absolute),
    "Adam's moments": (("adam_m/", "adam_v/"), RESIDUAL_MOMENTS, of_the_gradient),
    "moments that BatchNorm remembers": (("buffers/", "of the average/"), RESIDUAL_RUNNING, of_the_largest),
}

QUANTITIES = [
    Quantity("residual training", "4 steps: losses", partial(_losses, plan=FEW), RESIDUAL_LOSSES, elementwise),
    Quantity(
        "residual training", "100 steps: losses", partial(_losses, plan=HUNDRED), RESIDUAL_HISTORY, of_the_largest
    ),
    *(
        Quantity(
            "residual training",
            f"{plan.steps} steps: {what}",
            partial(_state, plan=plan, prefixes=prefixes),
            tolerance,
            measure,
        )
        for plan in (FEW, HUNDRED)
        for what, (prefixes, tolerance, measure) in STATES.items()
    ),
    *(
        Quantity(
            "residual training",
            f"94 steps in {begun_by}, 6 in {other}: {what}",
            partial(_state, plan=HUNDRED, prefixes=prefixes, begun_by=begun_by),
            tolerance,
            measure,
            slow=True,
        )
        for begun_by, other in (("torch", "tf"), ("tf", "torch"))
        for what, (prefixes, tolerance, measure) in STATES.items()
    ),
]
