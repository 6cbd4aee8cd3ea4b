"""The constants of the diffusion, one by one: at t near 0 and near T every digit of each is used."""

from functools import partial
from typing import get_args

from ddpm_parity.quantities import Arrays, Quantity, elementwise
from ddpm_parity.sides import Side
from ddpm_parity.tolerances import SCHEDULE, SCHEDULES
from ddpm_shared.config import DiffusionConfig, ScheduleName
from ddpm_shared.config.samplers import Spacing
from ddpm_shared.config.sampling import times

CONFIGS = {
    "T = 1000": DiffusionConfig(),
    "T = 50": DiffusionConfig(timesteps=50, beta_start=1e-3, beta_end=0.3),
}
# The whole family, (config, the times that are visited): by every formula, zero at the end, and in fewer steps.
FAMILY = {
    **{name: (DiffusionConfig(schedule=name), None) for name in get_args(ScheduleName)},
    **{
        f"{name}, zero terminal SNR": (DiffusionConfig(schedule=name, prediction="v", zero_terminal_snr=True), None)
        for name in get_args(ScheduleName)
    },
    "250 rescaled steps": (DiffusionConfig(timesteps=250, rescale_betas=True), None),
    **{f"35 steps, {spacing}": (DiffusionConfig(), times(1000, 35, spacing)) for spacing in get_args(Spacing)},
    "7 cosine steps": (DiffusionConfig(schedule="cosine"), times(1000, 7, "trailing")),
    "1 step": (DiffusionConfig(), times(1000, 1, "trailing")),
}
FIELDS = (
    "betas",
    "alphas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef_x_0",
    "posterior_mean_coef_x_t",
)


def _field(side: Side, name: str) -> Arrays:
    return {label: side.fields(config)[name] for label, config in CONFIGS.items()}


def _family(side: Side, names: tuple[str, ...]) -> Arrays:
    found = {label: side.fields(*case) for label, case in FAMILY.items()}
    return {f"{label}: {name}": fields[name] for label, fields in found.items() for name in names}


QUANTITIES = [
    *(Quantity("schedule", name, partial(_field, name=name), SCHEDULE, elementwise) for name in FIELDS),
    Quantity("schedule", "every formula, any steps: betas", partial(_family, names=FIELDS[:1]), SCHEDULES, elementwise),
    Quantity(
        "schedule", "every formula, any steps: the rest", partial(_family, names=FIELDS[1:]), SCHEDULES, elementwise
    ),
]
