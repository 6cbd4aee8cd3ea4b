"""The last command of `make demo`: the command line of ddpm_shared.demo."""

from ddpm_shared import cli
from ddpm_shared.demo.command import main

if __name__ == "__main__":
    cli.guard(main)
