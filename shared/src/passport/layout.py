"""Where everything stands in the drawing of a network: neutral, for the SVG and for the PNG."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from ddpm_shared.passport.trace import Source, Step, total
from ddpm_shared.passport.units import Unit, bridges, takes_time, units

Tone = Literal["convolution", "sampling", "block", "attention", "other", "time"]
Point = tuple[float, float]

WIDTH = 400.0  # of every drawing: a phone's
MARGIN, GAP = 12.0, 24.0
BOX, BOX_HEIGHT = 166.0, 52.0
WIDE = 240.0  # a box that has the row for itself
BAND = 22.0  # above a level, for its size
HEAD = 52.0
JOINT = 15.0  # below the box that takes what a bridge brings
LONGEST = 8  # more units that are alike are drawn as one

TONES: dict[str, Tone] = {
    "convolution": "convolution",
    "downsampling": "sampling",
    "upsampling": "sampling",
    "residual block": "block",
    "stage": "block",
    "transformer": "block",
    "attention block": "block",
}


@dataclass(frozen=True)
class Box:
    """A unit, drawn."""

    x: float
    y: float
    width: float
    title: str
    lines: tuple[str, ...]
    tone: Tone
    attention: bool = False
    time: bool = False
    hint: str = ""  # shown where the mouse rests
    sources: Mapping[str, Source] = field(default_factory=dict)  # by framework
    height: float = BOX_HEIGHT

    @property
    def middle(self) -> Point:
        """Its centre."""
        return self.x + self.width / 2, self.y + self.height / 2

    @property
    def bottom(self) -> float:
        """Its lower edge."""
        return self.y + self.height


@dataclass(frozen=True)
class Band:
    """The background of a level."""

    y: float
    height: float
    text: str


@dataclass(frozen=True)
class Drawing:
    """All of it."""

    title: str
    subtitle: str
    height: float
    boxes: list[Box]
    bands: list[Band]
    arrows: list[list[Point]]  # corners
    bridges: list[tuple[Point, Point, Point]]  # from a box, to the edge of the other column, to the arrow inside it
    notes: list[tuple[Point, str]]  # centred small texts
    legend: list[tuple[Point, Tone, str]]  # what the colours mean
    footer: list[tuple[Point, str]]  # and the rest, as small texts


Sources = Mapping[str, Mapping[str, Source]]  # by framework and canonical name


def draw(title: str, of: str, steps: Sequence[Step], sources: Sources) -> Drawing:
    """The drawing of a network.

    Args:
        title: the name of the network.
        of: which of its kind, e.g. the name of its preset.
        steps: of its trace.
        sources: where its layers stand in each tree.
    """
    every = units(steps)
    path = [unit for unit in every if not unit.of_the_time]
    time = [unit for unit in every if unit.of_the_time]
    dot = " \N{MIDDLE DOT} "
    numbers = dot.join([of, f"{count(total(steps, 'parameters'))} parameters", f"{mflop(steps)} MFLOP"])
    maker = _Maker(sources, takes_time(path) if time else set())
    head = [maker.time(time)] if time else []
    drawing = Drawing(title, numbers, 0.0, head, [], [], [], [], [], [])
    top = (head[0].bottom if head else HEAD) + GAP
    if not time:
        drawing.notes.append(((WIDTH / 2, HEAD + 6.0), "it is not given the time"))
    if any(unit.name.startswith("down.") for unit in path):
        bottom = _u(drawing, maker, path, top)
    elif len(path) == 2:
        bottom = _row(drawing, maker, path, top)
    else:
        bottom = _column(drawing, maker, path, top)
    bottom = _legend(drawing, bottom + GAP, _entering(time))
    return replace(drawing, height=bottom + MARGIN)


@dataclass(frozen=True)
class _Maker:
    sources: Sources
    timed: set[str]

    def box(self, unit: Unit, x: float, y: float, width: float = BOX, alike: int = 1, last: str = "") -> Box:
        tone = "attention" if unit.has_attention else TONES.get(unit.steps[0].kind, "other")
        return Box(
            x,
            y,
            width,
            unit.name if alike == 1 else f"{unit.name} to {last}, {alike} alike",
            (unit.description, f"{shape(unit.gives)} \N{MIDDLE DOT} {count(alike * unit.parameters)}"),
            tone,
            unit.has_attention,
            unit.name in self.timed,
            f"{unit.name}: {shape(unit.takes)} to {shape(unit.gives)}, {count(unit.parameters)} parameters, "
            f"{unit.multiply_adds / 1e6:.2f} M multiply-adds",
            self._of(unit.name),
        )

    def time(self, time: Sequence[Unit]) -> Box:
        arrow = " \N{RIGHTWARDS ARROW} "
        chain = [unit for unit in time if not unit.name.startswith("label")]
        rows = [unit.steps[0].parameters // unit.gives[-1] for unit in time if unit.name.startswith("label")]
        table = [f"label: a table of {number} row{'s' * (number > 1)}" for number in rows]
        text = " \N{MIDDLE DOT} ".join([*_sizes(chain), *table, count(sum(unit.parameters for unit in time))])
        names = arrow.join(["the time t", *(unit.name for unit in chain)]) if chain else "the class, and not the time"
        sources = self._of(time[0].name)
        return Box(MARGIN, HEAD, WIDTH - 2 * MARGIN, names, (text,), "time", time=True, sources=sources, height=38.0)

    def _of(self, name: str) -> dict[str, Source]:
        return {framework: places[name] for framework, places in self.sources.items() if name in places}


def _u(drawing: Drawing, maker: _Maker, path: Sequence[Unit], top: float) -> float:
    """Levels by size downwards; the way down at the left, the way up at the right, what is deepest in the middle."""
    skips = bridges(path)
    first_up = next(index for index, unit in enumerate(path) if unit.name.startswith("up."))
    sizes = sorted({unit.gives[1:] for unit in path}, reverse=True)
    lefts = [unit for unit in path[:first_up] if unit.name.startswith(("conv_in", "down."))]
    rights = list(path[first_up:])
    middle = [unit for unit in path[:first_up] if unit not in lefts]
    boxes: dict[str, Box] = {}
    y = top
    for size in sizes:
        up = [unit for unit in reversed(rights) if unit.gives[1:] == size]  # from the top
        down = [unit for unit in lefts if unit.gives[1:] == size]
        if not up:
            middle = down + middle
            continue
        rows = _rows(down, up, path, skips)
        height = max(max(rows.values(), default=0), len(up) - 1) + 1
        drawing.bands.append(Band(y, BAND + height * (BOX_HEIGHT + GAP), shape(size)))
        y += BAND
        for unit in down:
            row = y + rows[unit.name] * (BOX_HEIGHT + GAP)
            boxes[unit.name] = maker.box(unit, MARGIN, row)
        for row, unit in enumerate(up):
            boxes[unit.name] = maker.box(unit, WIDTH - MARGIN - BOX, y + row * (BOX_HEIGHT + GAP))
        y += height * (BOX_HEIGHT + GAP) + GAP / 2
    if middle:
        size = middle[0].gives[1:]
        tall = len(middle) * (BOX_HEIGHT + GAP) - GAP + MARGIN
        if drawing.bands[-1].text == shape(size):  # it is the level above, whose band goes on
            last = drawing.bands.pop()
            drawing.bands.append(Band(last.y, y - last.y + tall, last.text))
        else:
            drawing.bands.append(Band(y, BAND + tall, shape(size)))
            y += BAND
        for unit in middle:
            boxes[unit.name] = maker.box(unit, (WIDTH - BOX) / 2, y)
            y += BOX_HEIGHT + GAP
        y -= GAP - MARGIN
    drawing.boxes.extend(boxes[unit.name] for unit in path)
    centre = {unit.name for unit in middle}
    for before, after in itertools.pairwise(path):
        drawing.arrows.append(
            _arrow(boxes[before.name], boxes[after.name], before.name in centre, after.name in centre)
        )
    for start, end in skips:
        left, right = boxes[start.name], boxes[end.name]
        level = right.bottom + JOINT
        drawing.bridges.append(((left.x + left.width, left.middle[1]), (right.x, level), (right.middle[0], level)))
    first, final = boxes[path[0].name], boxes[path[-1].name]
    drawing.notes.append(((first.middle[0], first.y - 8.0), "x_t \N{DOWNWARDS ARROW}"))
    drawing.notes.append(((final.middle[0], final.y - 8.0), "\N{UPWARDS ARROW} prediction"))
    return y


def _rows(
    down: Sequence[Unit], up: Sequence[Unit], path: Sequence[Unit], skips: Sequence[tuple[Unit, Unit]]
) -> dict[str, int]:
    """The rows of the left boxes of a level, so that bridges are nearly level: beside the box that takes the skip."""
    names = [unit.name for unit in up]
    before = {after.name: unit.name for unit, after in itertools.pairwise(path)}
    rows: dict[str, int] = {}
    for unit in down:
        row = max(rows.values(), default=-1) + 1
        for target in (end.name for start, end in skips if start is unit):
            beside = target if target in names else before[target]  # of the level above: what it is joined to
            row = max(row, names.index(beside)) if beside in names else row
        rows[unit.name] = row
    # Boxes without a bridge go down to the one that follows them.
    follower = None
    for unit in reversed(down):
        if follower is not None and all(start is not unit for start, _ in skips):
            rows[unit.name] = follower - 1
        follower = rows[unit.name]
    return rows


def _arrow(start: Box, end: Box, from_centre: bool, to_centre: bool) -> list[Point]:
    (x, y), (u, v) = start.middle, end.middle
    if to_centre and not from_centre:  # from the left column into the middle
        return [(x, start.bottom), (x, v), (end.x, v)]
    if from_centre and not to_centre:  # into the right column
        return [(start.x + start.width, y), (u, y), (u, end.bottom)]
    if x > WIDTH / 2 and not from_centre:  # up
        return [(x, start.y), (x, (start.y + end.bottom) / 2), (u, (start.y + end.bottom) / 2), (u, end.bottom)]
    half = (start.bottom + end.y) / 2
    return [(x, start.bottom), (x, half), (u, half), (u, end.y)]


def _row(drawing: Drawing, maker: _Maker, path: Sequence[Unit], top: float) -> float:
    y = top + 10.0
    boxes = [maker.box(unit, x, y) for unit, x in zip(path, (MARGIN, WIDTH - MARGIN - BOX), strict=True)]
    drawing.boxes.extend(boxes)
    drawing.arrows.append([(boxes[0].x + BOX, boxes[0].middle[1]), (boxes[1].x, boxes[1].middle[1])])
    drawing.notes.append(((boxes[0].middle[0], y - 8.0), "x_t \N{DOWNWARDS ARROW}"))
    drawing.notes.append(((boxes[1].middle[0], y - 8.0), "\N{UPWARDS ARROW} prediction"))
    return boxes[0].bottom


def _column(drawing: Drawing, maker: _Maker, path: Sequence[Unit], top: float) -> float:
    y = top + 14.0
    drawing.notes.append(((WIDTH / 2, y - 8.0), "x_t \N{DOWNWARDS ARROW}"))
    boxes = []
    for group in _alike(path):
        boxes.append(maker.box(group[0], (WIDTH - WIDE) / 2, y, WIDE, len(group), group[-1].name))
        y += BOX_HEIGHT + GAP
    drawing.boxes.extend(boxes)
    drawing.arrows.extend(_arrow(*pair, True, True) for pair in itertools.pairwise(boxes))
    drawing.notes.append(((WIDTH / 2, y), "\N{DOWNWARDS ARROW} prediction"))
    return y + MARGIN


def _sizes(chain: Sequence[Unit]) -> list[str]:
    """What the time becomes, one number after the other; nothing where there is no time."""
    sizes = [size for unit in chain[:1] for size in unit.takes] + [unit.gives[-1] for unit in chain]
    return [" \N{RIGHTWARDS ARROW} ".join(map(str, sizes))] if chain else []


def _entering(time: Sequence[Unit]) -> str:
    """What the letter t says."""
    labels = [unit.name.startswith("label") for unit in time]
    if not any(labels):
        return "the time enters"
    return "the class enters" if all(labels) else "the time enters, and with it the class"


def _legend(drawing: Drawing, y: float, entering: str) -> float:
    """Below everything, what colours, letters and numbers mean, as far as they are used. Returns the last line's y."""
    meanings: dict[Tone, str] = {
        "convolution": "convolution",
        "sampling": "change of size",
        "block": "block",
        "attention": "with attention (A)",
        "other": "linear map or normalisation",
    }
    x = MARGIN
    for tone, text in meanings.items():
        if any(box.tone == tone for box in drawing.boxes):
            wide = 32.0 + 5.2 * len(text)
            if x + wide > WIDTH:
                x, y = MARGIN, y + 18.0
            drawing.legend.append(((x, y), tone, text))
            x += wide
    lines = ["In a box: its name, its kind, the shape that it gives \N{MIDDLE DOT} its parameters"]
    lines += [f"t: here {entering}"] * any(box.time for box in drawing.boxes)
    lines += ["dashed: it waits, and is taken beside the input on the way up"] * bool(drawing.bridges)
    for line in lines:
        y += 17.0
        drawing.footer.append(((MARGIN, y), line))
    return y


def _alike(path: Sequence[Unit]) -> list[list[Unit]]:
    groups: list[list[Unit]] = []
    for unit in path:
        same = (unit.description, unit.takes, unit.gives, unit.parameters)
        if groups and same == (lambda u: (u.description, u.takes, u.gives, u.parameters))(groups[-1][0]):
            groups[-1].append(unit)
        else:
            groups.append([unit])
    return [part for group in groups for part in ([group] if len(group) > LONGEST else [[unit] for unit in group])]


def count(number: int) -> str:
    """A number as people read it: 1,217 or 61.5 k or 2.73 M."""
    if number < 10_000:
        return f"{number:,}"
    return f"{number / 1e3:.1f} k" if number < 1_000_000 else f"{number / 1e6:.2f} M"


def mflop(steps: Sequence[Step]) -> str:
    """Millions of floating-point operations of one image; a multiply-add is two."""
    millions = 2 * total(steps, "multiply_adds") / 1e6
    return f"{millions:,.0f}" if millions >= 10 else f"{millions:.1f}"


def shape(sizes: Sequence[int]) -> str:
    """[C, H, W] as C x H x W, with the sign for it."""
    return " \N{MULTIPLICATION SIGN} ".join(map(str, sizes)) if sizes else "the time"
