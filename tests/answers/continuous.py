"""Answers to the exercises of notebook 10, continuous time."""

import numpy as np

from ddpm_course.exercises import continuous
from ddpm_course.exercises.checking import column


def reverse_step(x, eps, f, squared_g, sigma, dt, z, last, pull=None, sign=-1.0, drift=1.0, noise=None, always=False):
    """The step, or one whose parts are others."""
    pull = squared_g * -eps / sigma if pull is None else pull
    noise = np.sqrt(squared_g * dt) * z if noise is None else noise
    mean = x + sign * dt * (drift * f * x - pull)
    return mean if last and not always else mean + noise


def in_the_paper_s_time(x, eps, f, squared_g, sigma, dt, z, last):
    """Song et al.'s eq. 6 with a negative dt."""
    score = -eps / sigma
    x = x + (f * x - squared_g * score) * -dt
    if not last:
        x += squared_g**0.5 * dt**0.5 * z
    return x


def to_flow(x, alpha, sigma):
    """By the two sizes."""
    return sigma / (alpha + sigma), x / column(alpha + sigma)


def by_log_snr(x, alpha, sigma):
    """By the log-SNR, as the package does."""
    log_snr = 2 * np.log(alpha / sigma)
    t = 1 / (1 + np.exp(log_snr / 2))
    return t, x * column(t / sigma)


def edm(alpha, sigma, s, quarter=0.25, data=None):
    """The four factors."""
    s = s if data is None else data
    v = sigma**2 + alpha**2 * s**2
    return alpha * s**2 / v, sigma * s / v**0.5, v**-0.5, quarter * np.log(sigma / alpha)


def with_part(index, part):
    """The four factors, but for one of them."""

    def answer(alpha, sigma, s):
        parts = list(edm(alpha, sigma, s))
        parts[index] = part(alpha, sigma, s)
        return tuple(parts)

    return answer


def variance(alpha, sigma, s):
    return sigma**2 + alpha**2 * s**2


ANSWERS = {
    continuous.reverse_step: [
        (reverse_step, None),
        (in_the_paper_s_time, None),
        (lambda *given: reverse_step(*given, sign=1.0), "this goes on in time"),
        (lambda *given: reverse_step(*given, drift=-1.0), "only the sign of f x is wrong"),
        (lambda x, e, f, g2, s, *given: reverse_step(x, -e, f, g2, s, *given), "only the sign of the score is wrong"),
        (
            lambda x, e, f, g2, s, *given: reverse_step(x, e, f, g2, s, *given, pull=-np.sqrt(g2) * e / s),
            "the score is multiplied by g here",
        ),
        (
            lambda x, e, f, g2, s, *given: reverse_step(x, e, f, g2, s, *given, pull=-g2 * e / s / 2),
            "that is half of g^2",
        ),
        (
            lambda x, e, f, g2, s, *given: reverse_step(x, e, f, g2, s, *given, pull=-g2 * e / s / 2, noise=0.0),
            "and the noise is missing",
        ),
        (
            lambda x, e, f, g2, s, *given: reverse_step(x, e, f, g2, s, *given, pull=-g2 * e),
            "eps_pred is no score yet",
        ),
        (
            lambda x, e, f, g2, s, *given: reverse_step(x, e, f, g2, s, *given, pull=-g2 * e / s**2),
            "that is divided by sigma^2",
        ),
        (lambda *given: reverse_step(*given, drift=0.0), "f x is missing"),
        (
            lambda x, e, f, g2, s, dt, z, last: reverse_step(x, e, f, g2, s, dt, z, last, noise=dt * np.sqrt(g2) * z),
            "variances add up",
        ),
        (
            lambda x, e, f, g2, s, dt, z, last: reverse_step(x, e, f, g2, s, dt, z, last, noise=np.sqrt(dt) * g2 * z),
            "multiplied by g^2 here",
        ),
        (
            lambda x, e, f, g2, s, dt, z, last: reverse_step(x, e, f, g2, s, dt, z, last, noise=np.sqrt(dt) * z),
            "g is missing in the noise",
        ),
        (lambda *given: reverse_step(*given, noise=0.0), "the noise is missing"),
        (lambda *given: reverse_step(*given, always=True), "only the last step is wrong: return its mean"),
        (
            lambda x, *given: x if given[-1] else reverse_step(x, *given),
            "only the last step is wrong: it is a step as the others",
        ),
    ],
    continuous.to_flow: [
        (to_flow, None),
        (by_log_snr, None),
        (lambda x, a, s: to_flow(x, a, s)[0], "return 2 things: t, x"),
        (lambda x, a, s: (to_flow(x, a, s)[0], None), "nothing yet"),
        (lambda x, a, s: (a / (a + s), x), "t = 1 is the noise"),
        (lambda x, a, s: (s**2 / (a**2 + s**2), x), "these are squares"),
        (lambda x, a, s: (s, x), "that is sigma: alpha + sigma is 1"),
        (lambda x, a, s: (s / a, x), "which is t of edm"),
        (lambda x, a, s: (2 * np.log(a / s), x), "that is the log-SNR"),
        (lambda x, a, s: (s / (a + s), x), "x is as it was"),
        (lambda x, a, s: (s / (a + s), x * column(a + s)), "not multiplied"),
        (lambda x, a, s: (s / (a + s), x / column(a)), "that x is edm's"),
        (lambda x, a, s: (s / (a + s), x / column(np.sqrt(a**2 + s**2))), "that x is vp's"),
        (lambda x, a, s: (s / (a + s), x * column(1 - s / (a + s))), "it has one already"),
    ],
    continuous.preconditioning: [
        (edm, None),
        (lambda a, s, d: list(edm(a, s, d)), None),
        (lambda a, s, d: edm(a, s, d)[:3], "return 4 things: c_skip, c_out, c_in, c_noise"),
        (lambda a, s, d: edm(a, s, d, data=0.5), "c_in: that is EDM's sigma_data"),
        (lambda a, s, d: edm(np.ones_like(a), s, d), "c_in: alpha is missing"),
        (with_part(2, lambda a, s, d: 1 / variance(a, s, d)), "c_in: that is one over the variance"),
        (with_part(2, lambda a, s, d: np.sqrt(variance(a, s, d))), "c_in: that is the deviation of x_t"),
        (with_part(2, lambda a, s, d: 1 / (a * d + s)), "c_in: deviations do not add up"),
        (with_part(2, lambda a, s, d: 1 / s), "c_in: sigma_data is missing"),
        (with_part(0, lambda a, s, d: edm(a, s, 0.5)[0]), "c_skip: that is EDM's sigma_data"),
        (with_part(0, lambda a, s, d: edm(np.ones_like(a), s, d)[0]), "c_skip: alpha is missing"),
        (with_part(0, lambda a, s, d: s**2 / variance(a, s, d)), "c_skip: that is the share of the noise"),
        (with_part(0, lambda a, s, d: (a * d) ** 2 / variance(a, s, d)), "c_skip: alpha is there once too often"),
        (with_part(0, lambda a, s, d: a * d / np.sqrt(variance(a, s, d))), "c_skip: take variances"),
        (with_part(0, lambda a, s, d: 1 / a), "c_skip: 1 / alpha makes the image right"),
        (with_part(1, lambda a, s, d: edm(a, s, 0.5)[1]), "c_out: that is EDM's sigma_data"),
        (with_part(1, lambda a, s, d: edm(np.ones_like(a), s, d)[1]), "c_out: alpha is missing"),
        (with_part(1, lambda a, s, d: edm(a, s, d)[1] ** 2), "c_out: that is its square"),
        (with_part(1, lambda a, s, d: s / np.sqrt(variance(a, s, d))), "c_out: sigma_data is missing"),
        (with_part(1, lambda a, s, d: a * edm(a, s, d)[1]), "c_out: alpha is there once too often"),
        (with_part(1, lambda a, s, d: -edm(a, s, d)[1]), "c_out: the sign"),
        (with_part(1, lambda a, s, d: np.full_like(a, d)), "c_out: that is sigma_data"),
        (with_part(1, lambda a, s, d: edm(a, s, d)[2]), "c_out: that is c_in"),
        (lambda a, s, d: edm(a, s, d, quarter=1.0), "c_noise: the 1/4 is missing"),
        (lambda a, s, d: edm(a, s, d, quarter=-0.5), "c_noise: that is a quarter of the log-SNR"),
        (lambda a, s, d: edm(a, s, d, quarter=-0.25), "c_noise: the sign"),
        (with_part(3, lambda a, s, d: np.log(s) / 4), "c_noise: alpha is missing"),
        (with_part(3, lambda a, s, d: np.log10(s / a) / 4), "c_noise: the logarithm is the natural one"),
        (lambda a, s, d: edm(a, s, d, quarter=0.5), "c_noise: that is log(sigma^2"),
    ],
}
