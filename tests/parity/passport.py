"""The passport of a network: its trace, layer by layer, and how far it sees, beside walks written by hand.

Images are wider than high, so that a height taken for a width does not hide. Those of DiT are square, and those of
simple_unet, which cuts to the size in its config.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from ddpm_parity.quantities import Arrays, Quantity, elementwise
from ddpm_parity.sides import Oracle, Side, draw
from ddpm_parity.tolerances import EXACT
from ddpm_shared.config import ModelConfig, NetworkName

Size = tuple[int, int]
Row = tuple[str, str, tuple[int, ...], tuple[int, ...], int, int]  # name, kind, takes, gives, parameters, multiply-adds

CLASSES = 3
NETWORKS: dict[str, tuple[ModelConfig, Size]] = {
    "unet": (
        ModelConfig(
            base_channels=8,
            channel_mults=(1, 2, 2),
            num_res_blocks=2,
            attention_resolutions=(10, 5),
            image_size=20,
            image_channels=2,
            num_classes=CLASSES,
        ),
        (12, 20),
    ),
    "transformer_unet": (
        ModelConfig(
            network="transformer_unet",
            base_channels=8,
            channel_mults=(1, 2, 3, 4),
            attention_resolutions=(5, 3),
            context_tokens=2,
            image_size=20,
            num_classes=CLASSES,
        ),
        (12, 20),
    ),
    "residual_unet": (
        ModelConfig(
            network="residual_unet",
            base_channels=8,
            channel_mults=(1, 2, 3, 4),
            attention_resolutions=(),
            attention_heads=4,
            attention_blocks=2,
            time_channels=12,
            image_size=20,
            num_classes=CLASSES,
        ),
        (12, 20),
    ),
    "simple_unet": (
        ModelConfig(
            network="simple_unet",
            base_channels=8,
            channel_mults=(1, 2, 3),
            attention_resolutions=(),
            time_channels=12,
            image_size=18,
            image_channels=3,
        ),
        (18, 18),
    ),
    "denoise_net": (
        ModelConfig(
            network="denoise_net",
            base_channels=8,
            channel_mults=(1,),
            attention_resolutions=(),
            time_channels=12,
            image_size=20,
            num_classes=CLASSES,
        ),
        (12, 20),
    ),
    "dit": (
        ModelConfig(
            network="dit",
            base_channels=12,
            channel_mults=(1,),
            attention_resolutions=(),
            attention_heads=3,
            time_channels=16,
            patch_size=3,
            depth=2,
            image_size=12,
            image_channels=2,
            num_classes=CLASSES,
        ),
        (12, 12),
    ),
}


def _trace(side: Side, name: str) -> Arrays:
    """The number of each step, under its place, name and kind."""
    model, size = NETWORKS[name]
    if isinstance(side, Oracle):
        rows = list(_WALKS[model.network](model, size))
    else:
        steps = side.trace.trace(side.network(model), size)
        rows = [(s.name, s.kind, s.takes, s.gives, s.parameters, s.multiply_adds) for s in steps]
    return {
        f"{place}: {name}, {kind}, of {len(takes)} and {len(gives)} sizes": np.array([*takes, *gives, count, products])
        for place, (name, kind, takes, gives, count, products) in enumerate(rows)
    }


# --- Walks through the networks, by what their docstrings say of them -----------------------------------------


def _convolution(name: str, old: int, new: int, before: Size, after: Size, side: int = 3, bias: bool = True) -> Row:
    weights = old * new * side * side
    return name, "convolution", (old, *before), (new, *after), weights + new * bias, weights * math.prod(after)


def _transposed(name: str, old: int, new: int, before: Size, after: Size, side: int = 3) -> Iterator[Row]:
    weights = old * new * side * side
    shapes = (old, *before), (new, *after)
    yield name, "upsampling", *shapes, 0, 0
    yield f"{name}.conv", "transposed convolution", *shapes, weights + new, weights * math.prod(before)


def _linear(name: str, old: int, new: int, tokens: int | None = None, bias: bool = True) -> Row:
    many = () if tokens is None else (tokens,)
    return name, "linear", (*many, old), (*many, new), old * new + new * bias, old * new * math.prod(many)


def _norm(name: str, kind: str, shape: tuple[int, ...], channels: int) -> Row:
    return name, kind, shape, shape, 2 * channels, 0


def _down(name: str, old: int, new: int, before: Size, after: Size) -> Iterator[Row]:
    yield name, "downsampling", (old, *before), (new, *after), 0, 0
    yield _convolution(f"{name}.conv", old, new, before, after)


def _label(model: ModelConfig, dim: int, first: bool = True) -> Row:
    weights = (model.num_classes + 1) * dim
    return "label", "label table", (), (dim,), weights if first else 0, weights


def _maps(name: str, tokens: int, dim: int, keys: int | None = None, context: int | None = None) -> Iterator[Row]:
    """The query, the key and the value of an attention."""
    yield _linear(f"{name}.query", dim, dim, tokens)
    yield _linear(f"{name}.key", context or dim, dim, keys or tokens, bias=False)
    yield _linear(f"{name}.value", context or dim, dim, keys or tokens)


def _heads(name: str, tokens: int, dim: int) -> Iterator[Row]:
    yield name, "attention", (tokens, dim), (tokens, dim), 0, 2 * tokens * tokens * dim
    yield from _maps(name, tokens, dim)
    yield _linear(f"{name}.project", dim, dim, tokens)


def _time(model: ModelConfig, first: int, hidden: int, dim: int) -> Iterator[Row]:
    yield _linear("time_1", first, hidden)
    yield _linear("time_2", hidden, dim)
    if model.num_classes:
        yield _label(model, dim)


def _levels(model: ModelConfig, size: Size) -> list[tuple[int, Size]]:
    """Channels and size of each level."""
    levels = []
    for mult in model.channel_mults:
        levels.append((model.base_channels * mult, size))
        size = (size[0] + 1) // 2, (size[1] + 1) // 2
    return levels


def _unet(model: ModelConfig, size: Size) -> Iterator[Row]:
    levels, base = _levels(model, size), model.base_channels

    def stage(name: str, old: int, new: int, level: int, attention: bool = True) -> Iterator[Row]:
        size = levels[level][1]
        before, after = (old, *size), (new, *size)
        inner = f"{name}.residual"
        yield name, "stage", before, after, 0, 0
        yield inner, "residual block", before, after, 0, 0
        yield _norm(f"{inner}.norm_1", "group norm", before, old)
        yield _convolution(f"{inner}.conv_1", old, new, size, size)
        yield _linear(f"{inner}.time", 4 * base, new)
        yield _norm(f"{inner}.norm_2", "group norm", after, new)
        yield _convolution(f"{inner}.conv_2", new, new, size, size)
        if old != new:
            yield _convolution(f"{inner}.skip", old, new, size, size, side=1)
        if attention and model.resolutions[level] in model.attention_resolutions:
            inner, pixels = f"{name}.attention", math.prod(size)
            yield inner, "attention", after, after, 0, 2 * pixels * pixels * new
            yield _norm(f"{inner}.norm", "group norm", after, new)
            yield from _maps(inner, pixels, new)
            yield _linear(f"{inner}.project", new, new, pixels)

    yield from _time(model, base, 4 * base, 4 * base)
    yield _convolution("conv_in", model.image_channels, base, size, size)
    channels, skips, place = base, [base], 0
    for level, (width, here) in enumerate(levels):
        for _ in range(model.num_res_blocks):
            yield from stage(f"down.{place}", channels, width, level)
            channels, place = width, place + 1
            skips.append(width)
        if level < len(levels) - 1:
            yield from _down(f"down.{place}", width, width, here, levels[level + 1][1])
            place += 1
            skips.append(width)
    yield from stage("middle.0", channels, channels, len(levels) - 1)
    yield from stage("middle.1", channels, channels, len(levels) - 1, attention=False)
    place = 0
    for level, (width, _) in reversed(list(enumerate(levels))):
        for _ in range(model.num_res_blocks + 1):
            yield from stage(f"up.{place}", channels + skips.pop(), width, level)
            channels, place = width, place + 1
        if level > 0:
            above = levels[level - 1][1]
            yield f"up.{place}", "upsampling", (width, *levels[level][1]), (width, *above), 0, 0
            yield _convolution(f"up.{place}.conv", width, width, above, above)
            place += 1
    yield _norm("norm_out", "group norm", (channels, *size), channels)
    yield _convolution("conv_out", channels, model.image_channels, size, size)


def _transformer_unet(model: ModelConfig, size: Size) -> Iterator[Row]:
    levels = _levels(model, size)
    dim, tokens = levels[-1][0], model.context_tokens

    def level(name: str, width: int, size: Size, transformer: bool) -> Iterator[Row]:
        shape, pixels = (width, *size), math.prod(size)
        flat = (pixels, width)
        yield name, "stage", shape, shape, 0, 0
        yield _linear(f"{name}.time", dim, width)
        yield _norm(f"{name}.norm", "group norm", shape, width)
        if not transformer:
            return
        inner = f"{name}.transformer"
        yield inner, "transformer", shape, shape, 0, 0
        yield _norm(f"{inner}.norm_1", "layer norm", flat, width)
        yield f"{inner}.self_attention", "attention", flat, flat, 0, 2 * pixels * pixels * width
        yield from _maps(f"{inner}.self_attention", pixels, width)
        yield _norm(f"{inner}.norm_2", "layer norm", flat, width)
        yield f"{inner}.cross_attention", "attention", flat, flat, 0, 2 * pixels * tokens * width
        yield from _maps(f"{inner}.cross_attention", pixels, width, tokens, dim)
        yield _norm(f"{inner}.norm_3", "layer norm", flat, width)
        yield _linear(f"{inner}.feed_1", width, 4 * width, pixels)
        yield _linear(f"{inner}.feed_2", 4 * width, width, pixels)

    yield "fourier", "Fourier features", (), (dim,), 0, 0
    yield _linear("time", dim, dim)
    for token in range(tokens):
        yield _label(model, dim, first=token == 0)
    yield _convolution("conv_in", model.image_channels, levels[0][0], size, size)
    place = 0
    for number, (width, here) in enumerate(levels):
        if number > 0:
            yield from _down(f"down.{place}", *levels[number - 1][:1], width, levels[number - 1][1], here)
            place += 1
        yield from level(f"down.{place}", width, here, transformer=number >= len(levels) - 2)
        place += 1
    channels, place = dim, 0
    for number in reversed(range(len(levels) - 1)):
        width, here = levels[number]
        yield from _transposed(f"up.{place}", channels, width, levels[number + 1][1], here)
        yield from level(f"up.{place + 1}", width, here, transformer=False)
        channels, place = 2 * width, place + 2
    yield _convolution("conv_out", channels, model.image_channels, size, size)


def _residual_unet(model: ModelConfig, size: Size) -> Iterator[Row]:
    levels = _levels(model, size)
    dim, deepest = levels[-1]

    def block(name: str, old: int, new: int, before: Size, after: Size) -> Iterator[Row]:
        shape = (new, *after)
        yield name, "residual block", (old, *before), shape, 0, 0
        yield _convolution(f"{name}.conv_1", old, new, before, after, bias=False)
        yield _norm(f"{name}.norm_1", "batch norm", shape, new)
        yield _convolution(f"{name}.conv_2", new, new, after, after, bias=False)
        yield _norm(f"{name}.norm_2", "batch norm", shape, new)
        if old != new or before != after:
            yield _convolution(f"{name}.skip", old, new, before, after, side=1, bias=False)
            yield _norm(f"{name}.norm_skip", "batch norm", shape, new)

    yield from _time(model, model.time_channels, dim, dim)
    yield _convolution("conv_in", model.image_channels, levels[0][0], size, size)
    old, before = levels[0]
    for number, (width, here) in enumerate(levels):
        yield from block(f"down.{number}", old, width, before, here)
        old, before = width, here
    for number in range(model.attention_blocks):
        shape, pixels = (dim, *deepest), math.prod(deepest)
        yield f"middle.{number}", "attention block", shape, shape, 0, 0
        yield _norm(f"middle.{number}.norm", "layer norm", (pixels, dim), dim)
        yield from _heads(f"middle.{number}.attention", pixels, dim)
    for place, number in enumerate(reversed(range(len(levels) - 1))):
        width, here = levels[number]
        yield from _transposed(f"up.{2 * place}", levels[number + 1][0], width, levels[number + 1][1], here)
        yield from block(f"up.{2 * place + 1}", 2 * width, width, here, here)
    yield _convolution("conv_out", levels[0][0], model.image_channels, size, size)


def _simple_unet(model: ModelConfig, size: Size) -> Iterator[Row]:
    levels = _levels(model, size)
    dim, deepest = levels[-1]
    yield from _time(model, 1, model.time_channels, dim)
    yield _convolution("conv_in", model.image_channels, levels[0][0], size, size)
    for number in range(len(levels) - 1):
        (old, before), (new, after) = levels[number : number + 2]
        yield from _down(f"down.{number}", old, new, before, after)
    for number in range(2):
        yield _convolution(f"middle.{number}", dim, dim, deepest, deepest)
    channels = dim
    for place, number in enumerate(reversed(range(len(levels) - 1))):
        width, here = levels[number]
        yield from _transposed(f"up.{place}", channels, width, levels[number + 1][1], here, side=4)
        channels = 2 * width
    yield _convolution("conv_out", channels, model.image_channels, size, size)


def _denoise_net(model: ModelConfig, size: Size) -> Iterator[Row]:
    yield _convolution("conv_in", model.image_channels, model.base_channels, size, size)
    yield _linear("time", model.time_channels, model.base_channels)
    yield _label(model, model.base_channels)
    yield _convolution("conv_out", model.base_channels, model.image_channels, size, size)


def _dit(model: ModelConfig, size: Size) -> Iterator[Row]:
    dim, pixels = model.base_channels, model.patch_size**2
    tokens = math.prod(size) // pixels
    yield from _time(model, model.time_channels, dim, dim)
    yield _linear("patch_in", pixels * model.image_channels, dim, tokens)
    for number in range(model.depth):
        name = f"blocks.{number}"
        yield name, "transformer", (tokens, dim), (tokens, dim), 0, 0
        yield _linear(f"{name}.modulation", dim, 6 * dim)
        yield from _heads(f"{name}.attention", tokens, dim)
        yield _linear(f"{name}.feed_1", dim, 4 * dim, tokens)
        yield _linear(f"{name}.feed_2", 4 * dim, dim, tokens)
    yield _linear("modulation", dim, 2 * dim)
    yield _linear("out", dim, pixels * model.image_channels, tokens)


_WALKS: dict[NetworkName, Callable[[ModelConfig, Size], Iterator[Row]]] = {
    "unet": _unet,
    "transformer_unet": _transformer_unet,
    "residual_unet": _residual_unet,
    "simple_unet": _simple_unet,
    "denoise_net": _denoise_net,
    "dit": _dit,
}


# --- How far a network sees -----------------------------------------------------------------------------------

FIELDS = {  # networks without normalisation or attention, with the size of their images: 4 rows are fewer than 5
    "denoise_net": (
        ModelConfig(
            network="denoise_net",
            base_channels=4,
            channel_mults=(1,),
            attention_resolutions=(),
            time_channels=4,
            image_size=24,
        ),
        (4, 24),
    ),
    "simple_unet": (
        ModelConfig(
            network="simple_unet",
            base_channels=4,
            channel_mults=(1, 2),
            attention_resolutions=(),
            time_channels=4,
            image_size=24,
        ),
        (24, 24),
    ),
}

Span = tuple[int, int]  # the first and the last pixel, along one side


def _field(side: Side, name: str) -> Arrays:
    model, size = FIELDS[name]
    if isinstance(side, Oracle):
        spans = [_seen(name, length // 2, length) for length in size]
        return {"rows and columns": np.array([last - first + 1 for first, last in spans])}
    network = side.network(model)
    network.zero_at_start = ()
    side.model.initialise(network, 1)
    x_t = draw(4, *size, model.image_channels)
    return {"rows and columns": np.array(side.trace.receptive_field(network, x_t, np.array([0, 300, 700, 999])))}


def _seen(name: str, pixel: int, length: int) -> Span:
    """The span of x_t on which a pixel of the output depends, by what each layer's kernel reaches."""

    def around(span: Span, length: int) -> Span:  # a 3 x 3 convolution
        return max(span[0] - 1, 0), min(span[1] + 1, length - 1)

    out = around((pixel, pixel), length)
    if name == "denoise_net":
        return around(out, length)
    half = (length + 1) // 2
    # Pixel i of a transposed convolution of 4 x 4 with stride 2 adds to the pixels 2 i - 1 .. 2 i + 2.
    deep = max(math.ceil((out[0] - 2) / 2), 0), min((out[1] + 1) // 2, half - 1)
    for _ in range(2):
        deep = around(deep, half)
    down = max(2 * deep[0] - 1, 0), min(2 * deep[1] + 1, length - 1)
    return around((min(out[0], down[0]), max(out[1], down[1])), length)


QUANTITIES = [
    *(
        Quantity("passport", f"{name}: trace of every layer", partial(_trace, name=name), EXACT, elementwise)
        for name in NETWORKS
    ),
    *(
        Quantity("passport", f"{name}: receptive field", partial(_field, name=name), EXACT, elementwise)
        for name in FIELDS
    ),
]
