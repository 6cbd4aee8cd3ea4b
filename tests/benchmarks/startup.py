"""How long our commands take until they can answer at all."""

import statistics
import subprocess
import sys
import time
from typing import Any

COMMANDS = {
    f"{tree}.{command}": framework
    for tree, framework in (("ddpm_torch", "torch"), ("ddpm_tf", "tensorflow"))
    for command in ("train", "inference")
}
REPEATS = 3


def measure() -> dict[str, dict[str, Any]]:
    """Seconds that `python -m MODULE --help` takes, median of three, and whether it imported the framework."""
    return {module: _measure(module, framework) for module, framework in COMMANDS.items()}


def _measure(module: str, framework: str) -> dict[str, Any]:
    # The first run, which also brings the files into memory, lists its imports, one a line: "time | time |   name".
    listed = _help(module, "-X", "importtime")
    if listed.returncode:
        last = (listed.stderr.strip().splitlines() or [""])[-1]
        return {"error": f"python -m {module} --help ended with {listed.returncode}: {last}"}
    imported = any(line.rpartition("|")[2].strip() == framework for line in listed.stderr.splitlines())
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        _help(module)
        seconds.append(time.perf_counter() - began)
    return {"seconds": statistics.median(seconds), "framework_imported": imported}


def _help(module: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *options, "-m", module, "--help"], capture_output=True, text=True, check=False
    )
