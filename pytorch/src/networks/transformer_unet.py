"""The U-Net of the conditional score model, with spatial transformers. Mirror: ddpm_tf.networks.transformer_unet.

Letters as in layers.py, but D = channels of the deepest level; and M tokens of the context.
"""

import math

import torch
from torch import Tensor, nn

from ddpm_shared.errors import UserError
from ddpm_torch.config import ModelConfig
from ddpm_torch.networks.layers import (
    GROUP_NORM_EPS,
    LAYER_NORM_EPS,
    Downsample,
    LabelEmbedding,
    TransposedConvolution,
    gelu,
)


class FourierFeatures(nn.Module):
    """Sinusoids of the diffusion time at random frequencies, which stay as they were drawn.

    y[i] = sin(2 pi w_i t), y[half + i] = cos(2 pi w_i t), w_i ~ N(0, scale^2), half = dim / 2

    The frequencies are a buffer: a checkpoint holds them, but they are neither trained nor averaged. Angles are of the
    order of 2 pi scale t, so in float32 their sines would be off in the fifth digit; they are computed in float64.

    Args:
        dim: even.

    Source: Tancik et al. 2020 (arXiv:2006.10739), eq. 3; Song et al. 2021 (arXiv:2011.13456), appendix H.
    Mirror: ddpm_tf.networks.transformer_unet.FourierFeatures.
    """

    frequencies: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.zeros(dim // 2))

    def forward(self, t: Tensor) -> Tensor:
        """[B] times, real or integer -> [B, dim] float64, to be rounded by the caller."""
        angles = 2.0 * math.pi * t.double()[:, None] * self.frequencies.double()[None, :]  # [B] -> [B, half]
        return torch.cat([torch.sin(angles), torch.cos(angles)], dim=1)


class Attention(nn.Module):
    """Every token looks at the tokens of a context: softmax(q k^T / sqrt(C)) v.

    Here q is linear in the tokens, k and v are linear in the context. Of a context of one token the softmax is 1,
    whatever q and k are: their gradient is exactly zero. The key has no bias, as in AttentionBlock.

    Args:
        channels: C of the tokens and of the result.
        context_channels: those of the context.

    Source: Vaswani et al. 2017 (arXiv:1706.03762), eq. 1, with one head.
    Mirror: ddpm_tf.networks.transformer_unet.Attention.
    """

    def __init__(self, channels: int, context_channels: int) -> None:
        super().__init__()
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(context_channels, channels, bias=False)
        self.value = nn.Linear(context_channels, channels)

    def forward(self, tokens: Tensor, context: Tensor) -> Tensor:
        """[B, N, C] and [B, M, context_channels] -> [B, N, C]."""
        q, k, v = self.query(tokens), self.key(context), self.value(context)
        weights = torch.softmax(q @ k.transpose(1, 2) / math.sqrt(q.shape[2]), dim=-1)  # [B, N, M]
        return weights @ v


class SpatialTransformer(nn.Module):
    """A transformer block whose tokens are the pixels, and whose context is what is to be drawn.

    1. u = u + self_attention(norm_1(u)): pixels look at each other
    2. u = u + cross_attention(norm_2(u), context): and at the context
    3. u = u + feed_2(gelu(feed_1(norm_3(u)))): each pixel by itself, through 4 C values
    4. y = x + u, with u = x at the start

    Args:
        channels: C.
        context_channels: D, those of the context.

    Source: Rombach et al. 2022 (arXiv:2112.10752), section 3.3 and appendix E.2.1; Vaswani et al. 2017
        (arXiv:1706.03762), section 3.3, with the normalisation before each part.
    Mirror: ddpm_tf.networks.transformer_unet.SpatialTransformer.
    """

    def __init__(self, channels: int, context_channels: int) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(channels, eps=LAYER_NORM_EPS)
        self.self_attention = Attention(channels, channels)
        self.norm_2 = nn.LayerNorm(channels, eps=LAYER_NORM_EPS)
        self.cross_attention = Attention(channels, context_channels)
        self.norm_3 = nn.LayerNorm(channels, eps=LAYER_NORM_EPS)
        self.feed_1 = nn.Linear(channels, 4 * channels)
        self.feed_2 = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """[B, C, H, W] and [B, M, D] -> [B, C, H, W]."""
        _, _, height, width = x.shape
        tokens = x.flatten(2).transpose(1, 2)  # [B, C, H, W] -> [B, H*W, C]
        normal = self.norm_1(tokens)
        tokens = tokens + self.self_attention(normal, normal)
        tokens = tokens + self.cross_attention(self.norm_2(tokens), context)
        tokens = tokens + self.feed_2(gelu(self.feed_1(self.norm_3(tokens))))
        return x + tokens.transpose(1, 2).unflatten(2, (height, width))  # [B, H*W, C] -> [B, C, H, W]


class Level(nn.Module):
    """What follows each convolution: y = gelu(norm(x + time(emb))), then a transformer at the levels that have it.

    Mirror: ddpm_tf.networks.transformer_unet.Level.
    """

    def __init__(self, channels: int, emb_channels: int, transformer: bool, config: ModelConfig) -> None:
        super().__init__()
        self.time = nn.Linear(emb_channels, channels)
        self.norm = nn.GroupNorm(config.num_groups, channels, eps=GROUP_NORM_EPS)
        self.transformer = SpatialTransformer(channels, emb_channels) if transformer else None

    def forward(self, x: Tensor, emb: Tensor, context: Tensor) -> Tensor:
        """[B, C, H, W], [B, D] and [B, M, D] -> [B, C, H, W]."""
        h = gelu(self.norm(x + self.time(emb)[:, :, None, None]))  # [B, C] over all pixels
        return h if self.transformer is None else self.transformer(h, context)


class TransformerUNet(nn.Module):
    """The network: one convolution per level down and up, and transformers at the two deepest levels on the way down.

    The context of their cross-attention is the class: one token, its row of a table. With context_tokens = 2, a second
    token is the table's last row, the null label's; only then has the softmax something to choose from. A network
    without classes has a table of that row alone.

    Args:
        config: sizes. Its attention_resolutions are the sizes of the two deepest levels.
        out_channels: of the output (default: those of an image).

    Source: Song et al. 2021 (arXiv:2011.13456), and the tutorials to it, for the convolutions and the time; Rombach et
        al. 2022 (arXiv:2112.10752), section 3.3, for the transformers and the context.
    Mirror: ddpm_tf.networks.transformer_unet.TransformerUNet.
    """

    zero_at_start = ("conv_out.weight",)  # so that the first prediction is zero, as UNet's

    def __init__(self, config: ModelConfig, out_channels: int | None = None) -> None:
        super().__init__()
        self.config = config
        widths, sizes = [config.base_channels * mult for mult in config.channel_mults], config.resolutions
        dim = widths[-1]  # D

        # 1. Time: random sinusoids -> one linear map. Context: the table of classes.
        self.fourier = FourierFeatures(dim)
        self.time = nn.Linear(dim, dim)
        self.label = LabelEmbedding(config.num_classes, dim)

        # 2. Down: what leaves each level waits for the way up.
        self.conv_in = nn.Conv2d(config.image_channels, widths[0], 3, padding=1)
        self.down = nn.ModuleList()
        for level, width in enumerate(widths):
            if level > 0:
                self.down.append(Downsample(widths[level - 1], width))
            self.down.append(Level(width, dim, level >= len(widths) - 2, config))

        # 3. Up: what leaves each level goes on beside the waiting tensor of its size.
        self.up = nn.ModuleList()
        channels = dim
        for width, size in reversed(list(zip(widths, sizes, strict=True))[:-1]):
            self.up.append(TransposedConvolution(channels, width, 1 - size % 2))
            self.up.append(Level(width, dim, False, config))
            channels = 2 * width

        # 4. Out.
        self.conv_out = nn.Conv2d(channels, out_channels or config.image_channels, 3, padding=1)

    @property
    def normal_at_start(self) -> dict[str, float]:
        """The buffers that begin as normal numbers, with their standard deviations."""
        return {"fourier.frequencies": self.config.fourier_scale}

    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """The prediction at x_t and t, e.g. of the noise.

        Args:
            x_t: [B, C, H, W] noisy images.
            t: [B] times, real or integer.
            labels: [B] integer, 0 .. K - 1, or K for none; or [B, K + 1], weights that mix them. Without labels every
                image has none.

        Returns:
            [B, out_channels, H, W] in the dtype of x_t.

        Raises:
            UserError: labels for a network without classes.
        """
        if labels is not None and not self.config.num_classes:
            raise UserError("labels: this network was built without class labels; leave them out")
        emb = gelu(self.time(self.fourier(t).to(x_t.dtype)))  # [B] -> [B, D]
        null = torch.full(t.shape, self.config.num_classes, device=t.device)
        tokens = [self.label(null if labels is None else labels)]  # [B, D]
        if self.config.context_tokens == 2:
            tokens.append(self.label(null))
        context = torch.stack(tokens, dim=1)  # [B, M, D]

        h = self.conv_in(x_t)
        skips = []
        for step in self.down:
            h = step(h, emb, context) if isinstance(step, Level) else step(h)
            if isinstance(step, Level):
                skips.append(h)
        skips.pop()  # the deepest level is h itself
        for step in self.up:
            h = torch.cat([step(h, emb, context), skips.pop()], dim=1) if isinstance(step, Level) else step(h)

        return self.conv_out(h).to(x_t.dtype)
