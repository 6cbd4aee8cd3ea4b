"""Several processes for one command: the place of this one among them, what they say to each other, and when they stop.

A worker is one process. Its launcher gives it its place by variables of the environment: torchrun's own for PyTorch,
TF_CONFIG for TensorFlow. `python -m ddpm_shared.launch` sets both. The bytes go by each framework's own collectives, in
workers.py of its tree.
"""

import contextlib
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ddpm_shared import stopping
from ddpm_shared.config import Config, differences, require, to_dict
from ddpm_shared.errors import UserError
from ddpm_shared.frameworks import FRAMEWORKS

T = TypeVar("T", bound=np.generic)

JOIN_SECONDS = 120  # from the first worker to the last
# Settings that are each machine's own: where its files are. What they hold is compared by its hash.
OWN = {"data.dataset", "data.data_dir", "data.folder.skip_bad"}


class WorkerLost(UserError):  # noqa: N818 (what happened, not what we call it)
    """Another worker has ended, or cannot be reached any more."""


@dataclass(frozen=True)
class Place:
    """Which of how many workers this process is; of those on this machine, too, since they share its cores and GPUs."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1

    @property
    def chief(self) -> bool:
        """Whether this is the worker that shows progress and writes the files."""
        return self.rank == 0

    @property
    def share(self) -> tuple[int, int]:
        """The part of every batch that is this worker's, as in ddpm_shared.batches."""
        return self.rank, self.count


ALONE = Place()


class Workers(Protocol):
    """What a tree provides: this process among the others, and a way for all to give each other numbers."""

    place: Place

    def gather(self, words: NDArray[np.int32]) -> NDArray[np.int32]:
        """[n] of this worker -> [count, n] of all, in the order of their ranks. All call it, with the same n.

        Raises:
            WorkerLost: one of them has ended.
        """


def place(framework: str) -> Place:
    """The place that the environment gives this process.

    Args:
        framework: "torch" reads torchrun's variables, "tensorflow" TF_CONFIG.

    Raises:
        UserError: variables that are damaged or do not fit each other.
    """
    return _of_tf_config() if framework == "tensorflow" else _of_torchrun()


def _of_torchrun() -> Place:
    names = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1}
    if "WORLD_SIZE" not in os.environ:
        return ALONE
    try:
        found = Place(*(int(os.environ.get(name, missing)) for name, missing in names.items()))
    except ValueError:
        found = Place(-1)
    if not (0 <= found.rank < found.count and 0 <= found.local_rank < found.local_count <= found.count):
        stated = ", ".join(f"{name}={os.environ.get(name)}" for name in names)
        raise UserError(f"the variables {stated} are no place among workers: start with torchrun, or unset them")
    return found


def _of_tf_config() -> Place:
    text = os.environ.get("TF_CONFIG", "")
    if not text:
        return ALONE
    try:
        config = json.loads(text)
        kinds = [kind for kind in ("chief", "worker") if kind in config["cluster"]]
        hosts = [(kind, i, at) for kind in kinds for i, at in enumerate(config["cluster"][kind])]
        task = config["task"]["type"], int(config["task"]["index"])
        rank = [(kind, i) for kind, i, _ in hosts].index(task)
        machines = [at[: at.rindex(":")] for _, _, at in hosts]
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        raise UserError(
            'the variable TF_CONFIG is no place among workers, such as {"cluster": {"worker": ["a:1", "b:1"]}, "task": '
            '{"type": "worker", "index": 0}}: correct it, or unset it'
        ) from None
    here = machines[rank]
    return Place(rank, len(hosts), machines[:rank].count(here), machines.count(here))


def threads_of(place: Place, threads: int | None) -> int | None:
    """CPU threads of one operation where the user states none: workers on one machine share its cores."""
    if threads is not None or place.local_count == 1:
        return threads
    return max(1, (os.cpu_count() or 1) // place.local_count)


def require_divisible(place: Place, config: Config) -> None:
    """Raise UserError unless every worker gets the same number of shards."""
    shards = config.training.shards
    require(
        shards % place.count == 0,
        "--shards",
        shards,
        f"cannot be shared out among {place.count} workers: take a multiple of {place.count}. Any number of workers "
        "that divides it computes the same; another number of shards rounds otherwise",
    )


# Another process: it ends the one that started it, unless its stdin is closed within so many seconds.
_WATCHER = """
import os, sys, threading
sentence, seconds, process = sys.argv[1:]
waiting = threading.Thread(target=sys.stdin.read, daemon=True)
waiting.start()
waiting.join(float(seconds))
if waiting.is_alive():
    os.write(2, sentence.encode() + b"\\n")
    os.kill(int(process), 9)
os._exit(0)
"""


@contextlib.contextmanager
def joining(place: Place, seconds: float = JOIN_SECONDS) -> Iterator[None]:
    """A context in which the workers find each other; after so many seconds, this process ends with a sentence.

    TensorFlow waits without letting any other thread of Python run, so another process watches, too.
    """
    sentence = (
        f"error: worker {place.rank} of {place.count} has waited {seconds:g} seconds for the others: start all of "
        "them, with the same addresses and ports, and see that each machine reaches the others"
    )
    timer = threading.Timer(seconds, lambda: stopping.leave(sentence, 2))
    timer.daemon = True
    timer.start()
    watched = [sys.executable, "-c", _WATCHER, sentence, str(seconds + 2), str(os.getpid())]
    watcher = subprocess.Popen(watched, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        yield
    finally:
        timer.cancel()
        watcher.communicate()


def gather(workers: Workers, array: NDArray[T]) -> NDArray[T]:
    """[...] of this worker -> [count, ...] of all, in the order of their ranks. All call it, with the same shape."""
    data = np.ascontiguousarray(array).tobytes()
    rows = workers.gather(np.frombuffer(data + bytes(-len(data) % 4), np.int32))
    return np.stack([np.frombuffer(row.tobytes()[: len(data)], array.dtype).reshape(array.shape) for row in rows])


def gather_json(workers: Workers, value: Any) -> list[Any]:
    """The values of all workers, anything that JSON can say, in the order of their ranks."""
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = gather(workers, np.array([len(text)]))[:, 0]
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: len(text)] = text
    return [json.loads(row[:size].tobytes()) for row, size in zip(gather(workers, padded), sizes, strict=True)]


def proceed(workers: Workers, stop: bool = False) -> bool:
    """Whether all go on: False for every worker if `stop` is True for one of them. All call it, before every step."""
    return workers.place.count == 1 or not gather(workers, np.array([stop])).any()


def require_same(workers: Workers, framework: str, config: Config, data_sha256: str, begin: str) -> None:
    """Refuse workers that would not compute one run.

    Args:
        workers: all of them call this.
        framework: "torch" or "tensorflow".
        config: the settings.
        data_sha256: of the training images.
        begin: what the run begins with: the SHA-256 of a checkpoint, or "".

    Raises:
        UserError: names the worker and what differs.
    """
    facts = {"settings": to_dict(config), "data": data_sha256, "checkpoint": begin}
    require_alike(workers, framework, facts, "train another run")


def require_alike(workers: Workers, framework: str, facts: dict[str, Any], otherwise: str) -> None:
    """Refuse workers that differ in what their common result depends on, or in their code.

    Args:
        workers: all of them call this.
        framework: "torch" or "tensorflow".
        facts: by name, anything that JSON can say.
        otherwise: what a worker that differs would do, such as "train another run".

    Raises:
        UserError: names the worker and what differs.
    """
    own = {
        "code": code_sha256(FRAMEWORKS[framework].tree),
        "versions": {package: version(package) for package in (framework, "numpy")},
    }
    first, *others = gather_json(workers, facts | own)
    for rank, other in enumerate(others, 1):
        unlike = {
            key: pair for key, pair in differences(first, other).items() if key.removeprefix("settings.") not in OWN
        }
        if unlike:
            stated = "; ".join(
                f"its {key.removeprefix('settings.')} is {b!r}, not {a!r}" for key, (a, b) in unlike.items()
            )
            raise UserError(f"worker {rank} would {otherwise} than worker 0: {stated}. Start all with one command")


def code_sha256(tree: str) -> str:
    """The SHA-256 of the source files of a tree and of what both share."""
    digest = hashlib.sha256()
    for package in ("ddpm_shared", tree):
        folder = _folder(package)
        for file in sorted(folder.rglob("*.py")):
            digest.update(f"{package}/{file.relative_to(folder).as_posix()}\n".encode() + file.read_bytes())
    return digest.hexdigest()


def _folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None, package
    assert spec.origin is not None, package
    return Path(spec.origin).parent
