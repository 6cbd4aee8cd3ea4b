"""The network of x_t and t: Ho et al.'s U-Net, sized by ModelConfig. Mirror: ddpm_tf.model.

Letters in the shape comments: B images, C channels, H and W height and width, D = 4 * base_channels.
"""

import math
import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the field's name for it)

from ddpm_shared.config import Config
from ddpm_shared.parameters import initial_value
from ddpm_shared.records import checkpoint
from ddpm_shared.records.checkpoint import Checkpoint
from ddpm_torch import utils
from ddpm_torch.config import ModelConfig, Precision

GROUP_NORM_EPS = 1e-5  # Keras would take 1e-3


def timestep_embedding(t: Tensor, dim: int) -> Tensor:
    """The sinusoidal embedding of the diffusion time.

    emb[i] = sin(t * w_i), emb[half + i] = cos(t * w_i), w_i = 10000 ** (-i / (half - 1)), half = dim / 2

    Args:
        t: [B] integer, 0 .. T - 1.
        dim: even, 4 or more.

    Returns:
        [B, dim] float64, to be rounded by the caller.

    Source: Vaswani et al. 2017 (arXiv:1706.03762), section 3.5, in Ho et al.'s arrangement.
    Mirror: ddpm_tf.model.timestep_embedding.
    """
    half = dim // 2
    exponents = torch.arange(half, dtype=torch.float64, device=t.device) / (half - 1)
    frequencies = torch.exp(-math.log(10000.0) * exponents)  # [half]
    angles = t.double()[:, None] * frequencies[None, :]  # [B] -> [B, half]
    return torch.cat([torch.sin(angles), torch.cos(angles)], dim=1)


class ResidualBlock(nn.Module):
    """h = conv_1(silu(norm_1(x))) + time(emb);  y = skip(x) + conv_2(silu(norm_2(h))).

    Args:
        in_channels: C of x.
        out_channels: C of y; where it differs from C of x, skip is a 1x1 convolution, else the identity.
        config: the network's.

    Source: Ho et al. 2020 (arXiv:2006.11239), appendix B.
    Mirror: ddpm_tf.model.ResidualBlock.
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
    Mirror: ddpm_tf.model.AttentionBlock.
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


class Stage(nn.Module):
    """A residual block, followed by attention at the sizes that have it. Mirror: ddpm_tf.model.Stage."""

    def __init__(self, in_channels: int, out_channels: int, attention: bool, config: ModelConfig) -> None:
        super().__init__()
        self.residual = ResidualBlock(in_channels, out_channels, config)
        self.attention = AttentionBlock(out_channels, config) if attention else None

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """[B, C_in, H, W], [B, D] -> [B, C_out, H, W]."""
        h = self.residual(x, emb)
        return h if self.attention is None else self.attention(h)


class Downsample(nn.Module):
    """Half the size, odd sizes rounded up, by a strided convolution. Mirror: ddpm_tf.model.Downsample."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, ceil(H/2), ceil(W/2)]."""
        return self.conv(x)


class Upsample(nn.Module):
    """Twice the size by repeating pixels, cut to `size`, then a convolution. Mirror: ddpm_tf.model.Upsample."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.size = size  # 2H, or 2H - 1 where the way down rounded up
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, size, size]."""
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        return self.conv(x[:, :, : self.size, : self.size])


class UNet(nn.Module):
    """The network: down, middle and up, with a skip connection from every step down to its step up.

    Args:
        config: sizes.
        seed: seed of the initial weights (ddpm_shared.parameters).
        precision: "fp32", "fp64", or "bf16": weights in float32, most of the arithmetic in bfloat16.
        out_channels: of the answer (default: those of an image); a learned variance takes as many again.

    Source: Ho et al. 2020 (arXiv:2006.11239), appendix B.
    Mirror: ddpm_tf.model.UNet.
    """

    def __init__(
        self, config: ModelConfig, seed: int = 0, precision: Precision = "fp32", out_channels: int | None = None
    ) -> None:
        super().__init__()
        self.config, self.precision = config, precision
        levels = [
            (config.base_channels * mult, size)
            for mult, size in zip(config.channel_mults, config.resolutions, strict=True)
        ]

        # 1. Time: embedding -> two-layer MLP.
        self.time_1 = nn.Linear(config.base_channels, 4 * config.base_channels)
        self.time_2 = nn.Linear(4 * config.base_channels, 4 * config.base_channels)

        # 2. Down: what leaves each step is kept for the way up.
        self.conv_in = nn.Conv2d(config.image_channels, config.base_channels, 3, padding=1)
        self.down = nn.ModuleList()
        channels = config.base_channels
        skips = [channels]
        for level, (width, size) in enumerate(levels):
            for _ in range(config.num_res_blocks):
                self.down.append(Stage(channels, width, size in config.attention_resolutions, config))
                channels = width
                skips.append(channels)
            if level < len(levels) - 1:
                self.down.append(Downsample(channels))
                skips.append(channels)

        # 3. Middle, at the smallest size.
        attention = config.resolutions[-1] in config.attention_resolutions
        self.middle = nn.ModuleList(
            [Stage(channels, channels, attention, config), Stage(channels, channels, False, config)]
        )

        # 4. Up: each stage takes the last kept tensor beside its own input.
        self.up = nn.ModuleList()
        for level, (width, size) in reversed(list(enumerate(levels))):
            for _ in range(config.num_res_blocks + 1):
                attention = size in config.attention_resolutions
                self.up.append(Stage(channels + skips.pop(), width, attention, config))
                channels = width
            if level > 0:
                self.up.append(Upsample(channels, config.resolutions[level - 1]))

        # 5. Out.
        self.norm_out = nn.GroupNorm(config.num_groups, channels, eps=GROUP_NORM_EPS)
        self.conv_out = nn.Conv2d(channels, out_channels or config.image_channels, 3, padding=1)

        # Channels innermost: the layout in which convolutions are fastest, on a CPU as on a GPU's tensor cores.
        self.to(utils.dtype(precision), memory_format=torch.channels_last)  # type: ignore[call-overload] # unknown to it
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                parameter.copy_(torch.from_numpy(initial_value(seed, name, tuple(parameter.shape))))

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """[B, C, H, W] noisy images and [B] integer times -> [B, C, H, W], e.g. predicted noise, in x_t's dtype."""
        with torch.autocast(x_t.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            emb = timestep_embedding(t, self.config.base_channels).to(x_t.dtype)  # [B] -> [B, base]
            emb = F.silu(self.time_2(F.silu(self.time_1(emb))))  # [B, base] -> [B, D]

            h = self.conv_in(x_t.contiguous(memory_format=torch.channels_last))
            skips = [h]
            for step in self.down:
                h = step(h, emb) if isinstance(step, Stage) else step(h)
                skips.append(h)
            for step in self.middle:
                h = step(h, emb)
            for step in self.up:
                h = step(torch.cat([h, skips.pop()], dim=1), emb) if isinstance(step, Stage) else step(h)

            output = self.conv_out(F.silu(self.norm_out(h)))
        return output.to(x_t.dtype)


def compiled(model: UNet, compile: bool = False) -> Callable[[Tensor, Tensor], Tensor]:
    """`model`, made ready to be called many times.

    PyTorch runs it as it is, TensorFlow as one graph for every batch size: called directly, Keras would run it layer by
    layer. With `compile` it goes through the framework's compiler, torch.compile or XLA, at its first call; where
    PyTorch finds no C++ compiler, it says so and goes on without.

    Mirror: ddpm_tf.model.compiled.
    """
    if not compile:
        return model
    from torch._dynamo.exc import BackendCompilerFailed  # here: it takes a second

    inner = torch.compile(model)

    def call(x_t: Tensor, t: Tensor) -> Tensor:
        nonlocal inner
        try:
            return inner(x_t, t)
        except BackendCompilerFailed as error:
            reason = str(error.inner_exception).strip().partition("\n")[0]
            print(f"--compile: no working C++ compiler here ({reason}); going on without", file=sys.stderr)
            inner = model
            return model(x_t, t)

    return call


def load(loaded: Checkpoint, prefix: str, config: Config) -> Callable[[Tensor, Tensor], Tensor]:
    """The network of a checkpoint of either framework, ready to be called as `config` says: where and how.

    Args:
        loaded: with the tensors under `prefix`.
        prefix: "ema" for the averaged weights, "model" for the weights themselves.
        config: the checkpoint's, with the precision, device, threads and compiling that are wanted.

    Raises:
        UserError: the tensors do not fit the network.

    Mirror: ddpm_tf.model.load.
    """
    utils.set_threads(config.threads)
    model = UNet(config.model, precision=config.precision, out_channels=config.out_channels)
    model = model.to(utils.select_device(config.device)).requires_grad_(False)
    parameters = dict(model.named_parameters())
    values = checkpoint.select(loaded, prefix, {name: tuple(p.shape) for name, p in parameters.items()})
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(torch.from_numpy(values[name]))
    return compiled(model, config.compile)
