"""Gradients over shards and over workers, added in the same order by any number of them. Mirror: ddpm_tf.workers.

A batch is cut into V shards. Every worker computes the gradients of its own, and all V are added in one binary tree,
((g_0 + g_1) + (g_2 + g_3)) / V, since sums in another order round otherwise. The order of the library's own all-reduce
depends on the number of workers, so here the library only carries bytes (`all_gather`), and we add.

torch.distributed carries them: gloo between CPUs, NCCL between GPUs. DistributedDataParallel does not come in: it
waits for `.grad`, which torch.autograd.grad never sets, so each worker would quietly train alone.
"""

import contextlib
from collections.abc import Iterator, Sequence
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from ddpm_shared.errors import UserError
from ddpm_shared.workers import ALONE, Place, WorkerLost, joining
from ddpm_torch import utils
from ddpm_torch.config import Config, Reduce

_PATIENCE = timedelta(days=7)  # with a worker that validates or draws; one that has ended is noticed at once


class Workers:
    """This process among the workers.

    Args:
        place: this one's.
        device: that it computes on; tensors are carried from there.

    Mirror: ddpm_tf.workers.Workers.
    """

    def __init__(self, place: Place = ALONE, device: torch.device | None = None) -> None:
        self.place = place
        self.carrier = device if place.count > 1 and dist.get_backend() == "nccl" else torch.device("cpu")

    def gather(self, words: NDArray[np.int32]) -> NDArray[np.int32]:
        """[n] of this worker -> [count, n] of all, in the order of their ranks."""
        with watched(self.place):
            return self.gather_rows(torch.from_numpy(words.copy())[None]).cpu().numpy()

    def gather_rows(self, x: Tensor) -> Tensor:
        """[n, P] of this worker -> [count * n, P] of all, in the order of their ranks."""
        if self.place.count == 1:
            return x
        mine = x.to(self.carrier).contiguous()
        rows = [torch.empty_like(mine) for _ in range(self.place.count)]
        dist.all_gather(rows, mine)
        return torch.cat(rows).to(x.device)

    def all_reduce(self, x: Tensor) -> Tensor:
        """The sum of the workers' x, in the order that the library takes."""
        if self.place.count == 1:
            return x
        total = x.to(self.carrier).clone()
        dist.all_reduce(total)
        return total.to(x.device)


@contextlib.contextmanager
def watched(place: Place) -> Iterator[None]:
    """A context in which the library's error becomes WorkerLost. Mirror: ddpm_tf.workers.watched."""
    try:
        yield
    except (dist.DistError, RuntimeError) as error:
        if place.count == 1 or not _lost(error):
            raise
        raise WorkerLost(
            f"worker {place.rank} of {place.count} cannot reach another one any more: it has ended"
        ) from error


def _lost(error: Exception) -> bool:
    text = str(error)
    return isinstance(error, dist.DistError) or any(
        name in text for name in ("gloo", "NCCL", "Connection", "Broken pipe")
    )


def join(place: Place, config: Config) -> Workers:
    """Find the other workers, where the environment says. Workers of one machine share out its GPUs.

    It comes before all computing.

    Args:
        place: this one's.
        config: its device and threads are used.

    Raises:
        UserError: a port cannot be used, or an address is wrong.

    Mirror: ddpm_tf.workers.join.
    """
    if place.count == 1:
        return Workers(place)
    device, gpus = utils.select_device(config.device), torch.cuda.device_count()
    if device.type == "cuda":
        torch.cuda.set_device(place.local_rank % gpus)
    own = device.type == "cuda" and place.local_count <= gpus  # NCCL refuses two on one GPU
    try:
        with joining(place):
            dist.init_process_group(
                "nccl" if own else "gloo", rank=place.rank, world_size=place.count, timeout=_PATIENCE
            )
            dist.barrier()
    except (dist.DistError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"worker {place.rank} of {place.count} cannot join the others at MASTER_ADDR:MASTER_PORT ({reason}): see "
            "that the port is free on the first machine, and that the others reach it"
        ) from error
    return Workers(place, device)


def pairs_added(parts: Sequence[list[Tensor]]) -> list[list[Tensor]]:
    """One level of the tree: neighbours are added, and an odd one at the end goes up as it is.

    Mirror: ddpm_tf.workers.pairs_added.
    """
    added = [list(torch._foreach_add(a, b)) for a, b in zip(parts[0::2], parts[1::2], strict=False)]
    return [*added, *parts[2 * len(added) :]]


def mean(parts: Sequence[list[Tensor]], workers: Workers, reduce: Reduce) -> list[Tensor]:
    """The mean over the shards of all workers, by one binary tree over them.

    A worker adds up the part of the tree that is its own, so that few sums are carried: with V = 8, one of each of two
    workers. The rest of the tree is added in every worker alike.

    Args:
        parts: a list of tensors for each shard of this worker, in the order of the shards.
        workers: all of them call this, with equally many parts.
        reduce: "exact", or "fast" for the library's own sum over the workers.

    Returns:
        The list of means, the same in every worker.

    Mirror: ddpm_tf.workers.mean.
    """
    count = len(parts) * workers.place.count
    if count > 1:  # laid out as what is carried will be: the layout decides in which order a norm adds
        parts = [[tensor.contiguous() for tensor in part] for part in parts]
    while len(parts) % 2 == 0 or (len(parts) > 1 and reduce == "fast"):
        parts = pairs_added(parts)
    if workers.place.count > 1:
        with watched(workers.place):
            flat = torch.stack([torch.cat([tensor.reshape(-1) for tensor in part]) for part in parts])
            flat = workers.all_reduce(flat) if reduce == "fast" else workers.gather_rows(flat)
        parts = [_like(row, parts[0]) for row in flat]
    while len(parts) > 1:
        parts = pairs_added(parts)
    return list(torch._foreach_div(parts[0], float(count))) if count > 1 else parts[0]


def _like(row: Tensor, tensors: list[Tensor]) -> list[Tensor]:
    """One vector as tensors of these shapes, each in memory of its own, since its place decides how a norm rounds."""
    pieces = torch.split(row, [tensor.numel() for tensor in tensors])
    return [piece.view(tensor.shape).clone() for piece, tensor in zip(pieces, tensors, strict=True)]
