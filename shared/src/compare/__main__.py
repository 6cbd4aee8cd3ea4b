"""`make compare`: the command line of ddpm_shared.compare."""

from ddpm_shared import cli
from ddpm_shared.compare.command import main

if __name__ == "__main__":
    cli.guard(main)
