"""Two convolutions, as lecture notes write them."""

import torch
from torch import Tensor, nn

from foreign.times import PositionalEncoding, SinusoidalPositionEmbeddings


class Sequential(nn.Module):
    """conv, ReLU, conv."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, 1, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        return self.net(x)


class WithTime(nn.Module):
    """The same, and a time."""

    def __init__(self, channels: int = 16, alternating: bool = False, time_dim: int = 20) -> None:
        super().__init__()
        self.embed = PositionalEncoding(time_dim) if alternating else SinusoidalPositionEmbeddings(time_dim)
        self.time_proj = nn.Linear(time_dim, channels)
        self.conv1 = nn.Conv2d(1, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        h = self.conv1(x) + self.time_proj(self.embed(t))[:, :, None, None]
        return self.conv2(torch.relu(h))
