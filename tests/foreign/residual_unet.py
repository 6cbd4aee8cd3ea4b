"""A U-Net of ResNet's blocks, with attention at the bottleneck, as tutorials write it."""

import itertools

import torch
from torch import Tensor, nn

from foreign.times import SinusoidalPositionEmbeddings


class ResidualBlock(nn.Module):
    """Two convolutions, each with BatchNorm2d; biases are left on, as they are by default."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(h)) + self.shortcut(x))


class AttentionBlock(nn.Module):
    """Self-attention of the pixels."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.mha = nn.MultiheadAttention(channels, heads, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        tokens = x.view(batch, channels, height * width).swapaxes(1, 2)
        normal = self.norm(tokens)
        tokens = tokens + self.mha(normal, normal, normal)[0]
        return tokens.swapaxes(1, 2).view(batch, channels, height, width)


class ResUNet(nn.Module):
    """28 -> 14 -> 7 -> 4 and back, the time at the bottleneck."""

    def __init__(self, widths=(8, 16, 24), heads: int = 4, time_dim: int = 16, attentions: int = 1, classes: int = 0):
        super().__init__()
        deepest = widths[-1]
        self.embed = SinusoidalPositionEmbeddings(time_dim)
        self.time_mlp = nn.Sequential(nn.Linear(time_dim, deepest), nn.ReLU(), nn.Linear(deepest, deepest))
        self.label_emb = nn.Embedding(classes, deepest) if classes else None
        self.conv_in = nn.Conv2d(1, widths[0], 3, padding=1)
        self.encoder = nn.ModuleList([ResidualBlock(widths[0], widths[0])])
        for old, new in itertools.pairwise(widths):
            self.encoder.append(ResidualBlock(old, new, stride=2))
        self.attention = nn.ModuleList([AttentionBlock(deepest, heads) for _ in range(attentions)])
        self.upsample, self.decoder = nn.ModuleList(), nn.ModuleList()
        sizes = [28, 14, 7]
        for level in reversed(range(len(widths) - 1)):
            padding = 1 - sizes[level] % 2
            self.upsample.append(nn.ConvTranspose2d(widths[level + 1], widths[level], 3, 2, 1, output_padding=padding))
            self.decoder.append(ResidualBlock(2 * widths[level], widths[level]))
        self.conv_out = nn.Conv2d(widths[0], 1, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        emb = self.time_mlp(self.embed(t))
        if y is not None:
            emb = emb + self.label_emb(y)
        h = self.conv_in(x)
        skips = []
        for block in self.encoder:
            h = block(h)
            skips.append(h)
        h = skips.pop() + emb[:, :, None, None]
        for block in self.attention:
            h = block(h)
        for upsample, block in zip(self.upsample, self.decoder, strict=True):
            h = block(torch.cat([upsample(h), skips.pop()], dim=1))
        return self.conv_out(h)
