"""What a command sets up in its process before it computes."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's mallopt


def keep_freed_memory() -> None:
    """Have glibc keep what is freed for what is allocated next; with another C library, do nothing.

    A training step frees and allocates arrays of tens of megabytes. glibc gives blocks above 32 MB back to the system
    at once, and the page faults of getting them anew cost a tenth of a step (docs/performance.md).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)
