"""TensorFlow's part of a network's passport: `python -m ddpm_tf.passport --help`. Mirror: ddpm_torch.passport.

What is measured: ddpm_shared/passport/part.py. The command that lays both parts together: ddpm_shared/passport.
"""

import types
from collections.abc import Sequence

from ddpm_shared import command_line
from ddpm_shared.passport import part
from ddpm_tf.config import FRAMEWORK


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of a part. Returns the exit code; raises UserError for bad input."""
    plan = part.parse(FRAMEWORK, argv)
    from ddpm_tf import model, trace, utils  # not before the flags are read: the framework takes seconds
    from ddpm_tf.learner import Learner
    from ddpm_tf.sampling import Sampler

    tree = types.SimpleNamespace(model=model, trace=trace, utils=utils, Learner=Learner, Sampler=Sampler)
    return part.run(plan, tree)


if __name__ == "__main__":
    command_line.guard(main)
