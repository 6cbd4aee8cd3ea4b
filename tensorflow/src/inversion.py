"""DDIM's inversion: `python -m ddpm_tf.inversion --help`. Mirror: ddpm_torch.inversion.

The flags, the plan and the loop over batches: ddpm_shared/commands/invert.py. The loop over steps: sampling.py.
One step: samplers.py.
"""

from collections.abc import Sequence

from ddpm_shared import command_line
from ddpm_shared.commands import invert
from ddpm_tf.config import FRAMEWORK


def main(argv: Sequence[str] | None = None) -> int:
    """The inversion command line. Returns the exit code; raises UserError for bad input."""
    plan = invert.parse(FRAMEWORK, argv)
    from ddpm_tf import model  # not before the flags are read: the framework takes seconds
    from ddpm_tf.sampling import Inverter

    network = model.load(plan.checkpoint, plan.prefix, plan.config)
    return invert.run(plan, Inverter(network, plan.config, plan.command.sampling, plan.command.iterations))


if __name__ == "__main__":
    command_line.guard(main)
