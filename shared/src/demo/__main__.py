"""The last command of `make demo`: the command line of ddpm_shared.demo."""

from ddpm_shared import command_line
from ddpm_shared.demo.command import main

if __name__ == "__main__":
    command_line.guard(main)
