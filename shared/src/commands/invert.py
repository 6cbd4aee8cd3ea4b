"""DDIM's inversion: the flags, the plan, and the run around the mathematics: progress, errors, the picture."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ddpm_shared import files, images, machine
from ddpm_shared.command_line import parse_flags
from ddpm_shared.commands.base import DataCommand, NetworkPlan, load_data, load_network, results_folder
from ddpm_shared.commands.interruption import Interrupted, StopSignals
from ddpm_shared.config import require
from ddpm_shared.config.sampling import Sampling, Spacing
from ddpm_shared.datasets import Split
from ddpm_shared.errors import UserError
from ddpm_shared.frameworks import FRAMEWORKS
from ddpm_shared.images import Pixels, to_pixels

Floats = NDArray[np.float64]

NOISE_REACH = 3.0  # deviations from black to white in the picture
COLUMNS = 16  # of the picture, at most


@dataclass(frozen=True)
class InversionCommand(DataCommand):
    """From test images to the noise that DDIM would draw them from, and back: inversion.png, inversion.json.

    A step of the inversion evaluates the network at the image before the step, DDIM's own step at the image after it.
    The two differ a little, so the images that come back are not quite those that went in. More steps help.
    """

    num_images: int = 8
    """Number of images: the first of the test set."""
    steps: int = 50
    """Steps to the noise, and as many back."""
    iterations: int = 1
    """Fixed-point iterations per inversion step. 1 is plain DDIM inversion; 5 cut its error about 20-fold."""
    spacing: Spacing = "trailing"
    """Which of the T times fewer steps visit: both ends, the first of each interval, or the last of each."""
    out: str | None = None
    """Folder to write to (default: runs/inversion/<utc>-<framework>)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.iterations >= 1, "--iterations", self.iterations, "must be 1 or more")

    @property
    def sampling(self) -> Sampling:
        """DDIM without clipping of x_0, which could not be undone."""
        return Sampling("ddim", self.steps, spacing=self.spacing, clip_x_0=False)


@dataclass(frozen=True)
class InversionPlan(NetworkPlan):
    """A checked InversionCommand."""

    command: InversionCommand
    test: Split


def parse(framework: str, argv: Sequence[str] | None) -> InversionPlan:
    """Read the flags of the inversion of the tree of `framework`, and load the weights and images that they name.

    Raises:
        UserError: a value that is wrong or does not fit the checkpoint or the data.
    """
    command = parse_flags(InversionCommand, argv, f"{FRAMEWORKS[framework].tree}.inversion")
    loaded, config, prefix = load_network(framework, command)
    command.sampling.resolved(config.diffusion.timesteps)
    require(
        not config.diffusion.zero_terminal_snr,
        "--checkpoint",
        loaded.path,
        "its process ends in pure noise, and that step cannot be undone; take one trained without --zero-terminal-snr",
    )
    out = results_folder(framework, command, "inversion", "inversion.json")
    _, test = load_data(command, config)
    return InversionPlan(framework, command, loaded, config, prefix, out, test)


class Inverter(Protocol):
    """What a tree brings: a network on a device that goes from images to noise and back."""

    device_name: str
    threads: int

    def there_and_back(self, pixels: Pixels, on_step: Callable[[], None]) -> tuple[Floats, Floats]:
        """The noise of images [B, H, W, C] uint8, and the images [B, H, W, C] in [-1, 1] that it leads back to."""


def run(plan: InversionPlan, inverter: Inverter) -> int:
    """Invert the images batch by batch and write inversion.json, inversion.npz and inversion.png.

    Args:
        plan: which images, and in how many steps.
        inverter: the tree's.

    Returns:
        The exit code: 0, or 130 or 143 if interrupted.

    Raises:
        UserError: the noise or the images that come back are not finite.
    """
    command = plan.command
    print(f"{plan.framework} on {inverter.device_name} | {plan.test.name}, {command.num_images} test images")
    plan.out.mkdir(parents=True, exist_ok=True)  # what cannot be written to should say so before the work
    pixels = plan.test.images[: command.num_images]
    noises, backs = [], []
    bar = tqdm(total=2 * command.steps * len(pixels), unit="step", unit_scale=True)
    try:
        with StopSignals() as stop, bar:
            for first in range(0, len(pixels), command.batch_size):
                batch = pixels[first : first + command.batch_size]

                def on_step(count: int = len(batch)) -> None:
                    bar.update(count)
                    stop.check()

                noise, back = inverter.there_and_back(batch, on_step)
                noises.append(noise)
                backs.append(back)
    except Interrupted:
        print("interrupted; nothing is written: the same command begins again", file=sys.stderr)
        return stop.exit_code
    noise, back = np.concatenate(noises), np.concatenate(backs)
    if not (np.isfinite(noise).all() and np.isfinite(back).all()):
        raise UserError(
            f"--iterations {command.iterations} with --steps {command.steps}: the inversion does not settle "
            "(its noise is not finite); take more steps or fewer iterations"
        )
    result = {
        "framework": plan.framework,
        "checkpoint": {"path": str(plan.checkpoint.path), "sha256": plan.checkpoint.sha256},
        "weights": plan.prefix,
        "precision": command.precision,
        "num_images": len(pixels),
        "steps": command.steps,
        "spacing": command.spacing,
        "iterations": command.iterations,
        "dataset": {"name": plan.test.name, "split": plan.test.split, "sha256": plan.test.sha256},
        **errors(pixels, noise, back),
        "environment": machine.environment(inverter.device_name, inverter.threads),
    }
    files.write_npz(plan.out / "inversion.npz", images=pixels, noise=noise, back=to_pixels(back))
    images.write_png(plan.out / "inversion.png", picture(pixels, noise, back))
    files.write_json(plan.out / "inversion.json", result)
    print(
        f"there and back in {command.steps} steps: off by {result['round_trip_rms']:.4f} of a range of 2 on average, "
        f"{result['pixels_equal']:.1%} of the pixels as they were; the noise has a deviation of "
        f"{result['noise_deviation']:.3f}: {plan.out / 'inversion.json'}, {plan.out / 'inversion.png'}"
    )
    return 0


def errors(pixels: Pixels, noise: Floats, back: Floats) -> dict[str, Any]:
    """How far off the images are that come back, and how normal the noise is.

    Args:
        pixels: [B, H, W, C] uint8.
        noise: [B, H, W, C].
        back: [B, H, W, C].

    Returns:
        round_trip_rms: the root of the mean squared error, in units of x_0, which spans [-1, 1].
        round_trip_rms_per_image: of each.
        pixels_equal: the share of pixels that come back as they were.
        noise_mean, noise_deviation: 0 and 1 of the noise that the model was trained on.
    """
    square = (back - (pixels / 127.5 - 1)) ** 2
    return {
        "round_trip_rms": float(np.sqrt(square.mean())),
        "round_trip_rms_per_image": np.sqrt(square.mean(axis=(1, 2, 3))).tolist(),
        "pixels_equal": float((to_pixels(back) == pixels).mean()),
        "noise_mean": float(noise.mean()),
        "noise_deviation": float(noise.std()),
    }


def picture(pixels: Pixels, noise: Floats, back: Floats) -> Pixels:
    """Four rows: the images, their noise (black to white is -3 to 3), what comes back, and by how much it is off."""
    there, here = pixels[:COLUMNS], to_pixels(back[:COLUMNS])
    off = 255 - np.abs(there.astype(int) - here).astype(np.uint8)  # white: nothing
    rows = [there, to_pixels(noise[:COLUMNS] / NOISE_REACH), here, off]
    return images.grid(np.concatenate(rows), len(there))
