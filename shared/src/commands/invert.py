"""DDIM's inversion: the flags, the plan, the loop over batches, and what is written: errors and a picture."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol, TypedDict

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ddpm_shared import claims, files, images, machine
from ddpm_shared.command_line import parse_flags
from ddpm_shared.commands.base import DataCommand, NetworkPlan, load_data, load_network, results_folder
from ddpm_shared.commands.interruption import Interrupted, StopSignals
from ddpm_shared.commands.labels import Labels, true_labels
from ddpm_shared.config import require
from ddpm_shared.config.checks import whole
from ddpm_shared.config.help import default_is
from ddpm_shared.config.sampling import Sampling, SpacingFlag
from ddpm_shared.datasets import Split
from ddpm_shared.errors import UserError
from ddpm_shared.frameworks import FRAMEWORKS
from ddpm_shared.images import Pixels, to_pixels
from ddpm_shared.workers import ALONE

Floats = NDArray[np.float64]

NOISE_RANGE = 3.0  # in the picture of the noise, black is -3 and white is 3
COLUMNS = 16  # of the picture, at most
ITERATIONS = 1000  # it has converged long before, or never will


@dataclass(frozen=True)
class InversionCommand(DataCommand):
    """Invert DDIM: from test images to the noise that DDIM draws them from, and back to images.

    A step of DDIM evaluates the network at the noisier of two images, a step of the inversion at the less noisy one.
    The two predictions differ a little, so the images that come back are not exactly the originals. More steps reduce
    the difference. A class-conditional network is given the true labels. Writes inversion.json, inversion.npz and
    inversion.png.
    """

    num_images: int = 8
    """Number of images: the first of the test set."""
    steps: int = 50
    """Number of steps to the noise, and of steps back."""
    iterations: int = 1
    """Fixed-point iterations per inversion step. 1 is plain DDIM inversion; 5 cut its error about 20-fold."""
    spacing: SpacingFlag = "trailing"
    out: Annotated[str | None, default_is("runs/inversion/<utc>-<framework>")] = None
    """Folder to write to."""

    def __post_init__(self) -> None:
        super().__post_init__()
        whole(self, "steps")
        whole(self, "iterations", most=ITERATIONS)

    @property
    def sampling(self) -> Sampling:
        """DDIM without clipping x_0, since clipping has no inverse."""
        return Sampling("ddim", self.steps, spacing=self.spacing, clip_x_0=False)


@dataclass(frozen=True)
class InversionPlan(NetworkPlan):
    """A checked InversionCommand."""

    command: InversionCommand
    test: Split
    labels: Labels | None  # the true ones, for a class-conditional network


@claims.released_on_error()
def parse(framework: str, argv: Sequence[str] | None) -> InversionPlan:
    """Read the flags of the inversion of the tree of `framework`, and load the weights and images that they name.

    Raises:
        UserError: a value that is wrong or does not fit the checkpoint or the data.
    """
    command = parse_flags(InversionCommand, argv, f"{FRAMEWORKS[framework].tree}.inversion")
    loaded, config, prefix = load_network(framework, command)
    command.sampling.resolved_for(config.diffusion)
    require(
        not config.diffusion.zero_terminal_snr and config.diffusion.process != "flow",
        "--checkpoint",
        loaded.path,
        "its process ends in pure noise, and that step has no inverse; take one trained without --zero-terminal-snr, "
        "and not in flow",
    )
    _, test = load_data(command, config)
    labels = true_labels(test, config, command.num_images)
    out = results_folder(framework, command, "inversion", "inversion.json")
    return InversionPlan(framework, command, loaded, config, prefix, out, ALONE, test, labels)


class Inverter(Protocol):
    """What a tree provides: a network on a device that goes from images to noise and back."""

    device_name: str
    threads: int

    def there_and_back(
        self, pixels: Pixels, on_step: Callable[[], None], labels: Labels | None = None
    ) -> tuple[Floats, Floats]:
        """The noise of images [B, H, W, C] uint8, and the images [B, H, W, C] in [-1, 1] that it leads back to."""


def run(plan: InversionPlan, inverter: Inverter) -> int:
    """Invert the images batch by batch and write inversion.json, inversion.npz and inversion.png.

    Args:
        plan: which images, and in how many steps.
        inverter: the tree's.

    Returns:
        The exit code: 0, or 128 and the signal's number if interrupted.

    Raises:
        UserError: the noise or the images that come back are not finite.
    """
    with claims.writing(plan.out):
        return _invert_all(plan, inverter)


def _invert_all(plan: InversionPlan, inverter: Inverter) -> int:
    command = plan.command
    print(f"{plan.framework} on {inverter.device_name} | {plan.test.name}, {command.num_images} test images")
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

                labels = None if plan.labels is None else plan.labels[first : first + command.batch_size]
                noise, back = inverter.there_and_back(batch, on_step, labels)
                noises.append(noise)
                backs.append(back)
    except Interrupted:
        print("interrupted; nothing is written: the same command begins again", file=sys.stderr)
        return stop.exit_code
    noise, back = np.concatenate(noises), np.concatenate(backs)
    if not (np.isfinite(noise).all() and np.isfinite(back).all()):
        raise UserError(
            f"--iterations {command.iterations} with --steps {command.steps}: the inversion does not converge "
            "(its noise is not finite); take more steps or fewer iterations"
        )
    measured = errors(pixels, noise, back)
    result = {
        "framework": plan.framework,
        "checkpoint": {"path": str(plan.checkpoint.path), "sha256": plan.checkpoint.sha256},
        "weights": plan.prefix,
        "precision": command.precision,
        "num_images": len(pixels),
        "steps": command.steps,
        "spacing": command.spacing,
        "iterations": command.iterations,
        "class_conditional": plan.labels is not None,
        "dataset": {"name": plan.test.name, "split": plan.test.split, "sha256": plan.test.sha256},
        **measured,
        "environment": machine.environment(inverter.device_name, inverter.threads),
    }
    files.write_npz(plan.out / "inversion.npz", images=pixels, noise=noise, back=to_pixels(back))
    images.write_png(plan.out / "inversion.png", picture(pixels, noise, back))
    files.write_json(plan.out / "inversion.json", result)
    print(
        f"{command.steps} steps to the noise and {command.steps} back: RMS error {measured['round_trip_rms']:.4f} "
        f"(x_0 is in [-1, 1]), {measured['pixels_equal']:.1%} of the pixels unchanged; standard deviation of the noise "
        f"{measured['noise_deviation']:.3f}: {plan.out / 'inversion.json'}, {plan.out / 'inversion.png'}"
    )
    return 0


class Errors(TypedDict):
    """How well an inversion worked."""

    round_trip_rms: float
    round_trip_rms_per_image: list[float]
    pixels_equal: float
    noise_mean: float
    noise_deviation: float


def errors(pixels: Pixels, noise: Floats, back: Floats) -> Errors:
    """The difference between the images and those that come back, and how close to normal the noise is.

    Args:
        pixels: [B, H, W, C] uint8.
        noise: [B, H, W, C].
        back: [B, H, W, C].

    Returns:
        round_trip_rms: root of the mean squared error, in units of x_0, which is in [-1, 1].
        round_trip_rms_per_image: the same of each image.
        pixels_equal: share of the pixels that come back unchanged, in all their channels.
        noise_mean, noise_deviation: 0 and 1 for the noise that the model was trained on.
    """
    square = (back - (pixels / 127.5 - 1)) ** 2
    return {
        "round_trip_rms": float(np.sqrt(square.mean())),
        "round_trip_rms_per_image": np.sqrt(square.mean(axis=(1, 2, 3))).tolist(),
        "pixels_equal": float((to_pixels(back) == pixels).all(axis=-1).mean()),
        "noise_mean": float(noise.mean()),
        "noise_deviation": float(noise.std()),
    }


def picture(pixels: Pixels, noise: Floats, back: Floats) -> Pixels:
    """Four rows: the images, their noise (black is -3, white 3), the images that come back, and the difference."""
    originals, returned = pixels[:COLUMNS], to_pixels(back[:COLUMNS])
    difference = 255 - np.abs(originals.astype(int) - returned).astype(np.uint8)  # white: none
    rows = [originals, to_pixels(noise[:COLUMNS] / NOISE_RANGE), returned, difference]
    return images.grid(np.concatenate(rows), len(originals))
