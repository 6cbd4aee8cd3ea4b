"""Solvers and processes where the truth is known: identities between processes, observed orders, Gaussian data.

That the two trees and the oracle compute the same is tests/parity's.
"""

import math
from types import SimpleNamespace

import convergence
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from ddpm_parity.processes import config_of
from ddpm_parity.sides import draw
from ddpm_parity.solvers import gaussian
from ddpm_shared import tables
from ddpm_shared.config import DiffusionConfig
from ddpm_shared.config.samplers import CONTINUOUS, SAMPLER_FACTS, SDES
from ddpm_shared.errors import UserError

N = 12
IMAGES = (2, 4, 4, 2)
ON_LEVELS = [name for name, facts in SAMPLER_FACTS.items() if "ddpm" in facts.processes]
IN_T = [name for name in SAMPLER_FACTS if name not in ON_LEVELS]

# Steps between these two sigma / alpha, even in t, and how far from the solver's order what twice as many gain may be.
# Seen: at most 0.18 away, dpmpp_2m of edm, and 0.05 else.
ENDS, STEPS, ORDER_WITHIN = (0.5, 3.0), (64, 128), 0.25
# The weights of PLMS are those of equal steps in sigma / alpha, as edm's are here: of order 4, begun in order 2.
MORE = {("plms", "edm"): 3}
ROUNDING = 1e-14  # 2.3e-15, of the largest number


@pytest.fixture
def side(side_of):
    return side_of("fp64")


def levels_at(side, process, ratios):
    """Levels of a process with these sigma / alpha, in any order."""
    config = config_of(process)
    return side.processes.make_levels(
        config, side.processes.times_at_ratio(config, ratios, process), process, ordered=False
    )


def crooked(side, levels):
    """A denoiser that knows x / alpha and sigma / alpha alone, and is not linear: the same in every process."""

    def denoise(x, i):
        alpha, sigma = levels.level(i)
        y, ratio = side.array(x) / alpha, sigma / alpha
        x_0 = np.tanh(y / math.sqrt(1 + ratio**2)) + 0.2 * np.sin(3 * y / (1 + ratio))
        return SimpleNamespace(x_0=side.tensor(x_0), eps=side.tensor((y - x_0) / ratio))

    return denoise


def unscaled(side, process, name, ratios, **options):
    """The x / alpha after each step [N, B, H, W, C], from the same x_T / alpha and z."""
    levels = levels_at(side, process, ratios)
    scale = np.array([levels.level(i - 1)[0] for i in reversed(range(len(levels)))])
    start = side.tensor(levels.alpha[-1] * 3.0 * draw(*IMAGES, seed=1))
    chain = side.samplers.SAMPLERS[name](
        levels, crooked(side, levels), start, lambda i: side.tensor(draw(*IMAGES, seed=10 + i)), **options
    )
    return np.stack([side.array(x) for _, x in chain]) / scale[:, None, None, None, None]


def gap(found, wanted):
    """The largest difference, in units of the largest number."""
    return np.abs(found - wanted).max() / np.abs(wanted).max()


# --- One sampler in every process -----------------------------------------------------------------------------


def test_ddim_and_euler_are_one_solver_in_every_process(side, record_property):
    """Otherwise VP, VE, EDM and flow matching are not one family: one network draws other images in another process.

    On one grid in log-SNR DDIM of any process, Euler's method of EDM in sigma and that of flow in t are equal.
    """
    ratios = np.geomspace(0.01, 20.0, N)
    wanted = unscaled(side, "edm", "ddim", ratios)
    others = [*((process, "ddim") for process in CONTINUOUS), ("edm", "euler"), ("flow", "euler")]
    for process, name in others:
        apart = gap(unscaled(side, process, name, ratios), wanted)
        record_property(f"{name} of {process}", float(apart))
        assert apart <= ROUNDING, (process, name)


@pytest.mark.parametrize("name", ON_LEVELS)
def test_a_sampler_on_levels_does_not_know_the_process(side, name, record_property):
    """Otherwise a checkpoint drawn as VE, EDM or flow gives other images, though the log-SNRs are the same."""
    ratios = np.geomspace(0.01, 20.0, N)
    wanted = unscaled(side, "vp", name, ratios)
    for process in CONTINUOUS:
        apart = gap(unscaled(side, process, name, ratios), wanted)
        record_property(f"{name} of {process}", float(apart))
        assert apart <= ROUNDING, process


def test_euler_s_method_of_vp_is_not_ddim(side):
    """Otherwise the test above compares a thing with itself: in t, the path of vp is no straight line."""
    ratios = np.geomspace(0.01, 20.0, N)
    assert gap(unscaled(side, "vp", "euler", ratios), unscaled(side, "vp", "ddim", ratios)) > 1e-2


def test_heun_s_methods_of_edm_are_one(side, record_property):
    """Otherwise heun in sigma / alpha and heun in t differ where t is sigma, or one is not Heun's."""
    ratios = np.geomspace(0.01, 20.0, N)
    apart = gap(unscaled(side, "edm", "heun_t", ratios), unscaled(side, "edm", "heun", ratios))
    record_property("heun of edm", float(apart))
    assert apart <= ROUNDING


@pytest.mark.parametrize("process", CONTINUOUS)
def test_ancestral_sampling_is_ddim_with_all_of_its_noise_new(side, process, record_property):
    """Otherwise the noise of one of the two is too large or too small."""
    ratios = np.geomspace(0.01, 20.0, N)
    apart = gap(unscaled(side, process, "ddim", ratios, eta=1.0), unscaled(side, process, "ancestral", ratios))
    record_property(f"ancestral of {process}", float(apart))
    assert apart <= ROUNDING


@pytest.mark.parametrize("process", CONTINUOUS)
def test_without_churn_nothing_is_added(side, process):
    """Otherwise --churn 0 is another sampler than heun, or one that cannot be repeated."""
    ratios = np.geomspace(0.01, 20.0, N)
    levels = levels_at(side, process, ratios)
    assert_array_equal(side.solvers.churned(levels, 0.0), levels.sigma / levels.alpha)
    higher = levels_at(side, process, side.solvers.churned(levels, 0.0))  # equal but for rounding
    waypoints = side.solvers.Waypoints(higher, crooked(side, higher))
    assert_array_equal(
        unscaled(side, process, "heun", ratios, raised=waypoints), unscaled(side, process, "heun", ratios)
    )


@pytest.mark.parametrize("process", SDES)
def test_without_a_corrector_pc_is_its_predictor(side, process):
    """Otherwise what pc gains is not the corrector's."""
    ratios = np.geomspace(0.05, 20.0, N)
    options = {"corrector_z_at": None, "corrector_steps": 0}
    assert_array_equal(
        unscaled(side, process, "pc", ratios, **options), unscaled(side, process, "euler_maruyama", ratios)
    )


# --- Steps ----------------------------------------------------------------------------------------------------


def run_in_t(side, process, name, x, corrector_z=None):
    """The last x of an SDE's solver; noise that depends on the place in the image and the step alone."""
    levels = levels_at(side, process, np.geomspace(0.05, 5.0, N))

    def noise(i):
        assert i > 0, "noise in the last step"
        return side.tensor(np.broadcast_to(draw(1, *IMAGES[1:], seed=i), x.shape))

    def corrector_noise(i, k):
        return side.tensor(np.broadcast_to(draw(1, *IMAGES[1:], seed=100 + 2 * i + k), x.shape))

    options = {"corrector_z_at": corrector_noise, "corrector_steps": 2} if name == "pc" else {}
    chain = side.samplers.SAMPLERS[name](levels, crooked(side, levels), side.tensor(x), noise, **options)
    return side.array([x for _, x in chain][-1])


@pytest.mark.parametrize("name", ["euler_maruyama", "pc"])
def test_an_image_does_not_depend_on_its_batch(side, name):
    """Otherwise image 7 of a seed is another in a batch of 8 than in one of 64, as where norms are the batch's mean.

    And the last step draws noise, which stays in the image.
    """
    x = 3.0 * draw(*IMAGES, seed=1) * np.array([1.0, 30.0])[:, None, None, None]
    together = run_in_t(side, "ve", name, x)
    alone = np.concatenate([run_in_t(side, "ve", name, image[None]) for image in x])
    assert_allclose(together, alone, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", IN_T)
def test_levels_without_derivatives_are_refused(side, name):
    """Otherwise a solver in t takes the whole times of ddpm for a path, and ends in a traceback."""
    levels = side.processes.make_levels(DiffusionConfig(), [0, 10, 20], "ddpm")
    options = {"middle": None} if name == "rk4" else {"corrector_z_at": None} if name == "pc" else {}
    options |= {"corrector_steps": 0} if name == "pc" else {}
    x = side.tensor(draw(*IMAGES))
    chain = side.samplers.SAMPLERS[name](levels, crooked(side, levels), x, lambda i: x, **options)
    with pytest.raises(UserError, match="these levels have no derivatives by t"):
        list(chain)


def test_churn_is_limited(side):
    """Otherwise a step adds more noise than EDM's does, or acts where it was told not to."""
    levels = levels_at(side, "edm", np.array([0.1, 1.0, 10.0]))
    assert_allclose(side.solvers.churned(levels, 0.3), [0.11, 1.1, 11.0], rtol=1e-14)
    assert_allclose(side.solvers.churned(levels, 1e3), math.sqrt(2) * np.array([0.1, 1.0, 10.0]), rtol=1e-14)
    assert_allclose(side.solvers.churned(levels, 0.3, 0.5, 5.0), [0.1, 1.1, 10.0], rtol=1e-14)


@pytest.mark.parametrize("process", CONTINUOUS)
def test_churn_takes_noisy_images_to_the_higher_level(side, process):
    """Otherwise the network sees less noise than it is told, and leaves it in, or more, and blurs."""
    levels, higher = (levels_at(side, process, np.array([ratio])) for ratio in (0.5, 0.7))
    (alpha, sigma), (alpha_hat, sigma_hat) = levels.level(0), higher.level(0)
    parts = np.eye(3)[:, :, None, None]  # x_0, eps and z: x_hat is a sum of them
    x_0, eps, z = (side.tensor(part[None]) for part in parts)
    x_hat = side.array(side.solvers.raise_noise(levels, higher, 0, alpha * x_0 + sigma * eps, z)).ravel()
    assert x_hat[0] == pytest.approx(alpha_hat, rel=1e-14)
    assert math.hypot(x_hat[1], x_hat[2]) == pytest.approx(sigma_hat, rel=1e-14)


# --- Orders ---------------------------------------------------------------------------------------------------


def between(side, process, name, steps):
    """The error of a solver between two levels, in deviations of Gaussian data: its last step is not counted."""
    config = config_of(process)
    first, last = side.processes.times_at_ratio(config, np.array(ENDS), process)
    times = np.linspace(first, last, steps + 1)
    levels, options = side.processes.make_levels(config, times, process), {}
    if name == "rk4":
        middle = side.processes.make_levels(config, (times + np.append(0.0, times[:-1])) / 2, process, ordered=False)
        options["middle"] = side.solvers.Waypoints(middle, convergence.denoiser(side, middle))
    return convergence.error(side, levels, name, after=1, **options)


def test_the_error_falls_at_the_solver_s_order_in_every_process(side, record_property):
    """Otherwise a step is slightly wrong, as by a weight or a derivative, and more steps help less than they should.

    Such a fault is seen in no image and, where the oracle shares it, in no comparison. pc is left out: its corrector's
    steps do not become small (see below).
    """
    rows, wrong = [["", *CONTINUOUS]], []
    for name, facts in SAMPLER_FACTS.items():
        if name == "pc":
            continue
        row = [name]
        for process in CONTINUOUS:
            if process not in facts.processes:
                row.append("")
                continue
            order = convergence.order([between(side, process, name, steps) for steps in STEPS])
            record_property(f"order {name} {process}", float(order))
            row.append(f"{order:.2f}")
            least = MORE.get((name, process), facts.order)
            if order < least - ORDER_WITHIN or (least == facts.order and order > least + ORDER_WITHIN):
                wrong.append(f"{name} of {process}")
        rows.append(row)
    assert not wrong, f"{', '.join(wrong)}:\n" + "\n".join(tables.aligned(rows, 3))


def test_predictor_and_corrector_draw_the_data(side, record_property):
    """Otherwise the corrector takes too large a step, or one without its noise: images are too harsh or too pale.

    Of 64 images of 256 independent pixels, N(0.3, 0.5^2), mean and deviation are known to 0.4 and 0.6 %.
    """
    levels = levels_at(side, "ve", np.geomspace(0.02, 20.0, 100))
    shape = (64, 16, 16, 1)

    def noise(i, k=0):
        return side.tensor(draw(*shape, seed=1000 * k + i))

    start = side.tensor(convergence.MEAN + math.hypot(convergence.STD, 20.0) * draw(*shape, seed=9999))
    chain = side.samplers.SAMPLERS["pc"](
        levels, convergence.denoiser(side, levels), start, noise, lambda i, k: noise(i, k + 1)
    )
    drawn = side.array([x for _, x in chain][-1])
    record_property("pc mean, deviation", (float(drawn.mean()), float(drawn.std())))
    assert drawn.mean() == pytest.approx(convergence.MEAN, abs=0.02)
    assert drawn.std() == pytest.approx(convergence.STD, rel=0.1)


def test_the_corrector_stays_at_its_level(side, record_property):
    """Otherwise more steps of the corrector make images noisier or flatter, not better.

    Langevin's steps of finite size have an error of their own: of Gaussian data with the variance v they keep that of
    v / (1 - r^2), whatever a step of the predictor is. For r = 0.16, the default, the deviation is 1.3 % too large.
    """
    levels, shape, snr = levels_at(side, "ve", np.array([0.5])), (64, 16, 16, 1), 0.3
    denoise, deviation = convergence.denoiser(side, levels), math.hypot(convergence.STD, 0.5)
    x = side.tensor(convergence.MEAN + deviation * draw(*shape))
    for k in range(100):
        z = side.tensor(draw(*shape, seed=1 + k))
        x = side.solvers.langevin_step(levels, 0, x, denoise(x, 0).eps, z, snr)
    found = side.array(x)
    record_property("corrector", float(found.std() / deviation))
    assert found.mean() == pytest.approx(convergence.MEAN, abs=0.03)
    assert found.std() / deviation == pytest.approx(1 / math.sqrt(1 - snr**2), rel=0.015)


# --- Gaussian data --------------------------------------------------------------------------------------------


@pytest.fixture
def data():
    return gaussian()


def test_the_perfect_denoiser_is_the_conditional_mean(data):
    """Otherwise the reference that solvers are measured by is none."""
    alpha, sigma, x = 0.6, 0.8, draw(3, 3, 4, 2)
    covariance, mean = data.covariance(), data.mean
    gain = alpha * covariance @ np.linalg.inv(alpha**2 * covariance + sigma**2 * np.eye(len(mean)))
    wanted = mean + (x.reshape(3, -1) - alpha * mean) @ gain.T
    predicted = data.predict(x, alpha, sigma)
    assert_allclose(predicted.x_0.reshape(3, -1), wanted, rtol=0, atol=1e-13)
    assert_allclose(alpha * predicted.x_0 + sigma * predicted.eps, x, rtol=0, atol=1e-13)


def test_the_density_is_that_of_its_covariance(data):
    """Otherwise a likelihood is held to the wrong number, as without its constant or its determinant."""
    alpha, sigma, x = 0.6, 0.8, draw(3, 3, 4, 2)
    covariance = alpha**2 * data.covariance() + sigma**2 * np.eye(len(data.mean))
    away = x.reshape(3, -1) - alpha * data.mean
    determinant = np.linalg.slogdet(2 * np.pi * covariance)[1]
    wanted = -0.5 * (np.einsum("bi,bi->b", away, np.linalg.solve(covariance, away.T).T) + determinant)
    assert_allclose(data.log_density(x, alpha, sigma), wanted, rtol=1e-13)


def test_the_score_is_the_slope_of_the_density(data):
    """Otherwise eps is not -sigma times the score, and every solver of the SDE goes elsewhere."""
    alpha, sigma, x, h = 0.6, 0.8, draw(1, 3, 4, 2), 1e-5
    ways = h * np.eye(x.size).reshape(-1, *x.shape[1:])
    slope = (data.log_density(x + ways, alpha, sigma) - data.log_density(x - ways, alpha, sigma)) / (2 * h)
    assert_allclose(-data.predict(x, alpha, sigma).eps.ravel() / sigma, slope, rtol=0, atol=1e-8)


def test_the_path_carries_the_density_along(data):
    """Otherwise the closed form is no path of the ODE: mass must be kept, det dx_there/dx_here densities' quotient."""
    here, there, x = (0.6, 0.8), (0.9, 0.1), draw(3, 3, 4, 2)
    moved = data.travel(x, here, there)
    spread = [np.linalg.slogdet(data.covariance(*sizes))[1] / 2 for sizes in (here, there)]
    wanted = data.log_density(x, *here) - (spread[1] - spread[0])
    assert_allclose(data.log_density(moved, *there), wanted, rtol=1e-13)
    assert_allclose(data.travel(moved, there, here), x, rtol=0, atol=1e-13)
