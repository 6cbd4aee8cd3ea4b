"""`make compare`: the command line of ddpm_shared.compare."""

from ddpm_shared import command_line
from ddpm_shared.compare.command import main

if __name__ == "__main__":
    command_line.guard(main)
