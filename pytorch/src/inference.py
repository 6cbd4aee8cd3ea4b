"""Drawing images: `python -m ddpm_torch.inference --help`. Mirror: ddpm_tf.inference.

The flags and the plan: ddpm_shared/commands/sample.py. The loop over batches: rounds.py beside it. The loop over steps:
sampling.py. One step: samplers.py.
"""

from collections.abc import Sequence

from ddpm_shared import command_line
from ddpm_shared.commands import sample
from ddpm_torch.config import FRAMEWORK


def main(argv: Sequence[str] | None = None) -> int:
    """The inference command line. Returns the exit code; raises UserError for bad input."""
    plan = sample.parse(FRAMEWORK, argv)
    from ddpm_torch import model, workers  # not before the flags are read: the framework takes seconds
    from ddpm_torch.sampling import Sampler

    all_workers = workers.join(plan.place, plan.config)
    network = model.load(plan.checkpoint, plan.prefix, plan.config)
    return sample.run(plan, Sampler(network, plan.config, plan.command.sampling), all_workers)


if __name__ == "__main__":
    command_line.guard(main)
