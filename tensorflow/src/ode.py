"""The density of images by the probability-flow ODE, which takes an image to noise without drawing any.

In x_bar = x / alpha, as a function of u = sigma / alpha, the ODE and the density along it are those of every process,

    d x_bar / du = eps(x)        d log p(x_bar) / d log u = -sigma trace(d eps / dx)

At the noisiest level p is the prior, N(0, prior_scale^2). Followed backwards from there, it is the density of x at
level 0, whose noise is the smallest, not that of the clean image. There sigma is 0.01 for ddpm, vp and ve, 0.002 for
edm and 0.001 for flow, where neighbouring grey levels are 0.0078 apart. Noise of that size has its price: a pixel that
is always black, blurred by 0.01, still costs 1.7 bits. At flow's t = 1 there is no alpha to divide by, so its levels
end at SNR_LAST.

The trace is integrated over log u, where it is almost constant as long as the noise is larger than the data's detail.
All but the network computes in float64. Probes and uniform numbers are arguments; nothing here draws a number.

Mirror: ddpm_torch.ode. Letters as in engine.py.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ddpm_tf import data, utils
from ddpm_tf.config import Config, DiffusionConfig
from ddpm_tf.engine import make_schedule
from ddpm_tf.guidance import LabelledNetwork, condition
from ddpm_tf.preconditioning import precondition
from ddpm_tf.prediction import denoise, level_at, level_of
from ddpm_tf.processes import Levels, log_snr, make_grid, make_levels, prior_scale

# (x, i) -> eps [B, H, W, C] and trace(d eps / dx) [B]
Divergence = Callable[[tf.Tensor, int], tuple[tf.Tensor, tf.Tensor]]

GREY_LEVELS = 127.5  # in a unit of x, which is in [-1, 1]


def dequantise(pixels: tf.Tensor, u: tf.Tensor) -> tf.Tensor:
    """Grey levels as numbers that have a density: each is spread evenly over its bin, which is 2/255 wide.

    x = (pixels + u - 1/2) / 127.5 - 1

    Args:
        pixels: [B, H, W, C], 0 .. 255.
        u: [B, H, W, C], uniform in (0, 1).

    Returns:
        [B, H, W, C] float64, around data.to_images(pixels).

    Source: Theis et al. 2016 (arXiv:1511.01844), section 3.1.
    Mirror: ddpm_torch.ode.dequantise.
    """
    return (tf.cast(pixels, tf.float64) + u - 0.5) / GREY_LEVELS - 1.0


def bits_per_dim(log_density: tf.Tensor, dimensions: int) -> tf.Tensor:
    """Bits of a grey level, from the density of dequantised images: on average an upper bound of -log2 P(pixels) / D.

    bits = -log2 p(x) / D + log2 127.5

    A grey level's bin has the width 1 / 127.5, so its probability is about p(x) / 127.5, whose -log2 is 6.994 bits more
    than that of p(x).

    Args:
        log_density: log p(x), [B], in nats.
        dimensions: D, the numbers in an image.

    Returns:
        [B].

    Source: Theis et al. 2016 (arXiv:1511.01844), eq. 3-5, for the bound.
    Mirror: ddpm_torch.ode.bits_per_dim.
    """
    return -log_density / (dimensions * math.log(2.0)) + math.log2(GREY_LEVELS)


def log_normal(x: tf.Tensor, deviation: float) -> tf.Tensor:
    """The logarithm of the density of N(0, deviation^2 I) at x [B, H, W, C]: [B], in nats.

    Mirror: ddpm_torch.ode.log_normal.
    """
    squares = (x / deviation) ** 2 + math.log(2.0 * math.pi) + 2.0 * math.log(deviation)
    return -0.5 * tf.reduce_sum(squares, axis=[1, 2, 3])


def hutchinson(
    function: Callable[[tf.Tensor], tf.Tensor], x: tf.Tensor, probe: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """function(x), and v^T J v with its Jacobian J: on average over the probe v the trace of J.

    Args:
        function: [B, H, W, C] -> [B, H, W, C], image by image.
        x: [B, H, W, C].
        probe: [B, H, W, C], v: independent numbers of mean 0 and variance 1, for example signs.

    Returns:
        [B, H, W, C] and [B].

    Source: Hutchinson 1989; Grathwohl et al. 2019 (arXiv:1810.01367), eq. 7, for a density.
    Mirror: ddpm_torch.ode.hutchinson.
    """
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        value = function(x)
    product = tape.gradient(value, x, probe)  # v^T J
    return value, tf.reduce_sum(product * probe, axis=[1, 2, 3])


def exact_trace(
    divergence: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]],
    x: tf.Tensor,
    on_entry: Callable[[], None] = lambda: None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """function(x), and the trace of its Jacobian: the sum of e^T J e over all unit vectors e, one product each.

    Args:
        divergence: probe -> what `hutchinson` returns at x with it.
        x: [B, H, W, C].
        on_entry: called after each entry of the trace.

    Returns:
        [B, H, W, C] and [B].

    Mirror: ddpm_torch.ode.exact_trace.
    """
    trace = tf.zeros([len(x)], x.dtype)
    dimensions = math.prod(x.shape[1:])
    for index in range(dimensions):
        unit = tf.reshape(tf.one_hot(index, dimensions, dtype=x.dtype), [1, *x.shape[1:]])
        value, entry = divergence(tf.broadcast_to(unit, x.shape))
        trace = trace + entry
        on_entry()
    return value, trace


def log_density(
    levels: Levels,
    eps: Callable[[tf.Tensor, int], tf.Tensor],
    divergence: Divergence,
    x: tf.Tensor,
    deviation: float,
    on_step: Callable[[int, tf.Tensor], None] = lambda i, x: None,
) -> tf.Tensor:
    """The logarithm of the density of x at level 0, by Heun's method from level to level.

    x_bar_next = x_bar + (u_next - u) (eps(x) + eps(where Euler's step leads)) / 2
    log p(x) = log N(x_T; 0, deviation^2) + D log(alpha_T / alpha) + the integral of sigma trace(d eps / dx) over log u

    D log(alpha_T / alpha) is the change of volume between x_bar and x at both ends. The integral is by the trapezoidal
    rule, with one trace a level, where the corrected step arrives. The error falls with the square of the steps.

    Args:
        levels: N of them, with alpha above 0.
        eps: (x, i) -> the noise in x that the network predicts at level i.
        divergence: (x, i) -> the same, and the trace of its Jacobian.
        x: [B, H, W, C] float64, at level 0.
        deviation: of the prior.
        on_step: called with (i, x) at each level, i = 0 .. N - 1.

    Returns:
        [B], in nats.

    Source: Song et al. 2021 (arXiv:2011.13456), eq. 39; Chen et al. 2018 (arXiv:1806.07366), eq. 8.
    Mirror: ddpm_torch.ode.log_density.
    """
    slope, trace = divergence(x, 0)
    integral = tf.zeros_like(trace)
    on_step(0, x)
    for i in range(1, len(levels)):
        (alpha, sigma), (alpha_next, sigma_next) = levels.level(i - 1), levels.level(i)
        length = sigma_next / alpha_next - sigma / alpha
        there = eps(alpha_next * (x / alpha + length * slope), i)
        x = alpha_next * (x / alpha + length * 0.5 * (slope + there))
        here = sigma * trace
        slope, trace = divergence(x, i)
        integral = integral + levels.step(i) * 0.5 * (here + sigma_next * trace)
        on_step(i, x)
    volume = math.prod(x.shape[1:]) * math.log(levels.level(len(levels) - 1)[0] / levels.level(0)[0])
    return log_normal(x, deviation) + volume + integral


def whole_times(log_snr: NDArray[np.float64], steps: int) -> list[int]:
    """`steps` of the times 0 .. T - 1, as evenly in log-SNR as whole times can be: all where they are scarce.

    Each next one is nearest to an even share of what is left of the way.

    Args:
        log_snr: [T], of the times, descending.
        steps: N, 2 .. T.

    Returns:
        N times, ascending, the first and the last among them.

    Mirror: ddpm_torch.ode.whole_times.
    """
    last = len(log_snr) - 1
    times = [0]
    for left in range(steps - 1, 0, -1):
        here = log_snr[times[-1]]
        nearest = int(np.abs(log_snr - (here + (log_snr[last] - here) / left)).argmin())
        times.append(min(max(nearest, times[-1] + 1), last - (left - 1)))
    return times


def ode_levels(config: DiffusionConfig, steps: int, grid: str, rho: float = 7.0) -> Levels:
    """The levels of the ODE in a process, from the smallest noise to the largest that leaves any signal.

    Args:
        config: of the process.
        steps: N, 2 or more.
        grid: "log_snr" or "karras", of make_grid; ddpm, whose times are whole, has whole_times.
        rho: of karras.

    Mirror: ddpm_torch.ode.ode_levels.
    """
    if config.process != "ddpm":
        return make_levels(config, make_grid(config, steps, grid, config.process, rho))
    every = make_levels(config, np.arange(config.timesteps))
    signal = int(np.count_nonzero(every.alpha > 0.0))  # with zero_terminal_snr the last time has none
    snr = log_snr(config, tf.range(signal), "ddpm").numpy()
    return make_levels(config, np.array(whole_times(snr, min(steps, signal))))


class Likelihood:
    """The density that a network gives to images. All but the network computes in float64.

    Args:
        network: (x_t, t, labels=None) -> output, on the device and in the precision of `config`.
        config: its diffusion process is used, and what the network predicts.
        levels: of ode_levels.

    Mirror: ddpm_torch.ode.Likelihood.
    """

    def __init__(self, network: LabelledNetwork, config: Config, levels: Levels) -> None:
        device, self.dtype = utils.select_device(config.device), utils.dtype(config.precision)
        self.device_name, self.threads = utils.device_name(device), utils.threads()
        self.network, self.config, self.levels = network, config.diffusion, levels
        self.smallest_noise = levels.level(0)[1]
        self.discrete = config.diffusion.process == "ddpm"
        self.schedule = make_schedule(config.diffusion, tf.float64)
        self.prior_scale = prior_scale(config.diffusion, config.diffusion.process)
        size, channels = config.model.image_size, config.model.image_channels
        images = tf.TensorSpec([None, size, size, channels], tf.float64)
        times = tf.TensorSpec([None], tf.int32 if self.discrete else tf.float64)

        # A graph for every batch size, in which TensorFlow leaves out the gradients of the weights.
        def graph(*more: tf.TensorSpec) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
            return tf.function(self._product, input_signature=[images, times, images, *more], autograph=False)

        self._unlabelled, self._labelled = graph(), graph(tf.TensorSpec([None], tf.int64))

    def eps(self, x: tf.Tensor, t: tf.Tensor, labels: tf.Tensor | None = None) -> tf.Tensor:
        """The noise in x [B, H, W, C] that the network predicts at the times t [B], not clipped."""
        conditional = condition(self.network, labels)

        def network(x_t: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
            return tf.cast(conditional(tf.cast(x_t, self.dtype), t), tf.float64)

        level = level_of(self.schedule, t) if self.discrete else level_at(self.config, t, tf.float64)
        return denoise(level, precondition(network, self.config), self.config, x, t, None).eps

    def product(
        self, x: tf.Tensor, t: tf.Tensor, probe: tf.Tensor, labels: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """`hutchinson` of eps at x [B, H, W, C] and t [B] with a probe [B, H, W, C]."""
        return self._unlabelled(x, t, probe) if labels is None else self._labelled(x, t, probe, labels)

    def _product(
        self, x: tf.Tensor, t: tf.Tensor, probe: tf.Tensor, labels: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        return hutchinson(lambda x: self.eps(x, t, labels), x, probe)

    def divergence(
        self,
        x: tf.Tensor,
        i: int,
        probes: Sequence[tf.Tensor] | None,
        labels: tf.Tensor | None = None,
        on_products: Callable[[int], None] = lambda count: None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The noise that the network predicts in x [B, H, W, C] at level i, and the trace of its Jacobian, [B].

        Args:
            x: [B, H, W, C] float64.
            i: 0 .. N - 1.
            probes: K times [B, H, W, C]: the trace is the mean of K estimates; None: exact.
            labels: [B].
            on_products: as in `bits`.
        """
        t = self._times(i, x)
        if probes is None:
            return exact_trace(lambda unit: self.product(x, t, unit, labels), x, lambda: on_products(len(x)))
        traces = []
        for probe in probes:
            value, trace = self.product(x, t, probe, labels)
            traces.append(trace)
            on_products(len(x))
        return value, tf.reduce_mean(tf.stack(traces), axis=0)

    def bits(
        self,
        pixels: NDArray[np.uint8],
        u: NDArray[np.float64],
        probes: NDArray[np.float64] | None,
        labels: NDArray[np.int64] | None = None,
        on_products: Callable[[int], None] = lambda count: None,
    ) -> NDArray[np.float64]:
        """Bits per dimension of each image, [B].

        Args:
            pixels: [B, H, W, C] uint8.
            u: [B, H, W, C], uniform in (0, 1), of dequantise.
            probes: [K, B, H, W, C]: the trace is the mean of K estimates; None: exact.
            labels: [B], the classes of the images; None: none.
            on_products: called with the number of products with Jacobians just computed, B at a time.
        """
        classes = None if labels is None else data.to_labels(labels)
        given = None if probes is None else [data.to_tensor(probe) for probe in probes]

        def eps(x: tf.Tensor, i: int) -> tf.Tensor:
            return self.eps(x, self._times(i, x), classes)

        def divergence(x: tf.Tensor, i: int) -> tuple[tf.Tensor, tf.Tensor]:
            return self.divergence(x, i, given, classes, on_products)

        x = dequantise(data.to_tensor(pixels), data.to_tensor(u))
        found = log_density(self.levels, eps, divergence, x, self.prior_scale)
        return bits_per_dim(found, math.prod(x.shape[1:])).numpy()

    def _times(self, i: int, x: tf.Tensor) -> tf.Tensor:
        """The time of level i, for each image."""
        time = self.levels.time(i)
        # Not tf.cast, which makes float32 of a number on its way.
        whole = tf.constant(int(time), tf.int32) if self.discrete else tf.constant(time, tf.float64)
        return tf.fill([len(x)], whole)
