"""Noise in, pixels out, by a trained network and any sampler. Mirror: ddpm_torch.sampling."""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ddpm_shared import streams
from ddpm_shared.config.sampling import Draw, Sampling
from ddpm_shared.errors import UserError
from ddpm_tf import data, utils
from ddpm_tf.config import Config
from ddpm_tf.engine import make_schedule
from ddpm_tf.guidance import LabelledNetwork, condition
from ddpm_tf.preconditioning import precondition
from ddpm_tf.prediction import Predicted, denoise, level_at, level_of, make_clipping
from ddpm_tf.processes import prior_scale, times_at_ratio
from ddpm_tf.samplers import SAMPLERS, ddim, ddim_invert, last, slerp
from ddpm_tf.solvers import Waypoints, churned
from ddpm_tf.stations import Stations, make_stations, stations_at


class Sampler:
    """A network wired to its process, and a sampler on some levels of it: all that is the same for every batch.

    Args:
        network: (x_t, t, labels=None) -> output, on the device and in the precision of `config`.
        config: its diffusion process and image size are used, and what the network predicts.
        sampling: the sampler, its levels, the clipping of x_0, and the guidance.

    Raises:
        UserError: more steps than the process has.

    Mirror: ddpm_torch.sampling.Sampler.
    """

    def __init__(self, network: LabelledNetwork, config: Config, sampling: Sampling) -> None:
        self.network, self.config, self.codec = network, config, data.PIXELS
        self.dtype, self.device = utils.dtype(config.precision), utils.select_device(config.device)
        self.device_name, self.threads = utils.device_name(self.device), utils.threads()
        self.sampling = sampling.resolved_for(config.diffusion)
        self.process = self.sampling.process or config.diffusion.process
        self.stations = make_stations(config.diffusion, self.sampling)
        self.levels, self.times = self.stations.levels, self.stations.times
        # The network was trained on the whole process, whatever levels the sampler visits.
        self.schedule = make_schedule(config.diffusion, self.dtype)
        # The deviation of x_T in the network's process, in units of the one that is drawn in.
        self.prior_scale = prior_scale(config.diffusion, config.diffusion.process) / self.stations.scales[-1]
        self.clipping = make_clipping(sampling.clip_x_0, sampling.dynamic_threshold, self.codec.limits)

    def denoise(self, x: tf.Tensor, i: int, labels: tf.Tensor | None = None) -> Predicted:
        """What the network predicts of x [B, H, W, C] at level i, guided towards labels [B], if there are any."""
        return self._denoise_at(self.stations, x, i, labels)

    def _denoise_at(self, stations: Stations, x: tf.Tensor, i: int, labels: tf.Tensor | None) -> Predicted:
        diffusion, time, scale = self.config.diffusion, stations.times[i], stations.scales[i]
        x_t = x if scale == 1.0 else scale * x
        network = precondition(condition(self.network, labels, self.sampling.guidance_at(time)), diffusion)
        if diffusion.process == "ddpm":
            t = tf.fill([len(x)], tf.constant(time, tf.int32))
            level = level_of(self.schedule, t, diffusion.sigma_data)
        else:
            t = tf.fill([len(x)], tf.constant(time, tf.float64))
            level = level_at(diffusion, t, self.dtype)
        return denoise(level, network, diffusion, x_t, t, self.clipping)

    def _options(self, draw: Draw, labels: tf.Tensor | None) -> dict[str, Any]:
        """The arguments of the sampler that others lack."""
        diffusion, sampling, levels = self.config.diffusion, self.sampling, self.levels
        options = sampling.options

        def waypoints(times: NDArray[np.float64]) -> Waypoints:
            stations = stations_at(diffusion, self.process, times, ordered=False)
            return Waypoints(stations.levels, functools.partial(self._denoise_at, stations, labels=labels))

        if sampling.sampler == "rk4":
            options["middle"] = waypoints((levels.times + np.append(0.0, levels.times[:-1])) / 2.0)
        if sampling.churn > 0:
            ratios = churned(
                levels,
                sampling.churn,
                sampling.churn_from,
                math.inf if sampling.churn_to is None else sampling.churn_to,
            )
            options["raised"] = waypoints(times_at_ratio(diffusion, ratios, self.process))
        if sampling.sampler == "pc":
            first = sampling.corrector_steps
            options["corrector_z_at"] = lambda i, k: self._noise_of(draw, streams.SAMPLE_CORRECTOR, first * i + k)
        return options

    def draw(self, draw: Draw, on_step: Callable[[int, tf.Tensor], None] = lambda i, x: None) -> NDArray[np.uint8]:
        """Draw a batch of images.

        Args:
            draw: which images: an image depends on seed and index alone, not on its batch.
            on_step: called with (i, x_prev [B, H, W, C]) after each step, i = N - 1 .. 0.

        Returns:
            [B, H, W, C] uint8.

        Raises:
            UserError: images that are not finite.
        """
        sampler = SAMPLERS[self.sampling.sampler]
        x_T = self.prior_scale * self._first_noise(draw)  # noqa: N806 (the paper's capital T)
        labels = self._labels(draw.labels)
        chain = sampler(
            self.levels,
            functools.partial(self.denoise, labels=labels),
            x_T,
            functools.partial(self._step_noise, draw),
            **self._options(draw, labels),
        )
        x_0 = last(chain, on_step)
        if not bool(tf.reduce_all(tf.math.is_finite(x_0))):
            raise UserError(
                f"--sampler {self.sampling.sampler} --steps {len(self.times)}: the images are not finite; take more "
                "steps, --clip-x-0, another sampler or another checkpoint"
            )
        return self.codec.decode(x_0)

    def to_pixels(self, x: tf.Tensor) -> NDArray[np.uint8]:
        """The images [B, H, W, C] that x stands for: what on_step may want to show."""
        return self.codec.decode(x)

    def _noise(self, seed: int, stream: str, step: int, first: int, count: int) -> tf.Tensor:
        size, channels = self.config.model.image_size, self.config.model.image_channels
        numbers = streams.normal(seed, stream, step, (count, size, size, channels), first)
        return tf.cast(data.to_tensor(numbers), self.dtype)

    def _step_noise(self, draw: Draw, i: int) -> tf.Tensor:
        """The noise of step i: by its time, where that is a whole number, else by i."""
        if self.config.diffusion.process == "ddpm":
            return self._noise_of(draw, streams.SAMPLE_Z, int(self.times[i]))
        return self._noise_of(draw, streams.SAMPLE_STEP, i)

    def _noise_of(self, draw: Draw, stream: str, step: int) -> tf.Tensor:
        """The noise of each image of a batch."""
        row = np.arange(draw.first, draw.first + draw.count) // draw.same_noise
        noise = self._noise(draw.seed, stream, step, int(row[0]), int(row[-1] - row[0]) + 1)
        return noise if draw.same_noise == 1 else tf.gather(noise, row - row[0])

    def _labels(self, labels: NDArray[np.generic] | None) -> tf.Tensor | None:
        return None if labels is None else data.to_labels(labels)

    def _first_noise(self, draw: Draw) -> tf.Tensor:
        """x_T of each image: its own, or, in rows of `columns`, between two on the great circle."""
        if draw.columns is None:
            return self._noise_of(draw, streams.SAMPLE_X_T, 0)
        between = []
        for index in range(draw.first, draw.first + draw.count):
            row, column = divmod(index, draw.columns)
            left, right = tf.split(self._noise(draw.seed, streams.SAMPLE_X_T, 0, 2 * row, 2), 2)
            weight = tf.fill([1], tf.constant(column / (draw.columns - 1), self.dtype))
            between.append(slerp(left, right, weight))
        return tf.concat(between, axis=0)


def sample(
    network: LabelledNetwork, config: Config, sampling: Sampling, seed: int, num_images: int, first: int = 0
) -> NDArray[np.uint8]:
    """Draw the images first .. first + num_images - 1 of `seed`, [B, H, W, C] uint8: the shortest way to a picture.

    Args and Raises: as in Sampler and Draw.

    Mirror: ddpm_torch.sampling.sample.
    """
    return Sampler(network, config, sampling).draw(Draw(seed, first, num_images))


class Inverter(Sampler):
    """DDIM from images to noise and back.

    Args:
        network: as in Sampler.
        config: as in Sampler.
        sampling: DDIM, without clipping of x_0.
        iterations: of each step to the noise.

    Mirror: ddpm_torch.sampling.Inverter.
    """

    def __init__(self, network: LabelledNetwork, config: Config, sampling: Sampling, iterations: int = 1) -> None:
        super().__init__(network, config, sampling)
        self.iterations = iterations

    def there_and_back(
        self, pixels: NDArray[np.uint8], on_step: Callable[[], None], labels: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The noise that DDIM would draw the images from, and what it then draws, both [B, H, W, C].

        Args:
            pixels: [B, H, W, C] uint8.
            on_step: called after each step, there and back.
            labels: [B], the classes of the images; None: none.
        """
        x_0 = self.codec.encode(pixels, self.dtype)
        denoise = functools.partial(self.denoise, labels=self._labels(labels))
        noise = last(ddim_invert(self.levels, denoise, x_0, self.iterations), lambda i, x: on_step())
        back = last(ddim(self.levels, denoise, noise, lambda i: noise), lambda i, x: on_step())
        return data.to_array(noise) / self.prior_scale, data.to_array(back)
