"""The diffusion transformer: its tokens are patches of the image. Mirror: ddpm_torch.networks.dit.

Letters as in layers.py, but D = base_channels; N patches, P pixels the side of one.
"""

from typing import ClassVar

import keras
import tensorflow as tf

from ddpm_tf.config import ModelConfig
from ddpm_tf.networks.layers import (
    Block,
    Dense,
    LabelEmbedding,
    MultiHeadAttention,
    gelu_tanh,
    label_of_each,
    silu,
    timestep_embedding,
)

TOKEN_NORM_EPS = 1e-6  # DiT's; PyTorch would take 1e-5, Keras 1e-3


def patches(x: tf.Tensor, side: int) -> tf.Tensor:
    """Images as tokens: [B, H, W, C] -> [B, N, P*P*C], patch rows first, and in a patch row, column, channel.

    Args:
        x: whose H and W are multiples of `side`.
        side: P.

    Source: Dosovitskiy et al. 2021 (arXiv:2010.11929), section 3.1.
    Mirror: ddpm_torch.networks.dit.patches.
    """
    _, height, width, channels = x.shape
    rows, columns = height // side, width // side
    x = tf.reshape(x, [-1, rows, side, columns, side, channels])  # [B, H/P, P, W/P, P, C]
    return tf.reshape(tf.transpose(x, [0, 1, 3, 2, 4, 5]), [-1, rows * columns, side * side * channels])


def images(tokens: tf.Tensor, side: int, rows: int) -> tf.Tensor:
    """The inverse of `patches`, for images of rows * P pixels: [B, N, P*P*C] -> [B, H, W, C].

    Mirror: ddpm_torch.networks.dit.images.
    """
    columns, channels = tokens.shape[1] // rows, tokens.shape[2] // side**2
    x = tf.reshape(tokens, [-1, rows, columns, side, side, channels])  # [B, H/P, W/P, P, P, C]
    return tf.reshape(tf.transpose(x, [0, 1, 3, 2, 4, 5]), [-1, rows * side, columns * side, channels])


def positions(rows: int, columns: int, dim: int) -> tf.Tensor:
    """The fixed embedding of the places of a grid: half of it is of the row, half of the column.

    Each half is sin(p w_i), then cos(p w_i), w_i = 10000 ** (-i / quarter), i = 0 .. quarter - 1, quarter = dim / 4

    Args:
        rows: of the grid.
        columns: of the grid.
        dim: D, a multiple of 4.

    Returns:
        [rows * columns, D] float64, to be rounded by the caller.

    Source: Peebles & Xie 2023 (arXiv:2212.09748), section 3.2, as in its code, but the row first.
    Mirror: ddpm_torch.networks.dit.positions.
    """
    frequencies = 10000.0 ** (-tf.range(dim // 4, dtype=tf.float64) / (dim // 4))

    def sinusoids(count: int) -> tf.Tensor:  # [count, D / 2]
        angles = tf.range(count, dtype=tf.float64)[:, None] * frequencies
        return tf.concat([tf.sin(angles), tf.cos(angles)], axis=1)

    row = tf.repeat(sinusoids(rows), columns, axis=0)
    column = tf.tile(sinusoids(columns), [rows, 1])
    return tf.concat([row, column], axis=1)


def modulated(tokens: tf.Tensor, shift: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """norm(tokens) (1 + scale) + shift, with [B, D] of each image for all its tokens. The norm has no weights.

    Mirror: ddpm_torch.networks.dit.modulated.
    """
    return _normal(tokens) * (1.0 + scale[:, None]) + shift[:, None]


def _normal(tokens: tf.Tensor) -> tf.Tensor:
    precise = tf.cast(tokens, tf.float64 if tokens.dtype == tf.float64 else tf.float32)
    mean, variance = tf.nn.moments(precise, axes=[-1], keepdims=True)
    return tf.cast((precise - mean) * tf.math.rsqrt(variance + TOKEN_NORM_EPS), tokens.dtype)


class DiTBlock(Block):
    """A transformer block whose normalisations are set by the time and the label ("adaLN-zero").

    1. u = u + gate_1 attention(modulated(u, shift_1, scale_1))
    2. u = u + gate_2 feed_2(gelu_tanh(feed_1(modulated(u, shift_2, scale_2))))

    All six vectors are linear in silu(emb), by weights that begin at zero: so the block begins as the identity.

    Args:
        config: the network's.
        dtype: a Keras dtype policy.

    Source: Peebles & Xie 2023 (arXiv:2212.09748), section 3.2 and figure 3.
    Mirror: ddpm_torch.networks.dit.DiTBlock.
    """

    def __init__(self, config: ModelConfig, dtype: str) -> None:
        super().__init__(dtype=dtype)
        dim = config.base_channels
        self.modulation = Dense(6 * dim, dtype=dtype)
        self.attention = MultiHeadAttention(dim, config.attention_heads, dtype)
        self.feed_1 = Dense(4 * dim, dtype=dtype)
        self.feed_2 = Dense(dim, dtype=dtype)

    def call(self, tokens: tf.Tensor, emb: tf.Tensor) -> tf.Tensor:
        """[B, N, D] and silu(emb) [B, D] -> [B, N, D]."""
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = tf.split(self.modulation(emb), 6, axis=1)
        tokens = tokens + gate_1[:, None] * self.attention(modulated(tokens, shift_1, scale_1))
        h = gelu_tanh(self.feed_1(modulated(tokens, shift_2, scale_2)))
        return tokens + gate_2[:, None] * self.feed_2(h)


class DiT(keras.Model):
    """The network: patches -> transformer blocks -> patches.

    Args:
        config: sizes.
        out_channels: of the output (default: those of an image).
        dtype: a Keras dtype policy.

    Source: Peebles & Xie 2023 (arXiv:2212.09748).
    Mirror: ddpm_torch.networks.dit.DiT.
    """

    zero_at_start = ("modulation.weight", "out.weight")  # each block is the identity, the first prediction zero
    normal_at_start: ClassVar[dict[str, float]] = {}  # it has no buffers

    def __init__(self, config: ModelConfig, out_channels: int | None = None, dtype: str = "float32") -> None:
        super().__init__(dtype=dtype, autocast=False)  # x_t keeps its precision up to patch_in, and t all the way
        self.built = True  # as of a Block
        self.config = config
        dim, pixels = config.base_channels, config.patch_size**2

        # 1. Time: embedding -> two-layer MLP; the label is added to it.
        self.time_1 = Dense(dim, dtype=dtype)
        self.time_2 = Dense(dim, dtype=dtype)
        self.label = LabelEmbedding(config.num_classes, dim, dtype) if config.num_classes else None

        # 2. Tokens and blocks.
        self.patch_in = Dense(dim, dtype=dtype)
        self.blocks = [DiTBlock(config, dtype) for _ in range(config.depth)]

        # 3. Out, after one more normalisation that time and label set.
        self.modulation = Dense(2 * dim, dtype=dtype)
        self.out = Dense(pixels * (out_channels or config.image_channels), dtype=dtype)

    def call(self, x_t: tf.Tensor, t: tf.Tensor, labels: tf.Tensor | None = None) -> tf.Tensor:
        """The prediction at x_t and t, e.g. of the noise.

        Args:
            x_t: [B, H, W, C] noisy images.
            t: [B] times, whole or not.
            labels: [B] integer, 0 .. K - 1, or K for none; or [B, K + 1], weights that mix them. Without labels every
                image has none.

        Returns:
            [B, H, W, out_channels] in the dtype of x_t.

        Raises:
            UserError: labels for a network without classes.
        """
        labels = label_of_each(labels, t, self.config.num_classes)
        emb = tf.cast(timestep_embedding(t, self.config.time_channels), x_t.dtype)  # [B] -> [B, time_channels]
        emb = self.time_2(silu(self.time_1(emb)))  # -> [B, D]
        if self.label is not None:
            emb = emb + self.label(labels)
        emb = silu(emb)

        side = self.config.patch_size
        rows = self.config.image_size // side
        tokens = self.patch_in(patches(x_t, side))
        tokens = tokens + tf.cast(positions(rows, rows, self.config.base_channels), tokens.dtype)
        for block in self.blocks:
            tokens = block(tokens, emb)
        shift, scale = tf.split(self.modulation(emb), 2, axis=1)
        return tf.cast(images(self.out(modulated(tokens, shift, scale)), side, rows), x_t.dtype)
