"""The first thing that a command of ours does: make its process safe from its terminal and its surroundings."""

import sys

OURS = ("ddpm_shared", "ddpm_torch", "ddpm_tf", "ddpm_parity", "ddpm_course")


def begin() -> None:
    """Set up the process if `python -m` is about to run a module of ours; else do nothing."""
    if module().split(".")[0] in OURS:
        # Each import takes time in which a Ctrl-C would be a traceback, so they come one by one.
        from ddpm_shared import output

        output.secure()  # first: the next file to be opened would take the place of a descriptor that is closed
        from ddpm_shared import stopping

        stopping.at_once()
        from ddpm_shared import surroundings

        surroundings.shut_out()


def module() -> str:
    """The module that `python -m` was given, while Python looks for it. The command's own arguments follow it."""
    return sys.orig_argv[len(sys.orig_argv) - len(sys.argv)].removeprefix("-m")
