"""Several processes that train together on this machine, as their parent sees them: one worker of a Crew."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from crew import Worker

from ddpm_shared import launch
from ddpm_shared.config import Precision, Preset
from ddpm_shared.frameworks import FRAMEWORKS

Framework = Literal["torch", "tensorflow"]
PROCESS = Path(__file__).with_name("workers_process.py")


@dataclass(frozen=True)
class Team:
    """Processes of one framework, each with so many threads."""

    framework: Framework
    workers: int
    threads: int
    preset: Preset = "small"
    batch_size: int = 128
    precision: Precision = "fp32"

    @property
    def name(self) -> str:
        """E.g. "PyTorch, 2 processes of 1 thread"."""
        processes = f"{self.workers} process{'es' if self.workers > 1 else ''}"
        return f"{FRAMEWORKS[self.framework].title}, {processes} of {self.threads} thread{'s' * (self.threads > 1)}"


class Together:
    """A team's processes, which join each other and then answer as one, by the mouth of the first."""

    def __init__(self, team: Team) -> None:
        self.contender = team
        self.processes = [Worker(team, PROCESS, variables) for variables in launch.environments(team.workers)]

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """One request to all, and the first one's answer. Raises Gone if one of them died."""
        for process in self.processes:
            process.tell(do, **request)
        return self.read()

    def read(self) -> dict[str, Any]:
        """The next answer of all; the first one's is returned. Raises Gone if one of them died."""
        first, *_ = [process.read() for process in self.processes]
        return first

    def end(self) -> None:
        """Kill them, whatever they do."""
        for process in self.processes:
            process.end()
