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

from ddpm_shared import surroundings

PACKAGES = ("ddpm-duet", "torch", "tensorflow", "keras", "numpy", "safetensors", "onnxruntime")
HERE = "shared/src/machine.py"  # this file, from the root of its repository
SECONDS_OF_GIT = 10
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
    """The commit of the checkout that this file is part of; None for an installed copy, wherever it lies."""
    # Somebody else's repository may be around us, e.g. around the environment that we are installed in.
    if _git("ls-files", "--error-unmatch", "--full-name", Path(__file__).name) != HERE:
        return None
    return _git("rev-parse", "HEAD")


def _git(*arguments: str) -> str | None:
    """What git says in the folder of this file; None if it cannot say it."""
    try:
        git = subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).parent,
            env=surroundings.without("GIT_"),  # which may name another repository
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS_OF_GIT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):  # no git here, or a file system that hangs
        return None
    said = git.stdout.decode(errors="replace").strip()
    return said if git.returncode == 0 and said else None
