"""`make evaluate`: the command line of ddpm_shared.evaluation."""

from ddpm_shared import cli, evaluation

if __name__ == "__main__":
    cli.guard(evaluation.main)
