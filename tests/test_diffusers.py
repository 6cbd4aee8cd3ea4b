"""Hugging Face diffusers' schedulers, an implementation from outside, against both trees: betas, times, steps, chains.

diffusers computes in float32 and names it in each of its files. It is held against our float32 as it is, and against
our float64 with that name meaning float64 there (`Doubled`). Nothing else in it is changed, so what is left is rounding
or a difference of formulas. Where it departs from the papers, a test says in what, and that we do not.
"""

import dataclasses
import importlib
import itertools
import math
import os

import numpy as np
import pytest

from ddpm_parity.sides import draw
from ddpm_parity.tolerances import Tolerance
from ddpm_parity.torch_side import Torch
from ddpm_shared.config import Config, DiffusionConfig
from ddpm_shared.config.sampling import Sampling, times
from ddpm_shared.frameworks import installed

# Of diffusers 0.42.1 with NumPy 2 and PyTorch 2.13, where it makes an array of a tensor.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

FILES = {
    "DDPMScheduler": "ddpm",
    "DDIMScheduler": "ddim",
    "DDIMInverseScheduler": "ddim_inverse",
    "PNDMScheduler": "pndm",
    "DPMSolverMultistepScheduler": "dpmsolver_multistep",
    "HeunDiscreteScheduler": "heun_discrete",
}
SCHEDULES = {
    "linear": "linear",
    "scaled_linear": "scaled_linear",
    "quadratic": "scaled_linear",
    "cosine": "squaredcos_cap_v2",
    "sigmoid": "sigmoid",
}
PREDICTIONS = {"eps": "epsilon", "x_0": "sample", "v": "v_prediction"}

# Measured with diffusers 0.42.1, PyTorch 2.13.0 and TensorFlow 2.21.0: the largest of both trees. In float64 all are
# some roundings. In float32 diffusers computes the schedule in it as well, where 1 - alphas_cumprod is good to 6e-4 of
# itself at t = 0, and so is 1 - alphas_cumprod / alphas_cumprod_prev; ours is rounded once. The larger gaps are
# therefore its own: of dpmpp_2m_sde, our float32 is 3.5e-7 from its float64, and its float32 1.2e-5.

# Elementwise. 2.6e-13, of cosine in TensorFlow, where 1 - f(t + 1) / f(t) is 4e-5 at t = 0; 3.1e-7, of quadratic.
BETAS = Tolerance(fp64=2e-12, fp32=1e-6)
# Absolute, since the digits of alphas_cumprod are lost at both ends. 1.7e-14, TensorFlow's; 7.1e-6.
ZERO_SNR_BETAS = Tolerance(fp64=1e-13, fp32=5e-5)
# Elementwise, at the ends that are nearly 0. 6.7e-14, TensorFlow's, and 3.8e-5, both with zero terminal SNR.
ALPHAS_CUMPROD = Tolerance(fp64=1e-12, fp32=2e-4)
# In units of the largest number. 2.2e-16 and 4.2e-7.
X_0 = Tolerance(fp64=1e-14, fp32=5e-6)
# One step, in the same units. 1.9e-16 and 7.2e-5, at t = 1: where eps follows from x_0, it is divided by 0.015.
X_PREV = Tolerance(fp64=1e-14, fp32=5e-4)
# All states of a chain, in units of the largest number in it.
CHAINS = {
    "ancestral": Tolerance(fp64=1e-14, fp32=1e-5),  # 1.5e-15 and 2.3e-6
    "ddim": Tolerance(fp64=1e-14, fp32=5e-6),  # 1.6e-15 and 1.0e-6
    "plms": Tolerance(fp64=5e-14, fp32=2e-5),  # 8.6e-15 and 4.3e-6: its weights are as large as 59 / 24
    "dpmpp_2m": Tolerance(fp64=1e-14, fp32=5e-5),  # 2.2e-15 and 9.4e-6: differences of logarithms of alpha and sigma
    "dpmpp_2m_sde": Tolerance(fp64=1e-14, fp32=5e-5),  # 1.4e-15 and 1.4e-5, likewise
    "heun": Tolerance(fp64=1e-14, fp32=5e-6),  # 1.6e-15 and 1.2e-6
    "ddim_invert": Tolerance(fp64=1e-14, fp32=5e-6),  # 1.1e-15 and 7.0e-7
}
WRONG = 1e-3  # where diffusers departs from the paper, by 3.2e-3 to 0.16


# --- The two implementations ----------------------------------------------------------------------------------


class Doubled:
    """A module, torch or numpy, in which float32 means float64."""

    def __init__(self, module):
        self._module = module

    def __getattr__(self, name):
        return getattr(self._module, "float64" if name == "float32" else name)


@pytest.fixture(params=["fp64", "fp32"])
def side(side_of, request):
    """Each tree in each precision."""
    return side_of(request.param)


def require_diffusers():
    """Skip a test where diffusers, or PyTorch, which it is written in, is missing; in CI, fail it."""
    for framework in ("torch", "diffusers"):
        if not installed(framework):
            (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{framework} is not installed")


@pytest.fixture
def make_scheduler(side, monkeypatch):
    """A function: (diffusers' name, our DiffusionConfig, its other options) -> its scheduler in `side`'s precision."""
    require_diffusers()
    import torch

    def make(name, config, **options):
        module = importlib.import_module(f"diffusers.schedulers.scheduling_{FILES[name]}")
        start, end = config.beta_range
        options |= {"num_train_timesteps": config.timesteps, "beta_start": start, "beta_end": end}
        options |= {"beta_schedule": SCHEDULES[config.schedule], "prediction_type": PREDICTIONS[config.prediction]}
        if side.precision == "fp32":
            return getattr(module, name)(**options)
        monkeypatch.setattr(module, "torch", Doubled(torch))
        monkeypatch.setattr(module, "np", Doubled(np))
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            return getattr(module, name)(**options)
        finally:
            torch.set_default_dtype(default)

    return make


def toy(x, t, timesteps, channels=1):
    """A network in NumPy: elementwise, bounded, not linear, different at each t. [B, H, W, C] -> [..., channels C]."""
    w = math.tanh(3 * t / timesteps)
    outputs = [0.8 * w * x + 0.1 * np.sin(3 * x) + 0.1 * w - 0.05, 0.7 * np.cos(2 * x + w)]
    return np.concatenate(outputs[:channels], axis=-1)


def network_of(side, config):
    """`toy` on the side's tensors: (x_t, t) -> what `config` says that a network predicts."""
    channels = 2 if config.variance == "learned_range" else 1
    return lambda x, t: side.tensor(toy(side.array(x), int(np.max(side.array(t))), config.timesteps, channels))


def noises(steps, *shape):
    """x_T, and z of each step, of which that of the last is 0."""
    z = draw(steps, *shape, seed=1)
    z[0] = 0.0
    return draw(*shape), z


def denoiser(side, config, sampling):
    """The levels and the denoiser that the sampling command gives our samplers."""
    whole = Config(precision=side.precision, device="cpu", diffusion=config)
    sampler = side.sampling.Sampler(network_of(side, config), whole, sampling)
    return sampler.levels, sampler.denoise


def stacked(side, chain):
    """Every x_prev, [N, B, H, W, C]."""
    return np.stack([side.array(x) for _, x in chain])


def ours(side, config, sampling, x_T, z):  # noqa: N803 (the paper's capital T)
    """Every x_prev of our sampler, [N, B, H, W, C]. The last step must not ask for noise."""
    levels, denoise = denoiser(side, config, sampling)
    z = np.concatenate([np.full_like(z[:1], np.nan), z[1:]])
    chain = side.samplers.SAMPLERS[sampling.sampler](
        levels, denoise, side.tensor(x_T), lambda i: side.tensor(z[i]), **sampling.options
    )
    return stacked(side, chain)


def ours_inverted(side, config, sampling, x_0):
    """Every x_t of our inversion, [N, B, H, W, C]."""
    return stacked(side, side.samplers.ddim_invert(*denoiser(side, config, sampling), side.tensor(x_0)))


class Theirs:
    """The same by diffusers: a method for each of our samplers, [N, B, H, W, C].

    Args:
        make_scheduler: the fixture.
        precision: of the fixture.
        config: of the process, and what the network predicts.
        sampling: ours. Its times are passed on where diffusers takes a list, else its spacing and number of steps.
    """

    def __init__(self, make_scheduler, precision, config, sampling):
        self.make, self.config, self.sampling = make_scheduler, config, sampling
        self.side = Torch(precision)
        self.network = network_of(self.side, config)
        self.times = sampling.times(config.timesteps)[::-1]

    def walk(self, scheduler, x, **options):
        """What each step of the scheduler gives; an option is a function of the step's number, which counts up."""
        states = []
        for number, t in enumerate(scheduler.timesteps):
            output = self.network(scheduler.scale_model_input(x, t), t)
            x = scheduler.step(output, t, x, **{name: of(number) for name, of in options.items()}).prev_sample
            states.append(self.side.array(x))
        return np.stack(states)

    def noise(self, z):
        """The number of the step -> z."""
        return lambda number: self.side.tensor(z[len(z) - 1 - number])

    def ancestral(self, x_T, z, monkeypatch):  # noqa: N803
        """DDPM; its own source of noise is replaced by z."""
        scheduler = self.make(
            "DDPMScheduler",
            self.config,
            variance_type=self.config.variance,
            clip_sample=self.sampling.clip_x_0,
            rescale_betas_zero_snr=self.config.zero_terminal_snr,
        )
        scheduler.set_timesteps(timesteps=self.times)
        numbers, noise = iter(range(len(z))), self.noise(z)
        module = importlib.import_module("diffusers.schedulers.scheduling_ddpm")
        monkeypatch.setattr(module, "randn_tensor", lambda *arguments, **options: noise(next(numbers)))
        return self.walk(scheduler, self.side.tensor(x_T))

    def ddim(self, x_T, z, monkeypatch=None):  # noqa: N803
        """DDIM, with eps taken from the limited x_0, as ours takes it."""
        limited = self.sampling.clip_x_0 or self.sampling.dynamic_threshold is not None
        scheduler = self.make(
            "DDIMScheduler",
            self.config,
            timestep_spacing=self.sampling.spacing,
            clip_sample=self.sampling.clip_x_0,
            thresholding=self.sampling.dynamic_threshold is not None,
            dynamic_thresholding_ratio=self.sampling.dynamic_threshold,
            sample_max_value=1e9,  # which ours does without
            rescale_betas_zero_snr=self.config.zero_terminal_snr,
        )
        scheduler.set_timesteps(len(self.times))
        return self.walk(
            scheduler,
            self.side.tensor(x_T),
            eta=lambda number: self.sampling.eta,
            use_clipped_model_output=lambda number: limited,
            variance_noise=self.noise(z),
        )

    def plms(self, x_T, z=None, monkeypatch=None, mended=False):  # noqa: N803
        """PNDM without its Runge-Kutta steps; `mended`: told which time comes before each."""
        scheduler = self.make(
            "PNDMScheduler",
            self.config,
            timestep_spacing=self.sampling.spacing,
            skip_prk_steps=True,
            set_alpha_to_one=True,
        )
        scheduler.set_timesteps(len(self.times))
        if mended:  # the times before, as visited; the first step is taken twice
            step, ends = scheduler._get_prev_sample, [*self.times, -1]
            pairs = iter([ends[:2], *itertools.pairwise(ends)])
            scheduler._get_prev_sample = lambda x, t, t_prev, output: step(x, *next(pairs), output)
        return self.walk(scheduler, self.side.tensor(x_T))[1:]  # the first is the far end of the averaged step

    def dpmpp_2m(self, x_T, z, monkeypatch=None, algorithm="dpmsolver++"):  # noqa: N803
        """DPM-Solver++(2M)."""
        scheduler = self.make("DPMSolverMultistepScheduler", self.config, algorithm_type=algorithm)
        scheduler.set_timesteps(timesteps=self.times)
        return self.walk(scheduler, self.side.tensor(x_T), variance_noise=self.noise(z))

    def dpmpp_2m_sde(self, x_T, z, monkeypatch=None):  # noqa: N803
        """SDE-DPM-Solver++(2M)."""
        return self.dpmpp_2m(x_T, z, algorithm="sde-dpmsolver++")

    def heun(self, x_T, z=None, monkeypatch=None):  # noqa: N803
        """Heun, which works on x_t / alpha."""
        scheduler = self.make("HeunDiscreteScheduler", self.config, clip_sample=self.sampling.clip_x_0)
        scheduler.set_timesteps(timesteps=self.times)
        # It goes from x_T / alpha; but init_noise_sigma is 1 / alpha for "leading" alone, else sigma / alpha.
        scales = np.sqrt(1 + self.side.array(scheduler.sigmas).astype(np.float64) ** 2)
        states = self.walk(scheduler, self.side.tensor(x_T * scales[0]))
        # Its sigmas are s_0, s_1, s_1, s_2, s_2, ..., 0: two evaluations a step, and one in the last.
        return np.concatenate([states[1::2], states[-1:]]) / np.append(scales[1:-1:2], 1.0)[:, None, None, None, None]

    def inverted(self, x_0):
        """DDIM backwards."""
        scheduler = self.make(
            "DDIMInverseScheduler", self.config, timestep_spacing=self.sampling.spacing, clip_sample=False
        )
        scheduler.set_timesteps(len(self.times))
        return self.walk(scheduler, self.side.tensor(x_0))

    def telling_eps(self):
        """The same with the network's v turned into eps before diffusers sees it."""
        if self.config.prediction == "v":
            schedule = self.side.schedule(self.config)
            network, config = self.network, self.config
            self.config = dataclasses.replace(config, prediction="eps")

            def eps(x, t):
                t = self.side.times(np.full(len(x), int(t)))
                level = self.side.prediction.level_of(schedule, t)
                return self.side.prediction.to_eps(level, "v", x, network(x, t))

            self.network = eps
        return self


def gap(found, wanted):
    """The largest difference, in units of the largest number."""
    return float(np.abs(np.asarray(found, np.float64) - wanted).max() / np.abs(wanted).max())


# --- Schedules and times --------------------------------------------------------------------------------------


@pytest.mark.parametrize("zero_terminal_snr", [False, True], ids=["plain", "zero-snr"])
@pytest.mark.parametrize(
    "options",
    [
        {"schedule": "linear"},
        {"schedule": "linear", "timesteps": 50, "rescale_betas": True},
        {"schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},  # latent diffusion's
        {"schedule": "scaled_linear"},
        {"schedule": "quadratic"},
        {"schedule": "cosine"},
        {"schedule": "sigmoid"},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_betas(side, make_scheduler, options, zero_terminal_snr, record_property):
    """Otherwise a schedule is not what its name says, and a model trained elsewhere on it is sampled on another."""
    config = DiffusionConfig(**options, zero_terminal_snr=zero_terminal_snr, prediction="v")
    scheduler = make_scheduler("DDPMScheduler", config, rescale_betas_zero_snr=zero_terminal_snr)
    fields, bounds = side.fields(config), (ZERO_SNR_BETAS if zero_terminal_snr else BETAS, ALPHAS_CUMPROD)
    for name, bound in zip(("betas", "alphas_cumprod"), bounds, strict=True):
        wanted = getattr(scheduler, name).numpy()
        apart = np.abs(fields[name].astype(np.float64) - wanted)
        if bound is not ZERO_SNR_BETAS:
            apart = apart[wanted > 0] / wanted[wanted > 0]
        record_property(f"{name} {config.schedule} {zero_terminal_snr}", float(apart.max()))
        assert apart.max() <= bound.on("cpu", side.precision), name


@pytest.mark.parametrize("timesteps", [50, 999, 1000])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_times(spacing, timesteps):
    """Otherwise "50 steps, trailing" visits other times than elsewhere, and images of one seed cannot be compared.

    Every number of steps is asked. Two departures are diffusers' own: "trailing" can run on to t = -1, which is the
    last t of all, where T / N is not exact (62 of the 1000 numbers); and "linspace" of one step starts from t = 0,
    where there is no noise. Of "linspace", times that fall between two may be rounded either way.
    """
    require_diffusers()
    module = importlib.import_module("diffusers.schedulers.scheduling_ddim")
    scheduler = module.DDIMScheduler(num_train_timesteps=timesteps, timestep_spacing=spacing)
    overrun = []
    for steps in range(1, timesteps + 1):
        scheduler.set_timesteps(steps)
        wanted, found = scheduler.timesteps.numpy()[::-1], np.array(times(timesteps, steps, spacing))
        if spacing == "trailing" and len(wanted) > steps:
            assert wanted[0] == -1
            overrun.append(steps)
            wanted = wanted[1:]
        if spacing == "linspace" and steps == 1:
            assert (wanted, found) == ([0], [timesteps - 1])
        elif spacing == "linspace":
            halves = 2 * np.arange(steps) * (timesteps - 1) % (2 * (steps - 1)) == steps - 1
            assert (found == wanted)[~halves].all()
            assert np.abs(found - wanted).max() <= 1
        else:
            assert found.tolist() == wanted.tolist(), steps
    assert len(overrun) == ({50: 2, 999: 94, 1000: 62}[timesteps] if spacing == "trailing" else 0)


# --- Steps and chains -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [(False, None), (True, None), (False, 0.9)], ids=["free", "clip", "dynamic"])
@pytest.mark.parametrize("prediction", ["eps", "x_0", "v"])
def test_what_the_network_says(side, make_scheduler, prediction, limit, record_property):
    """Otherwise a network that tells v or x_0, or a limit of x_0, means something else here than elsewhere."""
    config, (clip_x_0, quantile) = DiffusionConfig(prediction=prediction), limit
    scheduler = make_scheduler(
        "DDIMScheduler",
        config,
        clip_sample=clip_x_0,
        thresholding=quantile is not None,
        dynamic_thresholding_ratio=quantile,
        sample_max_value=1e9,
    )
    scheduler.set_timesteps(config.timesteps)
    fields, theirs, x_t = side.fields(config), Torch(side.precision), 2 * draw(3, 5, 5, 2)
    for t in (0, 1, 500, 999):
        output = network_of(theirs, config)(theirs.tensor(x_t), theirs.times(np.array(t)))
        wanted = scheduler.step(output, t, theirs.tensor(x_t), use_clipped_model_output=limit != (False, None))
        times = side.times(np.full(3, t, np.int32))
        found = side.prediction.denoise(
            side.prediction.level_of(side.schedule(config), times),
            network_of(side, config),
            config,
            side.tensor(x_t),
            times,
            side.prediction.make_clipping(clip_x_0, quantile),
        )
        x_0, eps = side.array(found.x_0), side.array(found.eps)
        before = fields["alphas_cumprod_prev"][t].astype(np.float64)
        x_prev = np.sqrt(before) * x_0 + np.sqrt(1 - before) * eps
        apart = [gap(x_0, theirs.array(wanted.pred_original_sample)), gap(x_prev, theirs.array(wanted.prev_sample))]
        record_property("step x_0", apart[0])
        record_property("step x_prev", apart[1])
        assert apart[0] <= X_0.on("cpu", side.precision), t
        assert apart[1] <= X_PREV.on("cpu", side.precision), t


# (steps, T, spacing), at all of which diffusers knows the times before
PLAIN = [(10, 1000, "trailing"), (15, 1000, "leading"), (20, 1000, "trailing"), (25, 25, "trailing")]
# at these only where it is given a list of times, or looks into its own
UNEVEN = [(10, 1000, "linspace"), (15, 1000, "trailing")]
LISTED = ("ancestral", "dpmpp_2m", "dpmpp_2m_sde", "heun")


@pytest.mark.parametrize("prediction", ["eps", "v"])
@pytest.mark.parametrize(
    ("name", "variance", "options"),
    [
        ("ancestral", "fixed_small", {"clip_x_0": True}),
        ("ancestral", "fixed_large", {}),
        ("ancestral", "learned_range", {}),
        ("ddim", "fixed_small", {}),
        ("ddim", "fixed_small", {"eta": 0.5, "clip_x_0": True}),
        ("ddim", "fixed_small", {"eta": 0.5, "dynamic_threshold": 0.9}),
        ("ddim", "fixed_small", {"eta": 1.0}),
        ("plms", "fixed_small", {}),
        ("dpmpp_2m", "fixed_small", {}),
        ("dpmpp_2m_sde", "fixed_small", {}),
        ("heun", "fixed_small", {}),
        ("heun", "fixed_small", {"clip_x_0": True}),
    ],
    ids=lambda value: "-".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else value,
)
def test_chains(side, make_scheduler, name, variance, options, prediction, monkeypatch, record_property):
    """Otherwise a sampler is not the one of its name, or not on every grid of times."""
    for steps, timesteps, spacing in PLAIN + (UNEVEN if name in LISTED else []):
        config = DiffusionConfig(timesteps=timesteps, rescale_betas=True, prediction=prediction, variance=variance)
        sampling = Sampling(name, steps, spacing=spacing, **{"clip_x_0": False} | options)
        theirs = Theirs(make_scheduler, side.precision, config, sampling)
        if name == "plms":  # of which diffusers' v is not the paper's: see below
            theirs = theirs.telling_eps()
        x_T, z = noises(steps, 2, 4, 4, 2)  # noqa: N806
        apart = gap(ours(side, config, sampling, x_T, z), getattr(theirs, name)(x_T, z, monkeypatch=monkeypatch))
        record_property(f"{name} {steps}/{timesteps} {spacing}", apart)
        assert apart <= CHAINS[name].on("cpu", side.precision), (steps, timesteps, spacing)


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_inversion(side, make_scheduler, prediction, record_property):
    """Otherwise an image's noise is not what other people's DDIM calls it."""
    for steps, timesteps, spacing in PLAIN:
        config = DiffusionConfig(timesteps=timesteps, rescale_betas=True, prediction=prediction)
        sampling, x_0 = Sampling("ddim", steps, spacing=spacing, clip_x_0=False), draw(2, 4, 4, 2)
        theirs = Theirs(make_scheduler, side.precision, config, sampling).telling_eps()
        apart = gap(ours_inverted(side, config, sampling, x_0), theirs.inverted(x_0))
        record_property(f"ddim_invert {steps}/{timesteps} {spacing}", apart)
        assert apart <= CHAINS["ddim_invert"].on("cpu", side.precision), (steps, timesteps, spacing)


@pytest.mark.parametrize("name", ["ancestral", "ddim"])
def test_chains_from_pure_noise(side, make_scheduler, name, monkeypatch, record_property):
    """Otherwise the first step of a process with zero terminal SNR, where alpha is 0, is another, or not a number."""
    config = DiffusionConfig(zero_terminal_snr=True, prediction="v")
    sampling = Sampling(name, 10, clip_x_0=False)
    theirs = Theirs(make_scheduler, side.precision, config, sampling)
    x_T, z = noises(10, 2, 4, 4, 2)  # noqa: N806
    apart = gap(ours(side, config, sampling, x_T, z), getattr(theirs, name)(x_T, z, monkeypatch=monkeypatch))
    record_property(f"{name} zero-snr", apart)
    assert apart <= CHAINS[name].on("cpu", side.precision)


# --- Where diffusers is not the papers ------------------------------------------------------------------------


def eq_12(config, visited, x, back=False):
    """Song et al. 2021, eq. 12, without noise, in float64, for a network that tells eps; `back`: eq. 14."""
    betas = np.linspace(config.beta_start, config.beta_end, config.timesteps)
    levels = np.append(np.cumprod(1 - betas)[visited], 1.0)  # the last is that of t = -1, the clean image
    states = []
    for i in range(len(visited)) if back else reversed(range(len(visited))):
        here, there = (levels[i - 1], levels[i]) if back else (levels[i], levels[i - 1])
        eps = toy(x, visited[i], config.timesteps)
        x = np.sqrt(there) * (x - np.sqrt(1 - here) * eps) / np.sqrt(here) + np.sqrt(1 - there) * eps
        states.append(x)
    return np.stack(states)


@pytest.mark.parametrize(
    ("name", "steps", "spacing"),
    [(name, steps, spacing) for name in ("ddim", "plms") for steps, _, spacing in UNEVEN]
    + [("ddim_invert", 30, "trailing")],
)
def test_the_step_before_is_the_one_that_was_visited(side, make_scheduler, name, steps, spacing, record_property):
    """Otherwise each step of DDIM and PLMS ends at a time that the next one does not start from.

    diffusers' DDIM, PNDM and DDIM inversion step from t to t - T // N, which are the times only of "leading" and, where
    N divides T, of "trailing". Ours are held to the paper, and its PNDM agrees once it is told the true times. Its
    other schedulers look the time before up (test_chains). It has no inversion on "linspace".
    """
    config, x = DiffusionConfig(), draw(2, 4, 4, 2)
    sampling = Sampling("plms" if name == "plms" else "ddim", steps, spacing=spacing, clip_x_0=False)
    theirs, visited = Theirs(make_scheduler, side.precision, config, sampling), sampling.times(config.timesteps)
    if name == "ddim_invert":
        found, wrong = ours_inverted(side, config, sampling, x), theirs.inverted(x)
        right = eq_12(config, visited, x, back=True)
    else:
        z = np.zeros((steps, *x.shape))
        found, wrong = ours(side, config, sampling, x, z), getattr(theirs, name)(x, z)
        right = eq_12(config, visited, x) if name == "ddim" else theirs.plms(x, mended=True)
    record_property(f"{name} right", gap(found, right))
    record_property(f"{name} wrong", gap(wrong, right))
    assert gap(found, right) <= CHAINS[name].on("cpu", side.precision)
    assert gap(wrong, right) > WRONG


@pytest.mark.parametrize("name", ["plms", "ddim_invert"])
def test_v_is_turned_into_eps_where_it_was_told(side, make_scheduler, name, record_property):
    """Otherwise PLMS averages the v of several times, of which each is another mixture of eps and x_0.

    diffusers' PNDM does so, and turns the average into eps with the alpha of one of them; its inversion takes the alpha
    of the step before for a v that the network tells of t. In Liu et al. 2022, eq. 12, and Song et al. 2021, eq. 14,
    what is averaged or taken over is eps, as test_chains and test_inversion have it.
    """
    config, x = DiffusionConfig(prediction="v"), draw(2, 4, 4, 2)
    sampling = Sampling("plms" if name == "plms" else "ddim", 10, clip_x_0=False)
    theirs = Theirs(make_scheduler, side.precision, config, sampling)
    if name == "plms":
        found, wrong = ours(side, config, sampling, x, np.zeros((10, *x.shape))), theirs.plms(x)
    else:
        found, wrong = ours_inverted(side, config, sampling, x), theirs.inverted(x)
    record_property(f"{name} v", gap(wrong, found))
    assert gap(wrong, found) > WRONG


def test_the_last_step_adds_no_noise(side, make_scheduler, monkeypatch, record_property):
    """Otherwise each image drawn in fewer steps than T keeps the noise that ends the first interval.

    diffusers' DDPM adds noise wherever t > 0. On "trailing" times the last step is at t > 0 and goes to the clean
    image, and with the large variance, beta, it adds noise there. Ours asks for none (see `ours`).
    """
    config, sampling = DiffusionConfig(variance="fixed_large"), Sampling("ancestral", 10, clip_x_0=False)
    theirs = Theirs(make_scheduler, side.precision, config, sampling)
    x_T, z = noises(10, 2, 4, 4, 2)  # noqa: N806
    also_last = np.concatenate([draw(1, *x_T.shape, seed=2), z[1:]])
    quiet, noisy = (theirs.ancestral(x_T, noise, monkeypatch)[-1] for noise in (z, also_last))
    found = ours(side, config, sampling, x_T, z)[-1]
    record_property("last noise", gap(noisy, quiet))
    assert gap(found, quiet) <= CHAINS["ancestral"].on("cpu", side.precision)
    assert gap(noisy, quiet) > WRONG
