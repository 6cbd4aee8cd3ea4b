"""The samplers by name, what each takes, and the times that it visits. Their mathematics is each tree's samplers.py."""

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ddpm_shared.config import require
from ddpm_shared.errors import UserError, choice

SamplerName = Literal["ancestral", "ddim", "plms", "dpmpp_2m", "dpmpp_2m_sde", "heun"]
Spacing = Literal["linspace", "leading", "trailing"]


@dataclass(frozen=True)
class SamplerKind:
    """What is to be known of a sampler besides its equations."""

    title: str
    steps: int | None  # what it takes unless told otherwise; None: as many as the model was trained with
    order: int  # of its error in the size of a step; of the distribution where it draws noise
    noisy: bool  # whether it draws noise on the way (ddim: with eta above 0)
    evaluations: int = 1  # of the network, a step


SAMPLERS: dict[SamplerName, SamplerKind] = {
    "ancestral": SamplerKind("Ancestral (DDPM)", None, 1, noisy=True),
    "ddim": SamplerKind("DDIM", 50, 1, noisy=False),
    "plms": SamplerKind("PLMS (PNDM)", 50, 2, noisy=False),
    "dpmpp_2m": SamplerKind("DPM-Solver++(2M)", 20, 2, noisy=False),
    "dpmpp_2m_sde": SamplerKind("SDE-DPM-Solver++(2M)", 20, 2, noisy=True),
    "heun": SamplerKind("Heun", 20, 2, noisy=False, evaluations=2),
}


@dataclass(frozen=True)
class Sampling:
    """How to go from noise to an image."""

    sampler: SamplerName = "ancestral"
    """The sampling algorithm."""
    steps: int | None = None
    """Sampling steps (default: ancestral as many as the model was trained with, ddim and plms 50, the others 20)."""
    eta: float = 0.0
    """Noise of ddim: 0 is deterministic, 1 is ancestral sampling."""
    spacing: Spacing = "trailing"
    """Which of the T times fewer steps visit: both ends, the first of each interval, or the last of each."""
    clip_x_0: bool = True
    """Clip the predicted x_0 to [-1, 1] at every step."""
    dynamic_threshold: float | None = None
    """Instead, clip to that quantile of |x_0| in each image if it is above 1, and divide by it: e.g. 0.995."""

    def __post_init__(self) -> None:
        choice("sampler", self.sampler, get_args(SamplerName))
        choice("spacing", self.spacing, get_args(Spacing))
        require(self.steps is None or self.steps >= 1, "--steps", self.steps, "must be 1 or more")
        require(0 <= self.eta <= 1, "--eta", self.eta, "must be in [0, 1]")
        require(self.eta == 0 or self.sampler == "ddim", "--eta", self.eta, f"is for ddim, and not for {self.sampler}")
        threshold = self.dynamic_threshold
        require(threshold is None or 0 < threshold <= 1, "--dynamic-threshold", threshold, "must be in (0, 1]")

    @property
    def noisy(self) -> bool:
        """Whether x_T alone does not decide the image."""
        return SAMPLERS[self.sampler].noisy or self.eta > 0

    @property
    def options(self) -> dict[str, Any]:
        """The arguments of this sampler that others lack."""
        return {"eta": self.eta} if self.sampler == "ddim" else {}

    def over(self, timesteps: int) -> "Sampling":
        """The same with `steps` filled in, for a process of `timesteps` steps. Raises UserError for more than these."""
        steps = self.steps or min(SAMPLERS[self.sampler].steps or timesteps, timesteps)
        require(
            steps <= timesteps, "--steps", steps, f"must be at most the {timesteps} that the model was trained with"
        )
        return replace(self, steps=steps)

    def times(self, timesteps: int) -> list[int]:
        """The times visited, ascending. See `times`."""
        return times(timesteps, self.over(timesteps).steps or 0, self.spacing)


QUICK = Sampling("dpmpp_2m_sde")  # the best images of few steps: docs/samplers.md


def quiet() -> list[SamplerName]:
    """The samplers whose image x_T alone decides."""
    return [name for name, kind in SAMPLERS.items() if not kind.noisy]


def times(timesteps: int, steps: int, spacing: Spacing) -> list[int]:
    """`steps` of the times 0 .. timesteps - 1, ascending.

    Of T = 1000 and 4 steps: linspace 0, 333, 666, 999; leading 0, 250, 500, 750; trailing 249, 499, 749, 999. Where
    `steps` does not divide T, leading leaves out more of the end, and trailing rounds.

    Raises:
        UserError: more steps than times, or none.

    Source: Lin et al. 2024 (arXiv:2305.08891), table 2.
    """
    if not 1 <= steps <= timesteps:
        raise UserError(f"steps must be 1 to {timesteps}, got {steps}")
    found: NDArray[np.generic]
    if spacing == "linspace":
        found = np.linspace(0, timesteps - 1, steps).round() if steps > 1 else np.array([timesteps - 1])
    elif spacing == "leading":
        found = np.arange(steps) * (timesteps // steps)
    else:
        found = np.round(np.arange(timesteps, 0, -timesteps / steps))[:steps][::-1] - 1
    return [int(t) for t in found]
