"""The TensorFlow tree: NHWC tensors. Mirror: ddpm_torch."""

import functools
import importlib.machinery
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class _QuietTensorFlow(MetaPathFinder):
    """Has `import tensorflow` print no startup messages, wherever it comes first.

    TensorFlow 2.21 writes a dozen lines about CPU and CUDA to file descriptor 2 before it reads TF_CPP_MIN_LOG_LEVEL,
    some of which look like errors. They are shown only if the import fails. The import takes four seconds, so this
    package does not make it: a command line reads its flags first.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "tensorflow":
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None and spec.origin is not None:
            execute = functools.partial(_execute_quietly, spec.loader.exec_module)
            spec.loader.exec_module = execute  # type: ignore[method-assign]
        return spec


def _execute_quietly(execute: Callable[[ModuleType], None], module: ModuleType) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # from here on, warnings but no messages about the CPU
    with tempfile.TemporaryFile() as messages:
        stderr = os.dup(2)
        os.dup2(messages.fileno(), 2)
        try:
            execute(module)
            module.config.list_physical_devices()
        except BaseException:
            messages.seek(0)
            os.write(stderr, messages.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


sys.meta_path.insert(0, _QuietTensorFlow())
