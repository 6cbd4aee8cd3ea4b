"""The variational bound: its three equations at the ends of grey and of time, and the bits of a trained network."""

from functools import partial

import numpy as np

from ddpm_parity.engine import T, eps_model
from ddpm_parity.quantities import Arrays, Quantity, elementwise, of_the_largest
from ddpm_parity.sampling import TRAINED
from ddpm_parity.schedule import CONFIGS
from ddpm_parity.sides import Array, Oracle, Side, draw
from ddpm_parity.tolerances import BITS_PER_DIM, BOUND_TERMS, DECODER, PRIOR, TRAINED_TERMS
from ddpm_shared import batches, datasets
from ddpm_shared.commands import bits_estimate
from ddpm_shared.config import DiffusionConfig
from ddpm_shared.oracle import bound as oracle_bound
from ddpm_shared.oracle import diffusion
from ddpm_shared.oracle.networks import Network
from ddpm_shared.records import checkpoint

CONFIG = DiffusionConfig()
LEVELS = (np.arange(256) / 127.5 - 1).astype(np.float32).astype(np.float64)  # what pixels become, the same in float32
SIGMA = 0.0074  # of the decoder, about
SEED, STRIDE = 3, 100


def _images(*shape: int) -> Array:
    """Grey levels, many of them the darkest and the lightest."""
    return LEVELS[np.clip(np.rint(160 * draw(*shape) + 127.5), 0, 255).astype(int)]


def _prior(side: Side) -> Arrays:
    x_0 = side.tensor(_images(6, 5, 4, 2))
    return {
        label: side.array(side.bound.prior_bits_per_dim(side.schedule(config), x_0))
        for label, config in CONFIGS.items()
    }


def _decoder(side: Side) -> Arrays:
    """All grey levels, with the mean on them, in their bins, in the tails, and so far off that the floor is all."""
    x_0, log_variance = LEVELS.reshape(1, 16, 16, 1), np.full((1, 1, 1, 1), 2 * np.log(SIGMA))
    log_p = side.bound.discretized_gaussian_log_likelihood
    return {
        f"{off} sigma off": side.array(
            log_p(side.tensor(x_0), side.tensor(x_0 + off * SIGMA), side.tensor(log_variance))
        )
        for off in (0.0, 0.4, -0.6, 3.0, -5.5, 6.9, -50.0, 300.0)
    }


def _terms(side: Side, clip_x_0: bool) -> Arrays:
    x_0, eps = side.tensor(_images(len(T), 5, 4, 2)), side.tensor(draw(len(T), 5, 4, 2, seed=1))
    bound = side.bound.variational_bound_term(side.schedule(CONFIG), eps_model, x_0, side.times(T), eps, clip_x_0)
    return {f"t = {t}": term for t, term in zip(T, side.array(bound), strict=True)}


class OracleBound:
    """The oracle in the place of a tree's bound.Bound."""

    device_name, threads = "cpu", 1

    def __init__(self, side: Oracle, schedule: diffusion.Schedule, network: Network) -> None:
        self.side, self.schedule, self.network = side, schedule, network

    def prior(self, pixels: Array) -> Array:
        """As in bound.Bound."""
        x_0, _, _ = self.side.batch((pixels, np.empty(0, np.int32), np.empty(0)))
        return oracle_bound.prior_bits_per_dim(self.schedule, x_0)

    def term(self, arrays: batches.Arrays, labels: Array | None = None) -> Array:
        """As in bound.Bound; this network has no classes."""
        assert labels is None
        x_0, t, eps = self.side.batch(arrays)
        return oracle_bound.variational_bound_term(self.schedule, self.network, x_0, t, eps)


def _of_trained(side: Side) -> tuple[Array, Array]:
    """The prior [STRIDE] and terms [STRIDE, 1000 / STRIDE] of as many test images: each t, at one image."""
    loaded = checkpoint.load(TRAINED, ("ema",))
    config = side.configured(loaded.config)
    bound: bits_estimate.Bound
    if isinstance(side, Oracle):
        values = checkpoint.select(loaded, "ema", side.shapes_of(lambda torch: torch.network(config.model)))
        bound = OracleBound(side, side.schedule(config.diffusion), Network(values, config.model))
    else:
        network = side.network(config.model)
        side.assign(network, checkpoint.select(loaded, "ema", side.shapes(network)))
        bound = side.bound.Bound(side.sampler(network), config)
    pixels = datasets.load("fashion-mnist-10k")[1].images[:STRIDE]
    return bound.prior(pixels), bits_estimate.terms_of(bound, pixels, 0, SEED, STRIDE, config.diffusion.timesteps)


def _trained(side: Side, part: str) -> Arrays:
    prior, terms = side.keep("bound of the trained network", lambda: _of_trained(side))
    if part == "terms":
        return {"term": terms}
    found = bits_estimate.estimate(prior, terms, STRIDE, terms.size)
    return {name: np.array(found[name]) for name in ("bits_per_dim", "prior", "decoder")}


QUANTITIES = [
    Quantity("bound", "prior_bits_per_dim", _prior, PRIOR, elementwise),
    Quantity("bound", "discretized_gaussian_log_likelihood", _decoder, DECODER, of_the_largest),
    Quantity("bound", "variational_bound_term", partial(_terms, clip_x_0=True), BOUND_TERMS, elementwise),
    Quantity("bound", "variational_bound_term, not clipped", partial(_terms, clip_x_0=False), BOUND_TERMS, elementwise),
    Quantity("bound", "every term of a trained network", partial(_trained, part="terms"), TRAINED_TERMS, elementwise),
    Quantity("bound", "bits per dimension of it", partial(_trained, part="sum"), BITS_PER_DIM, elementwise),
]
