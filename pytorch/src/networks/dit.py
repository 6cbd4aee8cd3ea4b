"""The diffusion transformer: its tokens are patches of the image. Mirror: ddpm_tf.networks.dit.

Letters as in layers.py, but D = base_channels; N patches, P pixels the side of one.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the field's name for it)

from ddpm_torch.config import ModelConfig
from ddpm_torch.networks.layers import (
    LabelEmbedding,
    MultiHeadAttention,
    gelu_tanh,
    label_of_each,
    timestep_embedding,
)

TOKEN_NORM_EPS = 1e-6  # DiT's; PyTorch would take 1e-5, Keras 1e-3


def patches(x: Tensor, side: int) -> Tensor:
    """Images as tokens: [B, C, H, W] -> [B, N, P*P*C], patch rows first, and in a patch row, column, channel.

    Args:
        x: whose H and W are multiples of `side`.
        side: P.

    Source: Dosovitskiy et al. 2021 (arXiv:2010.11929), section 3.1.
    Mirror: ddpm_tf.networks.dit.patches.
    """
    batch, channels, height, width = x.shape
    x = x.reshape(batch, channels, height // side, side, width // side, side)  # [B, C, H/P, P, W/P, P]
    return x.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, side * side * channels)


def images(tokens: Tensor, side: int, rows: int) -> Tensor:
    """The inverse of `patches`, for images of rows * P pixels: [B, N, P*P*C] -> [B, C, H, W].

    Mirror: ddpm_tf.networks.dit.images.
    """
    batch, count, _ = tokens.shape
    columns = count // rows
    x = tokens.reshape(batch, rows, columns, side, side, -1)  # [B, H/P, W/P, P, P, C]
    return x.permute(0, 5, 1, 3, 2, 4).reshape(batch, -1, rows * side, columns * side)


def positions(rows: int, columns: int, dim: int) -> Tensor:
    """The fixed embedding of the places of a grid: half of it is of the row, half of the column.

    Each half is sin(p w_i), then cos(p w_i), w_i = 10000 ** (-i / quarter), i = 0 .. quarter - 1, quarter = dim / 4

    Args:
        rows: of the grid.
        columns: of the grid.
        dim: D, a multiple of 4.

    Returns:
        [rows * columns, D] float64, to be rounded by the caller.

    Source: Peebles & Xie 2023 (arXiv:2212.09748), section 3.2, as in its code, but the row first.
    Mirror: ddpm_tf.networks.dit.positions.
    """
    frequencies = 10000.0 ** (-torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))

    def sinusoids(count: int) -> Tensor:  # [count, D / 2]
        angles = torch.arange(count, dtype=torch.float64)[:, None] * frequencies
        return torch.cat([torch.sin(angles), torch.cos(angles)], dim=1)

    row, column = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).T
    return torch.cat([sinusoids(rows)[row], sinusoids(columns)[column]], dim=1)


def modulated(tokens: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """norm(tokens) (1 + scale) + shift, with [B, D] of each image for all its tokens. The norm has no weights.

    Mirror: ddpm_tf.networks.dit.modulated.
    """
    normal = F.layer_norm(tokens, tokens.shape[-1:], eps=TOKEN_NORM_EPS)
    return normal * (1.0 + scale[:, None]) + shift[:, None]


class DiTBlock(nn.Module):
    """A transformer block whose normalisations are set by the time and the label ("adaLN-zero").

    1. u = u + gate_1 attention(modulated(u, shift_1, scale_1))
    2. u = u + gate_2 feed_2(gelu_tanh(feed_1(modulated(u, shift_2, scale_2))))

    All six vectors are linear in silu(emb), by weights that begin at zero: so the block begins as the identity.

    Args:
        config: the network's.

    Source: Peebles & Xie 2023 (arXiv:2212.09748), section 3.2 and figure 3.
    Mirror: ddpm_tf.networks.dit.DiTBlock.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.base_channels
        self.modulation = nn.Linear(dim, 6 * dim)
        self.attention = MultiHeadAttention(dim, config.attention_heads)
        self.feed_1 = nn.Linear(dim, 4 * dim)
        self.feed_2 = nn.Linear(4 * dim, dim)

    def forward(self, tokens: Tensor, emb: Tensor) -> Tensor:
        """[B, N, D] and silu(emb) [B, D] -> [B, N, D]."""
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = self.modulation(emb).chunk(6, dim=1)
        tokens = tokens + gate_1[:, None] * self.attention(modulated(tokens, shift_1, scale_1))
        h = gelu_tanh(self.feed_1(modulated(tokens, shift_2, scale_2)))
        return tokens + gate_2[:, None] * self.feed_2(h)


class DiT(nn.Module):
    """The network: patches -> transformer blocks -> patches.

    Args:
        config: sizes.
        out_channels: of the output (default: those of an image).

    Source: Peebles & Xie 2023 (arXiv:2212.09748).
    Mirror: ddpm_tf.networks.dit.DiT.
    """

    zero_at_start = ("modulation.weight", "out.weight")  # each block is the identity, the first prediction zero
    normal_at_start: ClassVar[dict[str, float]] = {}  # it has no buffers

    def __init__(self, config: ModelConfig, out_channels: int | None = None) -> None:
        super().__init__()
        self.config = config
        dim, pixels = config.base_channels, config.patch_size**2

        # 1. Time: embedding -> two-layer MLP; the label is added to it.
        self.time_1 = nn.Linear(config.time_channels, dim)
        self.time_2 = nn.Linear(dim, dim)
        self.label = LabelEmbedding(config.num_classes, dim) if config.num_classes else None

        # 2. Tokens and blocks.
        self.patch_in = nn.Linear(pixels * config.image_channels, dim)
        self.blocks = nn.ModuleList([DiTBlock(config) for _ in range(config.depth)])

        # 3. Out, after one more normalisation that time and label set.
        self.modulation = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, pixels * (out_channels or config.image_channels))

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
        emb = self.time_2(F.silu(self.time_1(emb)))  # -> [B, D]
        if self.label is not None:
            emb = emb + self.label(labels)
        emb = F.silu(emb)

        side = self.config.patch_size
        rows = self.config.image_size // side
        places = positions(rows, rows, self.config.base_channels).to(x_t.device, x_t.dtype)
        tokens = self.patch_in(patches(x_t, side)) + places
        for block in self.blocks:
            tokens = block(tokens, emb)
        shift, scale = self.modulation(emb).chunk(2, dim=1)
        return images(self.out(modulated(tokens, shift, scale)), side, rows).to(x_t.dtype)
