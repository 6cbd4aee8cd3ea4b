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
    spec = importlib.util.find_spec(framework)
    return spec is not None and spec.origin is not None
