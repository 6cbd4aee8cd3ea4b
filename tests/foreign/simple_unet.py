"""A U-Net of convolutions alone, as short sketches write it."""

import itertools

import torch
from torch import Tensor, nn


class SimpleUNet(nn.Module):
    """Convolutions of stride 2 down, transposed ones up, and the time as a number."""

    def __init__(self, widths=(8, 16, 24), hidden: int = 12, whole_time: bool = False, classes: int = 10) -> None:
        super().__init__()
        self.whole_time = whole_time
        deepest = widths[-1]
        self.time_mlp = nn.Sequential(nn.Linear(1, hidden), nn.SiLU(), nn.Linear(hidden, deepest))
        self.label_emb = nn.Embedding(classes, deepest)
        self.down = nn.ModuleList([nn.Conv2d(1, widths[0], 3, padding=1)])
        for old, new in itertools.pairwise(widths):
            self.down.append(nn.Conv2d(old, new, 3, stride=2, padding=1))
        self.mid = nn.ModuleList([nn.Conv2d(deepest, deepest, 3, padding=1) for _ in range(2)])
        self.up = nn.ModuleList()
        channels = deepest
        for width in reversed(widths[:-1]):
            self.up.append(nn.ConvTranspose2d(channels, width, 4, stride=2, padding=1))
            channels = 2 * width
        self.out = nn.Conv2d(channels, 1, 3, padding=1)
        self.act = nn.SiLU()

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        emb = self.time_mlp(t[:, None] if self.whole_time else t[:, None] / 1000)
        if y is not None:
            emb = emb + self.label_emb(y)
        skips = []
        for conv in self.down:
            x = self.act(conv(x))
            skips.append(x)
        x = skips.pop() + emb[:, :, None, None]
        for conv in self.mid:
            x = self.act(conv(x))
        for conv in self.up:
            x = torch.cat([self.act(conv(x)), skips.pop()], dim=1)
        return self.out(x)
