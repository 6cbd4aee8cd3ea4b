"""Where a sampler goes, and where the network is evaluated there: two processes, matched by log-SNR.

A network knows the process that it was trained in. It can be drawn from in any other: where the log-SNR is the same, x
of the two differs by a factor alone, and x_0 and eps are the same.

Mirror: ddpm_torch.stations.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ddpm_shared.config.sampling import Sampling
from ddpm_tf.config import DiffusionConfig, ProcessName
from ddpm_tf.processes import SNR_LAST, Levels, make_grid, make_levels, matched


@dataclass(frozen=True)
class Stations:
    """N levels of the process that is drawn in, and where the network is evaluated.

    Args:
        levels: N of them.
        times: [N], of the network's process: whole numbers for ddpm.
        scales: [N], what takes x of the process that is drawn in to x of the network's.

    Mirror: ddpm_torch.stations.Stations.
    """

    levels: Levels
    times: Sequence[float]
    scales: Sequence[float]


def make_stations(diffusion: DiffusionConfig, sampling: Sampling) -> Stations:
    """The levels that a sampler visits, from the settings.

    Args:
        diffusion: the process that the network was trained in.
        sampling: resolved for it.

    Mirror: ddpm_torch.stations.make_stations.
    """
    process = sampling.process or diffusion.process
    if diffusion.process == "ddpm":
        whole = np.array(sampling.times(diffusion.timesteps), np.float64)
        times = whole if process == "ddpm" else matched(diffusion, whole, "ddpm", process)
        return stations_at(diffusion, process, times, whole)
    assert sampling.grid is not None
    assert sampling.steps is not None
    times = make_grid(diffusion, sampling.steps, sampling.grid, process, sampling.rho, sampling.shift)
    if process == "flow" != diffusion.process:  # pure noise has no log-SNR to match
        times = np.minimum(times, SNR_LAST)
    return stations_at(diffusion, process, times)


def stations_at(
    diffusion: DiffusionConfig,
    process: ProcessName,
    times: NDArray[np.float64],
    own: NDArray[np.float64] | None = None,
    ordered: bool = True,
) -> Stations:
    """The levels of a process at some of its times, and where the network is evaluated.

    The factor of x is the quotient of sqrt(alpha^2 + sigma^2) in the two processes, which is finite at both ends.

    Args:
        diffusion: the process that the network was trained in.
        process: the one that is drawn in.
        times: [N], of that process.
        own: [N], the times of the network's process (default: those with the same log-SNR).
        ordered: as for Levels.

    Mirror: ddpm_torch.stations.stations_at.
    """
    levels, same = make_levels(diffusion, times, process, ordered), process == diffusion.process
    if own is None:
        own = times if same else matched(diffusion, times, process, diffusion.process)
    network = levels if same else make_levels(diffusion, own, diffusion.process, ordered)
    scales = np.hypot(network.alpha, network.sigma) / np.hypot(levels.alpha, levels.sigma)
    number = int if diffusion.process == "ddpm" else float
    return Stations(levels, [number(t) for t in own], scales.tolist())
