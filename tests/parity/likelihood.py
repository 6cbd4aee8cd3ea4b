"""The likelihood by the ODE: levels, traces, log-densities of a small network in every process, and bits of images."""

import dataclasses
from functools import partial
from typing import Any

import numpy as np

from ddpm_parity.labels import CLASSES, MODEL
from ddpm_parity.processes import config_of
from ddpm_parity.quantities import Arrays, Quantity, elementwise, of_the_largest
from ddpm_parity.sampling import TRAINED
from ddpm_parity.sides import Array, Oracle, Side, draw, random_parameters
from ddpm_parity.tolerances import LIKELIHOOD, LIKELIHOOD_PARTS, ODE_LEVELS, TRACES, TRAINED_LIKELIHOOD
from ddpm_shared import datasets, streams
from ddpm_shared.commands.likelihood_estimate import bits_of
from ddpm_shared.config import Config, DiffusionConfig
from ddpm_shared.oracle import guidance as oracle_guidance
from ddpm_shared.oracle import likelihood as oracle_likelihood
from ddpm_shared.oracle import processes as oracle_processes
from ddpm_shared.oracle.networks import Network
from ddpm_shared.records import checkpoint

# Of each kind of process one: paths and predictions have quantities of their own. An image of D = 72 numbers, so that
# the exact trace is fast.
SETTINGS: dict[str, DiffusionConfig] = {
    "ddpm": DiffusionConfig(timesteps=40, beta_end=0.3, variance="learned_range"),
    "ddpm, v, ends in pure noise": DiffusionConfig(timesteps=40, beta_end=0.3, prediction="v", zero_terminal_snr=True),
    "ve": config_of("ve"),
    "edm, F": dataclasses.replace(config_of("edm"), sigma_data=0.6, prediction="F"),
    "flow": config_of("flow"),
}
STEPS, TRAINED_STEPS = 3, 6
LABELS = np.array([2, 0])
IMAGES = (2, MODEL.image_size, MODEL.image_size, MODEL.image_channels)
PIXELS = np.random.default_rng(0).integers(0, 256, size=IMAGES, dtype=np.uint8)
FIRST, SEED = 3, 7  # the index of the first image, and the seed of its numbers


def _config(name: str) -> Config:
    return Config(device="cpu", class_conditional=True, model=MODEL, diffusion=SETTINGS[name])


# --- The parts ----------------------------------------------------------------------------------------------


def _levels(side: Side) -> Arrays:
    """Alpha, sigma and times; of ddpm with few times, with nearly all, and with all."""
    asked: dict[str, tuple[DiffusionConfig, int, str]] = {
        f"{name}, {grid}": (config, 5, grid)
        for name, config in (SETTINGS | {name: config_of(name) for name in ("vp", "sub_vp", "ve_exponential")}).items()
        for grid in (("log_snr", "karras") if config.process != "ddpm" else ("log_snr",))
    }
    whole = {"T = 1000": DiffusionConfig(), "T = 40": SETTINGS["ddpm"]}
    asked |= {f"{name}, {n}": (config, n, "log_snr") for name, config in whole.items() for n in (2, 10, 37, 40)}
    result: dict[str, Array] = {}
    for name, (config, steps, grid) in asked.items():
        levels = (
            _oracle_levels(config, steps, grid)
            if isinstance(side, Oracle)
            else side.ode.ode_levels(config, steps, grid)
        )
        result |= {f"{name}: {part}": getattr(levels, part) for part in ("alpha", "sigma", "times")}
    return result


def _oracle_levels(config: DiffusionConfig, steps: int, grid: Any = "log_snr") -> oracle_processes.Levels:
    if config.process != "ddpm":
        times = oracle_processes.make_grid(config, steps, grid, config.process)
        return oracle_processes.make_levels(config, times, config.process)
    snr = oracle_processes.log_snr(config, np.arange(config.timesteps), "ddpm")
    return oracle_processes.make_levels(config, oracle_likelihood.whole_times(snr[np.isfinite(snr)], steps))


def _arithmetic(side: Side) -> Arrays:
    """Grey levels as densities, the normal density of wide and narrow priors, and bits; without a network."""
    grey = np.arange(256.0).reshape(1, 16, 16, 1).repeat(2, axis=0)
    u = streams.uniform_images(SEED, streams.LIKELIHOOD_DEQUANTISATION, 0, grey.shape)
    x, log_p = draw(3, 5, 4, 2), 1e3 * draw(6)
    # In float64 whatever the precision, as all of this but the network.
    ode = oracle_likelihood if side.name == "oracle" else side.ode
    parts = {
        "dequantise": ode.dequantise(_float64(side, grey), _float64(side, u)),
        "bits": ode.bits_per_dim(side.times(log_p), 784),
    }
    parts |= {f"normal, {scale}": ode.log_normal(_float64(side, scale * x), scale) for scale in (1.0, 0.3, 80.0)}
    return {name: side.array(value) for name, value in parts.items()}


def _float64(side: Side, images: Array) -> Any:
    """Images as tensors in float64, whatever the precision of the side."""
    if side.name == "oracle":
        return images
    return side.data.to_tensor(images, *([side.device] if side.name == "torch" else []))


# --- A small network with classes ---------------------------------------------------------------------------


class OracleLikelihood:
    """The oracle in the place of a tree's ode.Likelihood."""

    device_name, threads = "cpu", 1

    def __init__(self, network: Network, config: DiffusionConfig, levels: oracle_processes.Levels) -> None:
        self.network, self.config, self.levels = network, config, levels
        self.smallest_noise = float(levels.sigma[0])

    def trace(self, x: Array, i: int, probes: Array | None, labels: Array | None = None) -> Array:
        """Of the noise's Jacobian at x [B, H, W, C] and level i, [B]."""
        _, slope = self._eps(labels)
        return oracle_likelihood.trace(slope, x, i, probes)

    def bits(
        self, pixels: Array, u: Array, probes: Array | None, labels: Array | None = None, on_products: Any = None
    ) -> Array:
        """As in ode.Likelihood."""
        x = oracle_likelihood.dequantise(pixels, u)
        predict, slope = self._eps(labels)
        found = oracle_likelihood.log_density(
            self.levels,
            predict,
            lambda x, i: oracle_likelihood.trace(slope, x, i, probes),
            x,
            oracle_processes.prior_scale(self.config, self.config.process),
        )
        return oracle_likelihood.bits_per_dim(found, x[0].size)

    def _eps(self, labels: Array | None) -> tuple[oracle_likelihood.Predict, oracle_likelihood.Slope]:
        network = oracle_guidance.condition(self.network, labels)
        return oracle_likelihood.eps_of(network, self.config, list(self.levels.times))


def _make_likelihood(side: Side, name: str) -> Any:
    """That of the network at random weights in a process."""
    config = _config(name)
    if isinstance(side, Oracle):
        shapes = side.shapes_of(lambda torch: torch.model.make_network(torch.configured(config), 0))
        network = Network(random_parameters(shapes), MODEL)
        return OracleLikelihood(network, config.diffusion, _oracle_levels(config.diffusion, STEPS))
    network = side.model.make_network(side.configured(config), 0)
    side.assign(network, random_parameters(side.shapes(network)))
    levels = side.ode.ode_levels(config.diffusion, STEPS, "log_snr")
    return side.ode.Likelihood(side.sampler(network), side.configured(config), levels)


def _likelihood(side: Side, name: str) -> Any:
    return side.keep(("likelihood", name), lambda: _make_likelihood(side, name))


def _trace(side: Side, name: str, exact: bool) -> Arrays:
    """At the levels of little and of much noise, with each image's class."""
    probes = None if exact else np.sign(draw(1, *IMAGES, seed=2))
    likelihood = _likelihood(side, name)
    result: dict[str, Array] = {}
    for i in range(STEPS):
        alpha, sigma = (float(values[i]) for values in (likelihood.levels.alpha, likelihood.levels.sigma))
        x = alpha * 0.5 * draw(*IMAGES) + sigma * draw(*IMAGES, seed=1)
        if isinstance(side, Oracle):
            trace = likelihood.trace(x, i, probes, LABELS)
        else:
            given = None if probes is None else [_float64(side, probe) for probe in probes]
            _, trace = likelihood.divergence(_float64(side, x), i, given, side.labels(LABELS))
        result[f"level {i}"] = side.array(trace)
    return result


def _bits(side: Side, name: str, exact: bool, labelled: bool = True) -> Arrays:
    """The whole way, and with two probes of each image."""
    u = streams.uniform_images(SEED, streams.LIKELIHOOD_DEQUANTISATION, 0, IMAGES, FIRST)
    probes = None if exact else np.sign(draw(2, *IMAGES, seed=2))
    return {"bits": _likelihood(side, name).bits(PIXELS, u, probes, LABELS if labelled else None)}


# --- Images of the test set ---------------------------------------------------------------------------------


def _trained_likelihood(side: Side) -> Any:
    loaded = checkpoint.load(TRAINED, ("ema",))
    config = side.configured(loaded.config)
    if isinstance(side, Oracle):
        values = checkpoint.select(loaded, "ema", side.shapes_of(lambda torch: torch.network(config.model)))
        levels = _oracle_levels(config.diffusion, TRAINED_STEPS)
        return OracleLikelihood(Network(values, config.model), config.diffusion, levels)
    network = side.network(config.model)
    side.assign(network, checkpoint.select(loaded, "ema", side.shapes(network)))
    levels = side.ode.ode_levels(config.diffusion, TRAINED_STEPS, "log_snr")
    return side.ode.Likelihood(side.sampler(network), config, levels)


def _of_test_images(side: Side) -> Arrays:
    """With the numbers that the command draws; the oracle draws them for each image alone."""
    likelihood = side.keep("likelihood of the trained network", lambda: _trained_likelihood(side))
    pixels = datasets.load("fashion-mnist-10k")[1].images[FIRST : FIRST + 2]
    if not isinstance(side, Oracle):
        return {"bits": bits_of(likelihood, pixels, FIRST, SEED, 2)}
    found = []
    for image in range(2):
        one, index = pixels[image : image + 1], FIRST + image
        place = streams.generator(SEED, "likelihood/dequantisation", 0, index).integers(0, 2**52, size=one.shape)
        u = place / 2.0**52 + 2.0**-53
        flips = [streams.generator(SEED, "likelihood/probe", k, index).integers(0, 2, size=one.shape) for k in (0, 1)]
        probes = np.where(np.array(flips) == 1, 1.0, -1.0)
        found.append(likelihood.bits(one, u, probes)[0])
    return {"bits": np.array(found)}


QUANTITIES = [
    Quantity("likelihood", "levels of the ODE", _levels, ODE_LEVELS, elementwise),
    Quantity("likelihood", "dequantisation, prior and bits", _arithmetic, LIKELIHOOD_PARTS, elementwise),
    # One of each process: a fault that one of them catches need not be computed in all.
    *(
        Quantity("likelihood", f"{name}: {kind}trace", partial(_trace, name=name, exact=exact), TRACES, of_the_largest)
        for kind, exact in (("", False), ("exact ", True))
        for name in ("ddpm", "ve", "edm, F", "flow")
    ),
    *(
        Quantity("likelihood", f"{name}: bits", partial(_bits, name=name, exact=False), LIKELIHOOD, elementwise)
        for name in SETTINGS
    ),
    *(
        Quantity(
            "likelihood",
            f"{name}: bits by the exact trace",
            partial(_bits, name=name, exact=True),
            LIKELIHOOD,
            elementwise,
        )
        for name in ("ddpm", "flow")
    ),
    Quantity(
        "likelihood",
        "ddpm: bits without labels",
        partial(_bits, name="ddpm", exact=False, labelled=False),
        LIKELIHOOD,
        elementwise,
    ),
    Quantity("likelihood", "bits of test images", _of_test_images, TRAINED_LIKELIHOOD, elementwise),
]
assert max(LABELS) < CLASSES
