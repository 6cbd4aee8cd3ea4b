"""What training changes, and a step of it: algorithm 1 of the paper. Mirror: ddpm_tf.learner.

The loop around it: ddpm_shared/commands/training_loop.py.
"""

import copy
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddpm_shared.batches import Prefetcher, validation_arrays
from ddpm_shared.config.sampling import QUICK, Draw
from ddpm_shared.records import checkpoint
from ddpm_shared.records.checkpoint import Checkpoint, Tensors
from ddpm_torch import utils
from ddpm_torch.config import Config
from ddpm_torch.data import to_batch
from ddpm_torch.engine import make_schedule
from ddpm_torch.model import UNet, compiled
from ddpm_torch.objective import training_loss
from ddpm_torch.optimizer import (
    Adam,
    clip_by_global_norm,
    scheduled_learning_rate,
    update_ema,
    warmup_ema_decay,
)
from ddpm_torch.sampling import Sampler


class Learner:
    """The network, the moving average of its weights and its optimizer: all that training changes.

    Args:
        config: all settings; decides every number that follows.

    Raises:
        UserError: a GPU is asked for where there is none.

    Mirror: ddpm_tf.learner.Learner.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        utils.set_threads(config.threads)
        self.device = utils.select_device(config.device)
        self.schedule = make_schedule(config.diffusion, utils.dtype(config.precision), self.device)
        self.model = UNet(config.model, config.seed, config.precision, config.out_channels).to(self.device)
        self.ema_model = copy.deepcopy(self.model).requires_grad_(False)
        self.names = [name for name, _ in self.model.named_parameters()]
        self.parameters: list[Tensor] = list(self.model.parameters())
        self.averages: list[Tensor] = list(self.ema_model.parameters())
        self.adam = Adam(self.parameters)
        self.network = compiled(self.model, config.compile)
        self.ema_network = compiled(self.ema_model, config.compile)
        self.sampler = Sampler(self.ema_network, config, QUICK)
        self.training_arrays = Prefetcher(config)

        self.device_name, self.threads = utils.device_name(self.device), utils.threads()
        self.num_parameters = sum(p.numel() for p in self.parameters)

    def train_step(self, pixels: NDArray[np.uint8], step: int) -> tuple[float, float, float]:
        """One step of gradient descent on the loss.

        Args:
            pixels: [N, H, W, C] uint8, all training images.
            step: 0, 1, ...

        Returns:
            Loss, norm of the gradient before clipping, learning rate.

        Source: Ho et al. 2020 (arXiv:2006.11239), algorithm 1.
        """
        settings = self.config.training
        # 1. x_0 ~ q(x_0), t ~ uniform, eps ~ N(0, I)
        arrays = self.training_arrays(pixels, step)
        x_0, t, eps = to_batch(arrays, self.config.precision, self.device)
        # 2. the gradient of || target - network(x_t, t) ||^2, scaled down where it is long
        loss = training_loss(self.schedule, self.network, x_0, t, eps, self.config.diffusion)
        gradients = torch.autograd.grad(loss, self.parameters)
        clipped, norm = clip_by_global_norm(gradients, settings.max_grad_norm)
        # 3. the step, and the average of the weights after it
        learning_rate = scheduled_learning_rate(step, settings.num_steps(len(pixels)), settings)
        self.adam.update(clipped, learning_rate, step + 1)
        update_ema(self.averages, self.parameters, warmup_ema_decay(step + 1, settings.ema_decay))
        loss_value, norm_value = torch.stack([loss.detach(), norm]).tolist()  # one wait for the device, not two
        return loss_value, norm_value, learning_rate

    @torch.no_grad()
    def validation_losses(self, pixels: NDArray[np.uint8]) -> Iterator[tuple[int, float]]:
        """The averaged weights' loss on each batch of `pixels`, at the same t and noise every time.

        Args:
            pixels: [N, H, W, C] uint8.

        Yields:
            Images in the batch, mean loss.
        """
        for first in range(0, len(pixels), self.config.training.batch_size):
            arrays = validation_arrays(pixels, self.config, first)
            x_0, t, eps = to_batch(arrays, self.config.precision, self.device)
            loss = training_loss(self.schedule, self.ema_network, x_0, t, eps, self.config.diffusion)
            yield len(x_0), loss.item()

    def sample(self, num_images: int, on_step: Callable[[int], None], first: int = 0) -> NDArray[np.uint8]:
        """The images first .. first + num_images - 1 of the run's seed, drawn in few steps with the averaged weights.

        Args:
            num_images: B.
            on_step: called with i after each step, i = N - 1 .. 0.
            first: index of the first image.

        Returns:
            [B, H, W, C] uint8.
        """
        return self.sampler.draw(Draw(self.config.seed, first, num_images), lambda i, x: on_step(i))

    def _state(self) -> tuple[list[Tensor], ...]:
        """What the four prefixes of a checkpoint stand for, each in the order of self.names."""
        return self.parameters, self.averages, self.adam.m, self.adam.v

    def tensors(self) -> Tensors:
        """All state under a checkpoint's names and layouts."""
        return {
            f"{prefix}/{name}": value.detach().cpu().numpy()
            for prefix, values in zip(checkpoint.PREFIXES, self._state(), strict=True)
            for name, value in zip(self.names, values, strict=True)
        }

    @torch.no_grad()
    def load(self, resumed: Checkpoint) -> None:
        """Take over the state of a checkpoint of either framework. Raises UserError if it does not fit."""
        shapes = {name: tuple(p.shape) for name, p in zip(self.names, self.parameters, strict=True)}
        for prefix, values in zip(checkpoint.PREFIXES, self._state(), strict=True):
            loaded = checkpoint.select(resumed, prefix, shapes)
            for name, value in zip(self.names, values, strict=True):
                value.copy_(torch.from_numpy(loaded[name]))
