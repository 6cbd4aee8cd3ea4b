"""Faults planted in one tree at a time: the suite is only as good as the faults that it catches.

`planted` imports a tree anew with an edit of faults.py made in its source; the suite must then find a gap in float64.
Which comparison catches which fault is recorded in caught_by.json, so that one comparison is enough for each. After a
change of faults.py or of a quantity's name, this brings the record up to date, in some seconds for each new fault:

    python -m ddpm_parity.mutations
"""

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from tqdm import tqdm

from ddpm_parity.faults import MUTATIONS, Mutation
from ddpm_parity.quantities import Verdict, judge
from ddpm_parity.suite import QUANTITIES, Suite
from ddpm_parity.tf_side import TensorFlow
from ddpm_parity.torch_side import Torch
from ddpm_shared import files

RECORD = Path(__file__).with_name("caught_by.json")
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


def recorded() -> dict[str, str]:
    """Fault -> the comparison that caught it when the record was made."""
    record: dict[str, str] = json.loads(RECORD.read_text("utf-8"))
    return record


def catch(suite: Suite, mutation: Mutation, first: str | None = None) -> Verdict | None:
    """The first float64 comparison that fails on the mutated tree; None: the fault survived all of them.

    Args:
        suite: the three sides.
        mutation: the fault.
        first: the comparison to begin with; those of the fault's subject are next, then all the others.
    """
    quantities = sorted(
        (q for q in QUANTITIES if not q.slow), key=lambda q: (str(q) != first, q.subject != mutation.subject)
    )
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


def update() -> dict[str, str]:
    """The record for the faults and quantities of today: entries that still hold, and a search for the others.

    A fault that nothing catches gets no entry.
    """
    suite, names, old = Suite(), {str(q) for q in QUANTITIES if not q.slow}, recorded()
    record = {}
    for mutation in tqdm(MUTATIONS, desc="planted faults", disable=None):
        name = old.get(str(mutation))
        if name not in names:
            verdict = catch(suite, mutation)
            name = str(verdict.quantity) if verdict else None
        if name:
            record[str(mutation)] = name
    return record


if __name__ == "__main__":
    files.write_json(RECORD, update())
