"""One process of a team of workers.py. Its place comes from its environment; requests and answers are as in worker.py.

    {"do": "train", "shards": 2, "count": 1}                            ->  {"seconds": 0.4}
    {"do": "exchange", "preset": "small", "reduce": "exact", "count": 1}  ->  {"seconds": 0.01}
    {"do": "traffic", "preset": "small", "reduce": "exact"}             ->  {"bytes": 10937732.0}
    {"do": "describe"}                                                  ->  {"threads": 1}

All processes of a team are given the same requests, and do them together.
"""

import dataclasses
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from worker import serve
from workers_model import numbers_of
from workers_team import Team

from ddpm_shared import batches, datasets, machine, workers
from ddpm_shared.config import Config, Reduce, TrainingConfig, with_preset
from ddpm_shared.frameworks import FRAMEWORKS

EXCHANGES = 3  # of which the traffic is counted
INTERFACES = Path("/proc/net/dev")


def config_of(team: Team, shards: int) -> Config:
    """The settings that a user would give."""
    config = Config(precision=team.precision, device="cpu", threads=team.threads)
    training = TrainingConfig(batch_size=team.batch_size, shards=shards)
    return dataclasses.replace(with_preset(config, team.preset), training=training)


def loopback_bytes(interfaces: Path = INTERFACES) -> int | None:
    """All bytes that processes of this machine have sent each other by the loopback; None where it cannot be read."""
    if not interfaces.is_file():
        return None
    lines = (line.partition(":") for line in interfaces.read_text().splitlines())
    received = {name.strip(): numbers.split()[:1] for name, _, numbers in lines}  # what one receives, another has sent
    return int(received["lo"][0]) if received.get("lo") else None


class Process:
    """What both frameworks do alike."""

    def __init__(self, team: Team) -> None:
        machine.keep_freed_memory()  # as our command lines do
        self.team, self.place, self.tree = team, workers.place(team.framework), FRAMEWORKS[team.framework].tree
        self.own = importlib.import_module(f"{self.tree}.workers")
        self.workers = self.own.join(self.place, config_of(team, team.workers))
        self.trainings: dict[int, Callable[[], object]] = {}
        self.exchanges: dict[tuple[str, Reduce], Callable[[], object]] = {}

    def train(self, shards: int) -> None:
        """A whole training step, its batch and noise included."""
        if shards not in self.trainings:
            self.trainings[shards] = self.training(shards)
        self.trainings[shards]()

    def training(self, shards: int) -> Callable[[], object]:
        """Step after step of a run with so many shards."""
        config, split = config_of(self.team, shards), datasets.load("fashion-mnist-10k")[0]
        num_steps = config.training.num_steps(len(split.images))
        learner = importlib.import_module(f"{self.tree}.learner").Learner(config, num_steps, self.workers)
        batch_of = batches.Prefetcher(split, config, self.place.share)
        steps = iter(range(num_steps))

        def step() -> None:
            number = next(steps)
            learner.train_step(batch_of(number), number)

        return step

    def exchange(self, preset: str, reduce: Reduce) -> None:
        """The mean over the workers of one vector, as long as the gradient of the preset's network."""
        if (preset, reduce) not in self.exchanges:
            self.exchanges[preset, reduce] = self.mean_of(numbers_of(preset), reduce)
        self.exchanges[preset, reduce]()

    def mean_of(self, numbers: int, reduce: Reduce) -> Callable[[], object]:
        """A call that ends when the mean of a vector of so many numbers is there."""
        raise NotImplementedError

    def traffic(self, preset: str, reduce: Reduce) -> dict[str, float]:
        """Bytes that a worker sends in an exchange, as the loopback counted them; nothing where it cannot be read."""
        before = loopback_bytes()
        for _ in range(EXCHANGES):
            self.exchange(preset, reduce)
        workers.gather(self.workers, np.zeros(1, np.int32))  # until all have what they were sent
        after = loopback_bytes()
        return {} if before is None or after is None else {"bytes": (after - before) / EXCHANGES / self.place.count}

    def describe(self) -> dict[str, Any]:
        """Facts that are not timed. After the first step, which sets the threads."""
        return {"threads": importlib.import_module(f"{self.tree}.utils").threads()}


class InTorch(Process):
    """ddpm_torch."""

    def mean_of(self, numbers: int, reduce: Reduce) -> Callable[[], object]:
        """As of Process."""
        import torch

        vector = torch.ones(numbers)
        return lambda: self.own.mean([[vector]], self.workers, reduce)


class InTensorFlow(Process):
    """ddpm_tf."""

    def mean_of(self, numbers: int, reduce: Reduce) -> Callable[[], object]:
        """As of Process; numpy() waits for the result."""
        import tensorflow as tf

        vector = tf.ones([numbers])
        mean = tf.function(lambda: self.own.mean([[vector]], self.workers, reduce), autograph=False)
        return lambda: mean()[0][0].numpy()


def make(fields: dict[str, Any]) -> Process:
    """The process of a team in its framework."""
    team = Team(**fields)
    return {"torch": InTorch, "tensorflow": InTensorFlow}[team.framework](team)


if __name__ == "__main__":
    serve(make)
