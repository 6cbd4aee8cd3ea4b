"""Training: `python -m ddpm_tf.train --help`. Mirror: ddpm_torch.train.

The flags and the plan: ddpm_shared/commands/train.py. The loop: ddpm_shared/commands/training_loop.py. One training
step: learner.py.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ddpm_shared import command_line
from ddpm_shared.commands import train
from ddpm_shared.workers import Place
from ddpm_tf.config import FRAMEWORK, Config

if TYPE_CHECKING:
    from ddpm_tf.learner import Learner
    from ddpm_tf.workers import Workers


def main(argv: Sequence[str] | None = None) -> int:
    """The training command line. Returns the exit code; raises UserError for bad input."""
    return train.run(train.parse(FRAMEWORK, argv), _join, _make_learner)


def _join(place: Place, config: Config) -> "Workers":
    """This process among its workers, imported once flags and data are read: the framework takes seconds."""
    from ddpm_tf import workers

    return workers.join(place, config)


def _make_learner(config: Config, num_steps: int, workers: "Workers | None") -> "Learner":
    """The Learner of a run of `num_steps` steps."""
    from ddpm_tf.learner import Learner

    return Learner(config, num_steps, workers)


if __name__ == "__main__":
    command_line.guard(main)
