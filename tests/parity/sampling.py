"""Whole drawings by a trained network, from the same noise: are the pictures equal?

By the sampler of the paper, a thousand steps and a quarter of them, and by every other in a few.
"""

from pathlib import Path
from typing import Any

import numpy as np

from ddpm_parity.quantities import Arrays, Measure, Quantity, of_the_largest, pixels
from ddpm_parity.samplers import ON_DDPM
from ddpm_parity.sides import Array, Side
from ddpm_parity.tolerances import CHAIN, FEW_STEPS, GRID_OF_2, GRID_OF_13, Tolerance
from ddpm_shared import streams
from ddpm_shared.config import Config
from ddpm_shared.config.sampling import Draw, Sampling
from ddpm_shared.oracle import guidance as oracle_guidance
from ddpm_shared.oracle import prediction as oracle_prediction
from ddpm_shared.oracle import processes as oracle_processes
from ddpm_shared.oracle import samplers as oracle_samplers
from ddpm_shared.oracle.networks import Network
from ddpm_shared.records import checkpoint

# Averaged weights (70,969 numbers) of 5 epochs: make train-torch ARGS="--preset tiny --base-channels 8
# --channel-mults 1 2 2 --attention-resolutions 7 --num-groups 4 --epochs 5 --batch-size 64 --learning-rate 2e-3
# --warmup-steps 200 --learning-rate-decay none".
TRAINED = Path(__file__).with_name("trained.safetensors")
SEED = 5
GRIDS = {2: GRID_OF_2, 13: GRID_OF_13}  # images -> tolerance
FEW = [Sampling(name, 10, spacing="linspace") for name in ON_DDPM] + [Sampling("ddim", 10, eta=0.7)]


def denoiser(side: Side, network: Network, config: Config, sampling: Sampling, labels: Array | None) -> Any:
    """The oracle's (x, i) -> Predicted, guided towards labels where t is in the interval of guidance."""
    times = sampling.times(config.diffusion.timesteps)
    schedule = side.schedule(config.diffusion)
    last = config.diffusion.timesteps if sampling.guidance_to is None else sampling.guidance_to
    interval = range(sampling.guidance_from, last + 1)

    def denoise(x: Array, i: int) -> Any:
        scale = sampling.guidance if times[i] in interval else 1.0
        guided = oracle_guidance.condition(network, labels, scale)
        t = np.full(len(x), times[i])
        return oracle_prediction.denoise(schedule, guided, config.diffusion, x, t, sampling.clip_x_0)

    return denoise


def oracle_s(side: Side, network: Network, config: Config, draw: Draw, sampling: Sampling) -> Array:
    """The x_0 that the oracle draws."""
    shape = (1, config.model.image_size, config.model.image_size, config.model.image_channels)
    times = sampling.times(config.diffusion.timesteps)

    def noise(stream: str, step: int) -> Array:
        images = range(draw.first, draw.first + draw.count)
        return np.concatenate([streams.normal(draw.seed, stream, step, shape, i // draw.same_noise) for i in images])

    chain = getattr(oracle_samplers, sampling.sampler)(
        oracle_processes.make_levels(config.diffusion, times),
        denoiser(side, network, config, sampling, draw.labels),
        noise(streams.SAMPLE_X_T, 0),
        lambda i: noise(streams.SAMPLE_Z, times[i]),
        **sampling.options,
    )
    *_, (_, x_0) = chain
    return x_0


def _trained(side: Side, path: Path) -> tuple[Config, Any]:
    """The settings and the network of the checkpoint at `path`."""
    loaded = checkpoint.load(path, ("ema",))
    config = side.configured(loaded.config)
    if side.name == "oracle":
        values = checkpoint.select(loaded, "ema", side.shapes_of(lambda torch: torch.network(config.model)))
        return config, Network(values, config.model)
    network = side.network(config.model)
    side.assign(network, checkpoint.select(loaded, "ema", side.shapes(network)))
    return config, side.sampler(network)


def _drawn(side: Side, path: Path, images: int, sampling: Sampling) -> dict[str, Array]:
    config, network = side.keep(("trained", path), lambda: _trained(side, path))
    if side.name == "oracle":
        x_0 = oracle_s(side, network, config, Draw(SEED, 0, images), sampling)
        return {"x_0": x_0, "grid": np.clip(np.rint((x_0 + 1) * 127.5), 0, 255)}
    last: dict[str, Any] = {}
    sampler = side.sampling.Sampler(network, config, sampling)
    grid = sampler.draw(Draw(SEED, 0, images), lambda i, x: last.update(x_0=x))
    return {"x_0": side.array(last["x_0"]), "grid": grid}


def quantities(path: Path = TRAINED, images: int = 2, steps: int = 1000) -> list[Quantity]:
    """The chain of the paper, or one of fewer steps, from the checkpoint at `path`."""
    sampling = Sampling(steps=steps)

    def part(name: str, tolerance: Tolerance, measure: Measure) -> Quantity:
        def compute(side: Side) -> Arrays:
            return {name: side.keep(("chain", path, images, steps), lambda: _drawn(side, path, images, sampling))[name]}

        label = f"ancestral chain of {images} images, {steps} steps: {name}"
        return Quantity("sampling", label, compute, tolerance, measure, slow=steps == 1000)

    return [part("x_0", CHAIN, of_the_largest), part("grid", GRIDS[images], pixels)]


def _few(side: Side) -> Arrays:
    """Four images by each sampler in ten steps, on a spacing that does not divide the thousand."""
    return {f"{s.sampler}, eta {s.eta}": _drawn(side, TRAINED, 4, s)["x_0"] for s in FEW}


QUANTITIES = [
    *quantities(steps=100),
    *quantities(),
    *quantities(images=13),
    Quantity("sampling", "every sampler in 10 steps: x_0", _few, FEW_STEPS, of_the_largest),
]
