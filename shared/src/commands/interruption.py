"""Stopping between two steps on a signal or a time limit, so that nothing is left half done.

The signals are Ctrl-C, SIGTERM and, unless it is ignored, SIGHUP, which says that the terminal was closed.
"""

import signal
import sys
import time
from types import FrameType, TracebackType

from ddpm_shared import stopping


class Interrupted(Exception):  # noqa: N818 (a request, not an error)
    """A signal arrived or the time is up. Raised between steps, when all state is consistent."""


class StopSignals:
    """A context in which the first signal waits for the next `check`; a second one acts at once.

    Args:
        minutes: time limit, after which `check` raises too; None for no limit.
    """

    def __init__(self, minutes: float | None = None) -> None:
        self.received: int | None = None
        self.ends = time.monotonic() + 60 * (float("inf") if minutes is None else minutes)

    def __enter__(self) -> "StopSignals":
        self.previous = {number: signal.signal(number, self._note) for number in stopping.signals()}
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = number
        print("\nstopping after this step and saving; a second Ctrl-C stops at once", file=sys.stderr)

    @property
    def exit_code(self) -> int:
        """128 + the number of the signal, so 130 for SIGINT, 143 for SIGTERM, 129 for SIGHUP; 0 without one."""
        return 128 + self.received if self.received else 0

    def check(self) -> None:
        """Raise Interrupted if a signal arrived or the time is up."""
        if self.received is not None or time.monotonic() >= self.ends:
            raise Interrupted
