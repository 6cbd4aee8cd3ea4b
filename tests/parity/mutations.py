"""Faults planted one at a time: the suite is only as good as the faults that it catches.

`planted` imports a tree anew with an edit of faults.py made in its source; the suite must then find a gap in float64.
A fault of what both trees share is in both, and while the oracle computes too: what it has by a formula of its own, and
no agreement of the trees, shows the fault.
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
from types import FunctionType, ModuleType
from typing import Any

from tqdm import tqdm

from ddpm_parity.faults import MUTATIONS
from ddpm_parity.mutation import Mutation
from ddpm_parity.quantities import Verdict, judge
from ddpm_parity.sides import Oracle, Side
from ddpm_parity.suite import QUANTITIES, Suite
from ddpm_parity.tf_side import TensorFlow, as_traced
from ddpm_parity.torch_side import Torch
from ddpm_shared import files

RECORD = Path(__file__).with_name("caught_by.json")
TREES: dict[str, type[Torch] | type[TensorFlow]] = {"torch": Torch, "tf": TensorFlow}
SHARED = "shared"  # instead of a tree, in a fault of ddpm_shared


class _Loader(importlib.machinery.SourceFileLoader):
    """Imports a module from its edited source."""

    def __init__(self, fullname: str, path: str, edits: Sequence[tuple[str, str]]) -> None:
        super().__init__(fullname, path)
        self.edits = edits

    def get_code(self, fullname: str) -> Any:
        """Compiled from the text, never from a cache."""
        return _compiled(self.get_data(self.path).decode(), self.path, self.edits)


def _compiled(source: str, path: str, edits: Sequence[tuple[str, str]]) -> Any:
    for old, new in edits:
        if source.count(old) != 1:
            raise LookupError(f"{path} holds {old!r} {source.count(old)} times, not once: mend the mutation")
        source = source.replace(old, new)
    return compile(source, path, "exec")


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
    """Within this context, the tree's modules are imported anew, with the fault; afterwards the true ones are back.

    A module of ddpm_shared stays the one that everybody has imported, and its functions do what the edited ones do.
    """
    if mutation.tree == SHARED:
        with _planted_in_place(importlib.import_module(f"ddpm_shared.{mutation.module}"), mutation.edits):
            yield
        return
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


@contextlib.contextmanager
def _planted_in_place(module: ModuleType, edits: Sequence[tuple[str, str]]) -> Iterator[None]:
    assert module.__file__ is not None, module
    edited = ModuleType(module.__name__)
    edited.__file__ = module.__file__
    exec(_compiled(Path(module.__file__).read_text("utf-8"), module.__file__, edits), edited.__dict__)
    changed = {name: function for name, function in _functions(edited)}
    sound = {name: (function, function.__code__) for name, function in _functions(module)}
    for name, (function, _) in sound.items():
        function.__code__ = changed[name].__code__
    try:
        yield
    finally:
        for function, code in sound.values():
            function.__code__ = code


def _functions(module: ModuleType) -> Iterator[tuple[str, FunctionType]]:
    """The functions, methods and properties that the text of a module defines, by their qualified names."""
    own = [value for value in vars(module).values() if getattr(value, "__module__", None) == module.__name__]
    methods = [value for kind in own if isinstance(kind, type) for value in vars(kind).values()]
    for value in [*own, *methods]:
        function = value.fget if isinstance(value, property) else value
        if isinstance(function, FunctionType) and function.__code__.co_filename == module.__file__:
            yield function.__qualname__, function


def recorded() -> dict[str, str]:
    """Fault -> the comparison that caught it when the record was made."""
    record: dict[str, str] = json.loads(RECORD.read_text("utf-8"))
    return record


def catch(suite: Suite, mutation: Mutation, first: str | None = None) -> Verdict | None:
    """The first float64 comparison that fails on the mutated tree, or trees; None: the fault survived all of them.

    Args:
        suite: the three sides.
        mutation: the fault.
        first: the comparison to begin with; those of the fault's subject are next, then all the others.
    """
    quantities = sorted(
        (q for q in QUANTITIES if not q.slow), key=lambda q: (str(q) != first, q.subject != mutation.subject)
    )
    mutants: dict[str, Side] = {
        name: tree("fp64", suite.device) for name, tree in TREES.items() if mutation.tree in (name, SHARED)
    }
    if mutation.tree == SHARED:
        mutants["oracle"] = Oracle(suite.sides["fp64"]["torch"])
    sides = suite.sides["fp64"] | mutants
    for name, other in (("torch", "tf"), ("tf", "torch")):
        if name in mutants:
            mutants[name].other = sides[other]
    for quantity in quantities:
        results = {name: suite.compute(quantity, side) for name, side in sides.items() if name not in mutants}
        with planted(mutation), as_traced():
            results = {name: quantity.compute(mutant) for name, mutant in mutants.items()} | results
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
