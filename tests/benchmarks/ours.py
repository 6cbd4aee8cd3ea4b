"""Our two trees as contenders, in a worker process. The framework is imported when the contender is made."""

import dataclasses
import importlib
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from contenders import Contender

from ddpm_shared import batches, datasets, machine, streams
from ddpm_shared.config import Config, DiffusionConfig, TrainingConfig, with_preset
from ddpm_shared.records import run as run_folder

HOST_STEPS = 10  # a call, so that a call of some milliseconds is long against the clock


def config_of(contender: Contender, timesteps: int = 1000) -> Config:
    """The settings that a user would give for it."""
    config = Config(
        precision=contender.precision,
        device=contender.device,
        training=TrainingConfig(batch_size=contender.batch_size),
        diffusion=DiffusionConfig(timesteps=timesteps),
    )
    config = with_preset(config, contender.preset)
    if contender.base_channels is not None:
        model = dataclasses.replace(config.model, base_channels=contender.base_channels)
        config = dataclasses.replace(config, model=model)
    return dataclasses.replace(config, compile=True) if contender.compiled else config


class Ours:
    """What both trees do alike: train and sample by their Learner, and the work of a step outside the network."""

    def __init__(self, contender: Contender) -> None:
        machine.keep_freed_memory()  # as our command lines do; a peer's worker must not have it
        self.contender, self.config = contender, config_of(contender)
        self.split = datasets.load("fashion-mnist-10k")[0]
        self.make_learner = importlib.import_module(f"{self.tree}.learner").Learner
        self.num_steps = self.config.training.num_steps(len(self.split.images))
        self.learner = self.make_learner(self.config, self.num_steps)
        self.batch_of = batches.Prefetcher(self.split, self.config)
        self.samplers = {self.config.diffusion.timesteps: self.learner}
        self.step = 0
        rng = np.random.default_rng(0)
        self.x = rng.standard_normal((contender.batch_size, 28, 28, 1)).astype(np.float32)
        self.t = np.full(contender.batch_size, 500, np.int32)

    def describe(self) -> dict[str, Any]:
        """Facts that are not timed."""
        facts = {"parameters": self.learner.num_parameters, "threads": self.learner.threads}
        return facts | {"device": self.learner.device_name}

    def train(self) -> None:
        """A whole training step, its batch and noise included."""
        self.learner.train_step(self.batch_of(self.step), self.step)
        self.step += 1

    def sample(self, steps: int, images: int) -> None:
        """Draw `images` images at once in `steps` steps."""
        if steps not in self.samplers:  # in the round that is not kept
            self.samplers[steps] = self.make_learner(config_of(self.contender, steps), self.num_steps)
        self.samplers[steps].sample(images, lambda t: None)

    def host(self) -> dict[str, float]:
        """Milliseconds a training step of what happens outside the framework; `noise` is a part of `data`."""
        split, config = self.split, self.config
        batch = batches.training_batch(split, config, 0)
        shape = batch.eps.shape
        with tempfile.TemporaryDirectory() as folder:
            run = run_folder.Run(Path(folder), self.contender.by, config, {}, self.split, self.learner.num_parameters)
            work: dict[str, Callable[[int], object]] = {
                "data": lambda step: batches.training_batch(split, config, step),
                "noise": lambda step: streams.normal(config.seed, streams.TRAIN_EPS, step, shape),
                "to_batch": lambda step: self.to_batch(batch.arrays),
                "logging": lambda step: run.record_step(
                    {
                        "step": step + 1,
                        "epoch": 1,
                        "images_seen": (step + 1) * shape[0],
                        "loss": 0.123456789012345,
                        "grad_norm": 0.123456789012345,
                        "learning_rate": 2e-4,
                    }
                ),
            }
            return {name: 1e3 * statistics.median(_seconds(call)) for name, call in work.items()}


def _seconds(call: Callable[[int], object]) -> list[float]:
    found = []
    for step in range(HOST_STEPS):
        began = time.perf_counter()
        call(step)
        found.append(time.perf_counter() - began)
    return found


class InTorch(Ours):
    """ddpm_torch."""

    tree = "ddpm_torch"

    def __init__(self, contender: Contender) -> None:
        super().__init__(contender)
        import torch

        self.torch = torch
        tensors = torch.from_numpy(self.x.transpose(0, 3, 1, 2).copy()), torch.from_numpy(self.t)
        self.tensors = tuple(tensor.to(self.learner.device) for tensor in tensors)
        self.tensors_of = importlib.import_module("ddpm_torch.data").to_batch

    def describe(self) -> dict[str, Any]:
        """As of Ours, with the arithmetic of a forward pass: that of the other tree too, whose network is the same."""
        from flops import flops_per_image

        found = super().describe()
        return found if self.contender.compiled else found | {"flops": flops_per_image(self.learner.model)}

    def forward(self) -> None:
        """The averaged network without gradients, as the sampler calls it; a GPU is waited for."""
        with self.torch.no_grad():
            self.learner.ema_network(*self.tensors)
        if self.learner.device.type == "cuda":
            self.torch.cuda.synchronize()

    def peak_device_bytes(self) -> int | None:
        """The most memory of a GPU that tensors ever had; None on a CPU."""
        return self.torch.cuda.max_memory_allocated() if self.learner.device.type == "cuda" else None

    def to_batch(self, arrays: batches.Arrays) -> object:
        """The arrays of a step as tensors."""
        return self.tensors_of(arrays, self.config.precision, self.learner.device)


class InTensorFlow(Ours):
    """ddpm_tf."""

    tree = "ddpm_tf"

    def __init__(self, contender: Contender) -> None:
        super().__init__(contender)
        import tensorflow as tf

        self.tf = tf
        self.tensors = tf.constant(self.x), tf.constant(self.t)
        self.tensors_of = importlib.import_module("ddpm_tf.data").to_batch

    def forward(self) -> None:
        """The averaged network without gradients, as the sampler calls it; numpy() waits for the result."""
        self.learner.ema_network(*self.tensors).numpy()

    def peak_device_bytes(self) -> int | None:
        """The most memory of a GPU that tensors ever had; None on a CPU."""
        on_gpu = self.learner.device.device_type == "GPU"
        return self.tf.config.experimental.get_memory_info("GPU:0")["peak"] if on_gpu else None

    def to_batch(self, arrays: batches.Arrays) -> object:
        """The arrays of a step as tensors."""
        return self.tensors_of(arrays, self.config.precision)
