"""Diffusion transformers in two layouts: that of facebookresearch/DiT, with timm's parts, and smalldiffusion's."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the field's name for it)


def sinusoids(positions: Tensor, dim: int) -> Tensor:
    omega = 10000.0 ** (-torch.arange(dim // 2) / (dim / 2))
    angles = torch.outer(positions, omega)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def grid_embedding(dim: int, side: int) -> Tensor:
    """The column in the first half, the row in the second; the patches go row by row."""
    place = torch.arange(side, dtype=torch.get_default_dtype())
    columns, rows = place.repeat(side), place.repeat_interleave(side)
    return torch.cat([sinusoids(columns, dim // 2), sinusoids(rows, dim // 2)], dim=1)[None]


class PatchEmbed(nn.Module):
    def __init__(self, patch: int, channels: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, kernel_size=patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """q, k and v of all heads in one linear map."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, dim))


def unpatchify(x: Tensor, patch: int, channels: int) -> Tensor:
    side = math.isqrt(x.shape[1])
    x = x.reshape(x.shape[0], side, side, patch, patch, channels)
    return torch.einsum("nhwpqc->nchpwq", x).reshape(x.shape[0], channels, side * patch, side * patch)


# --- facebookresearch/DiT -----------------------------------------------------------------------------------


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x * (1 + scale[:, None]) + shift[:, None]


class TimestepEmbedder(nn.Module):
    """Cosines first, at frequencies 10000 ** (-i / half)."""

    def __init__(self, dim: int, frequency_embedding_size: int) -> None:
        super().__init__()
        self.size = frequency_embedding_size
        self.mlp = nn.Sequential(nn.Linear(self.size, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, t: Tensor) -> Tensor:
        half = self.size // 2
        angles = t[:, None] * torch.exp(-math.log(10000) * torch.arange(half).to(t) / half)[None]
        return self.mlp(torch.cat([angles.cos(), angles.sin()], dim=-1))


class LabelEmbedder(nn.Module):
    def __init__(self, rows: int, dim: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(rows, dim)


class Mlp(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class DiTBlock(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.mlp = Mlp(dim)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift_msa, scale_msa, gate_msa, shift_mlp, scale_mlp, gate_mlp = self.adaLN_modulation(c).chunk(6, dim=1)
        x = x + gate_msa[:, None] * self.attn(modulate(self.norm1(x), shift_msa, scale_msa))
        return x + gate_mlp[:, None] * self.mlp(modulate(self.norm2(x), shift_mlp, scale_mlp))


class FinalLayer(nn.Module):
    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.linear = nn.Linear(dim, out)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 2 * dim))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(c).chunk(2, dim=1)
        return self.linear(modulate(self.norm_final(x), shift, scale))


class DiT(nn.Module):
    """With learn_sigma it has twice the channels, as by default there."""

    def __init__(self, dim=24, heads=3, depth=2, patch=4, channels=1, learn_sigma=False, classes=10, size=28):
        super().__init__()
        self.patch, self.out = patch, channels * (2 if learn_sigma else 1)
        self.x_embedder = PatchEmbed(patch, channels, dim)
        self.t_embedder = TimestepEmbedder(dim, 20)
        self.y_embedder = LabelEmbedder(classes + 1, dim)
        self.pos_embed = nn.Parameter(grid_embedding(dim, size // patch), requires_grad=False)
        self.blocks = nn.ModuleList([DiTBlock(dim, heads) for _ in range(depth)])
        self.final_layer = FinalLayer(dim, patch**2 * self.out)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        x = self.x_embedder(x) + self.pos_embed
        c = self.t_embedder(t) + self.y_embedder.embedding_table(y)
        for block in self.blocks:
            x = block(x, c)
        return unpatchify(self.final_layer(x, c), self.patch, self.out)


# --- smalldiffusion -----------------------------------------------------------------------------------------


class Modulation(nn.Module):
    def __init__(self, dim: int, n: int) -> None:
        super().__init__()
        self.n = n
        self.proj = nn.Sequential(nn.SiLU(), nn.Linear(dim, n * dim))

    def forward(self, y: Tensor) -> list[Tensor]:
        return [part[:, None] for part in self.proj(y).chunk(self.n, dim=1)]


class ModulatedLayerNorm(nn.LayerNorm):
    """The scale comes before the shift here."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, elementwise_affine=False, eps=1e-6)
        self.modulation = Modulation(dim, 2)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        scale, shift = self.modulation(y)
        return super().forward(x) * (1 + scale) + shift


class SmallBlock(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = ModulatedLayerNorm(dim), ModulatedLayerNorm(dim)
        self.attn = Attention(dim, heads)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(approximate="tanh"), nn.Linear(4 * dim, dim))
        self.scale_modulation = Modulation(dim, 2)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        gate_msa, gate_mlp = self.scale_modulation(y)
        x = x + gate_msa * self.attn(self.norm1(x, y))
        return x + gate_mlp * self.mlp(self.norm2(x, y))


class SigmaEmbedder(nn.Module):
    """The sine and the cosine of half the logarithm of sigma."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(2, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, sigma: Tensor) -> Tensor:
        s = 0.5 * torch.log(sigma)[:, None]
        return self.mlp(torch.cat([torch.sin(s), torch.cos(s)], dim=1))


class CondEmbedderLabel(nn.Module):
    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(classes + 1, dim)
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, labels: Tensor) -> Tensor:
        return self.mlp(self.embeddings(labels))


class SmallDiT(nn.Module):
    """Of images, 28 x 28, one channel."""

    def __init__(self, dim: int = 24, heads: int = 3, depth: int = 2, patch: int = 4, classes: int = 10) -> None:
        super().__init__()
        self.patch = patch
        self.pos_embed = nn.Parameter(grid_embedding(dim, 28 // patch), requires_grad=False)
        self.x_embed = PatchEmbed(patch, 1, dim)
        self.sig_embed = SigmaEmbedder(dim)
        self.cond_embed = CondEmbedderLabel(dim, classes)
        self.blocks = nn.ModuleList([SmallBlock(dim, heads) for _ in range(depth)])
        self.final_norm = ModulatedLayerNorm(dim)
        self.final_linear = nn.Linear(dim, patch**2)

    def forward(self, x: Tensor, sigma: Tensor, cond: Tensor) -> Tensor:
        x = self.x_embed(x) + self.pos_embed
        y = self.sig_embed(sigma) + self.cond_embed(cond)
        for block in self.blocks:
            x = block(x, y)
        return unpatchify(self.final_linear(self.final_norm(x, y)), self.patch, 1)
