"""The oracle: DDPM and its optimizer once more, in float64 NumPy, for tests and notebooks only.

Both trees are tested against this file, so it is written from the papers and goes another way than they do
wherever there is one: products as sums of logarithms, the posterior as two measurements of one number, Adam
and EMA as weighted sums of their whole history. It may be slow; it is accurate to a few float64 roundings.

`t` is 0-based: t = 0 is the paper's t = 1. Images are [B, ...] in any layout, each with its own t.
Whatever is passed, the arithmetic is float64.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ddpm_shared.errors import UserError

Array = NDArray[np.float64]
Timesteps = NDArray[np.integer]
Schedule = Mapping[str, Array]
EpsModel = Callable[[Array, Timesteps], Array]


def linear_schedule(timesteps: int, beta_start: float, beta_end: float) -> dict[str, Array]:
    """Every constant of the diffusion whose betas rise linearly from beta_start to beta_end, both included.

    The running product is a sum of logarithms, rounded once for each t (fsum), and 1 - alphas_cumprod is an
    expm1, which keeps its digits where alphas_cumprod is almost 1. The posterior needs no formula of its
    own: x_0 and x_t each measure x_{t-1} with an independent Gaussian error, and Bayes' rule averages the
    two measurements by precision. Each precision over their sum is the *other* variance over the sum of
    variances, and that form holds at t = 0 too, where x_0 *is* x_{t-1} and its precision is infinite.

        q(x_{t-1} | x_0): x_{t-1} is sqrt(alphas_cumprod_prev) x_0   with variance 1 - alphas_cumprod_prev
        q(x_t | x_{t-1}): x_{t-1} is x_t / sqrt(alphas)              with variance betas / alphas

    Args:
        timesteps: T, at least 2.
        beta_start: betas[0], in (0, 1).
        beta_end: betas[T - 1], in (0, 1).

    Returns:
        The arrays [T] of the engine's Schedule under their names there. posterior_log_variance_clipped[0],
        which would be log 0, repeats that of t = 1, as in Ho's code.

    Raises:
        UserError: timesteps or a beta out of range.

    Source: Ho et al. 2020 (arXiv:2006.11239), section 2, eqs. 2, 4, 6.
    """
    if timesteps < 2 or not (0 < beta_start < 1 and 0 < beta_end < 1):
        got = f"timesteps={timesteps}, beta_start={beta_start}, beta_end={beta_end}"
        raise UserError(f"a schedule needs 2 or more timesteps and betas in (0, 1), got {got}")
    fraction = np.arange(timesteps) / (timesteps - 1)
    betas = (1 - fraction) * beta_start + fraction * beta_end
    alphas = 1 - betas

    log_alphas = np.log1p(-betas).tolist()
    log_alphas_cumprod = np.array([math.fsum(log_alphas[: t + 1]) for t in range(timesteps)])
    alphas_cumprod = np.exp(log_alphas_cumprod)
    one_minus_alphas_cumprod = -np.expm1(log_alphas_cumprod)
    alphas_cumprod_prev = np.append(1.0, alphas_cumprod[:-1])

    variance_from_x_0 = np.append(0.0, one_minus_alphas_cumprod[:-1])
    variance_from_x_t = betas / alphas
    weight_of_x_0 = variance_from_x_t / (variance_from_x_0 + variance_from_x_t)
    weight_of_x_t = variance_from_x_0 / (variance_from_x_0 + variance_from_x_t)
    posterior_variance = variance_from_x_0 * weight_of_x_0

    return {
        "betas": betas,
        "alphas": alphas,
        "alphas_cumprod": alphas_cumprod,
        "alphas_cumprod_prev": alphas_cumprod_prev,
        "sqrt_alphas_cumprod": np.exp(log_alphas_cumprod / 2),
        "sqrt_one_minus_alphas_cumprod": np.sqrt(one_minus_alphas_cumprod),
        "posterior_variance": posterior_variance,
        "posterior_log_variance_clipped": np.log(np.append(posterior_variance[1], posterior_variance[1:])),
        "posterior_mean_coef_x_0": weight_of_x_0 * np.sqrt(alphas_cumprod_prev),
        "posterior_mean_coef_x_t": weight_of_x_t / np.sqrt(alphas),
    }


def _at(schedule: Schedule, name: str, t: Timesteps, x: Array) -> Array:
    """schedule[name] at each image's own t, shaped to multiply x: [T] -> [B, 1, ...]."""
    if t.min() < 0:  # NumPy would count it from the end
        raise IndexError(f"t must be 0 or more, got {t.min()}")
    return schedule[name][t].reshape(len(t), *[1] * (x.ndim - 1))


def q_sample(schedule: Schedule, x_0: Array, t: Timesteps, eps: Array) -> Array:
    """Diffuse x_0 to time t in one jump: x_t = sqrt(alphas_cumprod) x_0 + sqrt(1 - alphas_cumprod) eps.

    The formula leaves one way to write it; the tests reach the same distribution one step at a time.

    Args:
        schedule: of `linear_schedule`.
        x_0: [B, ...].
        t: [B], 0 <= t < T.
        eps: standard normal noise, like x_0.

    Returns:
        x_t, like x_0.

    Raises:
        IndexError: t out of range, here and in all that follows.

    Source: Ho et al. 2020 (arXiv:2006.11239), eq. 4.
    """
    noise = _at(schedule, "sqrt_one_minus_alphas_cumprod", t, x_0) * eps
    return _at(schedule, "sqrt_alphas_cumprod", t, x_0) * x_0 + noise


def predict_x_0(schedule: Schedule, x_t: Array, t: Timesteps, eps_pred: Array) -> Array:
    """The x_0 that eps_pred implies: `q_sample` undone in its own order, take the noise off, then rescale.

    Args:
        schedule: of `linear_schedule`.
        x_t: [B, ...].
        t: [B].
        eps_pred: the noise believed to be in x_t, like x_t.

    Returns:
        x_0_pred, like x_t, not clipped.

    Source: Ho et al. 2020 (arXiv:2006.11239), eq. 4 solved for x_0 (eq. 15).
    """
    noise = _at(schedule, "sqrt_one_minus_alphas_cumprod", t, x_t) * eps_pred
    return (x_t - noise) / _at(schedule, "sqrt_alphas_cumprod", t, x_t)


def q_posterior(schedule: Schedule, x_0: Array, x_t: Array, t: Timesteps) -> tuple[Array, Array, Array]:
    """Mean, variance and clipped log-variance of q(x_{t-1} | x_t, x_0), by Bayes' rule in `linear_schedule`.

    Args:
        schedule: of `linear_schedule`.
        x_0: [B, ...].
        x_t: like x_0.
        t: [B].

    Returns:
        mean like x_t; variance and log_variance [B, 1, ...], which broadcast against it.

    Source: Ho et al. 2020 (arXiv:2006.11239), eq. 6.
    """
    coef_x_0 = _at(schedule, "posterior_mean_coef_x_0", t, x_t)
    coef_x_t = _at(schedule, "posterior_mean_coef_x_t", t, x_t)
    return (
        coef_x_0 * x_0 + coef_x_t * x_t,
        _at(schedule, "posterior_variance", t, x_t),
        _at(schedule, "posterior_log_variance_clipped", t, x_t),
    )


def p_sample(
    schedule: Schedule, eps_model: EpsModel, x_t: Array, t: Timesteps, z: Array, clip_x_0: bool = True
) -> Array:
    """One ancestral step: x_{t-1} = mean + sqrt(posterior_variance) z, around the x_0 that eps_model implies.

    The deviation is the root of the true variance, not exp(log_variance / 2). It is 0 at t = 0, so z drops
    out there by arithmetic and no mask is needed.

    Args:
        schedule: of `linear_schedule`.
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
        schedule: of `linear_schedule`.
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


def timestep_embedding(t: Timesteps, dim: int) -> Array:
    """Sinusoids of t: the dim/2 sines, then the dim/2 cosines, at frequencies from 1 down to 1/10000.

    Frequency i is 10000^(-i / (dim/2 - 1)). Sine and cosine are the two sides of one rotation, exp(1j w t).

    Args:
        t: [B].
        dim: even, at least 4.

    Returns:
        [B, dim], in [-1, 1].

    Raises:
        UserError: dim odd or less than 4.

    Source: Ho et al. 2020, released code (get_timestep_embedding), after Vaswani et al. 2017, section 3.5.
    """
    if dim < 4 or dim % 2:
        raise UserError(f"the embedding's dim must be even and 4 or more, got {dim}")
    frequencies = 10_000.0 ** -np.linspace(0, 1, dim // 2)
    rotation = np.exp(1j * np.outer(t, frequencies))  # [B, dim / 2]
    return np.concatenate([rotation.imag, rotation.real], axis=1)


def adam_moments(gradients: Array, beta_1: float = 0.9, beta_2: float = 0.999) -> tuple[Array, Array]:
    """Adam's bias-corrected moments m_hat_k and v_hat_k after the k gradients of a run.

    Without the recursion, m_k = (1 - beta_1) sum_i beta_1^(k-i) g_i, and the bias correction 1 - beta_1^k
    is the sum of those weights. So m_hat_k is a weighted mean of gradients 1 .. k, v_hat_k of their squares.

    Args:
        gradients: [k, ...], the oldest first.
        beta_1: in [0, 1).
        beta_2: in [0, 1).

    Source: Kingma and Ba 2015 (arXiv:1412.6980), section 3.
    """
    age = np.arange(len(gradients))[::-1]  # the newest gradient is 0 steps old
    m_hat = np.average(gradients, axis=0, weights=beta_1**age)
    v_hat = np.average(gradients**2, axis=0, weights=beta_2**age)
    return m_hat, v_hat


def adam(
    parameters: Array,
    gradients_of_each_step: Sequence[Array],
    learning_rates: Sequence[float],
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    eps: float = 1e-8,
) -> Array:
    """Parameters after a run of Adam, whose step k moves them by -lr_k m_hat_k / (sqrt(v_hat_k) + eps).

    Args:
        parameters: one array of any shape; Adam never looks from one weight to another.
        gradients_of_each_step: one like parameters for each step.
        learning_rates: one for each step.
        beta_1: in [0, 1).
        beta_2: in [0, 1).
        eps: added outside the root, after the bias correction.

    Returns:
        A new array, like parameters.

    Raises:
        UserError: not one learning rate for each gradient.

    Source: Kingma and Ba 2015 (arXiv:1412.6980), algorithm 1 and eq. 1.
    """
    if len(learning_rates) != len(gradients_of_each_step):
        raise UserError(f"{len(gradients_of_each_step)} gradients but {len(learning_rates)} learning rates")
    gradients = np.array(gradients_of_each_step, dtype=np.float64)  # [steps, ...]
    moved = np.zeros_like(parameters, dtype=np.float64)
    for k, learning_rate in enumerate(learning_rates, start=1):
        m_hat, v_hat = adam_moments(gradients[:k], beta_1, beta_2)
        moved += learning_rate * m_hat / (np.sqrt(v_hat) + eps)
    return parameters - moved


def ema(values_of_each_step: Sequence[Array], decay: float) -> Array:
    """Exponential moving average with warm-up: average_k = decay_k average_{k-1} + (1 - decay_k) value_k.

    decay_k = min(decay, (1 + k) / (10 + k)) for update k = 1, 2, ..., and average_0 is the initial value.
    Without the recursion, value k weighs (1 - decay_k) times all later decays, average_0 all decays.

    Args:
        values_of_each_step: the initial value, then the value after each step; arrays of one shape.
        decay: the limit, in [0, 1].

    Returns:
        The average after the last step.

    Source: Ho et al. 2020 (arXiv:2006.11239), appendix B; the warm-up is tf.train.ExponentialMovingAverage's.
    """
    k = np.arange(1, len(values_of_each_step))
    decays = np.minimum(decay, (1 + k) / (10 + k))
    later_decays = np.append(np.cumprod(decays[::-1])[::-1], 1.0)
    weights = np.append(1.0, 1 - decays) * later_decays
    return np.tensordot(weights, np.array(values_of_each_step, dtype=np.float64), axes=1)


def clip_by_global_norm(gradients: Mapping[str, Array], max_norm: float) -> tuple[dict[str, Array], float]:
    """Scale all gradients by min(1, max_norm / (norm + 1e-6)), norm being that of all of them as one vector.

    Args:
        gradients: by parameter name, any shapes.
        max_norm: above 0.

    Returns:
        The scaled gradients, and the norm before scaling.

    Source: Pascanu et al. 2013 (arXiv:1211.5063), algorithm 1; the 1e-6 is PyTorch's.
    """
    one_vector = np.concatenate([gradient.ravel() for gradient in gradients.values()], dtype=np.float64)
    norm = float(np.linalg.norm(one_vector))
    factor = np.float64(min(1.0, max_norm / (norm + 1e-6)))
    return {name: factor * gradient for name, gradient in gradients.items()}, norm


def warmup_learning_rate(step: int, learning_rate: float, warmup_steps: int) -> float:
    """The rate of training step `step` (0-based): learning_rate * min(1, (step + 1) / warmup_steps).

    Step 0 already moves, and step warmup_steps - 1 is the first at the full rate. 0 warm-up steps mean none.

    Source: Ho et al. 2020, released code (warmup), counted so that step 0 is not wasted.
    """
    return learning_rate * min(1.0, (step + 1) / max(1, warmup_steps))
