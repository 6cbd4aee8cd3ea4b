"""Settings of sampling: the samplers by name, and the times that they visit. The equations: samplers.py of a tree."""

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, get_args

import numpy as np
import tyro
from numpy.typing import NDArray

from ddpm_shared.config.checks import is_real, require, whole
from ddpm_shared.config.diffusion import TIMESTEPS
from ddpm_shared.config.help import default_is
from ddpm_shared.errors import UserError, choice

SamplerName = Literal["ancestral", "ddim", "plms", "dpmpp_2m", "dpmpp_2m_sde", "heun"]
Spacing = Literal["linspace", "leading", "trailing"]

GUIDANCE = 1000.0  # images are noise long before


@dataclass(frozen=True)
class SamplerFacts:
    """The properties of a sampler, besides its equations."""

    title: str
    steps: int | None  # the default; None: as many as the model was trained with
    order: int  # of convergence in the size of a step; in distribution where it draws noise
    noisy: bool  # whether it draws noise on the way (ddim: with eta above 0)
    evaluations: int = 1  # of the network per step


SAMPLER_FACTS: dict[SamplerName, SamplerFacts] = {
    "ancestral": SamplerFacts("Ancestral (DDPM)", None, 1, noisy=True),
    "ddim": SamplerFacts("DDIM", 50, 1, noisy=False),
    "plms": SamplerFacts("PLMS (PNDM)", 50, 2, noisy=False),
    "dpmpp_2m": SamplerFacts("DPM-Solver++(2M)", 20, 2, noisy=False),
    "dpmpp_2m_sde": SamplerFacts("SDE-DPM-Solver++(2M)", 20, 2, noisy=True),
    "heun": SamplerFacts("Heun", 20, 2, noisy=False, evaluations=2),
}


def deterministic() -> list[SamplerName]:
    """The samplers that draw no noise on the way: x_T alone decides the image."""
    return [name for name, facts in SAMPLER_FACTS.items() if not facts.noisy]


def _default_steps() -> str:
    """The samplers' own numbers of steps, for `--help`."""
    numbers = dict.fromkeys(facts.steps for facts in SAMPLER_FACTS.values())
    names = {steps: [name for name, facts in SAMPLER_FACTS.items() if facts.steps == steps] for steps in numbers}
    return "; ".join(f"{steps or 'as in training'} for {', '.join(names[steps])}" for steps in numbers)


SamplerFlag = Annotated[
    SamplerName,
    tyro.conf.arg(help=f"Sampling algorithm. Those that draw no noise on the way: {', '.join(deterministic())}."),
]
SpacingFlag = Annotated[
    Spacing,
    tyro.conf.arg(
        help="Times that fewer than T steps visit: evenly from 0 to T - 1 (linspace), the first time of each interval "
        "(leading), or the last of each (trailing)."
    ),
]


@dataclass(frozen=True)
class Sampling:
    """Settings of the sampling: how images are drawn from noise."""

    sampler: SamplerFlag = "ancestral"
    steps: Annotated[int | None, default_is(_default_steps())] = None
    """Number of steps."""
    eta: float = 0.0
    """Noise of ddim, 0 to 1: 0 is deterministic, 1 is ancestral sampling."""
    spacing: SpacingFlag = "trailing"
    clip_x_0: bool = True
    """Clip the predicted x_0 to [-1, 1] at every step."""
    dynamic_threshold: Annotated[float | None, default_is("off")] = None
    """Quantile of |x_0|, e.g. 0.995. Where it is above 1, each predicted x_0 is clipped there and divided by it."""
    guidance: float = 1.0
    """Scale of classifier-free guidance: 1 is the conditional prediction, 0 the unconditional one, more exaggerates."""
    guidance_from: int = 0
    """First t at which guidance acts. Outside of its interval the prediction is the conditional one."""
    guidance_to: Annotated[int | None, default_is("the last")] = None
    """Last t at which guidance acts."""

    def __post_init__(self) -> None:
        choice("sampler", self.sampler, get_args(SamplerName))
        choice("spacing", self.spacing, get_args(Spacing))
        whole(self, "steps")
        require(is_real(self.eta) and 0 <= self.eta <= 1, "--eta", self.eta, "must be in [0, 1]")
        require(
            self.eta == 0 or self.sampler == "ddim", "--eta", self.eta, f"is an option of ddim, not of {self.sampler}"
        )
        threshold = self.dynamic_threshold
        require(threshold is None or 0 < threshold <= 1, "--dynamic-threshold", threshold, "must be in (0, 1]")
        require(
            is_real(self.guidance) and 0 <= self.guidance <= GUIDANCE,
            "--guidance",
            self.guidance,
            f"must be 0 (unconditional), 1 (conditional), or any other number up to {GUIDANCE:g}",
        )
        whole(self, "guidance_from", "guidance_to", least=0, most=TIMESTEPS)
        require(
            self.guided or (self.guidance_from == 0 and self.guidance_to is None),
            "--guidance-from, --guidance-to",
            (self.guidance_from, self.guidance_to),
            "are the interval of --guidance: add that flag, with another scale than 1",
        )
        require(
            self.guidance_to is None or self.guidance_from <= self.guidance_to,
            "--guidance-from, --guidance-to",
            (self.guidance_from, self.guidance_to),
            "must be the first and the last t of an interval",
        )

    @property
    def noisy(self) -> bool:
        """Whether x_T alone does not decide the image."""
        return SAMPLER_FACTS[self.sampler].noisy or self.eta > 0

    @property
    def guided(self) -> bool:
        """Whether the prediction is another than the conditional one, at any t."""
        return self.guidance != 1.0

    def guidance_at(self, t: int) -> float:
        """The scale of guidance at time t: 1, the conditional prediction, outside of the interval.

        Source: Kynkaanniemi et al. 2024 (arXiv:2404.07724), section 3.
        """
        within = self.guidance_from <= t and (self.guidance_to is None or t <= self.guidance_to)
        return self.guidance if within else 1.0

    @property
    def options(self) -> dict[str, Any]:
        """The arguments of this sampler that others lack."""
        return {"eta": self.eta} if self.sampler == "ddim" else {}

    def resolved(self, timesteps: int) -> "Sampling":
        """The same with `steps` filled in, for a process of `timesteps` steps. Raises UserError for more than these."""
        steps = self.steps or min(SAMPLER_FACTS[self.sampler].steps or timesteps, timesteps)
        require(
            steps <= timesteps, "--steps", steps, f"must be at most the {timesteps} that the model was trained with"
        )
        require(
            self.guidance_from < timesteps, "--guidance-from", self.guidance_from, f"t goes up to {timesteps - 1} only"
        )
        return replace(self, steps=steps)

    def times(self, timesteps: int) -> list[int]:
        """The times that the steps visit, ascending; see `times` below."""
        return times(timesteps, self.resolved(timesteps).steps or 0, self.spacing)


@dataclass(frozen=True, eq=False)
class Draw:
    """Which images to draw in one batch: image i of a seed is the same in every batch."""

    seed: int
    first: int  # index of the first image
    count: int
    columns: int | None = None  # instead of noise of their own, each so many images lie between two noises
    labels: NDArray[np.generic] | None = None  # [count] classes, or [count, classes + 1] weights of labels; None: none
    same_noise: int = 1  # so many images in a row have the noise of one


QUICK = Sampling("dpmpp_2m_sde")  # the best images of few steps: docs/samplers.md


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
    visited: NDArray[np.generic]
    if spacing == "linspace":
        visited = np.linspace(0, timesteps - 1, steps).round() if steps > 1 else np.array([timesteps - 1])
    elif spacing == "leading":
        visited = np.arange(steps) * (timesteps // steps)
    else:
        visited = np.round(np.arange(timesteps, 0, -timesteps / steps))[:steps][::-1] - 1
    return [int(t) for t in visited]
