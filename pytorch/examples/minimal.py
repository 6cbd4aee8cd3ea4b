"""DDPM in forty lines: `python pytorch/examples/minimal.py`, then copy it. Mirror: tensorflow/examples/minimal.py.

It trains on the images in the package, draws sixteen, and writes minimal-torch.png: five minutes on a laptop. Both
frameworks are given the same numbers, so their losses begin equal and stay close.
"""

from pathlib import Path

import numpy as np
import torch

from ddpm_shared import datasets, images
from ddpm_shared.config import Config, DiffusionConfig, with_preset
from ddpm_torch import data
from ddpm_torch.engine import diffusion_loss, make_schedule, p_sample
from ddpm_torch.model import make_network


def main(steps: int = 1000, timesteps: int = 1000, out: Path = Path("minimal-torch.png")) -> list[float]:
    """Train, draw, and return the loss of every step."""
    # 1. The data, the forward process, the network and its optimizer.
    train, _ = datasets.load("fashion-mnist-10k")  # images [N, 28, 28, 1] uint8
    schedule = make_schedule(DiffusionConfig(timesteps=timesteps))
    network = make_network(with_preset(Config(), "tiny"), seed=0)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3, eps=1e-8)
    random = np.random.default_rng(0)

    def noise(count: int) -> torch.Tensor:
        return data.to_tensor(random.standard_normal((count, 28, 28, 1), np.float32))  # [B, 1, 28, 28]

    # 2. Training, algorithm 1 of the paper: predict the noise in a corrupted image.
    losses = []
    for step in range(steps):
        x_0 = data.to_images(train.images[random.integers(len(train.images), size=64)], torch.float32)
        t = torch.from_numpy(random.integers(timesteps, size=64))
        optimizer.zero_grad()
        loss = diffusion_loss(schedule, network, x_0, t, noise(64))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step % 50 == 0:
            print(f"step {step} of {steps}: loss {losses[-1]:.4f}", flush=True)

    # 3. Sampling, algorithm 2: from noise, one step after the other towards an image.
    x = noise(16)
    with torch.no_grad():
        for t in reversed(range(timesteps)):
            x = p_sample(schedule, network, x, torch.full((16,), t), noise(16))
    images.write_png(out, images.grid(data.to_pixels(x)))
    print(f"sixteen images: {out}")
    return losses


if __name__ == "__main__":
    main()
