"""What training changes, and a step of it: algorithm 1 of the paper. Mirror: ddpm_tf.learner.

The loop around it: ddpm_shared/commands/training_loop.py.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddpm_shared.batches import Batch
from ddpm_shared.config.sampling import Draw, quick
from ddpm_shared.records import checkpoint
from ddpm_shared.records.checkpoint import Checkpoint, Tensors
from ddpm_torch import utils
from ddpm_torch.config import Config
from ddpm_torch.data import PIXELS, to_batch, to_labels
from ddpm_torch.engine import make_schedule
from ddpm_torch.guidance import condition
from ddpm_torch.model import (
    compiled,
    make_network,
    named_buffers,
    named_parameters,
    remember_moments,
    seen_moments,
    set_training,
)
from ddpm_torch.objective import training_loss
from ddpm_torch.optimizer import (
    Adam,
    clip_by_global_norm,
    scheduled_learning_rate,
    update_ema,
    warmup_ema_decay,
)
from ddpm_torch.sampling import Sampler
from ddpm_torch.workers import Workers, mean


class Learner:
    """The network, the moving average of its weights and its optimizer: all that training changes.

    Args:
        config: all settings.
        num_steps: of the whole run, which the learning rate follows.
        workers: this process among those that train together; by default it is alone.

    Raises:
        UserError: a GPU is asked for where there is none.

    Mirror: ddpm_tf.learner.Learner.
    """

    def __init__(self, config: Config, num_steps: int, workers: Workers | None = None) -> None:
        self.config, self.num_steps, self.workers = config, num_steps, workers or Workers()
        utils.set_threads(config.threads)
        self.device = utils.select_device(config.device)
        self.schedule = make_schedule(config.diffusion, utils.dtype(config.precision), self.device)
        self.codec = PIXELS
        self.model = make_network(config, config.seed)
        set_training(self.model, True)
        self.ema_model = make_network(config).requires_grad_(False)
        self.names = list(named_parameters(self.model))
        self.parameters = list(named_parameters(self.model).values())
        self.averages = list(named_parameters(self.ema_model).values())
        with torch.no_grad():
            for average, parameter in zip(self.averages, self.parameters, strict=True):
                average.copy_(parameter)
        self.buffers, self.averaged_buffers = named_buffers(self.model), named_buffers(self.ema_model)
        self._copy_buffers()
        self.adam = Adam(self.parameters)
        self.network = compiled(self.model, config.compile)
        self.ema_network = compiled(self.ema_model, config.compile)
        self.sampler = Sampler(self.ema_network, config, quick(config.diffusion))
        self.begun = self.ended = 0  # steps that began to change the state, and those that ended

        self.device_name, self.threads = utils.device_name(self.device), utils.threads()
        self.num_parameters = sum(p.numel() for p in self.parameters)

    def train_step(self, batch: Batch, step: int) -> tuple[float, float, float]:
        """One step of gradient descent on the loss.

        Args:
            batch: that of the step, from ddpm_shared.batches, or this worker's share of it.
            step: 0, 1, ...

        Returns:
            Loss, norm of the gradient before clipping, learning rate.

        Source: Ho et al. 2020 (arXiv:2006.11239), algorithm 1.
        """
        settings, number = self.config.training, len(self.parameters)
        # 1. and 2. for each shard, and the mean over the shards; the gradient is scaled down where it is long
        shards = batch.shards(settings.shards // self.workers.place.count)
        loss, *means = mean([self._gradients(shard) for shard in shards], self.workers, settings.reduce)
        gradients, moments = means[:number], means[number:]
        clipped, norm = clip_by_global_norm(gradients, settings.max_grad_norm)
        # 3. the step, and after it the average of the weights and what BatchNorm remembers
        learning_rate = scheduled_learning_rate(step, self.num_steps, settings)
        self.begun = step + 1
        self.adam.update(clipped, learning_rate, step + 1)
        update_ema(self.averages, self.parameters, warmup_ema_decay(step + 1, settings.ema_decay))
        remember_moments(self.model, moments)
        self._copy_buffers()
        loss_value, norm_value = torch.stack([loss, norm]).tolist()  # one wait for the device, not two
        self.ended = step + 1
        return loss_value, norm_value, learning_rate

    def _gradients(self, batch: Batch) -> list[Tensor]:
        """The loss, its gradients, and the moments that BatchNorm saw."""
        # 1. x_0 ~ q(x_0), t ~ uniform, eps ~ N(0, I)
        x_0, t, eps = to_batch(batch.arrays, self.config.precision, self.device, self.codec)
        # 2. the gradient of || target - network(x_t, t) ||^2
        network = condition(self.network, self._labels(batch))
        loss = training_loss(self.schedule, network, x_0, t, eps, self.config.diffusion)
        gradients = torch.autograd.grad(loss, self.parameters)
        return [loss.detach(), *gradients, *seen_moments(self.model)]

    @property
    def whole(self) -> bool:
        """Whether the state is that after a step; False if an exception came while a step was changing it."""
        return self.begun == self.ended

    @torch.no_grad()
    def validation_losses(self, batches: Iterable[Batch]) -> Iterator[tuple[int, float]]:
        """The averaged weights' loss on each batch.

        Args:
            batches: from ddpm_shared.batches.

        Yields:
            Images in the batch, mean loss.
        """
        for batch in batches:
            x_0, t, eps = to_batch(batch.arrays, self.config.precision, self.device, self.codec)
            network = condition(self.ema_network, self._labels(batch))
            loss = training_loss(self.schedule, network, x_0, t, eps, self.config.diffusion)
            yield len(x_0), loss.item()

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

    def _labels(self, batch: Batch) -> Tensor | None:
        """The labels of a batch, [B], if the network is given them."""
        return to_labels(batch.labels, self.device) if self.config.class_conditional else None

    @torch.no_grad()
    def _copy_buffers(self) -> None:
        """Give the averaged network the buffers of the trained one: they are copied, not averaged."""
        for name, buffer in self.buffers.items():
            self.averaged_buffers[name].copy_(buffer)

    def _state(self) -> dict[str, dict[str, Tensor]]:
        """The tensors under each prefix of a checkpoint, by canonical name."""
        lists = self.parameters, self.averages, self.adam.m, self.adam.v
        named = (dict(zip(self.names, values, strict=True)) for values in lists)
        return {**dict(zip(checkpoint.PREFIXES, named, strict=True)), checkpoint.BUFFERS: self.buffers}

    def tensors(self) -> Tensors:
        """All state under a checkpoint's names and layouts."""
        return {
            f"{prefix}/{name}": value.detach().cpu().numpy()
            for prefix, values in self._state().items()
            for name, value in values.items()
        }

    @torch.no_grad()
    def load(self, resumed: Checkpoint) -> None:
        """Take over the state of a checkpoint of either framework. Raises UserError if it does not fit."""
        for prefix, values in self._state().items():
            loaded = checkpoint.select(resumed, prefix, {name: tuple(value.shape) for name, value in values.items()})
            for name, value in values.items():
                value.copy_(torch.from_numpy(loaded[name]))
        self._copy_buffers()
        self.begun = self.ended = resumed.step
