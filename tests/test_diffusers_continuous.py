"""Hugging Face diffusers' schedulers of continuous time beside ours: EDM, SDEs, flow matching, Karras' levels.

As in test_diffusers.py, diffusers is held against our float32 as it is, and against our float64 with its float32
meaning float64. Where it departs from the papers, a test says in what, and that we do not.
"""

import dataclasses
import importlib
import math

import numpy as np
import pytest
from test_diffusers import Doubled, require_diffusers

from ddpm_parity.sides import draw
from ddpm_parity.solvers import Guess
from ddpm_parity.tolerances import Tolerance
from ddpm_parity.torch_side import Torch
from ddpm_shared.config import Config, DiffusionConfig
from ddpm_shared.config.diffusion import with_process
from ddpm_shared.config.sampling import Sampling

# Of diffusers 0.42.1 with NumPy 2 and PyTorch 2.13, where it makes an array of a tensor.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

N, IMAGES = 9, (2, 4, 4, 2)
EDM = dataclasses.replace(with_process(DiffusionConfig(), "edm"), sigma_data=0.5)  # diffusers' defaults
FLOW = dataclasses.replace(with_process(DiffusionConfig(), "flow"), time_scale=1000.0)

# Measured with diffusers 0.42.1, PyTorch 2.13.0 and TensorFlow 2.21.0: the largest of both trees.
# Elementwise. 2.6e-15, of a seventh power of a root, and 2.0e-7.
GRIDS = Tolerance(fp64=2e-14, fp32=2e-6)
# All states of a chain, each in units of its largest number. 5.4e-15 and 2.3e-6, of DPM-Solver++ on Karras' levels,
# whose steps are differences of logarithms; 2.8e-15 and 1.1e-6 else.
CHAINS = Tolerance(fp64=3e-14, fp32=1e-5)
WRONG = 1e-2  # where diffusers departs from the paper: by 0.058 to 2.0


# --- The two implementations ----------------------------------------------------------------------------------


@pytest.fixture(params=["fp64", "fp32"])
def side(side_of, request):
    """Each tree in each precision."""
    return side_of(request.param)


@pytest.fixture
def make_scheduler(side, monkeypatch):
    """A function: (file, diffusers' name, its options) -> its scheduler, which computes in `side`'s precision."""
    require_diffusers()
    import torch

    def make(file, name, **options):
        module = importlib.import_module(f"diffusers.schedulers.scheduling_{file}")
        if side.precision == "fp64":
            monkeypatch.setattr(module, "torch", Doubled(torch))
            if hasattr(module, "np"):
                monkeypatch.setattr(module, "np", Doubled(np))
            torch.set_default_dtype(torch.float64)
        return getattr(module, name)(**options)

    default = torch.get_default_dtype()
    yield make
    torch.set_default_dtype(default)


def toy(x, time):
    """A network in NumPy: elementwise, bounded, not linear, different at each time."""
    w = math.tanh(0.7 * time)
    return 0.7 * np.cos(2 * x + w) + 0.4 * w * np.tanh(x) - 0.1


def network_of(side, scale=1.0):
    """`toy` on the side's tensors: (x, scale times the time) -> output."""
    return lambda x, t: side.tensor(toy(side.array(x), float(side.array(t).ravel()[0]) / scale))


def ours(side, config, sampling, x_T, scale=1.0):  # noqa: N803 (the paper's capital T)
    """Every x_prev of our sampler, as the sampling command wires it, [N, B, H, W, C]."""
    whole = Config(precision=side.precision, device="cpu", diffusion=config)
    sampler = side.sampling.Sampler(network_of(side, scale), whole, sampling)
    return chain(side, sampling.sampler, sampler.levels, sampler.denoise, x_T)


def chain(side, name, levels, denoise, x_T, **options):  # noqa: N803
    """Every x_prev of one of our samplers, [N, B, H, W, C]."""
    steps = side.samplers.SAMPLERS[name](
        levels, denoise, side.tensor(x_T), lambda i: side.tensor(draw(*IMAGES, seed=10 + i)), **options
    )
    return np.stack([side.array(x) for _, x in steps])


def theirs(precision, scheduler, x_T, scale=1.0, network=None, **options):  # noqa: N803
    """What each step of a scheduler gives, [steps, B, H, W, C]; network(x, t, number of the evaluation)."""
    side, states = Torch(precision), []
    network = network or (lambda x, t, number: network_of(side, scale)(x, t))
    x = side.tensor(x_T)
    for number, t in enumerate(scheduler.timesteps):
        scaled = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        x = scheduler.step(network(scaled, t, number), t, x, **options).prev_sample
        states.append(side.array(x))
    return np.stack(states)


def noise_of_the_step(monkeypatch, side, file):
    """Instead of drawing, diffusers takes our z of each step, the last of which is i = 0."""
    module, numbers = importlib.import_module(f"diffusers.schedulers.scheduling_{file}"), iter(range(N - 1, -1, -1))
    torch = Torch(side.precision)
    monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: torch.tensor(draw(*IMAGES, seed=10 + next(numbers))))


def gap(found, wanted):
    """The largest difference of any state, in units of its own largest number: the first are many times the image."""
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(found, wanted, strict=True))


def ascending(sigmas):
    """Theirs begin with the most noise and end with none."""
    return np.asarray(sigmas, np.float64)[:-1][::-1]


# --- EDM ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("theirs_is", "grid"), [("karras", "karras"), ("exponential", "log_snr")])
def test_grids_of_edm(side, make_scheduler, theirs_is, grid, record_property):
    """Otherwise another's EDM network is drawn at other levels of noise than its authors'."""
    for rho in (7.0, 3.0):
        scheduler = make_scheduler("edm_euler", "EDMEulerScheduler", sigma_schedule=theirs_is, rho=rho)
        scheduler.set_timesteps(N)
        times = side.processes.make_grid(EDM, N, grid, "edm", rho)
        apart = float(np.abs(times / ascending(scheduler.sigmas) - 1).max())
        record_property(f"grid {grid}", apart)
        assert apart <= GRIDS.on("cpu", side.precision)


@pytest.mark.parametrize("name", ["euler", "ddim"])
def test_euler_s_method_of_edm(side, make_scheduler, name, record_property):
    """Otherwise preconditioning, grid or step are not EDM's: c_in, c_out, c_skip and c_noise are in it too."""
    scheduler = make_scheduler("edm_euler", "EDMEulerScheduler")
    scheduler.set_timesteps(N)
    x_T = EDM.sigma_max * draw(*IMAGES)  # noqa: N806
    found = ours(side, EDM, Sampling(name, N, grid="karras", clip_x_0=False), x_T)
    apart = gap(found, theirs(side.precision, scheduler, x_T))
    record_property(f"edm {name}", apart)
    assert apart <= CHAINS.on("cpu", side.precision)


@pytest.mark.parametrize(("name", "algorithm"), [("dpmpp_2m", "dpmsolver++"), ("dpmpp_2m_sde", "sde-dpmsolver++")])
def test_multistep_solvers_of_edm(side, make_scheduler, name, algorithm, monkeypatch, record_property):
    """Otherwise DPM-Solver++ is not itself where alpha is 1."""
    scheduler = make_scheduler("edm_dpmsolver_multistep", "EDMDPMSolverMultistepScheduler", algorithm_type=algorithm)
    scheduler.set_timesteps(N)
    noise_of_the_step(monkeypatch, side, "edm_dpmsolver_multistep")
    x_T = EDM.sigma_max * draw(*IMAGES)  # noqa: N806
    found = ours(side, EDM, Sampling(name, N, grid="karras", clip_x_0=False), x_T)
    apart = gap(found, theirs(side.precision, scheduler, x_T))
    record_property(f"edm {name}", apart)
    assert apart <= CHAINS.on("cpu", side.precision)


def edm_denoiser(side, levels):
    """X_0 and eps by the perfect preconditioning around `toy`, in NumPy; levels with alpha = 1."""

    def denoise(x, i):
        sigma, x = levels.level(i)[1], side.array(x).astype(np.float64)
        x_0 = edm_x_0(x, sigma)
        return Guess(side.tensor(x_0), side.tensor((x - x_0) / sigma))

    return denoise


def edm_x_0(x, sigma):
    """D(x; sigma) of EDM with sigma_data = 0.5. Source: Karras et al. 2022 (arXiv:2206.00364), eq. 7 and table 1."""
    deviation = math.hypot(sigma, 0.5)
    return (0.5 / deviation) ** 2 * x + sigma * 0.5 / deviation * toy(x / deviation, math.log(sigma) / 4)


def algorithm_2(sigmas, x, churn, second_order=True):
    """Karras et al. 2022, algorithm 2, line by line, on descending sigmas that end in 0; `draw` is its noise."""
    states = []
    for number in range(N):
        gamma = min(churn / N, math.sqrt(2) - 1)
        t, t_next = sigmas[number], sigmas[number + 1]
        t_hat = t + gamma * t
        x = x + math.sqrt(t_hat**2 - t**2) * draw(*IMAGES, seed=10 + N - 1 - number)
        d = (x - edm_x_0(x, t_hat)) / t_hat
        x_next = x + (t_next - t_hat) * d
        if t_next > 0 and second_order:
            d_next = (x_next - edm_x_0(x_next, t_next)) / t_next
            x_next = x + (t_next - t_hat) * (d + d_next) / 2
        x = x_next
        states.append(x)
    return np.stack(states)


def test_the_network_is_evaluated_after_the_churn(side, make_scheduler, monkeypatch, record_property):
    """Otherwise the noise that was added is never seen by the network, and stays in the image.

    diffusers' EDMEuler, like its FlowMatchHeun, is given the network's output at the lower level, adds the noise and
    takes that output for one at the higher level. Ours is held to algorithm 2 of Karras et al. 2022.
    """
    churn, x_T = 3.0, EDM.sigma_max * draw(*IMAGES)  # noqa: N806
    levels = side.processes.make_levels(EDM, side.processes.make_grid(EDM, N, "karras", "edm"), "edm")
    higher = side.processes.make_levels(EDM, side.solvers.churned(levels, churn), "edm", ordered=False)
    raised = side.solvers.Waypoints(higher, edm_denoiser(side, higher))
    found = chain(side, "heun", levels, edm_denoiser(side, levels), x_T, raised=raised)
    sigmas = [*levels.sigma[::-1], 0.0]
    apart = gap(found, algorithm_2(sigmas, x_T, churn))
    record_property("algorithm 2", apart)
    assert apart <= CHAINS.on("cpu", side.precision)

    scheduler = make_scheduler("edm_euler", "EDMEulerScheduler")
    scheduler.set_timesteps(N)
    noise_of_the_step(monkeypatch, side, "edm_euler")
    wrong = gap(theirs(side.precision, scheduler, x_T, s_churn=churn), algorithm_2(sigmas, x_T, churn, False))
    record_property("wrong churn", wrong)
    assert wrong > WRONG


# --- Flow matching --------------------------------------------------------------------------------------------


def test_a_shift_is_applied_once(side, make_scheduler, record_property):
    """Otherwise a shift of 3 is one of up to 9: far too many of the steps are in noise.

    diffusers' FlowMatchEuler shifts all times when it is made, and the ends of these again in set_timesteps. It does so
    once where it is given the times, as its pipelines do, and then agrees with Esser et al. 2024, eq. 23, and with us.
    """
    for shift in (1.0, 3.0):
        scheduler = make_scheduler("flow_match_euler_discrete", "FlowMatchEulerDiscreteScheduler", shift=shift)
        scheduler.set_timesteps(sigmas=list(np.linspace(1.0, 1.0 / N, N)))
        times = side.processes.make_grid(FLOW, N, "shifted", "flow", shift=shift)
        apart = float(np.abs(times / ascending(scheduler.sigmas) - 1).max())
        record_property(f"shift {shift}", apart)
        assert apart <= GRIDS.on("cpu", side.precision)
    scheduler.set_timesteps(N)
    u = np.linspace(1 / 1000, 1.0, N)  # what it means to shift
    wrong = float(np.abs(ascending(scheduler.sigmas) / (3 * u / (1 + 2 * u)) - 1).max())
    record_property("wrong shift", wrong)
    assert wrong > WRONG


@pytest.mark.parametrize("name", ["euler", "ddim", "heun_t"])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_solvers_of_flow_matching(side, make_scheduler, name, shift, record_property):
    """Otherwise a network of other people's flow matching goes the wrong way in time, or is told another time."""
    x_T, sampling = draw(*IMAGES), Sampling(name, N, grid="shifted", shift=shift, clip_x_0=False)  # noqa: N806
    found = ours(side, FLOW, sampling, x_T, scale=1000.0)
    if name == "heun_t":
        import torch

        scheduler = make_scheduler("flow_match_heun_discrete", "FlowMatchHeunDiscreteScheduler")
        scheduler.set_timesteps(N)
        # It takes no times: ours, instead of its own, each but the first and the last twice.
        times = torch.from_numpy(side.processes.make_grid(FLOW, N, "shifted", "flow", shift=shift)[::-1].copy())
        times = times.to(scheduler.sigmas.dtype)
        scheduler.sigmas = torch.cat([times[:1], times[1:].repeat_interleave(2), torch.zeros(1, dtype=times.dtype)])
        scheduler.timesteps = 1000.0 * scheduler.sigmas[:-1]
        states = theirs(side.precision, scheduler, x_T, scale=1000.0)
        wanted = np.concatenate([states[1::2], states[-1:]])
    else:
        scheduler = make_scheduler("flow_match_euler_discrete", "FlowMatchEulerDiscreteScheduler", shift=shift)
        scheduler.set_timesteps(sigmas=list(np.linspace(1.0, 1.0 / N, N)))
        wanted = theirs(side.precision, scheduler, x_T, scale=1000.0)
    apart = gap(found, wanted)
    record_property(f"flow {name} {shift}", apart)
    assert apart <= CHAINS.on("cpu", side.precision)


# --- Karras' levels on the discrete process -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "scheduler", "name"),
    [
        ("euler_discrete", "EulerDiscreteScheduler", "euler"),
        ("heun_discrete", "HeunDiscreteScheduler", "heun"),
        ("dpmsolver_multistep", "DPMSolverMultistepScheduler", "dpmpp_2m"),
    ],
)
def test_karras_levels_of_a_discrete_process(side, make_scheduler, file, scheduler, name, record_property):
    """Otherwise "Karras sigmas" means another spacing here than wherever else it is offered.

    The network is evaluated at a level of noise, not at a time, for which diffusers looks between the whole ones.
    DPM-Solver++ works on x_t, the others on x_t / alpha.
    """
    made = make_scheduler(file, scheduler, use_karras_sigmas=True, beta_start=1e-4, beta_end=0.02)
    made.set_timesteps(N)
    sigmas = np.asarray(made.sigmas, np.float64)
    levels_of = np.concatenate([sigmas[:1], sigmas[1:-1:2], sigmas[-1:]]) if name == "heun" else sigmas
    ends = {"sigma_min": float(levels_of[-2]), "sigma_max": float(levels_of[0])}
    times = side.processes.make_grid(dataclasses.replace(EDM, **ends), N, "karras", "edm")
    apart = float(np.abs(times / ascending(levels_of) - 1).max())
    record_property(f"karras {name}", apart)
    assert apart <= GRIDS.on("cpu", side.precision)

    torch = Torch(side.precision)

    def network(x, t, number):
        return torch.tensor(toy(torch.array(x), math.log(sigmas[number]) / 4))

    alpha = 1 / np.sqrt(1 + times**2) if name == "dpmpp_2m" else np.ones(N)
    levels = side.processes.Levels(alpha, alpha * times, times, np.zeros(N), np.ones(N))

    def denoise(x, i):
        (a, s), of_unit_size = levels.level(i), 1.0 if name == "dpmpp_2m" else math.hypot(1, levels.level(i)[1])
        x = side.array(x)
        eps = toy(x / of_unit_size, math.log(times[i]) / 4)
        return Guess(side.tensor((x - s * eps) / a), side.tensor(eps))

    x_T = draw(*IMAGES) * math.hypot(*levels.level(N - 1))  # noqa: N806
    states = theirs(side.precision, made, x_T, network=network)
    wanted = np.concatenate([states[1::2], states[-1:]]) if name == "heun" else states
    apart = gap(chain(side, name, levels, denoise, x_T), wanted)
    record_property(f"chain {name}", apart)
    assert apart <= CHAINS.on("cpu", side.precision)


# --- The SDE with exploding variance --------------------------------------------------------------------------


def ve_levels(side, count):
    config = dataclasses.replace(with_process(DiffusionConfig(), "ve"), sigma_max=1348.0)  # diffusers' defaults
    return side.processes.make_levels(config, np.linspace(0.0, 1.0, count), "ve")


def test_the_predictor_of_ve_is_ancestral_sampling(side, make_scheduler, monkeypatch, record_property):
    """Otherwise ancestral sampling is not that of a score-based model, with the larger of the two variances.

    diffusers' predictor is Song et al. 2021, eq. 47; ours, in pc, is Euler and Maruyama's step of the SDE.
    """
    scheduler = make_scheduler("sde_ve", "ScoreSdeVeScheduler")
    scheduler.set_timesteps(N)
    scheduler.set_sigmas(N)
    noise_of_the_step(monkeypatch, side, "sde_ve")
    levels, torch = ve_levels(side, N), Torch(side.precision)
    x_T, states = 1348.0 * draw(*IMAGES), []  # noqa: N806
    x = torch.tensor(x_T)
    for i, t in zip(reversed(range(N)), scheduler.timesteps, strict=True):
        sigma = levels.level(i)[1]
        score = torch.tensor(-toy(torch.array(x) / math.hypot(1, sigma), math.log(sigma) / 4) / sigma)
        step = scheduler.step_pred(score, t, x)
        x = step.prev_sample if i > 0 else step.prev_sample_mean
        states.append(torch.array(x))

    class Large(Guess):
        fraction = 1.0  # the larger variance

    def denoise(x, i):
        sigma, x = levels.level(i)[1], side.array(x)
        eps = toy(x / math.hypot(1, sigma), math.log(sigma) / 4)
        return Large(side.tensor(x - sigma * eps), side.tensor(eps))

    apart = gap(chain(side, "ancestral", levels, denoise, x_T), np.stack(states))
    record_property("ve predictor", apart)
    assert apart <= CHAINS.on("cpu", side.precision)


def test_the_corrector_s_step_is_each_image_s_own(side, make_scheduler, monkeypatch, record_property):
    """Otherwise an image depends on those that happen to be drawn with it.

    diffusers' corrector, as the authors' released code, has one step for the batch, by mean norms; Song et al. 2021,
    algorithm 4, is of one image. So ours is theirs where each image is a batch.
    """
    scheduler = make_scheduler("sde_ve", "ScoreSdeVeScheduler", snr=0.2)
    scheduler.set_timesteps(N)
    levels, torch, i = ve_levels(side, N), Torch(side.precision), 5
    sigma = levels.level(i)[1]
    x, z = sigma * draw(*IMAGES), draw(*IMAGES, seed=1)
    eps = draw(*IMAGES, seed=2) * np.array([1.0, 1.3])[:, None, None, None]

    def corrected(first, last):
        module = importlib.import_module("diffusers.schedulers.scheduling_sde_ve")
        monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: torch.tensor(z[first:last]))
        step = scheduler.step_correct(torch.tensor(-eps[first:last] / sigma), torch.tensor(x[first:last]))
        return torch.array(step.prev_sample)

    step = side.solvers.langevin_step(levels, i, *(side.tensor(part) for part in (x, eps, z)), 0.2)
    found = side.array(step)
    apart, wrong = gap(found, np.concatenate([corrected(0, 1), corrected(1, 2)])), gap(found, corrected(0, 2))
    record_property("ve corrector", apart)
    record_property("wrong corrector", wrong)
    assert apart <= CHAINS.on("cpu", side.precision)
    assert wrong > WRONG
