"""Going on from a network that was trained elsewhere: `python -m ddpm_torch.exchange --help`.

Mirror: ddpm_tf.exchange.

The flags, the plan and the run folder: ddpm_shared/commands/exchange.py. The names: ddpm_shared/exchange/mappings.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpm_shared import command_line, reading
from ddpm_shared.commands import exchange
from ddpm_shared.errors import UserError
from ddpm_shared.exchange.weights import WAY_OUT
from ddpm_torch.config import FRAMEWORK, Config

if TYPE_CHECKING:
    from ddpm_torch.learner import Learner


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

    Mirror: ddpm_tf.exchange.read_pickle.
    """
    import pickle

    import torch

    with reading.opened(path, WAY_OUT):  # a regular file
        pass
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{reading.name_of(path)} is damaged, or holds more than tensors, and to read that would run a program of "
            "whoever made it: have them save the state_dict alone, torch.save(network.state_dict(), FILE)"
        ) from None
    except Exception as error:  # as many kinds as a damaged file has ways to be damaged
        reason = reading.one_line(str(error).partition("\n")[0] or type(error).__name__)
        raise UserError(f"{reading.name_of(path)} is not a whole file of torch.save ({reason}): {WAY_OUT}") from None

    def arrays(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and not value.is_sparse and not value.is_quantized:
            dense = value.detach().cpu()
            return (dense.float() if dense.dtype in (torch.bfloat16, torch.float16) else dense).numpy()
        if isinstance(value, dict):
            return {str(name): arrays(each) for name, each in value.items()}
        return None

    if not isinstance(content, dict):
        raise UserError(f"{reading.name_of(path)} holds no dict of tensors by name: {WAY_OUT}")
    return arrays(content)


def _make_learner(config: Config, num_steps: int) -> "Learner":
    """The Learner of a run, imported once the flags are read: the framework takes seconds."""
    from ddpm_torch.learner import Learner

    return Learner(config, num_steps)


if __name__ == "__main__":
    command_line.guard(main)
