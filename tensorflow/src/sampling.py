"""Noise in, pixels out, by the weights of a checkpoint and any sampler. Mirror: ddpm_torch.sampling."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ddpm_shared import streams
from ddpm_shared.cli import InversionPlan, NetworkPlan, SamplePlan
from ddpm_shared.errors import UserError
from ddpm_shared.samplers import Sampling
from ddpm_shared.sampling import OnStep
from ddpm_tf import data, model, utils
from ddpm_tf.config import Config
from ddpm_tf.engine import Schedule, make_schedule
from ddpm_tf.prediction import Network, Predicted, denoise, make_limit
from ddpm_tf.samplers import SAMPLERS, Denoiser, ddim, ddim_invert, slerp


def make_denoiser(network: Network, config: Config, sampling: Sampling) -> tuple[Schedule, Denoiser]:
    """What a sampler runs on: the process in as many steps as `sampling` says, and the network asked at these steps.

    Args:
        network: on the device and in the precision of `config`.
        config: its diffusion process is used, and what the network tells of it.
        sampling: its steps, spacing and limits of x_0 are used.

    Returns:
        The schedule of N steps, and (x_t, i) -> what the network says of it.

    Raises:
        UserError: more steps than the process has.

    Mirror: ddpm_torch.sampling.make_denoiser.
    """
    dtype = utils.dtype(config.precision)
    times = sampling.times(config.diffusion.timesteps)
    whole = make_schedule(config.diffusion, dtype)  # a network speaks of the process that it was trained on
    limit = make_limit(sampling.clip_x_0, sampling.dynamic_threshold)

    def ask(x_t: tf.Tensor, i: int) -> Predicted:
        t = tf.fill([len(x_t)], times[i])
        return denoise(whole, network, config.diffusion, x_t, t, limit)

    return make_schedule(config.diffusion, dtype, times), ask


def sample(
    network: Network,
    config: Config,
    sampling: Sampling,
    seed: int,
    num_images: int,
    first: int = 0,
    on_step: Callable[[int, tf.Tensor], None] = lambda i, x: None,
    columns: int | None = None,
) -> NDArray[np.uint8]:
    """Draw the images first .. first + num_images - 1 of `seed`.

    Args:
        network: on the device and in the precision of `config`.
        config: its diffusion process and image size are used, and what the network tells.
        sampling: by which sampler, and how.
        seed: of x_T and z.
        num_images: B, drawn at once.
        first: index of the first image; an image depends on seed and index alone, not on B.
        on_step: called with (i, x_prev [B, H, W, C]) after each step, i = N - 1 .. 0.
        columns: instead of noise of their own, each so many images start between two noises, from one to the other.

    Returns:
        [B, H, W, C] uint8.

    Raises:
        UserError: more steps than the process has; images that are not finite.

    Mirror: ddpm_torch.sampling.sample.
    """
    dtype = utils.dtype(config.precision)
    size, channels = config.model.image_size, config.model.image_channels
    times = sampling.times(config.diffusion.timesteps)

    def noise(stream: str, step: int, first: int = first, count: int = num_images) -> tf.Tensor:
        drawn = streams.normal(seed, stream, step, (count, size, size, channels), first)
        return tf.cast(data.to_tensor(drawn), dtype)

    def between(index: int, columns: int) -> tf.Tensor:
        row, column = divmod(index, columns)
        left, right = tf.split(noise(streams.SAMPLE_X_T, 0, 2 * row, 2), 2)
        return slerp(left, right, tf.fill([1], tf.constant(column / (columns - 1), dtype)))

    x_T = noise(streams.SAMPLE_X_T, 0)  # noqa: N806 (the paper's capital T)
    if columns:
        x_T = tf.concat([between(index, columns) for index in range(first, first + num_images)], axis=0)  # noqa: N806
    schedule, ask = make_denoiser(network, config, sampling)
    sampler = SAMPLERS[sampling.sampler]
    chain = sampler(schedule, ask, x_T, lambda i: noise(streams.SAMPLE_Z, times[i]), **sampling.options)
    for i, x_prev in chain:
        on_step(i, x_prev)
    if not bool(tf.reduce_all(tf.math.is_finite(x_prev))):
        raise UserError(
            f"--sampler {sampling.sampler} --steps {len(times)}: the images are not finite; take more steps, "
            "--clip-x-0, another sampler or another checkpoint"
        )
    return data.to_pixels(x_prev)


class Loaded:
    """The network of a checkpoint and the settings of a command.

    Args:
        plan: the checked command.

    Raises:
        UserError: a GPU is asked for where there is none; the tensors do not fit the network.

    Mirror: ddpm_torch.sampling.Loaded.
    """

    def __init__(self, plan: NetworkPlan) -> None:
        self.config = plan.config
        self.device = utils.select_device(plan.config.device)
        self.device_name, self.threads = utils.device_name(self.device), utils.threads()
        self.network = model.load(plan.checkpoint, plan.prefix, plan.config)


class Sampler(Loaded):
    """What ddpm_shared.sampling draws with. Mirror: ddpm_torch.sampling.Sampler."""

    def __init__(self, plan: SamplePlan) -> None:
        super().__init__(plan)
        self.command = plan.command

    def draw(self, first: int, count: int, on_step: OnStep) -> NDArray[np.uint8]:
        """The images first .. first + count - 1, [count, H, W, C]; on_step(i, the images at that time) after a step."""
        command = self.command

        def watch(i: int, x: tf.Tensor) -> None:
            on_step(i, lambda: data.to_pixels(x))

        return sample(
            self.network, self.config, command.sampling, command.seed, count, first, watch, command.interpolate
        )


class Inverter(Loaded):
    """What ddpm_shared.inversion goes from images to noise and back with. Mirror: ddpm_torch.sampling.Inverter."""

    def __init__(self, plan: InversionPlan) -> None:
        super().__init__(plan)
        self.sampling, self.iterations = plan.command.sampling, plan.command.iterations

    def there_and_back(
        self, pixels: NDArray[np.uint8], on_step: Callable[[], None]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The noise that DDIM would draw the images from, and what it then draws, both [B, H, W, C].

        Args:
            pixels: [B, H, W, C] uint8.
            on_step: called after each step, there and back.
        """
        schedule, ask = make_denoiser(self.network, self.config, self.sampling)
        x_0 = data.to_images(pixels, utils.dtype(self.config.precision))
        for _, noise in ddim_invert(schedule, ask, x_0, self.iterations):  # noqa: B007 (the last one is wanted)
            on_step()
        for _, back in ddim(schedule, ask, noise, lambda i: noise):  # noqa: B007
            on_step()
        return data.to_array(noise), data.to_array(back)
