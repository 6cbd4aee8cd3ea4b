"""Gradients over shards and over workers, added in the same order by any number of them. Mirror: ddpm_torch.workers.

A batch is cut into V shards. Every worker computes the gradients of its own, and all V are added in one binary tree,
((g_0 + g_1) + (g_2 + g_3)) / V, since sums in another order round otherwise. The order of the library's own all-reduce
depends on the number of workers, so here the library only carries bytes (`all_gather`), and we add.

tf.distribute.MultiWorkerMirroredStrategy carries them. Our variables are not made in its scope: their first values come
from the seed, and every worker changes them alike, so there is nothing to mirror. Beware of two habits of the library
elsewhere: it sums where PyTorch's DistributedDataParallel averages, and Keras' optimizers clip before they sum.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ddpm_shared.errors import UserError
from ddpm_shared.workers import ALONE, Place, WorkerLost, joining
from ddpm_tf import utils
from ddpm_tf.config import Config, Reduce


class Workers:
    """This process among the workers.

    Args:
        place: this one's.
        strategy: a tf.distribute.Strategy, which carries tensors between several.

    Mirror: ddpm_torch.workers.Workers.
    """

    def __init__(self, place: Place = ALONE, strategy: Any = None) -> None:
        self.place, self.strategy = place, strategy
        self._gathered = tf.function(self._gather_rows, autograph=False, reduce_retracing=True)
        self._reduced = tf.function(self._all_reduce, autograph=False, reduce_retracing=True)

    def gather(self, words: NDArray[np.int32]) -> NDArray[np.int32]:
        """[n] of this worker -> [count, n] of all, in the order of their ranks."""
        with watched(self.place):
            rows: NDArray[np.int32] = self.gather_rows(tf.constant(words[None])).numpy()
        return rows

    def gather_rows(self, x: tf.Tensor) -> tf.Tensor:
        """[n, P] of this worker -> [count * n, P] of all, in the order of their ranks."""
        if self.strategy is None:
            return x
        return tf.reshape(self._gathered(tf.reshape(x, [1, -1])), [-1, x.shape[1]])  # one row: one graph for any length

    def all_reduce(self, x: tf.Tensor) -> tf.Tensor:
        """The sum of the workers' x, in the order that the library takes."""
        return x if self.strategy is None else self._reduced(x)

    # In the worker's replica of the strategy. A copy is made there, as what is carried has to be on one of its devices.

    def _gather_rows(self, x: tf.Tensor) -> tf.Tensor:
        return self.strategy.run(lambda: tf.distribute.get_replica_context().all_gather(tf.identity(x), axis=0))

    def _all_reduce(self, x: tf.Tensor) -> tf.Tensor:
        add = tf.distribute.ReduceOp.SUM
        return self.strategy.run(lambda: tf.distribute.get_replica_context().all_reduce(add, tf.identity(x)))


@contextlib.contextmanager
def watched(place: Place) -> Iterator[None]:
    """A context in which the library's error becomes WorkerLost. Mirror: ddpm_torch.workers.watched."""
    try:
        yield
    except (
        tf.errors.UnavailableError,
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.InternalError,
    ) as error:
        if place.count == 1:
            raise
        raise WorkerLost(
            f"worker {place.rank} of {place.count} cannot reach another one any more: it has ended"
        ) from error


def join(place: Place, config: Config) -> Workers:
    """Find the other workers, where the environment says. Workers of one machine share out its GPUs.

    It comes before all computing.

    Args:
        place: this one's.
        config: its device and threads are used.

    Raises:
        UserError: a port cannot be used, or an address is wrong.

    Mirror: ddpm_torch.workers.join.
    """
    if place.count == 1:
        return Workers(place)
    utils.set_threads(config.threads)
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        tf.config.set_visible_devices(gpus[place.local_rank % len(gpus)], "GPU")
    device = utils.select_device(config.device)
    own = device.device_type == "GPU" and place.local_count <= len(gpus)  # NCCL refuses two on one GPU
    carrier = tf.distribute.experimental.CommunicationImplementation
    options = tf.distribute.experimental.CommunicationOptions(implementation=carrier.NCCL if own else carrier.RING)
    try:
        with joining(place):
            workers = Workers(place, tf.distribute.MultiWorkerMirroredStrategy(communication_options=options))
            workers.gather(np.zeros(1, np.int32))
    except (tf.errors.OpError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"worker {place.rank} of {place.count} cannot join the others at the addresses of TF_CONFIG ({reason}): "
            "see that its port is free on this machine, and that the others reach it"
        ) from error
    return workers


def pairs_added(parts: Sequence[list[tf.Tensor]]) -> list[list[tf.Tensor]]:
    """One level of the tree: neighbours are added, and an odd one at the end goes up as it is.

    Mirror: ddpm_torch.workers.pairs_added.
    """
    added = [[x + y for x, y in zip(a, b, strict=True)] for a, b in zip(parts[0::2], parts[1::2], strict=False)]
    return [*added, *parts[2 * len(added) :]]


def mean(parts: Sequence[list[tf.Tensor]], workers: Workers, reduce: Reduce) -> list[tf.Tensor]:
    """The mean over the shards of all workers, by one binary tree over them.

    A worker adds up the part of the tree that is its own, so that few sums are carried: with V = 8, one of each of two
    workers. The rest of the tree is added in every worker alike.

    Args:
        parts: a list of tensors for each shard of this worker, in the order of the shards.
        workers: all of them call this, with equally many parts.
        reduce: "exact", or "fast" for the library's own sum over the workers.

    Returns:
        The list of means, the same in every worker.

    Mirror: ddpm_torch.workers.mean.
    """
    # Not in a graph, which would take all sums for one, and add in an order of its own.
    count = len(parts) * workers.place.count
    while len(parts) % 2 == 0 or (len(parts) > 1 and reduce == "fast"):
        parts = pairs_added(parts)
    if workers.place.count > 1:
        with watched(workers.place):
            flat = tf.stack([tf.concat([tf.reshape(tensor, [-1]) for tensor in part], axis=0) for part in parts])
            flat = workers.all_reduce(flat) if reduce == "fast" else workers.gather_rows(flat)
        rows = len(parts) * (1 if reduce == "fast" else workers.place.count)
        parts = [_like(row, parts[0]) for row in tf.unstack(flat, rows)]
    while len(parts) > 1:
        parts = pairs_added(parts)
    return [tensor / count for tensor in parts[0]] if count > 1 else parts[0]


def _like(row: tf.Tensor, tensors: list[tf.Tensor]) -> list[tf.Tensor]:
    """One vector as tensors of these shapes."""
    pieces = tf.split(row, [int(np.prod(tensor.shape)) for tensor in tensors])
    return [tf.reshape(piece, tensor.shape) for piece, tensor in zip(pieces, tensors, strict=True)]
