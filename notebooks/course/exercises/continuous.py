"""The exercises of 10: continuous time."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ddpm_course.exercises.checking import Off, column, compare, exercise, require_written


@exercise
def reverse_step(answer: Callable[..., Any]) -> None:
    """(x, eps_pred, f, squared_g, sigma, dt, z, last) -> x at t - dt: Euler-Maruyama's step of the reverse SDE."""
    rng = np.random.default_rng(0)
    x, eps, z = rng.standard_normal((3, 2, 4, 3, 1))
    f, squared_g, sigma, dt = -3.5, 7.4, 0.6, 0.02
    score, g = -eps / sigma, np.sqrt(squared_g)

    def mean(drift: float = 1.0, pull: Any = squared_g * score, sign: float = 1.0) -> Any:
        return x - sign * dt * (drift * f * x - pull)

    def step(last: bool) -> Any:
        return answer(x.copy(), eps.copy(), f, squared_g, sigma, dt, z.copy(), last)

    right, noise = mean(), np.sqrt(dt) * g * z
    half = "that is half of g^2, which is the ODE's: with noise on the way the score counts in full"
    means = {
        "this goes on in time: dt leads back, so subtract dt times the slope": mean(sign=-1.0),
        "only the sign of f x is wrong: the slope is f x - g^2 score, and you walk against it": mean(drift=-1.0),
        "only the sign of the score is wrong: it is -eps / sigma, and it pulls towards the images": mean(
            pull=-squared_g * score
        ),
        "the score is multiplied by g here, not by g^2": mean(pull=g * score),
        half: mean(pull=0.5 * squared_g * score),
        "eps_pred is no score yet: divide by sigma": mean(pull=-squared_g * eps),
        "that is divided by sigma^2: the score is -eps / sigma": mean(pull=squared_g * score / sigma),
        "f x is missing": mean(drift=0.0),
    }
    noises = {
        "the noise has the deviation g sqrt(dt), and you have g dt: variances add up, deviations do not": dt * g * z,
        "the noise is multiplied by g^2 here, not by g": np.sqrt(dt) * squared_g * z,
        "g is missing in the noise": np.sqrt(dt) * z,
        "the noise is missing": 0.0,
    }
    compare(
        step(last=False),
        right + noise,
        {said: wrong + noise for said, wrong in means.items()}
        | {said: right + wrong for said, wrong in noises.items()}
        | {half + " (and the noise is missing)": mean(pull=0.5 * squared_g * score)},
    )
    compare(
        step(last=True),
        right,
        {
            "only the last step is wrong: return its mean, for no step follows that would clean up the noise": (
                right + noise
            ),
            "only the last step is wrong: it is a step as the others, without the noise": x,
        },
    )


@exercise
def to_flow(answer: Callable[..., Any]) -> None:
    """(x [B, H, W, C], alpha [B], sigma [B]) -> t [B] of flow with the same log-SNR, and x there."""
    rng = np.random.default_rng(1)
    angle = np.array([0.2, 0.7, 1.1, 0.4])
    size = np.array([1.0, 1.0, 0.5, 3.0])  # vp's keeps its size; others do not
    alpha, sigma = size * np.cos(angle), size * np.sin(angle)
    x = rng.standard_normal((4, 3, 2, 1))
    found = answer(x.copy(), alpha.copy(), sigma.copy())
    require_written(found)
    t, moved = _parts(found, ("t", "x"))
    total = alpha + sigma
    compare(
        t,
        sigma / total,
        {
            "that is alpha / (alpha + sigma): in this book t = 1 is the noise": alpha / total,
            "these are squares: log-SNR is log(alpha^2 / sigma^2), so sigma / alpha = exp(-log-SNR / 2)": (
                sigma**2 / (alpha**2 + sigma**2)
            ),
            "that is sigma: alpha + sigma is 1 for flow only, so divide by it": sigma,
            "that is sigma / alpha, which is t of edm: solve t / (1 - t) = sigma / alpha": sigma / alpha,
            "that is the log-SNR: which t has it?": 2.0 * np.log(alpha / sigma),
        },
    )
    compare(
        moved,
        x / column(total),
        {
            "t is right, and x is as it was: flow's alpha and sigma add up to 1, so x changes its size": x,
            "t is right; x is to be divided by alpha + sigma, not multiplied": x * column(total),
            "t is right; that x is edm's, whose alpha is 1": x / column(alpha),
            "t is right; that x is vp's, where the squares of alpha and sigma add up to 1": x
            / column(np.hypot(alpha, sigma)),
            "t is right; x is multiplied by alpha of flow, but it has one already": x * column(alpha / total),
        },
    )


@exercise
def preconditioning(answer: Callable[..., Any]) -> None:
    """(alpha [N], sigma [N], sigma_data) -> c_skip, c_out, c_in and c_noise of EDM, for any process."""
    alpha = np.array([1.0, 1.0, 0.9, 0.4, 0.5])
    sigma = np.array([0.01, 20.0, 0.3, 0.8, 0.5])
    s = 0.7073
    found = answer(alpha.copy(), sigma.copy(), s)
    require_written(found)
    skip, out, scale, time = _parts(found, ("c_skip", "c_out", "c_in", "c_noise"))

    def variance(a: Any = alpha, data: float = s) -> Any:
        """Of a pixel of x_t."""
        return sigma**2 + (a * data) ** 2

    def skip_of(a: Any, data: float) -> Any:
        return a * data**2 / variance(a, data)

    def out_of(a: Any, data: float) -> Any:
        return sigma * data / np.sqrt(variance(a, data))

    half, forgotten = (
        "that is EDM's sigma_data, 0.5: take the one that is given",
        "alpha is missing: x_t is alpha x_0 + sigma eps",
    )
    one = np.ones_like(alpha)
    compare(
        scale,
        1.0 / np.sqrt(variance()),
        {
            f"c_in: {half}": 1.0 / np.sqrt(variance(data=0.5)),
            f"c_in: {forgotten}": 1.0 / np.sqrt(variance(one)),
            "c_in: that is one over the variance: take the deviation": 1.0 / variance(),
            "c_in: that is the deviation of x_t: divide by it": np.sqrt(variance()),
            "c_in: deviations do not add up, variances do": 1.0 / (alpha * s + sigma),
            "c_in: sigma_data is missing: a pixel of x_t varies with the image too": 1.0 / sigma,
        },
    )
    compare(
        skip,
        skip_of(alpha, s),
        {
            f"c_skip: {half}": skip_of(alpha, 0.5),
            f"c_skip: {forgotten}": skip_of(one, s),
            "c_skip: that is the share of the noise; what is to be kept of x_t is the share of the image": (
                sigma**2 / variance()
            ),
            "c_skip: alpha is there once too often: c_skip x_t is an image, of which x_t holds alpha": (
                (alpha * s) ** 2 / variance()
            ),
            "c_skip: take variances, as a regression does": alpha * s / np.sqrt(variance()),
            "c_skip: 1 / alpha makes the image right, and the noise huge: c_out is smallest elsewhere": 1.0 / alpha,
        },
    )
    compare(
        out,
        out_of(alpha, s),
        {
            f"c_out: {half}": out_of(alpha, 0.5),
            f"c_out: {forgotten}": out_of(one, s),
            "c_out: that is its square": out_of(alpha, s) ** 2,
            "c_out: sigma_data is missing": out_of(alpha, s) / s,
            "c_out: alpha is there once too often": alpha * out_of(alpha, s),
            "c_out: the sign; Karras et al. have the positive one": -out_of(alpha, s),
            "c_out: that is sigma_data, which it becomes in pure noise": s * one,
            "c_out: that is c_in": scale,
        },
    )
    ratio = sigma / alpha
    compare(
        time,
        0.25 * np.log(ratio),
        {
            "c_noise: the 1/4 is missing": np.log(ratio),
            "c_noise: that is a quarter of the log-SNR, log(alpha^2 / sigma^2): take sigma / alpha, without squares": (
                -0.5 * np.log(ratio)
            ),
            "c_noise: the sign: it grows with the noise": -0.25 * np.log(ratio),
            "c_noise: alpha is missing: what counts is sigma / alpha": 0.25 * np.log(sigma),
            "c_noise: the logarithm is the natural one": 0.25 * np.log10(ratio),
            "c_noise: that is log(sigma^2 / alpha^2) / 4: take deviations, not variances": 0.5 * np.log(ratio),
        },
    )


def _parts(found: Any, names: tuple[str, ...]) -> tuple[Any, ...]:
    """The parts of an answer of several. Raises Off if there are not so many."""
    if not isinstance(found, tuple | list) or len(found) != len(names):
        raise Off(f"return {len(names)} things: {', '.join(names)}")
    require_written(*found)
    return tuple(found)
