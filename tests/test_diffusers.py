"""Hugging Face diffusers' schedulers, an implementation from outside, against both trees: betas, times, steps, chains.

diffusers computes in float32, and names it in each of its files. It is held against our float32 as it is, and against
our float64 with that name meaning float64 there (`Doubled`): nothing else of it is changed, and what still differs is a
difference of the formulas. Where diffusers departs from the papers, a test says in what, and that we do not.
"""

import importlib
import math
import os

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from ddpm_parity.sides import draw, installed
from ddpm_parity.tolerances import Tolerance
from ddpm_parity.torch_side import Torch
from ddpm_shared.config import Config, DiffusionConfig
from ddpm_shared.samplers import Sampling, times

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


@pytest.fixture
def diffusers(side, monkeypatch):
    """A function: (name of a scheduler, our DiffusionConfig, its other options) -> that scheduler, as precise as `side`."""
    for framework in ("torch", "diffusers"):
        if not installed(framework):
            (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{framework} is not installed")
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
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            return getattr(module, name)(**options)
        finally:
            torch.set_default_dtype(before)

    return make


def toy(x, t, timesteps, channels=1):
    """A network for every framework: NumPy, elementwise, bounded, not linear. [B, H, W, C] -> [B, H, W, channels C]."""
    w = math.tanh(3 * t / timesteps)
    outputs = [0.8 * w * x + 0.1 * np.sin(3 * x) + 0.1 * w - 0.05, 0.7 * np.cos(2 * x + w)]
    return np.concatenate(outputs[:channels], axis=-1)


def asked(side, config):
    """`toy` as a network of the side: (x_t, t) -> its output."""
    channels = 2 if config.variance == "learned_range" else 1

    def network(x, t):
        return side.tensor(toy(side.array(x), int(np.max(side.array(t))), config.timesteps, channels))

    return network


def noises(steps, *shape):
    """x_T, and z of each step; of the last one 0, since there ours is never asked for."""
    z = draw(steps, *shape, seed=1)
    z[0] = 0.0
    return draw(*shape), z


def ours(side, config, sampling, x_T, z):  # noqa: N803 (the paper's capital T)
    """Every x_prev of our sampler, as the command calls it, [N, B, H, W, C]."""
    whole = Config(precision=side.precision, device="cpu", diffusion=config)
    schedule, ask = side.sampling.make_denoiser(asked(side, config), whole, sampling)
    sampler = side.samplers.SAMPLERS[sampling.sampler]
    chain = sampler(schedule, ask, side.tensor(x_T), lambda i: side.tensor(z[i]), **sampling.options)
    return np.stack([side.array(x) for _, x in chain])


class Theirs:
    """The same by diffusers: a method for each of our samplers, [N, B, H, W, C].

    Args:
        diffusers: the fixture.
        precision: "fp64" or "fp32".
        config: of the process and the network.
        sampling: ours; `spacing` "linspace" is passed on as a list of times where diffusers takes one.
    """

    def __init__(self, diffusers, precision, config, sampling):
        self.make, self.config, self.sampling = diffusers, config, sampling
        self.side = Torch(precision)
        self.network = asked(self.side, config)
        self.times = sampling.times(config.timesteps)[::-1]

    def walk(self, scheduler, x, **options):
        """One step of the scheduler after another; an option is a function of the step's number, from 0 on."""
        states = []
        for number, t in enumerate(scheduler.timesteps):
            arguments = {name: of(number) for name, of in options.items()}
            x = scheduler.step(self.network(scheduler.scale_model_input(x, t), t), t, x, **arguments).prev_sample
            states.append(self.side.array(x))
        return np.stack(states)

    def z_of(self, z):
        """The noise of the step with that number."""
        return lambda number: self.side.tensor(z[len(z) - 1 - number])

    @property
    def spaced(self):
        """How the schedulers that take no list of times are told ours."""
        return {"timestep_spacing": self.sampling.spacing, "set_alpha_to_one": True}

    def ancestral(self, x_T, z, monkeypatch):  # noqa: N803
        scheduler = self.make(
            "DDPMScheduler",
            self.config,
            variance_type=self.config.variance,
            clip_sample=self.sampling.clip_x_0,
            rescale_betas_zero_snr=self.config.zero_terminal_snr,
        )
        scheduler.set_timesteps(timesteps=self.times)
        numbers = iter(range(len(z)))
        module = importlib.import_module("diffusers.schedulers.scheduling_ddpm")
        monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: self.z_of(z)(next(numbers)))
        return self.walk(scheduler, self.side.tensor(x_T))

    def ddim(self, x_T, z, monkeypatch=None):  # noqa: N803
        scheduler = self.make(
            "DDIMScheduler",
            self.config,
            clip_sample=self.sampling.clip_x_0,
            thresholding=self.sampling.dynamic_threshold is not None,
            dynamic_thresholding_ratio=self.sampling.dynamic_threshold,
            sample_max_value=1e9,  # which ours has not
            rescale_betas_zero_snr=self.config.zero_terminal_snr,
            **self.spaced,
        )
        scheduler.set_timesteps(len(self.times))
        limited = self.sampling.clip_x_0 or self.sampling.dynamic_threshold is not None
        given = {"eta": lambda _: self.sampling.eta, "use_clipped_model_output": lambda _: limited}
        return self.walk(scheduler, self.side.tensor(x_T), variance_noise=self.z_of(z), **given)

    def as_eps(self, alphas_cumprod):
        """The network, made to tell eps: as PNDM and inversion mean it, in which diffusers errs for v (see below)."""
        a = self.side.array(alphas_cumprod)

        def network(x, t):
            output = self.side.array(asked(self.side, self.config)(x, t))
            if self.config.prediction == "v":
                signal, noise = (math.sqrt(v) for v in (a[int(t)], 1 - a[int(t)]))
                output = signal * output + noise * self.side.array(x)
            return self.side.tensor(output)

        return network

    def plms(self, x_T, z, monkeypatch=None):  # noqa: N803
        eps = DiffusionConfig(**{**vars(self.config), "prediction": "eps"})
        scheduler = self.make("PNDMScheduler", eps, skip_prk_steps=True, **self.spaced)
        scheduler.set_timesteps(len(self.times))
        self.network = self.as_eps(scheduler.alphas_cumprod)
        return self.walk(scheduler, self.side.tensor(x_T))[1:]  # the first is where the averaged step looks ahead

    def dpmpp_2m(self, x_T, z, monkeypatch=None, algorithm="dpmsolver++"):  # noqa: N803
        scheduler = self.make("DPMSolverMultistepScheduler", self.config, algorithm_type=algorithm)
        scheduler.set_timesteps(timesteps=self.times)
        return self.walk(scheduler, self.side.tensor(x_T), variance_noise=self.z_of(z))

    def dpmpp_2m_sde(self, x_T, z, monkeypatch=None):  # noqa: N803
        return self.dpmpp_2m(x_T, z, algorithm="sde-dpmsolver++")

    def heun(self, x_T, z, monkeypatch=None):  # noqa: N803
        scheduler = self.make("HeunDiscreteScheduler", self.config, clip_sample=self.sampling.clip_x_0)
        scheduler.set_timesteps(timesteps=self.times)
        # It walks x_t / alpha. Its init_noise_sigma is 1 / alpha for "leading" only, for the others sigma / alpha.
        sizes = np.sqrt(1 + self.side.array(scheduler.sigmas).astype(np.float64) ** 2)
        states = self.walk(scheduler, self.side.tensor(x_T * sizes[0]))
        # sigmas is s_0, s_1, s_1, ..., 0: a step is two evaluations, the last one is one.
        return np.concatenate([states[1::2], states[-1:]]) / np.append(sizes[1:-1:2], 1.0)[:, None, None, None, None]

    def invert(self, x_0):
        """The same for ddim_invert with one iteration."""
        eps = DiffusionConfig(**{**vars(self.config), "prediction": "eps"})
        scheduler = self.make("DDIMInverseScheduler", eps, clip_sample=False, **self.spaced)
        scheduler.set_timesteps(len(self.times))
        self.network = self.as_eps(scheduler.alphas_cumprod)
        return self.walk(scheduler, self.side.tensor(x_0))


def gap(found, wanted):
    """The largest difference, in units of the largest number."""
    return float(np.abs(np.asarray(found, np.float64) - wanted).max() / np.abs(wanted).max())


# --- Schedules and times --------------------------------------------------------------------------------------

BETAS = Tolerance(fp64=1, fp32=1)


@pytest.mark.parametrize("zero_terminal_snr", [False, True])
@pytest.mark.parametrize(
    "config",
    [
        DiffusionConfig(),
        DiffusionConfig(timesteps=50, rescale_betas=True),
        DiffusionConfig(schedule="scaled_linear", beta_start=0.00085, beta_end=0.012),
        DiffusionConfig(schedule="scaled_linear"),
        DiffusionConfig(schedule="quadratic"),
        DiffusionConfig(schedule="cosine"),
        DiffusionConfig(schedule="sigmoid"),
    ],
    ids=lambda c: f"{c.schedule}-{c.timesteps}-{c.beta_start}",
)
def test_betas(side, diffusers, config, zero_terminal_snr, record_property):
    config = DiffusionConfig(**{**vars(config), "zero_terminal_snr": zero_terminal_snr, "prediction": "v"})
    scheduler = diffusers("DDPMScheduler", config, rescale_betas_zero_snr=zero_terminal_snr)
    theirs, fields = Torch(side.precision), side.fields(config)
    for name in ("betas", "alphas_cumprod"):
        wanted = theirs.array(getattr(scheduler, name)).astype(np.float64)
        assert wanted.dtype == fields[name].dtype or side.precision == "fp32"
        apart = np.abs(fields[name].astype(np.float64) - wanted)
        record_property(f"absolute {name}", apart.max())
        with np.errstate(all="ignore"):
            record_property(f"relative {name}", np.nanmax(apart / wanted))


CASES = [(10, 1000, "trailing"), (10, 1000, "leading"), (50, 1000, "trailing"), (50, 1000, "leading"), (50, 50, "trailing")]
FREE = [(10, 1000, "linspace"), (30, 1000, "linspace"), (30, 1000, "trailing"), (30, 1000, "leading")]
@pytest.mark.parametrize("prediction", ["eps", "v"])
@pytest.mark.parametrize(
    ("name", "options", "clip"),
    [
        ("ancestral", {"variance": "fixed_small"}, False),
        ("ancestral", {"variance": "fixed_large"}, False),
        ("ancestral", {"variance": "learned_range"}, False),
        ("ancestral", {"variance": "learned_range"}, True),
        ("ancestral", {}, True),
        ("ddim", {"eta": 0.0}, False),
        ("ddim", {"eta": 0.5}, False),
        ("ddim", {"eta": 1.0}, False),
        ("ddim", {"eta": 0.5}, True),
        ("ddim", {"eta": 0.5, "dynamic_threshold":0.9}, True),
        ("plms", {}, False),
        ("dpmpp_2m", {}, False),
        ("dpmpp_2m_sde", {}, False),
        ("heun", {}, False),
        ("heun", {}, True),
    ],
)
def test_chains(side, diffusers, name, options, clip, prediction, monkeypatch, record_property):
    for steps, timesteps, spacing in CASES + FREE:
        config = DiffusionConfig(timesteps=timesteps, rescale_betas=True, prediction=prediction, variance=options.get("variance", "fixed_small"))
        sampling = Sampling(name, steps, spacing=spacing, clip_x_0=clip, **{k: v for k, v in options.items() if k != "variance"})
        x_T, z = noises(steps, 2, 4, 4, 2)
        wanted = getattr(Theirs(diffusers, side.precision, config, sampling), name)(x_T, z, monkeypatch)
        found = ours(side, config, sampling, x_T, z)
        assert found.shape == wanted.shape
        record_property(f"{steps}/{timesteps} {spacing}", gap(found, wanted))
        record_property(f"MAX {steps}/{timesteps} {spacing}", np.abs(wanted).max())
        record_property(f"LAST {steps}/{timesteps} {spacing}", gap(found[-1], wanted[-1]))

@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_inv(side, diffusers, prediction, record_property):
    for steps, timesteps, spacing in CASES + FREE:
        config = DiffusionConfig(timesteps=timesteps, rescale_betas=True, prediction=prediction)
        sampling = Sampling("ddim", steps, spacing=spacing, clip_x_0=False)
        x_T, z = noises(steps, 2, 4, 4, 2)
        t = Theirs(diffusers, side.precision, config, sampling)
        if spacing=="linspace": continue
        wanted = t.invert(x_T)
        schedule, ask = side.sampling.make_denoiser(asked(side, config), Config(precision=side.precision, device="cpu", diffusion=config), sampling)
        found = np.stack([side.array(x) for _, x in side.samplers.ddim_invert(schedule, ask, side.tensor(x_T))])
        record_property(f"{steps}/{timesteps} {spacing}", gap(found, wanted))
