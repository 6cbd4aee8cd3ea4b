"""The oracle of the network of two convolutions, in float64 NumPy, on what oracle.networks has.

Letters as in oracle.networks. Images are [B, H, W, C].
"""

from typing import Any

import autograd.numpy as np
from numpy.typing import NDArray

from ddpm_shared.oracle.diffusion import Array
from ddpm_shared.oracle.layers import ACTIVATIONS
from ddpm_shared.oracle.networks import Labels, Network, timestep_embedding


class DenoiseNetwork(Network):
    """eps_model(x_t, t, labels) of a ModelConfig of "denoise_net".

    Args:
        parameters: canonical name -> array in the canonical layout.
        config: the network's.

    Source: lecture notes that ask the reader to add the time.
    """

    def __call__(self, x_t: Array, t: NDArray[Any], labels: Labels | None = None) -> Array:
        """[B, H, W, C] noisy images, [B] times, [B] or [B, K + 1] labels -> [B, H, W, C] prediction.

        What time and label add to each channel is one vector, the bias of that image.

        Raises:
            IndexError: a label that is none of the network's.
            KeyError: a weight is missing.
            UserError: a bias is missing, there are more parameters than the config's, or labels for no classes.
        """
        self._begin(labels)
        bias = np.zeros((len(x_t), self.config.base_channels))
        if self.config.uses_time:
            bias = self.linear("time", timestep_embedding(t, self.config.time_channels))
        bias = self._with_label(bias, labels)
        h = self.convolution("conv_in", x_t) + bias[:, None, None, :]
        output = self.convolution("conv_out", ACTIVATIONS[self.config.activation](h))
        self._require_all_used()
        return output
