"""Training: `python -m ddpm_torch.train --help`. Mirror: ddpm_tf.train.

The flags and the plan: ddpm_shared/commands/train.py. The loop: ddpm_shared/commands/training_loop.py. One training
step: learner.py.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ddpm_shared import command_line
from ddpm_shared.commands import train
from ddpm_torch.config import FRAMEWORK, Config

if TYPE_CHECKING:
    from ddpm_torch.learner import Learner


def main(argv: Sequence[str] | None = None) -> int:
    """The training command line. Returns the exit code; raises UserError for bad input."""
    return train.run(train.parse(FRAMEWORK, argv), _make_learner)


def _make_learner(config: Config, num_steps: int) -> "Learner":
    """The Learner of a run of `num_steps` steps, imported once flags and data are read: the framework takes seconds."""
    from ddpm_torch.learner import Learner

    return Learner(config, num_steps)


if __name__ == "__main__":
    command_line.guard(main)
