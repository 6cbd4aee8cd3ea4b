"""A passport in words: passport.md, and its row in the table of all networks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ddpm_shared import files
from ddpm_shared.errors import UserError
from ddpm_shared.frameworks import FRAMEWORKS
from ddpm_shared.passport.layout import Sources, count, mflop, shape
from ddpm_shared.passport.svg import link
from ddpm_shared.passport.trace import Step, total

BEGIN, END = "<!-- passports: written by `make passports` -->", "<!-- end of passports -->"
NOTHING = "-"
HEAD = (
    "network",
    "preset",
    "parameters",
    "MFLOP",
    "sees",
    "training, images/s",
    "forward, images/s",
    "memory in training, MB",
    "memory in drawing, MB",
    "FID",
    "gap in float64",
    "gap in float32",
)


def row(passport: Mapping[str, Any], steps: Sequence[Step]) -> list[str]:
    """The cells of a network in the table; two numbers are PyTorch's and TensorFlow's."""

    def both(piece: str, name: str, scale: float = 1.0, form: str = ",.0f") -> str:
        numbers = [passport["frameworks"].get(framework, {}).get(piece, {}).get(name) for framework in FRAMEWORKS]
        if all(number is None for number in numbers):
            return NOTHING
        return ", ".join(NOTHING if number is None else format(number / scale, form) for number in numbers)

    fid = passport["fid"]
    return [
        passport["network"],
        passport["preset"],
        count(total(steps, "parameters")),
        mflop(steps),
        sees(passport["receptive_field"], passport["image"]),
        both("training", "images_per_second"),
        both("drawing", "images_per_second"),
        both("training", "peak_bytes", 1e6),
        both("drawing", "peak_bytes", 1e6),
        NOTHING if fid is None else f"{fid:.1f}",
        *(_gap(passport["gaps"].get(precision)) for precision in ("fp64", "fp32")),
    ]


def sees(field: Sequence[int] | None, image: Sequence[int]) -> str:
    """The receptive field in words."""
    if field is None:
        return NOTHING
    return "whole image" if list(field) == list(image[1:]) else f"{field[0]} x {field[1]} pixels"


def _gap(gap: Mapping[str, Any] | None) -> str:
    return NOTHING if gap is None else f"{gap['largest']:.1e} ({gap['layer']})"


def markdown(passport: Mapping[str, Any], steps: Sequence[Step], sources: Sources, root: str) -> str:
    """The text of passport.md.

    Args:
        passport: as in passport.json.
        steps: of the trace.
        sources: by framework and layer.
        root: the way from the file's folder to the repository's root, for the links.
    """
    lines = [f"# {passport['network']}, preset {passport['preset']}", ""]
    lines += [f"Images of {shape(passport['image'])}. Two numbers are PyTorch's and TensorFlow's.", ""]
    lines += ["| | |", "|---|---|"]
    lines += [f"| {name} | {cell} |" for name, cell in zip(HEAD[2:], row(passport, steps)[2:], strict=True)]
    lines += ["", "![The network, drawn.](drawing.svg)", "", "## Layers", ""]
    lines += ["| layer | kind | takes | gives | parameters | multiply-adds | source |", "|---|---|---|---|---|---|---|"]
    for step in steps:
        places = [
            f"[{FRAMEWORKS[framework].title}]({link(names[step.name], root)})"
            for framework, names in sources.items()
            if step.name in names
        ]
        cells = (
            f"`{step.name}`",
            step.kind,
            shape(step.takes),
            shape(step.gives),
            f"{step.parameters:,}",
            f"{step.multiply_adds:,}",
            ", ".join(places),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def table(rows: Sequence[Sequence[str]]) -> str:
    """The table of all networks, in Markdown."""
    lines = [f"| {' | '.join(HEAD)} |", "|" + "---|" * len(HEAD)]
    return "\n".join([*lines, *(f"| {' | '.join(cells)} |" for cells in rows)])


def write_table(path: Path, rows: Sequence[Sequence[str]]) -> None:
    """Put the table between the two markers of a page.

    Raises:
        UserError: the page has no such place.
    """
    text = files_text(path)
    before, found, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not (found and ended):
        raise UserError(f"--page {path}: it has no place for the table; it needs the two lines {BEGIN} and {END}")
    files.write_atomically(path, f"{before}{BEGIN}\n{table(rows)}\n{END}{after}".encode())


def files_text(path: Path) -> str:
    """The text of a page. Raises UserError where there is none."""
    if not path.is_file():
        raise UserError(f"--page {path}: there is no such file; name a Markdown page with a place for the table")
    return path.read_text("utf-8")
