"""Answers to the exercises of notebook 05, sampling."""

import numpy as np

from ddpm_course.exercises import sampling
from ddpm_course.exercises.checking import column


def p_sample(s, x_t, t, z, eps_pred, clip=True, deviation=None, masked=True):
    """The step with the clipped log-variance, as the packages write it, or with another deviation of z."""
    a = column(s["alphas_cumprod"][t])
    x_0 = (x_t - np.sqrt(1 - a) * eps_pred) / np.sqrt(a)
    if clip:
        x_0 = np.clip(x_0, -1, 1)
    mean = column(s["posterior_mean_coef_x_0"][t]) * x_0 + column(s["posterior_mean_coef_x_t"][t]) * x_t
    if deviation is None:
        deviation = np.exp(s["posterior_log_variance_clipped"][t] / 2)
    noise = column(deviation) * z
    return mean + column(t > 0) * noise if masked else mean + noise


def p_sample_of_the_paper(s, x_t, t, z, eps_pred):
    """From betas and alphas_cumprod alone, with the posterior's variance, which is 0 at t = 0."""
    a, b = s["alphas_cumprod"][t], s["betas"][t]
    before = np.append(1.0, s["alphas_cumprod"])[t]
    x_0 = np.clip((x_t - column(np.sqrt(1 - a)) * eps_pred) / column(np.sqrt(a)), -1, 1)
    mean = column(np.sqrt(before) * b / (1 - a)) * x_0 + column(np.sqrt(1 - b) * (1 - before) / (1 - a)) * x_t
    return mean + column(np.sqrt(b * (1 - before) / (1 - a))) * z


def ddim_step(a, x_t, t, s, eps_pred, clip=True, again=True, before=None, roots=True):
    """The step to s, or with another alphas_cumprod `before`."""
    if before is None:
        before = a[s] if s >= 0 else 1.0
    x_0 = (x_t - np.sqrt(1 - a[t]) * eps_pred) / np.sqrt(a[t])
    if clip:
        x_0 = np.clip(x_0, -1, 1)
    eps = (x_t - np.sqrt(a[t]) * x_0) / np.sqrt(1 - a[t]) if again else eps_pred
    return np.sqrt(before) * x_0 + np.sqrt(1 - before) * eps if roots else before * x_0 + (1 - before) * eps


ANSWERS = {
    sampling.visited: [
        (lambda total, n: np.arange(1, n + 1) * (total // n) - 1, None),
        (lambda total, n: list(range(total // n - 1, total, total // n)), None),
        (lambda total, n: list(range(total - 1, -1, -(total // n))), "return the times ascending"),
        (lambda total, n: np.arange(1, n + 1) * (total // n), "t is 0-based"),
        (lambda total, n: range(0, total, total // n), "which is leading"),
        (lambda total, n: np.round(np.linspace(0, total - 1, n)), "that is linspace"),
        (lambda total, n: range(total - n, total), "the last times only"),
        (lambda total, n: range(n - 1, total, n), "the shape is [250], expected [4]"),
    ],
    sampling.p_sample: [
        (p_sample, None),
        (p_sample_of_the_paper, None),
        (lambda *given: p_sample(*given, masked=False), "no z there, the image is finished"),
        (
            lambda s, x, t, z, e: p_sample(s, x, t, z, e, deviation=s["posterior_variance"][t]),
            "the root of the variance",
        ),
        (
            lambda s, x, t, z, e: p_sample(s, x, t, z, e, deviation=np.exp(s["posterior_log_variance_clipped"][t])),
            "the root of the variance",
        ),
        (lambda *given: p_sample(*given, clip=False), "x_0 is not clipped"),
        (
            lambda s, x, t, z, e: p_sample(s, x, t, z, e, deviation=np.sqrt(s["posterior_variance"][t - 1])),
            "that of the step before",
        ),
        (
            lambda s, x, t, z, e: p_sample(
                s, x, t, z, e, deviation=np.sqrt(s["posterior_variance"][np.minimum(t + 1, 999)])
            ),
            "that of the step after",
        ),
        (lambda s, x, t, z, e: p_sample(s, x, t, z, e, deviation=np.sqrt(s["betas"][t])), "the variance is beta"),
        (lambda s, x, t, z, e: p_sample(s, x, t, 0 * z, e), "z is missing"),
    ],
    sampling.ddim_step: [
        (ddim_step, None),
        (lambda *given: ddim_step(*given, again=False), "eps is still the network's"),
        (lambda *given: ddim_step(*given, clip=False), "x_0 is not clipped"),
        (lambda a, x, t, s, e: ddim_step(a, x, t, s, e, before=a[t - 1]), "the step goes to s"),
        (lambda a, x, t, s, e: ddim_step(a, x, t, s, e, before=a[s]), "only the last step is wrong"),
        (lambda *given: ddim_step(*given, roots=False), "the roots are missing"),
        (lambda a, x, t, s, e: ddim_step(a, x, t, s, e, before=a[t]), "where you came from"),
        (
            lambda a, x, t, s, e: np.sqrt(a[s]) * x + np.sqrt(1 - a[s]) * e,
            "first solve for the image",
        ),
    ],
}
