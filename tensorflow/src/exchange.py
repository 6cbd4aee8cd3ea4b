"""Going on from a network that was trained elsewhere: `python -m ddpm_tf.exchange --help`.

Mirror: ddpm_torch.exchange.

The flags, the plan and the run folder: ddpm_shared/commands/exchange.py. The names: ddpm_shared/exchange/mappings.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpm_shared import command_line, reading
from ddpm_shared.commands import exchange
from ddpm_shared.errors import UserError
from ddpm_tf.config import FRAMEWORK, Config

if TYPE_CHECKING:
    from ddpm_tf.learner import Learner


def main(argv: Sequence[str] | None = None) -> int:
    """The import command line. Returns the exit code; raises UserError for bad input."""
    return exchange.run(exchange.parse(FRAMEWORK, argv, read_pickle), _make_learner)


def read_pickle(path: Path) -> dict[str, Any]:
    """The tensors in a file of torch.save as arrays, in nested dicts; what else it holds is left out.

    A pickle is a program. PyTorch reads one without running more than what makes tensors; TensorFlow's tree cannot.

    Args:
        path: of the file.

    Raises:
        UserError: no such file, a damaged one, or one that holds more than tensors and plain values; in TensorFlow any.

    Mirror: ddpm_torch.exchange.read_pickle.
    """
    raise UserError(
        f"{reading.name_of(path)} is a pickle, which TensorFlow's tree does not read: import it by make import-torch, "
        "and go on from that run here with --resume"
    )


def _make_learner(config: Config, num_steps: int) -> "Learner":
    """The Learner of a run, imported once the flags are read: the framework takes seconds."""
    from ddpm_tf.learner import Learner

    return Learner(config, num_steps)


if __name__ == "__main__":
    command_line.guard(main)
