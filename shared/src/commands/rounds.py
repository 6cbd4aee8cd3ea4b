"""Images in rounds of batches: in a round each worker makes one batch, and then all give each other what they made.

The size of a batch decides how a framework's kernels round. So no batch is ever cut: several workers make the very
batches that one would make, side by side, and an image is the same whoever makes it.
"""

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ddpm_shared.commands.base import NetworkPlan
from ddpm_shared.commands.interruption import Interrupted, StopSignals
from ddpm_shared.errors import UserError
from ddpm_shared.workers import WorkerLost, Workers, gather, gather_json, require_alike

Values = Mapping[str, NDArray[Any]]  # by name, [n, ...] of n images
Make = Callable[[slice, Callable[[int], None]], Values]


def make_all(
    plan: NetworkPlan,
    all_workers: Workers,
    origin: str,
    done: Values,
    make: Make,
    save: Callable[[Values], None],
    parts: float,
    unit: str,
) -> Values | int:
    """The values of all images of a command; an exit code where a signal came, and for every worker but the chief.

    Args:
        plan: how many images, in batches of which size.
        all_workers: this process among the others. All call this.
        origin: everything that the values depend on, as NetworkPlan.origin has it.
        done: the values of the first images, which the chief found saved, [n, ...]; for another worker, [0, ...].
        make: (which images, on_parts) -> their values; it calls on_parts(count) after so many parts of the work.
        save: the chief calls it with the values made so far, after every round but the last.
        parts: of an image, on average.
        unit: what a part is, in the progress bar.

    Returns:
        The chief's values, or 128 and the signal's number. 0 for the other workers: the chief says how it ended.

    Raises:
        UserError: what `make` raises, in whichever worker; the workers have not one command.
        WorkerLost: another worker has ended.
    """
    number, batch_size, place = plan.command.num_images, plan.command.batch_size, all_workers.place
    count = _begin(plan, all_workers, origin, done)
    total, initial = (round(images * parts) for images in (number, count))
    bar = tqdm(total=total, initial=initial, unit=unit, unit_scale=True, disable=not place.chief)
    try:
        with StopSignals() as stop, bar:
            while count < number:
                firsts = range(count, number, batch_size)[: place.count]
                batches = [slice(first, min(first + batch_size, number)) for first in firsts]
                # One bar for all workers: they are about as far as the chief is with its batch, the first.
                ratio = (batches[-1].stop - count) / (batches[0].stop - count)

                def on_parts(made: int, ratio: float = ratio) -> None:
                    bar.update(made * ratio)
                    stop.check()

                values, stopping = _round(all_workers, batches, make, on_parts, done, stop)
                count = batches[-1].stop
                if place.chief:
                    done = {name: np.concatenate([array, values[name]]) for name, array in done.items()}
                    if count < number:
                        save(done)
                if stopping and count < number:
                    raise Interrupted
    except Interrupted:
        if place.chief:
            print(f"interrupted; {_saved(count, plan)}", file=sys.stderr)
        return stop.exit_code if place.chief else 0
    except WorkerLost as error:
        if not place.chief:
            raise
        raise WorkerLost(f"{error}; {_saved(count, plan)}") from error
    return done if place.chief else 0


def _saved(count: int, plan: NetworkPlan) -> str:
    return f"{count} finished images are saved: the same command with --out {plan.out} continues"


def _begin(plan: NetworkPlan, all_workers: Workers, origin: str, done: Values) -> int:
    """How many images the chief has already. Raises UserError unless all workers have one command."""
    count = len(next(iter(done.values())))
    if all_workers.place.count == 1:
        return count
    of_command = {name: getattr(plan.command, name) for name in ("num_images", "batch_size")}
    of_config = {name: getattr(plan.config, name) for name in ("device", "threads")}
    facts = json.loads(origin) | of_command | of_config
    require_alike(all_workers, plan.framework, facts, "compute another result")
    return int(gather_json(all_workers, count)[0])


def _round(
    all_workers: Workers,
    batches: list[slice],
    make: Make,
    on_parts: Callable[[int], None],
    like: Values,
    stop: StopSignals,
) -> tuple[Values, bool]:
    """What all workers made of the batches of a round, in their order, and whether a signal says to stop after it.

    Args:
        all_workers: this process among the others. All call this.
        batches: each worker makes the one at its rank, if there is one. The last may be smaller than the others.
        make: as in make_all.
        on_parts: as make_all gives it to `make`.
        like: arrays with the names, shapes and types of the values, of any number of images.
        stop: the signals of this worker. Those that others received are noted there.

    Raises:
        Interrupted: a signal kept a worker from finishing its batch; or another than the chief, of what follows.
        UserError: what a worker's `make` raised.
    """
    place = all_workers.place
    if place.count == 1:
        return make(batches[0], on_parts), False
    mine: Values = {name: array[:0] for name, array in like.items()}
    refusal, whole = "", True
    try:
        if place.rank < len(batches):
            mine = make(batches[place.rank], on_parts)
    except Interrupted:
        whole = False
    except UserError as error:
        refusal = str(error)
    # Each tells the others, whatever happened: they wait for it. From here on, all decide alike.
    refusals, signals, wholes = zip(*gather_json(all_workers, [refusal, stop.received, whole]), strict=True)
    stop.received = stop.received or next(filter(None, signals), None)
    if any(refusals) and place.chief:
        raise UserError(next(filter(None, refusals)))
    if any(refusals) or not all(wholes):
        raise Interrupted
    values = {}
    for name, array in like.items():
        padded = np.zeros((batches[0].stop - batches[0].start, *array.shape[1:]), array.dtype)
        padded[: len(mine[name])] = mine[name]
        rows = gather(all_workers, padded).reshape(-1, *array.shape[1:])
        values[name] = rows[: batches[-1].stop - batches[0].start]
    return values, any(signals)
