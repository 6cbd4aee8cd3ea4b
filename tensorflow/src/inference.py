"""Sampling: `python -m ddpm_tf.inference --help`. Mirror: ddpm_torch.inference."""

from collections.abc import Sequence

from ddpm_shared import cli, sampling
from ddpm_tf import import_quietly
from ddpm_tf.config import FRAMEWORK


def main(argv: Sequence[str] | None = None) -> int:
    """The inference command line. Returns the exit code; raises UserError for bad input."""
    plan = cli.parse_sample(FRAMEWORK, argv)
    import_quietly()  # not before the flags are read: the framework takes seconds
    from ddpm_tf.sampling import Sampler

    return sampling.run(plan, Sampler(plan))


if __name__ == "__main__":
    cli.guard(main)
