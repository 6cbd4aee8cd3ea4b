"""The oracle of the U-Net of convolutions alone, in float64 NumPy, on what oracle.layers has.

It goes another way than the trees: a doubling is the transposed matrices of the convolution that halves, and the
network is a recursion over its levels.

Letters as in oracle.networks, but D = channels of the deepest level. Images are [B, H, W, C].
"""

from typing import Any

import autograd.numpy as np
from numpy.typing import NDArray

from ddpm_shared.oracle.diffusion import Array
from ddpm_shared.oracle.layers import ACTIVATIONS, Layers
from ddpm_shared.oracle.networks import Labels, silu


class SimpleNetwork(Layers):
    """eps_model(x_t, t, labels) of a ModelConfig of "simple_unet", and each of its layers alone.

    Args:
        parameters: canonical name -> array in the canonical layout.
        config: the network's; a layer alone takes nothing from it.

    Source: Ronneberger et al. 2015 (arXiv:1505.04597), as short sketches of diffusion models simplify it.
    """

    def doubling(self, name: str, x: Array, height: int, width: int) -> Array:
        """The adjoint of the convolution of 4 x 4 that takes [2H, 2W] to [H, W], less what is beyond [height, width].

        [B, H, W, C] -> [B, height, width, O].

        Source: Dumoulin & Visin 2016 (arXiv:1603.07285), section 4.
        """
        whole = self.transposed_convolution(name, x, 2 * x.shape[1], 2 * x.shape[2])
        return self._record(name, whole[:, :height, :width])

    def _below(self, level: int, h: Array, emb: Array) -> Array:
        """The U from one level downwards: [B, H, W, C] of that level -> what goes up from it, of the same size."""
        f, last, size = ACTIVATIONS[self.config.activation], len(self.config.channel_mults) - 1, h.shape[1]
        if level == last:
            h = h + emb[:, None, None, :]
            return f(self.convolution("middle.1", f(self.convolution("middle.0", h))))
        below = self._below(level + 1, f(self.downsample(f"down.{level}", h)), emb)
        return np.concatenate([f(self.doubling(f"up.{last - 1 - level}", below, size, size)), h], axis=3)

    def __call__(self, x_t: Array, t: NDArray[Any], labels: Labels | None = None) -> Array:
        """[B, H, W, C] noisy images, [B] times, [B] or [B, K + 1] labels -> [B, H, W, C] prediction.

        Raises:
            IndexError: a label that is none of the network's.
            KeyError: a weight is missing.
            UserError: a bias is missing, there are more parameters than the config's, or labels for no classes.
        """
        self._begin(labels)
        thousandths = np.reshape(t, (-1, 1)) / 1000
        emb = self._with_label(self.linear("time_2", silu(self.linear("time_1", thousandths))), labels)  # [B, D]
        h = ACTIVATIONS[self.config.activation](self.convolution("conv_in", x_t))
        output = self.convolution("conv_out", self._below(0, h, emb))
        self._require_all_used()
        return output
