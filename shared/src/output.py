"""Standard output and standard error are decoration: nothing that goes wrong with them can end a command.

A reader may go away (`| head -1`, a closed terminal), a disk may be full, a code page may lack a letter. The work goes
on, and what cannot be shown is not shown.
"""

import contextlib
import io
import os
import sys

TYPE_CHECKING = False  # as in typing, which would take milliseconds to import
if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

PATIENCE = 5.0  # seconds that a reader who takes nothing is waited for


class _Decoration(io.FileIO):
    """A descriptor to write to, on which every write succeeds."""

    def write(self, data: "ReadableBuffer", /) -> int:
        """Write all of `data`. From the first failure on, the descriptor leads nowhere, for C libraries as well."""
        whole = memoryview(data).cast("B")
        rest = whole
        while len(rest):
            try:
                rest = rest[os.write(self.fileno(), rest) :]
            except BlockingIOError:
                if not self._has_room():
                    break
            except OSError:
                lead_nowhere(self.fileno())
                break
        return len(whole)

    def _has_room(self) -> bool:
        import select

        return bool(select.select([], [self.fileno()], [], PATIENCE)[1])


def secure() -> None:
    """Have the process's own stdout and stderr swallow every failure; open those that are closed.

    The streams of a notebook or a test are left as they are.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:  # it is closed: the lowest free number, which the next open gets, is this one
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream, own = getattr(sys, name), getattr(sys, f"__{name}__")
        if stream is own and not isinstance(getattr(stream, "buffer", None), _Decoration):
            if stream is not None:  # None: it was closed when Python began
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
            secured = _stream(number, stream.encoding if stream else "utf-8")
            setattr(sys, name, secured)
            setattr(sys, f"__{name}__", secured)


def lead_nowhere(number: int) -> None:
    """Point a descriptor at the null device."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, number)
    if nowhere != number:
        os.close(nowhere)


def _stream(number: int, encoding: str) -> io.TextIOWrapper:
    raw = _Decoration(number, "w", closefd=False)
    # Without a buffer between: one that is full when a signal's handler prints would raise. Lines go out one by one.
    return io.TextIOWrapper(raw, encoding, "backslashreplace", line_buffering=True)
