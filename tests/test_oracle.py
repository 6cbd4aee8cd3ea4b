"""The oracle against facts from outside it: exact fractions, numerical integration, and cases solved by hand.

Tolerances stand about 5 times above the worst difference seen, and at 1e-15 where that is a rounding
or two. No pytest.approx: whatever its relative bound, it lets an absolute difference of 1e-12 pass.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from ddpm_shared.config import DiffusionConfig, TrainingConfig
from ddpm_shared.errors import UserError
from ddpm_shared.oracle import diffusion, networks, optimizer

T = 1000
HO = diffusion.make_schedule(DiffusionConfig())  # the schedule of the paper
SHORT = diffusion.make_schedule(
    DiffusionConfig(timesteps=50, beta_start=1e-3, beta_end=0.2)
)  # as noisy at its end, and quick to walk


def normal(*shape: int) -> diffusion.Array:
    return np.random.default_rng(0).standard_normal(shape)


def always(eps_pred: diffusion.Array | float) -> diffusion.EpsModel:
    return lambda x_t, t: np.broadcast_to(eps_pred, x_t.shape)


def at(*t: int) -> diffusion.Timesteps:
    return np.array(t)


# The schedule.


def test_betas_are_ho_s_line() -> None:
    # Otherwise this is another noise process than the paper's, and no number can be compared with it.
    betas = HO["betas"]
    assert betas[0] == 1e-4
    assert betas[-1] == 0.02
    assert_allclose(np.diff(betas), (0.02 - 1e-4) / (T - 1), rtol=1e-12)  # a difference loses 3 digits
    assert all(table.shape == (T,) and table.dtype == np.float64 for table in HO.values())


def test_every_table_matches_exact_fractions() -> None:
    # Otherwise the tables that both trees are held to carry more error than float64 has to. The betas are
    # taken as the exact rationals that they are; roots are compared as squares, which doubles their error.
    prev = Fraction(1)
    for t in range(120):
        beta = Fraction(HO["betas"][t])
        alpha = 1 - beta
        cumprod = prev * alpha
        # The posterior's are eq. 7, which the oracle does not use.
        exact = {
            "alphas": alpha,
            "alphas_cumprod": cumprod,
            "alphas_cumprod_prev": prev,
            "posterior_variance": (1 - prev) / (1 - cumprod) * beta,
        }
        exact_squares = {
            "sqrt_alphas_cumprod": cumprod,
            "sqrt_one_minus_alphas_cumprod": 1 - cumprod,
            "posterior_mean_coef_x_0": prev * (beta / (1 - cumprod)) ** 2,
            "posterior_mean_coef_x_t": alpha * ((1 - prev) / (1 - cumprod)) ** 2,
        }
        for name, value in exact.items():
            assert abs(Fraction(HO[name][t]) - value) <= value * Fraction(1e-15), f"{name}[{t}]"
        for name, value in exact_squares.items():
            assert abs(Fraction(HO[name][t]) ** 2 - value) <= value * Fraction(2e-15), f"{name}[{t}]"
        prev = cumprod


def test_the_end_of_the_long_product_is_exact() -> None:
    # Otherwise a thousand roundings pile up in alphas_cumprod, and x_T holds more of x_0 than it says.
    exact = Fraction(1)
    for beta in HO["betas"]:
        exact *= 1 - Fraction(beta)
    assert_allclose(HO["alphas_cumprod"][-1], float(exact), rtol=3e-15)  # exp(-10) is off by 10 roundings


def test_log_variance_is_clipped_as_ho_did() -> None:
    # Otherwise log 0 reaches the likelihood at t = 0, or the times are shifted by one.
    assert_array_equal(
        HO["posterior_log_variance_clipped"],
        np.log(HO["posterior_variance"][np.maximum(np.arange(T), 1)]),
    )


def test_the_first_step_back_is_certain() -> None:
    # Otherwise the last picture of a chain is a blend with the noisy one before it, though x_0 is known.
    assert HO["posterior_mean_coef_x_0"][0] == 1
    assert HO["posterior_mean_coef_x_t"][0] == 0
    assert HO["posterior_variance"][0] == 0


# The forward process.


def test_the_jump_equals_the_walk() -> None:
    # Otherwise q_sample shows the network noise levels that the chain of q(x_t | x_{t-1}), eq. 2, never has.
    # A walk is linear in x_0 and in its noises, so its mean and variance say it all. A thousand factors stay
    # within 3e-15, for their roundings cancel.
    mean, variance = 1.0, 0.0
    for t in range(T):
        mean *= math.sqrt(HO["alphas"][t])
        variance = HO["alphas"][t] * variance + HO["betas"][t]
        signal = diffusion.q_sample(HO, np.ones((1, 1)), at(t), np.zeros((1, 1))).item()
        noise = diffusion.q_sample(HO, np.zeros((1, 1)), at(t), np.ones((1, 1))).item()
        assert_allclose(signal, mean, rtol=1e-14)
        assert_allclose(noise**2, variance, rtol=1e-14)
        assert_allclose(signal**2 + noise**2, 1, rtol=0, atol=1e-15)  # variance-preserving


def test_every_image_has_its_own_t_in_any_layout() -> None:
    # Otherwise a batch is diffused to one image's time, or the channels-last tree is held to something else.
    x_0, eps, t = normal(3, 2, 5, 4), normal(3, 2, 5, 4)[::-1], at(0, 500, 999)
    nchw = diffusion.q_sample(HO, x_0, t, eps)
    nhwc = diffusion.q_sample(HO, x_0.transpose(0, 2, 3, 1), t, eps.transpose(0, 2, 3, 1))
    assert_array_equal(nhwc.transpose(0, 3, 1, 2), nchw)
    for i in range(3):
        one = diffusion.q_sample(HO, x_0[i : i + 1], t[i : i + 1], eps[i : i + 1])
        assert_array_equal(one[0], nchw[i])


def test_the_true_noise_gives_back_the_image() -> None:
    # Otherwise a perfect network would not be one. At t = 999 the division by 0.006 makes 150 of a rounding.
    x_0, eps, t = normal(5, 1, 4, 4), normal(5, 1, 4, 4)[::-1], at(0, 1, 10, 500, 999)
    x_t = diffusion.q_sample(HO, x_0, t, eps)
    assert_allclose(diffusion.predict_x_0(HO, x_t, t, eps), x_0, rtol=0, atol=1e-13)


@pytest.mark.parametrize("t", [-1, T])
def test_a_time_outside_the_schedule_is_refused(t: int) -> None:
    # Otherwise a 1-based t trains on the wrong noise level: -1 would quietly be read as T - 1.
    with pytest.raises(IndexError):
        diffusion.q_sample(HO, np.zeros((1, 1)), at(t), np.zeros((1, 1)))


# The posterior.


@pytest.mark.parametrize("t", [1, 2, 10, 300, 999])
def test_posterior_is_bayes_rule_by_brute_force(t: int) -> None:
    # Otherwise sampling walks back along another process than the one that made the noise.
    # The product of q(x_t | x_{t-1}) and q(x_{t-1} | x_0) is tabulated over x_{t-1}. Sums over an even grid
    # are exact for Gaussians that span many of its points and vanish at its ends.
    x_0 = np.array([[0.3]])
    x_t = diffusion.q_sample(HO, x_0, at(t), np.array([[0.8]]))
    prior_mean, prior_std = HO["sqrt_alphas_cumprod"][t - 1] * 0.3, HO["sqrt_one_minus_alphas_cumprod"][t - 1]
    grid = prior_mean + prior_std * np.linspace(-12, 12, 20_001)
    log_density = -((grid - prior_mean) ** 2) / (2 * prior_std**2)
    log_density -= (x_t.item() - math.sqrt(HO["alphas"][t]) * grid) ** 2 / (2 * HO["betas"][t])
    density = np.exp(log_density - log_density.max())
    density /= density.sum()
    brute_mean = density @ grid
    brute_variance = density @ (grid - brute_mean) ** 2

    mean, variance, log_variance = diffusion.q_posterior(HO, x_0, x_t, at(t))
    assert_allclose(mean.item(), brute_mean, rtol=0, atol=1e-15)
    assert_allclose(variance.item(), brute_variance, rtol=2e-15)
    assert_allclose(log_variance.item(), math.log(brute_variance), rtol=0, atol=5e-15)


def test_posterior_shapes_broadcast() -> None:
    # Otherwise variance times noise needs a reshape in every caller, and one of them gets it wrong.
    mean, variance, log_variance = diffusion.q_posterior(HO, normal(2, 1, 4, 4), normal(2, 1, 4, 4), at(0, 7))
    assert mean.shape == (2, 1, 4, 4)
    assert variance.shape == log_variance.shape == (2, 1, 1, 1)


# Sampling.


def test_an_unclipped_step_is_algorithm_2() -> None:
    # Otherwise the way over x_0, which clipping needs, is not the paper's sampler: eq. 11 has no x_0 in it.
    x_t, eps_pred, z = normal(4, 6), normal(4, 6)[:, ::-1], normal(4, 6)[::-1]
    for t in (1, 40, 999):
        beta, alpha, cumprod = HO["betas"][t], HO["alphas"][t], HO["alphas_cumprod"][t]
        sigma = math.sqrt((1 - HO["alphas_cumprod"][t - 1]) / (1 - cumprod) * beta)
        expected = (x_t - beta / math.sqrt(1 - cumprod) * eps_pred) / math.sqrt(alpha) + sigma * z
        got = diffusion.p_sample(HO, always(eps_pred), x_t, np.full(4, t), z, clip_x_0=False)
        assert_allclose(got, expected, rtol=0, atol=5e-15)


def test_the_last_step_adds_no_noise() -> None:
    # Otherwise every sample comes out grainy, which FID hardly sees. Images at other times still get theirs.
    x_t, z = normal(2, 3), normal(2, 3) * 9
    got = diffusion.p_sample(HO, always(0.1), x_t, at(0, 5), z)
    quiet = diffusion.p_sample(HO, always(0.1), x_t, at(0, 5), np.zeros((2, 3)))
    assert_array_equal(got[0], quiet[0])
    assert_allclose((got - quiet)[1], math.sqrt(HO["posterior_variance"][5]) * z[1], rtol=5e-15)


def test_clipping_holds_x_0_and_nothing_else() -> None:
    # Otherwise chains drift out of [-1, 1] early on, or the clip bites pictures that were inside it.
    # At t = 0 the step returns the implied x_0 itself, here 3, -3 and 0.5.
    implied = np.array([[3.0, -3.0, 0.5]])
    x_t = diffusion.q_sample(HO, implied, at(0), np.full((1, 3), 0.2))
    z = np.zeros((1, 3))
    clipped = diffusion.p_sample(HO, always(0.2), x_t, at(0), z)
    free = diffusion.p_sample(HO, always(0.2), x_t, at(0), z, clip_x_0=False)
    assert_allclose(clipped, [[1, -1, 0.5]], rtol=1e-15)
    assert_allclose(free, implied, rtol=1e-15)
    # Further up, x_0 is clipped before the posterior mean, and the mean itself, here about 990, is not.
    far = np.full((1, 1), 1e3)
    got = diffusion.p_sample(HO, always(0.0), far, at(999), np.zeros((1, 1))).item()
    mean = HO["posterior_mean_coef_x_0"][999] + HO["posterior_mean_coef_x_t"][999] * 1e3
    assert_allclose(got, mean, rtol=1e-15)
    assert got > 900


def test_a_chain_that_knows_the_image_walks_back_to_it() -> None:
    # Otherwise sampling with a perfect network misses the data. For a data set of one image c the best eps is
    # known, all of x_t that is not c, and every step has the marginal of the forward process at its t.
    # Row 0 walks without noise. Row 1 + i differs from it by one unit of one noise, that of x_T or of one z,
    # so the squares of what comes of it add up to the variance of x: no Monte Carlo.
    c = 0.6
    signal, noise = SHORT["sqrt_alphas_cumprod"], SHORT["sqrt_one_minus_alphas_cumprod"]
    unit = np.eye(52)[:, 1:]  # [52, 51]
    x = signal[-1] * c + noise[-1] * unit[:, 50:]
    for t in reversed(range(50)):
        eps = (x - signal[t] * c) / noise[t]
        x = diffusion.p_sample(SHORT, always(eps), x, np.full(52, t), unit[:, t : t + 1])
        assert_allclose(x[0], math.sqrt(SHORT["alphas_cumprod_prev"][t]) * c, rtol=5e-15)
        variance = np.sum((x[1:] - x[0]) ** 2)
        assert_allclose(variance, noise[t - 1] ** 2 if t else 0, rtol=3e-14, atol=1e-30)  # small next to c
    assert_allclose(x, np.full((52, 1), c), rtol=1e-15)  # whatever the noise


def gaussian_eps(mean: float, variance: float) -> diffusion.EpsModel:
    """The best eps for data N(mean, variance): E[eps | x_t], by regression of eps on x_t."""

    def eps_model(x_t: diffusion.Array, t: diffusion.Timesteps) -> diffusion.Array:
        cumprod = SHORT["alphas_cumprod"][t][:, None]
        total = cumprod * variance + 1 - cumprod  # the variance of x_t
        return np.asarray(np.sqrt(1 - cumprod) * (x_t - np.sqrt(cumprod) * mean) / total)

    return eps_model


def test_one_step_back_keeps_the_marginals_of_gaussian_data() -> None:
    # Otherwise p_sample pulls too hard or too weakly at some t. With the best eps a step has the mean
    # E[x_{t-1} | x_t]. The variance of that mean, that of z, and what x_t leaves open of x_0, which the
    # sampler leaves out, must add up to the variance that the forward process has at t - 1.
    data_mean, data_variance = 0.4, 0.25
    model = gaussian_eps(data_mean, data_variance)
    for t in range(50):
        # A step is affine, x_prev = slope x_t + level + sigma z: three calls show all of it.
        x_t, z = np.array([[0.0], [1.0], [0.0]]), np.array([[0.0], [0.0], [1.0]])
        step = diffusion.p_sample(SHORT, model, x_t, np.full(3, t), z, clip_x_0=False).ravel()
        level, slope, sigma = step[0], step[1] - step[0], step[2] - step[0]

        cumprod, cumprod_prev = SHORT["alphas_cumprod"][t], SHORT["alphas_cumprod_prev"][t]
        mean, mean_prev = math.sqrt(cumprod) * data_mean, math.sqrt(cumprod_prev) * data_mean
        assert_allclose(slope * mean + level, mean_prev, rtol=1e-15)
        variance = cumprod * data_variance + 1 - cumprod
        variance_prev = cumprod_prev * data_variance + 1 - cumprod_prev
        open_x_0 = data_variance * (1 - cumprod) / variance
        left_out = SHORT["posterior_mean_coef_x_0"][t] ** 2 * open_x_0
        assert_allclose(slope**2 * variance + sigma**2 + left_out, variance_prev, rtol=5e-15)


def test_a_whole_chain_on_gaussian_data() -> None:
    # Otherwise the steps are right and their chain is not. The samples are linear in x_T and in every z: rows
    # with one of these at 1 and the others at 0 show the coefficients, whose squares add up to the variance.
    model = gaussian_eps(0.0, 1.0)  # of variance 1 at every t, and E[x_{t-1} | x_t] = sqrt(alpha_t) x_t
    unit = np.eye(51)
    x = unit[:, :1]  # row 0 has x_T = 1, row 1 + t has z = 1 at time t
    for t in reversed(range(50)):
        x = diffusion.p_sample(SHORT, model, x, np.full(51, t), unit[:, 1 + t : 2 + t], clip_x_0=False)
    variance = 1.0
    for t in reversed(range(50)):
        variance = SHORT["alphas"][t] * variance + SHORT["posterior_variance"][t]
    assert_allclose(np.sum(x**2), variance, rtol=1e-14)
    assert x[1].item() == 0  # z at t = 0
    assert 0.85 < variance < 1  # sigma_t^2 = posterior_variance is the paper's lower bound: a bit too sharp


# The loss and the embedding.


def test_loss_is_the_mean_over_everything() -> None:
    # Otherwise the loss is 784 times the published one, or that of one axis, and so is the learning rate.
    x_0, eps, t = normal(4, 1, 28, 28), normal(4, 1, 28, 28)[::-1], at(0, 10, 500, 999)
    squares = math.fsum(float(e) ** 2 for e in eps.ravel())
    assert_allclose(diffusion.diffusion_loss(HO, always(0.0), x_0, t, eps), squares / (4 * 784), rtol=2e-15)
    assert diffusion.diffusion_loss(HO, always(eps), x_0, t, eps) == 0
    # An error of d everywhere costs d^2: not d, and not d^2 / 2.
    assert_allclose(diffusion.diffusion_loss(HO, always(eps + 0.5), x_0, t, eps), 0.25, rtol=2e-15)


def test_loss_shows_the_network_x_t_and_t() -> None:
    # Otherwise the network is trained on clean images, or is told another time than its input has.
    x_0, eps, t = normal(2, 3), normal(2, 3)[::-1], at(3, 700)
    seen: list[Any] = []

    def model(x_t: diffusion.Array, t: diffusion.Timesteps) -> diffusion.Array:
        seen.append((x_t, t))
        return x_t

    diffusion.diffusion_loss(HO, model, x_0, t, eps)
    assert_array_equal(seen[0][0], diffusion.q_sample(HO, x_0, t, eps))
    assert_array_equal(seen[0][1], t)


def test_embedding_is_ho_s_at_both_ends() -> None:
    # Otherwise it is another library's: cosines first, or 10000^(-31/32) last. The shapes are the same.
    t = at(0, 1, 17, 999)
    got = networks.timestep_embedding(t, 64)
    assert got.shape == (4, 64)
    assert_allclose(got[:, 0], np.sin(t), rtol=0, atol=1e-15)
    assert_allclose(got[:, 31], np.sin(t / 10_000), rtol=2e-15)
    assert_allclose(got[:, 32], np.cos(t), rtol=0, atol=1e-15)
    assert_allclose(got[:, 63], np.cos(t / 10_000), rtol=0, atol=1e-15)
    # Between them the frequencies fall by equal ratios: the angles at t = 1 are the frequencies themselves.
    angles = np.arctan2(got[1, :32], got[1, 32:])
    assert_allclose(angles[1:] / angles[:-1], 10_000 ** (-1 / 31), rtol=5e-15)


@pytest.mark.parametrize("dim", [0, 2, 7])
def test_an_impossible_embedding_is_refused(dim: int) -> None:
    # Otherwise dim = 2 divides by 0 frequencies, and an odd one returns a column less than was asked for.
    with pytest.raises(UserError, match="even and 4 or more"):
        networks.timestep_embedding(at(0), dim)


# The optimizer.


def test_adam_first_step_is_the_sign() -> None:
    # Otherwise the bias correction is missing, and the first step is 0.1 / sqrt(0.001) = 3.2 times too long.
    gradient = np.array([5.0, -3e-4, 0.0])
    got = optimizer.adam(np.zeros(3), [gradient], [0.01])
    assert_allclose(got, -0.01 * np.sign(gradient), rtol=4e-5)  # eps is 1/30000 of the second
    assert_allclose(got, -0.01 * gradient / (np.abs(gradient) + 1e-8), rtol=1e-15)


def test_adam_adds_eps_outside_the_root_after_the_correction() -> None:
    # Otherwise it is TensorFlow's "epsilon hat" or eps under the root. At eps = 1 and g = 1 the step is
    # exactly 1/2 of the rate; those others would move by 0.03 and 0.7 of it.
    assert_allclose(optimizer.adam(np.zeros(1), [np.ones(1)], [1.0], eps=1.0).item(), -0.5, rtol=1e-15)


@pytest.mark.parametrize(("beta_1", "beta_2"), [(0.9, 0.999), (0.0, 0.99), (0.5, 0.9)])
def test_adam_is_the_recursion_of_the_paper(beta_1: float, beta_2: float) -> None:
    # Otherwise the weighted sums are not algorithm 1. At beta_2 = 0.999 its bias correction loses 3 digits.
    gradients, rates = normal(30, 4, 2), np.linspace(1e-3, 1e-2, 30)
    parameters = m = v = np.zeros((4, 2))
    for k, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        m = beta_1 * m + (1 - beta_1) * gradient
        v = beta_2 * v + (1 - beta_2) * gradient**2
        parameters = parameters - rate * (m / (1 - beta_1**k)) / (np.sqrt(v / (1 - beta_2**k)) + 1e-8)
    got = optimizer.adam(np.zeros((4, 2)), list(gradients), rates.tolist(), beta_1, beta_2)
    assert_allclose(got, parameters, rtol=0, atol=1e-15)


def test_adam_defaults_are_the_paper_s() -> None:
    # Otherwise it is Keras' eps of 1e-7, or another memory, under the name of Adam.
    gradients, rates = list(1e-7 * normal(5, 3)), [0.1] * 5
    spelled_out = optimizer.adam(np.ones(3), gradients, rates, beta_1=0.9, beta_2=0.999, eps=1e-8)
    assert_array_equal(optimizer.adam(np.ones(3), gradients, rates), spelled_out)


def test_adam_wants_a_rate_for_every_gradient() -> None:
    # Otherwise the shorter list ends the run unseen, and a comparison is made of fewer steps than it says.
    with pytest.raises(UserError, match="2 gradients but 1 learning rates"):
        optimizer.adam(np.ones(1), [np.ones(1)] * 2, [0.1])


def test_ema_by_hand() -> None:
    # Otherwise early checkpoints hold mostly the random start. By hand, with decays 2/11, 3/12 and 4/13:
    # 9/11, then 9/44 + 3/2 = 75/44, then 75/143 + 36/13 = 471/143.
    values = [np.full((2, 1), value) for value in (0.0, 1.0, 2.0, 4.0)]
    for updates, expected in enumerate([0.0, 9 / 11, 75 / 44, 471 / 143]):
        got = optimizer.ema(values[: updates + 1], decay=0.9999)
        assert_allclose(got, np.full((2, 1), expected), rtol=1e-15)
    # A decay of 1/5 lets the first 2/11 through and caps the rest: 9/11, then 9/55 + 8/5 = 97/55.
    assert_allclose(optimizer.ema(values[:3], decay=0.2)[0, 0], 97 / 55, rtol=1e-15)


def test_ema_is_an_average() -> None:
    # Otherwise its weights do not sum to 1: a network that no longer moves would shrink in its checkpoints.
    values = [np.array([0.7, -2.0])] * 500
    assert_allclose(optimizer.ema(values, decay=0.99), values[0], rtol=1e-15)
    assert_array_equal(optimizer.ema(values[:1], decay=0.99), values[0])  # no update: the copy


def test_clipping_is_global() -> None:
    # Otherwise every tensor is clipped by its own norm, which changes the direction of the step.
    gradients = {"weight": np.array([[3.0, 0.0]]), "bias": np.array([4.0])}
    clipped, norm = optimizer.clip_by_global_norm(gradients, max_norm=1.0)
    assert norm == 5
    assert_allclose(clipped["weight"], [[3 / 5.000001, 0]], rtol=1e-15)
    assert_allclose(clipped["bias"], [4 / 5.000001], rtol=1e-15)


def test_clipping_leaves_small_gradients_be() -> None:
    # Otherwise gradients are blown up to max_norm, zeros included, where 0 / 0 would be NaN.
    for scale in (0.0, 1e-3, 0.2):
        gradients = {"weight": np.array([[3.0, 4.0]]) * scale}
        clipped, norm = optimizer.clip_by_global_norm(gradients, max_norm=1.1)
        assert_allclose(norm, 5 * scale, rtol=1e-15)
        assert_array_equal(clipped["weight"], gradients["weight"])


def test_warm_up_climbs_to_the_rate_and_stays() -> None:
    # Otherwise the first step is wasted at rate 0, or the whole run is at a fraction of its rate.
    settings = TrainingConfig(learning_rate=0.4, warmup_steps=4, learning_rate_decay="none")
    assert_allclose(optimizer.learning_rates(settings, 6), [0.1, 0.2, 0.3, 0.4, 0.4, 0.4], rtol=1e-15)
    assert_allclose(optimizer.learning_rates(replace(settings, warmup_steps=0), 2), [0.4, 0.4], rtol=1e-15)


def test_decay_falls_from_its_start_to_its_end() -> None:
    # Otherwise it begins too early, ends too high, or the cosine is upside down.
    linear = TrainingConfig(
        learning_rate=0.4, warmup_steps=0, learning_rate_decay="linear", decay_start=0.5, final_learning_rate=0.25
    )
    assert_allclose(optimizer.learning_rates(linear, 4), [0.4, 0.4, 0.4, 0.25], rtol=1e-15)
    cosine = replace(linear, learning_rate_decay="cosine", decay_start=0.0, final_learning_rate=0.0)
    assert_allclose(optimizer.learning_rates(cosine, 3), [0.4, 0.3, 0.1], rtol=1e-15)


# What all of them share.


@pytest.mark.parametrize(
    "compute",
    [
        lambda a: diffusion.q_sample(HO, a, at(1), a),
        lambda a: diffusion.predict_x_0(HO, a, at(1), a),
        lambda a: diffusion.q_posterior(HO, a, a, at(1))[0],
        lambda a: diffusion.p_sample(HO, always(a), a, at(1), a),
        lambda a: diffusion.diffusion_loss(HO, always(2 * a), a, at(1), a),
        lambda a: optimizer.adam(a, [a, -a], [0.1, 0.1]),
        lambda a: optimizer.ema([a, 2 * a], 0.5),
        lambda a: optimizer.clip_by_global_norm({"a": a}, 0.1)[0]["a"],
        lambda a: optimizer.clip_by_global_norm({"a": a}, 0.1)[1],
    ],
)
def test_float32_input_costs_no_accuracy(compute: Callable[[Any], Any]) -> None:
    # Otherwise a float32 tree is compared with a float32 oracle, and shares its roundings.
    single = normal(1, 7).astype(np.float32)
    got, expected = np.asarray(compute(single)), np.asarray(compute(single.astype(np.float64)))
    assert got.dtype == np.float64
    assert_array_equal(got, expected)
