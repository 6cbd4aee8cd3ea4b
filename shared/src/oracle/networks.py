"""The oracle of the networks: Ho et al.'s U-Net once more, in float64 NumPy.

It goes another way than the trees: convolutions read their shifted images through matrices of zeros and ones, the U-Net
is a recursion over its levels. The gradients are autograd's, which differentiates these very lines.

Letters in the shape comments: B images, C channels, H and W height and width, D = 4 * base_channels. Images are
[B, H, W, C]. Parameters have the canonical names and layouts: convolutions OIHW, linear maps [out, in].
Whatever is passed, the arithmetic is float64 (complex128 for complex input, which the tests differentiate with).
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import autograd.numpy as np
from autograd import make_vjp
from numpy.typing import NDArray

from ddpm_shared.config import ModelConfig
from ddpm_shared.errors import UserError
from ddpm_shared.oracle.diffusion import Array

Labels = NDArray[Any]  # [B] integer, or [B, K + 1] weights


def _float64(x: Any) -> Any:
    return x.astype(np.promote_types(x.dtype, np.float64), copy=False)


def timestep_embedding(t: NDArray[Any], dim: int) -> Array:
    """Sinusoids of t: the dim/2 sines, then the dim/2 cosines, at frequencies from 1 down to 1/10000.

    Frequency i is 10000^(-i / (dim/2 - 1)). Sine and cosine are the two sides of one rotation, exp(1j w t).

    Args:
        t: [B].
        dim: even, at least 4.

    Returns:
        [B, dim], in [-1, 1].

    Raises:
        UserError: dim odd or less than 4.

    Source: Ho et al. 2020, released code (get_timestep_embedding), after Vaswani et al. 2017, section 3.5.
    """
    if dim < 4 or dim % 2:
        raise UserError(f"the embedding's dim must be even and 4 or more, got {dim}")
    frequencies = 10_000.0 ** -np.linspace(0, 1, dim // 2)
    rotation = np.exp(1j * np.outer(t, frequencies))  # [B, dim / 2]
    return np.concatenate([rotation.imag, rotation.real], axis=1)


def silu(x: Array) -> Array:
    """SiLU, x * sigmoid(x), with sigmoid(x) = (1 + tanh(x / 2)) / 2, in which nothing overflows.

    Source: Hendrycks & Gimpel 2016 (arXiv:1606.08415), section 2.
    """
    x = _float64(x)
    return x * (1 + np.tanh(x / 2)) / 2


def softmax(x: Array) -> Array:
    """Over the last axis, exp(x_i) / sum_j exp(x_j); first the largest x_j is taken from all, against overflow.

    Source: Goodfellow et al. 2016, Deep Learning, section 6.2.2.3.
    """
    x = _float64(x)
    powers = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return powers / np.sum(powers, axis=-1, keepdims=True)


def _windows(size: int, kernel: int, stride: int) -> Array:
    """[kernel, out, size] zeros and ones: entry [i, p, h] is 1 where pixel h is under offset i of window p.

    Window p starts at pixel stride * p - (kernel - 1) // 2. Where that is off the image the row is all zeros.
    """
    padding = (kernel - 1) // 2
    starts = np.arange(0, size + 2 * padding - kernel + 1, stride) - padding
    pixels = starts[None, :] + np.arange(kernel)[:, None]
    return np.equal(pixels[:, :, None], np.arange(size)).astype(np.float64)


class Network:
    """eps_model(x_t, t, labels) of a ModelConfig, and each of its layers alone by its canonical name.

    `activations` holds the output of every module that was called, by canonical name.

    Args:
        parameters: canonical name -> array in the canonical layout.
        config: the network's; a layer alone takes only num_groups from it.

    Source: Ho et al. 2020 (arXiv:2006.11239), appendix B.
    """

    without_bias: ClassVar[tuple[str, ...]] = (".key", "label")  # ends of the names of layers

    def __init__(self, parameters: Mapping[str, NDArray[Any]], config: ModelConfig) -> None:
        self.parameters = {name: _float64(parameters[name]) for name in parameters}
        self.config = config
        self.activations: dict[str, Array] = {}
        self._leaves: set[str] = set()

    def _weight_and_bias(self, leaf: str) -> tuple[Array, Array | float]:
        self._leaves.add(leaf)
        return self.parameters[f"{leaf}.weight"], self.parameters.get(f"{leaf}.bias", 0.0)

    def _record(self, name: str, output: Array) -> Array:
        self.activations[name] = output
        return output

    def convolution(self, name: str, x: Array, stride: int = 1) -> Array:
        """A cross-correlation with zeros around x, (size - 1) // 2 of them on both sides of each axis.

            y[p, q, o] = bias[o] + sum_{i, j, c} weight[o, c, i, j] x[stride p + i - pad_i, stride q + j - pad_j, c]

        [B, H, W, C] -> [B, P, Q, O]; the kernel's height and width are free.

        Source: Goodfellow et al. 2016, Deep Learning, eq. 9.8.
        """
        weight, bias = self._weight_and_bias(name)
        rows, columns = (_windows(x.shape[axis], weight.shape[axis + 1], stride) for axis in (1, 2))
        y = np.tensordot(rows, x, axes=(2, 1))  # [i, P, H], [B, H, W, C] -> [i, P, B, W, C]
        y = np.tensordot(y, weight, axes=((0, 4), (2, 1)))  # [i, P, B, W, C], [O, C, i, j] -> [P, B, W, O, j]
        y = np.tensordot(columns, y, axes=((0, 2), (4, 2)))  # [j, Q, W], [P, B, W, O, j] -> [Q, P, B, O]
        return self._record(name, np.transpose(y, (2, 1, 0, 3)) + bias)

    def linear(self, name: str, x: Array) -> Array:
        """The map y = x weight^T + bias: [..., in] -> [..., out]. No bias among the parameters, none in the map."""
        weight, bias = self._weight_and_bias(name)
        return self._record(name, np.tensordot(x, weight, axes=(-1, 1)) + bias)

    def group_norm(self, name: str, x: Array) -> Array:
        """Normalise each group of C / num_groups neighbouring channels of one image by its moments over all pixels.

            y = weight (x - mean) / sqrt(variance + 1e-5) + bias        variance = mean((x - mean)^2), the biased one

        [B, H, W, C] -> [B, H, W, C]; weight and bias are [C].

        Source: Wu & He 2018 (arXiv:1803.08494), eqs. 1, 2, 6, 7.
        """

        def mean(groups: Array) -> Array:  # in two steps, which NumPy does several times faster
            return np.mean(np.mean(groups, axis=1, keepdims=True), axis=3, keepdims=True)

        weight, bias = self._weight_and_bias(name)
        images, height, width, channels = x.shape
        groups = np.reshape(_float64(x), (images, height * width, self.config.num_groups, -1))
        centred = groups - mean(groups)
        normal = centred / np.sqrt(mean(centred * centred) + 1e-5)
        return self._record(name, np.reshape(normal, (images, height, width, channels)) * weight + bias)

    def label_embedding(self, name: str, labels: Labels) -> Array:
        """The row of the table that each label names, or the sum of all rows, each times its weight.

        [B] integer, 0 .. K, or [B, K + 1] weights -> [B, D]; the table is [K + 1, D], its last row the null label.

        Raises:
            IndexError: a label that names no row.

        Source: Ho and Salimans 2022 (arXiv:2207.12598), section 3.2, for the null label.
        """
        self._leaves.add(name)
        table = self.parameters[f"{name}.weight"]
        if labels.ndim == 2:
            return self._record(name, np.sum(labels[:, :, None] * table[None, :, :], axis=1))
        if not all(0 <= label < len(table) for label in labels):
            raise IndexError(f"labels {labels} of a table of {len(table)} rows")
        return self._record(name, table[labels])

    def _with_label(self, emb: Array, labels: Labels | None) -> Array:
        """[B, D] plus the vector of each label, or of the null label; unchanged in a network without classes."""
        if not self.config.num_classes:
            return emb
        nothing = np.repeat(self.config.num_classes, len(emb))
        return emb + self.label_embedding("label", nothing if labels is None else labels)

    def residual_block(self, name: str, x: Array, emb: Array) -> Array:
        """The sum y = skip(x) + conv_2(silu(norm_2(h))), where h = conv_1(silu(norm_1(x))) + time(emb).

        [B, H, W, C_in], [B, D] -> [B, H, W, C_out]; skip is the identity where C_in = C_out.

        Source: Ho et al. 2020 (arXiv:2006.11239), appendix B.
        """
        h = self.convolution(f"{name}.conv_1", silu(self.group_norm(f"{name}.norm_1", x)))
        h = h + self.linear(f"{name}.time", emb)[:, None, None, :]
        h = self.convolution(f"{name}.conv_2", silu(self.group_norm(f"{name}.norm_2", h)))
        skip = x if x.shape[3] == h.shape[3] else self.convolution(f"{name}.skip", x)
        return self._record(name, skip + h)

    def attention_block(self, name: str, x: Array) -> Array:
        """The sum y = x + project(softmax(q k^T / sqrt(C)) v) over all pixels; q, k, v are linear in norm(x).

        [B, H, W, C] -> [B, H, W, C].

        Source: Vaswani et al. 2017 (arXiv:1706.03762), eq. 1, with one head.
        """
        images, height, width, channels = x.shape
        tokens = np.reshape(self.group_norm(f"{name}.norm", x), (images, height * width, channels))
        q, k, v = (self.linear(f"{name}.{role}", tokens) for role in ("query", "key", "value"))
        weights = softmax(np.einsum("bic,bjc->bij", q, k) / np.sqrt(channels))  # [B, H*W, H*W]
        y = self.linear(f"{name}.project", np.einsum("bij,bjc->bic", weights, v))
        return self._record(name, x + np.reshape(y, x.shape))

    def stage(self, name: str, x: Array, emb: Array, attention: bool | None = None) -> Array:
        """A residual block, then attention, by default if the parameters have one under that name."""
        if attention is None:
            attention = f"{name}.attention.norm.weight" in self.parameters
        h = self.residual_block(f"{name}.residual", x, emb)
        return self._record(name, self.attention_block(f"{name}.attention", h) if attention else h)

    def downsample(self, name: str, x: Array) -> Array:
        """Half the size, odd sizes rounded up, by `convolution`: [B, H, W, C] -> [B, ceil(H/2), ceil(W/2), C]."""
        return self._record(name, self.convolution(f"{name}.conv", x, stride=2))

    def upsample(self, name: str, x: Array, size: int) -> Array:
        """Pixel [p, q] is x[p // 2, q // 2]; then a convolution: [B, H, W, C] -> [B, size, size, C], size <= 2H, 2W."""
        rows, columns = (np.equal(np.arange(size)[:, None] // 2, np.arange(n)).astype(np.float64) for n in x.shape[1:3])
        twice = np.tensordot(rows, np.tensordot(columns, x, axes=(1, 2)), axes=(1, 2))  # [size, size, B, C]
        return self._record(name, self.convolution(f"{name}.conv", np.transpose(twice, (2, 0, 1, 3))))

    def _from_level(self, level: int, h: Array, emb: Array) -> Array:
        """The U from one level downwards. `kept`, its input and what each stage down gave, waits for the way up."""
        last, blocks = len(self.config.channel_mults) - 1, self.config.num_res_blocks
        size = self.config.resolutions[level]
        attention = size in self.config.attention_resolutions
        down, up = level * (blocks + 1), (last - level) * (blocks + 2)  # the numbers of its first stages

        kept = [h]
        for i in range(blocks):
            h = self.stage(f"down.{down + i}", h, emb, attention)
            kept.append(h)
        if level < last:
            h = self._from_level(level + 1, self.downsample(f"down.{down + blocks}", h), emb)
            h = self.upsample(f"up.{up - 1}", h, size)
        else:
            h = self.stage("middle.1", self.stage("middle.0", h, emb, attention), emb, False)
        for i, skip in enumerate(reversed(kept)):
            h = self.stage(f"up.{up + i}", np.concatenate([h, skip], axis=3), emb, attention)
        return h

    def __call__(self, x_t: Array, t: NDArray[Any], labels: Labels | None = None) -> Array:
        """[B, H, W, C] noisy images, [B] times and labels -> [B, H, W, C] predicted noise.

        Labels are as in label_embedding; without them, every image of a network with classes has the null label.

        Raises:
            IndexError: a label that is none of the network's.
            KeyError: a weight is missing.
            UserError: a bias is missing, there are more parameters than the config's, or labels for no classes.
        """
        self._begin(labels)
        emb = timestep_embedding(t, self.config.base_channels)  # [B] -> [B, base]
        emb = self.linear("time_2", silu(self.linear("time_1", emb)))  # [B, base] -> [B, D]
        emb = silu(self._with_label(emb, labels))
        h = self._from_level(0, self.convolution("conv_in", x_t), emb)
        eps_pred = self.convolution("conv_out", silu(self.group_norm("norm_out", h)))
        self._require_all_used()
        return eps_pred

    def _begin(self, labels: Labels | None) -> None:
        """A call of the whole network. Raises UserError for labels, if it has no classes."""
        if labels is not None and not self.config.num_classes:
            raise UserError("labels for a network without classes")
        self.activations, self._leaves = {}, set()

    def _require_all_used(self) -> None:
        """Raise UserError if the parameters are not just those that a call of the whole network took."""
        expected = {f"{leaf}.weight" for leaf in self._leaves}
        expected |= {f"{leaf}.bias" for leaf in self._leaves if not leaf.endswith(self.without_bias)}
        wrong = sorted(expected ^ set(self.parameters))
        if wrong:
            raise UserError(f"missing from the parameters, or unknown to the network: {wrong}")


def gradients_of(
    function: Callable[[Mapping[str, Array]], Array], arrays: Mapping[str, NDArray[Any]], w: Array | float = 1.0
) -> tuple[Array, dict[str, Array]]:
    """function(arrays), and the gradient of sum(w * function(arrays)) with respect to each of the arrays.

    E.g. gradients_of(lambda a: Network(a, config).convolution("conv", a["x"]), {**parameters, "x": x}, w).
    """
    vjp, output = make_vjp(function)({name: _float64(array) for name, array in arrays.items()})
    return output, vjp(w)


def loss_and_gradients(
    config: ModelConfig,
    parameters: Mapping[str, NDArray[Any]],
    x_t: Array,
    t: NDArray[Any],
    eps: Array,
    labels: Labels | None = None,
    weights: Array | float = 1.0,
    kind: type[Network] = Network,
) -> tuple[float, dict[str, Array]]:
    """The mean of weights (eps - eps_pred)^2 over all elements, and its gradient with respect to every parameter.

    Weights broadcast to images, as [B, 1, 1, 1] do. The config is of a network of this kind.

    Source: Ho et al. 2020 (arXiv:2006.11239), eq. 14.
    """

    def loss(parameters: Mapping[str, Array]) -> Array:
        error = eps - kind(parameters, config)(x_t, t, labels)
        return np.mean(weights * error * error)

    value, gradients = gradients_of(loss, parameters)
    return float(value), gradients
