"""The oracle of the residual U-Net with BatchNorm, in float64 NumPy, on what oracle.layers has.

It goes another way than the trees: BatchNorm works on the matrix of all pixels of all images; what it remembers is a
weighted mean of the whole history; the network is a recursion over its levels. The gradients are autograd's, which go
through the moments of a batch as through everything else.

Letters as in oracle.networks, but D = channels of the deepest level. Images are [B, H, W, C].
"""

from collections.abc import Mapping, Sequence
from typing import Any

import autograd.numpy as np
from numpy.typing import NDArray

from ddpm_shared.config import ModelConfig
from ddpm_shared.oracle.diffusion import Array
from ddpm_shared.oracle.layers import ACTIVATIONS, Layers
from ddpm_shared.oracle.networks import Labels, _float64, gradients_of, timestep_embedding

NEW = 0.1  # weight of the new moments in the running ones


def running(start: Array, batches: Sequence[Array]) -> Array:
    """What r = 0.9 r + 0.1 b has become after all batches b, as one weighted sum: the newest batch is 0 steps old.

    Source: Ioffe & Szegedy 2015 (arXiv:1502.03167), section 3.1.
    """
    ages = np.arange(len(batches))[::-1]
    result: Array = (1 - NEW) ** len(batches) * start + NEW * np.tensordot((1 - NEW) ** ages, np.array(batches), 1)
    return result


class ResidualNetwork(Layers):
    """eps_model(x_t, t, labels) of a ModelConfig of "residual_unet", and each of its layers alone.

    `batch_moments` holds those of the last call in training, by the names of the buffers that take them in; there the
    variance is the unbiased one.

    Args:
        parameters: canonical name -> array in the canonical layout.
        config: the network's; a layer alone takes only its activation and its heads.
        moments: canonical name of a buffer -> [C], for the network in use. Without them it is in training.

    Source: He et al. 2016 (arXiv:1512.03385); Ioffe & Szegedy 2015 (arXiv:1502.03167).
    """

    without_bias = (".key", "label", ".conv_1", ".conv_2", ".skip")

    def __init__(
        self,
        parameters: Mapping[str, NDArray[Any]],
        config: ModelConfig,
        moments: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        super().__init__(parameters, config)
        self.moments = moments
        self.batch_moments: dict[str, Array] = {}
        self.activation = ACTIVATIONS[config.activation]

    def batch_norm(self, name: str, x: Array) -> Array:
        """Normalise each channel by its moments over all pixels of all images, or by those given.

            y = weight (x - mean) / sqrt(variance + 1e-5) + bias        variance = mean((x - mean)^2), the biased one

        [B, H, W, C] -> [B, H, W, C]; weight and bias are [C].

        Source: Ioffe & Szegedy 2015 (arXiv:1502.03167), algorithms 1 and 2.
        """
        weight, bias = self._weight_and_bias(name)
        pixels = np.reshape(_float64(x), (-1, x.shape[3]))  # [B*H*W, C]
        names = f"{name}.running_mean", f"{name}.running_var"
        if self.moments is None:
            mean = np.mean(pixels, axis=0)
            squares = np.sum((pixels - mean) ** 2, axis=0)
            variance = squares / len(pixels)
            unbiased = squares / max(len(pixels) - 1, 1)
            self.batch_moments |= dict(zip(names, (mean, unbiased), strict=True))
        else:
            mean, variance = (_float64(self.moments[name]) for name in names)
        normal = (pixels - mean) / np.sqrt(variance + 1e-5)
        return self._record(name, np.reshape(normal * weight + bias, x.shape))

    def block(self, name: str, x: Array, stride: int) -> Array:
        """The result of f(norm_2(conv_2(h)) + skip(x)), where h = f(norm_1(conv_1(x))) and f is the activation.

        [B, H, W, C_in] -> [B, ceil(H / stride), ceil(W / stride), C_out]; skip is the identity where nothing changes.

        Source: He et al. 2016 (arXiv:1512.03385), section 3.
        """
        h = self.activation(self.batch_norm(f"{name}.norm_1", self.convolution(f"{name}.conv_1", x, stride)))
        h = self.batch_norm(f"{name}.norm_2", self.convolution(f"{name}.conv_2", h))
        if stride > 1 or h.shape[3] != x.shape[3]:
            x = self.batch_norm(f"{name}.norm_skip", self.convolution(f"{name}.skip", x, stride))
        return self._record(name, self.activation(h + x))

    def deep_attention(self, name: str, x: Array) -> Array:
        """The sum x + attention(norm(x)), the tokens being the pixels: [B, H, W, C] -> [B, H, W, C]."""
        normal = self.layer_norm(f"{name}.norm", np.reshape(x, (x.shape[0], -1, x.shape[3])))  # [B, H*W, C]
        y = self.multi_head_attention(f"{name}.attention", normal, self.config.attention_heads)
        return self._record(name, x + np.reshape(y, x.shape))

    def _below(self, level: int, x: Array, emb: Array) -> Array:
        """The U from one level downwards; what its own block gave waits beside what comes up."""
        last, size = len(self.config.channel_mults) - 1, self.config.resolutions[level]
        h = self.block(f"down.{level}", x, 2 if level else 1)
        if level == last:
            h = h + emb[:, None, None, :]
            for i in range(self.config.attention_blocks):
                h = self.deep_attention(f"middle.{i}", h)
            return h
        up = 2 * (last - 1 - level)
        risen = self.transposed_convolution(f"up.{up}", self._below(level + 1, h, emb), size, size)
        return self.block(f"up.{up + 1}", np.concatenate([risen, h], axis=3), 1)

    def __call__(self, x_t: Array, t: NDArray[Any], labels: Labels | None = None) -> Array:
        """[B, H, W, C] noisy images, [B] times, [B] or [B, K + 1] labels -> [B, H, W, C] prediction.

        Raises:
            IndexError: a label that is none of the network's.
            KeyError: a weight is missing.
            UserError: a bias is missing, there are more parameters than the config's, or labels for no classes.
        """
        self._begin(labels)
        self.batch_moments = {}
        emb = timestep_embedding(t, self.config.time_channels)
        emb = self._with_label(self.linear("time_2", self.activation(self.linear("time_1", emb))), labels)
        output = self.convolution("conv_out", self._below(0, self.convolution("conv_in", x_t), emb))
        self._require_all_used()
        return output


def loss_and_gradients(
    config: ModelConfig,
    parameters: Mapping[str, NDArray[Any]],
    x_t: Array,
    t: NDArray[Any],
    target: Array,
    labels: Labels | None = None,
    moments: Mapping[str, NDArray[Any]] | None = None,
) -> tuple[float, dict[str, Array]]:
    """The mean of (target - output)^2 over all elements, and its gradient with respect to every parameter.

    Source: Ho et al. 2020 (arXiv:2006.11239), eq. 14.
    """

    def loss(parameters: Mapping[str, Array]) -> Array:
        error = target - ResidualNetwork(parameters, config, moments)(x_t, t, labels)
        return np.mean(error * error)

    value, gradients = gradients_of(loss, parameters)
    return float(value), gradients
