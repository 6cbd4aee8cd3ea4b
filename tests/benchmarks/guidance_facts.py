"""What trained the null label, and what a guided step costs: the facts of guidance.py that need no judge."""

import dataclasses
import importlib
import time

import numpy as np
from guidance_report import Framework, Record

from ddpm_shared import streams
from ddpm_shared.config import Precision
from ddpm_shared.config.sampling import Draw, Sampling
from ddpm_shared.datasets import Split
from ddpm_shared.machine import environment
from ddpm_shared.parameters import initial_value
from ddpm_shared.records.checkpoint import Checkpoint

TABLE = "label.weight"
BATCH, STEPS, ROUNDS, SCALE = 64, 4, 7, 3.0
WAYS = {  # name -> scale, batches at once
    "conditional, one batch of B": (1.0, 1),
    "unconditional, one batch of B": (0.0, 1),
    "guided, two batches of B": (SCALE, 1),
    "one batch of 2B": (1.0, 2),
}


def label_counts(run: Checkpoint, train: Split) -> Record:
    """For the classes and, last, the null label: images, steps with at least one of them, and the way of the row.

    The way is the root mean squared difference of the averaged weights to the initial row.
    """
    config, settings = run.config, run.config.training
    number, size, null = len(train.images), settings.batch_size, config.model.num_classes
    of_images, of_steps = np.zeros((2, null + 1), np.int64)
    for step in range(run.step):
        labels = train.labels[streams.batch_indices(config.seed, step, number, size)].astype(np.int64)
        labels[streams.drops(config.seed, step, size, settings.label_drop)] = null
        count = np.bincount(labels, minlength=null + 1)
        of_images += count
        of_steps += count > 0
    rows = run.tensors[f"ema/{TABLE}"].astype(np.float64)
    way = np.sqrt(((rows - initial_value(config.seed, TABLE, rows.shape)) ** 2).mean(1))
    return {
        "steps": run.step,
        "label_drop": settings.label_drop,
        "names": [*train.class_names, "no label"],
        "images": of_images.tolist(),
        "steps_with": of_steps.tolist(),
        "way": way.tolist(),
    }


def step_seconds(run: Checkpoint, framework: Framework, precision: Precision, threads: int | None) -> Record:
    """Seconds of a step of DDIM in each round, each way of WAYS; the ways take turns."""
    where = {"precision": precision, "device": "auto", "threads": threads, "compile": False}
    config = dataclasses.replace(run.config, **where)
    model, sampling = (importlib.import_module(f"ddpm_{framework}.{name}") for name in ("model", "sampling"))
    network = model.load(run, "ema", config)
    rounds: dict[str, list[float]] = {name: [] for name in WAYS}
    for number in range(ROUNDS + 1):
        for name, (scale, batches) in WAYS.items():
            sampler = sampling.Sampler(network, config, Sampling("ddim", STEPS, guidance=scale))
            count = batches * BATCH
            labels = np.arange(count) % config.model.num_classes
            began = time.perf_counter()
            sampler.draw(Draw(0, 0, count, labels=labels))
            if number:  # the first round warms up
                rounds[name].append((time.perf_counter() - began) / STEPS)
    told = {"framework": framework, "precision": precision, "batch_size": BATCH, "seconds_a_step": rounds}
    return told | {"environment": environment(sampler.device_name, sampler.threads)}
