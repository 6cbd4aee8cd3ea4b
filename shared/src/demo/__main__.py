"""The last command of `make demo`: the command line of ddpm_shared.demo."""

from ddpm_shared import cli, demo

if __name__ == "__main__":
    cli.guard(demo.main)
