"""The constants of the diffusion, one by one: at t near 0 and near T every digit of each is used."""

from functools import partial

from ddpm_parity.quantities import Arrays, Quantity, elementwise
from ddpm_parity.sides import Side
from ddpm_parity.tolerances import SCHEDULE
from ddpm_shared.config import DiffusionConfig

CONFIGS = {
    "T = 1000": DiffusionConfig(),
    "T = 50": DiffusionConfig(timesteps=50, beta_start=1e-3, beta_end=0.3),
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


QUANTITIES = [Quantity("schedule", name, partial(_field, name=name), SCHEDULE, elementwise) for name in FIELDS]
