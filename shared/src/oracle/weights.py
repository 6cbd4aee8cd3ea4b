"""The oracle of the weights of the losses, in float64 NumPy.

It goes another way than the trees: a weight is a function of the signal-to-noise ratio, times the squared error of x_0,
whatever the network predicts, times the squared slope of x_0 in the output of the network.
"""

from typing import assert_never

import numpy as np

from ddpm_shared.config import DiffusionConfig, Prediction
from ddpm_shared.oracle.diffusion import Array, Schedule, Timesteps
from ddpm_shared.oracle.prediction import rotation_at, to_x_0


def loss_weight(
    schedule: Schedule, prediction: Prediction, t: Timesteps, gamma: float, sigma_data: float = 1.0
) -> Array:
    """What makes the squared error of the network's output min(SNR, gamma) times that of the x_0 it implies.

    With SNR = alphas_cumprod / (1 - alphas_cumprod), as in `error_weight`.

    Args:
        schedule: of `make_schedule`.
        prediction: what the output is.
        t: [B].
        gamma: above 0.
        sigma_data: the deviation of the data, for F.

    Returns:
        [B].

    Source: Hang et al. 2023 (arXiv:2303.09556).
    """
    snr = _snr(schedule, t)
    if prediction == "eps":  # the squared slope is 1 / SNR, which no signal makes infinite
        return 1 / np.maximum(1, snr / gamma)
    return np.minimum(snr, gamma) * _squared_slope(schedule, prediction, t, sigma_data)


def error_weight(schedule: Schedule, config: DiffusionConfig, t: Timesteps, falling: Array | None = None) -> Array:
    """The weight of the squared error of the network's output, by the error of x_0 that it makes.

    With lambda = log SNR, all but the first are a function of lambda times the squared error of x_0:

        simple      1, of the output
        noise       exp(lambda)
        min_snr     min(exp(lambda), gamma)
        edm         exp(lambda) + 1 / sigma_data^2
        flow        (1 + exp(lambda / 2))^2
        likelihood  -lambda' exp(lambda), lambda' the derivative by t

    Args:
        schedule: of `make_schedule`, or of continuous.py.
        config: of it the prediction, the weighting, gamma and sigma_data.
        t: [B].
        falling: [B], -lambda', for the likelihood.

    Returns:
        [B].

    Source: Kingma and Gao 2023 (arXiv:2303.00848), table 1.
    """
    sigma_data = config.sigma_data or 1.0
    if config.loss_weighting == "simple":
        return np.ones(len(t))
    if config.loss_weighting == "min_snr":
        return loss_weight(schedule, config.prediction, t, config.min_snr_gamma, sigma_data)
    snr = _snr(schedule, t)
    match config.loss_weighting:
        case "noise":
            of_x_0 = snr
        case "edm":
            of_x_0 = snr + 1 / sigma_data**2
        case "flow":
            of_x_0 = (1 + np.sqrt(snr)) ** 2
        case "likelihood":
            assert falling is not None
            of_x_0 = falling * snr
        case _:
            assert_never(config.loss_weighting)
    return of_x_0 * _squared_slope(schedule, config.prediction, t, sigma_data)


def _snr(schedule: Schedule, t: Timesteps) -> Array:
    rotation = rotation_at(schedule, t, np.ones((len(t), 1)))
    return ((rotation.real / rotation.imag) ** 2).ravel()


def _squared_slope(schedule: Schedule, prediction: Prediction, t: Timesteps, sigma_data: float) -> Array:
    """How many times larger the squared error of x_0 is than that of the output: x_0 is a straight line in it, [B]."""
    one = np.ones((len(t), 1))
    return (to_x_0(schedule, prediction, 0 * one, t, one, sigma_data) ** 2).ravel()
