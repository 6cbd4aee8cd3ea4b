"""Likelihood of images under a trained network, by its ODE: `python -m ddpm_tf.likelihood --help`.

Mirror: ddpm_torch.likelihood.

The flags and the plan: ddpm_shared/commands/likelihood.py. The loop over batches: rounds.py beside it. The ODE and the
trace: ode.py.
"""

from collections.abc import Sequence

from ddpm_shared import command_line
from ddpm_shared.commands import likelihood
from ddpm_tf.config import FRAMEWORK


def main(argv: Sequence[str] | None = None) -> int:
    """The likelihood command line. Returns the exit code; raises UserError for bad input."""
    plan = likelihood.parse(FRAMEWORK, argv)
    from ddpm_tf import model, workers  # not before the flags are read: the framework takes seconds
    from ddpm_tf.ode import Likelihood, ode_levels

    all_workers = workers.join(plan.place, plan.config)
    network = model.load(plan.checkpoint, plan.prefix, plan.config)
    levels = ode_levels(plan.config.diffusion, plan.command.steps, plan.grid, plan.command.rho)
    return likelihood.run(plan, Likelihood(network, plan.config, levels), all_workers)


if __name__ == "__main__":
    command_line.guard(main)
