"""Ho et al.'s U-Net, sized by ModelConfig. Mirror: ddpm_tf.networks.unet. Letters as in layers.py."""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the field's name for it)

from ddpm_shared.errors import UserError
from ddpm_torch.config import ModelConfig
from ddpm_torch.networks.layers import (
    GROUP_NORM_EPS,
    AttentionBlock,
    Downsample,
    LabelEmbedding,
    ResidualBlock,
    Upsample,
    timestep_embedding,
)


class Stage(nn.Module):
    """A residual block, followed by attention at the sizes that have it. Mirror: ddpm_tf.networks.unet.Stage."""

    def __init__(self, in_channels: int, out_channels: int, attention: bool, config: ModelConfig) -> None:
        super().__init__()
        self.residual = ResidualBlock(in_channels, out_channels, config)
        self.attention = AttentionBlock(out_channels, config) if attention else None

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """[B, C_in, H, W], [B, D] -> [B, C_out, H, W]."""
        h = self.residual(x, emb)
        return h if self.attention is None else self.attention(h)


class UNet(nn.Module):
    """The network: down, middle and up, with a skip connection from every step down to its step up.

    Args:
        config: sizes.
        out_channels: of the output (default: those of an image); a learned variance takes as many again.

    Source: Ho et al. 2020 (arXiv:2006.11239), appendix B.
    Mirror: ddpm_tf.networks.unet.UNet.
    """

    # Ho et al. start the last map of every residual branch, and of the network, at zero: each block is the identity.
    zero_at_start = ("conv_2.weight", "project.weight", "conv_out.weight")
    normal_at_start: ClassVar[dict[str, float]] = {}  # it has no buffers

    def __init__(self, config: ModelConfig, out_channels: int | None = None) -> None:
        super().__init__()
        self.config = config
        levels = [
            (config.base_channels * mult, size)
            for mult, size in zip(config.channel_mults, config.resolutions, strict=True)
        ]

        # 1. Time: embedding -> two-layer MLP; the label is added to it.
        self.time_1 = nn.Linear(config.base_channels, 4 * config.base_channels)
        self.time_2 = nn.Linear(4 * config.base_channels, 4 * config.base_channels)
        self.label = LabelEmbedding(config.num_classes, 4 * config.base_channels) if config.num_classes else None

        # 2. Down: what leaves each step waits for the way up.
        self.conv_in = nn.Conv2d(config.image_channels, config.base_channels, 3, padding=1)
        self.down = nn.ModuleList()
        channels = config.base_channels
        skips = [channels]
        for level, (width, size) in enumerate(levels):
            for _ in range(config.num_res_blocks):
                self.down.append(Stage(channels, width, size in config.attention_resolutions, config))
                channels = width
                skips.append(channels)
            if level < len(levels) - 1:
                self.down.append(Downsample(channels))
                skips.append(channels)

        # 3. Middle, at the smallest size.
        attention = config.resolutions[-1] in config.attention_resolutions
        self.middle = nn.ModuleList(
            [Stage(channels, channels, attention, config), Stage(channels, channels, False, config)]
        )

        # 4. Up: each stage takes the last waiting tensor beside its own input.
        self.up = nn.ModuleList()
        for level, (width, size) in reversed(list(enumerate(levels))):
            for _ in range(config.num_res_blocks + 1):
                attention = size in config.attention_resolutions
                self.up.append(Stage(channels + skips.pop(), width, attention, config))
                channels = width
            if level > 0:
                self.up.append(Upsample(channels, config.resolutions[level - 1]))

        # 5. Out.
        self.norm_out = nn.GroupNorm(config.num_groups, channels, eps=GROUP_NORM_EPS)
        self.conv_out = nn.Conv2d(channels, out_channels or config.image_channels, 3, padding=1)

    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """The prediction at x_t and t, e.g. of the noise.

        Args:
            x_t: [B, C, H, W] noisy images.
            t: [B], times 0 .. T - 1, whole or not.
            labels: [B] integer, 0 .. K - 1, or K for none; or [B, K + 1], weights that mix them. Without labels every
                image has none.

        Returns:
            [B, out_channels, H, W] in the dtype of x_t.

        Raises:
            UserError: labels for a network without classes.
        """
        if labels is not None and self.label is None:
            raise UserError("labels: this network was built without class labels; leave them out")
        emb = timestep_embedding(t, self.config.base_channels).to(x_t.dtype)  # [B] -> [B, base]
        emb = self.time_2(F.silu(self.time_1(emb)))  # [B, base] -> [B, D]
        if self.label is not None:
            emb = emb + self.label(
                labels if labels is not None else torch.full(t.shape, self.label.num_classes, device=t.device)
            )
        emb = F.silu(emb)

        h = self.conv_in(x_t)
        skips = [h]
        for step in self.down:
            h = step(h, emb) if isinstance(step, Stage) else step(h)
            skips.append(h)
        for step in self.middle:
            h = step(h, emb)
        for step in self.up:
            h = step(torch.cat([h, skips.pop()], dim=1), emb) if isinstance(step, Stage) else step(h)

        return self.conv_out(F.silu(self.norm_out(h))).to(x_t.dtype)
