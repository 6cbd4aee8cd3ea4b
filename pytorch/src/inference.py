"""Sampling: `python -m ddpm_torch.inference --help`. Mirror: ddpm_tf.inference."""

from collections.abc import Sequence

from ddpm_shared import cli, sampling
from ddpm_torch.config import FRAMEWORK


def main(argv: Sequence[str] | None = None) -> int:
    """The inference command line. Returns the exit code; raises UserError for bad input."""
    plan = cli.parse_sample(FRAMEWORK, argv)
    from ddpm_torch.sampling import Sampler  # not before the flags are read: the framework takes seconds

    return sampling.run(plan, Sampler(plan))


if __name__ == "__main__":
    cli.guard(main)
