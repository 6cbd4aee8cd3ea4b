"""What the benchmark runs on, and whether anything else runs there."""

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddpm_shared.errors import UserError

WATCHED_S = 3.0
BUSY_SHARE = 0.1  # of the machine
WORTH_NAMING = 0.02


@dataclass(frozen=True)
class Reading:
    """What /proc counted since the machine started, in ticks of the clock."""

    total: int
    idle: int
    processes: dict[int, tuple[str, int]]  # pid -> name, ticks


@dataclass(frozen=True)
class Busy:
    """How much of the machine others use."""

    share: float | None  # of all cores, 0 to 1; None where it cannot be known
    by: tuple[str, ...] = ()  # the busiest processes

    def __str__(self) -> str:
        if self.share is None:
            return "the load cannot be read on this system"
        named = f" ({', '.join(self.by)})" if self.by else ""
        return f"other processes use {self.share:.0%} of the machine{named}"


def read(proc: Path = Path("/proc")) -> Reading | None:
    """Read the counters now; None where there are none."""
    try:
        ticks = [int(word) for word in (proc / "stat").read_text().splitlines()[0].split()[1:9]]
    except (OSError, ValueError, IndexError):
        return None
    processes = {}
    for folder in proc.glob("[0-9]*"):
        try:
            line = (folder / "stat").read_text()
        except OSError:  # it has just ended
            continue
        name, _, rest = line.partition("(")[2].rpartition(")")  # a name may hold brackets and spaces
        words = rest.split()
        processes[int(folder.name)] = (name, int(words[11]) + int(words[12]))
    return Reading(sum(ticks), ticks[3] + ticks[4], processes)


def busy_between(before: Reading, after: Reading, own: int) -> Busy:
    """How much of the machine processes but `own` used from one reading to the next."""
    total = after.total - before.total
    if total <= 0:  # a sandbox that shows no counters
        return Busy(None)
    # What was not there before began within that time.
    used = {pid: ticks - before.processes.get(pid, ("", 0))[1] for pid, (_, ticks) in after.processes.items()}
    share = (total - (after.idle - before.idle) - used.pop(own, 0)) / total
    busiest = sorted(used, key=lambda pid: -used[pid])[:3]
    named = [pid for pid in busiest if used[pid] / total > WORTH_NAMING]
    return Busy(max(share, 0.0), tuple(f"{after.processes[p][0]}, pid {p}: {used[p] / total:.0%}" for p in named))


def watch(seconds: float = WATCHED_S) -> Busy:
    """How much of the machine others use, over some seconds; by the load average where there is no /proc."""
    before = read()
    if before is None:
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        return Busy(None if load is None else load / (os.cpu_count() or 1))
    time.sleep(seconds)
    after = read()
    return busy_between(before, after, os.getpid()) if after else Busy(None)


def require_quiet(found: Busy, anyway: bool) -> str | None:
    """A warning to print and keep, or None. Raises UserError on a busy machine unless `anyway`."""
    if found.share is None:
        return f"{found}: what else ran meanwhile is not known"
    if found.share <= BUSY_SHARE:
        return None
    if not anyway:
        raise UserError(f"{found}, and timings on a busy machine mean little: wait, or go on with --busy")
    return f"measured on a busy machine: at the start, {found}"


def describe() -> dict[str, Any]:
    """The processor, its cores and its memory."""
    facts: dict[str, Any] = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    cpuinfo, meminfo = Path("/proc/cpuinfo"), Path("/proc/meminfo")
    if cpuinfo.is_file():
        found = dict(line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line)
        found = {key.strip(): value.strip() for key, value in found.items()}
        facts["cpu"] = found.get("model name", facts["cpu"])
        kinds = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16", "sve")  # what bf16 depends on
        facts["vector_units"] = [f for f in found.get("flags", found.get("Features", "")).split() if f in kinds]
    if meminfo.is_file():
        facts["memory_gib"] = round(int(meminfo.read_text().split()[1]) / 2**20, 1)
    return facts
