"""The passport of a network: the command line of ddpm_shared.passport."""

from ddpm_shared import command_line
from ddpm_shared.passport.command import main

if __name__ == "__main__":
    command_line.guard(main)
