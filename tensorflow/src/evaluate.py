"""Bits per dimension of a trained network: `python -m ddpm_tf.evaluate --help`. Mirror: ddpm_torch.evaluate."""

from collections.abc import Sequence

from ddpm_shared import cli
from ddpm_tf import import_quietly
from ddpm_tf.config import FRAMEWORK


def main(argv: Sequence[str] | None = None) -> int:
    """The evaluation command line. Returns the exit code; raises UserError for bad input."""
    plan = cli.parse_bound(FRAMEWORK, argv)
    import_quietly()  # not before the flags are read: the framework takes seconds
    from ddpm_shared import likelihood
    from ddpm_tf import model
    from ddpm_tf.bound import Bound

    network = model.load(plan.checkpoint, plan.prefix, plan.config)
    return likelihood.run(plan, Bound(network, plan.config, plan.command.clip_x_0))


if __name__ == "__main__":
    cli.guard(main)
