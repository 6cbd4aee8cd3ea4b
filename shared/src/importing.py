"""Importing a library in a surrounding of our own, wherever its import comes first."""

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


class _Within:
    """A finder of one module. It has no base class, since importlib.abc takes long to import."""

    def __init__(self, name: str, surrounding: Callable[[], AbstractContextManager[None]]) -> None:
        self.name, self.surrounding = name, surrounding

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.origin is None:  # a folder of that name, as the repository's own tensorflow/
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def within(module: ModuleType) -> None:
                with self.surrounding():
                    execute(module)

            spec.loader.exec_module = within  # type: ignore[method-assign]
        return spec


def within(name: str, surrounding: Callable[[], AbstractContextManager[None]]) -> None:
    """Have the first `import name` happen inside the context that `surrounding` makes.

    Libraries read their settings when they are imported. The import itself stays where it is, so a command line reads
    its flags before it waits for a framework.
    """
    sys.meta_path.insert(0, _Within(name, surrounding))
