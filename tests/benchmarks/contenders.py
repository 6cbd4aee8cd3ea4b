"""Who is timed: our two trees, other people's networks of the same size, and the machine itself."""

from dataclasses import dataclass
from typing import Literal

By = Literal["torch", "tensorflow", "diffusers", "smalldiffusion", "denoising-diffusion-pytorch", "peak"]
Precision = Literal["fp32", "bf16"]
Device = Literal["cpu", "gpu"]

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
OURS = ("torch", "tensorflow")


@dataclass(frozen=True)
class Contender:
    """One worker process: whose network, how it computes, and its size."""

    by: By
    precision: Precision
    channels_last: bool = False  # a peer's network in the layout that convolutions on a CPU prefer
    compiled: bool = False  # ours with --compile
    preset: str = "base"
    batch_size: int = 128
    base_channels: int | None = None  # another width of ours than the preset's
    device: Device = "cpu"

    @property
    def ours(self) -> bool:
        """Is it one of the two trees?"""
        return self.by in OURS

    @property
    def samples(self) -> bool:
        """Is its sampling timed? It takes long: ours and diffusers' in the default layout."""
        return self.by in (*OURS, "diffusers") and not self.channels_last

    @property
    def name(self) -> str:
        """E.g. "ours torch bf16" or "diffusers fp32 channels-last"."""
        ours, compiled = "ours " if self.ours else "", " compiled" if self.compiled else ""
        return f"{ours}{self.by} {self.precision}{compiled}{' channels-last' if self.channels_last else ''}"


def line_up(
    preset: str, batch_size: int, *, layouts: bool, compiled: bool, peers: bool, device: Device = "cpu"
) -> list[Contender]:
    """The contenders of one benchmark, without the machine's peaks.

    Args:
        preset: of ours; others have a network of equal size for "base" only, and are left out for any other.
        batch_size: images a step.
        device: of ours; others are left out on a GPU.
        layouts: the peers' networks in the channels-last layout as well.
        compiled: ours with --compile as well.
        peers: smalldiffusion and denoising-diffusion-pytorch as well, which `make bench-peers` installs.
    """
    found = [
        Contender(by, precision, compiled=variant, preset=preset, batch_size=batch_size, device=device)
        for by in OURS
        for variant in ((False, True) if compiled else (False,))
        for precision in PRECISIONS
    ]
    if preset != "base" or device != "cpu":
        return found
    # Both layouts, so that the best that a user can get out of it is among them.
    found += [
        Contender("diffusers", precision, channels_last=layout, batch_size=batch_size)
        for layout in ((False, True) if layouts else (False,))
        for precision in PRECISIONS
    ]
    optional: tuple[By, ...] = ("smalldiffusion", "denoising-diffusion-pytorch") if peers else ()
    return found + [Contender(by, precision, batch_size=batch_size) for by in optional for precision in PRECISIONS]
