"""Settings of sampling: the samplers by name, and the times that they visit. The equations: samplers.py of a tree."""

from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, get_args

import numpy as np
import tyro
from numpy.typing import NDArray

from ddpm_shared.config.checks import between, flag, is_real, require, whole
from ddpm_shared.config.diffusion import FACTORS, SIGMAS, TIMESTEPS, DiffusionConfig
from ddpm_shared.config.help import default_is
from ddpm_shared.config.processes import ProcessName
from ddpm_shared.config.samplers import (
    PROCESS_SAMPLING,
    SAMPLER_FACTS,
    Grid,
    SamplerName,
    Spacing,
    deterministic,
)
from ddpm_shared.errors import UserError, choice

GUIDANCE = 1000.0  # images are noise long before
CORRECTOR_STEPS = 1000


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


GridFlag = Annotated[
    Grid | None,
    tyro.conf.arg(
        help="Times that the steps visit, where time is continuous: evenly in t (uniform), in log-SNR (log_snr), in "
        "(sigma / alpha)^(1/rho) (karras), or evenly in t and then shifted to noise (shifted).",
        help_behavior_hint="(default: that of the process)",
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
    process: Annotated[ProcessName | None, default_is("that of the network")] = None
    """Process to draw in. In another than its own, the network is evaluated at the t with the same log-SNR."""
    grid: GridFlag = None
    rho: float = 7.0
    """Exponent of the karras grid: more of the steps are at little noise."""
    shift: float = 1.0
    """Shift of the shifted grid, s: t = s u / (1 + (s - 1) u), u = 1/N, 2/N .. 1."""
    churn: float = 0.0
    """Noise that heun adds and takes away again, S_churn of EDM: 0 is deterministic."""
    churn_from: float = 0.0
    """Smallest sigma / alpha at which it does so, S_tmin."""
    churn_to: Annotated[float | None, default_is("no limit")] = None
    """Largest sigma / alpha at which it does so, S_tmax."""
    churn_noise: float = 1.0
    """Standard deviation of that noise, S_noise."""
    corrector_steps: int = 1
    """Steps of the corrector of pc at each level."""
    corrector_snr: float = 0.16
    """Ratio of signal to noise in a step of the corrector, r."""
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
        self._check_continuous()
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

    def _check_continuous(self) -> None:
        if self.process is not None:
            choice("process", self.process, get_args(ProcessName))
        if self.grid is not None:
            choice("grid", self.grid, get_args(Grid))
        between(self, *FACTORS, "shift", "churn_noise", "corrector_snr")
        between(self, 0.1, 1000.0, "rho")
        between(self, 0.0, SIGMAS[1], "churn", "churn_from", "churn_to")
        whole(self, "corrector_steps", most=CORRECTOR_STEPS)
        only = {"churn": "heun", "churn_from": "heun", "churn_to": "heun", "churn_noise": "heun"}
        only |= {"corrector_steps": "pc", "corrector_snr": "pc"}
        for name, sampler in only.items():
            value = getattr(self, name)
            default = type(self).__dataclass_fields__[name].default
            require(
                value == default or self.sampler == sampler,
                flag(name),
                value,
                f"is an option of {sampler}, not of {self.sampler}",
            )

    @property
    def noisy(self) -> bool:
        """Whether x_T alone does not decide the image."""
        return SAMPLER_FACTS[self.sampler].noisy or self.eta > 0 or self.churn > 0

    @property
    def guided(self) -> bool:
        """Whether the prediction is another than the conditional one, at any t."""
        return self.guidance != 1.0

    def guidance_at(self, t: float) -> float:
        """The scale of guidance at time t: 1, the conditional prediction, outside of the interval.

        Source: Kynkaanniemi et al. 2024 (arXiv:2404.07724), section 3.
        """
        within = self.guidance_from <= t and (self.guidance_to is None or t <= self.guidance_to)
        return self.guidance if within else 1.0

    @property
    def options(self) -> dict[str, Any]:
        """The arguments of this sampler that others lack."""
        names = {
            "ddim": ("eta",),
            "heun": ("churn_noise",),
            "pc": ("corrector_steps", "corrector_snr"),
        }
        return {name: getattr(self, name) for name in names.get(self.sampler, ())}

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

    def resolved_for(self, diffusion: DiffusionConfig) -> "Sampling":
        """The same with all that the network's process decides filled in: process, grid and steps.

        Args:
            diffusion: the process that the network was trained on.

        Raises:
            UserError: a sampler, a grid or an option that does not go with the process.
        """
        process, facts = self.process or diffusion.process, SAMPLER_FACTS[self.sampler]
        require(
            process in facts.processes,
            f"--sampler {self.sampler} with --process",
            process,
            f"it integrates over {facts.over}, and takes {', '.join(facts.processes)}",
        )
        if diffusion.process == "ddpm":
            self._check_whole_times()
            return replace(self.resolved(diffusion.timesteps), process=process)
        require(process != "ddpm", "--process", process, f"the network was trained in {diffusion.process}")
        grid = self.grid or PROCESS_SAMPLING[process][1]
        self._check_real_times(diffusion.process, process, grid)
        return replace(self, process=process, grid=grid, steps=self.steps or facts.steps or diffusion.timesteps)

    def _check_whole_times(self) -> None:
        """What does not go with a network that was trained at whole times."""
        between = "it evaluates the network between the times of the steps, and this one was trained at whole times"
        whole = "the network was trained at whole times, which --spacing chooses: leave it out"
        require(SAMPLER_FACTS[self.sampler].evaluations < 4, "--sampler", self.sampler, between)
        require(self.churn == 0, "--churn", self.churn, between)
        require(self.grid is None, "--grid", self.grid, whole)
        for name, default in (("rho", 7.0), ("shift", 1.0)):
            require(getattr(self, name) == default, flag(name), getattr(self, name), whole)

    def _check_real_times(self, trained: ProcessName, process: ProcessName, grid: Grid) -> None:
        """What does not go with a network that was trained at times that are not whole."""
        require(
            self.spacing == "trailing",
            "--spacing",
            self.spacing,
            f"is for the whole times of ddpm; with {process} take --grid",
        )
        require(
            self.guidance_from == 0 and self.guidance_to is None,
            "--guidance-from, --guidance-to",
            (self.guidance_from, self.guidance_to),
            f"are whole times of ddpm, and the network was trained in {trained}",
        )
        require(
            grid != "shifted" or process != "edm",
            "--grid shifted with --process",
            process,
            "it is for times from 0 to 1, and t of edm is a deviation",
        )
        for name, default, user in (("rho", 7.0, "karras"), ("shift", 1.0, "shifted")):
            require(
                getattr(self, name) == default or grid == user,
                flag(name),
                getattr(self, name),
                f"is an option of --grid {user}, and {process} has {grid} here: add that flag",
            )

    def stated(self, diffusion: DiffusionConfig) -> dict[str, Any]:
        """The settings by name, without those that later versions brought and that change nothing here."""
        default = Sampling().resolved_for(diffusion)
        return {
            name: value
            for name, value in asdict(self).items()
            if name not in LATER_OF_SAMPLING or value != getattr(default, name)
        }

    def times(self, timesteps: int) -> list[int]:
        """The times that the steps visit, ascending; see `times` below."""
        return times(timesteps, self.resolved(timesteps).steps or 0, self.spacing)


LATER_OF_SAMPLING = {
    "process",
    "grid",
    "rho",
    "shift",
    "churn",
    "churn_from",
    "churn_to",
    "churn_noise",
    "corrector_steps",
    "corrector_snr",
}


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


def quick(diffusion: DiffusionConfig) -> Sampling:
    """How a training run draws its pictures: as the process of its network is drawn by default, in few steps."""
    sampling = QUICK if diffusion.process == "ddpm" else Sampling(PROCESS_SAMPLING[diffusion.process][0])
    return sampling.resolved_for(diffusion)


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
