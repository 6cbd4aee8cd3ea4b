"""A signal where there is nothing to save: while a command starts, between its parts, and at its end.

Ctrl-C in the middle of an import would end in a traceback of some library, or be taken for another error. A command
ends there at once instead, with one line. Where there is something to save, commands/interruption.py takes over.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

_on_the_way_out: list[Callable[[], None]] = []
_acting: list[signal.Signals] = []
_terminal = 2  # of its own from at_once on: the descriptor 2 leads elsewhere while a framework is imported


def signals() -> list[signal.Signals]:
    """The signals that stop a command: Ctrl-C, the system's request, and a closed terminal unless it is ignored."""
    chosen = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup ignores it
        chosen.append(signal.SIGHUP)
    return chosen


def at_once() -> None:
    """From here on, a signal ends this process with the line "interrupted" and the exit code 128 + its number."""
    global _terminal
    _terminal = os.dup(2)
    process = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() == process:  # not in a copy that a library made
            leave("interrupted", 128 + number)
        os._exit(128 + number)

    for number in signals():
        signal.signal(number, stop)
        _acting.append(number)


def leave(sentence: str, code: int) -> NoReturn:
    """End this process at once, from whichever thread, with a line on stderr and an exit code."""
    with contextlib.suppress(ValueError):  # in another thread than the main one
        disregard()
    for undo in reversed(_on_the_way_out):
        with contextlib.suppress(Exception):
            undo()
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    bars = getattr(getattr(sys.modules.get("tqdm"), "tqdm", None), "_instances", ())
    with contextlib.suppress(OSError):
        os.write(_terminal, b"\n" * bool(bars) + sentence.encode() + b"\n")  # a bar leaves its line open
    os._exit(code)


def on_the_way_out(undo: Callable[[], None]) -> None:
    """Have `undo` called when a signal ends the process at once; `atexit` is for every other ending."""
    _on_the_way_out.append(undo)


def disregard() -> None:
    """Ignore the signals that at_once set up: the work is done, its exit code stands, and Python only tidies up."""
    for number in _acting:
        signal.signal(number, signal.SIG_IGN)
