"""The layers that networks are made of, and the embedding of t. Mirror: ddpm_tf.networks.layers.

Letters in the shape comments: B images, C channels, H and W height and width, D = 4 * base_channels.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the field's name for it)

from ddpm_torch.config import ModelConfig

GROUP_NORM_EPS = 1e-5  # Keras would take 1e-3


def timestep_embedding(t: Tensor, dim: int) -> Tensor:
    """The sinusoidal embedding of the diffusion time.

    emb[i] = sin(t * w_i), emb[half + i] = cos(t * w_i), w_i = 10000 ** (-i / (half - 1)), half = dim / 2

    Args:
        t: [B], times 0 .. T - 1, whole or not.
        dim: even, 4 or more.

    Returns:
        [B, dim] float64, to be rounded by the caller.

    Source: Vaswani et al. 2017 (arXiv:1706.03762), section 3.5, in Ho et al.'s arrangement.
    Mirror: ddpm_tf.networks.layers.timestep_embedding.
    """
    half = dim // 2
    exponents = torch.arange(half, dtype=torch.float64, device=t.device) / (half - 1)
    frequencies = torch.exp(-math.log(10000.0) * exponents)  # [half]
    angles = t.double()[:, None] * frequencies[None, :]  # [B] -> [B, half]
    return torch.cat([torch.sin(angles), torch.cos(angles)], dim=1)


def gelu(x: Tensor) -> Tensor:
    """Each x times the probability that a standard normal number is below it: x (1 + erf(x / sqrt(2))) / 2.

    This is GELU itself. Its approximation by tanh, which some libraries take by default, is off by up to 4.7e-4.

    Args:
        x: of any shape.

    Returns:
        The shape of x.

    Source: Hendrycks & Gimpel 2016 (arXiv:1606.08415), section 2.
    Mirror: ddpm_tf.networks.layers.gelu.
    """
    return F.gelu(x, approximate="none")


def one_hot(labels: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    """The weights of labels in the table of LabelEmbedding.

    Args:
        labels: [B] integer, 0 .. num_classes - 1, or num_classes for no label; or the weights [B, num_classes + 1].
        num_classes: K.
        dtype: of the result.

    Returns:
        [B, K + 1].

    Mirror: ddpm_tf.networks.layers.one_hot.
    """
    if labels.ndim == 2:
        return labels.to(dtype)
    return (labels[:, None] == torch.arange(num_classes + 1, device=labels.device)).to(dtype)


class LabelEmbedding(nn.Module):
    """A learned vector for every class, and a last one, the null label, for images without a label.

    The rows are taken by one matrix product with a one-hot vector, whose gradient is an ordinary, dense matrix.

    Args:
        num_classes: K.
        dim: D, of the vectors.

    Source: Ho and Salimans 2022 (arXiv:2207.12598), section 3.2, for the null label.
    Mirror: ddpm_tf.networks.layers.LabelEmbedding.
    """

    def __init__(self, num_classes: int, dim: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.weight = nn.Parameter(torch.zeros(num_classes + 1, dim))

    def forward(self, labels: Tensor) -> Tensor:
        """[B] or [B, K + 1], as in one_hot -> [B, D]."""
        return one_hot(labels, self.num_classes, self.weight.dtype) @ self.weight


class ResidualBlock(nn.Module):
    """h = conv_1(silu(norm_1(x))) + time(emb);  y = skip(x) + conv_2(silu(norm_2(h))).

    Args:
        in_channels: C of x.
        out_channels: C of y; where it differs from C of x, skip is a 1x1 convolution, else the identity.
        config: the network's.

    Source: Ho et al. 2020 (arXiv:2006.11239), appendix B.
    Mirror: ddpm_tf.networks.layers.ResidualBlock.
    """

    def __init__(self, in_channels: int, out_channels: int, config: ModelConfig) -> None:
        super().__init__()
        self.norm_1 = nn.GroupNorm(config.num_groups, in_channels, eps=GROUP_NORM_EPS)
        self.conv_1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time = nn.Linear(4 * config.base_channels, out_channels)
        self.norm_2 = nn.GroupNorm(config.num_groups, out_channels, eps=GROUP_NORM_EPS)
        self.conv_2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """[B, C_in, H, W], [B, D] -> [B, C_out, H, W]."""
        h = self.conv_1(F.silu(self.norm_1(x)))
        h = h + self.time(emb)[:, :, None, None]  # [B, C_out] over all pixels
        h = self.conv_2(F.silu(self.norm_2(h)))
        return h + (x if self.skip is None else self.skip(x))


class AttentionBlock(nn.Module):
    """Every pixel looks at every other: y = x + project(softmax(q k^T / sqrt(C)) v), q, k, v linear in norm(x).

    The key has no bias: softmax does not see it, so its gradient is rounding noise, which Adam would amplify.

    Source: Vaswani et al. 2017 (arXiv:1706.03762), eq. 1, with one head.
    Mirror: ddpm_tf.networks.layers.AttentionBlock.
    """

    def __init__(self, channels: int, config: ModelConfig) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(config.num_groups, channels, eps=GROUP_NORM_EPS)
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels, bias=False)
        self.value = nn.Linear(channels, channels)
        self.project = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        _, channels, height, width = x.shape
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # [B, C, H, W] -> [B, H*W, C]
        q, k, v = self.query(tokens), self.key(tokens), self.value(tokens)
        weights = torch.softmax(q @ k.transpose(1, 2) / math.sqrt(channels), dim=-1)  # [B, H*W, H*W]
        tokens = self.project(weights @ v)
        return x + tokens.transpose(1, 2).unflatten(2, (height, width))  # [B, H*W, C] -> [B, C, H, W]


class Downsample(nn.Module):
    """Half the size, odd sizes rounded up, by a strided convolution.

    Args:
        channels: C of the input.
        out_channels: C of the output (default: those of the input).

    Mirror: ddpm_tf.networks.layers.Downsample.
    """

    def __init__(self, channels: int, out_channels: int | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out_channels or channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C_in, H, W] -> [B, C_out, ceil(H/2), ceil(W/2)]."""
        return self.conv(x)


class Upsample(nn.Module):
    """Twice the size by repeating pixels, cut to `size`, then a convolution.

    Mirror: ddpm_tf.networks.layers.Upsample.
    """

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.size = size  # 2H, or 2H - 1 where the way down rounded up
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, size, size]."""
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        return self.conv(x[:, :, : self.size, : self.size])
