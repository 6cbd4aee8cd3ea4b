"""One contender in a process of its own: requests come as JSON lines on stdin, answers go as JSON lines to stdout.

    python tests/benchmarks/worker.py '{"by": "torch", "precision": "bf16"}'
    {"do": "train", "count": 1}           ->  {"seconds": 1.2}
    {"do": "sample", "steps": 50, "images": 64}
    {"do": "describe"}, {"do": "host"}, {"do": "memory"}

So its peak memory is its own, and no setting of one contender reaches another. Between requests it sleeps in a read.
"""

import ctypes
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contenders import Contender

SHORT = ("train", "forward", "conv", "gemm", "exchange")
TIMED = (*SHORT, "sample")


def make(contender: Contender) -> Any:
    """Import what the contender needs, and build it."""
    if contender.by == "torch":
        from ours import InTorch as kind  # noqa: N813
    elif contender.by == "tensorflow":
        from ours import InTensorFlow as kind  # noqa: N813
    elif contender.by == "peak":
        from peak import Peak as kind  # noqa: N813
    else:
        from peers import Peer as kind  # noqa: N813
    return kind(contender)


def answer(made: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Do what is asked; what is timed is timed here, so that the pipe is not."""
    do = request.pop("do")
    if do == "memory":
        device_bytes = getattr(made, "peak_device_bytes", lambda: None)()
        return {"peak_memory_mib": peak_memory_mib() if device_bytes is None else device_bytes / 2**20}
    if do not in TIMED:
        return dict(getattr(made, do)(**request))
    count, call = request.pop("count", 1), getattr(made, do)
    if do in SHORT:
        call(**request)  # memory, caches and clocks are the others', who had their turns since
    began = time.perf_counter()
    for _ in range(count):
        call(**request)
    seconds = time.perf_counter() - began
    give_back_memory()
    return {"seconds": seconds}


def give_back_memory() -> None:
    """Return freed memory to the system: what a dozen contenders keep between their turns is more than a laptop has."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def peak_memory_mib() -> float:
    """The most resident memory that this process ever had."""
    status = Path("/proc/self/status")
    if status.is_file():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        if "VmHWM" in lines:
            return int(lines["VmHWM"].split()[0]) / 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # on Linux it may be the parent's, hence not first
    return most / (1024 * 1024 if sys.platform == "darwin" else 1024)


def serve(make: Callable[[dict[str, Any]], Any]) -> None:
    """Answer until stdin ends, which it does when the parent dies, however it dies.

    Args:
        make: builds what answers, from the fields of the contender.
    """
    # What libraries print goes to stderr, so that nothing but answers goes to the parent.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(value: dict[str, Any]) -> None:
        print(json.dumps(value), file=answers, flush=True)

    try:
        made = make(json.loads(sys.argv[1]))
        say({"ready": True})
        for line in sys.stdin:
            say(answer(made, json.loads(line)))
    except Exception as error:
        say({"error": f"{type(error).__name__}: {error}"})
        raise


if __name__ == "__main__":
    serve(lambda fields: make(Contender(**fields)))
