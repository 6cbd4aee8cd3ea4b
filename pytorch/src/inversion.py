"""DDIM's inversion: `python -m ddpm_torch.inversion --help`. Mirror: ddpm_tf.inversion."""

from collections.abc import Sequence

from ddpm_shared import cli, inversion
from ddpm_torch.config import FRAMEWORK


def main(argv: Sequence[str] | None = None) -> int:
    """The inversion command line. Returns the exit code; raises UserError for bad input."""
    plan = cli.parse_inversion(FRAMEWORK, argv)
    from ddpm_torch.sampling import Inverter  # not before the flags are read: the framework takes seconds

    return inversion.run(plan, Inverter(plan))


if __name__ == "__main__":
    cli.guard(main)
