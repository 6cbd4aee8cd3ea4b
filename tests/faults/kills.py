"""kill -9 at random moments of a training: every checkpoint stays whole, and the run ends as if nothing had happened.

campaign = Campaign("torch")
for _ in run(campaign, folder, kills=200, seed=0):
print(campaign.kills, campaign.faults)
"""

import collections
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ddpm_shared.frameworks import FRAMEWORKS
from ddpm_shared.records import checkpoint
from ddpm_shared.records import folder as run_folders

SETTINGS = (
    *("--preset", "tiny", "--base-channels", "8", "--channel-mults", "1", "--num-groups", "2"),
    *("--dataset", "fashion-mnist-10k", "--batch-size", "8", "--max-steps", "40"),
    *("--checkpoint-every", "4", "--keep-checkpoints", "2", "--validation-images", "64"),
    *("--sample-every", "1", "--sample-images", "2", "--threads", "1"),
)
EARLY, WRITING = 0.2, 0.2  # shares of the kills that do not wait for a step, and that wait until a file is written
STARTING = 6.0  # seconds within which the early ones come
RUNNING = 1.5  # seconds after a step within which the others come


MOMENTS = ("starting", "before a checkpoint", "while writing", "after a checkpoint")


@dataclass
class Campaign:
    """What came of the kills of one framework."""

    framework: str
    kills: int = 0
    runs: int = 0
    moments: collections.Counter[str] = field(default_factory=collections.Counter)  # of the kills
    faults: list[str] = field(default_factory=list)  # none, where nothing is wrong


def run(campaign: Campaign, folder: Path, kills: int, seed: int) -> Iterator[None]:
    """Train again and again, killed at random moments, until `kills` kills are made and the last run has ended.

    Args:
        campaign: what comes of it is noted there.
        folder: an empty folder to work in.
        kills: how many.
        seed: of the moments.

    Yields:
        After each kill, and after each run.
    """
    framework = campaign.framework
    random_number = random.Random(seed)
    whole = folder / "whole"
    _end(_start(framework, "--run-dir", whole, *SETTINGS), "the run that is never killed")
    while campaign.kills < kills:
        killed = folder / f"run-{campaign.runs}"
        campaign.runs += 1
        while campaign.kills < kills and not _killed_or_ended(framework, killed, random_number, campaign):
            yield
        _continue_to_the_end(framework, killed, campaign)
        campaign.faults += [f"{killed.name}: {fault}" for fault in differences(whole, killed)]
        yield


def _killed_or_ended(framework: str, folder: Path, number: random.Random, campaign: Campaign) -> bool:
    """Start or continue the run and kill it; True if it had ended before."""
    process = _start(framework, *_next_command(folder))
    log = folder / "metrics.jsonl"
    size = _size(log)
    kind = number.random()
    deadline = time.monotonic() + number.uniform(0, STARTING) if kind < EARLY else float("inf")
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
        if kind > 1 - WRITING and any(folder.glob("checkpoints/.*.tmp")):
            break
        if deadline == float("inf") and _size(log) > size:  # the steps have begun
            deadline = time.monotonic() + number.uniform(0, RUNNING)
    ended = process.poll() is not None
    process.kill()
    _, errors = process.communicate()
    if ended and process.returncode != 0:
        campaign.faults.append(f"{folder.name}: exit code {process.returncode}: {errors[-500:]}")
    if not ended:
        campaign.kills += 1
        campaign.moments[_moment(folder)] += 1
        campaign.faults += damages(folder)
    return ended


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:  # not yet there, or just set aside
        return 0


def _moment(folder: Path) -> str:
    if not (folder / "config.json").exists():
        return "starting"
    if list(folder.rglob(".*.tmp")):
        return "while writing"
    return "after a checkpoint" if run_folders.has_checkpoint(folder) else "before a checkpoint"


def damages(folder: Path) -> list[str]:
    """The checkpoints that are not whole."""
    found = []
    for path in folder.glob("checkpoints/*.safetensors"):
        try:
            checkpoint.load(path)
        except ValueError as error:
            found.append(f"{path}: {error}")
    return found


def differences(whole: Path, killed: Path) -> list[str]:
    """Where the ended run is not that which was never killed, to the last bit."""
    first, second = (json.loads((each / "metrics.json").read_text("utf-8")) for each in (whole, killed))
    found = [f"status {second['status']}"] if second["status"] != "completed" else []
    for kind in ("steps", "epochs"):
        a, b = ([_untimed(record) for record in each["history"][kind]] for each in (first, second))
        found += [f"its {kind} differ"] if a != b else []
    a, b = (checkpoint.load(run_folders.latest_checkpoint(each)) for each in (whole, killed))
    same = a.step == b.step and a.tensors.keys() == b.tensors.keys()
    if not same or any(not np.array_equal(a.tensors[name], b.tensors[name]) for name in a.tensors):
        found.append("its last checkpoint differs")
    pictures = [sorted((each / "samples").glob("*.png")) for each in (whole, killed)]
    if [path.read_bytes() for path in pictures[0]] != [path.read_bytes() for path in pictures[1]]:
        found.append("its pictures differ")
    found += [f"left {path}" for path in killed.rglob(".*.tmp")]
    return found


def _untimed(record: dict[str, float]) -> dict[str, float]:
    return {key: value for key, value in record.items() if key not in ("wall_s", "images_per_s")}


def _next_command(folder: Path) -> tuple[object, ...]:
    """The command that a user gives after a kill."""
    if (folder / "config.json").exists():
        return ("--resume", folder)
    return ("--run-dir", folder, *SETTINGS)


def _continue_to_the_end(framework: str, folder: Path, campaign: Campaign) -> None:
    metrics = folder / "metrics.json"
    if not metrics.exists() or json.loads(metrics.read_text("utf-8"))["status"] != "completed":
        try:
            _end(_start(framework, *_next_command(folder)), folder.name)
        except RuntimeError as error:
            campaign.faults.append(str(error))


def _start(framework: str, *arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", f"{FRAMEWORKS[framework].tree}.train", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def _end(process: "subprocess.Popen[str]", name: str) -> None:
    _, errors = process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"{name}: exit code {process.returncode}: {errors[-500:]}")
