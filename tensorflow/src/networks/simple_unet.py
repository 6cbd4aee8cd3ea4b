"""A U-Net of convolutions alone, whose time is a plain number. Mirror: ddpm_torch.networks.simple_unet.

Letters as in layers.py, but D = channels of the deepest level.
"""

import itertools
from typing import ClassVar

import keras
import tensorflow as tf

from ddpm_tf.config import ModelConfig
from ddpm_tf.networks.layers import (
    ACTIVATIONS,
    Block,
    Conv2D,
    Conv2DTranspose,
    Dense,
    Downsample,
    LabelEmbedding,
    label_of_each,
    silu,
)

TIME_UNIT = 1000.0  # t is 0 .. 999 by default, and the network is given a number from 0 to 1


class Doubling(Block):
    """Twice the size by a transposed convolution whose patches of 4 x 4 overlap evenly, cut to `size`.

    Args:
        in_channels: C of the input.
        out_channels: C of the output.
        size: 2H, or 2H - 1 where the way down rounded up.
        dtype: a Keras dtype policy.

    Source: Dumoulin & Visin 2016 (arXiv:1603.07285), section 4; Odena et al. 2016, "Deconvolution and checkerboard
        artifacts", for a kernel that is a multiple of the stride.
    Mirror: ddpm_torch.networks.simple_unet.Doubling.
    """

    def __init__(self, in_channels: int, out_channels: int, size: int, dtype: str) -> None:
        super().__init__(dtype=dtype)
        self.size = size
        self.conv = Conv2DTranspose(out_channels, 4, strides=2, padding="valid", dtype=dtype)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C_in] -> [B, size, size, C_out]."""
        return self.conv(x)[:, 1 : 1 + self.size, 1 : 1 + self.size, :]  # as PyTorch's padding cuts it


class SimpleUNet(keras.Model):
    """The network: one convolution per level down, two in the middle, one transposed convolution per level up.

    There is no normalisation and no attention. Time and label are added in the middle.

    Args:
        config: sizes.
        out_channels: of the output (default: those of an image).
        dtype: a Keras dtype policy.

    Source: Ronneberger et al. 2015 (arXiv:1505.04597), as short sketches of diffusion models simplify it.
    Mirror: ddpm_torch.networks.simple_unet.SimpleUNet.
    """

    zero_at_start = ("conv_out.weight",)  # so that the first prediction is zero, as UNet's
    normal_at_start: ClassVar[dict[str, float]] = {}  # it has no buffers

    def __init__(self, config: ModelConfig, out_channels: int | None = None, dtype: str = "float32") -> None:
        super().__init__(dtype=dtype, autocast=False)  # x_t keeps its precision up to conv_in, and t all the way
        self.built = True  # as of a Block
        self.config = config
        self.activation = ACTIVATIONS[config.activation]
        widths, sizes = [config.base_channels * mult for mult in config.channel_mults], config.resolutions
        dim = widths[-1]  # D

        # 1. Time: a number -> two-layer MLP; the label is added to it.
        self.time_1 = Dense(config.time_channels, dtype=dtype)
        self.time_2 = Dense(dim, dtype=dtype)
        self.label = LabelEmbedding(config.num_classes, dim, dtype) if config.num_classes else None

        # 2. Down: what leaves each level waits for the way up.
        self.conv_in = Conv2D(widths[0], 3, padding="same", dtype=dtype)
        self.down = [Downsample(old, dtype, new) for old, new in itertools.pairwise(widths)]

        # 3. Middle, at the smallest size.
        self.middle = [Conv2D(dim, 3, padding="same", dtype=dtype) for _ in range(2)]

        # 4. Up: what leaves each level goes on beside the waiting tensor of its size.
        self.up = []
        channels = dim
        for width, size in reversed(list(zip(widths[:-1], sizes[:-1], strict=True))):
            self.up.append(Doubling(channels, width, size, dtype))
            channels = 2 * width

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
        number = tf.cast(tf.cast(t, tf.float64)[:, None] / TIME_UNIT, x_t.dtype)  # [B] -> [B, 1]
        emb = self.time_2(silu(self.time_1(number)))  # -> [B, D]
        if self.label is not None:
            emb = emb + self.label(labels)

        h = self.activation(self.conv_in(x_t))
        skips = []
        for convolution in self.down:
            skips.append(h)
            h = self.activation(convolution(h))
        h = h + emb[:, None, None, :]  # [B, D] over all pixels
        for convolution in self.middle:
            h = self.activation(convolution(h))
        for convolution in self.up:
            h = tf.concat([self.activation(convolution(h)), skips.pop()], axis=-1)

        return tf.cast(self.conv_out(h), x_t.dtype)
