"""Other people's models with the loss and the sampler that their users give them, and what was chosen for them."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Literal

import peers
import torch
from torch import Tensor, nn

Record = dict[str, Any]
Name = Literal["diffusers", "smalldiffusion"]


class Recipe(ABC):
    """A network with its loss and its sampler."""

    net: Any  # nn.Module
    learning_rate: float  # AdamW's, whose other settings are PyTorch's
    average: Record  # arguments of diffusers' EMAModel
    sampler: str
    sampling_steps: int
    packages: tuple[str, ...]

    @abstractmethod
    def loss(self, x_0: Tensor) -> Tensor:
        """What is made small: x_0 [B, 1, 28, 28] in [-1, 1] -> a scalar."""

    @abstractmethod
    def denoise(self, count: int) -> Iterator[Tensor]:
        """Draw [count, 1, 28, 28]: the images after each step."""


class ByDiffusers(Recipe):
    """UNet2DModel and DDPMScheduler, trained by the loop of diffusers' documentation, and DDIMScheduler as it comes.

    From its train_unconditional.py: the loss, AdamW, and the moving average's warm-up with power 3/4, for shorter runs.
    Chosen for a small network and minutes: a learning rate of 2e-4 (there 1e-4, after 500 steps of warm-up, falling),
    an average of decay 0.999 (0.9999) and AdamW's other settings as PyTorch has them; no clipping.
    """

    learning_rate = 2e-4
    average = {"decay": 0.999, "use_ema_warmup": True, "power": 3 / 4}  # noqa: RUF012
    sampler, sampling_steps = "DDIMScheduler", 50
    packages = ("diffusers",)

    def __init__(self) -> None:
        from diffusers import DDPMScheduler

        self.net = peers.Diffusers()
        self.process: Any = DDPMScheduler(1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear")

    def loss(self, x_0: Tensor) -> Tensor:
        """The simplified objective."""
        t, eps = torch.randint(len(self.process.betas), (len(x_0),)), torch.randn_like(x_0)
        return nn.functional.mse_loss(self.net(self.process.add_noise(x_0, eps, t), t), eps)

    @torch.no_grad()
    def denoise(self, count: int) -> Iterator[Tensor]:
        """Its plain loop: every twentieth time, from 980 to 0."""
        from diffusers import DDIMScheduler

        scheduler = DDIMScheduler.from_config(self.process.config)
        scheduler.set_timesteps(self.sampling_steps)
        x = torch.randn(count, 1, 28, 28)
        for t in scheduler.timesteps:
            x = scheduler.step(self.net(x, t), t, x).prev_sample
            yield x


class BySmallDiffusion(Recipe):
    """smalldiffusion as in its examples/fashion_mnist_unet.py.

    From there: Scaled(Unet), the log-linear schedule and its ends, AdamW's learning rate, a moving average of decay
    0.999, 20 steps of the sampler with gam 1.6 (and mu 0). Its training_loop's steps are taken one by one, so that they
    can be interrupted. Chosen: the size (there 64, 64, 128 channels and attention at 14), no dropout, as the others
    have none (0.1), and batches of 128 (1024, of which there would be a hundred in 20 minutes). The average there is
    torch_ema's; EMAModel without warm-up has the same decay, (1 + n) / (10 + n) at first, one update later.
    """

    learning_rate = 7e-4
    average = {"decay": 0.999}  # noqa: RUF012
    sampler, sampling_steps = "samples, gam 1.6", 20
    packages = ("smalldiffusion", "diffusers")

    def __init__(self) -> None:
        peers.optional()
        import smalldiffusion
        from accelerate import Accelerator

        self.theirs: Any = smalldiffusion
        self.accelerator = Accelerator(cpu=True)
        self.schedule = smalldiffusion.ScheduleLogLinear(sigma_min=0.01, sigma_max=20, N=800)
        kind = smalldiffusion.Scaled(smalldiffusion.Unet)
        self.net = kind(28, 1, 1, ch=32, ch_mult=(1, 2, 4), attn_resolutions=(7,), dropout=0.0)

    def loss(self, x_0: Tensor) -> Tensor:
        """As in its training_loop."""
        x_0, sigma, eps, _ = self.theirs.generate_train_sample(x_0, self.schedule)
        loss: Tensor = self.net.get_loss(x_0, sigma, eps)
        return loss

    def denoise(self, count: int) -> Iterator[Tensor]:
        """Its sampler."""
        sigmas = self.schedule.sample_sigmas(self.sampling_steps)
        yield from self.theirs.samples(self.net, sigmas, gam=1.6, batchsize=count, accelerator=self.accelerator)


RECIPES: dict[Name, type[Recipe]] = {"diffusers": ByDiffusers, "smalldiffusion": BySmallDiffusion}
