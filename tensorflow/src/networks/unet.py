"""Ho et al.'s U-Net, sized by ModelConfig. Mirror: ddpm_torch.networks.unet. Letters as in layers.py."""

from typing import ClassVar

import keras
import tensorflow as tf

from ddpm_shared.errors import UserError
from ddpm_tf.config import ModelConfig
from ddpm_tf.networks.layers import (
    AttentionBlock,
    Block,
    Conv2D,
    Dense,
    Downsample,
    GroupNorm,
    LabelEmbedding,
    ResidualBlock,
    Upsample,
    silu,
    timestep_embedding,
)


class Stage(Block):
    """A residual block, followed by attention at the sizes that have it. Mirror: ddpm_torch.networks.unet.Stage."""

    def __init__(self, in_channels: int, out_channels: int, attention: bool, config: ModelConfig, dtype: str) -> None:
        super().__init__(dtype=dtype)
        self.residual = ResidualBlock(in_channels, out_channels, config, dtype)
        self.attention = AttentionBlock(out_channels, config, dtype) if attention else None

    def call(self, x: tf.Tensor, emb: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C_in], [B, D] -> [B, H, W, C_out]."""
        h = self.residual(x, emb)
        return h if self.attention is None else self.attention(h)


class UNet(keras.Model):
    """The network: down, middle and up, with a skip connection from every step down to its step up.

    Args:
        config: sizes.
        out_channels: of the output (default: those of an image); a learned variance takes as many again.
        dtype: a Keras dtype policy.

    Source: Ho et al. 2020 (arXiv:2006.11239), appendix B.
    Mirror: ddpm_torch.networks.unet.UNet.
    """

    # Ho et al. start the last map of every residual branch, and of the network, at zero: each block is the identity.
    zero_at_start = ("conv_2.weight", "project.weight", "conv_out.weight")
    normal_at_start: ClassVar[dict[str, float]] = {}  # it has no buffers

    def __init__(self, config: ModelConfig, out_channels: int | None = None, dtype: str = "float32") -> None:
        super().__init__(dtype=dtype, autocast=False)  # x_t keeps its precision up to conv_in
        self.built = True  # as of a Block
        self.config = config
        levels = [
            (config.base_channels * mult, size)
            for mult, size in zip(config.channel_mults, config.resolutions, strict=True)
        ]

        # 1. Time: embedding -> two-layer MLP; the label is added to it.
        self.time_1 = Dense(4 * config.base_channels, dtype=dtype)
        self.time_2 = Dense(4 * config.base_channels, dtype=dtype)
        self.label = LabelEmbedding(config.num_classes, 4 * config.base_channels, dtype) if config.num_classes else None

        # 2. Down: what leaves each step waits for the way up.
        self.conv_in = Conv2D(config.base_channels, 3, padding="same", dtype=dtype)
        self.down = []
        channels = config.base_channels
        skips = [channels]
        for level, (width, size) in enumerate(levels):
            for _ in range(config.num_res_blocks):
                self.down.append(Stage(channels, width, size in config.attention_resolutions, config, dtype))
                channels = width
                skips.append(channels)
            if level < len(levels) - 1:
                self.down.append(Downsample(channels, dtype))
                skips.append(channels)

        # 3. Middle, at the smallest size.
        attention = config.resolutions[-1] in config.attention_resolutions
        self.middle = [
            Stage(channels, channels, attention, config, dtype),
            Stage(channels, channels, False, config, dtype),
        ]

        # 4. Up: each stage takes the last waiting tensor beside its own input.
        self.up = []
        for level, (width, size) in reversed(list(enumerate(levels))):
            for _ in range(config.num_res_blocks + 1):
                attention = size in config.attention_resolutions
                self.up.append(Stage(channels + skips.pop(), width, attention, config, dtype))
                channels = width
            if level > 0:
                self.up.append(Upsample(channels, config.resolutions[level - 1], dtype))

        # 5. Out.
        self.norm_out = GroupNorm(config.num_groups, dtype)
        self.conv_out = Conv2D(out_channels or config.image_channels, 3, padding="same", dtype=dtype)

    def call(self, x_t: tf.Tensor, t: tf.Tensor, labels: tf.Tensor | None = None) -> tf.Tensor:
        """The prediction at x_t and t, e.g. of the noise.

        Args:
            x_t: [B, H, W, C] noisy images.
            t: [B], times 0 .. T - 1, whole or not.
            labels: [B] integer, 0 .. K - 1, or K for none; or [B, K + 1], weights that mix them. Without labels every
                image has none.

        Returns:
            [B, H, W, out_channels] in the dtype of x_t.

        Raises:
            UserError: labels for a network without classes.
        """
        if labels is not None and self.label is None:
            raise UserError("labels: this network was built without class labels; leave them out")
        emb = tf.cast(timestep_embedding(t, self.config.base_channels), x_t.dtype)  # [B] -> [B, base]
        emb = self.time_2(silu(self.time_1(emb)))  # [B, base] -> [B, D]
        if self.label is not None:
            nothing = tf.fill(tf.shape(t), self.label.num_classes)
            emb = emb + self.label(nothing if labels is None else labels)
        emb = silu(emb)

        h = self.conv_in(x_t)
        skips = [h]
        for step in self.down:
            h = step(h, emb) if isinstance(step, Stage) else step(h)
            skips.append(h)
        for step in self.middle:
            h = step(h, emb)
        for step in self.up:
            h = step(tf.concat([h, skips.pop()], axis=-1), emb) if isinstance(step, Stage) else step(h)

        return tf.cast(self.conv_out(silu(self.norm_out(h))), x_t.dtype)
