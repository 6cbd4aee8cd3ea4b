"""The gradients of a part of a batch, outside of a training step, so that a notebook can send and add them itself."""

import importlib
from collections.abc import Callable
from typing import Any

from ddpm_course.tree import Tree
from ddpm_shared.batches import Batch


def gradients(tree: Tree, learner: Any) -> Callable[[Batch], list[Any]]:
    """What computes the gradients of a learner at its weights of that moment. It changes nothing in the learner.

    Args:
        tree: the learner's.
        learner: of a network without labels and without BatchNorm.

    Returns:
        A function: batch, or a part of one -> the loss and its gradients, tensors of the tree, the gradients in the
        order of `learner.parameters`.
    """
    config = learner.config
    if tree.framework == "torch":
        torch = importlib.import_module("torch")

        def computed(batch: Batch) -> list[Any]:
            x_0, t, eps = tree.data.to_batch(batch.arrays, config.precision, learner.device, learner.codec)
            loss = tree.objective.training_loss(learner.schedule, learner.network, x_0, t, eps, config.diffusion)
            return [loss.detach(), *torch.autograd.grad(loss, learner.parameters)]

        return computed
    return lambda batch: list(
        learner.gradients(*tree.data.to_batch(batch.arrays, config.precision, learner.codec), None)
    )
