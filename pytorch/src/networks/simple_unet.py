"""A U-Net of convolutions alone, whose time is a plain number. Mirror: ddpm_tf.networks.simple_unet.

Letters as in layers.py, but D = channels of the deepest level.
"""

import itertools
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the field's name for it)

from ddpm_torch.config import ModelConfig
from ddpm_torch.networks.layers import ACTIVATIONS, Downsample, LabelEmbedding, label_of_each

TIME_UNIT = 1000.0  # t is 0 .. 999 by default, and the network is given a number from 0 to 1


class Doubling(nn.Module):
    """Twice the size by a transposed convolution whose patches of 4 x 4 overlap evenly, cut to `size`.

    Args:
        in_channels: C of the input.
        out_channels: C of the output.
        size: 2H, or 2H - 1 where the way down rounded up.

    Source: Dumoulin & Visin 2016 (arXiv:1603.07285), section 4; Odena et al. 2016, "Deconvolution and checkerboard
        artifacts", for a kernel that is a multiple of the stride.
    Mirror: ddpm_tf.networks.simple_unet.Doubling.
    """

    def __init__(self, in_channels: int, out_channels: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.conv = nn.ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C_in, H, W] -> [B, C_out, size, size]."""
        return self.conv(x)[:, :, : self.size, : self.size]


class SimpleUNet(nn.Module):
    """The network: one convolution per level down, two in the middle, one transposed convolution per level up.

    There is no normalisation and no attention. Time and label are added in the middle.

    Args:
        config: sizes.
        out_channels: of the output (default: those of an image).

    Source: Ronneberger et al. 2015 (arXiv:1505.04597), as short sketches of diffusion models simplify it.
    Mirror: ddpm_tf.networks.simple_unet.SimpleUNet.
    """

    zero_at_start = ("conv_out.weight",)  # so that the first prediction is zero, as UNet's
    normal_at_start: ClassVar[dict[str, float]] = {}  # it has no buffers

    def __init__(self, config: ModelConfig, out_channels: int | None = None) -> None:
        super().__init__()
        self.config = config
        self.activation = ACTIVATIONS[config.activation]
        widths, sizes = [config.base_channels * mult for mult in config.channel_mults], config.resolutions
        dim = widths[-1]  # D

        # 1. Time: a number -> two-layer MLP; the label is added to it.
        self.time_1 = nn.Linear(1, config.time_channels)
        self.time_2 = nn.Linear(config.time_channels, dim)
        self.label = LabelEmbedding(config.num_classes, dim) if config.num_classes else None

        # 2. Down: what leaves each level waits for the way up.
        self.conv_in = nn.Conv2d(config.image_channels, widths[0], 3, padding=1)
        self.down = nn.ModuleList([Downsample(*pair) for pair in itertools.pairwise(widths)])

        # 3. Middle, at the smallest size.
        self.middle = nn.ModuleList([nn.Conv2d(dim, dim, 3, padding=1) for _ in range(2)])

        # 4. Up: what leaves each level goes on beside the waiting tensor of its size.
        self.up = nn.ModuleList()
        channels = dim
        for width, size in reversed(list(zip(widths[:-1], sizes[:-1], strict=True))):
            self.up.append(Doubling(channels, width, size))
            channels = 2 * width

        # 5. Out.
        self.conv_out = nn.Conv2d(channels, out_channels or config.image_channels, 3, padding=1)

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
        number = (t.double()[:, None] / TIME_UNIT).to(x_t.dtype)  # [B] -> [B, 1]
        emb = self.time_2(F.silu(self.time_1(number)))  # -> [B, D]
        if self.label is not None:
            emb = emb + self.label(labels)

        h = self.activation(self.conv_in(x_t))
        skips = []
        for convolution in self.down:
            skips.append(h)
            h = self.activation(convolution(h))
        h = h + emb[:, :, None, None]  # [B, D] over all pixels
        for convolution in self.middle:
            h = self.activation(convolution(h))
        for convolution in self.up:
            h = torch.cat([self.activation(convolution(h)), skips.pop()], dim=1)

        return self.conv_out(h).to(x_t.dtype)
