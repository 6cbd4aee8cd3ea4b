"""Bits per dimension of a trained network: `python -m ddpm_torch.evaluate --help`. Mirror: ddpm_tf.evaluate."""

from collections.abc import Sequence

from ddpm_shared import cli
from ddpm_torch.config import FRAMEWORK


def main(argv: Sequence[str] | None = None) -> int:
    """The evaluation command line. Returns the exit code; raises UserError for bad input."""
    plan = cli.parse_bound(FRAMEWORK, argv)
    from ddpm_shared import likelihood  # not before the flags are read: the framework takes seconds
    from ddpm_torch import model
    from ddpm_torch.bound import Bound

    network = model.load(plan.checkpoint, plan.prefix, plan.config)
    return likelihood.run(plan, Bound(network, plan.config, plan.command.clip_x_0))


if __name__ == "__main__":
    cli.guard(main)
