"""Training: `python -m ddpm_torch.train --help`. Mirror: ddpm_tf.train.

The flags and the plan: ddpm_shared/commands/train.py. The loop: ddpm_shared/commands/training_loop.py. One training
step: learner.py.
"""

from collections.abc import Sequence

from ddpm_shared import command_line
from ddpm_shared.commands import train
from ddpm_torch.config import FRAMEWORK


def main(argv: Sequence[str] | None = None) -> int:
    """The training command line. Returns the exit code; raises UserError for bad input."""
    plan = train.parse(FRAMEWORK, argv)
    from ddpm_torch.learner import Learner  # not before the flags are read: the framework takes seconds

    return train.run(plan, Learner)


if __name__ == "__main__":
    command_line.guard(main)
