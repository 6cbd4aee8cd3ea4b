"""Training: `python -m ddpm_torch.train --help`. Mirror: ddpm_tf.train."""

from collections.abc import Sequence

from ddpm_shared import cli, training
from ddpm_torch.config import FRAMEWORK


def main(argv: Sequence[str] | None = None) -> int:
    """The training command line. Returns the exit code; raises UserError for bad input."""
    plan = cli.parse_train(FRAMEWORK, argv)
    from ddpm_torch.learner import Learner  # not before the flags are read: the framework takes seconds

    return training.train(plan, Learner)


if __name__ == "__main__":
    cli.guard(main)
