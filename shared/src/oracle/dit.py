"""The oracle of the diffusion transformer, in float64 NumPy, on what oracle.layers has.

It goes another way than the trees: patches are cut out one by one, places are one rotation repeated by a Kronecker
product, and the six vectors of a block are six maps, each by its own rows of the weights.

Letters as in oracle.networks, but D = base_channels; N patches, P pixels the side of one. Images are [B, H, W, C].
"""

from typing import Any

import autograd.numpy as np
from numpy.typing import NDArray

from ddpm_shared.oracle.diffusion import Array
from ddpm_shared.oracle.layers import Layers, gelu_tanh, normalised
from ddpm_shared.oracle.networks import Labels, silu, timestep_embedding


def patches(x: Array, side: int) -> Array:
    """The patches of an image, row by row, each as one vector: its rows, in these its pixels, in these the channels.

    [B, H, W, C] -> [B, N, P*P*C].

    Source: Dosovitskiy et al. 2021 (arXiv:2010.11929), section 3.1.
    """
    corners = [(top, left) for top in range(0, x.shape[1], side) for left in range(0, x.shape[2], side)]
    cut = [x[:, top : top + side, left : left + side] for top, left in corners]
    return np.stack([np.reshape(patch, (len(x), -1)) for patch in cut], axis=1)


def images(tokens: Array, side: int, rows: int) -> Array:
    """The patches put together again, `rows` rows of them: [B, N, P*P*C] -> [B, H, W, C]."""
    columns = tokens.shape[1] // rows

    def row(first: int) -> Array:
        cut = [np.reshape(tokens[:, first + i], (len(tokens), side, side, -1)) for i in range(columns)]
        return np.concatenate(cut, axis=2)

    return np.concatenate([row(columns * i) for i in range(rows)], axis=1)


def positions(rows: int, columns: int, dim: int) -> Array:
    """Sines, then cosines, of the row; then those of the column; at frequencies from 1 to almost 1/10000.

    Frequency i is 10000^(-i / (dim/4)). Sine and cosine are the two sides of one rotation, exp(1j p w).

    Returns:
        [rows * columns, dim].

    Source: Peebles & Xie 2023 (arXiv:2212.09748), section 3.2.
    """
    frequencies = 10_000.0 ** -np.linspace(0, 1, dim // 4, endpoint=False)
    row, column = (np.exp(1j * np.outer(np.arange(count), frequencies)) for count in (rows, columns))
    row, column = np.kron(row, np.ones((columns, 1))), np.kron(np.ones((rows, 1)), column)
    return np.concatenate([row.imag, row.real, column.imag, column.real], axis=1)


def modulated(tokens: Array, shift: Array, scale: Array) -> Array:
    """Normalised tokens, with an epsilon of 1e-6, times 1 + scale, plus shift: [B, N, D], [B, D], [B, D] -> [B, N, D].

    Source: Peebles & Xie 2023 (arXiv:2212.09748), section 3.2.
    """
    return np.einsum("bnd,bd->bnd", normalised(tokens, 1e-6), 1 + scale) + np.expand_dims(shift, 1)


class DiTNetwork(Layers):
    """eps_model(x_t, t, labels) of a ModelConfig of "dit", and each of its layers alone.

    Args:
        parameters: canonical name -> array in the canonical layout.
        config: the network's; a layer alone takes only attention_heads from it.

    Source: Peebles & Xie 2023 (arXiv:2212.09748).
    """

    def modulation(self, name: str, emb: Array, count: int) -> list[Array]:
        """So many vectors, each by its own rows of the map: [B, D] -> [B, D] each."""
        weight, bias = self._weight_and_bias(name)
        rows = zip(np.split(weight, count), np.split(bias * np.ones(len(weight)), count), strict=True)
        vectors = [np.dot(emb, own_weight.T) + own_bias for own_weight, own_bias in rows]
        self._record(name, np.concatenate(vectors, axis=1))
        return vectors

    def block(self, name: str, tokens: Array, emb: Array) -> Array:
        """The sum of the tokens, of gated attention, and of a gated feed-forward part. emb has gone through silu.

        [B, N, D], [B, D] -> [B, N, D].

        Source: Peebles & Xie 2023 (arXiv:2212.09748), section 3.2 and figure 3.
        """
        vectors = self.modulation(f"{name}.modulation", emb, 6)
        (shift_1, scale_1, gate_1), (shift_2, scale_2, gate_2) = vectors[:3], vectors[3:]
        normal = modulated(tokens, shift_1, scale_1)
        attended = self.multi_head_attention(f"{name}.attention", normal, self.config.attention_heads)
        tokens = tokens + np.expand_dims(gate_1, 1) * attended
        inner = gelu_tanh(self.linear(f"{name}.feed_1", modulated(tokens, shift_2, scale_2)))  # [B, N, 4 D]
        return self._record(name, tokens + np.expand_dims(gate_2, 1) * self.linear(f"{name}.feed_2", inner))

    def __call__(self, x_t: Array, t: NDArray[Any], labels: Labels | None = None) -> Array:
        """[B, H, W, C] noisy images, [B] times, [B] or [B, K + 1] labels -> [B, H, W, C] prediction.

        Raises:
            IndexError: a label that is none of the network's.
            KeyError: a weight is missing.
            UserError: a bias is missing, there are more parameters than the config's, or labels for no classes.
        """
        self._begin(labels)
        emb = self.linear("time_1", timestep_embedding(t, self.config.time_channels))
        emb = silu(self._with_label(self.linear("time_2", silu(emb)), labels))
        side = self.config.patch_size
        rows = x_t.shape[1] // side
        tokens = self.linear("patch_in", patches(x_t, side)) + positions(rows, rows, self.config.base_channels)
        for i in range(self.config.depth):
            tokens = self.block(f"blocks.{i}", tokens, emb)
        output = images(self.linear("out", modulated(tokens, *self.modulation("modulation", emb, 2))), side, rows)
        self._require_all_used()
        return output
