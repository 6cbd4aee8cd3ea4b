"""Whether a piece of work can fit into this machine's memory, asked before it begins; and what is said if it did not.

Linux promises memory that it does not have, and kills the process that takes it at its word: no exception, no message,
perhaps another program's end. So work whose least need (config/size.py) is more than there is at all is refused.
"""

import os
import re
import sys
import warnings
from pathlib import Path

import psutil

from ddpm_shared.config import Config, size
from ddpm_shared.config.size import Bytes
from ddpm_shared.errors import UserError

CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
GPU_DRIVERS = tuple(map(Path, ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")))  # NVIDIA's, AMD's, Windows' for Linux
SMALLER_NETWORK = "--base-channels, --channel-mults or --num-res-blocks, or take a smaller --preset"

# How libraries say that memory is not to be had: by the exception's class, or in its text.
EXCEPTIONS = {"MemoryError", "OutOfMemoryError", "ResourceExhaustedError"}
PHRASES = (
    "allocate memory",
    "not enough memory",
    "out of memory",
    "out_of_memory",
    "resource_exhausted",
    "std::bad_alloc",
    "status_alloc_failed",
    "size calculation overflowed",
)
# Of oneDNN, which computes PyTorch's convolutions; what it does not support is "a primitive descriptor".
TEXTS = ("could not create a primitive", "could not execute a primitive")


def require_room_to_train(config: Config) -> None:
    """Raise UserError if a training step as `config` describes it cannot fit."""
    batch = config.training.batch_size
    weights = f"a network of {size.num_parameters(config):,} parameters"
    require_room(
        size.training(config),
        config,
        f"training {weights} on {batch:,} images a step",
        f"--batch-size, {SMALLER_NETWORK}",
    )
    judged = config.training.evaluate_images if config.training.evaluate_every else 0
    if judged:
        require_room(size.drawing(config, 1, judged), config, f"drawing {judged:,} images", "--evaluate-images")


def require_room_to_draw(config: Config, batch_size: int, num_images: int, more: int = 0) -> None:
    """Raise UserError if a network's work on so many images, so many at a time, cannot fit.

    Args:
        config: that of the network.
        batch_size: images at a time.
        num_images: images in all.
        more: bytes that are needed beside.
    """
    needed = size.drawing(config, batch_size, num_images)
    what = (
        f"a network of {size.num_parameters(config):,} parameters and {num_images:,} images, {batch_size:,} at a time,"
    )
    require_room(needed._replace(host=needed.host + more), config, what, "--num-images or --batch-size")


def require_room(needed: Bytes, config: Config, what: str, flags: str) -> None:
    """Raise UserError if this machine has less memory than is needed.

    Where the network may be on a GPU, whose memory only the framework knows, the host's share alone is looked at.

    Args:
        needed: at least.
        config: its device is used.
        what: the work, as the subject of a sentence.
        flags: what the user can lower.
    """
    least = needed.host + (0 if may_use_gpu(config) else needed.device)
    room = total()
    if least > room:
        raise UserError(f"{what} takes {_text(least)} of memory or more, and there are {_text(room)}: lower {flags}")


def may_use_gpu(config: Config) -> bool:
    """Whether the network may be on a GPU. The framework decides; this is known before it is imported."""
    if config.device == "cpu" or os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    return sys.platform == "win32" or any(driver.exists() for driver in GPU_DRIVERS)


def total() -> int:
    """All memory that this process can have, in bytes: the machine's with its swap, or less where a limit is set."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # psutil's, where the system does not say how much was swapped
        swap = psutil.swap_memory().total
        machine = psutil.virtual_memory().total + swap
    return min([machine, *(limit + swap for limit in _cgroup_limits()), *_process_limits()])


def _cgroup_limits() -> list[int]:
    """The limits of the control groups that this process is in, version 1 and 2: a container's, or a batch job's."""
    try:
        lines = OWN_CGROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux
        return []
    limits = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        root, name = (CGROUPS, "memory.max") if not controllers else (CGROUPS / "memory", "memory.limit_in_bytes")
        # Within a container the group may be named as from outside: what does not exist here is passed over.
        path = root / group.lstrip("/")
        for folder in (path, *path.parents):
            if folder.is_relative_to(root):
                limits += _number(folder / name)
    return limits


def _number(file: Path) -> list[int]:
    """The number in a file; none if there is no such file, or "max" in it."""
    try:
        return [int(file.read_text(encoding="utf-8"))]
    except (OSError, ValueError):
        return []


def _process_limits() -> list[int]:
    """The limit of `ulimit -v`."""
    try:
        import resource
    except ImportError:  # Windows
        return []
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return [] if soft == resource.RLIM_INFINITY else [soft]


def out_of_memory(error: BaseException) -> UserError | None:
    """What to tell the user if `error` says that memory ran out, of whichever library it is; None if it does not."""
    text = re.sub(r"^\{\{.*?\}\} ", "", str(error).strip()).partition("\n")[0]  # without TensorFlow's name of a node
    by_name = EXCEPTIONS & {kind.__name__ for kind in type(error).__mro__}
    by_text = text in TEXTS or any(phrase in str(error).lower() for phrase in PHRASES)
    if isinstance(error, UserError) or not isinstance(error, Exception) or not (by_name or by_text):
        return None
    said = f" ({text if len(text) <= 150 else text[:147] + '...'})" if text else ""
    return UserError(
        f"the memory does not suffice{said}: lower --batch-size or --num-images, or take a smaller network"
    )


def _text(number: int) -> str:
    gib = number / 2**30
    return f"{gib:,.1f} GiB" if gib < 1e6 else f"{gib:.0e} GiB"
