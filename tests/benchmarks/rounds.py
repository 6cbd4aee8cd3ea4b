"""Timed calls in rounds: in each, every contender has one turn, so that whatever slows the machine slows all."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from crew import Crew
from tqdm import tqdm


@dataclass(frozen=True)
class Call:
    """One contender's turn.

    Args:
        name: the contender's.
        do: what is timed, as worker.py calls it.
        images: how many images a call is about; the rate is so many over the seconds.
        work: passes of an image through a network, about; only the progress bar needs it.
        request: what else the worker is told.
    """

    name: str
    do: str
    images: int
    work: int
    request: dict[str, Any] = field(default_factory=dict)


def training(name: str, batch_size: int) -> Call:
    """Training steps: one, or at small batches several, so that the call is long against the clock."""
    count = max(1, 64 // batch_size)
    return Call(name, "train", count * batch_size, 3 * count * batch_size, {"count": count})


def forward(name: str, batch_size: int) -> Call:
    """Passes without gradient."""
    count = max(1, 64 // batch_size)
    return Call(name, "forward", count * batch_size, count * batch_size, {"count": count})


def sampling(name: str, steps: int, images: int) -> Call:
    """`images` images drawn at once in `steps` steps."""
    return Call(name, "sample", images, steps * images, {"steps": steps, "images": images})


def total_work(calls: list[Call], repeats: int, warm_ups: int = 1) -> int:
    """What a progress bar over run() counts up to."""
    return (repeats + warm_ups) * sum(call.work for call in calls)


def run(crew: Crew, calls: list[Call], repeats: int, bar: "tqdm[Any]", warm_ups: int = 1) -> list[list[float]]:
    """Make the calls `repeats` times after rounds that warm up.

    Returns:
        Images per second of each call, one for each round; fewer where the worker died.
    """
    rates: list[list[float]] = [[] for _ in calls]
    for k in range(warm_ups + repeats):
        # Each round begins with another contender, so that none always follows the same neighbour.
        for index in [(k + i) % len(calls) for i in range(len(calls))]:
            call = calls[index]
            bar.set_postfix_str(f"{call.name}: {call.do}")
            found = crew.ask(call.name, call.do, **call.request)
            bar.update(call.work)
            if found is not None and k >= warm_ups:
                rates[index].append(call.images / found["seconds"])
    return rates


@contextlib.contextmanager
def progress(total: int, title: str) -> Iterator["tqdm[Any]"]:
    """A bar with the time left."""
    with tqdm(total=total, desc=title, unit="img", unit_scale=True, dynamic_ncols=True) as bar:
        yield bar
