"""Several workers: the mean over their shards, the parts of a batch that are theirs, and steps that they make together.

They are in one process here: what a worker gives the others is put down, and handed to all of them. Real processes are
in tests/test_workers.py.
"""

import dataclasses
from functools import partial
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np

from ddpm_parity import residual_training, training
from ddpm_parity.continuous import config_of
from ddpm_parity.data import CONFIG, LABELLED, SPLIT
from ddpm_parity.network import COLOUR
from ddpm_parity.quantities import Arrays, Quantity, absolute, elementwise, of_the_largest
from ddpm_parity.residual_training import STATES
from ddpm_parity.sides import Array, Oracle, Side
from ddpm_parity.tolerances import BATCHES, EXACT, RESIDUAL_HISTORY
from ddpm_parity.training import IN_COLOUR, Plan, small_emoji
from ddpm_shared import batches, streams
from ddpm_shared.config import Config
from ddpm_shared.datasets.emoji import CLASS_NAMES
from ddpm_shared.workers import Place

Shard = list[Array]  # as the loss and the gradients of some parameters
Reduce = Literal["exact", "fast"]

SHARDS = {8: (1, 2, 4, 8), 6: (1, 2, 3, 6), 3: (1, 3), 1: (1,)}  # number -> the numbers of workers that share them out
PRECISIONS = (np.float32, np.float64)  # of the tensors, whatever the side's is: their bits are what is compared
SHAPES = ((), (4, 3, 2), (5,))
STEPS = (0, 7)  # of the first epoch and of the second


# --- The mean -----------------------------------------------------------------------------------------------


def _shard(index: int, precision: type[np.floating[Any]]) -> Shard:
    """Numbers of several orders of magnitude, so that the order of a sum shows in its last digits."""
    drawn = np.random.default_rng(index)
    powers = 10.0 ** drawn.integers(-2, 3, size=len(SHAPES))
    return [np.asarray(p * drawn.standard_normal(shape), precision) for p, shape in zip(powers, SHAPES, strict=True)]


def _tensors(side: Any, shard: Shard) -> list[Any]:
    """In the precision that they have."""
    if side.name == "torch":
        return [side.torch.from_numpy(np.array(array)).to(side.device) for array in shard]
    return [side.tf.constant(array) for array in shard]


def _joined(side: Any, rows: list[Any]) -> Any:
    return side.torch.cat(rows) if side.name == "torch" else side.tf.concat(rows, axis=0)


def _together(side: Any, shards: list[Shard], count: int, reduce: Reduce) -> list[list[Any]]:
    """What each of `count` workers makes of the shards: first each says what it gives, then it gets what all gave."""
    given: list[Any] = []

    def mean(rank: int, first: bool) -> list[Any]:
        def gather_rows(x: Any) -> Any:
            if not first:
                return _joined(side, given)
            given.append(x)
            return _joined(side, [x] * count)

        def all_reduce(x: Any) -> Any:
            if not first:
                return sum(given[1:], given[0])
            given.append(x)
            return x

        workers = SimpleNamespace(place=Place(rank, count), gather_rows=gather_rows, all_reduce=all_reduce)
        own = shards[rank * len(shards) // count : (rank + 1) * len(shards) // count]
        means: list[Any] = side.workers.mean([_tensors(side, shard) for shard in own], workers, reduce)
        return means

    for rank in range(count):
        mean(rank, first=True)
    return [mean(rank, first=False) for rank in range(count)]


def _tree(parts: list[Array]) -> Array:
    """The sum of n parts: that of as many as the largest power of two below n, plus that of the others."""
    if len(parts) == 1:
        return parts[0]
    half = 1 << ((len(parts) - 1).bit_length() - 1)
    return _tree(parts[:half]) + _tree(parts[half:])


def _oracle_mean(shards: list[Shard], count: int, reduce: Reduce) -> Shard:
    """In the shards' own precision, by NumPy. "fast": each worker's tree, and these one after the other."""
    means = []
    for parts in zip(*shards, strict=True):
        if reduce == "exact":
            total = _tree(list(parts))
        else:
            size = len(parts) // count
            sums = [_tree(list(parts[i : i + size])) for i in range(0, len(parts), size)]
            total = sum(sums[1:], sums[0])
        means.append(np.asarray(total / len(parts)))
    return means


def _mean(side: Side, reduce: Reduce) -> Arrays:
    """Of every worker: bit by bit the same as that of any other number of them."""
    found: dict[str, Array] = {}
    for number, counts in SHARDS.items():
        for precision in PRECISIONS:
            shards = [_shard(index, precision) for index in range(number)]
            for count in counts:
                if isinstance(side, Oracle):
                    means: list[list[Any]] = [_oracle_mean(shards, count, reduce)] * count
                else:
                    means = _together(side, shards, count, reduce)
                for rank, tensors in enumerate(means):
                    name = f"{number} shards, {precision.__name__}, worker {rank} of {count}: tensor"
                    found |= {f"{name} {i}": side.array(tensor) for i, tensor in enumerate(tensors)}
    return found


class Echo:
    """The second of two workers, whose first gives what it gives itself, multiplied by `factor`."""

    def __init__(self, side: Side, factor: float = 1.0) -> None:
        self.side, self.factor = side, factor
        self.place = Place(1, 2, 1, 2)

    def gather_rows(self, x: Any) -> Any:
        """[n, P] -> [2 n, P]."""
        return _joined(self.side, [self.factor * x, x])

    def all_reduce(self, x: Any) -> Any:
        """The sum of both."""
        return self.factor * x + x


def _three_times(side: Side) -> Arrays:
    """The mean of x and 3 x, which is 2 x."""
    shard = [np.arange(np.prod(shape, dtype=int)).reshape(shape) / 8 + 1 for shape in SHAPES]
    found: dict[str, Array] = {}
    for reduce in ("exact", "fast"):
        if isinstance(side, Oracle):
            means: list[Any] = [2 * array for array in shard]
        else:
            means = side.workers.mean([_tensors(side, shard)], Echo(side, 3.0), reduce)
        found |= {f"{reduce}: tensor {i}": side.array(tensor) for i, tensor in enumerate(means)}
    return found


# --- The parts of a batch -----------------------------------------------------------------------------------

CONTINUOUS = dataclasses.replace(CONFIG, diffusion=config_of("edm", stratified=True))
PARTS = 4  # of a batch, shared out among 1, 2 and 4 workers, of whom two are on one machine
KINDS = ("x_0", "t", "eps", "labels")


def _parts(config: Config, step: int, count: int) -> list[batches.Batch]:
    """The shards of a step, in their order, as `count` workers draw them."""
    places = [Place(rank, count, rank % 2, min(count, 2)) for rank in range(count)]
    shares = [batches.training_batch(SPLIT, config, step, place.share) for place in places]
    return [shard for share in shares for shard in share.shards(PARTS // count)]


def _oracle_image(config: Config, step: int, row: int) -> tuple[Array, Array, Array, int]:
    """Pixels, t, eps and label of one image of a step, from the streams alone."""
    size, images = config.training.batch_size, len(SPLIT.images)
    seed, settings = config.seed, config.diffusion
    epoch, position = divmod(step, images // size)
    index = streams.generator(seed, "train/permutation", epoch).permutation(images)[position * size + row]
    pixels = SPLIT.images[index]
    if streams.generator(seed, "train/flip", step).integers(0, 2, size=size, dtype=np.int8)[row]:
        pixels = np.flip(pixels, axis=1)
    if settings.process == "ddpm":
        times = streams.generator(seed, "train/t", step)
        t = times.integers(0, settings.timesteps, size=size, dtype=np.int32)[row]
    else:
        u = (streams.generator(seed, "train/u", step).integers(0, 2**52, size=size)[row] + 0.5) / 2**52
        t = (row + u) / size
    eps = streams.generator(seed, "train/eps", step, row).standard_normal(pixels.shape)
    label = int(SPLIT.labels[index])
    drops = streams.generator(seed, "train/drop", step).random(size)
    if config.class_conditional and drops[row] < config.training.label_drop:
        label = config.model.num_classes
    return pixels, t, eps, label


def _batch(side: Side, config: Config) -> Arrays:
    """Each shard, whoever draws it."""
    found: dict[str, Array] = {}
    size = config.training.batch_size // PARTS
    for step in STEPS:
        for count in (1, 2, 4):
            if isinstance(side, Oracle):
                rows = [_oracle_image(config, step, row) for row in range(config.training.batch_size)]
                columns = [np.stack(column) for column in zip(*rows, strict=True)]
                whole = batches.Batch(columns[0], columns[3], columns[1], columns[2])
                shards = [whole.rows(slice(i, i + size)) for i in range(0, len(rows), size)]
            else:
                shards = _parts(config, step, count)
            for i, shard in enumerate(shards):
                parts = (*side.batch(shard.arrays), side.labels(shard.labels))
                name = f"step {step}, {count} workers, shard {i}"
                found |= {f"{name}: {kind}": side.array(part) for kind, part in zip(KINDS, parts, strict=True)}
    return found


# --- Training -----------------------------------------------------------------------------------------------


def _in_shards(config: Config, shards: int, steps: int) -> Config:
    settings = dataclasses.replace(config.training, shards=shards, epochs=steps, max_steps=steps)
    return dataclasses.replace(config, training=settings)


# With classes, of which some are dropped, and with gradients that are clipped.
CLASSES = dataclasses.replace(
    IN_COLOUR,
    class_conditional=True,
    model=dataclasses.replace(COLOUR, num_classes=len(CLASS_NAMES)),
    training=dataclasses.replace(IN_COLOUR.training, label_drop=0.3),
)
ONE_WORKER = Plan(_in_shards(CLASSES, 4, 20), 20, splits=small_emoji)
# What the other worker gives is equal, so the steps are those on the second half of each batch.
SECOND_OF_TWO = Plan(_in_shards(CLASSES, 4, 10), 10, splits=small_emoji, share=(1, 2), workers=Echo)
# From random weights and moments; each shard of two images has moments of its own.
BATCH_NORM = Plan(_in_shards(residual_training.FEW.config, 2, 4), 4, splits=residual_training.small_clothes)


def _with_batch_norm(side: Side) -> training.Run:
    if isinstance(side, Oracle):
        return side.keep(("workers", BATCH_NORM), lambda: residual_training.run_oracle(side, BATCH_NORM, True))
    return side.keep(("workers", BATCH_NORM), lambda: residual_training.run(side, BATCH_NORM))


def _history(side: Side) -> Arrays:
    run = _with_batch_norm(side)
    return {"loss": run.losses, "validation loss": run.validation_losses, "gradient norm": run.grad_norms}


def _state(side: Side, prefixes: tuple[str, ...]) -> Arrays:
    tensors = _with_batch_norm(side).tensors[BATCH_NORM.steps]
    return {name: value for name, value in tensors.items() if name.startswith(prefixes)}


QUANTITIES = [
    Quantity("workers", "mean over the shards", partial(_mean, reduce="exact"), EXACT, absolute),
    Quantity("workers", "mean over the shards, fast", partial(_mean, reduce="fast"), EXACT, absolute),
    Quantity("workers", "mean with a worker that gives three times as much", _three_times, EXACT, absolute),
    Quantity("workers", "parts of a batch", partial(_batch, config=CONFIG), BATCHES, elementwise),
    Quantity("workers", "parts of a batch with classes", partial(_batch, config=LABELLED), BATCHES, elementwise),
    Quantity("workers", "parts of a stratified batch", partial(_batch, config=CONTINUOUS), BATCHES, elementwise),
    *training.quantities(ONE_WORKER, "20 steps of 4 shards", "workers"),
    *training.quantities(SECOND_OF_TWO, "10 steps of the second of two workers", "workers"),
    Quantity("workers", "BatchNorm in 2 shards: losses", _history, RESIDUAL_HISTORY, of_the_largest),
    *(
        Quantity("workers", f"BatchNorm in 2 shards: {what}", partial(_state, prefixes=prefixes), tolerance, measure)
        for what, (prefixes, tolerance, measure) in STATES.items()
    ),
]
