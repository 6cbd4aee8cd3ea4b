"""What stands in a cell of the solver table: a solver in a process, with so many evaluations of the network."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ddpm_shared.config.processes import ProcessName
from ddpm_shared.config.samplers import PROCESS_SAMPLING, SAMPLER_FACTS, Grid, SamplerName
from ddpm_shared.config.sampling import Sampling

Record = dict[str, Any]
Framework = Literal["torch", "tf"]

TITLES: dict[Framework, str] = {"torch": "PyTorch", "tf": "TensorFlow"}
COLUMNS: tuple[ProcessName, ...] = ("ddpm", "vp", "ve", "edm", "flow")
EVALUATIONS = (10, 20, 50, 100)
SOLVERS = get_args(SamplerName)

# N steps evaluate the network N times what SAMPLER_FACTS says, and so many times more: the first step of plms is one of
# Heun's, and the last step of those that look ahead, to the clean image, has nothing to look at.
MORE: dict[SamplerName, int] = {"plms": 1, "heun": -1, "heun_t": -1, "rk4": -3}
PURE_NOISE: tuple[Grid, ...] = ("uniform", "shifted")  # the grids that begin at t = 1, where flow has no signal


@dataclass(frozen=True)
class Cell:
    """What one set of images is drawn by."""

    framework: Framework
    process: ProcessName
    sampler: SamplerName
    grid: Grid | None  # None: the whole times of ddpm
    budget: int  # evaluations of the network for an image, at most

    @property
    def name(self) -> str:
        """Its files."""
        return "-".join(
            [self.framework, self.process, self.sampler, *([self.grid] if self.grid else []), str(self.budget)]
        )

    def cost(self, steps: int) -> int:
        """Evaluations of the network in so many steps."""
        facts, more = SAMPLER_FACTS[self.sampler], MORE.get(self.sampler, 0)
        # In pure noise a step along eps is one of DDIM, for x_0 cannot be had from eps.
        if self.process == "flow" and self.grid in PURE_NOISE and self.sampler in ("heun", "plms") and steps > 1:
            more -= 1
        if self.sampler == "plms" and steps == 1:
            more -= 1
        return facts.evaluations * steps + more

    @property
    def steps(self) -> int:
        """As many as the budget allows; 0 where it allows none."""
        return max((n for n in range(1, self.budget + 2) if self.cost(n) <= self.budget), default=0)

    @property
    def sampling(self) -> Sampling:
        """How it is drawn: all other options are the defaults."""
        return Sampling(self.sampler, steps=self.steps, grid=self.grid)


def cells_of(
    framework: Framework,
    processes: Iterable[ProcessName],
    samplers: Iterable[SamplerName],
    budgets: Iterable[int],
    grids: Iterable[Grid],
) -> list[Cell]:
    """All cells that can be drawn: process by process, and in each those of small budgets first.

    Args:
        framework: whose samplers.
        processes: the columns.
        samplers: the rows.
        budgets: numbers of evaluations.
        grids: to draw with beside the default of each process; ddpm has none.
    """
    cells = []
    for process, budget, sampler in itertools.product(processes, sorted(budgets), samplers):
        if process not in SAMPLER_FACTS[sampler].processes:
            continue
        tried = dict.fromkeys([None] if process == "ddpm" else [PROCESS_SAMPLING[process][1], *grids])
        found = [Cell(framework, process, sampler, grid, budget) for grid in tried]
        cells += [cell for cell in found if cell.steps > 0 and not (cell.process == "edm" and cell.grid == "shifted")]
    return list(dict.fromkeys(cells))


def seconds_left(cells: Iterable[Cell], images: int, rate: float) -> float:
    """How long it takes to draw them, at `rate` evaluations a second."""
    return images * sum(cell.cost(cell.steps) for cell in cells) / rate
