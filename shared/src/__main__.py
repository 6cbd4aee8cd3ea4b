"""The command `ddpm-duet`, which needs no make: `ddpm-duet VERB [FLAGS ...]`.

`python -m ddpm_shared VERB [FLAGS ...]` is the same, and `make VERB ARGS="FLAGS ..."` calls it. The flags go on as they
are: `ddpm-duet train-torch --help` lists those of a training.
"""

import difflib
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import NoReturn

from ddpm_shared.verbs import ONE_THREAD, ROOT, VERBS, Verb

USAGE = "usage: ddpm-duet [--workers N] VERB [FLAGS ...]"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command of a verb. Returns its exit code; 2 where there is no such verb."""
    arguments, workers = list(sys.argv[1:] if argv is None else argv), None
    if arguments[:1] in ([], ["-h"], ["--help"], ["help"]):
        print(_help())
        return 0
    if arguments[0] == "--workers":
        workers, arguments = arguments[1] if len(arguments) > 1 else "", arguments[2:]
    name, *flags = arguments or [""]
    try:
        command = _command(name, flags, workers)
    except LookupError as error:
        print(f"error: {error.args[0]}", file=sys.stderr)
        return 2
    return _run(command, VERBS[name])


def _help() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {name:{width}}  {verb.about}" for name, verb in VERBS.items()]
    return "\n".join([USAGE, "", *lines, "", "ddpm-duet VERB --help lists the flags of one; --workers N: N processes."])


def _command(name: str, flags: Sequence[str], workers: str | None) -> list[str]:
    """What a verb runs.

    Raises:
        LookupError: with a sentence: no such verb, none for several workers, or one that needs what is not here.
    """
    if name not in VERBS:
        near = difflib.get_close_matches(name, VERBS, 1)
        hint = f"did you mean {near[0]}?" if near else "`ddpm-duet` alone lists all."
        raise LookupError(f"{name or 'nothing'} is no verb of ddpm-duet: {hint}")
    verb = VERBS[name]
    if workers is not None and not verb.workers:
        raise LookupError(f"--workers {workers}: {name} runs in one process; leave --workers out")
    if verb.file is not None:
        if not verb.file.is_file():
            raise LookupError(f"{name} needs {verb.target}, a file of the repository: clone it, and run this there")
        return [sys.executable, str(verb.file), *verb.flags, *flags]
    package = verb.target.partition(".")[0]
    if importlib.util.find_spec(package) is None:
        raise LookupError(f"{name} needs {package}, which is not installed here: see Without make in the README")
    launcher = ["ddpm_shared.launch", workers] if workers is not None else []
    return [sys.executable, "-m", *launcher, verb.target, *verb.flags, *flags]


def _run(command: list[str], verb: Verb) -> int:
    environment = os.environ | (ONE_THREAD if verb.one_thread else {})
    if verb.at_root:
        os.chdir(ROOT)
    if os.name == "posix":  # the command takes the place of this process, and so its signals
        sys.stdout.flush()
        os.execve(command[0], command, environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the command's
    return subprocess.run(command, env=environment, check=False).returncode


def console() -> NoReturn:
    """The entry point."""
    sys.exit(main())


if __name__ == "__main__":
    console()
