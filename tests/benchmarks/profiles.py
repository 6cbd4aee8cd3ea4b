"""What a training step and a forward pass spend their time on, operation by operation, in one framework.

    .venv/bin/python tests/benchmarks/profiles.py --by tensorflow --precision bf16

In PyTorch operations run one after the other. TensorFlow runs two at once where it can, and each then takes longer: it
is profiled with one at a time, in steps that are hardly slower.
"""

import collections
import importlib
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tyro
from contenders import Contender, Precision
from ours import InTensorFlow, InTorch, Ours

from ddpm_shared.tables import aligned

WARM_UPS = 3
CONTAINERS = ("Run", "Process")  # of TensorFlow: they hold the operations


@dataclass(frozen=True)
class Options:
    """Print the costliest operations."""

    by: str = "torch"
    """torch or tensorflow."""
    precision: Precision = "bf16"
    """Arithmetic of the network."""
    preset: str = "base"
    """Whose network."""
    batch_size: int = 128
    """Images a step."""
    rows: int = 12
    """How many operations to list."""


def in_torch(call: Callable[[], None]) -> dict[str, float]:
    """Seconds by operation, without those that it calls."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as found:
        call()
    return {event.key: event.self_cpu_time_total / 1e6 for event in found.key_averages()}


def in_tensorflow(call: Callable[[], None]) -> dict[str, float]:
    """Seconds by kind of operation."""
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        call()
        tf.profiler.experimental.stop()
        space = xplane_pb2.XSpace()
        (path,) = Path(folder).glob("**/*.xplane.pb")
        space.ParseFromString(path.read_bytes())
    seconds: collections.Counter[str] = collections.Counter()
    for plane in space.planes:
        names = {key: value.name for key, value in plane.event_metadata.items()}
        for line in plane.lines:
            for event in line.events:
                _, colon, kind = names[event.metadata_id].rpartition(":")  # "model/conv_in:_FusedConv2D"
                if colon and kind not in CONTAINERS and "__inference" not in kind:
                    seconds[kind] += event.duration_ps / 1e12
    return dict(seconds)


def main(options: Options) -> None:
    """Profile one call of each kind after some that warm up."""
    contender = Contender(options.by, options.precision, preset=options.preset, batch_size=options.batch_size)
    ours: Ours
    if options.by == "torch":
        ours, profiled = InTorch(contender), in_torch
    else:
        importlib.import_module("ddpm_tf")  # TensorFlow, quietly
        import tensorflow as tf

        tf.config.threading.set_inter_op_parallelism_threads(1)
        ours, profiled = InTensorFlow(contender), in_tensorflow
    for name, call in {"training step": ours.train, "forward pass": ours.forward}.items():
        for _ in range(WARM_UPS):
            call()
        wall: list[float] = []

        def timed(call: Callable[[], None] = call, wall: list[float] = wall) -> None:
            began = time.perf_counter()
            call()
            wall.append(time.perf_counter() - began)

        seconds = profiled(timed)
        print(f"\n{options.by} {options.precision}, {name} of {options.batch_size}: {1e3 * wall[0]:.0f} ms, profiled")
        costly = sorted(seconds.items(), key=lambda item: -item[1])[: options.rows]
        table = [["operation", "ms", "%"], *([kind, 1e3 * s, 100 * s / wall[0]] for kind, s in costly)]
        print("\n".join(aligned(table, digits=3)))


if __name__ == "__main__":
    main(tyro.cli(Options, prog="tests/benchmarks/profiles.py"))
