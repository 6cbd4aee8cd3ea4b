"""The sizes of a network, as the shapes of its tensors show them."""

import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

from ddpm_shared.config import ModelConfig
from ddpm_shared.config.model import UNUSED
from ddpm_shared.errors import UserError
from ddpm_shared.exchange.layouts import Layout, filled
from ddpm_shared.exchange.steps import TIMES
from ddpm_shared.reading import one_line

Shapes = Mapping[str, tuple[int, ...]]


class Sizes(NamedTuple):
    """What the shapes show."""

    model: dict[str, Any]  # fields of ModelConfig
    attention_levels: tuple[int, ...]  # of a network that has attention at some of its sizes
    rows: int  # of the table of classes; 0 without one
    learned_variance: bool  # whether the output has as many channels again


def inferred(layout: Layout, shapes: Shapes) -> Sizes:
    """The sizes, and the settings that every network of this layout has.

    Raises:
        UserError: a tensor is missing whose shape shows them, or its widths are no multiples of the first.
    """
    rules = layout.values["sizes"]
    seen = {name: _value(rule, shapes, layout.name) for name, rule in rules.items()}
    model = {**{name: value for name, value in UNUSED.items()}, **layout.settings}
    for name in ("base_channels", "num_res_blocks", "depth", "patch_size", "image_channels", "uses_time"):
        if name in seen:
            model[name] = seen[name]
    if "widths" in seen:
        widths = seen["widths"]
        if any(width % widths[0] for width in widths):
            raise UserError(f"its levels have {widths} channels, and ours have multiples of the first")
        model["base_channels"], model["channel_mults"] = widths[0], tuple(width // widths[0] for width in widths)
    if "attention_blocks" in seen:
        model["attention_blocks"] = seen["attention_blocks"]
    if seen.get("time_channels") is not None:
        more = 2 if TIMES[layout.values.get("time", "sin_cos, half - 1")][1] == "half" else 0
        model["time_channels"] = seen["time_channels"] + more
    out = seen.get("out_channels", 0)
    if layout.network == "dit":
        out //= model.get("patch_size", 1) ** 2
    return Sizes(model, seen.get("attention_levels", ()), seen.get("rows") or 0, out == 2 * model["image_channels"])


def _value(rule: Mapping[str, Any], shapes: Shapes, layout: str) -> Any:
    """What a rule of a mapping file shows: a length, whether a tensor is there, how many there are, or each one's."""
    match rule:
        case {"of": name, "axis": axis}:
            if name not in shapes and rule.get("may_be_absent"):
                return None
            return _length(shapes, name, axis, layout)
        case {"exists": name}:
            return name in shapes
        case {"count": template}:
            return len(list(_names(template, shapes)))
        case {"each": template, "axis": axis}:
            names = list(_names(template, shapes))
            return tuple(_length(shapes, name, axis, layout) for name in names or [filled(template, {"n": 0})])
        case {"levels_with": template, "of": every}:
            levels = len(list(_names(every, shapes)))
            return tuple(level for level in range(levels) if filled(template, {"n": level}) in shapes)
    raise UserError(f"layout {one_line(layout, 60)} has a rule for a size that there is not: {one_line(dict(rule))}")


def _names(template: str, shapes: Shapes) -> list[str]:
    """The names that a template gives for n = 0, 1, ... as long as they are there."""
    names = (filled(template, {"n": n}) for n in range(len(shapes)))
    return list(itertools.takewhile(lambda name: name in shapes, names))


def _length(shapes: Shapes, name: str, axis: int, layout: str) -> int:
    if name not in shapes or len(shapes[name]) <= axis:
        found = f"has the shape {shapes[name]}" if name in shapes else "is not there"
        raise UserError(f"{one_line(name)} {found}, and layout {one_line(layout, 60)} takes a size from it")
    return shapes[name][axis]


def with_sizes(model: ModelConfig, sizes: Sizes, image_size: int) -> dict[str, Any]:
    """The fields that make of `model` the network of these sizes for images of `image_size`."""
    fields = dict(sizes.model) | {"image_size": image_size}
    side, found = image_size, []
    for level in range(len(fields.get("channel_mults", model.channel_mults))):
        if level in sizes.attention_levels:
            found.append(side)
        side = (side + 1) // 2
    return fields | {"attention_resolutions": tuple(dict.fromkeys(found))}
