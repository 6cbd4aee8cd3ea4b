"""Command lines: flags from dataclasses, and one clear sentence for every bad input."""

import contextlib
import errno
import io
import itertools
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, TypeVar

import tyro

from ddpm_shared import frameworks, machine, memory, output, reading, stopping
from ddpm_shared.errors import UserError

T = TypeVar("T")

# Columns: for fewer, tyro takes minutes and all memory to break its lines; for so many, it breaks none.
NARROWEST, WIDEST = 40, 100_000


def guard(main: Callable[[], int]) -> NoReturn:
    """Run a command line: bad input becomes one sentence on stderr and exit code 2, without a traceback.

    Nothing that goes wrong with the output ends it, and once `main` is done, no signal changes its exit code.
    """
    output.secure()
    machine.keep_freed_memory()
    try:
        sys.exit(_exit_code(main))
    finally:
        stopping.disregard()


def _exit_code(main: Callable[[], int]) -> int:
    try:
        return main()
    except (Exception, KeyboardInterrupt) as error:
        if _came_of_an_interrupt(error):
            return _say("interrupted", 130)
        error = memory.out_of_memory(error) or error
        if isinstance(error, UserError):
            return _say(f"error: {error}", 2)
        if isinstance(error, ImportError) and (sentence := frameworks.missing(error)):
            return _say(f"error: {sentence}", 2)
        if isinstance(error, OSError):
            place = f" ({reading.name_of(error.filename)})" if error.filename else ""
            sentence = f"error: {error.strerror or error}{place}: free space or correct the path, and run again"
            return _say(sentence, 2 if error.errno == errno.ENAMETOOLONG else 1)
        raise


def _came_of_an_interrupt(error: BaseException | None) -> bool:
    """Whether it is Ctrl-C, or an error that some library made of it."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def _say(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code


def parse_flags(kind: Callable[..., T], argv: Sequence[str] | None, module: str, default: T | None = None) -> T:
    """Read the flags of the dataclass `kind`; `--help` lists them with the field docstrings.

    Args:
        kind: the dataclass; nested ones give flags without a prefix. Or a function, which is called with the flags.
        argv: the arguments; None for those of the process.
        module: the module name after `python -m`.
        default: the values of the flags that are not given.

    Raises:
        UserError: an unknown flag, or a value that is missing, wrong or an empty text.
    """
    require_words(sys.argv[1:] if argv is None else argv)
    options: dict[str, Any] = {} if default is None else {"default": default}

    def parse(columns: int, stderr: io.StringIO) -> T:
        with _columns(columns), contextlib.redirect_stderr(stderr):
            return tyro.cli(kind, args=argv, prog=f"python -m {module}", config=(tyro.conf.OmitArgPrefixes,), **options)

    try:
        return parse(max(NARROWEST, shutil.get_terminal_size().columns), io.StringIO())
    except SystemExit as stopped:
        if not stopped.code:  # --help
            raise
    box = io.StringIO()
    with contextlib.suppress(SystemExit):
        parse(WIDEST, box)
    raise UserError(_sentence(box.getvalue(), module))


@contextlib.contextmanager
def _columns(columns: int) -> Iterator[None]:
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(columns)
    try:
        yield
    finally:
        del os.environ["COLUMNS"]
        if before is not None:
            os.environ["COLUMNS"] = before


def _sentence(box: str, module: str) -> str:
    """What tyro prints in a box, as one sentence."""
    _, *lines = (re.sub("[\u2500-\u257f]", "", line).strip() for line in box.splitlines())  # the first is a title
    message = " ".join(itertools.takewhile(bool, lines)).rstrip(".")
    message = re.sub(r"^Error parsing (?:(?:settings|sampling|data)[\w.]*: )?", "", message)
    meant = re.search(r"Perhaps you meant:\s+(--[\w-]+)", "\n".join(lines))
    suggestion = f"; perhaps you meant {meant[1]}" if meant else ""
    return f"{message}{suggestion}; `python -m {module} --help` lists the flags"


def require_words(argv: Sequence[str]) -> None:
    """Raise UserError if an argument or the value of a flag is an empty text, as of a shell's variable that is not set.

    Some flags would take it for the current folder, others for nothing at all.
    """
    flag = "an argument"
    for argument in argv:
        name, equals, value = argument.partition("=")
        long = name.startswith("--")
        if not argument.strip() or (long and equals and not value.strip()):
            raise UserError(f"{name if long else flag} is an empty text: give it a value, or leave it out")
        flag = name if long else "an argument"
