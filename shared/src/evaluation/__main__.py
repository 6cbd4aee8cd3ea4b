"""`make evaluate`: the command line of ddpm_shared.evaluation."""

from ddpm_shared import command_line
from ddpm_shared.evaluation.command import main

if __name__ == "__main__":
    command_line.guard(main)
