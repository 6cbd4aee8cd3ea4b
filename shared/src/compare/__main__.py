"""`make compare`: the command line of ddpm_shared.compare."""

from ddpm_shared import command_line, compare

if __name__ == "__main__":
    command_line.guard(compare.main)
