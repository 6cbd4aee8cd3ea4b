"""Images in colour all the way: a small network at random weights, drawing by every sampler, the bound, the inversion.

Its training is in training.py, and what its batches are made of in pictures.py.
"""

import dataclasses
from functools import partial
from typing import Any

import numpy as np

from ddpm_parity.bound import OracleBound
from ddpm_parity.network import COLOUR
from ddpm_parity.quantities import Arrays, Quantity, absolute, elementwise, of_the_largest
from ddpm_parity.sampling import FEW, denoiser, oracle_s
from ddpm_parity.sides import Array, Oracle, Side, random_parameters
from ddpm_parity.tolerances import BITS_PER_DIM, COLOUR_TERMS, EXACT, GUIDED_INVERSION, GUIDED_STEPS
from ddpm_parity.training import small_emoji
from ddpm_shared.commands import bits_estimate
from ddpm_shared.config import Config, DiffusionConfig
from ddpm_shared.config.sampling import Draw, Sampling
from ddpm_shared.oracle import processes as oracle_processes
from ddpm_shared.oracle import samplers as oracle_samplers
from ddpm_shared.oracle.networks import Network

CONFIG = Config(device="cpu", model=COLOUR, diffusion=DiffusionConfig(timesteps=40, beta_end=0.3))
SEED, IMAGES = 6, 4  # the stride of the bits, too: each t is evaluated at one image
SAMPLINGS = [dataclasses.replace(sampling, steps=5) for sampling in FEW]


def _network(side: Side) -> Any:
    """The network at random weights, as the commands call it."""

    def make() -> Any:
        if isinstance(side, Oracle):
            return Network(random_parameters(side.shapes_of(lambda torch: torch.network(COLOUR))), COLOUR)
        network = side.network(COLOUR)
        side.assign(network, random_parameters(side.shapes(network)))
        return side.sampler(network)

    return side.keep("network in colour", make)


def _images() -> Array:
    return small_emoji()[1].images[:IMAGES]


def _drawn(side: Side) -> dict[str, dict[str, Array]]:
    """x_0 of every sampler, and its pixels."""
    config, draw, network = side.configured(CONFIG), Draw(SEED, 0, IMAGES), _network(side)
    result: dict[str, dict[str, Array]] = {"x_0": {}, "pixels": {}}
    for sampling in SAMPLINGS:
        name = f"{sampling.sampler}, eta {sampling.eta}"
        if side.name == "oracle":
            x_0 = oracle_s(side, network, config, draw, sampling)
            pixels = np.clip(np.rint((x_0 + 1) * 127.5), 0, 255)
        else:
            last: dict[str, Any] = {}
            sampler = side.sampling.Sampler(network, config, sampling)
            pixels = sampler.draw(draw, lambda i, x, last=last: last.update(x_0=x))
            x_0 = side.array(last["x_0"])
        result["x_0"][name], result["pixels"][name] = x_0, pixels
    return result


def _part(side: Side, part: str) -> Arrays:
    return side.keep("drawn in colour", lambda: _drawn(side))[part]


def _bits(side: Side) -> dict[str, dict[str, Array]]:
    """Each term at one image, and the sum of all."""
    config, pixels = side.configured(CONFIG), _images()
    bound: bits_estimate.Bound
    if isinstance(side, Oracle):
        bound = OracleBound(side, side.schedule(config.diffusion), _network(side))
    else:
        bound = side.bound.Bound(_network(side), config)
    prior, timesteps = bound.prior(pixels), config.diffusion.timesteps
    terms = bits_estimate.terms_of(bound, pixels, 0, SEED, IMAGES, timesteps)
    found = bits_estimate.estimate(prior, terms, IMAGES, timesteps)
    return {
        "terms": {"term": terms},
        "sum": {name: np.array(found[name]) for name in ("bits_per_dim", "prior", "decoder")},
    }


def _of_bits(side: Side, part: str) -> Arrays:
    return side.keep("bits in colour", lambda: _bits(side))[part]


def _inverted(side: Side) -> Arrays:
    """The noise of images, and what it draws."""
    sampling, network, pixels = Sampling("ddim", 5, clip_x_0=False), _network(side), _images()
    if isinstance(side, Oracle):
        levels = oracle_processes.make_levels(CONFIG.diffusion, sampling.times(CONFIG.diffusion.timesteps))
        denoise = denoiser(side, network, CONFIG, sampling, None)
        x_0, _, _ = side.batch((pixels, np.empty(0, np.int32), np.empty(0)))
        *_, (_, noise) = oracle_samplers.ddim_invert(levels, denoise, x_0, 2)
        *_, (_, back) = oracle_samplers.ddim(levels, denoise, noise, lambda i: noise)
    else:
        inverter = side.sampling.Inverter(network, side.configured(CONFIG), sampling, 2)
        noise, back = inverter.there_and_back(pixels, lambda: None)
    return {"noise": noise, "back": back}


QUANTITIES = [
    Quantity("colour", "images of every sampler", partial(_part, part="x_0"), GUIDED_STEPS, of_the_largest),
    Quantity("colour", "pixels of every sampler", partial(_part, part="pixels"), EXACT, absolute),
    Quantity("colour", "every term of the bound", partial(_of_bits, part="terms"), COLOUR_TERMS, elementwise),
    Quantity("colour", "bits per dimension", partial(_of_bits, part="sum"), BITS_PER_DIM, elementwise),
    Quantity("colour", "inversion", _inverted, GUIDED_INVERSION, of_the_largest),
]
