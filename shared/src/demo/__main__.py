"""The last command of `make demo`: the command line of ddpm_shared.demo."""

from ddpm_shared import command_line, demo

if __name__ == "__main__":
    command_line.guard(demo.main)
