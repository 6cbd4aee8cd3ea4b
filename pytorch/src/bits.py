"""Bits per dimension of a trained network: `python -m ddpm_torch.bits --help`. Mirror: ddpm_tf.bits.

The flags and the plan: ddpm_shared/commands/bits.py. The loop over batches: rounds.py beside it, and over times:
bits_estimate.py. One term of the bound: bound.py.
"""

from collections.abc import Sequence

from ddpm_shared import command_line
from ddpm_shared.commands import bits
from ddpm_torch.config import FRAMEWORK


def main(argv: Sequence[str] | None = None) -> int:
    """The bits command line. Returns the exit code; raises UserError for bad input."""
    plan = bits.parse(FRAMEWORK, argv)
    from ddpm_torch import model, workers  # not before the flags are read: the framework takes seconds
    from ddpm_torch.bound import Bound

    all_workers = workers.join(plan.place, plan.config)
    network = model.load(plan.checkpoint, plan.prefix, plan.config)
    return bits.run(plan, Bound(network, plan.config, plan.command.clip_x_0), all_workers)


if __name__ == "__main__":
    command_line.guard(main)
