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
    config, objective = learner.config, tree.objective
    if tree.framework == "torch":
        torch = importlib.import_module("torch")

        def computed(batch: Batch) -> list[Any]:
            x_0, t, eps = tree.data.to_batch(batch.arrays, config.precision, learner.device, learner.codec)
            loss = objective.training_loss(learner.schedule, learner.network, x_0, t, eps, config.diffusion)
            return [loss.detach(), *torch.autograd.grad(loss, learner.parameters)]

        return computed
    tf = importlib.import_module("tensorflow")

    def traced(x_0: Any, t: Any, eps: Any) -> list[Any]:
        with tf.GradientTape() as tape:
            loss = objective.training_loss(learner.schedule, learner.model, x_0, t, eps, config.diffusion)
        return [loss, *tape.gradient(loss, learner.parameters)]

    # As a graph: operation by operation, TensorFlow prints an error on some processors, which is none.
    graph = tf.function(traced, autograph=False)
    return lambda batch: list(graph(*tree.data.to_batch(batch.arrays, config.precision, learner.codec)))
