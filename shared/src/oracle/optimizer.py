"""The oracle of the optimizer, in float64 NumPy: Adam and EMA as weighted sums of their whole history."""

from collections.abc import Mapping, Sequence

import numpy as np

from ddpm_shared.config import TrainingConfig
from ddpm_shared.errors import UserError
from ddpm_shared.oracle.diffusion import Array


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


def learning_rates(settings: TrainingConfig, num_steps: int) -> Array:
    """The rate of each of `num_steps` training steps, drawn as a line through its corners; a cosine from these.

    The warm-up climbs to the rate over the steps 0 .. warmup_steps - 1, of which step 0 already moves. From the point
    decay_start * num_steps on, the decay falls to final_learning_rate of it at the point num_steps, which is no step.

    Source: Goyal et al. 2017 (arXiv:1706.02677), section 2.2; Loshchilov & Hutter 2017 (arXiv:1608.03983), eq. 5.
    """
    steps = np.arange(num_steps, dtype=np.float64)
    warm_up = np.interp(steps, [-1, settings.warmup_steps - 1], [0, 1]) if settings.warmup_steps else np.ones(num_steps)
    ends = [settings.decay_start * num_steps, num_steps]
    falling = np.interp(steps, ends, [1, settings.final_learning_rate])
    if settings.learning_rate_decay == "cosine":
        # half a turn of a cosine between the same two ends: sin^2 of a quarter of a turn is where it is low
        low = np.sin(np.interp(steps, ends, [0, np.pi / 2])) ** 2
        falling = 1 - low + settings.final_learning_rate * low
    decay = 1.0 if settings.learning_rate_decay == "none" else falling
    result: Array = settings.learning_rate * warm_up * decay
    return result
