"""Training: `python -m ddpm_tf.train --help`. Mirror: ddpm_torch.train."""

from collections.abc import Sequence

from ddpm_shared import cli, training
from ddpm_tf import import_quietly
from ddpm_tf.config import FRAMEWORK


def main(argv: Sequence[str] | None = None) -> int:
    """The training command line. Returns the exit code; raises UserError for bad input."""
    plan = cli.parse_train(FRAMEWORK, argv)
    import_quietly()  # not before the flags are read: the framework takes seconds
    from ddpm_tf.learner import Learner

    return training.train(plan, Learner)


if __name__ == "__main__":
    cli.guard(main)
