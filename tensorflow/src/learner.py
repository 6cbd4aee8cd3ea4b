"""What training changes, and a step of it: algorithm 1 of the paper. Mirror: ddpm_torch.learner.

The loop around it: ddpm_shared/commands/training_loop.py.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ddpm_shared.batches import Batch
from ddpm_shared.config.sampling import Draw, quick
from ddpm_shared.records import checkpoint
from ddpm_shared.records.checkpoint import Checkpoint, Tensors
from ddpm_tf import utils
from ddpm_tf.config import Config
from ddpm_tf.data import PIXELS, to_batch, to_labels
from ddpm_tf.engine import make_schedule
from ddpm_tf.guidance import condition
from ddpm_tf.model import (
    canonical_shape,
    compiled,
    from_canonical,
    layouts,
    make_network,
    named_buffers,
    named_parameters,
    remember_moments,
    seen_moments,
    set_training,
    to_canonical,
)
from ddpm_tf.objective import training_loss
from ddpm_tf.optimizer import (
    Adam,
    clip_by_global_norm,
    scheduled_learning_rate,
    update_ema,
    warmup_ema_decay,
)
from ddpm_tf.sampling import Sampler
from ddpm_tf.workers import Workers, mean


class Learner:
    """The network, the moving average of its weights and its optimizer: all that training changes.

    Args:
        config: all settings.
        num_steps: of the whole run, which the learning rate follows.
        workers: this process among those that train together; by default it is alone.

    Raises:
        UserError: a GPU is asked for where there is none.

    Mirror: ddpm_torch.learner.Learner.
    """

    def __init__(self, config: Config, num_steps: int, workers: Workers | None = None) -> None:
        self.config, self.num_steps, self.workers = config, num_steps, workers or Workers()
        utils.set_threads(config.threads)
        self.device = utils.select_device(config.device)
        self.schedule = make_schedule(config.diffusion, utils.dtype(config.precision))
        self.codec = PIXELS
        self.model = make_network(config, config.seed)
        set_training(self.model, True)
        self.ema_model = make_network(config)
        self.layouts = layouts(self.model)
        self.names = list(named_parameters(self.model))
        self.parameters = list(named_parameters(self.model).values())
        self.averages = list(named_parameters(self.ema_model).values())
        for average, parameter in zip(self.averages, self.parameters, strict=True):
            average.assign(parameter)
        self.buffers, self.averaged_buffers = named_buffers(self.model), named_buffers(self.ema_model)
        self._copy_buffers()
        self.adam = Adam(self.parameters)
        # A step is one graph, or two if there are several shards: a graph adds in its own order, so we add between.
        self.update, self.gradients, self.change = (
            tf.function(method, autograph=False, jit_compile=config.compile)
            for method in (self._update, self._gradients, self._change)
        )
        self.ema_network = compiled(self.ema_model, config.compile)
        self.sampler = Sampler(self.ema_network, config, quick(config.diffusion))
        # Steps that began to change the state, and those that ended.
        self.begun, self.ended = tf.Variable(0.0, dtype=tf.float64, trainable=False), 0

        self.device_name, self.threads = utils.device_name(self.device), utils.threads()
        self.num_parameters = sum(int(np.prod(p.shape)) for p in self.parameters)

    def train_step(self, batch: Batch, step: int) -> tuple[float, float, float]:
        """One step of gradient descent on the loss.

        Args:
            batch: that of the step, from ddpm_shared.batches, or this worker's share of it.
            step: 0, 1, ...

        Returns:
            Loss, norm of the gradient before clipping, learning rate.

        Source: Ho et al. 2020 (arXiv:2006.11239), algorithm 1.
        """
        settings = self.config.training
        # 1. x_0 ~ q(x_0), t ~ uniform, eps ~ N(0, I), of each shard
        shards = [
            (*to_batch(shard.arrays, self.config.precision, self.codec), self._labels(shard))
            for shard in batch.shards(settings.shards // self.workers.place.count)
        ]
        # 2. and 3. in graphs; what changes from step to step goes in as tensors, or each would be traced anew
        learning_rate = scheduled_learning_rate(step, self.num_steps, settings)
        decay = warmup_ema_decay(step + 1, settings.ema_decay)
        numbers = (tf.constant(x, tf.float64) for x in (learning_rate, step + 1, decay))
        if settings.shards == 1:
            loss, norm = self.update(*shards[0], *numbers)
        else:
            parts = [self.gradients(*shard) for shard in shards]
            loss, norm = self.change(mean(parts, self.workers, settings.reduce), *numbers)
        loss_value, norm_value = tf.stack([loss, norm]).numpy().tolist()  # one wait for the device, not two
        self.ended = step + 1
        return loss_value, norm_value, learning_rate

    def _update(
        self, x_0: tf.Tensor, t: tf.Tensor, eps: tf.Tensor, labels: tf.Tensor | None, *numbers: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        return self._change(self._gradients(x_0, t, eps, labels), *numbers)

    def _gradients(self, x_0: tf.Tensor, t: tf.Tensor, eps: tf.Tensor, labels: tf.Tensor | None) -> list[tf.Tensor]:
        """The loss, its gradients, and the moments that BatchNorm saw."""
        # 2. the gradient of || target - network(x_t, t) ||^2
        with tf.GradientTape() as tape:
            network = condition(self.model, labels)
            loss = training_loss(self.schedule, network, x_0, t, eps, self.config.diffusion)
        return [loss, *tape.gradient(loss, self.parameters), *seen_moments(self.model)]

    def _change(
        self, means: list[tf.Tensor], learning_rate: tf.Tensor, k: tf.Tensor, decay: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Change all state, by what _gradients gave, averaged over the shards. Returns the loss and the norm."""
        number = len(self.parameters)
        loss, gradients, moments = means[0], means[1 : 1 + number], means[1 + number :]
        # the gradient is scaled down where it is long
        clipped, norm = clip_by_global_norm(gradients, self.config.training.max_grad_norm)
        # 3. the step, and after it the average of the weights and what BatchNorm remembers; nothing changes before all
        # gradients are there
        with tf.control_dependencies([norm]):
            begun = self.begun.assign(k)
        with tf.control_dependencies([begun]):
            self.adam.update(clipped, learning_rate, k)
            update_ema(self.averages, self.parameters, decay)
            remember_moments(self.model, moments)
            self._copy_buffers()
        return loss, norm

    @property
    def whole(self) -> bool:
        """Whether the state is that after a step; False if an exception came while a step was changing it."""
        return int(self.begun) == self.ended

    def validation_losses(self, batches: Iterable[Batch]) -> Iterator[tuple[int, float]]:
        """The averaged weights' loss on each batch.

        Args:
            batches: from ddpm_shared.batches.

        Yields:
            Images in the batch, mean loss.
        """
        for batch in batches:
            x_0, t, eps = to_batch(batch.arrays, self.config.precision, self.codec)
            network = condition(self.ema_network, self._labels(batch))
            loss = training_loss(self.schedule, network, x_0, t, eps, self.config.diffusion)
            yield len(x_0), float(loss)

    def sample(
        self,
        num_images: int,
        on_step: Callable[[int], None],
        first: int = 0,
        labels: NDArray[np.int64] | None = None,
    ) -> NDArray[np.uint8]:
        """The images first .. first + num_images - 1 of the run's seed, drawn in few steps with the averaged weights.

        Args:
            num_images: B.
            on_step: called with i after each step, i = N - 1 .. 0.
            first: index of the first image.
            labels: [B], the classes to draw; None: none.

        Returns:
            [B, H, W, C] uint8.
        """
        draw = Draw(self.config.seed, first, num_images, labels=labels)
        return self.sampler.draw(draw, lambda i, x: on_step(i))

    def _labels(self, batch: Batch) -> tf.Tensor | None:
        """The labels of a batch, [B], if the network is given them."""
        return to_labels(batch.labels) if self.config.class_conditional else None

    def _copy_buffers(self) -> None:
        """Give the averaged network the buffers of the trained one: they are copied, not averaged."""
        for name, buffer in self.buffers.items():
            self.averaged_buffers[name].assign(buffer)

    def _state(self) -> dict[str, dict[str, tf.Variable]]:
        """The tensors under each prefix of a checkpoint, by canonical name."""
        lists = self.parameters, self.averages, self.adam.m, self.adam.v
        named = (dict(zip(self.names, values, strict=True)) for values in lists)
        return {**dict(zip(checkpoint.PREFIXES, named, strict=True)), checkpoint.BUFFERS: self.buffers}

    def tensors(self) -> Tensors:
        """All state under a checkpoint's names and layouts."""
        return {
            f"{prefix}/{name}": to_canonical(value.numpy(), self.layouts[name])
            for prefix, values in self._state().items()
            for name, value in values.items()
        }

    def load(self, resumed: Checkpoint) -> None:
        """Take over the state of a checkpoint of either framework. Raises UserError if it does not fit."""
        for prefix, values in self._state().items():
            shapes = {name: canonical_shape(value, self.layouts[name]) for name, value in values.items()}
            loaded = checkpoint.select(resumed, prefix, shapes)
            for name, value in values.items():
                value.assign(from_canonical(loaded[name], self.layouts[name]))
        self._copy_buffers()
        self.begun.assign(resumed.step)
        self.ended = resumed.step
