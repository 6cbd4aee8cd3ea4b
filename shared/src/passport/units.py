"""The parts that a drawing shows, and the bridges between them, found in a trace."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from ddpm_shared.passport.trace import Step, total

OF_THE_TIME = ("time", "fourier", "label")  # how the names of layers begin that time and label go through


@dataclass(frozen=True)
class Unit:
    """A layer that the network itself holds, with all that is inside."""

    steps: tuple[Step, ...]  # its own first

    @property
    def name(self) -> str:
        """Canonical name, e.g. down.0."""
        return self.steps[0].name

    @property
    def takes(self) -> tuple[int, ...]:
        """The shape of what it takes."""
        return self.steps[0].takes

    @property
    def gives(self) -> tuple[int, ...]:
        """The shape of what it gives."""
        return self.steps[0].gives

    @property
    def parameters(self) -> int:
        """All inside."""
        return total(self.steps, "parameters")

    @property
    def multiply_adds(self) -> int:
        """All inside."""
        return total(self.steps, "multiply_adds")

    @property
    def of_the_time(self) -> bool:
        """Whether time or label go through it, not the image."""
        return self.name.startswith(OF_THE_TIME)

    @property
    def has_attention(self) -> bool:
        """Whether there is attention inside."""
        return any(step.kind == "attention" for step in self.steps)

    @property
    def is_given_a_vector(self) -> bool:
        """Whether a linear map of time and label is inside, e.g. the one of a residual block."""
        return any(step.kind == "linear" and len(step.takes) == 1 for step in self.steps)

    @property
    def description(self) -> str:
        """What it is, in some words."""
        kind = self.steps[0].kind
        depth = self.name.count(".")
        inside = [step.kind for step in self.steps[1:] if step.name.count(".") == depth + 1]
        if kind == "linear" and len(self.steps) > 1:
            return "modulation + linear"
        if kind == "stage":
            return " + ".join(part for part in dict.fromkeys(inside) if part != "linear")
        if kind == "downsampling":
            return "convolution, stride 2"
        if kind == "upsampling":
            return "transposed convolution" if "transposed convolution" in inside else "repetition + convolution"
        return kind


def units(steps: Sequence[Step]) -> list[Unit]:
    """The layers that the network itself holds, in the order in which they begin; one that is called twice is one.

    A linear map of the time that the network holds beside a layer of the image, DiT's last modulation, goes with it.
    """
    groups: dict[str, list[Step]] = {}
    for step in steps:
        around = next((name for name in groups if step.name.startswith(name + ".")), step.name)
        groups.setdefault(around, []).append(step)
    found: list[Unit] = []
    beside: list[Step] = []
    for group in groups.values():
        unit = Unit((*group, *beside))
        if len(unit.takes) == 1 and not unit.of_the_time:
            beside.extend(group)
        else:
            found.append(unit)
            beside.clear()
    return found


def bridges(path: Sequence[Unit]) -> list[tuple[Unit, Unit]]:
    """The skip connections of a U: (from, to), `to` being the unit that takes the waiting tensor beside its own input.

    A trace has no wires. But a unit that takes more channels than the one before it gives takes the rest from the way
    down: from the last unit that gave so many channels of that size, and whose output has not been taken.
    """
    waiting: list[Unit] = []
    pairs = []
    for before, unit in itertools.pairwise(path):
        waiting.append(before)
        more = unit.takes[0] - before.gives[0]
        if len(unit.takes) == 3 and more > 0:
            given = (more, *unit.takes[1:])
            taken = next(
                (other for other in reversed(waiting[:-1]) if other.gives == given and _goes_down(other)), None
            )
            if taken is not None:
                waiting.remove(taken)
                pairs.append((taken, unit))
    return pairs


def _goes_down(unit: Unit) -> bool:
    return unit.name.startswith(("conv_in", "down."))


def takes_time(path: Sequence[Unit]) -> set[str]:
    """The names of the units where time and label enter.

    Where no unit has a linear map for them, they are added once: to what the first unit takes that is not of the way
    down.
    """
    inside = {unit.name for unit in path if unit.is_given_a_vector}
    return inside or {next(unit.name for unit in path if not _goes_down(unit))}
