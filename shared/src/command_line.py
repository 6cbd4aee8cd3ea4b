"""Command lines: flags from dataclasses, and one clear sentence for every bad input."""

import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

import tyro

from ddpm_shared import machine
from ddpm_shared.errors import UserError

T = TypeVar("T")


def guard(main: Callable[[], int]) -> NoReturn:
    """Run a command line: bad input becomes one sentence on stderr and exit code 2, without a traceback."""
    machine.keep_freed_memory()
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(_say(f"error: {error}", 2))
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        sys.exit(_say(f"error: {error.strerror or error}{place}: free space or correct the path, and run again", 1))
    except KeyboardInterrupt:
        sys.exit(_say("interrupted", 130))


def _say(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code


def parse_flags(kind: type[T], argv: Sequence[str] | None, module: str, default: T | None = None) -> T:
    """Read the flags of the dataclass `kind`; `--help` lists them with the field docstrings.

    Args:
        kind: the dataclass; nested ones give flags without a prefix.
        argv: the arguments; None for those of the process.
        module: the module name after `python -m`.
        default: the values of the flags that are not given.
    """
    options: dict[str, Any] = {} if default is None else {"default": default}
    return tyro.cli(kind, args=argv, prog=f"python -m {module}", config=(tyro.conf.OmitArgPrefixes,), **options)
