"""One of the two trees, by the name of its framework, so that one notebook teaches both."""

import dataclasses
import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ddpm_course import figures
from ddpm_shared.config import Config
from ddpm_shared.frameworks import FRAMEWORKS, installed
from ddpm_shared.records import checkpoint


@dataclass(frozen=True)
class Tree:
    """The modules of a tree: `tree.engine` is ddpm_torch.engine or ddpm_tf.engine, imported when it is first asked for.

    Outside, images are NumPy arrays [B, H, W, C]; `tree.data.to_tensor` and `to_array` go to the tree's own tensors and
    back.
    """

    framework: str  # "torch" or "tensorflow"

    @property
    def name(self) -> str:
        """What people call the framework."""
        return FRAMEWORKS[self.framework].title

    def __getattr__(self, module: str) -> ModuleType:
        if module.startswith("_"):
            raise AttributeError(module)
        return importlib.import_module(f"{FRAMEWORKS[self.framework].tree}.{module}")

    def times(self, values: Sequence[int]) -> Any:
        """Times t as a tensor, [B] int32."""
        array = np.asarray(values, np.int32)
        if self.framework == "torch":
            return importlib.import_module("torch").from_numpy(array)
        return importlib.import_module("tensorflow").constant(array)

    def trained(self, file: Path = checkpoint.BOXED) -> tuple[Any, Config]:
        """The network in the package, or in another file, with its averaged weights, in float32 on the CPU.

        Args:
            file: a checkpoint of either framework.

        Returns:
            The network, (x_t, t, labels=None) -> output, and its settings.
        """
        loaded = checkpoint.load(file, ("ema",))
        config = dataclasses.replace(loaded.config, precision="fp32", device="cpu")
        return self.model.load(loaded, "ema", config), config


def begin(framework: str) -> Tree:
    """The tree of `framework`, with the figures of this notebook made readable.

    Raises:
        SystemExit: no such framework, or it is not installed; a notebook then shows one sentence.
    """
    if framework not in FRAMEWORKS:
        raise SystemExit(f'FRAMEWORK = "{framework}": choose "torch" or "tensorflow" there and run it again.')
    if not installed(framework):
        other = next(name for name in FRAMEWORKS if name != framework)
        title = FRAMEWORKS[framework].title
        raise SystemExit(
            f'{title} is not installed here: set FRAMEWORK = "{other}" in the cell above, or install both '
            "with `make setup` and restart the kernel."
        )
    return _begin(framework)


def begin_both() -> tuple[Tree, Tree]:
    """The trees of PyTorch and of TensorFlow, for what compares them. Raises SystemExit where one is not installed."""
    for framework in FRAMEWORKS:
        if not installed(framework):
            raise SystemExit(
                f"This notebook compares two frameworks, and {FRAMEWORKS[framework].title} is not installed here: run "
                "`make setup` and restart the kernel."
            )
    torch, tensorflow = map(_begin, FRAMEWORKS)
    return torch, tensorflow


def _begin(framework: str) -> Tree:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's greetings are not the lesson
    figures.use_style()
    return Tree(framework)
