"""The layers that networks are made of, and the embedding of t. Mirror: ddpm_torch.networks.layers.

Letters in the shape comments: B images, C channels, H and W height and width, D = 4 * base_channels.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from keras import layers

from ddpm_shared.errors import UserError
from ddpm_tf.config import ActivationName, ModelConfig

_NHWC = "channels_last"  # said to every layer: the user's Keras may have another default

# ddpm_tf.model sets every weight; Keras' own draw, at the first call, would be lost.
Conv2D = functools.partial(layers.Conv2D, kernel_initializer="zeros", data_format=_NHWC)
Conv2DTranspose = functools.partial(layers.Conv2DTranspose, kernel_initializer="zeros", data_format=_NHWC)
Dense = functools.partial(layers.Dense, kernel_initializer="zeros")

GROUP_NORM_EPS = 1e-5  # Keras would take 1e-3
LAYER_NORM_EPS = 1e-5  # so would it here
BATCH_NORM_EPS = 1e-5  # and here
BATCH_NORM_MOMENTUM = 0.1  # weight of the new moments; Keras' momentum is that of the old ones, 0.99

LayerNorm = functools.partial(layers.LayerNormalization, epsilon=LAYER_NORM_EPS)


def timestep_embedding(t: tf.Tensor, dim: int) -> tf.Tensor:
    """The sinusoidal embedding of the diffusion time.

    emb[i] = sin(t * w_i), emb[half + i] = cos(t * w_i), w_i = 10000 ** (-i / (half - 1)), half = dim / 2

    Args:
        t: [B], times 0 .. T - 1, whole or not.
        dim: even, 4 or more.

    Returns:
        [B, dim] float64, to be rounded by the caller.

    Source: Vaswani et al. 2017 (arXiv:1706.03762), section 3.5, in Ho et al.'s arrangement.
    Mirror: ddpm_torch.networks.layers.timestep_embedding.
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


@tf.custom_gradient
def gelu(x: tf.Tensor) -> Any:
    """Each x times the probability that a standard normal number is below it: x (1 + erf(x / sqrt(2))) / 2.

    This is GELU itself. Its approximation by tanh, which some libraries take by default, is off by up to 4.7e-4.

    Args:
        x: of any shape.

    Returns:
        The shape of x.

    Source: Hendrycks & Gimpel 2016 (arXiv:1606.08415), section 2.
    Mirror: ddpm_torch.networks.layers.gelu.
    """
    # tf.nn.gelu rounds sqrt(2) to float32, even for x in float64.
    return x * _normal_cdf(x), lambda dy: _gelu_gradient(x, dy)


def _normal_cdf(x: tf.Tensor) -> tf.Tensor:
    return 0.5 * (1.0 + tf.math.erf(math.sqrt(0.5) * x))


@tf.function(jit_compile=True, reduce_retracing=True, autograph=False)
def _gelu_gradient(x: tf.Tensor, dy: tf.Tensor) -> tf.Tensor:  # as that of silu
    z, dz = (tf.cast(y, _accurate(x.dtype)) for y in (x, dy))
    density = tf.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)
    return tf.cast(dz * (_normal_cdf(z) + z * density), x.dtype)


def gelu_tanh(x: tf.Tensor) -> tf.Tensor:
    """The approximation of gelu by tanh: x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2.

    Args:
        x: of any shape.

    Returns:
        The shape of x.

    Source: Hendrycks & Gimpel 2016 (arXiv:1606.08415), section 2.
    Mirror: ddpm_torch.networks.layers.gelu_tanh.
    """
    # tf.nn.gelu rounds 0.044715 to float32, even for x in float64.
    return 0.5 * x * (1.0 + tf.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


# What stands between the layers of the networks that have a choice, by name.
ACTIVATIONS: dict[ActivationName, Callable[[tf.Tensor], tf.Tensor]] = {
    "silu": silu,
    "relu": tf.nn.relu,
    "gelu": gelu,
    "tanh": tf.tanh,
}


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


class Block(layers.Layer):
    """A layer that is made of layers, which build themselves at their first call.

    It counts as built from the start. Keras would otherwise trace its call, and inside that those of its own layers,
    only to learn of which shapes they are: four fifths of the time that it takes to make a network.
    """

    def __init__(self, dtype: str) -> None:
        super().__init__(dtype=dtype)
        self.built = True


def one_hot(labels: tf.Tensor, num_classes: int, dtype: tf.DType) -> tf.Tensor:
    """The weights of labels in the table of LabelEmbedding.

    Args:
        labels: [B] integer, 0 .. num_classes - 1, or num_classes for no label; or the weights [B, num_classes + 1].
        num_classes: K.
        dtype: of the result.

    Returns:
        [B, K + 1].

    Mirror: ddpm_torch.networks.layers.one_hot.
    """
    if labels.shape.rank == 2:
        return tf.cast(labels, dtype)
    return tf.one_hot(labels, num_classes + 1, dtype=dtype)


class LabelEmbedding(Block):
    """A learned vector for every class, and a last one, the null label, for images without a label.

    The rows are taken by one matrix product with a one-hot vector, whose gradient is an ordinary, dense matrix.

    Args:
        num_classes: K.
        dim: D, of the vectors.
        dtype: a Keras dtype policy.

    Source: Ho and Salimans 2022 (arXiv:2207.12598), section 3.2, for the null label.
    Mirror: ddpm_torch.networks.layers.LabelEmbedding.
    """

    def __init__(self, num_classes: int, dim: int, dtype: str) -> None:
        super().__init__(dtype=dtype)
        self.num_classes = num_classes
        self.weight = self.add_weight(name="weight", shape=(num_classes + 1, dim), initializer="zeros")

    def call(self, labels: tf.Tensor) -> tf.Tensor:
        """[B] or [B, K + 1], as in one_hot -> [B, D]."""
        return one_hot(labels, self.num_classes, tf.as_dtype(self.compute_dtype)) @ self.weight


def label_of_each(labels: tf.Tensor | None, t: tf.Tensor, num_classes: int) -> tf.Tensor:
    """The labels of a batch, or the null label for each of its images.

    Args:
        labels: as in one_hot; None: no image has one.
        t: [B].
        num_classes: K.

    Returns:
        As in one_hot.

    Raises:
        UserError: labels for a network without classes.

    Mirror: ddpm_torch.networks.layers.label_of_each.
    """
    if labels is not None and not num_classes:
        raise UserError("labels: this network was built without class labels; leave them out")
    return labels if labels is not None else tf.fill(tf.shape(t), num_classes)


class BatchNorm(Block):
    """y = (x - mean) / sqrt(variance + epsilon) * weight + bias, with the moments of each channel over all images.

    In training they are the moments of the batch, so that an image's output depends on the other images. Afterwards
    they are running averages over the batches of the training, two buffers:

    running = (1 - momentum) running + momentum batch, whose variance here is the unbiased one, n / (n - 1) times

    A call in training changes nothing: it leaves the moments of its batch in `seen`, and `remember` takes them over
    when the step has succeeded.

    Args:
        channels: C.
        dtype: a Keras dtype policy.

    Source: Ioffe & Szegedy 2015 (arXiv:1502.03167), algorithms 1 and 2, with PyTorch's momentum and epsilon.
    Mirror: ddpm_torch.networks.layers.BatchNorm.
    """

    running_mean: keras.Variable
    running_var: keras.Variable

    def __init__(self, channels: int, dtype: str) -> None:
        super().__init__(dtype=dtype)

        def make(name: str, initializer: str, trainable: bool) -> keras.Variable:
            return self.add_weight(
                name=name, shape=(channels,), initializer=initializer, trainable=trainable, autocast=False
            )

        self.weight, self.bias = make("weight", "ones", True), make("bias", "zeros", True)
        self.running_mean, self.running_var = make("running_mean", "zeros", False), make("running_var", "ones", False)
        self.training = False
        self.seen: tuple[tf.Tensor, tf.Tensor] | None = None

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C] -> [B, H, W, C]."""
        precise = tf.cast(x, self.variable_dtype)
        if self.training and precise.dtype != tf.float64:
            # TensorFlow's own takes a quarter of the time, but not float64. Its variance is the unbiased one. (Through
            # tf.nn, an epsilon of 1e-5 would become 1.001e-5.)
            y, *seen, _, _, _ = tf.raw_ops.FusedBatchNormV3(
                x=precise, scale=self.weight, offset=self.bias, mean=[], variance=[], epsilon=BATCH_NORM_EPS
            )
            self.seen = seen[0], seen[1]
            return tf.cast(y, x.dtype)
        if self.training:
            mean, variance = tf.nn.moments(precise, axes=[0, 1, 2])
            count = tf.cast(tf.size(x) // x.shape[3], precise.dtype)
            self.seen = mean, variance * count / tf.maximum(count - 1.0, 1.0)
        else:
            mean, variance = self.running_mean, self.running_var
        y = (precise - mean) * (tf.math.rsqrt(variance + BATCH_NORM_EPS) * self.weight) + self.bias
        return tf.cast(y, x.dtype)

    def remember(self) -> None:
        """Take the moments of the last batch into the running ones."""
        assert self.seen is not None, "no batch has gone through this layer in training"
        for running, new in zip((self.running_mean, self.running_var), self.seen, strict=True):
            running.assign((1.0 - BATCH_NORM_MOMENTUM) * running + BATCH_NORM_MOMENTUM * new)
        self.seen = None


class MultiHeadAttention(Block):
    """Every token looks at every other, once in each head: project(softmax(q k^T / sqrt(C / heads)) v).

    q, k and v are linear in the tokens, and each head has its own range of their channels. The key has no bias, as in
    AttentionBlock.

    Args:
        channels: C, a multiple of `heads`.
        heads: how many.
        dtype: a Keras dtype policy.

    Source: Vaswani et al. 2017 (arXiv:1706.03762), section 3.2.2.
    Mirror: ddpm_torch.networks.layers.MultiHeadAttention.
    """

    def __init__(self, channels: int, heads: int, dtype: str) -> None:
        super().__init__(dtype=dtype)
        self.heads = heads
        self.query = Dense(channels, dtype=dtype)
        self.key = Dense(channels, use_bias=False, dtype=dtype)
        self.value = Dense(channels, dtype=dtype)
        self.project = Dense(channels, dtype=dtype)

    def call(self, tokens: tf.Tensor) -> tf.Tensor:
        """[B, N, C] -> [B, N, C]."""
        _, count, channels = tokens.shape
        maps = (self.query(tokens), self.key(tokens), self.value(tokens))
        split = (tf.reshape(y, [-1, count, self.heads, channels // self.heads]) for y in maps)
        q, k, v = (tf.transpose(y, [0, 2, 1, 3]) for y in split)  # [B, heads, N, C / heads]
        weights = tf.nn.softmax(tf.matmul(q, k, transpose_b=True) / math.sqrt(q.shape[3]), axis=-1)  # [B, heads, N, N]
        joined = tf.transpose(tf.matmul(weights, v), [0, 2, 1, 3])
        return self.project(tf.reshape(joined, [-1, count, channels]))


class ResidualBlock(Block):
    """h = conv_1(silu(norm_1(x))) + time(emb);  y = skip(x) + conv_2(silu(norm_2(h))).

    Args:
        in_channels: C of x.
        out_channels: C of y; where it differs from C of x, skip is a 1x1 convolution, else the identity.
        config: the network's.
        dtype: a Keras dtype policy.

    Source: Ho et al. 2020 (arXiv:2006.11239), appendix B.
    Mirror: ddpm_torch.networks.layers.ResidualBlock.
    """

    def __init__(self, in_channels: int, out_channels: int, config: ModelConfig, dtype: str) -> None:
        super().__init__(dtype=dtype)
        self.norm_1 = GroupNorm(config.num_groups, dtype)
        self.conv_1 = Conv2D(out_channels, 3, padding="same", dtype=dtype)
        self.time = Dense(out_channels, dtype=dtype)
        self.norm_2 = GroupNorm(config.num_groups, dtype)
        self.conv_2 = Conv2D(out_channels, 3, padding="same", dtype=dtype)
        self.skip = Conv2D(out_channels, 1, dtype=dtype) if in_channels != out_channels else None

    def call(self, x: tf.Tensor, emb: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C_in], [B, D] -> [B, H, W, C_out]."""
        h = self.conv_1(silu(self.norm_1(x)))
        h = h + self.time(emb)[:, None, None, :]  # [B, C_out] over all pixels
        h = self.conv_2(silu(self.norm_2(h)))
        return h + (x if self.skip is None else self.skip(x))


class AttentionBlock(Block):
    """Every pixel looks at every other: y = x + project(softmax(q k^T / sqrt(C)) v), q, k, v linear in norm(x).

    The key has no bias: softmax does not see it, so its gradient is rounding noise, which Adam would amplify.

    Source: Vaswani et al. 2017 (arXiv:1706.03762), eq. 1, with one head.
    Mirror: ddpm_torch.networks.layers.AttentionBlock.
    """

    def __init__(self, channels: int, config: ModelConfig, dtype: str) -> None:
        super().__init__(dtype=dtype)
        self.norm = GroupNorm(config.num_groups, dtype)
        self.query = Dense(channels, dtype=dtype)
        self.key = Dense(channels, use_bias=False, dtype=dtype)
        self.value = Dense(channels, dtype=dtype)
        self.project = Dense(channels, dtype=dtype)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C] -> [B, H, W, C]."""
        _, height, width, channels = x.shape
        tokens = tf.reshape(self.norm(x), [-1, height * width, channels])  # [B, H, W, C] -> [B, H*W, C]
        q, k, v = self.query(tokens), self.key(tokens), self.value(tokens)
        weights = tf.nn.softmax(tf.matmul(q, k, transpose_b=True) / math.sqrt(channels), axis=-1)  # [B, H*W, H*W]
        tokens = self.project(tf.matmul(weights, v))
        return x + tf.reshape(tokens, [-1, height, width, channels])  # [B, H*W, C] -> [B, H, W, C]


class Downsample(Block):
    """Half the size, odd sizes rounded up, by a strided convolution.

    Args:
        channels: C of the input.
        out_channels: C of the output (default: those of the input).
        dtype: a Keras dtype policy.

    Mirror: ddpm_torch.networks.layers.Downsample.
    """

    def __init__(self, channels: int, dtype: str, out_channels: int | None = None) -> None:
        super().__init__(dtype=dtype)
        # padding="same" would pad even sizes at the bottom and right only, where PyTorch pads all four sides.
        self.pad = layers.ZeroPadding2D(1, data_format=_NHWC, dtype=dtype)
        self.conv = Conv2D(out_channels or channels, 3, strides=2, padding="valid", dtype=dtype)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C_in] -> [B, ceil(H/2), ceil(W/2), C_out]."""
        return self.conv(self.pad(x))


class Upsample(Block):
    """Twice the size by repeating pixels, cut to `size`, then a convolution.

    Mirror: ddpm_torch.networks.layers.Upsample.
    """

    def __init__(self, channels: int, size: int, dtype: str) -> None:
        super().__init__(dtype=dtype)
        self.size = size  # 2H, or 2H - 1 where the way down rounded up
        self.repeat = layers.UpSampling2D(2, interpolation="nearest", data_format=_NHWC, dtype=dtype)
        self.conv = Conv2D(channels, 3, padding="same", dtype=dtype)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C] -> [B, size, size, C]."""
        x = self.repeat(x)
        return self.conv(x[:, : self.size, : self.size, :])


class TransposedConvolution(Block):
    """Twice the size, or one pixel less, by the adjoint of Downsample: each pixel adds its kernel to a 3 x 3 patch.

    Args:
        in_channels: C of the input.
        out_channels: C of the output.
        output_padding: 1 for twice the size; 0 for one pixel less, where the way down rounded up.
        dtype: a Keras dtype policy.

    Source: Dumoulin & Visin 2016 (arXiv:1603.07285), section 4.
    Mirror: ddpm_torch.networks.layers.TransposedConvolution.
    """

    def __init__(self, in_channels: int, out_channels: int, output_padding: int, dtype: str) -> None:
        super().__init__(dtype=dtype)
        self.output_padding = output_padding
        self.conv = Conv2DTranspose(out_channels, 3, strides=2, padding="valid", dtype=dtype)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C_in] -> [B, 2H - 1 + output_padding, 2W - 1 + output_padding, C_out]."""
        _, height, width, _ = x.shape
        # All patches make 2H + 1 rows. PyTorch's padding cuts off the first; padding="same" cuts off the last, and is
        # one pixel off where the size doubles.
        rows, columns = (2 * size - 1 + self.output_padding for size in (height, width))
        return self.conv(x)[:, 1 : 1 + rows, 1 : 1 + columns, :]
