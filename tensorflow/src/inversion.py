"""DDIM's inversion: `python -m ddpm_tf.inversion --help`. Mirror: ddpm_torch.inversion."""

from collections.abc import Sequence

from ddpm_shared import cli, inversion
from ddpm_tf import import_quietly
from ddpm_tf.config import FRAMEWORK


def main(argv: Sequence[str] | None = None) -> int:
    """The inversion command line. Returns the exit code; raises UserError for bad input."""
    plan = cli.parse_inversion(FRAMEWORK, argv)
    import_quietly()  # not before the flags are read: the framework takes seconds
    from ddpm_tf.sampling import Inverter

    return inversion.run(plan, Inverter(plan))


if __name__ == "__main__":
    cli.guard(main)
