"""The machine that a command runs on: its description, and a setting of its memory allocator."""

import ctypes
import importlib.metadata
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NotRequired, TypedDict

PACKAGES = ("ddpm-duet", "torch", "tensorflow", "keras", "numpy", "safetensors", "onnxruntime")
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's mallopt


class Environment(TypedDict):
    """A description of the machine and the software that a command ran on."""

    python: str
    platform: str
    packages: dict[str, str]
    device: str
    threads: int
    cpu_count: int | None
    git_commit: str | None
    argv: list[str]
    started_utc: str
    resumed_from: NotRequired[dict[str, Any]]  # framework, step and checkpoint


def keep_freed_memory() -> None:
    """Have glibc reuse freed memory for the next allocation; with another C library, do nothing.

    A training step frees and allocates arrays of tens of megabytes. glibc returns blocks above 32 MB to the system at
    once, and the page faults of getting them again cost a tenth of a step (docs/performance.md).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


def environment(device: str, threads: int) -> Environment:
    """The description of this machine and process: versions, device, threads, git commit, argv."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": versions,
        "device": device,
        "threads": threads,
        "cpu_count": os.cpu_count(),
        "git_commit": _git_commit(),
        "argv": sys.argv,
        "started_utc": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _git_commit() -> str | None:
    command = ["git", "rev-parse", "HEAD"]
    try:
        git = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except OSError:  # no git here
        return None
    return git.stdout.strip() or None
