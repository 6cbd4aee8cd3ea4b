"""A hundred whole training steps, and the same run carried from one framework to the other on the way.

They are those of a network with labels, which has all that one without labels has; of such a one, in colour, there are
twenty.
"""

import dataclasses
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ddpm_parity.data import labels_of
from ddpm_parity.network import COLOUR, ZERO_AT_START
from ddpm_parity.quantities import Arrays, Measure, Quantity, absolute, of_the_gradient, of_the_largest
from ddpm_parity.sides import Array, Oracle, Side
from ddpm_parity.tolerances import GRADIENT_NORMS, HISTORY, MOMENTS, WEIGHTS, Tolerance
from ddpm_shared import batches, datasets
from ddpm_shared.config import Config, DataConfig, ModelConfig, TrainingConfig
from ddpm_shared.datasets import Split
from ddpm_shared.oracle import continuous, diffusion, optimizer
from ddpm_shared.oracle.networks import Network, loss_and_gradients
from ddpm_shared.parameters import initial_value
from ddpm_shared.records import checkpoint

VALIDATION_IMAGES = 18  # the last batch is half a one
BETA_1, BETA_2 = 0.9, 0.999
# All that `base` has, small: three sizes, odd and even, attention, wider and equal blocks. Two channels a group: with
# one, GroupNorm cancels the bias before it, whose gradient is then rounding noise, and Adam makes full steps of that.
MODEL = ModelConfig(
    base_channels=8, channel_mults=(1, 2, 2), num_res_blocks=1, attention_resolutions=(7,), num_groups=4, num_classes=10
)
LABELLED = Config(
    seed=1,
    device="cpu",
    class_conditional=True,
    model=MODEL,
    training=TrainingConfig(
        epochs=100,
        max_steps=100,
        batch_size=4,
        learning_rate=1e-3,
        warmup_steps=10,
        learning_rate_decay="linear",
        decay_start=0.5,
        validation_images=VALIDATION_IMAGES,
    ),
)
IN_COLOUR = dataclasses.replace(
    LABELLED,
    class_conditional=False,
    data=DataConfig(dataset="emoji", horizontal_flip=True),
    model=COLOUR,
    training=dataclasses.replace(LABELLED.training, epochs=20, max_steps=20, max_grad_norm=0.2),  # most are clipped
)


def clothes() -> tuple[Split, Split]:
    """Fashion-MNIST, the part in the package."""
    return datasets.load("fashion-mnist-10k")


def small_emoji() -> tuple[Split, Split]:
    """The emoji in the package, every fourth pixel of their rows and columns: 8 x 8 in colour."""
    train, test = (dataclasses.replace(split, images=split.images[:, 2::4, 2::4]) for split in datasets.load("emoji"))
    return train, test


@dataclass(frozen=True)
class Plan:
    """A run to be compared: its settings, its steps, those after which it is carried over, and its images."""

    config: Config
    steps: int
    carried: tuple[int, ...] = ()
    splits: Callable[[], tuple[Split, Split]] = clothes
    kind: type[Network] = Network  # the oracle's
    zero_at_start: tuple[str, ...] = ZERO_AT_START
    share: batches.Share = batches.WHOLE  # of each batch
    workers: Callable[[Side], Any] = lambda side: None  # among which a tree trains; None: alone

    @property
    def rows(self) -> list[int]:
        """Those of a batch that are in the share."""
        (rank, count), size = self.share, self.config.training.batch_size
        return [row for row in range(size) if row * count // size == rank]


HALF, LATE = 50, 94
HUNDRED, TWENTY = Plan(LABELLED, 100, (HALF, LATE)), Plan(IN_COLOUR, 20, splits=small_emoji)


@dataclass(frozen=True)
class Run:
    """What a run leaves: [steps] of each record, losses [batches] of the validation, and all state by step."""

    losses: Array
    grad_norms: Array
    learning_rates: Array
    validation_losses: Array
    tensors: dict[int, dict[str, Array]]  # under the names of a checkpoint, after some of the steps and after all


def run(side: Side, plan: Plan, resumed: checkpoint.Checkpoint | None = None) -> Run:
    """Train a tree from the start, or from a checkpoint, to the end of the plan."""
    train, test = plan.splits()
    learner = side.learner.Learner(side.configured(plan.config), plan.steps, plan.workers(side))
    if resumed:
        learner.load(resumed)
    records, tensors = [], {}
    for step in range(resumed.step if resumed else 0, plan.steps):
        records.append(learner.train_step(batches.training_batch(train, plan.config, step, plan.share), step))
        if step + 1 in (*plan.carried, plan.steps):  # copies: PyTorch's would go on changing
            tensors[step + 1] = {name: value.copy() for name, value in learner.tensors().items()}
    validation = [loss for _, loss in learner.validation_losses(batches.validation_batches(test, plan.config))]
    losses, norms, rates = np.array(records).T
    return Run(losses, norms, rates, np.array(validation), tensors)


def run_oracle(oracle: Oracle, plan: Plan) -> Run:
    """The same run by the oracle: its gradients, all of them kept, and every update from the whole history."""
    train, test = plan.splits()
    config, steps, settings = plan.config, plan.steps, plan.config.training
    schedule = oracle.schedule(config.diffusion)
    shapes = oracle.shapes_of(lambda torch: torch.network(config.model))
    parameters = {name: initial_value(config.seed, name, shape, plan.zero_at_start) for name, shape in shapes.items()}
    rates = optimizer.learning_rates(settings, steps)
    history, vectors, records, tensors = [], [_vector(parameters)], [], {}
    for step in range(steps):
        x_0, t, eps = (part[plan.rows] for part in oracle.batch(batches.training_batch(train, config, step).arrays))
        labels = labels_of(train.labels, config, step)[plan.rows] if config.class_conditional else None
        if config.diffusion.process == "ddpm":
            x_t = diffusion.q_sample(schedule, x_0, t, eps)
            loss, gradients = loss_and_gradients(config.model, parameters, x_t, t, eps, labels, kind=plan.kind)
        else:
            x, time, aim, weights = continuous.regression(x_0, t, eps, config.diffusion)
            loss, gradients = loss_and_gradients(config.model, parameters, x, time, aim, labels, weights)
        clipped, norm = optimizer.clip_by_global_norm(gradients, settings.max_grad_norm)
        records.append((loss, norm, rates[step]))
        history.append(_vector({name: clipped[name] for name in shapes}))
        m_hat, v_hat = optimizer.adam_moments(np.array(history), BETA_1, BETA_2)
        vectors.append(vectors[-1] - rates[step] * m_hat / (np.sqrt(v_hat) + 1e-8))
        parameters = _unpacked(vectors[-1], shapes)
        if step + 1 in (*plan.carried, steps):
            states = (
                vectors[-1],
                optimizer.ema(vectors, settings.ema_decay),
                m_hat * (1 - BETA_1 ** (step + 1)),
                v_hat * (1 - BETA_2 ** (step + 1)),
            )
            tensors[step + 1] = {
                f"{prefix}/{name}": value
                for prefix, vector in zip(checkpoint.PREFIXES, states, strict=True)
                for name, value in _unpacked(vector, shapes).items()
            }
    network = plan.kind({name: tensors[steps][f"ema/{name}"] for name in shapes}, config.model)
    validation, first = [], 0
    for batch in batches.validation_batches(test, config):
        x_0, t, eps = oracle.batch(batch.arrays)
        labels = test.labels[first : first + len(t)] if config.class_conditional else None
        labelled = partial(network, labels=labels)
        if config.diffusion.process == "ddpm":
            validation.append(diffusion.diffusion_loss(schedule, labelled, x_0, t, eps))
        else:
            validation.append(continuous.training_loss(labelled, x_0, t, eps, config.diffusion))
        first += len(t)
    losses, norms, rates = np.array(records).T
    return Run(losses, norms, rates, np.array(validation), tensors)


def _vector(arrays: dict[str, Array]) -> Array:
    return np.concatenate([array.ravel() for array in arrays.values()])


def _unpacked(vector: Array, shapes: dict[str, tuple[int, ...]]) -> dict[str, Array]:
    ends = np.cumsum([np.prod(shape, dtype=int) for shape in shapes.values()])
    parts = np.split(vector, ends[:-1])
    return {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


def whole(side: Side, plan: Plan) -> Run:
    """All steps on one side."""
    return side.keep(
        ("training", plan), lambda: run_oracle(side, plan) if isinstance(side, Oracle) else run(side, plan)
    )


def resumed(side: Side, plan: Plan, step: int) -> Run:
    """The first steps in the other framework, a checkpoint file, the rest on this side."""
    return side.keep(("resumed training", plan, step), lambda: _resume(side, plan, step))


def _resume(side: Side, plan: Plan, step: int) -> Run:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "carried.safetensors"
        checkpoint.save(
            path,
            whole(side.other, plan).tensors[step],
            framework=side.other.config.FRAMEWORK,
            step=step,
            config=plan.config,
            dataset_sha256=plan.splits()[0].sha256,
        )
        return run(side, plan, checkpoint.load(path))


def _losses(side: Side, plan: Plan) -> Arrays:
    run = whole(side, plan)
    return {"loss": run.losses, "validation loss": run.validation_losses, "learning rate": run.learning_rates}


def _grad_norms(side: Side, plan: Plan) -> Arrays:
    return {"norm": whole(side, plan).grad_norms}


def _state(side: Side, plan: Plan, prefix: str, begun_by: str = "", step: int = 0) -> Arrays:
    """What a prefix of the last checkpoint holds; a run that `begun_by` began is resumed here, if this is the other."""
    carried = begun_by and side.name not in (begun_by, "oracle")
    tensors = (resumed(side, plan, step) if carried else whole(side, plan)).tensors[plan.steps]
    return {name: value for name, value in tensors.items() if name.startswith(prefix)}


STATES: dict[str, tuple[str, Tolerance, Measure]] = {
    "model/": ("weights", WEIGHTS, absolute),
    "ema/": ("averaged weights", WEIGHTS, absolute),
    "adam_m/": ("Adam's first moments", MOMENTS, of_the_gradient),
    "adam_v/": ("Adam's second moments", MOMENTS, of_the_gradient),
}


def quantities(plan: Plan, name: str, subject: str = "training") -> list[Quantity]:
    """All that is compared of a run."""
    losses, norms = partial(_losses, plan=plan), partial(_grad_norms, plan=plan)
    return [
        Quantity(subject, f"{name}: losses and learning rate", losses, HISTORY, of_the_largest),
        Quantity(subject, f"{name}: gradient norm", norms, GRADIENT_NORMS, of_the_largest),
        *(
            Quantity(subject, f"{name}: {what}", partial(_state, plan=plan, prefix=prefix), tolerance, measure)
            for prefix, (what, tolerance, measure) in STATES.items()
        ),
    ]


QUANTITIES = [
    *quantities(TWENTY, "20 steps without labels, in colour"),
    *quantities(HUNDRED, "100 steps"),
    *(
        Quantity(
            "exchange",
            f"{step} steps in {begun_by}, {HUNDRED.steps - step} in {other}: {what}",
            partial(_state, plan=HUNDRED, prefix=prefix, begun_by=begun_by, step=step),
            tolerance,
            measure,
            slow=step == HALF,
        )
        for step in (LATE, HALF)
        for begun_by, other in (("torch", "tf"), ("tf", "torch"))
        for prefix, (what, tolerance, measure) in STATES.items()
    ),
]
