"""The likelihood in bits per dimension: the estimate over the images, what is written of it, and its picture."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TypedDict

import numpy as np

from ddpm_shared import streams
from ddpm_shared.commands.batchwise import Floats
from ddpm_shared.commands.bits_estimate import OfClass
from ddpm_shared.commands.labels import Labels
from ddpm_shared.errors import UserError
from ddpm_shared.images import Pixels
from ddpm_shared.machine import Environment
from ddpm_shared.pages import BLUE, VERMILION

if TYPE_CHECKING:  # matplotlib takes a third of a second, which --help need not wait for
    from matplotlib.figure import Figure


class Likelihood(Protocol):
    """What a tree provides: the density of images under a network on a device, in bits per dimension."""

    device_name: str
    threads: int
    smallest_noise: float

    def bits(
        self,
        pixels: Pixels,
        u: Floats,
        probes: Floats | None,
        labels: Labels | None = None,
        on_products: Callable[[int], None] = lambda count: None,
    ) -> Floats:
        """The bits of images [B, H, W, C], with uniform numbers of the same shape and probes [K, B, H, W, C], [B]."""


def bits_of(
    likelihood: Likelihood,
    pixels: Pixels,
    first: int,
    seed: int,
    probes: int | None,
    labels: Labels | None = None,
    on_products: Callable[[int], None] = lambda count: None,
) -> Floats:
    """The bits of the images first .. first + B - 1.

    Args:
        likelihood: the tree's.
        pixels: [B, H, W, C] uint8, those images.
        first: index of the first image. An image's random numbers depend on its index and the seed, not on B.
        seed: of the uniform numbers and of the probes.
        probes: of each image; None: the exact trace.
        labels: [B], the classes of the images, for a class-conditional network.
        on_products: as in Likelihood.bits.

    Returns:
        [B], bits per dimension.

    Raises:
        UserError: the bits of an image are not finite.
    """
    shape = pixels.shape
    u = streams.uniform_images(seed, streams.LIKELIHOOD_DEQUANTISATION, 0, shape, first)
    signs = [streams.signs(seed, streams.LIKELIHOOD_PROBE, k, shape, first) for k in range(probes or 0)]
    bits = likelihood.bits(pixels, u, None if probes is None else np.array(signs), labels, on_products)
    if not np.isfinite(bits).all():
        image = first + int(np.flatnonzero(~np.isfinite(bits))[0])
        raise UserError(
            f"the bits of image {image} are not finite: take more --steps, another checkpoint, or --precision fp64"
        )
    return bits


class Estimate(TypedDict):
    """Bits per dimension of N images."""

    bits_per_dim: float
    standard_error: float | None  # None for a single image
    per_image: list[float]  # [N]


class Settings(TypedDict):
    """What the number depends on beside the network and the images."""

    steps: int
    grid: str | None  # None for ddpm, whose times are whole
    rho: float | None  # of the karras grid
    probes: int | None  # of each image; None: exact


class LikelihoodRecord(Estimate, Settings):
    """likelihood.json."""

    classes: list[OfClass]
    framework: str
    checkpoint: dict[str, str | int]  # path, sha256, step
    weights: str
    process: str
    smallest_noise: float  # sigma of level 0, in units of x, which is in [-1, 1]
    trace: str  # "hutchinson" or "exact"
    num_images: int
    seed: int
    precision: str
    class_conditional: bool
    dataset: dict[str, str]  # name, split, sha256
    seconds: float
    environment: Environment


def estimate(bits: Floats) -> Estimate:
    """Mean and standard error of the bits [N] of images."""
    return {"bits_per_dim": float(bits.mean()), "standard_error": _standard_error(bits), "per_image": bits.tolist()}


def of_classes(bits: Floats, labels: Labels, class_names: Sequence[str]) -> list[OfClass]:
    """The same of each class.

    Args:
        bits: [N].
        labels: [N].
        class_names: by label.

    Returns:
        One record a class.
    """
    records: list[OfClass] = []
    for label, name in enumerate(class_names):
        chosen = bits[labels == label]
        records.append(
            {
                "name": name,
                "num_images": len(chosen),
                "bits_per_dim": float(chosen.mean()) if len(chosen) else None,
                "standard_error": _standard_error(chosen),
            }
        )
    return records


def _standard_error(bits: Floats) -> float | None:
    return float(bits.std(ddof=1) / np.sqrt(len(bits))) if len(bits) > 1 else None


def headline(result: LikelihoodRecord) -> str:
    """The estimate in a few words."""
    error = "" if result["standard_error"] is None else f" ± {result['standard_error']:.4f}"
    return (
        f"{result['bits_per_dim']:.4f}{error} bits per dimension by the probability-flow ODE, "
        f"on {result['num_images']:,} images"
    )


def picture(result: LikelihoodRecord) -> "Figure":
    """How many images have how many bits, and the mean of each class."""
    from matplotlib.figure import Figure

    classes = [each for each in result["classes"] if each["bits_per_dim"] is not None]
    bits = np.array(result["per_image"])
    figure = Figure(figsize=(9, 3.4 + (0.9 + 0.25 * len(classes) if classes else 0)), layout="constrained")
    figure.suptitle(headline(result), fontweight="bold")
    axes = figure.subplots(2 if classes else 1, 1, squeeze=False, sharex=True)[:, 0]
    axes[0].hist(bits, bins=min(40, max(5, round(2 * np.sqrt(len(bits))))), color=BLUE)
    axes[0].axvline(result["bits_per_dim"], color=VERMILION, label=f"mean: {result['bits_per_dim']:.3f}")
    axes[0].set(ylabel="images")
    axes[0].legend(fontsize="small")
    if classes:
        means = [each["bits_per_dim"] for each in classes]
        errors = [each["standard_error"] or 0.0 for each in classes]
        axes[1].errorbar(means, range(len(classes)), xerr=errors, fmt="o", color=BLUE, capsize=3)
        axes[1].set(yticks=range(len(classes)), yticklabels=[each["name"] for each in classes])
        axes[1].invert_yaxis()
    axes[-1].set(xlabel="bits per dimension of an image; of a class: mean and standard error" if classes else "bits")
    for each in axes:
        each.grid(alpha=0.2, linewidth=0.6)
        each.spines[["top", "right"]].set_visible(False)
    return figure
