"""Other people's U-Nets as contenders, in a worker process, trained as their users would: Adam and the mean square.

They have their images at hand as one tensor, and neither clip gradients nor keep a moving average, as ours do: whatever
that costs is on our side of the comparison.
"""

import importlib.machinery
import importlib.metadata
import sys
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import torch
from contenders import Contender
from flops import flops_per_image
from torch import Tensor, nn

from ddpm_shared import datasets

INSTALLED = Path(__file__).parents[2] / "build" / "peers"  # where `make bench-peers` puts the optional ones


class Diffusers(nn.Module):
    """UNet2DModel of diffusers with the arguments that make it most like `base`: 3,939,393 parameters."""

    def __init__(self) -> None:
        super().__init__()
        from diffusers import UNet2DModel

        self.net = UNet2DModel(
            sample_size=28,
            in_channels=1,
            out_channels=1,
            layers_per_block=2,
            block_out_channels=(32, 64, 128),
            norm_num_groups=8,
            down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        )

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """(x_t, t) -> eps_pred, as in ddpm_torch.engine."""
        return self.net(x_t, t).sample


class SmallDiffusion(nn.Module):
    """smalldiffusion's Unet, 4,032,321 parameters, which is told sigma, the noise in units of the image, for t."""

    def __init__(self, alphas_cumprod: Tensor) -> None:
        super().__init__()
        optional()
        from smalldiffusion.model_unet import Unet

        # No dropout, as in the others; it would only slow it down.
        self.net = Unet(28, 1, 1, ch=32, ch_mult=(1, 2, 4), num_res_blocks=2, attn_resolutions=(7,), dropout=0.0)
        self.register_buffer("sigmas", torch.sqrt(1 / alphas_cumprod - 1), persistent=False)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """(x_t, t) -> eps_pred, as in ddpm_torch.engine."""
        return self.net(x_t, self.sigmas[t])


class DenoisingDiffusion(nn.Module):
    """denoising-diffusion-pytorch's Unet: 3,990,609 parameters."""

    def __init__(self) -> None:
        super().__init__()
        optional()
        from denoising_diffusion_pytorch import Unet

        self.net = Unet(dim=40, dim_mults=(1, 2, 4), channels=1)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """(x_t, t) -> eps_pred, as in ddpm_torch.engine."""
        return self.net(x_t, t)


def optional() -> None:
    """Make what `make bench-peers` installed importable, behind everything that is installed properly."""
    sys.path.append(str(INSTALLED))
    # Both import torchvision for what is not the network. Its wheels do not load beside PyTorch's CPU build
    # ("operator torchvision::nms does not exist"), so a stand-in that does nothing takes its place.
    stand_in = MagicMock(__spec__=importlib.machinery.ModuleSpec("torchvision", None))  # accelerate looks for the spec
    sys.modules |= {"torchvision": stand_in, "torchvision.transforms": stand_in, "torchvision.utils": stand_in}


class Peer:
    """One of the networks above with its optimizer; bf16 is torch.autocast's."""

    def __init__(self, contender: Contender) -> None:
        torch.manual_seed(0)
        self.contender = contender
        self.alphas_cumprod = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)
        networks = {
            "diffusers": Diffusers,
            "smalldiffusion": lambda: SmallDiffusion(self.alphas_cumprod),
            "denoising-diffusion-pytorch": DenoisingDiffusion,
        }
        self.net = networks[contender.by]()
        self.net.to(memory_format=torch.channels_last if contender.channels_last else torch.contiguous_format)
        self.adam = torch.optim.Adam(self.net.parameters(), lr=2e-4)
        pixels = datasets.load("fashion-mnist-10k")[0].images
        self.images = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())
        self.x = torch.randn(contender.batch_size, 1, 28, 28)
        self.t = torch.full((contender.batch_size,), 500)

    def describe(self) -> dict[str, Any]:
        """Facts that are not timed."""
        return {
            "parameters": sum(p.numel() for p in self.net.parameters()),
            "threads": torch.get_num_threads(),
            "version": importlib.metadata.version(self.contender.by),
            "flops": flops_per_image(self.net),
        }

    def precision(self) -> torch.autocast:
        """The context that a forward pass runs in."""
        return torch.autocast("cpu", torch.bfloat16, enabled=self.contender.precision == "bf16")

    def train(self) -> None:
        """A training step on the simplified objective."""
        size = self.contender.batch_size
        x_0 = self.images[torch.randint(len(self.images), (size,))].float() / 127.5 - 1
        t, eps = torch.randint(1000, (size,)), torch.randn_like(x_0)
        alphas_cumprod = self.alphas_cumprod[t][:, None, None, None]
        x_t = torch.sqrt(alphas_cumprod) * x_0 + torch.sqrt(1 - alphas_cumprod) * eps
        with self.precision():
            eps_pred = self.net(x_t, t)
        loss = nn.functional.mse_loss(eps_pred.float(), eps)
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        loss.item()

    @torch.no_grad()
    def forward(self) -> None:
        """The network without gradients."""
        with self.precision():
            self.net(self.x, self.t)

    @torch.no_grad()
    def sample(self, steps: int, images: int) -> None:
        """Draw by diffusers' DDPMScheduler, in the plain loop of its documentation."""
        from diffusers import DDPMScheduler

        scheduler = DDPMScheduler()
        scheduler.set_timesteps(steps)
        x = torch.randn(images, 1, 28, 28)
        for t in scheduler.timesteps:
            with self.precision():
                eps_pred = self.net(x, t)
            x = scheduler.step(eps_pred.float(), t, x).prev_sample
