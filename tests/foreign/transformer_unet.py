"""The score model of the tutorials with spatial transformers; its convolutions are padded, and its skips joined."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the field's name for it)


class GaussianFourierProjection(nn.Module):
    """Random features of the time."""

    def __init__(self, embed_dim: int, scale: float = 30.0) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.randn(embed_dim // 2) * scale, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        x_proj = x[:, None] * self.W[None, :] * 2 * math.pi
        return torch.cat([torch.sin(x_proj), torch.cos(x_proj)], dim=-1)


class Dense(nn.Module):
    """A linear map, over all pixels."""

    def __init__(self, input_dim: int, output_dim: int) -> None:
        super().__init__()
        self.dense = nn.Linear(input_dim, output_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(x)[..., None, None]


class CrossAttention(nn.Module):
    """Without biases; of the tokens to themselves where there is no context."""

    def __init__(self, hidden_dim: int, context_dim: int) -> None:
        super().__init__()
        self.query = nn.Linear(hidden_dim, hidden_dim, bias=False)
        self.key = nn.Linear(context_dim, hidden_dim, bias=False)
        self.value = nn.Linear(context_dim, hidden_dim, bias=False)

    def forward(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        context = tokens if context is None else context
        scores = torch.einsum("bth,bsh->bts", self.query(tokens), self.key(context))
        weights = F.softmax(scores / math.sqrt(tokens.shape[-1]), dim=-1)
        return torch.einsum("bts,bsh->bth", weights, self.value(context))


class TransformerBlock(nn.Module):
    """Its feed-forward part is 3 times as wide."""

    def __init__(self, hidden_dim: int, context_dim: int) -> None:
        super().__init__()
        self.attn_self = CrossAttention(hidden_dim, hidden_dim)
        self.attn_cross = CrossAttention(hidden_dim, context_dim)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(hidden_dim) for _ in range(3))
        self.ffn = nn.Sequential(
            nn.Linear(hidden_dim, 3 * hidden_dim), nn.GELU(), nn.Linear(3 * hidden_dim, hidden_dim)
        )

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        x = self.attn_self(self.norm1(x)) + x
        x = self.attn_cross(self.norm2(x), context) + x
        return self.ffn(self.norm3(x)) + x


class SpatialTransformer(nn.Module):
    """A transformer of the pixels."""

    def __init__(self, hidden_dim: int, context_dim: int) -> None:
        super().__init__()
        self.transformer = TransformerBlock(hidden_dim, context_dim)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        h = self.transformer(x.flatten(2).mT, context)
        return x + h.mT.reshape(batch, channels, height, width)


class UNetTransformer(nn.Module):
    """Four levels: 28, 14, 7, 4."""

    def __init__(self, channels=(8, 16, 24, 32), groups: int = 2, classes: int = 10) -> None:
        super().__init__()
        embed_dim = channels[3]
        self.time_embed = nn.Sequential(GaussianFourierProjection(embed_dim), nn.Linear(embed_dim, embed_dim))
        self.conv1 = nn.Conv2d(1, channels[0], 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(channels[0], channels[1], 3, stride=2, padding=1, bias=False)
        self.conv3 = nn.Conv2d(channels[1], channels[2], 3, stride=2, padding=1, bias=False)
        self.conv4 = nn.Conv2d(channels[2], channels[3], 3, stride=2, padding=1, bias=False)
        self.attn3, self.attn4 = (SpatialTransformer(width, embed_dim) for width in channels[2:])
        for number, width in enumerate([*channels, *channels[2::-1]], start=1):
            self.add_module(f"dense{number}", Dense(embed_dim, width))
        for number, width in enumerate(channels, start=1):
            self.add_module(f"gnorm{number}", nn.GroupNorm(groups, width))
        for number, width in enumerate(channels[:3], start=2):
            self.add_module(f"tgnorm{number}", nn.GroupNorm(groups, width))
        self.tconv4 = nn.ConvTranspose2d(channels[3], channels[2], 3, stride=2, padding=1, bias=False)
        self.tconv3 = nn.ConvTranspose2d(2 * channels[2], channels[1], 3, 2, padding=1, output_padding=1, bias=False)
        self.tconv2 = nn.ConvTranspose2d(2 * channels[1], channels[0], 3, 2, padding=1, output_padding=1, bias=False)
        self.tconv1 = nn.ConvTranspose2d(2 * channels[0], 1, 3, stride=1, padding=1)
        self.cond_embed = nn.Embedding(classes, embed_dim)
        self.act = nn.GELU()

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        embed = self.act(self.time_embed(t))
        context = self.cond_embed(y)[:, None]
        h1 = self.act(self.gnorm1(self.conv1(x) + self.dense1(embed)))
        h2 = self.act(self.gnorm2(self.conv2(h1) + self.dense2(embed)))
        h3 = self.attn3(self.act(self.gnorm3(self.conv3(h2) + self.dense3(embed))), context)
        h4 = self.attn4(self.act(self.gnorm4(self.conv4(h3) + self.dense4(embed))), context)
        h = self.act(self.tgnorm4(self.tconv4(h4) + self.dense5(embed)))
        h = self.act(self.tgnorm3(self.tconv3(torch.cat([h, h3], dim=1)) + self.dense6(embed)))
        h = self.act(self.tgnorm2(self.tconv2(torch.cat([h, h2], dim=1)) + self.dense7(embed)))
        return self.tconv1(torch.cat([h, h1], dim=1))
