"""The oracle of the layers that several networks have, in float64 NumPy, on what oracle.networks has.

It goes another way than the trees: the transposed convolution is the strided one's matrices, transposed; GELU is the
tail of the error function, its approximation a sigmoid; each head of an attention is an attention of its own.

Letters as in oracle.networks, but N tokens. Images are [B, H, W, C].
"""

import math
from collections.abc import Callable

import autograd.numpy as np
from autograd.extend import defvjp, primitive

from ddpm_shared.config import ActivationName
from ddpm_shared.oracle.diffusion import Array
from ddpm_shared.oracle.networks import Network, _float64, _windows, silu, softmax


@primitive
def erfc(x: Array) -> Array:
    """The tail of the error function, of any shape, number by number; SciPy's would look for frameworks."""
    return np.vectorize(math.erfc, otypes=[np.float64])(x)


defvjp(erfc, lambda _, x: lambda g: -2 / np.sqrt(np.pi) * np.exp(-(x**2)) * g)


def gelu(x: Array) -> Array:
    """GELU, x times the probability that a standard normal number is below x: x erfc(-x / sqrt(2)) / 2.

    Source: Hendrycks & Gimpel 2016 (arXiv:1606.08415), section 2.
    """
    x = _float64(x)
    return x * erfc(-x / np.sqrt(2)) / 2


def gelu_tanh(x: Array) -> Array:
    """Its approximation, as x sigmoid(2 u) with u = sqrt(2 / pi) (x + 0.044715 x^3): (1 + tanh(u)) / 2 = sigmoid(2 u).

    The sigmoid is exp(-log(1 + exp(-2 u))), in which nothing overflows.

    Source: Hendrycks & Gimpel 2016 (arXiv:1606.08415), section 2.
    """
    x = _float64(x)
    return x * np.exp(-np.logaddexp(0, -np.sqrt(8 / np.pi) * (x + 0.044715 * x * x * x)))


def relu(x: Array) -> Array:
    """The larger of x and 0, whose slope at 0 is 0."""
    x = _float64(x)
    return x * np.greater(x, 0)


ACTIVATIONS: dict[ActivationName, Callable[[Array], Array]] = {
    "silu": silu,
    "relu": relu,
    "gelu": gelu,
    "tanh": lambda x: np.tanh(_float64(x)),
}


def normalised(x: Array, epsilon: float) -> Array:
    """Each token less its mean over its channels, divided by its deviation: (x - mean) / sqrt(variance + epsilon).

    The variance is mean((x - mean)^2), the biased one. [..., C] -> [..., C].

    Source: Ba et al. 2016 (arXiv:1607.06450), eq. 3.
    """
    centred = _float64(x) - np.mean(x, axis=-1, keepdims=True)
    return centred / np.sqrt(np.mean(centred * centred, axis=-1, keepdims=True) + epsilon)


class Layers(Network):
    """A network's layers, each alone by its canonical name. What joins them is in the subclasses."""

    def layer_norm(self, name: str, x: Array) -> Array:
        """`normalised` with an epsilon of 1e-5, times weight, plus bias.

        [..., C] -> [..., C]; weight and bias are [C].

        Source: Ba et al. 2016 (arXiv:1607.06450), eq. 3.
        """
        weight, bias = self._weight_and_bias(name)
        return self._record(name, normalised(x, 1e-5) * weight + bias)

    def transposed_convolution(self, name: str, x: Array, height: int, width: int) -> Array:
        """The adjoint of the convolution with stride 2 that takes [height, width] to the size of x.

            y[p, q, o] = bias[o] + sum_{h, w, c} weight[c, o, i, j] x[h, w, c],   p = 2h + i - 1, q = 2w + j - 1

        [B, H, W, C] -> [B, height, width, O], where H = ceil(height / 2) and W = ceil(width / 2) for a kernel of 3.

        Source: Dumoulin & Visin 2016 (arXiv:1603.07285), section 4.
        """
        weight, bias = self._weight_and_bias(f"{name}.conv")
        rows, columns = (_windows(size, weight.shape[axis], 2) for size, axis in ((height, 2), (width, 3)))
        y = np.tensordot(rows, x, axes=(1, 1))  # [i, H, P], [B, H, W, C] -> [i, P, B, W, C]
        y = np.tensordot(y, weight, axes=((0, 4), (2, 0)))  # [i, P, B, W, C], [C, O, i, j] -> [P, B, W, O, j]
        y = np.tensordot(columns, y, axes=((0, 1), (4, 2)))  # [j, W, Q], [P, B, W, O, j] -> [Q, P, B, O]
        return self._record(name, np.transpose(y, (2, 1, 0, 3)) + bias)

    def multi_head_attention(self, name: str, tokens: Array, heads: int) -> Array:
        """An attention of each head over its own range of channels, side by side, then a linear map.

        [B, N, C] -> [B, N, C]. Head i has the channels i C / heads .. (i + 1) C / heads - 1 of q, k and v.

        Source: Vaswani et al. 2017 (arXiv:1706.03762), section 3.2.2.
        """
        maps = (self.linear(f"{name}.{role}", tokens) for role in ("query", "key", "value"))
        seen = []
        for q, k, v in zip(*(np.split(y, heads, axis=2) for y in maps), strict=True):  # [B, N, C / heads] each
            weights = softmax(np.einsum("bic,bjc->bij", q, k) / np.sqrt(q.shape[2]))  # [B, N, N]
            seen.append(np.einsum("bij,bjc->bic", weights, v))
        return self._record(name, self.linear(f"{name}.project", np.concatenate(seen, axis=2)))
