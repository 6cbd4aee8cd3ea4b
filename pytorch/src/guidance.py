"""Labels, bound where the batch is known, and classifier-free guidance. Nothing below it knows of labels.

Mirror: ddpm_tf.guidance. Letters as in engine.py.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ddpm_shared.errors import UserError
from ddpm_torch.prediction import Network

LabelledNetwork = Callable[..., Tensor]  # (x_t, t, labels=None) -> output


def condition(network: LabelledNetwork, labels: Tensor | None, scale: float = 1.0) -> Network:
    """The network of x_t and t alone, for a batch with these labels.

    output = u + scale (c - u),  c = network(x_t, t, labels),  u = network(x_t, t), which knows no label

    Scale 1 is the conditional network and 0 the unconditional one, each one evaluation; Ho and Salimans' w is
    scale - 1. All predictions are affine in each other with the same x_t, so guiding one guides them all. Of a learned
    variance, the second half of the channels, the conditional one is taken as it is.

    Args:
        network: (x_t, t, labels=None) -> [B, C or 2C, H, W].
        labels: [B] integer, or None for a network without labels.
        scale: 0 or more.

    Returns:
        (x_t [B, C, H, W], t [B]) -> output.

    Raises:
        UserError: a negative or infinite scale.

    Source: Ho and Salimans 2022 (arXiv:2207.12598), eq. 6.
    Mirror: ddpm_tf.guidance.condition.
    """
    if not 0.0 <= scale < math.inf:
        raise UserError(f"the guidance scale must be 0 or more and finite, got {scale}")
    if labels is None or scale == 0.0:
        return lambda x_t, t: network(x_t, t)
    if scale == 1.0:
        return lambda x_t, t: network(x_t, t, labels)

    def guided(x_t: Tensor, t: Tensor) -> Tensor:
        c, u = network(x_t, t, labels), network(x_t, t)
        channels = x_t.shape[1]
        output = u[:, :channels] + scale * (c[:, :channels] - u[:, :channels])
        return torch.cat([output, c[:, channels:]], dim=1)

    return guided
