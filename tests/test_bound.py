"""The variational bound: what each tree's must be by itself, and the oracle against facts from outside it.

That all three compute the same is test_parity.py's.
"""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

from ddpm_parity.engine import eps_model
from ddpm_parity.sides import draw
from ddpm_shared.config import DiffusionConfig
from ddpm_shared.oracle import bound as oracle_bound
from ddpm_shared.oracle import diffusion

LEVELS = np.arange(256) / 127.5 - 1  # all grey levels, exact to float64
HO = diffusion.make_schedule(DiffusionConfig())
LOG_VARIANCE = float(HO["posterior_log_variance_clipped"][0])  # of the decoder
FLOOR = math.log(1e-12)


@pytest.fixture
def side(side_of):
    return side_of("fp64")


def log_likelihoods(side, mean, log_variance=LOG_VARIANCE):
    """Of each of the 256 grey levels around one mean, [256]."""
    means, log_variances = np.full((1, 16, 16, 1), mean), np.full((1, 1, 1, 1), log_variance)
    x_0 = LEVELS.reshape(1, 16, 16, 1)
    found = side.bound.discretized_gaussian_log_likelihood(*map(side.tensor, (x_0, means, log_variances)))
    return side.array(found).ravel()


def exact(level, mean, sigma):
    """The log of the bin's mass by the error function, from whichever tail it lies in."""
    low, high = ((LEVELS[level] + edge / 255 - mean) / sigma / math.sqrt(2) for edge in (-1, 1))
    if level == 0:
        mass = math.erfc(-high) / 2
    elif level == 255:
        mass = math.erfc(low) / 2
    else:
        mass = abs(math.erfc(max(low, -high)) - math.erfc(max(high, -low))) / 2
    return math.log(max(mass, 1e-12))


# --- The decoder --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mean", [-1.5, -1.0, -0.2, 0.0039, 0.999, 1.0, 7.0])
@pytest.mark.parametrize("log_variance", [LOG_VARIANCE, -4.0, 1.0])
def test_the_256_grey_levels_share_the_whole_probability(side, mean, log_variance):
    """Otherwise bins overlap, leave gaps or are closed at the ends, and the bits are those of no distribution."""
    total = np.exp(log_likelihoods(side, mean, log_variance)).sum()
    assert -1e-12 < total - 1 < 256e-12  # each has its floor


@pytest.mark.parametrize("off", [0.0, 0.3, -2.0, 6.0, -6.9])
def test_the_smallest_probabilities_have_all_their_digits(side, off):
    """Otherwise pixels that surprise the model, which cost most, are counted by rounding noise."""
    sigma = math.exp(LOG_VARIANCE / 2)
    for level in (0, 1, 128, 254, 255):
        found = log_likelihoods(side, LEVELS[level] + off * sigma)[level]
        assert_allclose(found, exact(level, LEVELS[level] + off * sigma, sigma), rtol=1e-12, atol=1e-15)


def test_what_is_all_but_impossible_costs_forty_bits(side):
    """Otherwise one pixel makes the bits of a test set infinite, or NaN."""
    found = log_likelihoods(side, -500.0)
    assert found[0] == 0.0  # the open bin has it all
    assert_allclose(found[1:], FLOOR, rtol=1e-15)


def test_the_decoder_is_symmetric(side):
    """Otherwise black and white are treated differently, by a sign in one of the open bins."""
    assert_allclose(log_likelihoods(side, -0.73), log_likelihoods(side, 0.73)[::-1], rtol=1e-9, atol=1e-13)


# --- The terms ----------------------------------------------------------------------------------------------


def terms(side, model, x_0, t, eps, clip_x_0=True):
    t = np.array(t, np.int32)
    tensors = side.tensor(x_0), side.times(t), side.tensor(eps)
    return side.array(side.bound.variational_bound_term(side.schedule(DiffusionConfig()), model, *tensors, clip_x_0))


def test_a_network_that_knows_the_noise_pays_for_the_decoder_only(side):
    """Otherwise the divergence of two equal Gaussians is not zero, or is taken of others than these two."""
    x_0, eps = LEVELS[100:148].reshape(6, 4, 2, 1), draw(6, 4, 2, 1)
    found = terms(side, lambda x_t, t: side.tensor(eps), x_0, [0, 1, 2, 500, 998, 999], eps, clip_x_0=False)
    assert found.shape == (6,)
    assert (found[1:] >= 0).all()
    assert (found[1:] < 1e-20).all()
    half_a_bin = 1 / 255 / math.exp(LOG_VARIANCE / 2)
    assert_allclose(found[0], -math.log2(math.erf(half_a_bin / math.sqrt(2))), rtol=1e-10)


def test_an_image_pays_for_itself_at_its_own_t(side):
    """Otherwise the term of an image depends on its batch, or one t of the batch is taken for all."""
    x_0, eps, t = LEVELS[draw(5, 3, 3, 1).astype(int) + 90], draw(5, 3, 3, 1, seed=1), [0, 3, 0, 999, 50]
    together = terms(side, eps_model, x_0, t, eps)
    alone = [terms(side, eps_model, x_0[[i]], [t[i]], eps[[i]])[0] for i in range(5)]
    assert_allclose(together, alone, rtol=1e-13)
    assert len(set(together)) == 5


def test_the_prior_costs_next_to_nothing(side):
    """Otherwise the process does not end in noise, and the sampler starts from something else than x_t at T - 1."""
    x_0 = draw(4, 5, 4, 2).clip(-1, 1)
    found = side.array(side.bound.prior_bits_per_dim(side.schedule(DiffusionConfig()), side.tensor(x_0)))
    assert found.shape == (4,)
    assert (found > 0).all()
    assert (found < 1e-4).all()
    black = np.full((1, 4, 4, 1), -1.0)  # where the formula is one logarithm
    found = side.array(side.bound.prior_bits_per_dim(side.schedule(DiffusionConfig()), side.tensor(black)))
    assert_allclose(found, -math.log1p(-HO["alphas_cumprod"][-1]) / 2 / math.log(2), rtol=1e-10)


# --- The oracle ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mean", [-1.3, -1.0, -0.2, 0.5, 0.999])
@pytest.mark.parametrize("log_variance", [LOG_VARIANCE, LOG_VARIANCE - 8, 0.0])
def test_the_oracle_s_integral_is_the_error_function(mean, log_variance):
    """Otherwise the quadrature that both trees are held to has too few nodes for a narrow or a wide Gaussian."""
    found = oracle_bound.discretized_gaussian_log_likelihood(LEVELS, np.full(256, mean), np.array([log_variance]))
    expected = [exact(level, mean, math.exp(log_variance / 2)) for level in range(256)]
    assert_allclose(found, expected, rtol=2e-13, atol=1e-15)


@pytest.mark.parametrize("gaussians", [(0.3, 0.5, -0.2, 0.9), (1.0, 2.0, 1.0, 0.1), (0.0, 1.0, 2.0, 1.0)])
def test_the_divergence_is_the_integral_that_defines_it(gaussians):
    """Otherwise a sign or a ratio in the closed form is wrong, in the oracle and perhaps in both trees."""
    mean_1, variance_1, mean_2, variance_2 = gaussians
    x = mean_1 + math.sqrt(variance_1) * np.linspace(-12, 12, 4001)  # the trapezoid rule is exact for such tails
    log_p, log_q = (
        -((x - mean) ** 2) / (2 * variance) - math.log(2 * math.pi * variance) / 2
        for mean, variance in ((mean_1, variance_1), (mean_2, variance_2))
    )
    expected = float(np.trapezoid(np.exp(log_p) * (log_p - log_q), x))
    found = oracle_bound.gaussian_divergence(*(np.array(value) for value in gaussians))
    assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("t", [1, 2, 10, 500, 999])
def test_a_step_s_loss_of_signal_is_the_divergence_of_its_posteriors(t):
    """Otherwise the oracle's short cut is another quantity than the paper's KL(q(x_prev | x_t, x_0) || p)."""
    x_0, x_t, x_0_pred, at = LEVELS[None, :40], draw(1, 40), draw(1, 40, seed=1) / 3, np.array([t])
    mean, variance, _ = diffusion.q_posterior(HO, x_0, x_t, at)
    mean_pred, _, _ = diffusion.q_posterior(HO, x_0_pred, x_t, at)
    nats = oracle_bound.gaussian_divergence(mean, variance, mean_pred, variance).mean()
    eps = (x_t - HO["sqrt_alphas_cumprod"][t] * x_0) / HO["sqrt_one_minus_alphas_cumprod"][t]
    eps_pred = (x_t - HO["sqrt_alphas_cumprod"][t] * x_0_pred) / HO["sqrt_one_minus_alphas_cumprod"][t]
    found = oracle_bound.variational_bound_term(HO, lambda x_t, t: eps_pred, x_0, at, eps)
    assert_allclose(found, [nats / math.log(2)], rtol=1e-9)
