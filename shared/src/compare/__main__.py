"""`make compare`: the command line of ddpm_shared.compare."""

from ddpm_shared import cli, compare

if __name__ == "__main__":
    cli.guard(compare.main)
