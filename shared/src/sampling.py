"""The sampling run around the mathematics: batches, progress, pictures, interruption."""

import dataclasses
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import numpy as np
from tqdm import tqdm

from ddpm_shared import files, images
from ddpm_shared.cli import SamplePlan
from ddpm_shared.images import Pixels
from ddpm_shared.interruption import Interrupted, StopSignals
from ddpm_shared.samplers import SAMPLERS

OnStep = Callable[[int, Callable[[], Pixels]], None]  # (steps that are left, the images at that time)

GRID_IMAGES = 64  # at most so many in grid.png
GIF_IMAGES = 16
GIF_FRAMES = 50
PARTIAL = "samples.partial.npz"


class Sampler(Protocol):
    """What a tree brings: a network on a device that draws images."""

    device_name: str

    def draw(self, first: int, count: int, on_step: OnStep) -> Pixels:
        """The images first .. first + count - 1, [count, H, W, C]."""


def run(plan: SamplePlan, sampler: Sampler) -> int:
    """Draw all images batch by batch and write samples.npz, grid.png and, if asked for, denoising.gif.

    What is finished is kept in samples.partial.npz; the same command with --out goes on from there, since an image
    depends on its seed and index alone.

    Args:
        plan: what to draw.
        sampler: the tree's.

    Returns:
        The exit code: 0, or 130 or 143 if interrupted.
    """
    command = plan.command
    kind = SAMPLERS[command.sampling.sampler]
    print(
        f"{plan.framework} {version(plan.framework)} on {sampler.device_name} | "
        f"{kind.title}, {command.sampling.steps} steps | {plan.checkpoint.path}"
    )
    steps = command.sampling.steps or 0  # filled in by the plan
    plan.out.mkdir(parents=True, exist_ok=True)  # what cannot be written to should say so before the drawing
    partial = plan.out / PARTIAL
    origin = plan.origin(**dataclasses.asdict(command.sampling), interpolate=command.interpolate)
    pixels = _finished(partial, plan, origin)
    frames: list[Pixels] = []
    shown = {round(k * (steps - 1) / (GIF_FRAMES - 1)) for k in range(GIF_FRAMES)}
    bar = tqdm(total=command.num_images * steps, initial=len(pixels) * steps, unit="step", unit_scale=True)
    try:
        with StopSignals() as stop, bar:
            while len(pixels) < command.num_images:
                first = len(pixels)
                count = min(command.batch_size, command.num_images - first)

                def on_step(left: int, current: Callable[[], Pixels], first: int = first, count: int = count) -> None:
                    if command.gif and first == 0 and left in shown:
                        frames.append(images.grid(current()[:GIF_IMAGES]))
                    bar.update(count)
                    stop.check()

                pixels = np.concatenate([pixels, sampler.draw(first, count, on_step)])
                if len(pixels) < command.num_images:
                    files.write_npz(partial, images=pixels, origin=origin)
    except Interrupted:
        kept = f"interrupted; {len(pixels)} finished images are kept"
        print(f"{kept}: the same command with --out {plan.out} goes on", file=sys.stderr)
        return stop.exit_code
    files.write_npz(plan.out / "samples.npz", images=pixels, origin=origin)
    partial.unlink(missing_ok=True)
    images.write_png(plan.out / "grid.png", images.grid(pixels[:GRID_IMAGES], command.interpolate))
    if frames:
        images.write_gif(plan.out / "denoising.gif", frames)
    elif command.gif:
        print("no denoising.gif: its images were drawn before the interruption; remove --out and run again for it")
    print(f"{len(pixels)} images: {plan.out / 'samples.npz'}, {plan.out / 'grid.png'}")
    return 0


def _finished(partial: Path, plan: SamplePlan, origin: str) -> Pixels:
    """The images of an interrupted run of the same command, [n, H, W, C] with n = 0 where there is none."""
    size, channels = plan.checkpoint.config.model.image_size, plan.checkpoint.config.model.image_channels
    nothing = np.empty((0, size, size, channels), np.uint8)
    found = files.read_npz(partial)
    if found is None or str(found.get("origin")) != origin:
        return nothing
    pixels = found["images"]
    print(f"going on after the {len(pixels)} images in {partial}")
    return pixels[: plan.command.num_images]
