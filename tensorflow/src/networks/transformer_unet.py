"""The U-Net of the conditional score model, with spatial transformers. Mirror: ddpm_torch.networks.transformer_unet.

Letters as in layers.py, but D = channels of the deepest level; and M tokens of the context.
"""

import math

import keras
import tensorflow as tf
from keras import layers

from ddpm_shared.errors import UserError
from ddpm_tf.config import ModelConfig
from ddpm_tf.networks.layers import (
    Block,
    Conv2D,
    Dense,
    Downsample,
    GroupNorm,
    LabelEmbedding,
    LayerNorm,
    TransposedConvolution,
    gelu,
)


class FourierFeatures(layers.Layer):
    """Sinusoids of the diffusion time at random frequencies, which stay as they were drawn.

    y[i] = sin(2 pi w_i t), y[half + i] = cos(2 pi w_i t), w_i ~ N(0, scale^2), half = dim / 2

    The frequencies are a buffer: a checkpoint holds them, but they are neither trained nor averaged. Angles are of the
    order of 2 pi scale t, so in float32 their sines would be off in the fifth digit; they are computed in float64.

    Args:
        dim: even.
        dtype: a Keras dtype policy.

    Source: Tancik et al. 2020 (arXiv:2006.10739), eq. 3; Song et al. 2021 (arXiv:2011.13456), appendix H.
    Mirror: ddpm_torch.networks.transformer_unet.FourierFeatures.
    """

    frequencies: keras.Variable

    def __init__(self, dim: int, dtype: str) -> None:
        super().__init__(dtype=dtype, autocast=False)  # Keras would round t
        self.built = True
        self.frequencies = self.add_weight(
            name="frequencies", shape=(dim // 2,), initializer="zeros", trainable=False, autocast=False
        )

    def call(self, t: tf.Tensor) -> tf.Tensor:
        """[B] times, real or integer -> [B, dim] float64, to be rounded by the caller."""
        frequencies = tf.cast(self.frequencies, tf.float64)
        angles = 2.0 * math.pi * tf.cast(t, tf.float64)[:, None] * frequencies[None, :]  # [B] -> [B, half]
        return tf.concat([tf.sin(angles), tf.cos(angles)], axis=1)


class Attention(Block):
    """Every token looks at the tokens of a context: softmax(q k^T / sqrt(C)) v.

    Here q is linear in the tokens, k and v are linear in the context. Of a context of one token the softmax is 1,
    whatever q and k are: their gradient is exactly zero. The key has no bias, as in AttentionBlock.

    Args:
        channels: C of the tokens and of the result.
        context_channels: those of the context.
        dtype: a Keras dtype policy.

    Source: Vaswani et al. 2017 (arXiv:1706.03762), eq. 1, with one head.
    Mirror: ddpm_torch.networks.transformer_unet.Attention.
    """

    def __init__(self, channels: int, context_channels: int, dtype: str) -> None:
        super().__init__(dtype=dtype)
        self.query = Dense(channels, dtype=dtype)
        self.key = Dense(channels, use_bias=False, dtype=dtype)
        self.value = Dense(channels, dtype=dtype)

    def call(self, tokens: tf.Tensor, context: tf.Tensor) -> tf.Tensor:
        """[B, N, C] and [B, M, context_channels] -> [B, N, C]."""
        q, k, v = self.query(tokens), self.key(context), self.value(context)
        weights = tf.nn.softmax(tf.matmul(q, k, transpose_b=True) / math.sqrt(q.shape[2]), axis=-1)  # [B, N, M]
        return tf.matmul(weights, v)


class SpatialTransformer(Block):
    """A transformer block whose tokens are the pixels, and whose context is what is to be drawn.

    1. u = u + self_attention(norm_1(u)): pixels look at each other
    2. u = u + cross_attention(norm_2(u), context): and at the context
    3. u = u + feed_2(gelu(feed_1(norm_3(u)))): each pixel by itself, through 4 C values
    4. y = x + u, with u = x at the start

    Args:
        channels: C.
        context_channels: D, those of the context.
        dtype: a Keras dtype policy.

    Source: Rombach et al. 2022 (arXiv:2112.10752), section 3.3 and appendix E.2.1; Vaswani et al. 2017
        (arXiv:1706.03762), section 3.3, with the normalisation before each part.
    Mirror: ddpm_torch.networks.transformer_unet.SpatialTransformer.
    """

    def __init__(self, channels: int, context_channels: int, dtype: str) -> None:
        super().__init__(dtype=dtype)
        self.norm_1 = LayerNorm(dtype=dtype)
        self.self_attention = Attention(channels, channels, dtype)
        self.norm_2 = LayerNorm(dtype=dtype)
        self.cross_attention = Attention(channels, context_channels, dtype)
        self.norm_3 = LayerNorm(dtype=dtype)
        self.feed_1 = Dense(4 * channels, dtype=dtype)
        self.feed_2 = Dense(channels, dtype=dtype)

    def call(self, x: tf.Tensor, context: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C] and [B, M, D] -> [B, H, W, C]."""
        _, height, width, channels = x.shape
        tokens = tf.reshape(x, [-1, height * width, channels])  # [B, H, W, C] -> [B, H*W, C]
        normal = self.norm_1(tokens)
        tokens = tokens + self.self_attention(normal, normal)
        tokens = tokens + self.cross_attention(self.norm_2(tokens), context)
        tokens = tokens + self.feed_2(gelu(self.feed_1(self.norm_3(tokens))))
        return x + tf.reshape(tokens, [-1, height, width, channels])  # [B, H*W, C] -> [B, H, W, C]


class Level(Block):
    """What follows each convolution: y = gelu(norm(x + time(emb))), then a transformer at the levels that have it.

    Mirror: ddpm_torch.networks.transformer_unet.Level.
    """

    def __init__(self, channels: int, emb_channels: int, transformer: bool, config: ModelConfig, dtype: str) -> None:
        super().__init__(dtype=dtype)
        self.time = Dense(channels, dtype=dtype)
        self.norm = GroupNorm(config.num_groups, dtype)
        self.transformer = SpatialTransformer(channels, emb_channels, dtype) if transformer else None

    def call(self, x: tf.Tensor, emb: tf.Tensor, context: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C], [B, D] and [B, M, D] -> [B, H, W, C]."""
        h = gelu(self.norm(x + self.time(emb)[:, None, None, :]))  # [B, C] over all pixels
        return h if self.transformer is None else self.transformer(h, context)


class TransformerUNet(keras.Model):
    """The network: one convolution per level down and up, and transformers at the two deepest levels on the way down.

    The context of their cross-attention is the class: one token, its row of a table. With context_tokens = 2, a second
    token is the table's last row, the null label's; only then has the softmax something to choose from. A network
    without classes has a table of that row alone.

    Args:
        config: sizes. Its attention_resolutions are the sizes of the two deepest levels.
        out_channels: of the output (default: those of an image).
        dtype: a Keras dtype policy.

    Source: Song et al. 2021 (arXiv:2011.13456), and the tutorials to it, for the convolutions and the time; Rombach et
        al. 2022 (arXiv:2112.10752), section 3.3, for the transformers and the context.
    Mirror: ddpm_torch.networks.transformer_unet.TransformerUNet.
    """

    zero_at_start = ("conv_out.weight",)  # so that the first prediction is zero, as UNet's

    def __init__(self, config: ModelConfig, out_channels: int | None = None, dtype: str = "float32") -> None:
        super().__init__(dtype=dtype, autocast=False)  # x_t keeps its precision up to conv_in, and t all the way
        self.built = True  # as of a Block
        self.config = config
        widths, sizes = [config.base_channels * mult for mult in config.channel_mults], config.resolutions
        dim = widths[-1]  # D

        # 1. Time: random sinusoids -> one linear map. Context: the table of classes.
        self.fourier = FourierFeatures(dim, dtype)
        self.time = Dense(dim, dtype=dtype)
        self.label = LabelEmbedding(config.num_classes, dim, dtype)

        # 2. Down: what leaves each level waits for the way up.
        self.conv_in = Conv2D(widths[0], 3, padding="same", dtype=dtype)
        self.down = []
        for level, width in enumerate(widths):
            if level > 0:
                self.down.append(Downsample(widths[level - 1], dtype, width))
            self.down.append(Level(width, dim, level >= len(widths) - 2, config, dtype))

        # 3. Up: what leaves each level goes on beside the waiting tensor of its size.
        self.up = []
        channels = dim
        for width, size in reversed(list(zip(widths, sizes, strict=True))[:-1]):
            self.up.append(TransposedConvolution(channels, width, 1 - size % 2, dtype))
            self.up.append(Level(width, dim, False, config, dtype))
            channels = 2 * width

        # 4. Out.
        self.conv_out = Conv2D(out_channels or config.image_channels, 3, padding="same", dtype=dtype)

    @property
    def normal_at_start(self) -> dict[str, float]:
        """The buffers that begin as normal numbers, with their standard deviations."""
        return {"fourier.frequencies": self.config.fourier_scale}

    def call(self, x_t: tf.Tensor, t: tf.Tensor, labels: tf.Tensor | None = None) -> tf.Tensor:
        """The prediction at x_t and t, e.g. of the noise.

        Args:
            x_t: [B, H, W, C] noisy images.
            t: [B] times, real or integer.
            labels: [B] integer, 0 .. K - 1, or K for none; or [B, K + 1], weights that mix them. Without labels every
                image has none.

        Returns:
            [B, H, W, out_channels] in the dtype of x_t.

        Raises:
            UserError: labels for a network without classes.
        """
        if labels is not None and not self.config.num_classes:
            raise UserError("labels: this network was built without class labels; leave them out")
        emb = gelu(self.time(tf.cast(self.fourier(t), x_t.dtype)))  # [B] -> [B, D]
        null = tf.fill(tf.shape(t), self.config.num_classes)
        tokens = [self.label(null if labels is None else labels)]  # [B, D]
        if self.config.context_tokens == 2:
            tokens.append(self.label(null))
        context = tf.stack(tokens, axis=1)  # [B, M, D]

        h = self.conv_in(x_t)
        skips = []
        for step in self.down:
            h = step(h, emb, context) if isinstance(step, Level) else step(h)
            if isinstance(step, Level):
                skips.append(h)
        skips.pop()  # the deepest level is h itself
        for step in self.up:
            h = tf.concat([step(h, emb, context), skips.pop()], axis=-1) if isinstance(step, Level) else step(h)

        return tf.cast(self.conv_out(h), x_t.dtype)
