"""The whole ancestral chain of a trained network, a thousand steps from the same noise: are the pictures equal?"""

from pathlib import Path
from typing import Any

import numpy as np

from ddpm_parity.quantities import Arrays, Measure, Quantity, of_the_largest, pixels
from ddpm_parity.sides import Array, Side
from ddpm_parity.tolerances import CHAIN, GRID_OF_4, GRID_OF_13, Tolerance
from ddpm_shared import checkpoint, reference, streams
from ddpm_shared.reference_model import Network

# Averaged weights (70,969 numbers) of 5 epochs: make train-torch ARGS="--preset tiny --base-channels 8
# --channel-mults 1 2 2 --attention-resolutions 7 --num-groups 4 --epochs 5 --batch-size 64 --learning-rate 2e-3".
TRAINED = Path(__file__).with_name("trained.safetensors")
SEED = 5
GRIDS = {4: GRID_OF_4, 13: GRID_OF_13}  # images -> tolerance


def _chain(side: Side, path: Path, images: int) -> dict[str, Array]:
    loaded = checkpoint.load(path, ("ema",))
    config = side.configured(loaded.config)
    if side.name == "oracle":
        shapes = side.shapes_of(lambda torch: torch.network(config.model))
        values = checkpoint.select(loaded, "ema", shapes)
        network, schedule = Network(values, config.model), side.schedule(config.diffusion)
        size, channels = config.model.image_size, config.model.image_channels
        shape = (images, size, size, channels)
        x = streams.normal(SEED, streams.SAMPLE_X_T, 0, shape)
        for t in reversed(range(config.diffusion.timesteps)):
            z = streams.normal(SEED, streams.SAMPLE_Z, t, shape)
            x = reference.p_sample(schedule, network, x, np.full(images, t), z)
        return {"x_0": x, "grid": np.clip(np.rint((x + 1) * 127.5), 0, 255)}
    network = side.network(config.model)
    side.assign(network, checkpoint.select(loaded, "ema", side.shapes(network)))
    last: dict[str, Any] = {}
    grid = side.sampling.sample(side.sampler(network), config, SEED, images, on_step=lambda t, x: last.update(x_0=x))
    return {"x_0": side.array(last["x_0"]), "grid": grid}


def quantities(path: Path = TRAINED, images: int = 4) -> list[Quantity]:
    """The chain from the checkpoint at `path`."""

    def part(name: str, tolerance: Tolerance, measure: Measure) -> Quantity:
        def compute(side: Side) -> Arrays:
            return {name: side.keep(("chain", path, images), lambda: _chain(side, path, images))[name]}

        label = f"ancestral chain of {images} images: {name}"
        return Quantity("sampling", label, compute, tolerance, measure, slow=images > 4)

    return [part("x_0", CHAIN, of_the_largest), part("grid", GRIDS[images], pixels)]


QUANTITIES = [*quantities(), *quantities(images=13)]
