"""The learning rate, gradient clipping, Adam and the moving average of the weights, each its equation.

They are written out because the frameworks' own differ silently: Keras' Adam adds epsilon before the bias
correction and takes 1e-7, its `clipnorm` clips each tensor alone, its average starts a step late. PyTorch's
`_foreach_` operations take a whole list of tensors: one by one, hundreds of small ones cost more in calls than in
arithmetic.
Mirror: ddpm_tf.optimizer.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from ddpm_torch.config import TrainingConfig


def scheduled_learning_rate(step: int, num_steps: int, settings: TrainingConfig) -> float:
    """learning_rate * min(1, (step + 1) / warmup_steps) * decay(p) at the 0-based `step` of `num_steps`.

    p, which goes from 0 to 1, is the part of the decay that is over:
    p = min(1, max(0, (step / num_steps - decay_start) / (1 - decay_start))),  f = final_learning_rate,
    decay(p) = 1,  1 - (1 - f) p  (linear)  or  f + (1 - f) (1 + cos(pi p)) / 2  (cosine).

    Source: Goyal et al. 2017 (arXiv:1706.02677), section 2.2; Loshchilov & Hutter 2017 (arXiv:1608.03983), eq. 5;
    Zhai et al. 2022 (arXiv:2106.04560), section 3.5, for a constant part before the decay.
    Mirror: ddpm_tf.optimizer.scheduled_learning_rate.
    """
    warm_up = min(1.0, (step + 1) / settings.warmup_steps) if settings.warmup_steps else 1.0
    p = min(1.0, max(0.0, (step / num_steps - settings.decay_start) / (1.0 - settings.decay_start)))
    f = settings.final_learning_rate
    decay = {
        "none": 1.0,
        "linear": 1.0 - (1.0 - f) * p,
        "cosine": f + (1.0 - f) * (1.0 + math.cos(math.pi * p)) / 2.0,
    }
    return settings.learning_rate * warm_up * decay[settings.learning_rate_decay]


def clip_by_global_norm(gradients: list[Tensor] | tuple[Tensor, ...], max_norm: float) -> tuple[list[Tensor], Tensor]:
    """Scale all gradients by min(1, max_norm / (norm + 1e-6)), norm that of all of them taken as one vector.

    Args:
        gradients: any shapes.
        max_norm: above 0.

    Returns:
        The scaled gradients, and the scalar norm before scaling.

    Source: Pascanu et al. 2013 (arXiv:1211.5063), algorithm 1.
    Mirror: ddpm_tf.optimizer.clip_by_global_norm.
    """
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    scale = torch.clamp(max_norm / (norm + 1e-6), max=1.0)
    return list(torch._foreach_mul(gradients, scale)), norm


class Adam:
    """Adam, bias-corrected, for a fixed list of parameters.

    m = beta_1 m + (1 - beta_1) g,  v = beta_2 v + (1 - beta_2) g^2,
    p = p - learning_rate * (m / (1 - beta_1^k)) / (sqrt(v / (1 - beta_2^k)) + epsilon)

    Args:
        parameters: updated in place.
        beta_1: decay of the first moment.
        beta_2: decay of the second moment.
        epsilon: added after the bias correction, as in the paper.

    Source: Kingma & Ba 2015 (arXiv:1412.6980), algorithm 1.
    Mirror: ddpm_tf.optimizer.Adam.
    """

    def __init__(
        self, parameters: Iterable[Tensor], beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-8
    ) -> None:
        self.parameters = list(parameters)
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon
        self.m = [torch.zeros_like(p, requires_grad=False) for p in self.parameters]
        self.v = [torch.zeros_like(p, requires_grad=False) for p in self.parameters]

    @torch.no_grad()
    def update(self, gradients: list[Tensor], learning_rate: float, k: int) -> None:
        """Make the k-th update, k = 1, 2, ..."""
        correction_1 = 1.0 - self.beta_1**k
        correction_2 = 1.0 - self.beta_2**k
        torch._foreach_mul_(self.m, self.beta_1)
        torch._foreach_add_(self.m, gradients, alpha=1.0 - self.beta_1)
        torch._foreach_mul_(self.v, self.beta_2)
        torch._foreach_addcmul_(self.v, gradients, gradients, value=1.0 - self.beta_2)
        denominator = torch._foreach_sqrt(torch._foreach_div(self.v, correction_2))
        torch._foreach_add_(denominator, self.epsilon)
        torch._foreach_addcdiv_(self.parameters, self.m, denominator, value=-learning_rate / correction_1)


def warmup_ema_decay(k: int, decay: float) -> float:
    """min(decay, (1 + k) / (10 + k)) at the k-th update, k = 1, 2, ...: the average forgets its start quickly.

    Source: TensorFlow's ExponentialMovingAverage(num_updates=k).
    Mirror: ddpm_tf.optimizer.warmup_ema_decay.
    """
    return min(decay, (1 + k) / (10 + k))


@torch.no_grad()
def update_ema(averages: Iterable[Tensor], parameters: Iterable[Tensor], decay: float) -> None:
    """Move each average towards its parameter, in place: average = average + (1 - decay) (parameter - average).

    Only trainable parameters are averaged, and the averages start as a copy of them.
    Mirror: ddpm_tf.optimizer.update_ema.
    """
    torch._foreach_lerp_(list(averages), list(parameters), 1.0 - decay)
