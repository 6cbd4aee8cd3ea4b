"""Noise in, pixels out, by the weights of a checkpoint: algorithm 2 of the paper. Mirror: ddpm_tf.sampling."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddpm_shared import checkpoint, streams
from ddpm_shared.checkpoint import Checkpoint
from ddpm_shared.cli import SamplePlan
from ddpm_shared.sampling import OnStep
from ddpm_torch import data, utils
from ddpm_torch.config import Config
from ddpm_torch.engine import EpsModel, make_schedule, p_sample_loop
from ddpm_torch.model import UNet, compiled


@torch.no_grad()
def sample(
    eps_model: EpsModel,
    config: Config,
    seed: int,
    num_images: int,
    first: int = 0,
    on_step: Callable[[int, Tensor], None] = lambda t, x: None,
    clip_x_0: bool = True,
) -> NDArray[np.uint8]:
    """Draw the images first .. first + num_images - 1 of `seed` by the ancestral sampler.

    Args:
        eps_model: the network, on the device and in the precision of `config`.
        config: its diffusion process and image size are used.
        seed: of x_T and z.
        num_images: B, drawn at once.
        first: index of the first image; an image depends on seed and index alone, not on B.
        on_step: called with (t, x_prev [B, C, H, W]) after each step.
        clip_x_0: as in engine.p_sample.

    Returns:
        [B, H, W, C] uint8.

    Mirror: ddpm_tf.sampling.sample.
    """
    dtype, device = utils.dtype(config.precision), utils.select_device(config.device)
    size, channels = config.model.image_size, config.model.image_channels

    def noise(stream: str, step: int) -> Tensor:
        drawn = streams.normal(seed, stream, step, (num_images, size, size, channels), first)
        return data.to_tensor(drawn, device).to(dtype)

    schedule = make_schedule(config.diffusion, dtype, device)
    x_T = noise(streams.SAMPLE_X_T, 0)  # noqa: N806 (the paper's capital T)
    for t, x_prev in p_sample_loop(schedule, eps_model, x_T, lambda t: noise(streams.SAMPLE_Z, t), clip_x_0):
        on_step(t, x_prev)
    return data.to_pixels(x_prev)


def load_model(loaded: Checkpoint, prefix: str, config: Config) -> EpsModel:
    """The network of a checkpoint of either framework, ready to be called as `config` says: where and how.

    Args:
        loaded: with the tensors under `prefix`.
        prefix: "ema" for the averaged weights, "model" for the weights themselves.
        config: the checkpoint's, with the precision, device, threads and compiling that are wanted.

    Raises:
        UserError: the tensors do not fit the network.

    Mirror: ddpm_tf.sampling.load_model.
    """
    utils.set_threads(config.threads)
    model = UNet(config.model, precision=config.precision).to(utils.select_device(config.device))
    parameters = dict(model.named_parameters())
    values = checkpoint.select(loaded, prefix, {name: tuple(p.shape) for name, p in parameters.items()})
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(torch.from_numpy(values[name]))
    return compiled(model, config.compile)


class Sampler:
    """What ddpm_shared.sampling draws with: the network of a checkpoint and the settings of a command.

    Args:
        plan: the checked command.

    Raises:
        UserError: a GPU is asked for where there is none; the tensors do not fit the network.

    Mirror: ddpm_tf.sampling.Sampler.
    """

    def __init__(self, plan: SamplePlan) -> None:
        self.plan = plan
        self.device_name = utils.device_name(utils.select_device(plan.config.device))
        self.eps_model = load_model(plan.checkpoint, plan.prefix, plan.config)

    def draw(self, first: int, count: int, on_step: OnStep) -> NDArray[np.uint8]:
        """The images first .. first + count - 1, [count, H, W, C]; on_step(t, the images at that time) after a step."""
        command = self.plan.command

        def watch(t: int, x: Tensor) -> None:
            on_step(t, lambda: data.to_pixels(x))

        return sample(self.eps_model, self.plan.config, command.seed, count, first, watch, command.clip_x_0)
