"""The exercises of 01: the forward process."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ddpm_course.exercises.checking import Off, column, compare, exercise, require_written
from ddpm_shared.config import DiffusionConfig
from ddpm_shared.oracle import diffusion

ALPHAS_CUMPROD = diffusion.make_schedule(DiffusionConfig())["alphas_cumprod"]


@exercise
def q_sample(answer: Callable[..., Any]) -> None:
    """(alphas_cumprod [T], x_0 [B, H, W, C], t [B], eps) -> x_t: Ho et al. 2020, eq. 4."""
    rng = np.random.default_rng(0)
    x_0, eps = rng.uniform(-1, 1, (3, 4, 5, 1)), rng.standard_normal((3, 4, 5, 1))
    t = np.array([0, 500, 999])

    def mixed(signal: Any, noise: Any) -> Any:
        return column(signal) * x_0 + column(noise) * eps

    a = ALPHAS_CUMPROD[t]
    before = np.append(1.0, ALPHAS_CUMPROD)[t]
    compare(
        answer(ALPHAS_CUMPROD, x_0, t, eps),
        mixed(np.sqrt(a), np.sqrt(1 - a)),
        {
            "the roots are missing: variances add up, and what multiplies the noise is a standard deviation": mixed(
                a, 1 - a
            ),
            "signal and noise have changed places: at t = 0 the image should be almost clean": mixed(
                np.sqrt(1 - a), np.sqrt(a)
            ),
            "the noise is scaled by 1 - sqrt(alphas_cumprod): take the root of the difference": mixed(
                np.sqrt(a), 1 - np.sqrt(a)
            ),
            "you are one step early: t = 0 is diffused once already, by alphas_cumprod[0]": mixed(
                np.sqrt(before), np.sqrt(1 - before)
            ),
        },
    )


@exercise
def first_time_below(answer: Callable[..., Any]) -> None:
    """(alphas_cumprod [T], snr) -> the first t whose signal-to-noise ratio is below snr."""
    a = ALPHAS_CUMPROD
    for snr in (10.0, 1.0, 0.05):

        def first(ratio: Any, snr: float = snr) -> int:
            return int(np.argmax(ratio < snr))

        right = first(a / (1 - a))
        compare(
            answer(a, snr),
            right,
            {
                "that is where the ratio of the amplitudes is below it: the SNR is one of variances": first(
                    np.sqrt(a / (1 - a))
                ),
                "alphas_cumprod is the variance of the signal: divide it by that of the noise": first(a),
                "one too many: t is 0-based, the first of all times is 0": right + 1,
                "one too early: there the ratio is not below it yet": right - 1,
            },
        )


@exercise
def two_steps(answer: Callable[..., Any]) -> None:
    """(beta_1, beta_2) -> (factor of x_0, standard deviation of the noise) after both steps."""
    for one, two in ((0.1, 0.3), (0.02, 0.5)):
        scale, variance = np.sqrt((1 - one) * (1 - two)), 1 - (1 - one) * (1 - two)
        found = answer(one, two)
        require_written(found)
        if np.shape(found) != (2,):
            raise Off("return two numbers, the factor of x_0 and the standard deviation of the noise")
        compare(
            found,
            (scale, np.sqrt(variance)),
            {
                "that is the variance: return its root": (scale, variance),
                "the first noise shrinks in the second step: its variance is multiplied by 1 - beta_2": (
                    scale,
                    np.sqrt(one + two),
                ),
                "the factors of x_0 are the roots of 1 - beta": (scale**2, np.sqrt(variance)),
                "standard deviations do not add up, variances do": (
                    scale,
                    np.sqrt((1 - two) * one) + np.sqrt(two),
                ),
            },
        )
