"""Drawing in continuous time: networks of each process by its own sampler, and of one process in another.

The network is small, at random weights, with classes, and guided. A network is drawn in another process at the times
with the same log-SNR, where the two differ by a factor: so that what is drawn is the same.
"""

import dataclasses
import itertools
from functools import partial
from typing import Any

import numpy as np

from ddpm_parity.continuous import config_of
from ddpm_parity.labels import MODEL
from ddpm_parity.quantities import Arrays, Quantity, of_the_largest
from ddpm_parity.sampling import oracle_s
from ddpm_parity.sides import Array, Oracle, Side, random_parameters
from ddpm_parity.tolerances import CONTINUOUS_DRAWING, DDPM_ELSEWHERE, DRAWN_ELSEWHERE
from ddpm_shared import streams
from ddpm_shared.config import Config, DiffusionConfig
from ddpm_shared.config.processes import ProcessName
from ddpm_shared.config.sampling import CONTINUOUS, PROCESS_SAMPLING, SAMPLER_FACTS, Draw, Sampling
from ddpm_shared.oracle import continuous as oracle
from ddpm_shared.oracle import guidance as oracle_guidance
from ddpm_shared.oracle import prediction as oracle_prediction
from ddpm_shared.oracle import processes as oracle_processes
from ddpm_shared.oracle import samplers as oracle_samplers
from ddpm_shared.oracle import solvers as oracle_solvers
from ddpm_shared.oracle.networks import Network

STEPS = 5
LABELS = np.array([0, 2, 1])
DRAW = Draw(3, 2, 3, labels=LABELS)
GUIDANCE = 2.0
FLOW_LAST = 0.999  # of flow's times, where they are those of another process too
# The solvers on eps and x_0 of today, and those in t: on every process that they take.
OTHER_SAMPLERS = ("ancestral", "ddim", "dpmpp_2m", "heun_t", "rk4", "euler_maruyama", "pc")
DDPM = DiffusionConfig(timesteps=40, beta_end=0.3)
# The processes that a network of the first is drawn in.
ELSEWHERE: dict[ProcessName, tuple[ProcessName, ...]] = {
    "ddpm": ("vp", "sub_vp", "ve", "edm", "flow"),
    "edm": ("vp", "flow"),
    "flow": ("ve", "edm"),
    "vp": ("edm", "sub_vp"),
}
# Samplers that work on x_0 and eps alone, and so draw the same in every process.
OF_LEVELS = {
    "ddim": Sampling("ddim", STEPS),
    "ddim, eta 0.7": Sampling("ddim", STEPS, eta=0.7),
    "ancestral": Sampling("ancestral", STEPS),
    "dpmpp_2m": Sampling("dpmpp_2m", STEPS),
    "heun": Sampling("heun", STEPS),
}


def config_to_draw(process: str) -> Config:
    """A network of three classes, of what --process brings."""
    diffusion = DDPM if process == "ddpm" else config_of(process)
    return Config(device="cpu", class_conditional=True, model=MODEL, diffusion=diffusion)


def _network(side: Side, process: str) -> Any:
    """The network at random weights, as the tree's commands call it."""

    def make() -> Any:
        config = config_to_draw(process)
        if isinstance(side, Oracle):
            shapes = side.shapes_of(lambda torch: torch.model.make_network(torch.configured(config), 0))
            return Network(random_parameters(shapes), MODEL)
        network = side.model.make_network(side.configured(config), 0)
        side.assign(network, random_parameters(side.shapes(network)))
        return side.sampler(network)

    return side.keep("small network with classes", make)  # the same for every process


def _drawn(side: Side, process: str, sampling: Sampling) -> Array:
    """The last x_prev of three guided images."""
    config, network = side_config(side, process), _network(side, process)
    if isinstance(side, Oracle):
        return oracle_drawn(side, network, config, sampling)
    last: dict[str, Any] = {}
    side.sampling.Sampler(network, config, sampling).draw(DRAW, lambda i, x: last.update(x_0=x))
    return side.array(last["x_0"])


def side_config(side: Side, process: str) -> Config:
    """In the precision of the side."""
    config = config_to_draw(process)
    return config if isinstance(side, Oracle) else side.configured(config)


def _noise(stream: str, step: int) -> Array:
    size, channels = MODEL.image_size, MODEL.image_channels
    return streams.normal(DRAW.seed, stream, step, (DRAW.count, size, size, channels), DRAW.first)


class _At:
    """The oracle's denoiser at some times of the process that is drawn in, by a network of another or the same."""

    def __init__(self, network: Network, config: Config, sampling: Sampling, times: Array) -> None:
        self.network, self.config, self.sampling = network, config, sampling
        diffusion, own = config.diffusion, config.diffusion.process
        self.drawn_in = sampling.process or own
        self.levels = oracle_processes.make_levels(diffusion, times, self.drawn_in)
        self.own = times
        if self.drawn_in != own:
            log_snr = oracle_processes.log_snr(diffusion, times.astype(np.longdouble), self.drawn_in)
            self.own = oracle_processes.time_of(diffusion, log_snr, own)

    def factor(self, i: int) -> float:
        """From x in the process that is drawn in to x in the network's: the quotient of the signals."""
        alpha, _ = oracle_processes.PROCESSES[self.config.diffusion.process](self.config.diffusion, self.own[[i]])
        same = self.drawn_in == self.config.diffusion.process
        return 1.0 if same else float(alpha[0] / self.levels.alpha[i])

    def __call__(self, x: Array, i: int) -> oracle_prediction.Predicted:
        guided = oracle_guidance.condition(self.network, LABELS, self.sampling.guidance)
        t = np.full(len(x), self.own[i])
        return oracle.denoise(guided, self.config.diffusion, self.factor(i) * x, t, self.sampling.clip_x_0)


def oracle_drawn(side: Side, network: Network, config: Config, sampling: Sampling) -> Array:
    """What the oracle draws: grids, levels, denoiser and solvers are its own."""
    diffusion = config.diffusion
    if diffusion.process == "ddpm":  # the same in every process
        return oracle_s(side, network, config, DRAW, dataclasses.replace(sampling, process=None))
    sampling = sampling.resolved_for(diffusion)
    assert sampling.process is not None
    assert sampling.grid is not None
    times = oracle_processes.make_grid(diffusion, STEPS, sampling.grid, sampling.process, sampling.rho, sampling.shift)
    if sampling.process == "flow" != diffusion.process:
        times = np.minimum(times, FLOW_LAST)
    here = _At(network, config, sampling, times)
    x_T = oracle_processes.prior_scale(diffusion, diffusion.process) / here.factor(-1) * _noise("sample/x_T", 0)  # noqa: N806
    options = sampling.options
    if sampling.sampler == "rk4":
        middle = _At(network, config, sampling, (times + np.append(0.0, times[:-1])) / 2)
        options["middle"] = oracle_solvers.Waypoints(middle.levels, middle)
    if sampling.churn:
        ratio = oracle_solvers.churned(here.levels, sampling.churn, sampling.churn_from, sampling.churn_to or np.inf)
        raised = _At(
            network, config, sampling, oracle_processes.time_of(diffusion, -2 * np.log(ratio), sampling.process)
        )
        options["raised"] = oracle_solvers.Waypoints(raised.levels, raised)
    if sampling.sampler == "pc":
        options["corrector_z_at"] = lambda i, k: _noise("sample/corrector", sampling.corrector_steps * i + k)
    solver = getattr(oracle_samplers, sampling.sampler)
    *_, (_, x_0) = solver(here.levels, here, x_T, partial(_noise, "sample/step"), **options)
    return x_0


def _own(side: Side) -> Arrays:
    """Each process by the sampler that --process brings, clipped and not."""
    result: dict[str, Array] = {}
    for process, clip in itertools.product(CONTINUOUS, (True, False)):
        sampling = Sampling(PROCESS_SAMPLING[process][0], STEPS, guidance=GUIDANCE, clip_x_0=clip)
        result[f"{process}, clipped {clip}"] = _drawn(side, process, sampling)
    return result


def _others(side: Side) -> Arrays:
    """Each process by other samplers, and heun with churn."""
    result: dict[str, Array] = {}
    for process, name in itertools.product(CONTINUOUS, OTHER_SAMPLERS):
        if process in SAMPLER_FACTS[name].processes:  # type: ignore[index]
            result[f"{process}, {name}"] = _drawn(side, process, Sampling(name, STEPS, guidance=GUIDANCE))  # type: ignore[arg-type]
    churn: dict[str, Any] = {"churn": 2.0, "churn_from": 0.1, "churn_to": 20.0, "churn_noise": 1.01}
    for process in ("vp", "edm", "flow"):
        result[f"{process}, churn"] = _drawn(side, process, Sampling("heun", STEPS, guidance=GUIDANCE, **churn))
    return result


def _elsewhere(side: Side, process: ProcessName) -> Arrays:
    """A network of a process, drawn in others: of ddpm, the oracle draws all of them in ddpm."""
    result: dict[str, Array] = {}
    for other, (name, sampling) in itertools.product(ELSEWHERE[process], OF_LEVELS.items()):
        drawn = dataclasses.replace(sampling, process=other, guidance=GUIDANCE)
        result[f"{other}, {name}"] = _drawn(side, process, drawn)
    return result


QUANTITIES = [
    Quantity("continuous drawing", "each process by its own sampler", _own, CONTINUOUS_DRAWING, of_the_largest),
    Quantity("continuous drawing", "each process by other samplers", _others, CONTINUOUS_DRAWING, of_the_largest),
    *(
        Quantity(
            "continuous drawing",
            f"a network of {process} in other processes",
            partial(_elsewhere, process=process),
            DDPM_ELSEWHERE if process == "ddpm" else DRAWN_ELSEWHERE,
            of_the_largest,
        )
        for process in ELSEWHERE
    ),
]
