"""A U-Net of residual blocks with BatchNorm, and deep attention. Mirror: ddpm_tf.networks.residual_unet.

Letters as in layers.py, but D = channels of the deepest level.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from ddpm_torch.config import ModelConfig
from ddpm_torch.networks.layers import (
    ACTIVATIONS,
    LAYER_NORM_EPS,
    BatchNorm,
    LabelEmbedding,
    MultiHeadAttention,
    TransposedConvolution,
    label_of_each,
    timestep_embedding,
)


class BatchNormBlock(nn.Module):
    """h = f(norm_1(conv_1(x)));  y = f(norm_2(conv_2(h)) + skip(x)), f the activation.

    No convolution has a bias: the normalisation after it would take it away again, and its gradient would be rounding
    noise, which Adam amplifies.

    Args:
        in_channels: C of x.
        out_channels: C of y.
        stride: 1, or 2 for half the size, odd sizes rounded up. Where size or channels change, skip is a 1x1
            convolution with a normalisation, else the identity.
        config: the network's.

    Source: He et al. 2016 (arXiv:1512.03385), section 3.
    Mirror: ddpm_tf.networks.residual_unet.BatchNormBlock.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, config: ModelConfig) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.activation]
        self.conv_1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm_1 = BatchNorm(out_channels)
        self.conv_2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm_2 = BatchNorm(out_channels)
        changes = stride > 1 or in_channels != out_channels
        self.skip = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False) if changes else None
        self.norm_skip = BatchNorm(out_channels) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """[B, C_in, H, W] -> [B, C_out, ceil(H / stride), ceil(W / stride)]."""
        h = self.activation(self.norm_1(self.conv_1(x)))
        h = self.norm_2(self.conv_2(h))
        if self.skip is not None and self.norm_skip is not None:
            x = self.norm_skip(self.skip(x))
        return self.activation(h + x)


class DeepAttention(nn.Module):
    """y = x + attention(norm(x)), the tokens being the pixels.

    Mirror: ddpm_tf.networks.residual_unet.DeepAttention.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=LAYER_NORM_EPS)
        self.attention = MultiHeadAttention(channels, heads)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        tokens = x.flatten(2).transpose(1, 2)  # [B, C, H, W] -> [B, H*W, C]
        tokens = tokens + self.attention(self.norm(tokens))
        return tokens.transpose(1, 2).unflatten(2, x.shape[2:])  # [B, H*W, C] -> [B, C, H, W]


class ResidualUNet(nn.Module):
    """The network: a residual block per level down and up. Time and label enter at the deepest level alone.

    Args:
        config: sizes.
        out_channels: of the output (default: those of an image).

    Source: Ronneberger et al. 2015 (arXiv:1505.04597) and He et al. 2016 (arXiv:1512.03385), as many tutorials join
        them; Vaswani et al. 2017 (arXiv:1706.03762) for the attention and the embedding of t.
    Mirror: ddpm_tf.networks.residual_unet.ResidualUNet.
    """

    zero_at_start = ("project.weight", "conv_out.weight")  # so that the first prediction is zero, as UNet's
    normal_at_start: ClassVar[dict[str, float]] = {}  # its buffers begin as 0 and 1

    def __init__(self, config: ModelConfig, out_channels: int | None = None) -> None:
        super().__init__()
        self.config = config
        self.activation = ACTIVATIONS[config.activation]
        widths, sizes = [config.base_channels * mult for mult in config.channel_mults], config.resolutions
        dim = widths[-1]  # D

        # 1. Time: embedding -> two-layer MLP; the label is added to it.
        self.time_1 = nn.Linear(config.time_channels, dim)
        self.time_2 = nn.Linear(dim, dim)
        self.label = LabelEmbedding(config.num_classes, dim) if config.num_classes else None

        # 2. Down: what leaves each level waits for the way up.
        self.conv_in = nn.Conv2d(config.image_channels, widths[0], 3, padding=1)
        self.down = nn.ModuleList()
        for level, width in enumerate(widths):
            self.down.append(BatchNormBlock(widths[max(level - 1, 0)], width, 1 if level == 0 else 2, config))

        # 3. Middle, at the smallest size.
        self.middle = nn.ModuleList(
            [DeepAttention(dim, config.attention_heads) for _ in range(config.attention_blocks)]
        )

        # 4. Up: each block takes the last waiting tensor beside what the transposed convolution gives.
        self.up = nn.ModuleList()
        for level in reversed(range(len(widths) - 1)):
            self.up.append(TransposedConvolution(widths[level + 1], widths[level], 1 - sizes[level] % 2))
            self.up.append(BatchNormBlock(2 * widths[level], widths[level], 1, config))

        # 5. Out.
        self.conv_out = nn.Conv2d(widths[0], out_channels or config.image_channels, 3, padding=1)

    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """The prediction at x_t and t, e.g. of the noise.

        Args:
            x_t: [B, C, H, W] noisy images.
            t: [B] times, whole or not.
            labels: [B] integer, 0 .. K - 1, or K for none; or [B, K + 1], weights that mix them. Without labels every
                image has none.

        Returns:
            [B, out_channels, H, W] in the dtype of x_t.

        Raises:
            UserError: labels for a network without classes.
        """
        labels = label_of_each(labels, t, self.config.num_classes)
        emb = timestep_embedding(t, self.config.time_channels).to(x_t.dtype)  # [B] -> [B, time_channels]
        emb = self.time_2(self.activation(self.time_1(emb)))  # -> [B, D]
        if self.label is not None:
            emb = emb + self.label(labels)

        h = self.conv_in(x_t)
        skips = []
        for block in self.down:
            h = block(h)
            skips.append(h)
        skips.pop()  # the deepest level is h itself
        h = h + emb[:, :, None, None]  # [B, D] over all pixels
        for block in self.middle:
            h = block(h)
        for block in self.up:
            h = torch.cat([block(h), skips.pop()], dim=1) if isinstance(block, TransposedConvolution) else block(h)

        return self.conv_out(h).to(x_t.dtype)
