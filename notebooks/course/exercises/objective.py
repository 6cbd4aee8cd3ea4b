"""The exercises of 03: the objective."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ddpm_course.exercises.checking import column, compare, exercise
from ddpm_shared.config import DiffusionConfig
from ddpm_shared.oracle import diffusion
from ddpm_shared.oracle.bound import gaussian_divergence

SCHEDULE = diffusion.make_schedule(DiffusionConfig())
BETAS, ALPHAS_CUMPROD = SCHEDULE["betas"], SCHEDULE["alphas_cumprod"]


@exercise
def kl(answer: Callable[..., Any]) -> None:
    """(mean_1, variance_1, mean_2, variance_2), each [N] -> KL(N_1 || N_2) [N], in nats."""
    mean_1, variance_1 = np.array([0.0, 0.5, -1.0, 2.0]), np.array([1.0, 0.2, 3.0, 0.7])
    mean_2, variance_2 = np.array([0.0, 0.7, 1.5, 1.0]), np.array([2.0, 0.5, 0.4, 0.6])
    r, square = variance_1 / variance_2, (mean_1 - mean_2) ** 2
    right = gaussian_divergence(mean_1, variance_1, mean_2, variance_2)
    compare(
        answer(mean_1, variance_1, mean_2, variance_2),
        right,
        {
            "that is KL(N_2 || N_1): the two have changed places, and a KL is not symmetric": gaussian_divergence(
                mean_2, variance_2, mean_1, variance_1
            ),
            "that is twice too large: the half stands before the whole bracket": 2 * right,
            "that is the formula for equal variances: the terms of r are missing": square / (2 * variance_2),
            "the squared distance is divided by the second variance, not by the first": (
                r - 1 - np.log(r) + square / variance_1
            )
            / 2,
            "the sign of the logarithm: with r = 1 / 2 its part, -log r, is positive": (
                r - 1 + np.log(r) + square / variance_2
            )
            / 2,
        },
    )


@exercise
def posterior_mean(answer: Callable[..., Any]) -> None:
    """(betas [T], alphas_cumprod [T], x_0 [B, H, W, C], x_t, t [B]) -> the mean of q(x_prev | x_t, x_0)."""
    rng = np.random.default_rng(0)
    x_0, x_t = rng.uniform(-1, 1, (4, 3, 5, 1)), rng.standard_normal((4, 3, 5, 1))
    t = np.array([0, 1, 300, 999])
    right, _, _ = diffusion.q_posterior(SCHEDULE, x_0, x_t, t)
    betas, now, wrapped = BETAS[t], ALPHAS_CUMPROD[t], ALPHAS_CUMPROD[t - 1]
    prev = np.append(1.0, ALPHAS_CUMPROD)[t]

    def mixed(of_x_0: Any, of_x_t: Any) -> Any:
        return column(of_x_0) * x_0 + column(of_x_t) * x_t

    def mean(prev: Any) -> Any:
        return mixed(np.sqrt(prev) * betas / (1 - now), np.sqrt(1 - betas) * (1 - prev) / (1 - now))

    compare(
        answer(BETAS, ALPHAS_CUMPROD, x_0, x_t, t),
        right,
        {
            "only t = 0 is wrong: alphas_cumprod[-1] is the last one in NumPy, and before the first step it is 1": mean(
                wrapped
            ),
            "alphas_cumprod of the wrong step: with the roots and 1 - ... above the line goes that of t - 1": mean(now),
            "the coefficients have changed places: at t = 0 the mean is x_0": mixed(
                np.sqrt(1 - betas) * (1 - prev) / (1 - now), np.sqrt(prev) * betas / (1 - now)
            ),
            "the roots are missing: of alphas_cumprod before x_0, and of alpha before x_t": mixed(
                prev * betas / (1 - now), (1 - betas) * (1 - prev) / (1 - now)
            ),
            "the root before x_t is that of alpha = 1 - beta, not of alphas_cumprod": mixed(
                np.sqrt(prev) * betas / (1 - now), np.sqrt(now) * (1 - prev) / (1 - now)
            ),
        },
    )


@exercise
def eps_weight(answer: Callable[..., Any]) -> None:
    """(betas [T], alphas_cumprod [T], t [B], above 0) -> weight [B] of (eps - eps_pred)^2 in the bound, in nats."""
    t = np.array([1, 2, 50, 400, 999])
    snr = ALPHAS_CUMPROD / (1 - ALPHAS_CUMPROD)
    lost = (snr[t - 1] - snr[t]) / 2  # the weight of (x_0 - x_0_pred)^2
    right = lost / snr[t]
    alphas, variance = 1 - BETAS[t], SCHEDULE["posterior_variance"][t]
    compare(
        answer(BETAS, ALPHAS_CUMPROD, t),
        right,
        {
            "that is twice too large: a KL of equal variances is the squared distance by twice the variance": 2 * right,
            "that is for a variance of beta: here it is the posterior's, which is smaller": BETAS[t]
            / (2 * alphas * (1 - ALPHAS_CUMPROD[t])),
            "alpha is missing: the factor of eps in the mean is beta / (sqrt(alpha) sqrt(1 - alphas_cumprod))": right
            * alphas,
            "that is the weight of the means' squared distance: eps has a factor of its own in the mean, and it is "
            "squared too": 1 / (2 * variance),
            "the factor of eps in the mean has to be squared, beta as well as the roots": BETAS[t]
            / np.sqrt(alphas * (1 - ALPHAS_CUMPROD[t]))
            / (2 * variance),
            "that is the weight of (x_0 - x_0_pred)^2": lost,
        },
    )
