"""The sinusoidal embeddings of the time that are about."""

import math

import torch
from torch import Tensor, nn


class SinusoidalPositionEmbeddings(nn.Module):
    """Sines, then cosines, at frequencies 10000 ** (-i / (half - 1))."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, time: Tensor) -> Tensor:
        half_dim = self.dim // 2
        embeddings = math.log(10000) / (half_dim - 1)
        embeddings = torch.exp(torch.arange(half_dim, dtype=torch.get_default_dtype()) * -embeddings)
        embeddings = time[:, None] * embeddings[None, :]
        return torch.cat((embeddings.sin(), embeddings.cos()), dim=-1)


class PositionalEncoding(nn.Module):
    """Sine and cosine in turn, at frequencies 10000 ** (-i / half), as for words."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.d_model = d_model

    def forward(self, t: Tensor) -> Tensor:
        div_term = torch.exp(torch.arange(0, self.d_model, 2).to(t) * (-math.log(10000.0) / self.d_model))
        pe = torch.zeros(len(t), self.d_model, dtype=t.dtype)
        pe[:, 0::2] = torch.sin(t[:, None] * div_term)
        pe[:, 1::2] = torch.cos(t[:, None] * div_term)
        return pe
