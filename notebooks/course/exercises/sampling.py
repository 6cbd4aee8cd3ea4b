"""The exercises of 05: sampling."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ddpm_course.exercises.checking import column, compare, exercise
from ddpm_shared.config import DiffusionConfig
from ddpm_shared.config import sampling as sampling_config
from ddpm_shared.oracle import diffusion
from ddpm_shared.oracle import processes as oracle_processes
from ddpm_shared.oracle import samplers as oracle_samplers
from ddpm_shared.oracle.prediction import Predicted

SCHEDULE = diffusion.make_schedule(DiffusionConfig())
ALPHAS_CUMPROD = SCHEDULE["alphas_cumprod"]


@exercise
def visited(answer: Callable[..., Any]) -> None:
    """(timesteps, steps) -> the times of trailing spacing, ascending, where steps divides timesteps."""
    for timesteps, steps in ((1000, 4), (1000, 50), (60, 5)):
        right = np.array(sampling_config.times(timesteps, steps, "trailing"))
        compare(
            answer(timesteps, steps),
            right,
            {
                "the end of the chain is asked for first here: return the times ascending": right[::-1],
                "t is 0-based: the last time is timesteps - 1": right + 1,
                "these are the first of each part, which is leading: the chain would not begin at pure noise": (
                    sampling_config.times(timesteps, steps, "leading")
                ),
                "that is linspace, with both ends: trailing takes the last of each of `steps` equal parts": (
                    sampling_config.times(timesteps, steps, "linspace")
                ),
                "these are the last times only: each of `steps` equal parts has one": np.arange(
                    timesteps - steps, timesteps
                ),
            },
        )


@exercise
def p_sample(answer: Callable[..., Any]) -> None:
    """(schedule, x_t [B, H, W, C], t [B], z, eps_pred) -> x_prev: Ho et al. 2020, algorithm 2, clipped."""
    rng = np.random.default_rng(0)
    x_0, eps = rng.uniform(-1, 1, (5, 4, 3, 1)), rng.standard_normal((5, 4, 3, 1))
    t = np.array([0, 2, 40, 500, 999])
    x_t = diffusion.q_sample(SCHEDULE, x_0, t, eps)
    eps_pred, z = eps + 0.3 * rng.standard_normal(eps.shape), rng.standard_normal(eps.shape)
    right, free = (
        diffusion.p_sample(SCHEDULE, lambda x_t, t: eps_pred, x_t, t, z, clip_x_0) for clip_x_0 in (True, False)
    )
    mean = diffusion.p_sample(SCHEDULE, lambda x_t, t: eps_pred, x_t, t, np.zeros_like(z))
    log_variance = SCHEDULE["posterior_log_variance_clipped"]
    later = column(t > 0)

    def with_noise(deviation: Any) -> Any:
        return mean + later * column(deviation) * z

    compare(
        answer({name: values.copy() for name, values in SCHEDULE.items()}, x_t, t, z, eps_pred),
        right,
        {
            "only t = 0 is wrong: no z there, the image is finished": mean + column(np.exp(log_variance[t] / 2)) * z,
            "z is multiplied by a standard deviation, which is the root of the variance": with_noise(
                SCHEDULE["posterior_variance"][t]
            ),
            "x_0 is not clipped to [-1, 1]": free,
            "the variance is that of the step before: take it at t, as all else": with_noise(
                np.exp(log_variance[t - 1] / 2)
            ),
            "the variance is that of the step after: take it at t, as all else": with_noise(
                np.exp(log_variance[np.minimum(t + 1, len(log_variance) - 1)] / 2)
            ),
            "the variance is beta (fixed_large in the package): asked for is the posterior's, which is smaller": (
                with_noise(np.sqrt(SCHEDULE["betas"][t]))
            ),
            "z is missing: this is the mean": mean,
        },
    )


@exercise
def ddim_step(answer: Callable[..., Any]) -> None:
    """(alphas_cumprod [T], x_t [B, H, W, C], t, s, eps_pred) -> x_s at the earlier time s, or x_0 if s is -1."""
    rng = np.random.default_rng(1)
    x_0, eps = rng.uniform(-1, 1, (2, 4, 3, 1)), rng.standard_normal((2, 4, 3, 1))
    for t, s in ((999, 749), (500, 300), (300, 200), (249, -1)):
        at = np.full(len(x_0), t)
        x_t = diffusion.q_sample(SCHEDULE, x_0, at, eps)
        eps_pred = eps + 0.3 * rng.standard_normal(eps.shape)
        signal, sigma = np.sqrt(ALPHAS_CUMPROD[t]), np.sqrt(1 - ALPHAS_CUMPROD[t])
        unclipped = diffusion.predict_x_0(SCHEDULE, x_t, at, eps_pred)
        clipped = np.clip(unclipped, -1, 1)
        left = (x_t - signal * clipped) / sigma

        def ends(x_0: Any = clipped, eps: Any = left, *, t: int = t, s: int = s, x_t: Any = x_t) -> Any:
            """Where a step of the oracle leads with this x_0 and eps."""
            levels = oracle_processes.make_levels(DiffusionConfig(), [t] if s < 0 else [s, t])
            predicted = Predicted(x_0, eps, np.zeros((1, 1, 1, 1)))
            return next(oracle_samplers.ddim(levels, lambda x, i: predicted, x_t, lambda i: x_t))[1]

        now = ALPHAS_CUMPROD[s] if s >= 0 else 1.0
        compare(
            answer(ALPHAS_CUMPROD, x_t, t, s, eps_pred),
            ends(),
            {
                "x_0 is clipped, but eps is still the network's: take what is left of x_t, (x_t - sqrt(alphas_cumprod) "
                "x_0) / sqrt(1 - alphas_cumprod)": ends(eps=eps_pred),
                "x_0 is not clipped to [-1, 1]": ends(unclipped, eps_pred),
                "that is where t - 1 is: the step goes to s, over all times between": ends(s=t - 1),
                "only the last step is wrong: alphas_cumprod[-1] is the last one in NumPy, and the image has 1": (
                    np.sqrt(ALPHAS_CUMPROD[s]) * clipped + np.sqrt(1 - ALPHAS_CUMPROD[s]) * left
                ),
                "the roots are missing where you noise again": now * clipped + (1 - now) * left,
                "you noise again to t, where you came from: that is x_t": x_t,
                "that mixes x_t, not x_0: first solve for the image, then noise it to s": np.sqrt(now) * x_t
                + np.sqrt(1 - now) * eps_pred,
            },
        )
