"""`make demo`: all of it; and `python -m ddpm_shared.demo FOLDER`: the page of what lies in a folder."""

import sys

from ddpm_shared import command_line
from ddpm_shared.demo import command, whole


def main() -> int:
    """All of the demo with these flags for its trainings, or the page of a folder. Returns the exit code."""
    flags = sys.argv[1:]
    of_folder = flags[:1] in (["-h"], ["--help"]) or (flags and not flags[0].startswith("-"))
    return command.main(flags) if of_folder else whole.run(flags)


if __name__ == "__main__":
    command_line.guard(main)
