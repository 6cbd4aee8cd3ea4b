"""Bits per dimension of a trained network: `python -m ddpm_tf.evaluate --help`. Mirror: ddpm_torch.evaluate.

The Bound below is what the network is asked; ddpm_shared.likelihood asks it for every image and t.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ddpm_shared import cli, likelihood
from ddpm_shared.batches import Arrays
from ddpm_tf import bound, utils
from ddpm_tf.config import Config
from ddpm_tf.data import to_batch, to_images
from ddpm_tf.engine import EpsModel, make_schedule
from ddpm_tf.inference import load_model
from ddpm_tf.model import compiled


class Bound:
    """The terms of the variational bound of a network. All but the network computes in float64.

    Args:
        eps_model: the network, on the device and in the precision of `config`.
        config: its diffusion process is used.
        clip_x_0: as in bound.variational_bound_term.

    Mirror: ddpm_torch.evaluate.Bound.
    """

    def __init__(self, eps_model: EpsModel, config: Config, clip_x_0: bool = True) -> None:
        device = utils.select_device(config.device)
        self.dtype = utils.dtype(config.precision)
        self.schedule = make_schedule(config.diffusion, tf.float64)
        self.eps_model, self.clip_x_0 = eps_model, clip_x_0
        self.device_name, self.threads = utils.device_name(device), utils.threads()

    def prior(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """The term of the prior, [B] bits per dimension, of images [B, H, W, C] uint8."""
        x_0 = to_images(pixels, tf.float64)
        return bound.prior_bits_per_dim(self.schedule, x_0).numpy()

    def term(self, arrays: Arrays) -> NDArray[np.float64]:
        """The term of each image at its t, [B] bits per dimension.

        Args:
            arrays: images [B, H, W, C] uint8, t [B] int32, eps [B, H, W, C] float64.
        """

        def eps_model(x_t: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
            return tf.cast(self.eps_model(tf.cast(x_t, self.dtype), t), tf.float64)

        x_0, t, eps = to_batch(arrays, "fp64")
        return bound.variational_bound_term(self.schedule, eps_model, x_0, t, eps, self.clip_x_0).numpy()


def main(argv: Sequence[str] | None = None) -> int:
    """The evaluation command line. Returns the exit code; raises UserError for bad input."""
    plan = cli.parse_bound(utils.FRAMEWORK, argv)
    eps_model = compiled(load_model(plan.checkpoint, plan.prefix, plan.config))
    return likelihood.run(plan, Bound(eps_model, plan.config, plan.command.clip_x_0))


if __name__ == "__main__":
    cli.guard(main)
