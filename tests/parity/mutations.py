"""Faults planted in one tree at a time: the suite is only as good as the faults that it catches.

`planted` imports a tree anew with an edit of faults.py made in its source; the suite must then find a gap in float64.
"""

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

from ddpm_parity.faults import Mutation
from ddpm_parity.quantities import Verdict, judge
from ddpm_parity.suite import QUANTITIES, Suite
from ddpm_parity.tf_side import TensorFlow
from ddpm_parity.torch_side import Torch

TREES = {"torch": Torch, "tf": TensorFlow}


class _Loader(importlib.machinery.SourceFileLoader):
    """Imports a module from its edited source."""

    def __init__(self, fullname: str, path: str, edits: Sequence[tuple[str, str]]) -> None:
        super().__init__(fullname, path)
        self.edits = edits

    def get_code(self, fullname: str) -> Any:
        """Compiled from the text, never from a cache."""
        source = self.get_data(self.path).decode()
        for old, new in self.edits:
            if source.count(old) != 1:
                raise LookupError(f"{self.path} holds {old!r} {source.count(old)} times, not once: mend the mutation")
            source = source.replace(old, new)
        return compile(source, self.path, "exec")


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, fullname: str, edits: Sequence[tuple[str, str]]) -> None:
        self.fullname, self.edits = fullname, edits

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> Any:
        if fullname != self.fullname:
            return None
        found = importlib.machinery.PathFinder.find_spec(fullname, path)
        assert found is not None, fullname
        assert found.origin is not None, fullname
        return importlib.util.spec_from_loader(fullname, _Loader(fullname, found.origin, self.edits))


@contextlib.contextmanager
def planted(mutation: Mutation) -> Iterator[None]:
    """Within this context, the tree's modules are imported anew, with the fault; afterwards the true ones are back."""
    package = TREES[mutation.tree].tree

    def names() -> list[str]:
        return [name for name in sys.modules if name == package or name.startswith(package + ".")]

    kept = {name: sys.modules.pop(name) for name in names()}
    finder = _Finder(f"{package}.{mutation.module}", mutation.edits)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in names():
            del sys.modules[name]
        sys.modules.update(kept)


def catch(suite: Suite, mutation: Mutation) -> Verdict | None:
    """The first float64 comparison that fails on the mutated tree, its likely subject first; None: it survived."""
    quantities = sorted((q for q in QUANTITIES if not q.slow), key=lambda q: q.subject != mutation.subject)
    mutant = TREES[mutation.tree]("fp64", suite.device)
    sound = {name: side for name, side in suite.sides["fp64"].items() if name != mutation.tree}
    mutant.other = sound["tf" if mutation.tree == "torch" else "torch"]
    for quantity in quantities:
        results = {name: suite.compute(quantity, side) for name, side in sound.items()}
        with planted(mutation):
            results = {mutation.tree: quantity.compute(mutant), **results}
        verdict = judge(quantity, results, "fp64", suite.device)
        if verdict.faults:
            return verdict
    return None
