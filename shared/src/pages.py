"""What the HTML pages and figures share: templates, pictures inside a page, colours, numbers in tables."""

import base64
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ddpm_shared import images
from ddpm_shared.frameworks import FRAMEWORKS
from ddpm_shared.images import Pixels

if TYPE_CHECKING:  # most who need a colour write no page
    import jinja2

# Different to every kind of colour vision (Okabe and Ito 2008). report.css has each once more, for dark pages.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
BLUE, VERMILION = COLOURS[:2]


def templates(*packages: str, **filters: Callable[..., str]) -> "jinja2.Environment":
    """The templates in the folders templates/ of `packages`, the first that has one of a name being used.

    Args:
        packages: import names.
        filters: by name, besides `shown` and `duration`.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(package) for package in packages]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"shown": shown, "duration": duration, **filters}
    environment.globals["frameworks"] = {name: framework.title for name, framework in FRAMEWORKS.items()}
    return environment


def to_bytes(page: str) -> bytes:
    """A page as UTF-8. Names that are no text, as folders may have, are written with backslashes."""
    return page.encode("utf-8", "backslashreplace")


def data_uri(data: bytes, kind: str) -> str:
    """A picture as the address of an <img> that needs no file; `kind` is png or gif."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def png_uri(pixels: Pixels) -> str:
    """[height, width, C] uint8 as the address of an <img> that needs no file."""
    return data_uri(images.png(pixels), "png")


def shown(value: Any) -> str:
    """A value of JSON as a table shows it; a dash where there is none."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.6g}"
    return ", ".join(map(shown, value)) if isinstance(value, list | tuple) else str(value)


def duration(seconds: float) -> str:
    """Seconds as hours, minutes and seconds, e.g. "1:02:03"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
