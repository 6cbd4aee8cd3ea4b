"""The drawing of a network as SVG, light and dark, its boxes linked to their lines of source."""

from html import escape

from ddpm_shared.passport.layout import WIDTH, Box, Drawing, Point
from ddpm_shared.passport.trace import Source

# Fill and edge of each tone, and the colours of the rest, by the background.
LIGHT = {
    "ground": "#ffffff",
    "band": "#f4f5f7",
    "text": "#1f2328",
    "faint": "#59636e",
    "line": "#59636e",
    "bridge": "#8250df",
    "convolution": "#ddeeff",
    "convolution-edge": "#4a90d9",
    "sampling": "#dff5e5",
    "sampling-edge": "#3a9d5d",
    "block": "#e8e6fb",
    "block-edge": "#7a6fd0",
    "attention": "#ffe8cc",
    "attention-edge": "#e07b16",
    "other": "#eceff2",
    "other-edge": "#8b949e",
    "time": "#fff6cf",
    "time-edge": "#c9a200",
}
DARK = {
    "ground": "#0d1117",
    "band": "#161b22",
    "text": "#f0f6fc",
    "faint": "#9da7b3",
    "line": "#9da7b3",
    "bridge": "#bc8cff",
    "convolution": "#12304f",
    "convolution-edge": "#4a90d9",
    "sampling": "#123a22",
    "sampling-edge": "#3fb068",
    "block": "#29254d",
    "block-edge": "#8d83e6",
    "attention": "#4a2c0b",
    "attention-edge": "#f0913a",
    "other": "#22272e",
    "other-edge": "#768390",
    "time": "#3d3305",
    "time-edge": "#d9b61c",
}
TONES = ("convolution", "sampling", "block", "attention", "other", "time")
SHORT = {"torch": "torch", "tensorflow": "tf"}
FONT = "-apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', Helvetica, Arial, sans-serif"


def svg(drawing: Drawing, root: str) -> str:
    """The drawing as a text of XML.

    Args:
        drawing: from layout.draw.
        root: the way from the file's folder to the repository's root, e.g. "..", for the links.
    """
    body = [
        f'<rect width="{_n(WIDTH)}" height="{_n(drawing.height)}" rx="10" class="ground"/>',
        f'<text x="14" y="23" class="title">{escape(drawing.title)}</text>',
        f'<text x="14" y="41" class="small">{escape(drawing.subtitle)}</text>',
    ]
    for band in drawing.bands:
        body.append(
            f'<rect x="4" y="{_n(band.y)}" width="{_n(WIDTH - 8)}" height="{_n(band.height)}" rx="8" class="band"/>'
        )
        body.append(f'<text x="12" y="{_n(band.y + 15)}" class="small">{band.text}</text>')
    body += [f'<path class="arrow" d="{_line(corners)}" marker-end="url(#head)"/>' for corners in drawing.arrows]
    for start, edge, end in drawing.bridges:
        body.append(f'<path class="bridge" d="{_bridge(start, edge, end)}"/>')
        body.append(f'<circle class="joint" cx="{_n(end[0])}" cy="{_n(end[1])}" r="4"/>')
    body += [
        f'<text x="{_n(x)}" y="{_n(y)}" class="small middle">{escape(text)}</text>' for (x, y), text in drawing.notes
    ]
    for (x, y), tone, text in drawing.legend:
        body.append(f'<rect x="{_n(x)}" y="{_n(y - 10)}" width="16" height="12" rx="3" class="{tone}"/>')
        body.append(f'<text x="{_n(x + 21)}" y="{_n(y)}" class="tiny">{escape(text)}</text>')
    body += [f'<text x="{_n(x)}" y="{_n(y)}" class="tiny">{escape(text)}</text>' for (x, y), text in drawing.footer]
    for box in drawing.boxes:
        body += _box(box, root)
    lines = "\n".join(body)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_n(WIDTH)} {_n(drawing.height)}" role="img" '
        f'font-family="{FONT}">\n<title>{escape(drawing.title)}: {escape(drawing.subtitle)}</title>\n'
        f"<style>{_style()}</style>\n"
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0.5 L8 4 L0 7.5 Z" class="head"/></marker></defs>\n{lines}\n</svg>\n'
    )


def _box(box: Box, root: str) -> list[str]:
    x, y = box.x, box.y
    lines = [
        f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(box.width)}" height="{_n(box.height)}" rx="7" class="{box.tone}">'
        + (f"<title>{escape(box.hint)}</title>" if box.hint else "")
        + "</rect>",
        f'<text x="{_n(x + 9)}" y="{_n(y + 16)}" class="name">{escape(box.title)}</text>',
    ]
    lines += [
        f'<text x="{_n(x + 9)}" y="{_n(y + 31 + 14 * row)}" class="small">{escape(line)}</text>'
        for row, line in enumerate(box.lines)
    ]
    places = dict(box.sources)
    first = next(iter(places.values()), None)
    if first is not None:
        lines = [f'<a href="{escape(link(first, root))}">', *lines, "</a>"]
    right = x + box.width - 8
    for framework in reversed(places):
        lines.append(
            f'<a href="{escape(link(places[framework], root))}"><text x="{_n(right)}" y="{_n(y + 16.5)}" '
            f'class="link">{SHORT[framework]}</text></a>'
        )
        right -= 7 + 5.5 * len(SHORT[framework])
    right = x + box.width - 12
    for shown, letter, tone in ((box.time, "t", "time"), (box.attention, "A", "attention")):
        if shown:
            lines.append(f'<circle cx="{_n(right)}" cy="{_n(y - 3)}" r="8.5" class="badge {tone}"/>')
            lines.append(f'<text x="{_n(right)}" y="{_n(y + 1)}" class="letter">{letter}</text>')
            right -= 20
    return lines


def link(place: Source, root: str) -> str:
    """The address of a line of source, as GitHub understands it, from the folder of the drawing."""
    return f"{root}/{place.file}#L{place.line}"


def _style() -> str:
    def colours(of: dict[str, str]) -> str:
        rules = [
            f".ground{{fill:{of['ground']}}}.band{{fill:{of['band']}}}text{{fill:{of['text']}}}",
            f".small,.tiny,.link{{fill:{of['faint']}}}.arrow{{stroke:{of['line']}}}.head{{fill:{of['line']}}}",
            f".bridge{{stroke:{of['bridge']}}}.joint{{fill:{of['bridge']}}}",
            *(f".{tone}{{fill:{of[tone]};stroke:{of[f'{tone}-edge']}}}" for tone in TONES),
        ]
        return "".join(rules)

    shapes = (
        "text{font-size:12px}.title{font-size:16px;font-weight:700}.name{font-size:12.5px;font-weight:600}"
        ".small{font-size:11.5px}.tiny{font-size:11px}.link{font-size:10.5px;text-anchor:end;text-decoration:underline}"
        ".middle{text-anchor:middle}.letter{font-size:11px;font-weight:700;text-anchor:middle}"
        ".arrow{fill:none;stroke-width:1.4}.bridge{fill:none;stroke-width:1.8;stroke-dasharray:5 3}"
        ".badge{stroke-width:1.4}"
    )
    return f"{shapes}{colours(LIGHT)}@media (prefers-color-scheme:dark){{{colours(DARK)}}}"


def _line(corners: list[Point]) -> str:
    return "M" + " L".join(f"{_n(x)} {_n(y)}" for x, y in corners)


def _bridge(start: Point, edge: Point, end: Point) -> str:
    half = (start[0] + edge[0]) / 2
    curve = (start, (half, start[1]), (half, edge[1]), edge, end)
    return "M{} C{} {} {} L{}".format(*(f"{_n(x)} {_n(y)}" for x, y in curve))


def _n(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")
