"""The oracle of schedules, predictions, losses and samplers against facts from outside it.

They are the papers' formulas written out plainly, cases solved by hand, and data of which the best denoiser is known:
a single image, and a Gaussian. Tolerances stand about 5 times above the worst difference seen.
"""

import math
from fractions import Fraction

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from ddpm_shared.config import DiffusionConfig
from ddpm_shared.config.sampling import SAMPLER_FACTS, times
from ddpm_shared.errors import UserError
from ddpm_shared.oracle import bound as oracle_bound
from ddpm_shared.oracle import diffusion
from ddpm_shared.oracle import prediction as oracle_prediction
from ddpm_shared.oracle import samplers as oracle_samplers
from ddpm_shared.oracle import weights as oracle_weights
from ddpm_shared.oracle.prediction import Predicted
from ddpm_shared.oracle.processes import PROCESSES, Levels, make_levels

T = 1000
ON_DDPM = [name for name, facts in SAMPLER_FACTS.items() if "ddpm" in facts.processes]
NAMES = ("linear", "scaled_linear", "quadratic", "cosine", "sigmoid")
PREDICTIONS = ("eps", "x_0", "v", "mean", "score", "velocity", "F")
DETERMINISTIC = ("ddim", "plms", "dpmpp_2m", "heun")
HO = diffusion.make_schedule(DiffusionConfig())
NO_SIGNAL = DiffusionConfig(zero_terminal_snr=True, prediction="v")
LIN = diffusion.make_schedule(NO_SIGNAL)
AT = np.array([0, 1, 10, 500, 998, 999])


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def respaced(steps, config=DiffusionConfig()):  # noqa: B008 (frozen)
    return diffusion.make_schedule(config, times(config.timesteps, steps, "trailing"))


def levels(schedule, i):
    """Of alpha and sigma, those at level i, and at the level before it."""
    alpha, sigma = schedule["sqrt_alphas_cumprod"], schedule["sqrt_one_minus_alphas_cumprod"]
    return alpha[i], sigma[i], *((alpha[i - 1], sigma[i - 1]) if i else (1.0, 0.0))


def quiet(i):
    raise AssertionError(f"noise was asked for at step {i}")


def levels_of(schedule):
    """What a sampler runs on."""
    alpha, sigma = schedule["sqrt_alphas_cumprod"], schedule["sqrt_one_minus_alphas_cumprod"]
    return Levels(alpha, sigma, np.arange(len(alpha), dtype=float))


def run(name, schedule, denoise, x, z_at=quiet, **options):
    """All that a sampler yields, by step."""
    return dict(getattr(oracle_samplers, name)(levels_of(schedule), denoise, x, z_at, **options))


# --- Schedules ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("zero_terminal_snr", [False, True])
def test_every_schedule_is_one(name, zero_terminal_snr):
    """Otherwise a table has a hole at one of its ends, or noise that shrinks with time."""
    config = DiffusionConfig(schedule=name, zero_terminal_snr=zero_terminal_snr, prediction="v")
    schedule = diffusion.make_schedule(config)
    assert all(table.shape == (T,) and np.isfinite(table).all() for table in schedule.values())
    assert (np.diff(schedule["alphas_cumprod"]) < 0).all()
    assert schedule["betas"].min() > 0
    assert (schedule["betas"][-1] == 1) == zero_terminal_snr
    squares = schedule["sqrt_alphas_cumprod"] ** 2 + schedule["sqrt_one_minus_alphas_cumprod"] ** 2
    assert_allclose(squares, 1, rtol=5e-16)


@pytest.mark.parametrize("name", ["linear", "scaled_linear", "quadratic"])
def test_betas_go_from_start_to_end(name):
    """Otherwise a checkpoint of latent diffusion meets another noise than it was trained with."""
    config = DiffusionConfig(schedule=name, timesteps=40, beta_start=0.00085, beta_end=0.012)
    betas = diffusion.betas(config)
    assert (betas[0], betas[-1]) == (0.00085, 0.012)
    ramp = betas if name == "linear" else np.sqrt(betas)
    assert_allclose(np.diff(ramp, 2), 0, atol=1e-16)


def test_rescaled_betas_end_in_about_as_much_noise():
    """Otherwise a process of 100 steps ends in a picture, and sampling starts from what it never saw."""
    ends = [
        diffusion.make_schedule(DiffusionConfig(timesteps=timesteps, rescale_betas=True))["alphas_cumprod"][-1]
        for timesteps in (100, 1000, 4000)
    ]
    assert_allclose(np.log(ends), -10.1, rtol=0.07)


def test_sigmoid_betas_are_symmetric():
    """Otherwise the sigmoid's range is not -6 to 6, or it is scaled about another centre."""
    betas = diffusion.betas(DiffusionConfig(schedule="sigmoid", timesteps=101))
    assert_allclose(betas + betas[::-1], 1e-4 + 0.02, rtol=1e-15)
    assert_allclose(betas[0], 1e-4 + 0.0199 / (1 + math.exp(6)), rtol=2e-15)
    assert_allclose(betas[51], 1e-4 + 0.0199 / (1 + math.exp(-0.12)), rtol=2e-15)


def test_cosine_is_a_cosine():
    """Otherwise signal is lost at another pace than the paper's, or its end is not held at 0.999."""
    betas = diffusion.betas(DiffusionConfig(schedule="cosine"))
    assert betas[-1] == 0.999
    assert_allclose(betas[-2], 3 / 4, rtol=1e-5)  # two steps before its zero, a cosine halves
    # eq. 17 from f(0) to f(t + 1) in one leap, where the oracle multiplies its way
    f = np.cos((np.arange(1, T) / T + 0.008) / 1.008 * np.pi / 2) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    found = diffusion.make_schedule(DiffusionConfig(schedule="cosine"))["alphas_cumprod"]
    assert_allclose(found[:-1], f, rtol=2e-13)
    assert_allclose(found[-1], f[-1] * 0.001, rtol=2e-13)


@pytest.mark.parametrize("name", NAMES)
def test_no_signal_is_left_at_the_end(name):
    """Otherwise the model is trained where a little of the image shines through, and sampled where none does."""
    plain = diffusion.make_schedule(DiffusionConfig(schedule=name))
    shifted = diffusion.make_schedule(DiffusionConfig(schedule=name, zero_terminal_snr=True, prediction="v"))
    root, found = plain["sqrt_alphas_cumprod"], shifted["sqrt_alphas_cumprod"]
    assert (found[-1], shifted["alphas_cumprod"][-1], shifted["sqrt_one_minus_alphas_cumprod"][-1]) == (0, 0, 1)
    assert found[0] == root[0]
    assert_allclose(found, (root - root[-1]) * root[0] / (root[0] - root[-1]), rtol=2e-12, atol=1e-16)


def test_the_posterior_of_pure_noise_is_the_prior_of_the_image():
    """Otherwise the first step of sampling is NaN, or mixes noise that says nothing into its mean."""
    prev = LIN["alphas_cumprod_prev"][-1]
    assert LIN["posterior_mean_coef_x_t"][-1] == 0
    assert_allclose(LIN["posterior_mean_coef_x_0"][-1], math.sqrt(prev), rtol=1e-15)
    assert_allclose(LIN["posterior_variance"][-1], 1 - prev, rtol=1e-15)


@pytest.mark.parametrize("name", NAMES)
def test_all_steps_are_the_plain_process(name):
    """Otherwise sampling with as many steps as there are is another process than training."""
    config = DiffusionConfig(schedule=name, zero_terminal_snr=True, prediction="v")
    plain, found = diffusion.make_schedule(config), diffusion.make_schedule(config, range(T))
    for field, table in plain.items():
        assert_array_equal(found[field], table)
    assert_array_equal(plain["betas"], diffusion.betas(config))


def test_fewer_steps_leap_in_exact_fractions():
    """Otherwise a leap carries another noise than the steps that it leaps over."""
    steps = [3, 4, 40, 90]
    found = diffusion.make_schedule(DiffusionConfig(), steps)
    exact = [math.prod((1 - Fraction(beta) for beta in HO["betas"][: t + 1]), start=Fraction(1)) for t in steps]
    prev = [Fraction(1), *exact[:-1]]
    for i, (now, before) in enumerate(zip(exact, prev, strict=True)):
        beta = 1 - now / before
        assert abs(Fraction(found["betas"][i]) - beta) <= beta * Fraction(1e-15)
        variance = (1 - before) / (1 - now) * beta
        assert abs(Fraction(found["posterior_variance"][i]) - variance) <= variance * Fraction(1e-15)
    assert_array_equal(found["alphas_cumprod"], HO["alphas_cumprod"][steps])
    assert found["posterior_log_variance_clipped"][0] == found["posterior_log_variance_clipped"][1]


@pytest.mark.parametrize("steps", [[0], [999], [0, 999]])
@pytest.mark.parametrize("config", [DiffusionConfig(), NO_SIGNAL])
def test_one_step_is_a_process_too(steps, config):
    """Otherwise an image cannot be drawn in a step or two, for want of a t = 1."""
    schedule = diffusion.make_schedule(config, steps)
    assert all(table.shape == (len(steps),) and np.isfinite(table).all() for table in schedule.values())


@pytest.mark.parametrize("steps", [[], [3, 2], [2, 2], [-1, 5], [5, T]])
def test_impossible_steps_are_refused(steps):
    """Otherwise a process runs backwards, stands still, or counts its times from the end."""
    with pytest.raises(UserError, match="ascending times from 0 to 999"):
        diffusion.make_schedule(DiffusionConfig(), steps)


# --- What a network predicts --------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("no_signal", [False, True])
def test_a_network_that_is_right_predicts_the_image_and_the_noise(prediction, no_signal):
    """Otherwise it learns one quantity and is believed to have told another."""
    schedule, t = (LIN, AT) if no_signal and prediction not in ("eps", "score") else (HO, AT)
    x_0, eps = normal(6, 4, 4, 2), normal(6, 4, 4, 2, seed=1)
    x_t = diffusion.q_sample(schedule, x_0, t, eps)
    told = oracle_prediction.target(schedule, prediction, x_0, x_t, t, eps)
    # The noise of the first x_t is a hundredth of it, and the image of the last about as much.
    rounding = {"eps": 1e-13, "x_0": 2e-14, "v": 2e-15, "mean": 5e-12}.get(prediction, 1e-13)
    assert_allclose(oracle_prediction.to_x_0(schedule, prediction, x_t, t, told), x_0, rtol=0, atol=rounding)
    assert_allclose(oracle_prediction.to_eps(schedule, prediction, x_t, t, told), eps, rtol=0, atol=10 * rounding)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_what_is_believed_makes_x_t(prediction):
    """Otherwise x_0 and eps of a wrong network contradict each other, and DDIM leaves the line between them."""
    x_t, output, t = normal(6, 4, 4, 2), normal(6, 4, 4, 2, seed=1), AT
    x_0 = oracle_prediction.to_x_0(HO, prediction, x_t, t, output)
    eps = oracle_prediction.to_eps(HO, prediction, x_t, t, output)
    again = oracle_prediction.target(HO, prediction, x_0, x_t, t, eps)
    size = np.abs(x_0).max()  # the noise of one deviation in the place of the last x_0 makes it 150
    assert_allclose(diffusion.q_sample(HO, x_0, t, eps), x_t, rtol=0, atol=1e-15 * size)
    assert_allclose(again, output, rtol=0, atol=1e-14 * size)


def test_velocity_without_signal_is_the_image_inverted():
    """Otherwise the first step of a model trained without terminal signal divides by it."""
    x_t, v, t = normal(2, 3, 3, 1), normal(2, 3, 3, 1, seed=1), np.array([999, 999])
    assert_array_equal(oracle_prediction.to_x_0(LIN, "v", x_t, t, v), -v)
    assert_array_equal(oracle_prediction.to_eps(LIN, "v", x_t, t, v), x_t)


def test_velocity_by_its_formula():
    """Otherwise the rotation turns the other way round, and v has another sign than everybody's."""
    x_0, eps = normal(6, 5), normal(6, 5, seed=1)
    alpha, sigma = (HO[f"sqrt_{name}"][AT][:, None] for name in ("alphas_cumprod", "one_minus_alphas_cumprod"))
    x_t = diffusion.q_sample(HO, x_0, AT, eps)
    v = oracle_prediction.target(HO, "v", x_0, x_t, AT, eps)
    assert_allclose(v, alpha * eps - sigma * x_0, rtol=0, atol=2e-15)


def test_limits():
    """Otherwise bright images are cut where they should be dimmed, or dim ones made brighter."""
    x_0 = np.array([[0.0, -0.5, 0.25, 0.5, -0.1], [0.0, -4.0, 1.0, 2.0, 3.0]])
    assert_array_equal(oracle_prediction.limit(x_0, False, None), x_0)
    assert_array_equal(oracle_prediction.limit(x_0, True, None), x_0.clip(-1, 1))
    # Image 0 is inside [-1, 1] and stays. Of image 1, |x_0| is 0 .. 4: the quantile 0.875 lies half-way from 3 to 4.
    for clip_x_0 in (False, True):
        found = oracle_prediction.limit(x_0, clip_x_0, 0.875)
        assert_array_equal(found[0], x_0[0])
        assert_allclose(found[1], [0, -1, 1 / 3.5, 2 / 3.5, 3 / 3.5], rtol=1e-15)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_limited_image_leaves_another_noise(prediction):
    """Otherwise DDIM takes a clipped x_0 and a noise that belongs to another, and leaves the forward process."""
    config, x_t = DiffusionConfig(prediction=prediction), 3 * normal(6, 4, 4, 1)
    for limits in ({}, {"clip_x_0": False, "dynamic_threshold": 0.9}):
        found = oracle_prediction.denoise(HO, lambda x_t, t: 0.3 * x_t, config, x_t, AT, **limits)
        assert np.abs(found.x_0).max() == 1
        assert_allclose(diffusion.q_sample(HO, found.x_0, AT, found.eps), x_t, rtol=0, atol=2e-15 * np.abs(x_t).max())
    free = oracle_prediction.denoise(HO, lambda x_t, t: 0.3 * x_t, config, x_t, AT, clip_x_0=False)
    assert np.abs(free.x_0).max() > 1
    assert_array_equal(free.eps, oracle_prediction.to_eps(HO, prediction, x_t, AT, 0.3 * x_t))


def test_the_variances_lie_between_the_posterior_s_and_beta():
    """Otherwise sampling is too noisy or too smooth, and a learned variance means something else than it says."""
    smallest, largest = HO["posterior_log_variance_clipped"][AT], np.log(HO["betas"][AT])

    def log_variance(config, w):
        output = np.concatenate([normal(6, 2, 2, 3), np.full((6, 2, 2, 3), w)], axis=-1)
        output = output if config.variance == "learned_range" else output[..., :3]
        found = oracle_prediction.denoise(HO, lambda x_t, t: output, config, normal(6, 2, 2, 3), AT)
        assert found.x_0.shape == found.eps.shape == (6, 2, 2, 3)
        log_variance = oracle_prediction.reverse_log_variance(HO, AT, found.fraction)
        return np.broadcast_to(log_variance, (6, 2, 2, 3))[:, 0, 1, 2]

    small, large, learned = (DiffusionConfig(variance=v) for v in ("fixed_small", "fixed_large", "learned_range"))
    assert_array_equal(log_variance(small, 0.0), smallest)
    assert_allclose(log_variance(large, 0.0), [smallest[0], *largest[1:]], rtol=1e-15)
    assert_array_equal(log_variance(learned, -1.0), smallest)
    assert_allclose(log_variance(learned, 1.0), largest, rtol=1e-15)
    assert_allclose(log_variance(learned, 0.0), (smallest + largest) / 2, rtol=1e-15)
    assert_allclose(log_variance(learned, 3.0), 2 * largest - smallest, rtol=1e-15)  # beyond, and still the line


# --- Losses -------------------------------------------------------------------------------------------------


def test_loss_weights_by_hand():
    """Otherwise min-SNR weighs the times by another quantity, and none of its results can be had."""
    t = np.array([0, 100, 500, 999])
    snr = HO["alphas_cumprod"][t] / (1 - HO["alphas_cumprod"][t])
    assert (snr[:2] > 5).all()
    assert (snr[2:] < 5).all()
    least = np.minimum(snr, 5)
    expected = {
        "eps": least / snr,
        "x_0": least,
        "v": least / (snr + 1),
        "mean": least / HO["posterior_mean_coef_x_0"][t] ** 2,
    }
    for prediction, weight in expected.items():
        assert_allclose(oracle_weights.loss_weight(HO, prediction, t, 5.0), weight, rtol=1e-12)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_weighted_losses_are_one_loss(prediction):
    """Otherwise "the same loss" of two predictions is not the same, and comparing them compares weights."""
    x_0, eps, output = normal(6, 3, 3, 1), normal(6, 3, 3, 1, seed=1), normal(6, 3, 3, 1, seed=2)
    config = DiffusionConfig(prediction=prediction, loss_weighting="min_snr", min_snr_gamma=3.0)
    x_t = diffusion.q_sample(HO, x_0, AT, eps)
    wrong = oracle_prediction.to_x_0(HO, prediction, x_t, AT, output)
    snr = np.minimum((HO["alphas_cumprod"] / (1 - HO["alphas_cumprod"]))[AT], 3)
    expected = (snr * ((wrong - x_0) ** 2).mean(axis=(1, 2, 3))).mean()
    found = oracle_bound.training_loss(HO, lambda x_t, t: output, x_0, AT, eps, config)
    assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize(("prediction", "weight"), [("eps", 1.0), ("x_0", 0.0), ("v", 0.0), ("mean", 0.0)])
def test_weights_without_signal(prediction, weight):
    """Otherwise the loss of a schedule that ends in noise is NaN once every thousand images."""
    assert_array_equal(oracle_weights.loss_weight(LIN, prediction, np.array([999]), 5.0), [weight])


def test_the_simple_loss_is_ho_s():
    """Otherwise the general loss has another scale than the one that all published numbers have."""
    x_0, eps = normal(6, 3, 3, 1), normal(6, 3, 3, 1, seed=1)
    found = oracle_bound.training_loss(HO, lambda x_t, t: 0.3 * x_t, x_0, AT, eps, DiffusionConfig())
    assert_allclose(found, diffusion.diffusion_loss(HO, lambda x_t, t: 0.3 * x_t, x_0, AT, eps), rtol=1e-15)


def test_the_hybrid_loss_adds_the_bound():
    """Otherwise the learned variance gets no gradient, or the bound drowns the images."""
    config = DiffusionConfig(timesteps=50, variance="learned_range", prediction="v", beta_end=0.3)
    schedule, t = diffusion.make_schedule(config), np.array([0, 1, 49])
    x_0, eps = normal(3, 4, 4, 2).clip(-1, 1), normal(3, 4, 4, 2, seed=1)

    def network(x_t, t):
        return np.concatenate([0.3 * x_t, 0.1 * x_t], axis=-1)

    x_t = diffusion.q_sample(schedule, x_0, t, eps)
    squares = (oracle_prediction.target(schedule, "v", x_0, x_t, t, eps) - 0.3 * x_t) ** 2
    bits = oracle_bound.variational_bound_term(schedule, network, x_0, t, eps, False, config)
    found = oracle_bound.training_loss(schedule, network, x_0, t, eps, config)
    assert_allclose(found, squares.mean() + 0.05 * bits.mean(), rtol=1e-14)


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large", "learned_range"])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_bound_is_the_divergence_of_the_two_gaussians(variance, prediction):
    """Otherwise the bits of a model are those of another variance than it samples with."""
    config, t = DiffusionConfig(variance=variance, prediction=prediction), np.array([0, 1, 2, 700, 999])
    x_0, eps = (normal(5, 3, 3, 1).clip(-1, 1) * 127.5).round() / 127.5, normal(5, 3, 3, 1, seed=1)
    w = normal(5, 3, 3, 1, seed=2)

    def network(x_t, t):
        return np.concatenate([0.3 * x_t, w], axis=-1) if variance == "learned_range" else 0.3 * x_t

    x_t = diffusion.q_sample(HO, x_0, t, eps)
    predicted = oracle_prediction.denoise(HO, network, config, x_t, t)
    log_variance = oracle_prediction.reverse_log_variance(HO, t, predicted.fraction)
    mean, true_variance, _ = diffusion.q_posterior(HO, x_0, x_t, t)
    mean_pred, _, _ = diffusion.q_posterior(HO, predicted.x_0, x_t, t)
    nats = oracle_bound.gaussian_divergence(mean[1:], true_variance[1:], mean_pred[1:], np.exp(log_variance[1:]))
    decoder = -oracle_bound.discretized_gaussian_log_likelihood(x_0[0], mean_pred[0], log_variance[0])
    expected = np.concatenate([decoder[None], nats]).mean(axis=(1, 2, 3)) / math.log(2)
    found = oracle_bound.variational_bound_term(HO, network, x_0, t, eps, config=config)
    assert_allclose(found, expected, rtol=1e-10)


# --- Samplers on data whose best denoiser is known ----------------------------------------------------------


def knows(schedule, image):
    """The denoiser of a data set of one image: x_0 is that, and all else is noise."""

    def denoise(x, i):
        alpha, sigma, *_ = levels(schedule, i)
        return Predicted(np.broadcast_to(image, x.shape), (x - alpha * image) / sigma, np.zeros((1, 1)))

    return denoise


def gaussian(schedule, mean, deviation):
    """The denoiser of Gaussian data: x_0 = E[x_0 | x]."""

    def denoise(x, i):
        alpha, sigma, *_ = levels(schedule, i)
        surprise = (x - alpha * mean) / ((alpha * deviation) ** 2 + sigma**2)
        return Predicted(mean + alpha * deviation**2 * surprise, sigma * surprise, np.zeros((1, 1)))

    return denoise


def crooked(schedule):
    """A denoiser like a network: no line in x, and another one at each level."""

    def denoise(x, i):
        alpha, sigma, *_ = levels(schedule, i)
        x_0 = np.tanh(x) / (1 + i / 10)
        return Predicted(x_0, (x - alpha * x_0) / sigma, np.full((1, 1), 0.3))

    return denoise


@pytest.mark.parametrize("name", ON_DDPM)
@pytest.mark.parametrize("steps", [1, 2, 3, 20])
@pytest.mark.parametrize("config", [DiffusionConfig(), DiffusionConfig(schedule="cosine"), NO_SIGNAL])
def test_every_sampler_ends_at_the_only_image(name, steps, config):
    """Otherwise its weights do not sum to what they must, or an end of the schedule is NaN."""
    schedule, image = respaced(steps, config), np.array([0.7, -0.2, 1.0])
    found = run(name, schedule, knows(schedule, image), normal(4, 3), lambda i: normal(4, 3, seed=i))
    assert list(found) == list(reversed(range(steps)))
    assert_allclose(found[0], np.broadcast_to(image, (4, 3)), rtol=0, atol=5e-12)  # 1 / alpha is 20,000


TIMES = {
    "vp": np.linspace(0.01, 1, 300),
    "ve": np.linspace(0, 1, 300),
    "edm": np.geomspace(0.01, 50, 300),
    "flow": np.linspace(0.01, 1, 300),
}


def test_processes_by_their_papers():
    """Otherwise a name stands for another process than everybody's."""
    half = np.array([0.5])
    alpha, sigma = PROCESSES["vp"](DiffusionConfig(), half)
    assert_allclose(np.log(alpha), -19.9 / 16 - 0.1 / 4, rtol=1e-15)
    assert_allclose(alpha**2 + sigma**2, 1, rtol=1e-15)
    assert_allclose(PROCESSES["ve"](DiffusionConfig(), half), [[1.0], [math.sqrt(0.01 * 50)]], rtol=1e-15)
    assert_array_equal(PROCESSES["edm"](DiffusionConfig(), half), [[1.0], [0.5]])
    assert_array_equal(PROCESSES["flow"](DiffusionConfig(), np.array([0.25])), [[0.75], [0.25]])
    assert_array_equal(
        PROCESSES["ddpm"](DiffusionConfig(), np.array([0.0, 999.0]))[0], HO["sqrt_alphas_cumprod"][[0, -1]]
    )


@pytest.mark.parametrize("process", TIMES)
@pytest.mark.parametrize("name", ON_DDPM)
def test_every_sampler_serves_every_process(name, process):
    """Otherwise it ends in another distribution there: here the data are Gaussian, and so is every x_t."""
    mean, deviation, count = 0.3, 0.5, 20_000
    on = make_levels(DiffusionConfig(), TIMES[process], process)

    def denoise(x, i):
        alpha, sigma = on.alpha[i], on.sigma[i]
        surprise = (x - alpha * mean) / ((alpha * deviation) ** 2 + sigma**2)
        return Predicted(mean + alpha * deviation**2 * surprise, sigma * surprise, np.zeros((1, 1)))

    x = on.alpha[-1] * mean + math.hypot(on.alpha[-1] * deviation, on.sigma[-1]) * normal(count, 1)
    steps = dict(getattr(oracle_samplers, name)(on, denoise, x, lambda i: normal(count, 1, seed=i + 1)))
    for i in (200, 100, 0):
        alpha, sigma = (on.alpha[i - 1], on.sigma[i - 1]) if i else (1.0, 0.0)
        assert_allclose(steps[i].mean(), alpha * mean, rtol=0, atol=0.02 * math.hypot(1, sigma))
        assert_allclose(steps[i].std(), math.hypot(alpha * deviation, sigma), rtol=0.05)


@pytest.mark.parametrize(("name", "options"), [("ancestral", {}), ("ddim", {"eta": 0.4}), ("dpmpp_2m_sde", {})])
def test_noise_is_replaced_by_as_much(name, options):
    """Otherwise x_prev has another noise than its level says. Rows with one noise at 1 each show what it weighs."""
    schedule, image = respaced(20, NO_SIGNAL), 0.6
    unit = np.eye(22)[:, 1:]  # row 0 has no noise, row 1 + i that of step i, the last row x_T
    x = schedule["sqrt_alphas_cumprod"][-1] * image + unit[:, 20:]
    found = run(name, schedule, knows(schedule, image), x, lambda i: unit[:, i : i + 1], **options)
    for i, x_prev in found.items():
        _, _, alpha_prev, sigma_prev = levels(schedule, i)
        assert_allclose(x_prev[0], alpha_prev * image, rtol=2e-15)
        assert_allclose(np.sum((x_prev - x_prev[0]) ** 2), sigma_prev**2, rtol=2e-14, atol=1e-30)


@pytest.mark.parametrize("config", [DiffusionConfig(), NO_SIGNAL])
def test_ddim_with_all_its_noise_is_ancestral(config):
    """Otherwise eta = 1 is not the sampler that the paper says it is."""
    schedule = respaced(20, config)
    x, model = normal(4, 3), gaussian(schedule, 0.3, 0.5)  # fraction 0: the posterior's variance
    z = {i: normal(4, 3, seed=i) for i in range(1, 20)}
    one, other = (run(name, schedule, model, x, z.get, **o) for name, o in (("ddim", {"eta": 1.0}), ("ancestral", {})))
    for i in one:
        assert_allclose(one[i], other[i], rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", DETERMINISTIC)
@pytest.mark.parametrize("no_signal", [False, True])
def test_more_steps_come_nearer_to_the_ode(name, no_signal):
    """Otherwise a solver solves another equation, or with a lower order than it is named for.

    Of Gaussian data the ODE moves every x with its quantile. The first level is almost the image here, so that the last
    step, which has no second order, counts for nothing.
    """
    config = DiffusionConfig(timesteps=T, beta_start=1e-7, beta_end=0.02, zero_terminal_snr=no_signal, prediction="v")
    mean, deviation, x = 0.3, 0.5, np.array([[-1.3], [0.2], [2.1]])
    errors = []
    for steps in (50, 100, 200):
        schedule = diffusion.make_schedule(config, times(T, steps, "linspace"))
        alpha, sigma, *_ = levels(schedule, -1)
        exact = mean + (x - alpha * mean) * deviation / math.hypot(alpha * deviation, sigma)
        found = run(name, schedule, gaussian(schedule, mean, deviation), x)[0]
        errors.append(np.abs(found - exact).max())
    if name == "plms":  # of order 4 with even steps, and these are not even
        assert errors[-1] < 2e-5
        assert errors[-1] < errors[0] / 16
    else:
        halved = 2 ** SAMPLER_FACTS[name].order
        assert_allclose(errors[0] / errors[1], halved, rtol=0.1)
        assert_allclose(errors[1] / errors[2], halved, rtol=0.1)


@pytest.mark.parametrize("name", ON_DDPM)
@pytest.mark.parametrize("steps", [1, 2, 20])
def test_float32_noise_costs_no_accuracy(name, steps):
    """Otherwise a float32 tree is compared with a float32 oracle, and shares its roundings."""
    schedule = respaced(steps)
    x, z = normal(2, 3).astype(np.float32), normal(2, 3, seed=1).astype(np.float32)
    options = {"eta": 0.3} if name == "ddim" else {}
    single = run(name, schedule, crooked(schedule), x, lambda i: z, **options)
    double = run(name, schedule, crooked(schedule), x.astype(float), lambda i: z.astype(float), **options)
    # The denoiser's tanh of a float32 x_T is no part of the oracle.
    assert single[0].dtype == np.float64
    assert_allclose(single[0], double[0], rtol=0, atol=1e-6)


# --- Samplers against the papers' formulas ------------------------------------------------------------------


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_by_eq_12(eta):
    """Otherwise the angle between old and new noise is another quantity than the paper's sigma_t."""
    schedule, x, z = respaced(10), normal(4, 3), {i: normal(4, 3, seed=i) for i in range(10)}
    cumprod, prev = schedule["alphas_cumprod"], schedule["alphas_cumprod_prev"]
    found = run("ddim", schedule, crooked(schedule), x, z.get, eta=eta)
    for i in reversed(range(10)):
        predicted = crooked(schedule)(x, i)
        sigma = eta * math.sqrt((1 - prev[i]) / (1 - cumprod[i]) * (1 - cumprod[i] / prev[i]))
        direction = math.sqrt(1 - prev[i] - sigma**2) * predicted.eps
        x = math.sqrt(prev[i]) * predicted.x_0 + direction + sigma * z[i]
        assert_allclose(found[i], x, rtol=0, atol=1e-14)


def test_more_noise_than_there_is_room_for():
    """Otherwise eta above 1 is the root of a negative number."""
    schedule = respaced(4, NO_SIGNAL)
    found = run("ddim", schedule, crooked(schedule), normal(2, 3), lambda i: np.zeros((2, 3)), eta=1.5)
    predicted = crooked(schedule)(normal(2, 3), 3)
    assert_allclose(found[3], schedule["sqrt_alphas_cumprod"][2] * predicted.x_0, rtol=1e-15)
    assert np.isfinite(found[0]).all()


def test_ancestral_takes_the_model_s_variance():
    """Otherwise a learned or large variance is trained and reported, and never sampled with."""
    schedule, x, z = respaced(10), normal(4, 3), normal(4, 3, seed=1)
    model = crooked(schedule)  # its fraction is 0.3
    noisy, plain = (run("ancestral", schedule, model, x, lambda i, z=z: z)[9] for z in (z, 0 * z))
    log_variance = 0.3 * math.log(schedule["betas"][9]) + 0.7 * math.log(schedule["posterior_variance"][9])
    assert_allclose(noisy - plain, math.exp(log_variance / 2) * z, rtol=0, atol=2e-15)


def test_dpm_solvers_by_their_formulas():
    """Otherwise the turn is not the exponential integrator, or x_0 is extrapolated too far."""
    schedule, z = respaced(10), {i: normal(4, 3, seed=i) for i in range(10)}
    model = crooked(schedule)
    for name in ("dpmpp_2m", "dpmpp_2m_sde"):
        x, x_0_last, h_last = normal(4, 3), 0.0, math.inf
        found = run(name, schedule, model, x, z.get)
        for i in reversed(range(1, 10)):
            alpha, sigma, alpha_prev, sigma_prev = levels(schedule, i)
            h = math.log(alpha_prev / sigma_prev) - math.log(alpha / sigma)
            x_0 = model(x, i).x_0
            d = (1 + h / h_last / 2) * x_0 - h / h_last / 2 * x_0_last
            if name == "dpmpp_2m":
                x = sigma_prev / sigma * x - alpha_prev * math.expm1(-h) * d
            else:
                shrunk = sigma_prev / sigma * math.exp(-h) * x - alpha_prev * math.expm1(-2 * h) * d
                x = shrunk + sigma_prev * math.sqrt(-math.expm1(-2 * h)) * z[i]
            x_0_last, h_last = x_0, h
            assert_allclose(found[i], x, rtol=0, atol=1e-14)
        assert_allclose(found[0], model(x, 0).x_0, rtol=0, atol=1e-14)  # first order, and to no noise


def test_extrapolation_weights_are_adams_and_bashforth_s():
    """Otherwise PLMS is of another order than the four that it keeps."""
    by_hand = [[1], [3 / 2, -1 / 2], [23 / 12, -16 / 12, 5 / 12], [55 / 24, -59 / 24, 37 / 24, -9 / 24]]
    for order, weights in enumerate(by_hand, start=1):
        assert_allclose(oracle_samplers.adams_bashforth(order), weights, rtol=2e-15)


@pytest.mark.parametrize("config", [DiffusionConfig(), NO_SIGNAL])
def test_plms_by_its_formulas(config):
    """Otherwise the history is in the wrong order, or holds the trial of the first step."""
    schedule, x = respaced(10, config), normal(4, 3)
    model = crooked(schedule)
    found, history = run("plms", schedule, model, x), []
    weights = [[3 / 2, -1 / 2], [23 / 12, -16 / 12, 5 / 12], [55 / 24, -59 / 24, 37 / 24, -9 / 24]]
    for i in reversed(range(10)):
        alpha, sigma, alpha_prev, sigma_prev = levels(schedule, i)
        predicted = model(x, i)
        history.insert(0, predicted.eps)
        if i < 9:
            eps = sum(w * e for w, e in zip(weights[min(9 - i, 3) - 1], history, strict=False))
            x = alpha_prev * (x - sigma * eps) / alpha + sigma_prev * eps
        else:
            trial = alpha_prev * predicted.x_0 + sigma_prev * predicted.eps
            eps = (predicted.eps + model(trial, i - 1).eps) / 2
            x = alpha_prev * (x - sigma * eps) / alpha + sigma_prev * eps if alpha else trial
        assert_allclose(found[i], x, rtol=0, atol=1e-12 * np.abs(x).max())


@pytest.mark.parametrize("config", [DiffusionConfig(), NO_SIGNAL])
def test_heun_by_its_algorithm(config):
    """Otherwise the correction is taken at another level than the trial stands at, or counted twice."""
    schedule, x = respaced(10, config), normal(4, 3)
    model = crooked(schedule)
    found = run("heun", schedule, model, x)
    for i in reversed(range(10)):
        alpha, sigma, alpha_prev, sigma_prev = levels(schedule, i)
        predicted = model(x, i)
        trial = alpha_prev * predicted.x_0 + sigma_prev * predicted.eps
        if i == 0 or alpha == 0:
            x = trial
        else:
            eps = (predicted.eps + model(trial, i - 1).eps) / 2
            x = alpha_prev * (x / alpha + (sigma_prev / alpha_prev - sigma / alpha) * eps)
        assert_allclose(found[i], x, rtol=0, atol=1e-12 * np.abs(x).max())


@pytest.mark.parametrize(("name", "calls"), [("ancestral", 10), ("plms", 11), ("dpmpp_2m", 10), ("heun", 19)])
def test_as_many_evaluations_as_are_told(name, calls):
    """Otherwise a sampler costs more than the table says, and wins comparisons by it."""
    schedule, seen = respaced(10), []

    def model(x, i):
        seen.append(i)
        return crooked(schedule)(x, i)

    run(name, schedule, model, normal(2, 3), lambda i: normal(2, 3))
    assert len(seen) == calls
    assert set(seen) == set(range(10))


# --- Back to the noise, and from one noise to another -------------------------------------------------------


def test_inversion_is_undone_by_ddim():
    """Otherwise an image comes back as another one after its noise has been found."""
    schedule, image = respaced(50), normal(4, 3)
    model = gaussian(schedule, 0.3, 0.5)
    found = dict(oracle_samplers.ddim_invert(levels_of(schedule), model, image, iterations=60))
    assert list(found) == list(range(50))
    back = run("ddim", schedule, model, found[49])
    assert_allclose(back[0], image, rtol=0, atol=1e-13)
    for i in range(1, 50):
        assert_allclose(back[i], found[i - 1], rtol=0, atol=1e-13)
    once = dict(oracle_samplers.ddim_invert(levels_of(schedule), model, image))
    assert 1e-3 < np.abs(run("ddim", schedule, model, once[49])[0] - image).max() < 0.5


def test_inversion_starts_from_x_prev():
    """Otherwise the one substitution that is common asks the network about another point or level than all do."""
    schedule, x = respaced(10), normal(4, 3)
    found = dict(oracle_samplers.ddim_invert(levels_of(schedule), crooked(schedule), x))
    for i in range(10):
        alpha, sigma, alpha_prev, sigma_prev = levels(schedule, i)
        eps = crooked(schedule)(x, i).eps
        x = alpha / alpha_prev * (x - sigma_prev * eps) + sigma * eps
        assert_allclose(found[i], x, rtol=0, atol=1e-14)


def test_inversion_ends_where_no_signal_is_left():
    """Otherwise the noise of an image is NaN in a process that ends in pure noise."""
    schedule = respaced(5, NO_SIGNAL)
    found = dict(oracle_samplers.ddim_invert(levels_of(schedule), crooked(schedule), normal(2, 3), iterations=3))
    assert np.isfinite(found[4]).all()


def test_slerp_by_hand():
    """Otherwise the pictures between two are grey, for a mean of two noises has less noise than either."""
    x, y = np.array([[[1.0], [0.0]], [[2.0], [0.0]]]), np.array([[[0.0], [1.0]], [[0.5], [0.5]]])
    third = oracle_samplers.slerp(x, y, 1 / 3)
    assert third.shape == x.shape
    assert_allclose(third[0].ravel(), [math.cos(math.pi / 6), math.sin(math.pi / 6)], rtol=2e-15)
    quarter = math.pi / 4  # each image has its own angle, and vectors keep their own lengths
    expected = (math.sin(2 / 3 * quarter) * x[1] + math.sin(quarter / 3) * y[1]) / math.sin(quarter)
    assert_allclose(third[1], expected, rtol=2e-15)


@pytest.mark.parametrize("shape", [(3, 5, 5, 2), (2, 100)])
def test_slerp_is_an_arc(shape):
    """Otherwise it does not start at x, does not end at y, or is not the same way from y to x."""
    x, y = normal(*shape), normal(*shape, seed=1)
    assert_allclose(oracle_samplers.slerp(x, y, 0.0), x, rtol=0, atol=2e-15)
    assert_allclose(oracle_samplers.slerp(x, y, 1.0), y, rtol=0, atol=2e-15)
    found = oracle_samplers.slerp(x, y, 0.3)
    assert_allclose(found, oracle_samplers.slerp(y, x, 0.7), rtol=0, atol=2e-15)
    for i in range(len(x)):
        a, b = x[i].ravel(), y[i].ravel()
        angle = math.acos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        expected = (math.sin(0.7 * angle) * a + math.sin(0.3 * angle) * b) / math.sin(angle)
        assert_allclose(found[i].ravel(), expected, rtol=0, atol=5e-15)


def test_slerp_of_the_same_is_the_same():
    """Otherwise two equal seeds make NaN of 0 / 0."""
    x = normal(2, 3, 3, 1)
    assert_allclose(oracle_samplers.slerp(x, x, 0.4), x, rtol=1e-15)
    assert_allclose(oracle_samplers.slerp(x, 3 * x, 0.5), 2 * x, rtol=1e-15)
