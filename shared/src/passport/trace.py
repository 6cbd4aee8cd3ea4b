"""What happens to one image in a network, in words that both frameworks share."""

import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

Kind = Literal[
    "convolution",
    "transposed convolution",
    "linear",
    "group norm",
    "batch norm",
    "layer norm",
    "attention",
    "label table",
    "Fourier features",
    "residual block",
    "attention block",
    "transformer",
    "stage",
    "downsampling",
    "upsampling",
]

ROOT = Path(__file__).resolve().parents[3]  # of the repository, where this is a checkout


@dataclass(frozen=True)
class Step:
    """A layer at work. Layers inside a layer follow it, and have steps of their own.

    Shapes are those of one image: [C, H, W], [N, C] for N tokens, [C] for a vector, [] for the time itself.
    """

    name: str  # canonical, as of the parameters
    kind: Kind
    takes: tuple[int, ...]  # the shape of its first input
    gives: tuple[int, ...]
    parameters: int  # its own, without those of the layers inside; 0 where the layer has had a step before
    multiply_adds: int  # its own: of convolutions, linear maps and the two products of attention


class Source(NamedTuple):
    """Where a layer stands in the repository."""

    file: str
    line: int


def source(layer: type, owner: type | None, attribute: str) -> Source | None:
    """Where to read about a layer: our own class of it, or the line that makes a layer of the framework.

    Args:
        layer: its class.
        owner: the class of the layer that it is inside.
        attribute: of the owner, that holds it.

    Returns:
        None where the code is not in a checkout of the repository.
    """
    if place := _place(layer):
        return place
    place = _place(owner) if owner is not None else None
    if place is None or owner is None:
        return None
    for number, line in enumerate(inspect.getsourcelines(owner)[0]):
        if re.match(rf"\s*self\.{attribute}(: [^=]+)? = |\s*self\.{attribute}, .* = ", line):
            return Source(place.file, place.line + number)
    return place


def _place(layer: type | None) -> Source | None:
    try:
        file = Path(inspect.getsourcefile(layer) or "").resolve()  # type: ignore[arg-type] # None is a TypeError
        return Source(file.relative_to(ROOT).as_posix(), inspect.getsourcelines(layer)[1])  # type: ignore[arg-type]
    except (TypeError, ValueError, OSError):
        return None


class Call:
    """A layer at work in a framework.

    Args:
        name: canonical.
        layer: itself.
        inputs: what it is given.
        around: the call of the layer that it is inside; None for those of the network itself.
    """

    def __init__(self, name: str, layer: Any, inputs: tuple[Any, ...], around: "Call | None") -> None:
        self.name, self.layer, self.inputs, self.around = name, layer, inputs, around
        self.output: Any = None  # known when it ends


def total(steps: Sequence[Step], what: Literal["parameters", "multiply_adds"]) -> int:
    """The sum of a number of all steps."""
    return sum(getattr(step, what) for step in steps)
