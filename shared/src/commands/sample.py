"""Drawing images: the flags, the plan, and what is written. The loop over batches: rounds.py."""

import dataclasses
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Annotated, Any, Protocol

import numpy as np

from ddpm_shared import claims, files, images, workers
from ddpm_shared.command_line import parse_flags
from ddpm_shared.commands import rounds
from ddpm_shared.commands.base import (
    BOXED,
    BOXED_CONDITIONAL,
    NetworkCommand,
    NetworkPlan,
    load_network,
    results_folder,
)
from ddpm_shared.commands.labels import ALL, Labels, asked_for, names_of
from ddpm_shared.config import PROCESS_FACTS, require
from ddpm_shared.config.checks import whole
from ddpm_shared.config.help import default_is
from ddpm_shared.config.samplers import PROCESS_SAMPLING, SAMPLER_FACTS, deterministic
from ddpm_shared.config.sampling import Draw, Sampling
from ddpm_shared.errors import UserError
from ddpm_shared.frameworks import FRAMEWORKS
from ddpm_shared.images import Pixels
from ddpm_shared.records.checkpoint import Checkpoint
from ddpm_shared.workers import Workers

GRID_IMAGES = 64  # at most so many in grid.png
COLUMNS = 1000  # of a row of --interpolate, at most: the width of grid.png
GIF_IMAGES = 16
GIF_FRAMES = 50
RESULT, PARTIAL, LAST = "samples.npz", "samples.partial.npz", "grid.png"


@dataclass(frozen=True)
class SampleCommand(NetworkCommand):
    """Draw images with a trained network of either framework.

    Writes samples.npz (`images`, uint8 [N, H, W, C], and `labels`, [N], of a class-conditional network) and grid.png.
    """

    out: Annotated[str | None, default_is("runs/samples/<utc>-<framework>")] = None
    """Folder to write to."""
    sampling: Sampling = field(default_factory=Sampling)
    interpolate: Annotated[int | None, default_is("off")] = None
    """Images in a row, each row going from one noise to another along the great circle between the two."""
    labels: Annotated[str | None, default_is("all, with a class-conditional network")] = None
    """Classes to draw, in turn over the images: all, or numbers or names with commas between, e.g. trouser,bag."""
    interpolate_labels: Annotated[int | None, default_is("off")] = None
    """Images in a row, each row going from one of the labels to the next, all from the same noise."""
    gif: bool = False
    """Write denoising.gif as well, which shows the first images at each step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        columns, sampler = self.interpolate, self.sampling.sampler
        whole(self, "interpolate", "interpolate_labels", least=2, most=COLUMNS)
        require(
            columns is None or self.interpolate_labels is None,
            "--interpolate with --interpolate-labels",
            self.interpolate_labels,
            "a row goes from one noise to another or from one label to another: take one of the two",
        )
        require(
            columns is None or not self.sampling.noisy,
            "--interpolate with --sampler",
            sampler if self.sampling.eta == 0 else f"{sampler} --eta {self.sampling.eta}",
            f"it draws noise on the way, which hides the noise at the start; take one of {', '.join(deterministic())}",
        )

    @property
    def asks_for_classes(self) -> bool:
        """Whether a network without classes cannot do what is asked for."""
        return self.labels is not None or self.interpolate_labels is not None or self.sampling.guided

    @property
    def file(self) -> str:
        """The checkpoint to use: of those in the package, the one that can do what is asked for."""
        return BOXED_CONDITIONAL if self.checkpoint == BOXED and self.asks_for_classes else self.checkpoint


@dataclass(frozen=True)
class SamplePlan(NetworkPlan):
    """A checked SampleCommand."""

    command: SampleCommand
    class_names: tuple[str, ...] = ()
    classes: Labels | None = None  # asked for, in turn; None with a network that has no classes

    @property
    def columns(self) -> int | None:
        """Images in a row of an interpolation; None without one."""
        return self.command.interpolate or self.command.interpolate_labels

    @property
    def labels(self) -> Labels | None:
        """The class of each image, [N]; None where there are none, or each image is between two."""
        if self.classes is None or self.command.interpolate_labels:
            return None
        turn = np.arange(self.command.num_images) // (self.command.interpolate or 1)
        return self.classes[turn % len(self.classes)]

    @property
    def asked(self) -> str:
        """The classes and the guidance, in words, with both conventions of the scale."""
        classes = [] if self.classes is None else list(dict.fromkeys(self.classes.tolist()))
        some = ", ".join(self.class_names[label] for label in classes)
        names = some if len(classes) < len(self.class_names) else "all classes"
        scale = self.command.sampling.guidance
        meaning = {0.0: "unconditional", 1.0: "conditional"}.get(scale, f"Ho and Salimans' w = {scale - 1:g}")
        return f"{names}, guidance {scale:g} ({meaning})"

    def draw(self, first: int, count: int) -> Draw:
        """The images `first` .. `first` + `count` - 1."""
        command, columns = self.command, self.command.interpolate_labels
        if self.classes is None or columns is None:
            labels = self.labels
            of_batch = None if labels is None else labels[first : first + count]
            return Draw(command.seed, first, count, command.interpolate, of_batch)
        row, column = np.divmod(np.arange(first, first + count), columns)
        here, there = (np.eye(len(self.class_names) + 1)[self.classes[i % len(self.classes)]] for i in (row, row + 1))
        weight = (column / (columns - 1))[:, None]
        return Draw(command.seed, first, count, labels=(1 - weight) * here + weight * there, same_noise=columns)

    def origin(self, **more: Any) -> str:
        """As for every plan, with the sampler, and what is asked for of a class-conditional network."""
        settings = self.command.sampling.stated(self.config.diffusion)
        if self.classes is None:
            settings = {key: value for key, value in settings.items() if not key.startswith("guidance")}
        else:
            settings |= {"labels": self.classes.tolist(), "interpolate_labels": self.command.interpolate_labels}
        return super().origin(**settings, interpolate=self.command.interpolate, **more)


@claims.released_on_error()
def parse(framework: str, argv: Sequence[str] | None) -> SamplePlan:
    """Read the sampling flags of the tree of `framework` and load the weights that they name.

    Raises:
        UserError: a value that is wrong or does not fit the checkpoint.
    """
    command = parse_flags(SampleCommand, argv, f"{FRAMEWORKS[framework].tree}.inference")
    place = workers.place(framework)
    loaded, config, prefix = load_network(framework, command, place)
    sampling = command.sampling
    given = any(re.match("--sampler(=|$)", each) for each in (sys.argv[1:] if argv is None else argv))
    if config.diffusion.process != "ddpm" and not given:
        sampling = dataclasses.replace(sampling, sampler=PROCESS_SAMPLING[config.diffusion.process][0])
    command = dataclasses.replace(command, sampling=sampling.resolved_for(config.diffusion))
    class_names, classes = _classes(command, loaded)
    out = results_folder(framework, command, "samples", LAST, place)
    return SamplePlan(framework, command, loaded, config, prefix, out, place, class_names, classes)


def _classes(command: SampleCommand, loaded: Checkpoint) -> tuple[tuple[str, ...], Labels | None]:
    """The names of the network's classes, and those asked for, in turn; () and None if it has none."""
    num_classes = loaded.config.model.num_classes
    if not num_classes:
        require(
            not command.asks_for_classes,
            "--labels, --interpolate-labels, --guidance with --checkpoint",
            loaded.path,
            "its network knows no classes: take one that was trained with --class-conditional",
        )
        return (), None
    class_names = names_of(loaded.class_names, num_classes)
    classes = asked_for(command.labels or ALL, class_names)
    require(
        command.interpolate_labels is None or len(classes) > 1,
        "--interpolate-labels with --labels",
        command.labels,
        "a row goes from one class to the next: name two or more",
    )
    return class_names, classes


class Sampler(Protocol):
    """What a tree provides: a network on a device that draws images."""

    device_name: str

    def draw(self, draw: Draw, on_step: Callable[[int, Any], None]) -> Pixels:
        """The images [B, H, W, C]; after each step, on_step(steps that are left, the images as the tree has them)."""

    def to_pixels(self, x: Any) -> Pixels:
        """Images as the tree has them, as pixels [B, H, W, C]."""


def run(plan: SamplePlan, sampler: Sampler, all_workers: Workers) -> int:
    """Draw all images batch by batch and write samples.npz, grid.png and, with --gif, denoising.gif.

    Finished images are saved in samples.partial.npz; the same command with --out continues from there, with as many
    workers as it likes, since an image depends on its seed and index alone.

    Args:
        plan: what to draw.
        sampler: the tree's.
        all_workers: this process among those that share out the batches.

    Returns:
        The exit code: 0, or 128 and the signal's number if interrupted.

    Raises:
        UserError: the folder holds the images of another command; the workers differ, or one has ended.
    """
    with plan.writing():
        return _draw_all(plan, sampler, all_workers)


def _draw_all(plan: SamplePlan, sampler: Sampler, all_workers: Workers) -> int:
    command = plan.command
    facts = SAMPLER_FACTS[command.sampling.sampler]
    asked = "" if plan.classes is None else f" | {plan.asked}"
    process = command.sampling.process or "ddpm"
    where = "" if process == "ddpm" else f" in {PROCESS_FACTS[process].title}"
    plan.say(
        f"{plan.framework} {version(plan.framework)} on {sampler.device_name} | "
        f"{facts.title}{where}, {command.sampling.steps} steps{asked} | {plan.checkpoint.path}"
    )
    steps = command.sampling.steps or 0  # filled in by the plan
    partial = plan.out / PARTIAL
    origin = plan.origin()
    saved = _finished(plan, origin) if plan.place.chief else _nothing(plan)
    frames: list[Pixels] = []
    shown = {round(k * (steps - 1) / (GIF_FRAMES - 1)) for k in range(GIF_FRAMES)}

    def draw(batch: slice, on_steps: Callable[[int], None]) -> rounds.Values:
        count = batch.stop - batch.start

        def on_step(left: int, x: Any) -> None:
            if command.gif and batch.start == 0 and left in shown:  # in the chief, whose batch is the first
                frames.append(images.grid(sampler.to_pixels(x)[:GIF_IMAGES]))
            on_steps(count)

        return {"images": sampler.draw(plan.draw(batch.start, count), on_step)}

    def save(done: rounds.Values) -> None:
        files.write_npz(partial, images=done["images"], origin=origin)

    done = rounds.make_all(plan, all_workers, origin, {"images": saved}, draw, save, steps, "step")
    if isinstance(done, int):
        return done
    pixels = done["images"]
    labels = plan.labels
    files.write_npz(plan.out / RESULT, images=pixels, origin=origin, **({} if labels is None else {"labels": labels}))
    partial.unlink(missing_ok=True)
    if frames:
        images.write_gif(plan.out / "denoising.gif", frames)
    elif command.gif:
        print("no denoising.gif: its images were drawn before the interruption; run again with --overwrite to get it")
    # Last, as the mark of a finished command: without it, the same command makes the pictures that are missing.
    images.write_png(plan.out / LAST, _grid(plan, pixels[:GRID_IMAGES]))
    print(f"{len(pixels)} images: {plan.out / RESULT}, {plan.out / LAST}")
    return 0


def _grid(plan: SamplePlan, pixels: Pixels) -> Pixels:
    if plan.labels is None or plan.columns:
        return images.grid(pixels, plan.columns)
    return images.by_class(pixels, plan.labels[: len(pixels)], plan.class_names)


def _nothing(plan: SamplePlan) -> Pixels:
    """No image of the network, [0, H, W, C]."""
    size, channels = plan.checkpoint.config.model.image_size, plan.checkpoint.config.model.image_channels
    return np.empty((0, size, size, channels), np.uint8)


def _finished(plan: SamplePlan, origin: str) -> Pixels:
    """The images that an interrupted run of the same command saved, [n, H, W, C]; n = 0 if there was none.

    Raises:
        UserError: the folder holds the images of another command.
    """
    nothing = _nothing(plan)
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
