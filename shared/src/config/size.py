"""How large a network is, by formula: its parameters, and the bytes that training and drawing take at least.

Nothing is made for it, so it is known before a framework is imported. The walk through the network is that of
networks/unet.py in either tree. The bytes are lower bounds: what they do not count (copies, workspaces, the framework
itself) comes on top, so a machine that has less than the bound cannot do the work. Of what the trees were seen to use
on a CPU, the bound of a training step is 0.5 to 0.75 (0.15 to 0.3 with --compile), that of drawing 0.2 to 0.65.
"""

from collections.abc import Iterator
from typing import NamedTuple

from ddpm_shared.config import Config

STATE = 4  # arrays of the weights' size: themselves, their average, and Adam's two moments


class Bytes(NamedTuple):
    """Memory that a piece of work takes at least."""

    host: int  # wherever the network is
    device: int  # where the network is: on a CPU, in the host's memory too


class Part(NamedTuple):
    """A part of the network."""

    parameters: int
    stored: int = 0  # values of each image that wait for the gradient
    worked: int = 0  # values of each image that are in use at once, without a gradient
    waiting: int = 0  # values of each image that wait for the way up


def num_parameters(config: Config) -> int:
    """Parameters of the network that `config` describes."""
    return sum(part.parameters for part in _parts(config))


def training(config: Config) -> Bytes:
    """Memory of a training step."""
    parts, batch = list(_parts(config)), config.training.batch_size
    weights = sum(part.parameters for part in parts) * _weight_bytes(config)
    activations = batch * sum(part.stored for part in parts) * _value_bytes(config)
    noise = 2 * batch * _image_values(config) * 8  # this batch's and the next one's, in float64
    # The gradients take the place of the activations, from the last layer to the first.
    return Bytes(noise, STATE * weights + max(activations, weights))


def drawing(config: Config, batch_size: int, num_images: int) -> Bytes:
    """Memory of drawing `num_images` images, so many at a time."""
    parts, batch = list(_parts(config)), min(batch_size, num_images)
    weights = sum(part.parameters for part in parts) * _weight_bytes(config)
    values = max(sum(part.waiting for part in parts), max(part.worked for part in parts))
    noise = batch * _image_values(config) * 8
    pixels = 2 * num_images * _image_values(config)  # the images, one byte a value, and their copy with the last batch
    return Bytes(noise + pixels, weights + batch * values * _value_bytes(config))


def _weight_bytes(config: Config) -> int:
    return 8 if config.precision == "fp64" else 4


def _value_bytes(config: Config) -> int:
    return {"fp32": 4, "bf16": 2, "fp64": 8}[config.precision]


def _image_values(config: Config) -> int:
    return config.model.image_size**2 * config.model.image_channels


def _parts(config: Config) -> Iterator[Part]:
    """The parts of the network in the order of networks/unet.py."""
    model = config.model
    embedded = 4 * model.base_channels
    # A compiler computes the cheap maps (normalisation, SiLU) again on the way back instead of storing them.
    copies = 1 if config.compile else 3  # of what goes in: itself, normalised, and through SiLU

    def stage(old: int, new: int, size: int, attention: bool, waits: bool) -> Iterator[Part]:
        convolutions = 9 * (old + new) * new + (old * new + new if old != new else 0)
        others = 2 * old + embedded * new + new + 2 * new + 2 * new  # norm_1, time, norm_2, two biases
        stored, worked = copies * (old + new) * size**2, copies * max(old, new) * size**2
        yield Part(convolutions + others, stored, worked, new * size**2 if waits else 0)
        if attention:
            # Stored: what goes in, normalised, q, k, v, the weights of all pairs of pixels, and their sum.
            yield Part(4 * new**2 + 5 * new, 6 * new * size**2 + size**4)

    resolutions = model.resolutions
    levels = [(model.base_channels * mult, size) for mult, size in zip(model.channel_mults, resolutions, strict=True)]
    channels, size = model.base_channels, model.image_size
    labels = (model.num_classes + 1) * embedded if model.num_classes else 0
    yield Part(channels * embedded + embedded + embedded**2 + embedded + labels)
    parameters = 9 * model.image_channels * channels + channels
    yield Part(parameters, model.image_channels * size**2, waiting=channels * size**2)
    skips = [channels]
    for level, (width, size) in enumerate(levels):
        for _ in range(model.num_res_blocks):
            yield from stage(channels, width, size, size in model.attention_resolutions, waits=True)
            channels = width
            skips.append(channels)
        if level < len(levels) - 1:
            halved = resolutions[level + 1] ** 2
            yield Part(9 * channels**2 + channels, channels * size**2, waiting=channels * halved)
            skips.append(channels)
    smallest = resolutions[-1]
    for attention in (smallest in model.attention_resolutions, False):
        yield from stage(channels, channels, smallest, attention, waits=False)
    for level, (width, size) in reversed(list(enumerate(levels))):
        for _ in range(model.num_res_blocks + 1):
            yield from stage(channels + skips.pop(), width, size, size in model.attention_resolutions, waits=False)
            channels = width
        if level > 0:
            yield Part(9 * channels**2 + channels, channels * resolutions[level - 1] ** 2)
    yield Part(2 * channels + 9 * channels * config.out_channels + config.out_channels, copies * channels * size**2)
