"""The oracle of the conditional score model's network, in float64 NumPy, on what oracle.layers has.

It goes another way than the trees: Fourier features are one rotation; the network is a recursion over its levels.

Letters as in oracle.networks, but D = channels of the deepest level; and N and M tokens. Images are [B, H, W, C].
"""

from collections.abc import Mapping
from typing import Any

import autograd.numpy as np
from numpy.typing import NDArray

from ddpm_shared.config import ModelConfig
from ddpm_shared.oracle.diffusion import Array
from ddpm_shared.oracle.layers import Layers, gelu
from ddpm_shared.oracle.networks import Labels, _float64, gradients_of, softmax


def fourier_features(t: NDArray[Any], frequencies: Array) -> Array:
    """The sines, then the cosines, of 2 pi w t: both sides of one rotation, exp(2j pi w t).

    Args:
        t: [B] times.
        frequencies: [half], in periods per unit of time.

    Returns:
        [B, 2 half], in [-1, 1].

    Source: Tancik et al. 2020 (arXiv:2006.10739), eq. 3.
    """
    rotation = np.exp(2j * np.pi * np.outer(_float64(t), _float64(frequencies)))  # [B, half]
    return np.concatenate([rotation.imag, rotation.real], axis=1)


class TransformerNetwork(Layers):
    """eps_model(x_t, t, labels) of a ModelConfig of "transformer_unet", and each of its layers alone.

    Args:
        parameters: canonical name -> array in the canonical layout.
        config: the network's; a layer alone takes only num_groups from it.
        frequencies: [D / 2], the buffer "fourier.frequencies"; a layer alone needs none.

    Source: Song et al. 2021 (arXiv:2011.13456); Rombach et al. 2022 (arXiv:2112.10752), section 3.3.
    """

    def __init__(
        self, parameters: Mapping[str, NDArray[Any]], config: ModelConfig, frequencies: Array | None = None
    ) -> None:
        super().__init__(parameters, config)
        self.frequencies = frequencies

    def attention(self, name: str, tokens: Array, context: Array) -> Array:
        """The mean of v over the context, weighted by softmax(q k^T / sqrt(C)); q comes from the tokens.

        [B, N, C], [B, M, D] -> [B, N, C].

        Source: Vaswani et al. 2017 (arXiv:1706.03762), eq. 1, with one head.
        """
        q = self.linear(f"{name}.query", tokens)
        k, v = (self.linear(f"{name}.{role}", context) for role in ("key", "value"))
        weights = softmax(np.einsum("bic,bjc->bij", q, k) / np.sqrt(q.shape[2]))  # [B, N, M]
        return self._record(name, np.einsum("bij,bjc->bic", weights, v))

    def spatial_transformer(self, name: str, x: Array, context: Array) -> Array:
        """The sum x + u; u is x with three residual parts: self-attention, cross-attention, feed-forward.

        [B, H, W, C], [B, M, D] -> [B, H, W, C].

        Source: Rombach et al. 2022 (arXiv:2112.10752), section 3.3.
        """
        u = np.reshape(x, (x.shape[0], -1, x.shape[3]))  # [B, H*W, C]
        normal = self.layer_norm(f"{name}.norm_1", u)
        u = u + self.attention(f"{name}.self_attention", normal, normal)
        u = u + self.attention(f"{name}.cross_attention", self.layer_norm(f"{name}.norm_2", u), context)
        inner = gelu(self.linear(f"{name}.feed_1", self.layer_norm(f"{name}.norm_3", u)))  # [B, H*W, 4 C]
        u = u + self.linear(f"{name}.feed_2", inner)
        return self._record(name, x + np.reshape(u, x.shape))

    def level(self, name: str, x: Array, emb: Array, context: Array, transformer: bool) -> Array:
        """The result of gelu(norm(x + time(emb))), and of the transformer after it, if there is one.

        [B, H, W, C], [B, D], [B, M, D] -> [B, H, W, C].
        """
        h = gelu(self.group_norm(f"{name}.norm", x + self.linear(f"{name}.time", emb)[:, None, None, :]))
        return self._record(name, self.spatial_transformer(f"{name}.transformer", h, context) if transformer else h)

    def _below(self, level: int, x: Array, emb: Array, context: Array) -> Array:
        """The U from one level downwards; what its own level gave waits beside what comes up."""
        last, size = len(self.config.channel_mults) - 1, self.config.resolutions[level]
        h = self.level(f"down.{2 * level}", x, emb, context, size in self.config.resolutions[-2:])
        if level == last:
            return h
        below = self._below(level + 1, self.downsample(f"down.{2 * level + 1}", h), emb, context)
        up = 2 * (last - 1 - level)
        y = self.level(f"up.{up + 1}", self.transposed_convolution(f"up.{up}", below, size, size), emb, context, False)
        return np.concatenate([y, h], axis=3)

    def __call__(self, x_t: Array, t: NDArray[Any], labels: Labels | None = None) -> Array:
        """[B, H, W, C] noisy images, [B] times, [B] or [B, K + 1] labels -> [B, H, W, C] prediction.

        Raises:
            IndexError: a label that is none of the network's.
            KeyError: a weight is missing.
            UserError: a bias is missing, there are more parameters than the config's, or labels for no classes.
        """
        self._begin(labels)
        assert self.frequencies is not None
        emb = self.linear("time", self._record("fourier", fourier_features(t, self.frequencies)))
        nothing = np.repeat(self.config.num_classes, len(x_t))
        given = [nothing if labels is None else labels, nothing][: self.config.context_tokens]
        context = np.stack([self.label_embedding("label", each) for each in given], axis=1)  # [B, M, D]
        output = self.convolution("conv_out", self._below(0, self.convolution("conv_in", x_t), gelu(emb), context))
        self._require_all_used()
        return output


def loss_and_gradients(
    config: ModelConfig,
    parameters: Mapping[str, NDArray[Any]],
    frequencies: Array,
    x_t: Array,
    t: NDArray[Any],
    target: Array,
    labels: Labels | None = None,
) -> tuple[float, dict[str, Array]]:
    """The mean of (target - output)^2 over all elements, and its gradient with respect to every parameter.

    Source: Ho et al. 2020 (arXiv:2006.11239), eq. 14.
    """

    def loss(parameters: Mapping[str, Array]) -> Array:
        error = target - TransformerNetwork(parameters, config, frequencies)(x_t, t, labels)
        return np.mean(error * error)

    value, gradients = gradients_of(loss, parameters)
    return float(value), gradients
