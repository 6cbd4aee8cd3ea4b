"""Gaussian data, of which all is known in any process: the denoiser, the path of the ODE, and the density.

With x_0 ~ N(m, C), C = V diag(s^2) V^T, x_t is N(alpha m, C_t) with C_t = V diag(alpha^2 s^2 + sigma^2) V^T: the
directions of C stay, and along each of them all is a problem of one number.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ddpm_shared.oracle.diffusion import Array
from ddpm_shared.oracle.prediction import Predicted

Sizes = tuple[float, float]  # alpha and sigma of a level


class Gaussian(NamedTuple):
    """N(mean, covariance), by its directions."""

    mean: Array  # [D]
    variances: Array  # [D], s^2
    directions: Array  # [D, D], V: a direction is a column

    def _along(self, x: Array, alpha: float) -> Array:
        """X [B, ...] less its mean, along each direction, [B, D]."""
        return (np.reshape(x, (len(x), -1)) - alpha * self.mean) @ self.directions

    def _variances_at(self, alpha: float, sigma: float) -> Array:
        """Of x_t along each direction, [D]."""
        return alpha**2 * self.variances + sigma**2

    def predict(self, x: Array, alpha: float, sigma: float) -> Predicted:
        """The best denoiser: the means of x_0 and eps, given x [B, ...] with D elements an image.

        x_0 = m + alpha C C_t^-1 (x - alpha m),  eps = sigma C_t^-1 (x - alpha m)

        Source: Efron 2011 (Tweedie's formula).
        """
        surprise = self._along(x, alpha) / self._variances_at(alpha, sigma)
        x_0 = self.mean + (alpha * self.variances * surprise) @ self.directions.T
        eps = (sigma * surprise) @ self.directions.T
        return Predicted(x_0.reshape(x.shape), eps.reshape(x.shape), np.zeros((len(x), *[1] * (x.ndim - 1))))

    def travel(self, x: Array, here: Sizes, there: Sizes) -> Array:
        """Where the probability-flow ODE takes x [B, ...] from the level `here` to the level `there`.

        Along each direction (x - alpha m) / sqrt(alpha^2 s^2 + sigma^2) stays what it is: that many deviations.

        Source: Song et al. 2021 (arXiv:2011.13456), eq. 13, solved for a linear score.
        """
        growth = np.sqrt(self._variances_at(*there) / self._variances_at(*here))
        found: Array = there[0] * self.mean + (self._along(x, here[0]) * growth) @ self.directions.T
        return found.reshape(x.shape)

    def log_density(self, x: Array, alpha: float = 1.0, sigma: float = 0.0) -> Array:
        """The logarithm of the density of x_t at x [B, ...], in nats, [B]; of the data by default."""
        variances = self._variances_at(alpha, sigma)
        return -(self._along(x, alpha) ** 2 / variances + np.log(2 * np.pi * variances)).sum(1) / 2

    def covariance(self, alpha: float = 1.0, sigma: float = 0.0) -> Array:
        """C_t, [D, D]; C by default."""
        return self.directions * self._variances_at(alpha, sigma) @ self.directions.T


def make_gaussian(mean: ArrayLike, covariance: ArrayLike) -> Gaussian:
    """Gaussian data.

    Args:
        mean: [D], or [...], an image of D elements.
        covariance: [D, D], symmetric and positive; or the variances alone, like mean.
    """
    centre, spread = np.asarray(mean, np.float64), np.asarray(covariance, np.float64)
    if spread.shape == centre.shape:
        return Gaussian(centre.ravel(), spread.ravel(), np.eye(centre.size))
    variances, directions = np.linalg.eigh(spread)
    return Gaussian(centre.ravel(), variances, directions)
