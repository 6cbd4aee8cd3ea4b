"""Drawing images: the flags, the plan, and the loop over batches, with progress and interruption."""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Annotated, Any, Protocol

import numpy as np
from tqdm import tqdm

from ddpm_shared import claims, files, images
from ddpm_shared.command_line import parse_flags
from ddpm_shared.commands.base import NetworkCommand, NetworkPlan, load_network, results_folder
from ddpm_shared.commands.interruption import Interrupted, StopSignals
from ddpm_shared.config import require
from ddpm_shared.config.checks import whole
from ddpm_shared.config.help import default_is
from ddpm_shared.config.sampling import SAMPLER_FACTS, Draw, Sampling, deterministic
from ddpm_shared.errors import UserError
from ddpm_shared.frameworks import FRAMEWORKS
from ddpm_shared.images import Pixels

GRID_IMAGES = 64  # at most so many in grid.png
COLUMNS = 1000  # of a row of --interpolate, at most: the width of grid.png
GIF_IMAGES = 16
GIF_FRAMES = 50
RESULT, PARTIAL, LAST = "samples.npz", "samples.partial.npz", "grid.png"


@dataclass(frozen=True)
class SampleCommand(NetworkCommand):
    """Draw images with a trained network of either framework.

    Writes samples.npz (`images`, uint8 [N, H, W, C]) and grid.png.
    """

    out: Annotated[str | None, default_is("runs/samples/<utc>-<framework>")] = None
    """Folder to write to."""
    sampling: Sampling = field(default_factory=Sampling)
    interpolate: Annotated[int | None, default_is("off")] = None
    """Images in a row, each row going from one noise to another along the great circle between the two."""
    gif: bool = False
    """Write denoising.gif as well, which shows the first images at each step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        columns, sampler = self.interpolate, self.sampling.sampler
        whole(self, "interpolate", least=2, most=COLUMNS)
        require(
            columns is None or not self.sampling.noisy,
            "--interpolate with --sampler",
            sampler if self.sampling.eta == 0 else f"{sampler} --eta {self.sampling.eta}",
            f"it draws noise on the way, which hides the noise at the start; take one of {', '.join(deterministic())}",
        )


@dataclass(frozen=True)
class SamplePlan(NetworkPlan):
    """A checked SampleCommand."""

    command: SampleCommand


@claims.released_on_error()
def parse(framework: str, argv: Sequence[str] | None) -> SamplePlan:
    """Read the sampling flags of the tree of `framework` and load the weights that they name.

    Raises:
        UserError: a value that is wrong or does not fit the checkpoint.
    """
    command = parse_flags(SampleCommand, argv, f"{FRAMEWORKS[framework].tree}.inference")
    loaded, config, prefix = load_network(framework, command)
    command = dataclasses.replace(command, sampling=command.sampling.resolved(config.diffusion.timesteps))
    out = results_folder(framework, command, "samples", LAST)
    return SamplePlan(framework, command, loaded, config, prefix, out)


class Sampler(Protocol):
    """What a tree provides: a network on a device that draws images."""

    device_name: str

    def draw(self, draw: Draw, on_step: Callable[[int, Any], None]) -> Pixels:
        """The images [B, H, W, C]; after each step, on_step(steps that are left, the images as the tree has them)."""

    def to_pixels(self, x: Any) -> Pixels:
        """Images as the tree has them, as pixels [B, H, W, C]."""


def run(plan: SamplePlan, sampler: Sampler) -> int:
    """Draw all images batch by batch and write samples.npz, grid.png and, with --gif, denoising.gif.

    Finished images are saved in samples.partial.npz; the same command with --out continues from there, since an image
    depends on its seed and index alone.

    Args:
        plan: what to draw.
        sampler: the tree's.

    Returns:
        The exit code: 0, or 128 and the signal's number if interrupted.

    Raises:
        UserError: the folder holds the images of another command.
    """
    with claims.writing(plan.out):
        return _draw_all(plan, sampler)


def _draw_all(plan: SamplePlan, sampler: Sampler) -> int:
    command = plan.command
    facts = SAMPLER_FACTS[command.sampling.sampler]
    print(
        f"{plan.framework} {version(plan.framework)} on {sampler.device_name} | "
        f"{facts.title}, {command.sampling.steps} steps | {plan.checkpoint.path}"
    )
    steps = command.sampling.steps or 0  # filled in by the plan
    partial = plan.out / PARTIAL
    origin = plan.origin(**dataclasses.asdict(command.sampling), interpolate=command.interpolate)
    pixels = _finished(plan, origin)
    frames: list[Pixels] = []
    shown = {round(k * (steps - 1) / (GIF_FRAMES - 1)) for k in range(GIF_FRAMES)}
    bar = tqdm(total=command.num_images * steps, initial=len(pixels) * steps, unit="step", unit_scale=True)
    try:
        with StopSignals() as stop, bar:
            while len(pixels) < command.num_images:
                first = len(pixels)
                count = min(command.batch_size, command.num_images - first)

                def on_step(left: int, x: Any, first: int = first, count: int = count) -> None:
                    if command.gif and first == 0 and left in shown:
                        frames.append(images.grid(sampler.to_pixels(x)[:GIF_IMAGES]))
                    bar.update(count)
                    stop.check()

                draw = Draw(command.seed, first, count, command.interpolate)
                pixels = np.concatenate([pixels, sampler.draw(draw, on_step)])
                if len(pixels) < command.num_images:
                    files.write_npz(partial, images=pixels, origin=origin)
    except Interrupted:
        done = f"interrupted; {len(pixels)} finished images are saved"
        print(f"{done}: the same command with --out {plan.out} continues", file=sys.stderr)
        return stop.exit_code
    files.write_npz(plan.out / RESULT, images=pixels, origin=origin)
    partial.unlink(missing_ok=True)
    if frames:
        images.write_gif(plan.out / "denoising.gif", frames)
    elif command.gif:
        print("no denoising.gif: its images were drawn before the interruption; run again with --overwrite to get it")
    # Last, as the mark of a finished command: without it, the same command makes the pictures that are missing.
    images.write_png(plan.out / LAST, images.grid(pixels[:GRID_IMAGES], command.interpolate))
    print(f"{len(pixels)} images: {plan.out / RESULT}, {plan.out / LAST}")
    return 0


def _finished(plan: SamplePlan, origin: str) -> Pixels:
    """The images that an interrupted run of the same command saved, [n, H, W, C]; n = 0 if there was none.

    Raises:
        UserError: the folder holds the images of another command.
    """
    size, channels = plan.checkpoint.config.model.image_size, plan.checkpoint.config.model.image_channels
    nothing = np.empty((0, size, size, channels), np.uint8)
    ended = (plan.out / RESULT).exists() and not plan.command.overwrite  # but for its pictures
    file = plan.out / (RESULT if ended else PARTIAL)
    saved = files.read_npz(file) or {}
    pixels = saved.get("images", nothing)
    same = str(saved.get("origin")) == origin and pixels.dtype == np.uint8 and pixels.shape[1:] == nothing.shape[1:]
    if ended and not (same and len(pixels) <= plan.command.num_images):
        raise UserError(f"{plan.out} already holds samples: choose another --out, or replace them with --overwrite")
    if not same:
        return nothing
    print(f"continuing after the {len(pixels)} images in {file}")
    return pixels[: plan.command.num_images]
