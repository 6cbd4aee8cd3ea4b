"""The two frameworks by name. Nothing here imports them."""

import importlib.util
from typing import NamedTuple


class Framework(NamedTuple):
    """What people call a framework, and the package of the tree written in it."""

    title: str
    tree: str


FRAMEWORKS = {
    "torch": Framework("PyTorch", "ddpm_torch"),
    "tensorflow": Framework("TensorFlow", "ddpm_tf"),
}


def installed(framework: str) -> bool:
    """Whether a package is installed. From the root, the folder tensorflow/ can be imported as well; it has no origin.

    Args:
        framework: "torch", "tensorflow" or the name of any other package.
    """
    try:
        spec = importlib.util.find_spec(framework)
    except ModuleNotFoundError:  # from ddpm_shared.importing
        return False
    return spec is not None and spec.origin is not None


def missing(error: ImportError) -> str | None:
    """The sentence for a framework that is not installed, or None if the error has another reason."""
    if not isinstance(error, ModuleNotFoundError) or error.name not in FRAMEWORKS or installed(error.name):
        return None
    title = FRAMEWORKS[error.name].title
    others = [other.title for name, other in FRAMEWORKS.items() if name != error.name and installed(name)]
    instead = f", or take the commands of {others[0]}, which is here" if others else ""
    return f'{title} is not installed: pip install -c constraints.txt -e ".[{error.name}]"{instead}'
