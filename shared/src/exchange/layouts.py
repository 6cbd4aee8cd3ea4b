"""Layouts: how other implementations name the parts of a network of ours. They are data, in mappings/<network>.json."""

import ast
import itertools
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, get_args

from ddpm_shared import reading, validation
from ddpm_shared.config import NetworkName
from ddpm_shared.errors import UserError
from ddpm_shared.exchange.steps import FIXED, STEPS, TIMES
from ddpm_shared.reading import listed, name_of, one_line

Piece = tuple[str, int, int]  # a name of theirs, and which part of how many of its first axis
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
PIECE = {
    "type": ["string", "array"],
    "prefixItems": [{"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "integer", "minimum": 1}],
    "minItems": 3,
    "maxItems": 3,
}
MODULE = {
    "type": ["string", "object"],
    "properties": {
        "from": {"type": ["string", "array"], "items": PIECE, "minItems": 1},
        "steps": {"type": "array", "items": {"type": "array", "minItems": 1}},
        "less_bias_of": {"type": "string"},
        "bias": {"enum": ["may be absent"]},
    },
    "required": ["from"],
    "additionalProperties": False,
}
GROUP = {
    "type": "object",
    "properties": {"for": TEXTS, "modules": {"type": "object", "additionalProperties": MODULE}},
    "required": ["modules"],
    "additionalProperties": False,
}
# What the shapes show, each by one rule: the length of an axis, of each level's, a count, whether a tensor is there.
SIZE_NAMES = (
    *("widths", "base_channels", "num_res_blocks", "depth", "patch_size", "image_channels", "out_channels"),
    *("time_channels", "uses_time", "attention_blocks", "attention_levels", "rows"),
)
RULE = {
    "type": "object",
    "properties": {
        **{name: {"type": "string"} for name in ("of", "each", "count", "exists", "levels_with")},
        "axis": {"type": "integer", "minimum": 0},
        "may_be_absent": {"type": "boolean"},
    },
    "additionalProperties": False,
}
SIZES = {
    "type": "object",
    "properties": {name: RULE for name in SIZE_NAMES},
    "required": ["image_channels", "out_channels"],
    "additionalProperties": False,
}
SETTINGS = {
    "type": "object",
    "properties": {
        **{name: {"type": "integer"} for name in ("attention_heads", "attention_blocks", "time_channels")},
        **{name: {"type": "integer"} for name in ("num_groups", "context_tokens")},
        "activation": {"type": "string"},
        "uses_time": {"type": "boolean"},
    },
    "additionalProperties": False,
}
BESIDE = {
    "type": "object",
    "properties": {
        "file": {"type": "string"},
        "must": {"type": "object", "additionalProperties": {"type": "array", "minItems": 2, "maxItems": 2}},
        "takes": TEXTS,
    },
    "required": ["file", "must", "takes"],
}
LAYOUT = {
    "type": "object",
    "properties": {
        "as": {"type": "string"},
        "title": {"type": "string"},
        "source": {"type": "string"},
        "sign": {"type": "string"},
        "assumes": {"type": "array", "items": {"type": "string"}},
        "time": {"enum": list(TIMES)},
        "sizes": SIZES,
        "settings": SETTINGS,
        "groups": {"type": "array", "items": GROUP},
        "dropped": TEXTS,
        "fixed": {"type": "object", "additionalProperties": {"enum": list(FIXED)}},
        "beside": BESIDE,
    },
    "anyOf": [{"required": ["as"]}, {"required": ["title", "source", "sign", "sizes", "groups"]}],
    "additionalProperties": False,
}
STRANGER = {
    "type": "object",
    "properties": {"sign": {"type": "string"}, "title": {"type": "string"}, "why": {"type": "string"}},
    "required": ["sign", "title", "why"],
}
MAPPING = {
    "type": "object",
    "properties": {
        "network": {"type": "string"},
        "layouts": {"type": "object", "additionalProperties": LAYOUT, "minProperties": 1},
        "strangers": {"type": "array", "items": STRANGER},
    },
    "required": ["network", "layouts"],
    "additionalProperties": False,
}
SIZE_AT_MOST = reading.MIB  # of a mapping file
MOST = 1000  # levels, blocks, or the like


@dataclass(frozen=True)
class Module:
    """Where the tensors of a module of ours come from."""

    pieces: tuple[Piece, ...]  # joined along the first axis
    steps: tuple[tuple[Any, ...], ...] = ()  # names of STEPS with their arguments
    less_bias_of: str | None = None  # whose bias running_mean takes in
    bias_may_be_absent: bool = False


@dataclass(frozen=True)
class Layout:
    """One implementation's names for the parts of a network of ours."""

    name: str
    network: NetworkName
    values: Mapping[str, Any]  # as LAYOUT says

    @property
    def title(self) -> str:
        """What people call the implementation."""
        return str(self.values["title"])

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the network that its implementation has and its weights do not show."""
        return dict(self.values.get("settings", {}))

    def modules(self, counts: Mapping[str, int]) -> dict[str, Module]:
        """Every module of ours, by its canonical name, for a network with so many `levels`, `blocks` and so on."""
        found: dict[str, Module] = {}
        for group in self.values["groups"]:
            for numbers in _numbers(group.get("for", {}), counts):
                for name, module in group["modules"].items():
                    found[filled(name, numbers)] = _module(module, numbers)
        return found


def _module(value: Any, numbers: Mapping[str, int]) -> Module:
    entry = value if isinstance(value, dict) else {"from": value}
    pieces = entry["from"] if isinstance(entry["from"], list) else [entry["from"]]
    whole = [piece if isinstance(piece, list) else [piece, 0, 1] for piece in pieces]
    less = entry.get("less_bias_of")
    steps = [tuple(filled(x, numbers) if isinstance(x, str) else x for x in step) for step in entry.get("steps", ())]
    return Module(
        tuple((filled(name, numbers), part, parts) for name, part, parts in whole),
        tuple(steps),
        None if less is None else filled(less, numbers),
        entry.get("bias") is not None,
    )


def _numbers(ranges: Mapping[str, str], counts: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Every combination of the numbers that a group runs through, beside the counts."""
    lengths = [_number(count, counts) for count in ranges.values()]
    if any(length > MOST for length in lengths):
        raise UserError(
            f"a layout repeats its names {max(lengths):,} times, and no network has more than {MOST:,} parts"
        )
    for each in itertools.product(*map(range, lengths)):
        yield {**counts, **dict(zip(ranges, each, strict=True))}


def filled(template: str, numbers: Mapping[str, int]) -> str:
    """A name with its numbers: "down.{2 * level}" with level = 1 -> "down.2"."""
    return re.sub(r"\{([^{}]*)\}", lambda match: str(_number(match[1], numbers)), template)


def _number(expression: str, numbers: Mapping[str, int]) -> int:
    """The value of sums and products of whole numbers and names. Raises UserError for anything else."""

    def value(node: ast.expr) -> int:
        match node:
            case ast.Constant(value=int(number)):
                return number
            case ast.Name(id=name) if name in numbers:
                return numbers[name]
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return value(left) + value(right)
            case ast.BinOp(left=left, op=ast.Sub(), right=right):
                return value(left) - value(right)
            case ast.BinOp(left=left, op=ast.Mult(), right=right):
                return value(left) * value(right)
        raise ValueError

    try:
        return value(ast.parse(expression[:100], mode="eval").body)
    except (SyntaxError, ValueError):
        raise UserError(
            f"a layout counts by {one_line(repr(expression), 80)}: write a sum or product of whole numbers and of "
            f"{', '.join(numbers)}"
        ) from None


# --- The files ----------------------------------------------------------------------------------------------


def known(network: NetworkName) -> dict[str, Layout]:
    """The layouts of a network that the package knows, by name."""
    return _layouts(_packaged(network))


def of_file(path: Path) -> dict[str, Layout]:
    """The layouts in a mapping file of the user's own.

    Raises:
        UserError: no such file, or it is no mapping.
    """
    way_out = "copy one of shared/src/exchange/mappings, and change its names"
    values = reading.read_json(path, way_out, SIZE_AT_MOST)
    validation.checked(values, MAPPING, str(path), "a mapping of names", way_out)
    if values["network"] not in get_args(NetworkName):
        raise UserError(f"{name_of(path)} is for a network {one_line(repr(values['network']), 40)}: {way_out}")
    for layout in values["layouts"].values():
        for group in layout.get("groups", ()):
            entries = (each for each in group["modules"].values() if isinstance(each, dict))
            used = {str(step[0]) for each in entries for step in each.get("steps", ())}
            if foreign := sorted(used - set(STEPS)):
                raise UserError(f"{name_of(path)} has steps that there are not, {listed(foreign)}: {way_out}")
    return _layouts(values)


def _packaged(network: str) -> dict[str, Any]:
    file = resources.files("ddpm_shared") / "exchange" / "mappings" / f"{network}.json"
    return dict(reading.parse_json(file.read_bytes(), file.name, "install ddpm-duet again"))


def _layouts(values: Mapping[str, Any]) -> dict[str, Layout]:
    """Each entry; one that is `as` another has that one's values where it has none of its own."""
    every = values["layouts"]
    whole = {name: {**every.get(layout.get("as"), {}), **layout} for name, layout in every.items()}
    return {name: Layout(name, values["network"], layout) for name, layout in whole.items()}


def recognised(names: Collection[str], network: str | None, layout: str | None, source: str) -> Layout:
    """The layout that a file's names are of.

    Args:
        names: of the tensors in the file.
        network: the only one to look at; None: all.
        layout: the name of one, or a mapping file; None: the first whose sign is among the names.
        source: the file, for messages.

    Raises:
        UserError: there is none, or the names are those of another network, or of one that ours cannot compute.
    """
    networks = get_args(NetworkName) if network is None else (network,)
    if layout is not None and layout.endswith(".json"):
        offered = of_file(Path(layout))
        if len(offered) > 1:
            raise UserError(f"{name_of(layout)} holds {len(offered)} layouts: leave one in it")
        (chosen,) = offered.values()
        if chosen.network not in networks:
            raise UserError(f"--layout {name_of(layout)} is for {chosen.network}: leave out --network {network}")
        return chosen
    offered = {name: each for kind in networks for name, each in known(kind).items()}
    if layout is not None:
        if layout not in offered:
            raise UserError(
                f"--layout {one_line(layout, 60)}: choose one of {', '.join(offered)}, or give a mapping file, .json"
            )
        return offered[layout]
    for each in offered.values():
        if each.values["sign"] in names:
            return each
    _refuse(names, networks, source)
    raise AssertionError


def _refuse(names: Collection[str], networks: Collection[str], source: str) -> None:
    everywhere: tuple[NetworkName, ...] = get_args(NetworkName)
    for kind in everywhere:
        for each in known(kind).values():
            if each.values["sign"] in names:
                raise UserError(f"{name_of(source)} has the names of {kind} ({each.title}): give --network {kind}")
    for kind in everywhere:
        for stranger in _packaged(kind).get("strangers", ()):
            if stranger["sign"] in names:
                raise UserError(
                    f"{name_of(source)} has the names of {stranger['title']}, which no network of ours computes: "
                    f"{stranger['why']}"
                )
    looked = ", ".join(
        f"{each.name} ({kind})" for kind in everywhere if kind in networks for each in known(kind).values()
    )
    raise UserError(
        f"{name_of(source)} holds {listed(sorted(names), 3)}, and no layout has these names: known are {looked}; "
        "for others give --layout FILE.json, a mapping as docs/exchange.md shows"
    )
