"""The command line of the demo's page: read the folder, write demo.html, print its path."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ddpm_shared import claims, command_line, files, pages
from ddpm_shared.demo import folder, page


@dataclass(frozen=True)
class Command:
    """Write demo.html, the page on what `make demo` did, from the files in its folder."""

    folder: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FOLDER")]
    """The folder, runs/demo/<utc>."""


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page and print its path. Returns 0; raises UserError where a piece is missing or does not fit."""
    where = Path(command_line.parse_flags(Command, argv, "ddpm_shared.demo").folder)
    written = where / "demo.html"
    rendered = page.render(folder.read(where))
    with claims.writing(where):
        files.write_atomically(written, pages.to_bytes(rendered))
    print(written)
    return 0
