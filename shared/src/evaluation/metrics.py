"""How far apart two sets of images are, by their features [N, D]. NumPy alone, float64, the same on every call.

Features are what a classifier's last hidden layer makes of an image. All numbers here depend on the classifier, on how
the images were shown to it and on how many there are: compare only what was computed alike.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddpm_shared import streams
from ddpm_shared.errors import UserError

Floats = NDArray[np.float64]
Features = NDArray[np.float32] | Floats  # as given; computed with in float64

ROWS = 1000  # of a matrix of distances at a time: 80 MB against 10,000 points
# Squared distances out of a matrix product are off by about D * 2**-53 of the squared norms, so that an exact copy
# can seem to lie outside a ball which it is in. Forgiving this much of the norms holds for D up to 2,000.
ROUNDING = 1e-12


def _checked(*sets: Features, at_least: int) -> list[Floats]:
    """The sets of features as float64 [N, D], or UserError: another D in each, too few points, or NaN."""
    checked = [np.asarray(features, np.float64) for features in sets]
    if any(features.ndim != 2 or features.shape[1] != checked[0].shape[1] for features in checked):
        shapes = " and ".join(str(list(features.shape)) for features in checked)
        raise UserError(f"features must be [N, D] with one D for all sets, got {shapes}")
    fewest = min(map(len, checked))
    if fewest < at_least:
        raise UserError(f"this metric needs {at_least} or more images in every set, got {fewest}: draw more samples")
    if not all(np.isfinite(features).all() for features in checked):
        raise UserError("features hold NaN or infinite values: is the classifier's file sound?")
    return checked


# --- Frechet distance: two Gaussians ------------------------------------------------------------------------


class Moments(NamedTuple):
    """The Gaussian that stands for a set of features."""

    mean: Floats  # [D]
    covariance: Floats  # [D, D], unbiased: divided by N - 1


def moments(features: Features) -> Moments:
    """Mean and unbiased covariance of features [N, D], N >= 2.

    Raises:
        UserError: fewer than 2 features, or not finite ones.
    """
    (features,) = _checked(features, at_least=2)
    mean = features.mean(axis=0)
    centred = features - mean
    return Moments(mean, centred.T @ centred / (len(features) - 1))


def _root(covariance: Floats) -> Floats:
    """S^(1/2), symmetric, [D, D]."""
    values, vectors = np.linalg.eigh(covariance)
    root: Floats = vectors * np.sqrt(values.clip(min=0)) @ vectors.T  # rounding can make a 0 negative
    return root


def frechet_distance(a: Moments, b: Moments) -> float:
    """The squared Frechet distance of two Gaussians, FID where the features are Inception's.

        ||mu_a - mu_b||^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))

    The eigenvalues of (S_a S_b)^(1/2) are the singular values of S_a^(1/2) S_b^(1/2). Taken as such, they carry no root
    of a rounding, which would be 1e-8 for every feature that is always 0.

    Args:
        a: moments of D features.
        b: moments of as many.

    Returns:
        A number >= 0, in the features' unit squared. Small sets seem farther apart than they are, by about 1 / N.

    Raises:
        UserError: another D in each.

    Source: Heusel et al. 2017 (arXiv:1706.08500), eq. 6.
    """
    if a.mean.shape != b.mean.shape:
        raise UserError(f"moments of {len(a.mean)} and of {len(b.mean)} features have no distance")
    trace_of_root = np.linalg.norm(_root(a.covariance) @ _root(b.covariance), "nuc")  # the sum of singular values
    distance = np.sum((a.mean - b.mean) ** 2) + np.trace(a.covariance) + np.trace(b.covariance) - 2 * trace_of_root
    return max(float(distance), 0.0)


# --- Kernel distance: no Gaussian, no bias ------------------------------------------------------------------


class KernelDistance(NamedTuple):
    """Mean and spread of the estimates of all subsets."""

    mean: float
    std: float  # of one subset's estimate, divided by the number of subsets; not the standard error of the mean


def _kernel(a: Floats, b: Floats) -> Floats:
    """(x . y / D + 1)^3 for all pairs, [n, D], [m, D] -> [n, m]."""
    base = a @ b.T / a.shape[1] + 1
    return base * base * base  # np.power takes 60 times as long


def _squared_discrepancy(a: Floats, b: Floats) -> float:
    """The unbiased MMD^2 of two sets of one size, [n, D] each: no feature is compared with itself."""
    n = len(a)
    within = sum(float(kernel.sum() - kernel.trace()) for kernel in (_kernel(a, a), _kernel(b, b)))
    return within / (n * (n - 1)) - 2 * float(_kernel(a, b).mean())


def kernel_distance(
    a: Features, b: Features, subsets: int = 100, subset_size: int | None = None, seed: int = 0
) -> KernelDistance:
    """The squared maximum mean discrepancy with a cubic kernel, KID where the features are Inception's.

        MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y),    k(x, y) = (x . y / D + 1)^3

    It is estimated without bias on random subsets, drawn without replacement, and may come out below 0.

    Args:
        a: [N, D].
        b: [M, D].
        subsets: how many are drawn, 1 or more.
        subset_size: features of each set in a subset, 2 .. min(N, M). Default: 1000, or half of the smaller set
            where that is less, so that subsets differ.
        seed: of the draw, >= 0.

    Returns:
        (mean, std) of the subsets' estimates.

    Raises:
        UserError: another D in each, no room for such a subset, not finite features.

    Source: Binkowski et al. 2018 (arXiv:1801.01401), eq. 4 and section 4.
    """
    a, b = _checked(a, b, at_least=2)
    smaller = min(len(a), len(b))
    size = min(1000, smaller // 2) if subset_size is None else subset_size
    if not 2 <= size <= smaller:
        raise UserError(f"a kernel distance of {smaller} features has subsets of 2 to {smaller}, not of {size}")
    estimates = []
    for subset in range(subsets):
        random = streams.generator(seed, streams.EVALUATION_KID, step=subset)
        chosen_a, chosen_b = (features[random.choice(len(features), size, replace=False)] for features in (a, b))
        estimates.append(_squared_discrepancy(chosen_a, chosen_b))
    return KernelDistance(float(np.mean(estimates)), float(np.std(estimates)))


# --- Inception score: sure of each image, and of all classes ------------------------------------------------


def inception_score(probabilities: Features) -> float:
    """exp(E KL(p(y|x) || p(y))), from 1 (all images look alike to the classifier) to K (each surely one of K classes).

    Computed over all images at once: the usual mean over ten splits is lower, as each of them sees a tenth.

    Args:
        probabilities: the classifier's p(y|x) of every image, [N, K], rows adding up to 1.

    Raises:
        UserError: rows that are no probabilities; logits, say.

    Source: Salimans et al. 2016 (arXiv:1606.03498), section 4.
    """
    (conditional,) = _checked(probabilities, at_least=1)
    if conditional.min() < 0 or np.abs(conditional.sum(axis=1) - 1).max() > 1e-4:  # float32 rounds to 1e-6
        raise UserError("an inception score needs probabilities, >= 0 and adding up to 1 for each image")
    marginal = conditional.mean(axis=0)
    ratio = np.divide(conditional, marginal, out=np.ones_like(conditional), where=conditional > 0)  # 0 log 0 = 0
    return float(np.exp(np.sum(conditional * np.log(ratio), axis=1).mean()))


# --- Neighbours: are samples where data are, and data where samples are? ------------------------------------


class NeighbourMetrics(NamedTuple):
    """Each is 1 for a perfect copy of the data; density can be more, where samples crowd."""

    precision: float  # the share of generated images in some real image's ball
    recall: float  # the share of real images in some generated image's ball
    density: float  # how many real balls a generated image is in, over k
    coverage: float  # the share of real images with a generated one in their ball


def _squared_distances(a: Floats, b: Floats, forgiven: float = 0.0) -> Floats:
    """||x - y||^2 - forgiven (||x||^2 + ||y||^2) for all pairs, [n, D], [m, D] -> [n, m]; rounding can go below 0."""
    distances = (-2 * a) @ b.T
    distances += (1 - forgiven) * np.sum(a**2, axis=1)[:, None]
    distances += (1 - forgiven) * np.sum(b**2, axis=1)
    return distances


def _squared_radii(points: Floats, *ranks: int) -> Floats:
    """The squared distance of every point [N, D] to its k-th neighbour, itself not counted, [len(ranks), N]."""
    columns = [k - 1 for k in ranks]
    radii = np.empty((len(ranks), len(points)))
    for start in range(0, len(points), ROWS):
        distances = _squared_distances(points[start : start + ROWS], points)
        np.fill_diagonal(distances[:, start:], np.inf)
        distances.partition(columns, axis=1)
        radii[:, start : start + ROWS] = distances[:, columns].T
    return radii


def neighbour_metrics(
    real: Features, generated: Features, k_precision_recall: int = 3, k_density_coverage: int = 5
) -> NeighbourMetrics:
    """Precision, recall, density and coverage, from one pass over the distances.

    Every point has a ball that reaches to its k-th neighbour among its own kind, itself not counted; its surface
    belongs to it, and an exact copy is always inside.

    Args:
        real: [N, D].
        generated: [M, D].
        k_precision_recall: k of the balls of precision (real) and recall (generated).
        k_density_coverage: k of the balls of density and coverage (real).

    Returns:
        The four. Of two sets of one distribution, precision and recall depend on D and k, density is about 1, and
        coverage about 1 - 2^-k where N = M.

    Raises:
        UserError: another D in each, k or fewer features in a set, not finite ones.

    Source: Kynkaanniemi et al. 2019 (arXiv:1904.06991), eq. 1 and 2; Naeem et al. 2020 (arXiv:2002.09797), eq. 3 and 4.
    """
    x, y = _checked(real, generated, at_least=max(k_precision_recall, k_density_coverage) + 1)
    centre = x.mean(axis=0)  # the smaller the norms, the less rounding
    x, y = x - centre, y - centre
    x_radii, x_radii_density = _squared_radii(x, k_precision_recall, k_density_coverage)
    (y_radii,) = _squared_radii(y, k_precision_recall)

    precise = balls = 0  # generated images in some ball; pairs of a ball and a generated image in it
    recalled, covered = np.zeros(len(x), np.bool_), np.zeros(len(x), np.bool_)
    for start in range(0, len(y), ROWS):
        rows = slice(start, start + ROWS)
        distances = _squared_distances(y[rows], x, forgiven=ROUNDING)  # [rows, N]
        precise += int((distances <= x_radii).any(axis=1).sum())
        recalled |= (distances <= y_radii[rows, None]).any(axis=0)
        inside = distances <= x_radii_density
        balls += int(inside.sum())
        covered |= inside.any(axis=0)
    return NeighbourMetrics(
        precision=precise / len(y),
        recall=float(recalled.mean()),
        density=balls / (k_density_coverage * len(y)),
        coverage=float(covered.mean()),
    )
