"""The bound in bits per dimension, from its terms: which image is evaluated at which t, the estimate, and its picture.

All terms of one image take T evaluations of the network. With a stride, image i is evaluated only at
t = i mod stride, i mod stride + stride, ..., so that `stride` consecutive images, a group, have each t once.
The terms of a group add up to an unbiased estimate of the whole bound. The spread of the groups gives its standard
error.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TypedDict

import numpy as np
from numpy.typing import NDArray

from ddpm_shared import streams
from ddpm_shared.batches import Arrays
from ddpm_shared.commands.labels import Labels
from ddpm_shared.errors import UserError
from ddpm_shared.images import Pixels
from ddpm_shared.machine import Environment
from ddpm_shared.pages import BLUE, VERMILION
from ddpm_shared.tables import aligned

if TYPE_CHECKING:  # matplotlib takes a third of a second, which --help need not wait for
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

DIVERGENCE, DECODER = BLUE, VERMILION


class Bound(Protocol):
    """What a tree provides: the terms of the bound for a network on a device, in bits per dimension."""

    device_name: str
    threads: int

    def prior(self, pixels: Pixels) -> Floats:
        """The prior term of each image, [B]."""

    def term(self, arrays: Arrays, labels: Labels | None = None) -> Floats:
        """Each image's term at its t, [B], from images [B, H, W, C] uint8, t [B] int32, eps [B, H, W, C] float64."""


def terms_of(
    bound: Bound,
    pixels: Pixels,
    first: int,
    seed: int,
    stride: int,
    timesteps: int,
    on_terms: Callable[[int], None] = lambda count: None,
    labels: Labels | None = None,
) -> Floats:
    """The terms of the images first .. first + B - 1, in bits per dimension.

    Args:
        bound: the tree's.
        pixels: [B, H, W, C] uint8, those images.
        first: index of the first image. An image's t and noise depend on its index, the seed and the stride, not on B.
        seed: seed of the noise.
        stride: image i is evaluated at t = i mod stride, i mod stride + stride, ...
        timesteps: T.
        on_terms: called with the number of terms just computed.
        labels: [B], the classes of the images, for a class-conditional network.

    Returns:
        [B, ceil(T / stride)], NaN where t would be above T - 1.

    Raises:
        UserError: a term is not finite.
    """
    terms = np.full((len(pixels), -(-timesteps // stride)), np.nan)
    index = np.arange(first, first + len(pixels))
    for block in range(terms.shape[1]):
        t = (block * stride + index % stride).astype(np.int32)
        chosen = np.flatnonzero(t < timesteps)  # all, except perhaps in the last block
        if not chosen.size:
            continue
        shape = (1, *pixels.shape[1:])
        eps = [streams.normal(seed, streams.BOUND_EPS, int(t[i]), shape, int(index[i])) for i in chosen]
        arrays = pixels[chosen], t[chosen], np.concatenate(eps)
        values = bound.term(arrays, None if labels is None else labels[chosen])
        if not np.isfinite(values).all():
            first_t = t[chosen][~np.isfinite(values)][0]
            raise UserError(f"the term at t = {first_t} is not finite: take another checkpoint, or --precision fp64")
        terms[chosen, block] = values
        on_terms(len(chosen))
    return terms


class Estimate(TypedDict):
    """The bound, in bits per dimension: `bits_per_dim` is the sum of `prior` and of all `terms`."""

    bits_per_dim: float
    standard_error: float | None  # None for a single group of images
    prior: float
    decoder: float  # the first of `terms`
    terms: list[float]  # [T]


class OfClass(TypedDict):
    """The bound of the images of one class; None where too few images leave some t without one of them."""

    name: str
    num_images: int
    bits_per_dim: float | None
    standard_error: float | None


class BitsRecord(Estimate):
    """bits_per_dim.json."""

    class_conditional: bool
    classes: list[OfClass]

    framework: str
    checkpoint: dict[str, str | int]  # path, sha256, step
    weights: str
    num_images: int
    stride: int
    seed: int
    precision: str
    clip_x_0: bool
    dataset: dict[str, str]  # name, split, sha256
    seconds: float
    environment: Environment


def estimate(prior: Floats, terms: Floats, stride: int, timesteps: int) -> Estimate:
    """The bound from the terms of N images, in bits per dimension.

    Args:
        prior: [N].
        terms: [N, ceil(T / stride)], as terms_of returns them; stride divides N.
        stride: images in a group.
        timesteps: T.

    Returns:
        Means over the images, and the standard error of their sum.
    """
    groups = terms.reshape(-1, stride, terms.shape[1]).swapaxes(1, 2)  # the last two axes: t
    groups = groups.reshape(len(groups), -1)[:, :timesteps]
    totals = prior.reshape(-1, stride).mean(axis=1) + groups.sum(axis=1)
    means = groups.mean(axis=0)
    return {
        "bits_per_dim": float(totals.mean()),
        "standard_error": float(totals.std(ddof=1) / np.sqrt(len(totals))) if len(totals) > 1 else None,
        "prior": float(prior.mean()),
        "decoder": float(means[0]),
        "terms": means.tolist(),
    }


def of_classes(prior: Floats, terms: Floats, stride: int, labels: Labels, class_names: Sequence[str]) -> list[OfClass]:
    """The bound of each class.

    The images i with the same i mod stride have their terms at the same t. So a class's bound is a sum over the
    remainders: of each, the mean over the images of that class.

    Args:
        prior: [N].
        terms: [N, ceil(T / stride)], as terms_of returns them.
        stride: as in terms_of.
        labels: [N].
        class_names: by label.

    Returns:
        One record a class.
    """
    sums, remainder = np.nansum(terms, axis=1), np.arange(len(terms)) % stride
    records: list[OfClass] = []
    for label, name in enumerate(class_names):
        parts = [sums[(labels == label) & (remainder == each)] for each in range(stride)]
        fewest = min(map(len, parts))
        bits = prior[labels == label].mean() + sum(part.mean() for part in parts) if fewest else None
        variance = sum(part.var(ddof=1) / len(part) for part in parts) if fewest > 1 else None
        records.append(
            {
                "name": name,
                "num_images": int(np.count_nonzero(labels == label)),
                "bits_per_dim": None if bits is None else float(bits),
                "standard_error": None if variance is None else float(np.sqrt(variance)),
            }
        )
    return records


def table(records: Sequence[OfClass]) -> str:
    """The bound of each class, as text."""

    def number(value: float | None) -> str:
        return "too few images" if value is None else f"{value:.4f}"

    rows = [("class", "images", "bits/dim", "standard error")]
    rows += [
        (each["name"], str(each["num_images"]), number(each["bits_per_dim"]), number(each["standard_error"]))
        for each in records
    ]
    return "\n".join(aligned(rows, digits=4))


def headline(result: BitsRecord) -> str:
    """The estimate in a few words."""
    error = "" if result["standard_error"] is None else f" ± {result['standard_error']:.4f}"
    return f"at most {result['bits_per_dim']:.4f}{error} bits per dimension, on {result['num_images']:,} images"


def picture(result: BitsRecord) -> "Figure":
    """The terms over t, and their sums from t on; over a log axis, since the first few terms hold nearly all bits."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    terms = np.array(result["terms"])
    t, sums = np.arange(len(terms)), result["prior"] + np.cumsum(terms[::-1])[::-1]
    figure = Figure(figsize=(9, 7), layout="constrained")
    figure.suptitle(headline(result), fontweight="bold")
    above, below = figure.subplots(2, 1)
    above.axhline(result["prior"], color="black", linewidth=0.8, linestyle="--", label=f"prior: {result['prior']:.2g}")
    above.plot(t[1:], terms[1:], ".", color=DIVERGENCE, markersize=4, label="divergence of the step to t − 1")
    above.plot(t[0], terms[0], "D", color=DECODER, label=f"decoder, t = 0: {terms[0]:.3g}")
    above.set(yscale="log", xlabel="t", ylabel="bits per dimension")
    above.xaxis.set_major_locator(MaxNLocator(integer=True))
    above.legend(fontsize="small")
    below.plot(t + 1, sums, ".-", color=DIVERGENCE, markersize=5, linewidth=1)
    below.plot(1, sums[0], "D", color=DECODER)
    below.set(xscale="log", ylim=(0, None), xlabel="t + 1", ylabel="prior and all terms from t on")
    below.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    for axes in (above, below):
        axes.grid(alpha=0.2, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    return figure
