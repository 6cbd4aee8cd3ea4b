"""The oracle of classifier-free guidance, in float64 NumPy: a weighted mean of two predictions, extrapolated."""

from collections.abc import Callable

import numpy as np

from ddpm_shared.oracle.diffusion import Array, Timesteps
from ddpm_shared.oracle.prediction import Network


def condition(network: Callable[..., Array], labels: Array | None, scale: float = 1.0) -> Network:
    """The network of x_t and t alone: (1 - scale) of the unconditional prediction and scale of the conditional one.

    Args:
        network: (x_t, t, labels=None) -> [B, ..., C or 2C].
        labels: [B, ...], or None.
        scale: 1 is the conditional network, 0 the unconditional one.

    Source: Ho and Salimans 2022 (arXiv:2207.12598), eq. 6, with w = scale - 1.
    """

    def mixed(x_t: Array, t: Timesteps) -> Array:
        if labels is None:
            return network(x_t, t)
        channels = x_t.shape[-1]
        conditional, unconditional = network(x_t, t, labels), network(x_t, t)
        mean = np.tensordot([1 - scale, scale], np.stack([unconditional, conditional]), axes=1)
        # A learned variance is not mixed; where nothing is conditional it is the unconditional one.
        variance = (conditional if scale else unconditional)[..., channels:]
        return np.concatenate([mean[..., :channels], variance], axis=-1)

    return mixed
