"""The layers that networks are made of, and the embedding of t. Mirror: ddpm_tf.networks.layers.

Letters in the shape comments: B images, C channels, H and W height and width, D = 4 * base_channels.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the field's name for it)

from ddpm_shared.errors import UserError
from ddpm_torch.config import ActivationName, ModelConfig

GROUP_NORM_EPS = 1e-5  # Keras would take 1e-3
LAYER_NORM_EPS = 1e-5  # so would it here
BATCH_NORM_EPS = 1e-5  # and here
BATCH_NORM_MOMENTUM = 0.1  # weight of the new moments; Keras' momentum is that of the old ones, 0.99


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


def gelu_tanh(x: Tensor) -> Tensor:
    """The approximation of gelu by tanh: x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2.

    Args:
        x: of any shape.

    Returns:
        The shape of x.

    Source: Hendrycks & Gimpel 2016 (arXiv:1606.08415), section 2.
    Mirror: ddpm_tf.networks.layers.gelu_tanh.
    """
    return F.gelu(x, approximate="tanh")


# What stands between the layers of the networks that have a choice, by name.
ACTIVATIONS: dict[ActivationName, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "relu": F.relu,
    "gelu": gelu,
    "tanh": torch.tanh,
}


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


def label_of_each(labels: Tensor | None, t: Tensor, num_classes: int) -> Tensor:
    """The labels of a batch, or the null label for each of its images.

    Args:
        labels: as in one_hot; None: no image has one.
        t: [B].
        num_classes: K.

    Returns:
        As in one_hot.

    Raises:
        UserError: labels for a network without classes.

    Mirror: ddpm_tf.networks.layers.label_of_each.
    """
    if labels is not None and not num_classes:
        raise UserError("labels: this network was built without class labels; leave them out")
    return labels if labels is not None else torch.full(t.shape, num_classes, device=t.device)


class BatchNorm(nn.Module):
    """y = (x - mean) / sqrt(variance + epsilon) * weight + bias, with the moments of each channel over all images.

    In training they are the moments of the batch, so that an image's output depends on the other images. Afterwards
    they are running averages over the batches of the training, two buffers:

    running = (1 - momentum) running + momentum batch, whose variance here is the unbiased one, n / (n - 1) times

    A call in training changes nothing: it leaves the moments of its batch in `seen`, and `remember` takes them over
    when the step has succeeded.

    Args:
        channels: C.

    Source: Ioffe & Szegedy 2015 (arXiv:1502.03167), algorithms 1 and 2, with PyTorch's momentum and epsilon.
    Mirror: ddpm_tf.networks.layers.BatchNorm.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.seen: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        if not self.training:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=BATCH_NORM_EPS)
        # PyTorch's own running averages, begun anew and of momentum 1, are the moments of this batch, of which it has
        # the variance unbiased. (F.batch_norm would do the same, but refuses a batch of one pixel.)
        mean, variance = torch.zeros_like(self.running_mean), torch.zeros_like(self.running_var)
        fast = torch.backends.cudnn.enabled
        y = torch.batch_norm(x, self.weight, self.bias, mean, variance, True, 1.0, BATCH_NORM_EPS, fast)
        one = x.numel() == x.shape[1]
        self.seen = mean, torch.zeros_like(variance) if one else variance  # which of one pixel is 0 / 0
        return y

    @torch.no_grad()
    def remember(self) -> None:
        """Take the moments of the last batch into the running ones."""
        assert self.seen is not None, "no batch has gone through this layer in training"
        for running, new in zip((self.running_mean, self.running_var), self.seen, strict=True):
            running.mul_(1.0 - BATCH_NORM_MOMENTUM).add_(new, alpha=BATCH_NORM_MOMENTUM)
        self.seen = None


class MultiHeadAttention(nn.Module):
    """Every token looks at every other, once in each head: project(softmax(q k^T / sqrt(C / heads)) v).

    q, k and v are linear in the tokens, and each head has its own range of their channels. The key has no bias, as in
    AttentionBlock.

    Args:
        channels: C, a multiple of `heads`.
        heads: how many.

    Source: Vaswani et al. 2017 (arXiv:1706.03762), section 3.2.2.
    Mirror: ddpm_tf.networks.layers.MultiHeadAttention.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels, bias=False)
        self.value = nn.Linear(channels, channels)
        self.project = nn.Linear(channels, channels)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, N, C] -> [B, N, C]."""
        maps = (self.query(tokens), self.key(tokens), self.value(tokens))
        q, k, v = (y.unflatten(2, (self.heads, -1)).transpose(1, 2) for y in maps)  # [B, heads, N, C / heads]
        weights = torch.softmax(q @ k.transpose(2, 3) / math.sqrt(q.shape[3]), dim=-1)  # [B, heads, N, N]
        return self.project((weights @ v).transpose(1, 2).flatten(2))


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


class TransposedConvolution(nn.Module):
    """Twice the size, or one pixel less, by the adjoint of Downsample: each pixel adds its kernel to a 3 x 3 patch.

    Args:
        in_channels: C of the input.
        out_channels: C of the output.
        output_padding: 1 for twice the size; 0 for one pixel less, where the way down rounded up.

    Source: Dumoulin & Visin 2016 (arXiv:1603.07285), section 4.
    Mirror: ddpm_tf.networks.layers.TransposedConvolution.
    """

    def __init__(self, in_channels: int, out_channels: int, output_padding: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(in_channels, out_channels, 3, stride=2, padding=1, output_padding=output_padding)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C_in, H, W] -> [B, C_out, 2H - 1 + output_padding, 2W - 1 + output_padding]."""
        return self.conv(x)
