"""Start several workers of one command on this machine: `python -m ddpm_shared.launch 2 ddpm_torch.train ...`.

Each worker gets its place by torchrun's variables and by TF_CONFIG. On several machines, torchrun, Slurm or Kubernetes
sets them instead (docs/workers.md). If one worker fails, all end; signals go to all.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import FrameType
from typing import IO

from ddpm_shared import command_line, stopping
from ddpm_shared.errors import UserError

SHARED_OUT = ("train", "inference", "bits", "likelihood")
COMMANDS = tuple(f"ddpm_{tree}.{name}" for tree in ("torch", "tf") for name in SHARED_OUT)
MOST_WORKERS = 64
GRACE, LAST_GRACE = 20.0, 5.0  # seconds for the others to end by themselves; without the chief, or after a signal
POLL = 0.05


@dataclass(frozen=True)
class Worker:
    """A process of the command; what it says on stderr is kept, but for the chief's, which the user sees."""

    rank: int
    process: "subprocess.Popen[bytes]"
    stderr: IO[bytes] | None


def main(argv: Sequence[str] | None = None) -> int:
    """Start the workers and wait for all. Returns the chief's exit code; 1 if another failed and the chief did not."""
    count, module, flags = _parse(list(sys.argv[1:] if argv is None else argv))
    workers: list[Worker] = []
    asked: set[int] = set()  # exit codes of workers that a signal has stopped, which is no failure

    def pass_on(number: int, frame: FrameType | None) -> None:
        asked.update((-number, 128 + number, 130))  # before it is handled; then; and if it comes again
        for worker in workers:
            if worker.process.poll() is None:
                worker.process.send_signal(number)

    for number in stopping.signals():  # first: nobody else would end those that have started
        signal.signal(number, pass_on)
    with ExitStack() as stack:
        try:
            _start(count, module, flags, workers, stack)
            failed = _wait(workers, asked)
        finally:
            _end(workers)
        code = workers[0].process.returncode
        if failed and (failed.rank > 0 or code < 0):
            _say(failed, count)
            code = code if code > 0 else 1
        return code if code >= 0 else 128 - code


def _parse(arguments: list[str]) -> tuple[int, str, list[str]]:
    usage = f"python -m ddpm_shared.launch COUNT MODULE [FLAGS ...], where MODULE is one of {', '.join(COMMANDS)}"
    if arguments[:1] in (["-h"], ["--help"]):
        print(f"{__doc__}\nusage: {usage}")
        raise SystemExit(0)
    count = arguments[0] if arguments else ""
    if not (re.fullmatch("[0-9]{1,3}", count) and 1 <= int(count) <= MOST_WORKERS):
        raise UserError(f"{count or 'nothing'} is no number of workers from 1 to {MOST_WORKERS}: {usage}")
    module = arguments[1] if len(arguments) > 1 else ""
    if module not in COMMANDS:
        raise UserError(f"{module or 'nothing'} is no command that several workers can do: {usage}")
    return int(count), module, arguments[2:]


def environments(count: int) -> list[dict[str, str]]:
    """The variables that give each of `count` workers on this machine its place. Their ports are free now."""
    ports = _free_ports(count + 1)
    cluster = {"worker": [f"localhost:{port}" for port in ports[1:]]}
    places = []
    for rank in range(count):
        own = {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(count),
            "LOCAL_WORLD_SIZE": str(count),
            "MASTER_ADDR": "localhost",
            "MASTER_PORT": str(ports[0]),
        }
        task = {"cluster": cluster, "task": {"type": "worker", "index": rank}}
        own["TF_CONFIG"] = json.dumps(task) if count > 1 else ""  # not one that was set before
        places.append(own)
    return places


def _start(count: int, module: str, flags: list[str], workers: list[Worker], stack: ExitStack) -> None:
    for rank, own in enumerate(environments(count)):
        silent = rank > 0
        stderr: IO[bytes] | None = None
        if silent:
            stderr = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 (the stack closes it)
        process = subprocess.Popen(
            [sys.executable, "-m", module, *flags],
            env={**os.environ, **own},
            stdin=subprocess.DEVNULL if silent else None,
            stdout=subprocess.DEVNULL if silent else None,
            stderr=stderr,
            start_new_session=True,  # a terminal's Ctrl-C goes to this process alone, which passes it on, once
        )
        workers.append(Worker(rank, process, stderr))


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("localhost", 0))
        return [each.getsockname()[1] for each in sockets]


def _wait(workers: list[Worker], asked: set[int]) -> Worker | None:
    """Until all have ended, or one has failed or the chief is done, and the others had time.

    Returns:
        Who failed first.
    """

    def first_failed() -> Worker | None:
        return next((worker for worker in workers if worker.process.poll() not in (None, 0, *asked)), None)

    failed, ends = None, float("inf")
    while any(worker.process.poll() is None for worker in workers) and time.monotonic() < ends:
        failed = failed or first_failed()
        if workers[0].process.poll() is not None:  # they have nothing to wait for any more
            ends = min(ends, time.monotonic() + LAST_GRACE)
        elif failed:
            ends = min(ends, time.monotonic() + GRACE)
        time.sleep(POLL)
    return failed or first_failed()


def _end(workers: list[Worker]) -> None:
    """End those that still run, at last without asking."""
    for stop in (subprocess.Popen.terminate, subprocess.Popen.kill):
        running = [worker.process for worker in workers if worker.process.poll() is None]
        for process in running:
            stop(process)
        ends = time.monotonic() + LAST_GRACE
        while any(process.poll() is None for process in running) and time.monotonic() < ends:
            time.sleep(POLL)


def _say(failed: Worker, count: int) -> None:
    """What the worker that failed first said last, or that a signal ended it."""
    code, said = failed.process.returncode, b""
    if failed.stderr is not None:
        failed.stderr.seek(0)
        said = failed.stderr.read().strip().rpartition(b"\n")[2]
    reason = f"was ended by signal {-code}" if code < 0 else said.decode(errors="replace") or f"ended with code {code}"
    bar = "\n" if failed.rank == 0 else ""  # a chief that was killed left its line open
    print(f"{bar}worker {failed.rank} of {count}: {reason}", file=sys.stderr)


if __name__ == "__main__":
    command_line.guard(main)
