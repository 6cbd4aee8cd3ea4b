"""The diffusion processes by name, and the settings that come with each. The equations: processes.py of a tree."""

from dataclasses import dataclass
from typing import Any, Literal

ProcessName = Literal["ddpm", "vp", "sub_vp", "ve", "ve_exponential", "edm", "flow"]

TRAINING_FIRST = 1e-5  # the smallest t of training in a process whose time goes from 0 to 1: at 0 there is no noise


@dataclass(frozen=True)
class ProcessFacts:
    """The properties of a process, besides its equations."""

    title: str
    first: float = 1e-3  # the smallest t of sampling, where that is no setting
    settings: tuple[tuple[str, Any], ...] = ()  # what --process sets beside the process, by name


def _with(**settings: Any) -> tuple[tuple[str, Any], ...]:
    return tuple(settings.items())


# time_scale takes a time from 0 to 1 to the range that the embedding of the U-Net is made for.
PROCESS_FACTS: dict[ProcessName, ProcessFacts] = {
    "ddpm": ProcessFacts("DDPM"),
    "vp": ProcessFacts("VP SDE", settings=_with(time_scale=999.0)),
    "sub_vp": ProcessFacts("sub-VP SDE", settings=_with(time_scale=999.0)),
    "ve": ProcessFacts(
        "VE SDE",
        first=1e-5,
        settings=_with(
            prediction="score",
            preconditioning="score_sde",
            loss_weighting="noise",
            time_scale=999.0,
            sigma_min=0.01,
            sigma_max=50.0,
        ),
    ),
    "ve_exponential": ProcessFacts(
        "VE SDE, g = s^t",
        settings=_with(
            prediction="score",
            preconditioning="score_sde",
            loss_weighting="noise",
            time_scale=999.0,
            sigma_max=50.0,
        ),
    ),
    "edm": ProcessFacts(
        "EDM",
        settings=_with(
            prediction="x_0",
            preconditioning="edm",
            loss_weighting="edm",
            time_density="log_normal",
            density_mean=-1.2,
            density_deviation=1.2,
            sigma_min=0.002,
            sigma_max=80.0,
        ),
    ),
    "flow": ProcessFacts(
        "Flow matching",
        settings=_with(
            prediction="velocity",
            time_density="logit_normal",
            density_mean=0.0,
            density_deviation=1.0,
            time_scale=999.0,
        ),
    ),
}
