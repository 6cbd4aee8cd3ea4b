"""The oracle of the diffusion process, in float64 NumPy.

It goes another way than the trees: products are sums of logarithms, the posterior is a measurement of a prior. It may
be slow; it is accurate to a few float64 roundings.

`t` is 0-based: t = 0 is the paper's t = 1. Images are [B, ...] in any layout, each with its own t.
Whatever is passed, the arithmetic is float64.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from ddpm_shared.config import DiffusionConfig
from ddpm_shared.errors import UserError

Array = NDArray[np.float64]
Timesteps = NDArray[np.integer]
Schedule = Mapping[str, Array]
EpsModel = Callable[[Array, Timesteps], Array]


def betas(config: DiffusionConfig) -> Array:
    """The variance of the noise that each step of the forward process adds, by the name of the schedule.

    With r = t / (T - 1) from 0 to 1, s the sigmoid and (start, end) = config.beta_range:

        linear                    (1 - r) start + r end
        scaled_linear, quadratic  ((1 - r) sqrt(start) + r sqrt(end))^2, here multiplied out
        sigmoid                   (1 - s(12 r - 6)) start + s(12 r - 6) end, where 1 - s(x) = s(-x)
        cosine                    1 - f(t + 1) / f(t), at most 0.999, with f(t) = cos((t / T + 0.008) / 1.008 pi / 2)^2

    The cosine of an angle is the sine of what it lacks of pi / 2, which keeps its digits at the end, where the cosine
    is almost 0. With a and b what t and t + 1 lack, 1 - f(t + 1) / f(t) = sin(a - b) sin(a + b) / sin(a)^2, which
    keeps those of the start, where the quotient is almost 1; and sin(a + b) is twice the sine of (a + b) / 2 times the
    sine of what that lacks.

    Args:
        config: all of it that is about the forward process, with zero_terminal_snr.

    Returns:
        betas [T], in (0, 1); the last is 1 with zero_terminal_snr.

    Source: Ho et al. 2020 (arXiv:2006.11239), section 4 (linear); Rombach et al. 2022, released code (scaled_linear);
    Xu et al. 2022, released code of GeoDiff (sigmoid); Nichol and Dhariwal 2021 (arXiv:2102.09672), eq. 17 (cosine).
    """
    start, end = config.beta_range
    ramp = np.arange(config.timesteps) / (config.timesteps - 1)
    match config.schedule:
        case "linear":
            found = (1 - ramp) * start + ramp * end
        case "scaled_linear" | "quadratic":
            found = (1 - ramp) ** 2 * start + 2 * ramp * (1 - ramp) * math.sqrt(start * end) + ramp**2 * end
        case "sigmoid":
            rise = np.exp(-np.logaddexp(0, 6 - 12 * ramp))
            found = rise[::-1] * start + rise * end
        case "cosine":
            unit = math.pi / 2 / 1.008 / config.timesteps  # a - b
            past = np.arange(config.timesteps) + 0.008 * config.timesteps
            left = np.arange(config.timesteps, 0, -1)
            sine_of_sum = 2 * np.sin((left - 0.5) * unit) * np.sin((past + 0.5) * unit)
            found = np.minimum(math.sin(unit) * sine_of_sum / np.sin(left * unit) ** 2, 0.999)
        case _:
            assert_never(config.schedule)
    return _end_in_noise(found) if config.zero_terminal_snr else found


def _end_in_noise(found: Array) -> Array:
    """The betas [T] of the process whose sqrt(alphas_cumprod) is shifted and scaled to end at 0, its start kept.

    Scaling leaves the ratios, from which betas follow, and shifting leaves the differences d(t) = s(t - 1) - s(t) of
    s = sqrt(alphas_cumprod). So new s(t) are as the sums g(t) of the differences after t, of positive numbers only, and

        beta(t) = 1 - g(t)^2 / g(t - 1)^2 = d(t) (g(t - 1) + g(t)) / g(t - 1)^2        g(T - 1) = 0

    Source: Lin et al. 2024 (arXiv:2305.08891), algorithm 1.
    """
    log_alphas = np.log1p(-found)
    root = np.exp([math.fsum(log_alphas[: t + 1]) / 2 for t in range(len(found))])
    fall = (-root[:-1] * np.expm1(log_alphas[1:] / 2)).tolist()  # d(1) ... d(T - 1)
    left = np.array([math.fsum(fall[t:]) for t in range(len(found))])  # g(0) ... g(T - 1)
    return np.append(found[0], fall * (left[:-1] + left[1:]) / left[:-1] ** 2)


def make_schedule(config: DiffusionConfig, steps: Sequence[int] | None = None) -> dict[str, Array]:
    """Every constant of the diffusion, or of the respaced one that visits only the times `steps` of it.

    A step of the respaced process leaps over times, and its alpha is the product of all their alphas. Products are
    sums of logarithms, rounded once for each t (fsum), and 1 - alphas_cumprod is an expm1, which keeps its digits
    where alphas_cumprod is almost 1. The posterior needs no formula of its own: q(x_{t-1} | x_0) is a prior with mean
    m = sqrt(alphas_cumprod_prev) x_0 and variance v = 1 - alphas_cumprod_prev, and x_t measures sqrt(alphas) x_{t-1}
    with an error of variance betas. Kalman's gain says how far the measurement moves the mean,

        gain = sqrt(alphas) v / (alphas v + betas)        mean = m + gain (x_t - sqrt(alphas) m)

    and 1 - gain sqrt(alphas) = betas / (alphas v + betas) is what remains of m, and of v. All of it holds at t = 0,
    where v = 0, and where zero_terminal_snr leaves no signal, where alphas = 0.

    Args:
        config: all of it that is about the forward process.
        steps: times of the whole process, ascending; None: all of them.

    Returns:
        The arrays [N] of the engine's Schedule under their names there, N being len(steps) or T.
        posterior_log_variance_clipped[0], which would be log 0, repeats that of t = 1, as in Ho's code, and is
        log betas where there is no t = 1.

    Raises:
        UserError: steps that are none, not ascending, or outside 0 .. T - 1.

    Source: Ho et al. 2020 (arXiv:2006.11239), section 2, eqs. 2, 4, 6; Nichol and Dhariwal 2021 (arXiv:2102.09672),
    eq. 19 (the respaced process).
    """
    visited = list(range(config.timesteps) if steps is None else steps)
    if not visited or sorted({*visited} & {*range(config.timesteps)}) != visited:
        raise UserError(f"steps must be ascending times from 0 to {config.timesteps - 1}, got {visited}")
    every = betas(config)
    some = every < 1  # all but the end of a process that ends in pure noise, whose logarithm is -inf
    log_alphas = np.log1p(-every, out=np.full(config.timesteps, -np.inf), where=some).tolist()

    after = [0, *(t + 1 for t in visited[:-1])]  # the times after[i] .. visited[i] - 1 are leapt over
    leapt = np.array([math.fsum(log_alphas[low:t]) for low, t in zip(after, visited, strict=True)])
    alphas = (1 - every[visited]) * np.exp(leapt)
    one_minus_alphas = every[visited] - (1 - every[visited]) * np.expm1(leapt)

    log_alphas_cumprod = np.array([math.fsum(log_alphas[: t + 1]) for t in visited])
    alphas_cumprod = np.exp(log_alphas_cumprod)
    one_minus_alphas_cumprod = -np.expm1(log_alphas_cumprod)
    alphas_cumprod_prev = np.append(1.0, alphas_cumprod[:-1])

    prior = np.append(0.0, one_minus_alphas_cumprod[:-1])
    measured = alphas * prior + one_minus_alphas
    kept = one_minus_alphas / measured
    posterior_variance = prior * kept
    clipped = np.append(posterior_variance[1] if len(visited) > 1 else one_minus_alphas, posterior_variance[1:])

    return {
        "betas": one_minus_alphas,
        "alphas": alphas,
        "alphas_cumprod": alphas_cumprod,
        "alphas_cumprod_prev": alphas_cumprod_prev,
        "sqrt_alphas_cumprod": np.exp(log_alphas_cumprod / 2),
        "sqrt_one_minus_alphas_cumprod": np.sqrt(one_minus_alphas_cumprod),
        "posterior_variance": posterior_variance,
        "posterior_log_variance_clipped": np.log(clipped),
        "posterior_mean_coef_x_0": kept * np.sqrt(alphas_cumprod_prev),
        "posterior_mean_coef_x_t": np.sqrt(alphas) * prior / measured,
    }


def at(schedule: Schedule, name: str, t: Timesteps, x: Array) -> Array:
    """schedule[name] at each image's own t, shaped to multiply x: [T] -> [B, 1, ...]. Raises IndexError, as below."""
    if t.min() < 0:  # NumPy would count it from the end
        raise IndexError(f"t must be 0 or more, got {t.min()}")
    return schedule[name][t].reshape(len(t), *[1] * (x.ndim - 1))


def q_sample(schedule: Schedule, x_0: Array, t: Timesteps, eps: Array) -> Array:
    """Diffuse x_0 to time t in one jump: x_t = sqrt(alphas_cumprod) x_0 + sqrt(1 - alphas_cumprod) eps.

    The formula leaves one way to write it; the tests reach the same distribution one step at a time.

    Args:
        schedule: of `make_schedule`.
        x_0: [B, ...].
        t: [B], 0 <= t < T.
        eps: standard normal noise, like x_0.

    Returns:
        x_t, like x_0.

    Raises:
        IndexError: t out of range, here and in all that follows.

    Source: Ho et al. 2020 (arXiv:2006.11239), eq. 4.
    """
    noise = at(schedule, "sqrt_one_minus_alphas_cumprod", t, x_0) * eps
    return at(schedule, "sqrt_alphas_cumprod", t, x_0) * x_0 + noise


def predict_x_0(schedule: Schedule, x_t: Array, t: Timesteps, eps_pred: Array) -> Array:
    """The x_0 that eps_pred implies: `q_sample` undone in its own order, take the noise off, then rescale.

    Args:
        schedule: of `make_schedule`.
        x_t: [B, ...].
        t: [B].
        eps_pred: the noise believed to be in x_t, like x_t.

    Returns:
        x_0_pred, like x_t, not clipped.

    Source: Ho et al. 2020 (arXiv:2006.11239), eq. 4 solved for x_0 (eq. 15).
    """
    noise = at(schedule, "sqrt_one_minus_alphas_cumprod", t, x_t) * eps_pred
    return (x_t - noise) / at(schedule, "sqrt_alphas_cumprod", t, x_t)


def q_posterior(schedule: Schedule, x_0: Array, x_t: Array, t: Timesteps) -> tuple[Array, Array, Array]:
    """Mean, variance and clipped log-variance of q(x_{t-1} | x_t, x_0), by Bayes' rule in `make_schedule`.

    Args:
        schedule: of `make_schedule`.
        x_0: [B, ...].
        x_t: like x_0.
        t: [B].

    Returns:
        mean like x_t; variance and log_variance [B, 1, ...], which broadcast against it.

    Source: Ho et al. 2020 (arXiv:2006.11239), eq. 6.
    """
    coef_x_0 = at(schedule, "posterior_mean_coef_x_0", t, x_t)
    coef_x_t = at(schedule, "posterior_mean_coef_x_t", t, x_t)
    return (
        coef_x_0 * x_0 + coef_x_t * x_t,
        at(schedule, "posterior_variance", t, x_t),
        at(schedule, "posterior_log_variance_clipped", t, x_t),
    )


def p_sample(
    schedule: Schedule, eps_model: EpsModel, x_t: Array, t: Timesteps, z: Array, clip_x_0: bool = True
) -> Array:
    """One ancestral step: x_{t-1} = mean + sqrt(posterior_variance) z, around the x_0 that eps_model implies.

    The deviation is the root of the true variance, not exp(log_variance / 2). It is 0 at t = 0, so z drops
    out there by arithmetic and no mask is needed.

    Args:
        schedule: of `make_schedule`.
        eps_model: (x_t, t) -> eps_pred, like x_t.
        x_t: [B, ...].
        t: [B].
        z: finite standard normal noise, like x_t.
        clip_x_0: clip the implied x_0 to [-1, 1].

    Returns:
        x_prev, like x_t.

    Source: Ho et al. 2020 (arXiv:2006.11239), algorithm 2, with sigma_t^2 = posterior_variance.
    """
    x_0_pred = predict_x_0(schedule, x_t, t, eps_model(x_t, t))
    if clip_x_0:
        x_0_pred = np.clip(x_0_pred, -1, 1)
    mean, variance, _ = q_posterior(schedule, x_0_pred, x_t, t)
    return mean + np.sqrt(variance) * z


def diffusion_loss(schedule: Schedule, eps_model: EpsModel, x_0: Array, t: Timesteps, eps: Array) -> float:
    """The simple loss |eps - eps_model(x_t, t)|^2 / size, as the dot product of the error with itself.

    Args:
        schedule: of `make_schedule`.
        eps_model: (x_t, t) -> eps_pred, like x_t.
        x_0: [B, ...].
        t: [B].
        eps: like x_0.

    Returns:
        The mean over all elements of all images.

    Source: Ho et al. 2020 (arXiv:2006.11239), eq. 14.
    """
    eps_pred = eps_model(q_sample(schedule, x_0, t, eps), t)
    error = np.subtract(eps, eps_pred, dtype=np.float64).ravel()
    return float(error @ error) / error.size
