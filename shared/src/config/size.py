"""How large a network is, by formula: its parameters, and the bytes that training and drawing take at least.

Nothing is made for it, so it is known before a framework is imported. The walks through the networks are those of the
files in networks/ in either tree. The bytes are lower bounds: what they do not count
(copies, workspaces, the framework itself) comes on top, so a machine that has less than the bound cannot do the work.
Of what the trees were seen to use on a CPU, the bound of a training step is 0.5 to 0.9 (0.15 to 0.3 with --compile),
that of drawing 0.2 to 0.65.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from ddpm_shared.config import Config, NetworkName

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
    """The parts of the network in the order of its file in networks/."""
    return _WALKS[config.model.network](config)


def _convolution(old: int, new: int, side: int = 3) -> int:
    return side**2 * old * new + new


def _linear(old: int, new: int) -> int:
    return old * new + new


def _labels(config: Config, dim: int) -> int:
    return (config.model.num_classes + 1) * dim if config.model.num_classes else 0


def _attention(dim: int, tokens: int, heads: int) -> Part:
    # Maps: q, k without a bias, v, and out. Stored: what goes in, normalised, q, k, v, the sum and the weights of all
    # pairs of tokens.
    pairs = heads * tokens**2
    return Part(4 * dim**2 + 3 * dim, 6 * dim * tokens + pairs, max(4 * dim * tokens, pairs))


def _unet(config: Config) -> Iterator[Part]:
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


def _transformer_unet(config: Config) -> Iterator[Part]:
    model = config.model
    widths = [model.base_channels * mult for mult in model.channel_mults]
    levels, dim = list(zip(widths, model.resolutions, strict=True)), widths[-1]
    # Of a level: what goes into the normalisation, into GELU, and on. A compiler computes the cheap maps again.
    copies = 1 if config.compile else 3

    def level(width: int, size: int, waits: bool = False) -> Part:
        values = width * size**2
        return Part(dim * width + 3 * width, copies * values, 2 * values, values if waits else 0)

    def transformer(width: int, size: int) -> Part:
        # Maps: 4 from the tokens and 2 from the context for attention, 8 of feed-forward; 3 normalisations; biases.
        parameters = 12 * width**2 + 2 * dim * width + 15 * width
        # Stored: q, k, v and the sums after each part, 4 of feed-forward; and, if not computed again, normalised three
        # times and 4 through GELU. Besides, the weights of all pairs of pixels.
        values, pairs = width * size**2, size**4
        return Part(parameters, (10 if config.compile else 17) * values + pairs, max(8 * values, pairs))

    yield Part(dim**2 + dim + (model.num_classes + 1) * dim)
    yield Part(_convolution(model.image_channels, widths[0]), model.image_channels * model.image_size**2)
    for number, (width, size) in enumerate(levels):
        if number > 0:
            yield Part(_convolution(widths[number - 1], width))
        yield level(width, size, waits=number < len(levels) - 1)
        if number >= len(levels) - 2:
            yield transformer(width, size)
    channels = dim
    for width, size in reversed(levels[:-1]):
        yield Part(_convolution(channels, width))
        yield level(width, size)
        channels = 2 * width
        yield Part(0, channels * size**2)  # beside what waited, for the convolution that follows
    yield Part(_convolution(channels, config.out_channels))


def _residual_unet(config: Config) -> Iterator[Part]:
    model = config.model
    widths = [model.base_channels * mult for mult in model.channel_mults]
    levels, dim = list(zip(widths, model.resolutions, strict=True)), widths[-1]

    def block(old: int, new: int, size: int, changes: bool, waits: bool = False) -> Part:
        convolutions = 9 * (old + new) * new + 4 * new + (old * new + 2 * new if changes else 0)
        # Stored: what goes into each normalisation, and into the next convolution.
        values = new * size**2
        return Part(convolutions, (5 if changes else 4) * values, 2 * values, values if waits else 0)

    yield Part(_linear(model.time_channels, dim) + _linear(dim, dim) + _labels(config, dim))
    first = model.image_channels * model.image_size**2
    yield Part(_convolution(model.image_channels, widths[0]), first + widths[0] * model.image_size**2)
    for number, (width, size) in enumerate(levels):
        yield block(widths[max(number - 1, 0)], width, size, changes=number > 0, waits=number < len(levels) - 1)
    for _ in range(model.attention_blocks):
        yield Part(2 * dim)
        yield _attention(dim, levels[-1][1] ** 2, model.attention_heads)
    channels = dim
    for width, size in reversed(levels[:-1]):
        yield Part(_convolution(channels, width), 2 * width * size**2)  # beside what waited
        yield block(2 * width, width, size, changes=True)
        channels = width
    yield Part(_convolution(channels, config.out_channels))


def _simple_unet(config: Config) -> Iterator[Part]:
    model = config.model
    widths = [model.base_channels * mult for mult in model.channel_mults]
    levels, dim = list(zip(widths, model.resolutions, strict=True)), widths[-1]
    yield Part(_linear(1, model.time_channels) + _linear(model.time_channels, dim) + _labels(config, dim))
    values = widths[0] * model.image_size**2
    parameters = _convolution(model.image_channels, widths[0])
    yield Part(parameters, model.image_channels * model.image_size**2 + values, values, values)
    for number, (width, size) in enumerate(levels[1:], 1):
        values = width * size**2
        yield Part(_convolution(widths[number - 1], width), values, values, values if number < len(levels) - 1 else 0)
    for _ in range(2):
        yield Part(_convolution(dim, dim), dim * levels[-1][1] ** 2, 2 * dim * levels[-1][1] ** 2)
    channels = dim
    for width, size in reversed(levels[:-1]):
        yield Part(_convolution(channels, width, side=4), 3 * width * size**2, 2 * width * size**2)
        channels = 2 * width
    yield Part(_convolution(channels, config.out_channels))


def _denoise_net(config: Config) -> Iterator[Part]:
    model = config.model
    channels, pixels = model.base_channels, model.image_size**2
    time = _linear(model.time_channels, channels) if model.uses_time else 0
    yield Part(time + _labels(config, channels))
    yield Part(_convolution(model.image_channels, channels), model.image_channels * pixels)
    yield Part(_convolution(channels, config.out_channels), channels * pixels, channels * pixels)


def _dit(config: Config) -> Iterator[Part]:
    model = config.model
    dim, pixels, tokens = model.base_channels, model.patch_size**2, (model.image_size // model.patch_size) ** 2
    yield Part(_linear(model.time_channels, dim) + _linear(dim, dim) + _labels(config, dim))
    yield Part(_linear(pixels * model.image_channels, dim), pixels * model.image_channels * tokens)
    for _ in range(model.depth):
        yield _attention(dim, tokens, model.attention_heads)
        # Stored beside it: the sum and its normalised form, and what goes into the function and comes out of it.
        others = _linear(dim, 6 * dim) + _linear(dim, 4 * dim) + _linear(4 * dim, dim)
        yield Part(others, 8 * dim * tokens, 8 * dim * tokens)
    yield Part(_linear(dim, 2 * dim) + _linear(dim, pixels * config.out_channels), 2 * dim * tokens)


_WALKS: dict[NetworkName, Callable[[Config], Iterator[Part]]] = {
    "unet": _unet,
    "transformer_unet": _transformer_unet,
    "residual_unet": _residual_unet,
    "simple_unet": _simple_unet,
    "denoise_net": _denoise_net,
    "dit": _dit,
}
