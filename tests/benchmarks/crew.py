"""The workers as their parent sees them."""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

WORKER = Path(__file__).with_name("worker.py")


class Gone(Exception):  # noqa: N818 (it may be expected: a peer that is not installed)
    """The worker died; the message says of what."""


class Worker:
    """One contender's process, building itself.

    Args:
        contender: a dataclass with a name.
        script: what the process runs; it is told the contender.
        variables: of its environment, beside ours.
    """

    def __init__(self, contender: Any, script: Path = WORKER, variables: Mapping[str, str] | None = None) -> None:
        self.contender = contender
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as the worker lives)
        self.process = subprocess.Popen(
            [sys.executable, str(script), json.dumps(dataclasses.asdict(contender))],
            env={**os.environ, **(variables or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            start_new_session=True,  # Ctrl-C is for the parent, which ends its workers
        )

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """One request and its answer. Raises Gone if the worker died."""
        self.tell(do, **request)
        return self.read()

    def tell(self, do: str, **request: Any) -> None:
        """One request, whose answer is to be read."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # why it died, its last answer says
            self.process.stdin.write(json.dumps({"do": do} | request) + "\n")
            self.process.stdin.flush()

    def read(self) -> dict[str, Any]:
        """The next answer; the first says that it is built. Raises Gone if the worker died."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found: dict[str, Any] = json.loads(line) if line else {"error": self._last_words()}
        if "error" in found:
            raise Gone(found["error"])
        return found

    def _last_words(self) -> str:
        code = self.process.wait()
        self.errors.seek(0)
        said = self.errors.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(said) if line.strip()), "")
        how = f"killed by signal {-code}, perhaps for want of memory" if code < 0 else f"ended with {code}"
        return f"{how}; {last}" if last else how

    def end(self) -> None:
        """Kill it, whatever it does."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.errors):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):  # a request that it died of
                pipe.close()


class Crew:
    """Workers that start together and end together: `with Crew(contenders) as crew`.

    `workers` are those still alive, by name; `lost` says why others are not.

    Args:
        contenders: dataclasses with a name each.
        start: makes a contender's worker, a process or several that answer as one.
    """

    def __init__(self, contenders: Sequence[Any], start: Callable[[Any], Any] = Worker) -> None:
        self.contenders, self.start = contenders, start
        self.workers: dict[str, Any] = {}
        self.lost: dict[str, str] = {}

    def __enter__(self) -> "Crew":
        try:
            for contender in self.contenders:
                self.workers[contender.name] = self.start(contender)
            for worker in list(self.workers.values()):
                try:
                    worker.read()
                except Gone as reason:
                    self._lose(worker, reason)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self.workers.values():
            worker.end()

    def ask(self, name: str, do: str, **request: Any) -> dict[str, Any] | None:
        """The answer of a worker, or None if it is gone, which is said once and kept in `lost`."""
        if name not in self.workers:
            return None
        try:
            return self.workers[name].ask(do, **request)
        except Gone as reason:
            self._lose(self.workers[name], reason)
            return None

    def _lose(self, worker: Any, reason: Gone) -> None:
        name = worker.contender.name
        self.lost[name] = f"{name} is left out: {reason}"
        print(self.lost[name], file=sys.stderr)
        del self.workers[name]
        worker.end()
