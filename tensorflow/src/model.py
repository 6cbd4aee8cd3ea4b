"""The network of x_t and t: Ho et al.'s U-Net, sized by ModelConfig. Mirror: ddpm_torch.model.

Letters in the shape comments: B images, C channels, H and W height and width, D = 4 * base_channels.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from numpy.typing import NDArray

from ddpm_shared.config import Config
from ddpm_shared.parameters import initial_value
from ddpm_shared.records import checkpoint
from ddpm_shared.records.checkpoint import Checkpoint
from ddpm_tf import utils
from ddpm_tf.config import ModelConfig, Precision

GROUP_NORM_EPS = 1e-5  # Keras would take 1e-3


def timestep_embedding(t: tf.Tensor, dim: int) -> tf.Tensor:
    """The sinusoidal embedding of the diffusion time.

    emb[i] = sin(t * w_i), emb[half + i] = cos(t * w_i), w_i = 10000 ** (-i / (half - 1)), half = dim / 2

    Args:
        t: [B] integer, 0 .. T - 1.
        dim: even, 4 or more.

    Returns:
        [B, dim] float64, to be rounded by the caller.

    Source: Vaswani et al. 2017 (arXiv:1706.03762), section 3.5, in Ho et al.'s arrangement.
    Mirror: ddpm_torch.model.timestep_embedding.
    """
    half = dim // 2
    exponents = tf.range(half, dtype=tf.float64) / (half - 1)
    frequencies = tf.exp(-math.log(10000.0) * exponents)  # [half]
    angles = tf.cast(t, tf.float64)[:, None] * frequencies[None, :]  # [B] -> [B, half]
    return tf.concat([tf.sin(angles), tf.cos(angles)], axis=1)


@tf.custom_gradient
def silu(x: tf.Tensor) -> Any:
    """X sigmoid(x), as tf.nn.silu, with a faster gradient: TensorFlow's makes six passes over memory, XLA's one."""
    return tf.nn.silu(x), lambda dy: _silu_gradient(x, dy)


@tf.function(jit_compile=True, reduce_retracing=True, autograph=False)
def _silu_gradient(x: tf.Tensor, dy: tf.Tensor) -> tf.Tensor:
    z, dz = (tf.cast(y, _accurate(x.dtype)) for y in (x, dy))
    s = tf.sigmoid(z)
    return tf.cast(dz * s * (1.0 + z * (1.0 - s)), x.dtype)


def _accurate(dtype: tf.DType) -> tf.DType:
    return tf.float64 if dtype == tf.float64 else tf.float32


class GroupNorm(layers.Layer):
    """y = (x - mean) / sqrt(variance + epsilon) * gamma + beta, with the moments of each image's group of channels.

    Keras' own takes the moments over three axes of five, which is slow, and leaves the way back to a dozen operations.
    Here the moments of each channel come first, those of its group are their means, and the gradient is written out.

    Args:
        num_groups: so many equal ranges of channels.
        dtype: a Keras dtype policy.

    Source: Wu & He 2018 (arXiv:1803.08494), eq. 1-7.
    """

    def __init__(self, num_groups: int, dtype: str) -> None:
        super().__init__(dtype=dtype)
        self.num_groups = num_groups

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Make gamma and beta, [C], in the precision of the weights."""
        channels = shape[-1]
        self.gamma = self.add_weight(name="gamma", shape=(channels,), initializer="ones", autocast=False)
        self.beta = self.add_weight(name="beta", shape=(channels,), initializer="zeros", autocast=False)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C] -> [B, H, W, C]."""
        gamma, beta = (tf.reshape(parameter, [self.num_groups, -1]) for parameter in (self.gamma, self.beta))
        return _group_norm(x, gamma, beta)


@tf.custom_gradient
def _group_norm(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> Any:
    # G groups of K channels, C = G K; gamma and beta are [G, K]
    def channel_means(y: tf.Tensor) -> tf.Tensor:  # [B, H, W, C] -> [B, G, K]
        return tf.reshape(tf.cast(tf.reduce_mean(y, axis=[1, 2]), gamma.dtype), [-1, *gamma.shape])

    def group_means(values: tf.Tensor) -> tf.Tensor:  # [B, G, K] -> [B, G, 1]
        return tf.reduce_mean(values, axis=2, keepdims=True)

    def spread(values: tf.Tensor) -> tf.Tensor:  # [B, G, K or 1] -> [B, 1, 1, C]
        return tf.reshape(tf.cast(values * tf.ones_like(gamma), x.dtype), [-1, 1, 1, x.shape[3]])

    mean = group_means(channel_means(x))
    variance = group_means(channel_means(tf.math.squared_difference(x, spread(mean))))
    rstd = tf.math.rsqrt(variance + GROUP_NORM_EPS)
    scale = rstd * gamma
    y = x * spread(scale) + spread(beta - mean * scale)

    def gradient(dy: tf.Tensor) -> tuple[tf.Tensor, ...]:
        # With x_hat = (x - mean) rstd and <.> the mean over a group:
        # dx = rstd (gamma dy - <gamma dy> - x_hat <gamma dy x_hat>)
        d_beta = channel_means(dy)
        d_gamma = (channel_means(dy * x) - mean * d_beta) * rstd
        slope = -(rstd**2) * group_means(gamma * d_gamma)
        offset = -rstd * group_means(gamma * d_beta) - mean * slope
        dx = dy * spread(scale) + x * spread(slope) + spread(offset)
        pixels = x.shape[1] * x.shape[2]
        return dx, pixels * tf.reduce_sum(d_gamma, axis=0), pixels * tf.reduce_sum(d_beta, axis=0)

    return y, gradient


class ResidualBlock(layers.Layer):
    """h = conv_1(silu(norm_1(x))) + time(emb);  y = skip(x) + conv_2(silu(norm_2(h))).

    Args:
        in_channels: C of x.
        out_channels: C of y; where it differs from C of x, skip is a 1x1 convolution, else the identity.
        config: the network's.
        dtype: a Keras dtype policy.

    Source: Ho et al. 2020 (arXiv:2006.11239), appendix B.
    Mirror: ddpm_torch.model.ResidualBlock.
    """

    def __init__(self, in_channels: int, out_channels: int, config: ModelConfig, dtype: str) -> None:
        super().__init__(dtype=dtype)
        self.norm_1 = GroupNorm(config.num_groups, dtype)
        self.conv_1 = layers.Conv2D(out_channels, 3, padding="same", dtype=dtype)
        self.time = layers.Dense(out_channels, dtype=dtype)
        self.norm_2 = GroupNorm(config.num_groups, dtype)
        self.conv_2 = layers.Conv2D(out_channels, 3, padding="same", dtype=dtype)
        self.skip = layers.Conv2D(out_channels, 1, dtype=dtype) if in_channels != out_channels else None

    def call(self, x: tf.Tensor, emb: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C_in], [B, D] -> [B, H, W, C_out]."""
        h = self.conv_1(silu(self.norm_1(x)))
        h = h + self.time(emb)[:, None, None, :]  # [B, C_out] over all pixels
        h = self.conv_2(silu(self.norm_2(h)))
        return h + (x if self.skip is None else self.skip(x))


class AttentionBlock(layers.Layer):
    """Every pixel looks at every other: y = x + project(softmax(q k^T / sqrt(C)) v), q, k, v linear in norm(x).

    The key has no bias: softmax does not see it, so its gradient is rounding noise, which Adam would amplify.

    Source: Vaswani et al. 2017 (arXiv:1706.03762), eq. 1, with one head.
    Mirror: ddpm_torch.model.AttentionBlock.
    """

    def __init__(self, channels: int, config: ModelConfig, dtype: str) -> None:
        super().__init__(dtype=dtype)
        self.norm = GroupNorm(config.num_groups, dtype)
        self.query = layers.Dense(channels, dtype=dtype)
        self.key = layers.Dense(channels, use_bias=False, dtype=dtype)
        self.value = layers.Dense(channels, dtype=dtype)
        self.project = layers.Dense(channels, dtype=dtype)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C] -> [B, H, W, C]."""
        _, height, width, channels = x.shape
        tokens = tf.reshape(self.norm(x), [-1, height * width, channels])  # [B, H, W, C] -> [B, H*W, C]
        q, k, v = self.query(tokens), self.key(tokens), self.value(tokens)
        weights = tf.nn.softmax(tf.matmul(q, k, transpose_b=True) / math.sqrt(channels), axis=-1)  # [B, H*W, H*W]
        tokens = self.project(tf.matmul(weights, v))
        return x + tf.reshape(tokens, [-1, height, width, channels])  # [B, H*W, C] -> [B, H, W, C]


class Stage(layers.Layer):
    """A residual block, followed by attention at the sizes that have it. Mirror: ddpm_torch.model.Stage."""

    def __init__(self, in_channels: int, out_channels: int, attention: bool, config: ModelConfig, dtype: str) -> None:
        super().__init__(dtype=dtype)
        self.residual = ResidualBlock(in_channels, out_channels, config, dtype)
        self.attention = AttentionBlock(out_channels, config, dtype) if attention else None

    def call(self, x: tf.Tensor, emb: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C_in], [B, D] -> [B, H, W, C_out]."""
        h = self.residual(x, emb)
        return h if self.attention is None else self.attention(h)


class Downsample(layers.Layer):
    """Half the size, odd sizes rounded up, by a strided convolution. Mirror: ddpm_torch.model.Downsample."""

    def __init__(self, channels: int, dtype: str) -> None:
        super().__init__(dtype=dtype)
        # padding="same" would pad even sizes at the bottom and right only, where PyTorch pads all four sides.
        self.pad = layers.ZeroPadding2D(1, dtype=dtype)
        self.conv = layers.Conv2D(channels, 3, strides=2, padding="valid", dtype=dtype)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C] -> [B, ceil(H/2), ceil(W/2), C]."""
        return self.conv(self.pad(x))


class Upsample(layers.Layer):
    """Twice the size by repeating pixels, cut to `size`, then a convolution. Mirror: ddpm_torch.model.Upsample."""

    def __init__(self, channels: int, size: int, dtype: str) -> None:
        super().__init__(dtype=dtype)
        self.size = size  # 2H, or 2H - 1 where the way down rounded up
        self.repeat = layers.UpSampling2D(2, interpolation="nearest", dtype=dtype)
        self.conv = layers.Conv2D(channels, 3, padding="same", dtype=dtype)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C] -> [B, size, size, C]."""
        x = self.repeat(x)
        return self.conv(x[:, : self.size, : self.size, :])


class UNet(keras.Model):
    """The network: down, middle and up, with a skip connection from every step down to its step up.

    Args:
        config: sizes.
        seed: seed of the initial weights (ddpm_shared.parameters).
        precision: "fp32", "fp64", or "bf16": weights in float32, most of the arithmetic in bfloat16.
        out_channels: of the answer (default: those of an image); a learned variance takes as many again.

    Source: Ho et al. 2020 (arXiv:2006.11239), appendix B.
    Mirror: ddpm_torch.model.UNet.
    """

    def __init__(
        self, config: ModelConfig, seed: int = 0, precision: Precision = "fp32", out_channels: int | None = None
    ) -> None:
        dtype = {"fp32": "float32", "fp64": "float64", "bf16": "mixed_bfloat16"}[precision]
        super().__init__(dtype=dtype, autocast=False)  # x_t keeps its precision up to conv_in
        self.config, self.precision = config, precision
        levels = [
            (config.base_channels * mult, size)
            for mult, size in zip(config.channel_mults, config.resolutions, strict=True)
        ]

        # 1. Time: embedding -> two-layer MLP.
        self.time_1 = layers.Dense(4 * config.base_channels, dtype=dtype)
        self.time_2 = layers.Dense(4 * config.base_channels, dtype=dtype)

        # 2. Down: what leaves each step is kept for the way up.
        self.conv_in = layers.Conv2D(config.base_channels, 3, padding="same", dtype=dtype)
        self.down = []
        channels = config.base_channels
        skips = [channels]
        for level, (width, size) in enumerate(levels):
            for _ in range(config.num_res_blocks):
                self.down.append(Stage(channels, width, size in config.attention_resolutions, config, dtype))
                channels = width
                skips.append(channels)
            if level < len(levels) - 1:
                self.down.append(Downsample(channels, dtype))
                skips.append(channels)

        # 3. Middle, at the smallest size.
        attention = config.resolutions[-1] in config.attention_resolutions
        self.middle = [
            Stage(channels, channels, attention, config, dtype),
            Stage(channels, channels, False, config, dtype),
        ]

        # 4. Up: each stage takes the last kept tensor beside its own input.
        self.up = []
        for level, (width, size) in reversed(list(enumerate(levels))):
            for _ in range(config.num_res_blocks + 1):
                attention = size in config.attention_resolutions
                self.up.append(Stage(channels + skips.pop(), width, attention, config, dtype))
                channels = width
            if level > 0:
                self.up.append(Upsample(channels, config.resolutions[level - 1], dtype))

        # 5. Out.
        self.norm_out = GroupNorm(config.num_groups, dtype)
        self.conv_out = layers.Conv2D(out_channels or config.image_channels, 3, padding="same", dtype=dtype)

        # Keras makes the weights at the first call.
        size = config.image_size
        self(tf.zeros([1, size, size, config.image_channels], self.variable_dtype), tf.zeros([1], tf.int32))
        for name, variable in named_parameters(self):
            variable.assign(from_canonical(initial_value(seed, name, canonical_shape(variable))))

    def call(self, x_t: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C] noisy images and [B] integer times -> [B, H, W, C], e.g. predicted noise, in x_t's dtype."""
        emb = tf.cast(timestep_embedding(t, self.config.base_channels), x_t.dtype)  # [B] -> [B, base]
        emb = silu(self.time_2(silu(self.time_1(emb))))  # [B, base] -> [B, D]

        h = self.conv_in(x_t)
        skips = [h]
        for step in self.down:
            h = step(h, emb) if isinstance(step, Stage) else step(h)
            skips.append(h)
        for step in self.middle:
            h = step(h, emb)
        for step in self.up:
            h = step(tf.concat([h, skips.pop()], axis=-1), emb) if isinstance(step, Stage) else step(h)

        output = self.conv_out(silu(self.norm_out(h)))
        return tf.cast(output, x_t.dtype)


def compiled(model: UNet, compile: bool = False) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """`model`, made ready to be called many times.

    PyTorch runs it as it is, TensorFlow as one graph for every batch size: called directly, Keras would run it layer by
    layer. With `compile` it goes through the framework's compiler, torch.compile or XLA, at its first call; where
    PyTorch finds no C++ compiler, it says so and goes on without.

    Mirror: ddpm_torch.model.compiled.
    """
    size, channels = model.config.image_size, model.config.image_channels
    images = tf.TensorSpec([None, size, size, channels], model.variable_dtype)
    times = tf.TensorSpec([None], tf.int32)
    # Autograph would translate the source; here no tensor decides a branch.
    return tf.function(model, input_signature=[images, times], autograph=False, jit_compile=compile)


# PyTorch's names and layouts are the canonical ones, so its tree needs nothing like the rest of this file.
CANONICAL = {"kernel": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}
LEAVES = (layers.Conv2D, layers.Dense, GroupNorm)


def named_parameters(layer: layers.Layer, prefix: str = "") -> Iterator[tuple[str, keras.Variable]]:
    """Every trainable variable with its canonical name, in the order in which the attributes were made."""
    if isinstance(layer, LEAVES):
        for variable in layer.trainable_variables:
            yield prefix + CANONICAL[variable.name], variable
        return
    for name, value in vars(layer).items():
        if name.startswith("_"):  # Keras' own book-keeping
            continue
        if isinstance(value, layers.Layer):
            yield from named_parameters(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, layers.Layer):
                    yield from named_parameters(item, f"{prefix}{name}.{index}.")


def to_canonical(value: NDArray[np.floating]) -> NDArray[np.floating]:
    """Keras' layout to the canonical one: convolutions HWIO -> OIHW, linear maps [in, out] -> [out, in]."""
    return value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T


def from_canonical(value: NDArray[np.floating]) -> NDArray[np.floating]:
    """The inverse of to_canonical: OIHW -> HWIO, [out, in] -> [in, out]."""
    return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T


def canonical_shape(variable: keras.Variable) -> tuple[int, ...]:
    """The shape of to_canonical(variable)."""
    return to_canonical(np.empty(variable.shape, np.bool_)).shape


def load(loaded: Checkpoint, prefix: str, config: Config) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """The network of a checkpoint of either framework, ready to be called as `config` says: where and how.

    Args:
        loaded: with the tensors under `prefix`.
        prefix: "ema" for the averaged weights, "model" for the weights themselves.
        config: the checkpoint's, with the precision, device, threads and compiling that are wanted.

    Raises:
        UserError: the tensors do not fit the network.

    Mirror: ddpm_torch.model.load.
    """
    utils.set_threads(config.threads)
    utils.select_device(config.device)
    model = UNet(config.model, precision=config.precision, out_channels=config.out_channels)
    parameters = dict(named_parameters(model))
    values = checkpoint.select(loaded, prefix, {name: canonical_shape(p) for name, p in parameters.items()})
    for name, parameter in parameters.items():
        parameter.assign(from_canonical(values[name]))
    return compiled(model, config.compile)
