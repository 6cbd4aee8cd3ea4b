"""How long a training step takes on many GPUs, by arithmetic from stated assumptions. Nothing here is measured.

A step computes, and then all GPUs exchange their gradients; nothing of the exchange is hidden behind computing. Every
GPU has the same number of images, however many GPUs there are, one shard, and a link of its own.
"""

import math
from dataclasses import dataclass
from typing import Any

from table import NOTHING, markdown

from ddpm_shared.config import Config, Reduce, size, with_preset

FLOAT = 4  # bytes
TRAINING_PASSES = 3  # forward, and backward a product for the input and one for the weights
WORKERS = (8, 64, 512)
LINKS = (25.0, 100.0, 400.0)  # Gbit/s
WORTH_IT = 1.5  # --reduce fast is needed where the exact step takes more than so many times as long
MOST_WORKERS = 4096


@dataclass(frozen=True)
class Cluster:
    """The assumptions. The defaults are those of an H100 (SXM) by its data sheet, and guesses where it is silent."""

    images_per_gpu: int = 128
    """Images of a GPU in a step."""
    tflops: float = 989.0
    """Peak of a GPU in bf16, in TFLOP/s."""
    peak_share: float = 0.3
    """Share of the peak that training reaches. A guess."""
    memory_gb: float = 80.0
    """Memory of a GPU, in GB."""
    memory_gb_s: float = 3350.0
    """Rate of that memory, in GB/s."""
    link_share: float = 0.8
    """Share of a link that the carrier reaches. A guess."""
    latency_us: float = 10.0
    """Time of an empty message from a worker to the next, in microseconds. A guess."""


def numbers_of(preset: str) -> int:
    """Parameters of the network of a preset: so many numbers has its gradient."""
    return size.num_parameters(with_preset(Config(), preset))


def computing(cluster: Cluster, flops_per_image: float) -> float:
    """Seconds of a step's arithmetic; flops_per_image is of a forward pass."""
    return cluster.images_per_gpu * TRAINING_PASSES * flops_per_image / (cluster.peak_share * cluster.tflops * 1e12)


def received(reduce: Reduce, workers: int, parameters: int) -> float:
    """Bytes that a worker receives in a step.

    exact: the sum of each other worker. fast: a ring all-reduce, twice all parts but its own.
    """
    others = workers - 1
    return FLOAT * parameters * (others if reduce == "exact" else 2 * others / workers)


def passed(reduce: Reduce, workers: int, parameters: int) -> float:
    """Bytes that a GPU reads from and writes to its memory for the exchange, as ddpm_torch.workers.mean has it.

    exact: 4 to join the gradients to a vector; for each worker 1 to receive it, 2 to join the rows, 2 to lay out the
    tensors and 3 to add them (one sum fewer than workers); 2 to divide. fast: 4, 2 for a copy, about 4 in the ring,
    2 to lay out, 2 to divide.
    """
    return FLOAT * parameters * (4 + 5 * workers + 3 * (workers - 1) + 2 if reduce == "exact" else 14)


def exchanging(cluster: Cluster, reduce: Reduce, workers: int, parameters: int, link: float) -> float:
    """Seconds of a step's exchange over links of so many Gbit/s; a ring has a message for each other worker."""
    if workers == 1:
        return 0.0
    carried = received(reduce, workers, parameters) / (cluster.link_share * link * 1e9 / 8)
    messages = (workers - 1) * (1 if reduce == "exact" else 2) * cluster.latency_us / 1e6
    return carried + messages + passed(reduce, workers, parameters) / (cluster.memory_gb_s * 1e9)


def held(workers: int, parameters: int) -> float:
    """Bytes that the exact exchange holds at least: the vectors of all workers, as rows and as tensors."""
    return 2 * FLOAT * parameters * workers


def needed_from(cluster: Cluster, flops_per_image: float, parameters: int, link: float) -> int | None:
    """The smallest number of GPUs whose exact step takes more than WORTH_IT times as long as the fast one, if any."""
    arithmetic = computing(cluster, flops_per_image)

    def slower(workers: int) -> float:
        exact, fast = (exchanging(cluster, reduce, workers, parameters, link) for reduce in ("exact", "fast"))
        return (arithmetic + exact) / (arithmetic + fast)

    return next((workers for workers in range(2, MOST_WORKERS + 1) if slower(workers) > WORTH_IT), None)


def most_that_fit(cluster: Cluster, parameters: int) -> int:
    """The largest number of GPUs whose exact exchange takes half of a GPU's memory at most."""
    return math.floor(cluster.memory_gb * 1e9 / 2 / held(1, parameters))


def model(cluster: Cluster, preset: str, parameters: int, flops_per_image: float) -> dict[str, Any]:
    """All numbers of the tables, in seconds and bytes."""
    return {
        "preset": preset,
        "parameters": parameters,
        "flops_per_image": flops_per_image,
        "computing": computing(cluster, flops_per_image),
        "steps": [
            {
                "workers": workers,
                "link": link,
                "received": {reduce: received(reduce, workers, parameters) for reduce in ("exact", "fast")},
                "exchanging": {
                    reduce: exchanging(cluster, reduce, workers, parameters, link) for reduce in ("exact", "fast")
                },
                "held": held(workers, parameters),
            }
            for workers in WORKERS
            for link in LINKS
        ],
        "needed_from": {f"{link:g}": needed_from(cluster, flops_per_image, parameters, link) for link in LINKS},
        "most_that_fit": most_that_fit(cluster, parameters),
    }


def document(cluster: Cluster, found: dict[str, Any]) -> str:
    """The assumptions, the table of steps, and from where on --reduce fast is needed, as Markdown."""
    assumptions = [
        f"{found['parameters']:,} parameters and {found['flops_per_image'] / 1e6:,.0f} MFLOP an image, forward, three "
        f'times as many in training (`make passport ARGS="--preset {found["preset"]}"`).',
        f"{cluster.images_per_gpu:,} images a GPU, however many GPUs there are: with {WORKERS[-1]}, a batch of "
        f"{WORKERS[-1] * cluster.images_per_gpu:,}. One shard a GPU.",
        f"A GPU reaches {cluster.peak_share:.0%} of {cluster.tflops:,.0f} TFLOP/s in bf16: "
        f"{milliseconds(found['computing'])} ms of computing.",
        f"Gradients are float32. A GPU has a link of its own, which carries {cluster.link_share:.0%} of its rate. A "
        f"message takes {cluster.latency_us:g} microseconds more.",
        "exact: a worker receives (W - 1) P floats. fast: a ring all-reduce, 2 (W - 1) / W P floats.",
        f"The exchange passes a GPU's memory, {cluster.memory_gb_s:,.0f} GB/s, 8 W + 3 times with exact, and 14 times "
        "with fast, each time with P floats.",
        "The exchange begins when all gradients are there. Nothing of it is hidden.",
    ]
    rows = []
    for step in found["steps"]:
        steps = {reduce: found["computing"] + seconds for reduce, seconds in step["exchanging"].items()}
        fits = step["held"] < cluster.memory_gb * 1e9
        rows.append(
            [
                f"{step['workers']}",
                f"{step['link']:g} Gbit/s",
                gigabytes(step["received"]["exact"]),
                milliseconds(steps["exact"]) if fits else "does not fit",
                gigabytes(step["received"]["fast"]),
                milliseconds(steps["fast"]),
                f"{steps['exact'] / steps['fast']:.1f}" if fits else NOTHING,
                f"{found['computing'] / steps['fast']:.0%}",
            ]
        )
    columns = ["GPUs", "link of each", "exact: GB received", "exact: ms a step", "fast: GB received"]
    columns += ["fast: ms a step", "exact / fast", "computing, share of fast"]
    needed = "; ".join(
        f"over {link} Gbit/s, {f'from {workers} GPUs on' if workers else f'never, up to {MOST_WORKERS:,} GPUs'}"
        for link, workers in found["needed_from"].items()
    )
    return "\n\n".join(
        [
            f"Preset `{found['preset']}`. Arithmetic, not measured. It assumes:",
            "\n".join(f"- {sentence}" for sentence in assumptions),
            markdown(columns, rows),
            f"The exact step takes more than {WORTH_IT:g} times as long as the fast one: {needed}. Up to "
            f"{found['most_that_fit']} GPUs, the vectors that exact gathers take at most half of a GPU's "
            f"{cluster.memory_gb:g} GB.",
        ]
    )


def milliseconds(seconds: float) -> str:
    """E.g. "7.9" or "1,234"."""
    value = 1e3 * seconds
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def gigabytes(number: float) -> str:
    """E.g. "0.43" or "126"."""
    value = number / 1e9
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
