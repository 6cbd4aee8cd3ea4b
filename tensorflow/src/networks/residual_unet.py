"""A U-Net of residual blocks with BatchNorm, and deep attention. Mirror: ddpm_torch.networks.residual_unet.

Letters as in layers.py, but D = channels of the deepest level.
"""

from typing import ClassVar

import keras
import tensorflow as tf
from keras import layers

from ddpm_tf.config import ModelConfig
from ddpm_tf.networks.layers import (
    ACTIVATIONS,
    BatchNorm,
    Block,
    Conv2D,
    Dense,
    LabelEmbedding,
    LayerNorm,
    MultiHeadAttention,
    TransposedConvolution,
    label_of_each,
    timestep_embedding,
)


class BatchNormBlock(Block):
    """h = f(norm_1(conv_1(x)));  y = f(norm_2(conv_2(h)) + skip(x)), f the activation.

    No convolution has a bias: the normalisation after it would take it away again, and its gradient would be rounding
    noise, which Adam amplifies.

    Args:
        in_channels: C of x.
        out_channels: C of y.
        stride: 1, or 2 for half the size, odd sizes rounded up. Where size or channels change, skip is a 1x1
            convolution with a normalisation, else the identity.
        config: the network's.
        dtype: a Keras dtype policy.

    Source: He et al. 2016 (arXiv:1512.03385), section 3.
    Mirror: ddpm_torch.networks.residual_unet.BatchNormBlock.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, config: ModelConfig, dtype: str) -> None:
        super().__init__(dtype=dtype)
        self.activation = ACTIVATIONS[config.activation]
        self.pad = layers.ZeroPadding2D(1, data_format="channels_last", dtype=dtype)  # as in Downsample
        self.conv_1 = Conv2D(out_channels, 3, strides=stride, padding="valid", use_bias=False, dtype=dtype)
        self.norm_1 = BatchNorm(out_channels, dtype)
        self.conv_2 = Conv2D(out_channels, 3, padding="same", use_bias=False, dtype=dtype)
        self.norm_2 = BatchNorm(out_channels, dtype)
        changes = stride > 1 or in_channels != out_channels
        self.skip = Conv2D(out_channels, 1, strides=stride, use_bias=False, dtype=dtype) if changes else None
        self.norm_skip = BatchNorm(out_channels, dtype) if changes else None

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C_in] -> [B, ceil(H / stride), ceil(W / stride), C_out]."""
        h = self.activation(self.norm_1(self.conv_1(self.pad(x))))
        h = self.norm_2(self.conv_2(h))
        if self.skip is not None and self.norm_skip is not None:
            x = self.norm_skip(self.skip(x))
        return self.activation(h + x)


class DeepAttention(Block):
    """y = x + attention(norm(x)), the tokens being the pixels.

    Mirror: ddpm_torch.networks.residual_unet.DeepAttention.
    """

    def __init__(self, channels: int, heads: int, dtype: str) -> None:
        super().__init__(dtype=dtype)
        self.norm = LayerNorm(dtype=dtype)
        self.attention = MultiHeadAttention(channels, heads, dtype)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C] -> [B, H, W, C]."""
        _, height, width, channels = x.shape
        tokens = tf.reshape(x, [-1, height * width, channels])  # [B, H, W, C] -> [B, H*W, C]
        tokens = tokens + self.attention(self.norm(tokens))
        return tf.reshape(tokens, [-1, height, width, channels])  # [B, H*W, C] -> [B, H, W, C]


class ResidualUNet(keras.Model):
    """The network: a residual block per level down and up. Time and label enter at the deepest level alone.

    Args:
        config: sizes.
        out_channels: of the output (default: those of an image).
        dtype: a Keras dtype policy.

    Source: Ronneberger et al. 2015 (arXiv:1505.04597) and He et al. 2016 (arXiv:1512.03385), as many tutorials join
        them; Vaswani et al. 2017 (arXiv:1706.03762) for the attention and the embedding of t.
    Mirror: ddpm_torch.networks.residual_unet.ResidualUNet.
    """

    zero_at_start = ("project.weight", "conv_out.weight")  # so that the first prediction is zero, as UNet's
    normal_at_start: ClassVar[dict[str, float]] = {}  # its buffers begin as 0 and 1

    def __init__(self, config: ModelConfig, out_channels: int | None = None, dtype: str = "float32") -> None:
        super().__init__(dtype=dtype, autocast=False)  # x_t keeps its precision up to conv_in, and t all the way
        self.built = True  # as of a Block
        self.config = config
        self.activation = ACTIVATIONS[config.activation]
        widths, sizes = [config.base_channels * mult for mult in config.channel_mults], config.resolutions
        dim = widths[-1]  # D

        # 1. Time: embedding -> two-layer MLP; the label is added to it.
        self.time_1 = Dense(dim, dtype=dtype)
        self.time_2 = Dense(dim, dtype=dtype)
        self.label = LabelEmbedding(config.num_classes, dim, dtype) if config.num_classes else None

        # 2. Down: what leaves each level waits for the way up.
        self.conv_in = Conv2D(widths[0], 3, padding="same", dtype=dtype)
        self.down = []
        for level, width in enumerate(widths):
            self.down.append(BatchNormBlock(widths[max(level - 1, 0)], width, 1 if level == 0 else 2, config, dtype))

        # 3. Middle, at the smallest size.
        self.middle = [DeepAttention(dim, config.attention_heads, dtype) for _ in range(config.attention_blocks)]

        # 4. Up: each block takes the last waiting tensor beside what the transposed convolution gives.
        self.up = []
        for level in reversed(range(len(widths) - 1)):
            self.up.append(TransposedConvolution(widths[level + 1], widths[level], 1 - sizes[level] % 2, dtype))
            self.up.append(BatchNormBlock(2 * widths[level], widths[level], 1, config, dtype))

        # 5. Out.
        self.conv_out = Conv2D(out_channels or config.image_channels, 3, padding="same", dtype=dtype)

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
        emb = self.time_2(self.activation(self.time_1(emb)))  # -> [B, D]
        if self.label is not None:
            emb = emb + self.label(labels)

        h = self.conv_in(x_t)
        skips = []
        for block in self.down:
            h = block(h)
            skips.append(h)
        skips.pop()  # the deepest level is h itself
        h = h + emb[:, None, None, :]  # [B, D] over all pixels
        for block in self.middle:
            h = block(h)
        for block in self.up:
            h = tf.concat([block(h), skips.pop()], axis=-1) if isinstance(block, TransposedConvolution) else block(h)

        return tf.cast(self.conv_out(h), x_t.dtype)
