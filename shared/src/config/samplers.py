"""The samplers by name, their properties, and how each process is sampled. The equations: samplers.py of a tree."""

from dataclasses import dataclass
from typing import Literal

from ddpm_shared.config.processes import PROCESS_FACTS, ProcessName

SamplerName = Literal[
    "ancestral",
    "ddim",
    "plms",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "heun",
    "euler",
    "heun_t",
    "rk4",
    "euler_maruyama",
    "pc",
]
Spacing = Literal["linspace", "leading", "trailing"]
Grid = Literal["uniform", "log_snr", "karras", "shifted"]


@dataclass(frozen=True)
class SamplerFacts:
    """The properties of a sampler, besides its equations."""

    title: str
    steps: int | None  # the default; None: as many as the model was trained with
    order: int  # of convergence in the size of a step; in distribution where it draws noise; 0: it does not converge
    noisy: bool  # whether it draws noise on the way (ddim: with eta above 0; heun: with churn)
    evaluations: int = 1  # of the network per step
    over: str = "levels"  # what it integrates over
    processes: tuple[ProcessName, ...] = tuple(PROCESS_FACTS)  # those that it takes


CONTINUOUS: tuple[ProcessName, ...] = ("vp", "sub_vp", "ve", "ve_exponential", "edm", "flow")
SDES: tuple[ProcessName, ...] = ("vp", "sub_vp", "ve", "ve_exponential", "edm")  # g of flow is infinite at t = 1

SAMPLER_FACTS: dict[SamplerName, SamplerFacts] = {
    "ancestral": SamplerFacts("Ancestral (DDPM)", None, 1, noisy=True, over="the posterior of each step"),
    "ddim": SamplerFacts("DDIM", 50, 1, noisy=False, over="sigma / alpha"),
    "plms": SamplerFacts("PLMS (PNDM)", 50, 2, noisy=False, over="sigma / alpha"),
    "dpmpp_2m": SamplerFacts("DPM-Solver++(2M)", 20, 2, noisy=False, over="log(alpha / sigma)"),
    "dpmpp_2m_sde": SamplerFacts("SDE-DPM-Solver++(2M)", 20, 2, noisy=True, over="log(alpha / sigma)"),
    "heun": SamplerFacts("Heun", 20, 2, noisy=False, evaluations=2, over="sigma / alpha"),
    "euler": SamplerFacts("Euler in t", 50, 1, noisy=False, over="t", processes=CONTINUOUS),
    "heun_t": SamplerFacts("Heun in t", 20, 2, noisy=False, evaluations=2, over="t", processes=CONTINUOUS),
    "rk4": SamplerFacts("Runge-Kutta 4 in t", 10, 4, noisy=False, evaluations=4, over="t", processes=CONTINUOUS),
    "euler_maruyama": SamplerFacts("Euler-Maruyama", 250, 1, noisy=True, over="t, the reverse SDE", processes=SDES),
    "pc": SamplerFacts(
        "Predictor-corrector", 250, 0, noisy=True, evaluations=2, over="t, the reverse SDE", processes=SDES
    ),
}


def deterministic() -> list[SamplerName]:
    """The samplers that draw no noise on the way: x_T alone decides the image."""
    return [name for name, facts in SAMPLER_FACTS.items() if not facts.noisy]


# What a process brings to sampling: the sampler and the grid.
PROCESS_SAMPLING: dict[ProcessName, tuple[SamplerName, Grid]] = {
    "ddpm": ("ancestral", "uniform"),
    "vp": ("dpmpp_2m_sde", "log_snr"),
    "sub_vp": ("heun", "log_snr"),
    "ve": ("dpmpp_2m_sde", "karras"),
    "ve_exponential": ("euler_maruyama", "uniform"),
    "edm": ("heun", "karras"),
    "flow": ("euler", "shifted"),
}
