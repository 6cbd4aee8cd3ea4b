"""The two frameworks: what people call them, and the tree that is written in each."""

import importlib.util
from typing import NamedTuple


class Framework(NamedTuple):
    """One of the two."""

    title: str  # for people
    tree: str  # the package that is written in it; only named here, never imported


FRAMEWORKS = {
    "torch": Framework("PyTorch", "ddpm_torch"),
    "tensorflow": Framework("TensorFlow", "ddpm_tf"),
}


def installed(framework: str) -> bool:
    """Whether `framework` is there. From the root, the folder tensorflow/ can be imported too, but has no origin."""
    spec = importlib.util.find_spec(framework)
    return spec is not None and spec.origin is not None
