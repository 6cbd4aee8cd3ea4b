"""Every setting of a run: frozen dataclasses, the presets, validation, and JSON both ways.

The field docstrings below are what `--help` prints.
"""

import dataclasses
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import dacite

from ddpm_shared.errors import UserError, choice

Preset = Literal["tiny", "small", "base", "large"]
Precision = Literal["fp32", "bf16", "fp64"]
Device = Literal["auto", "cpu", "gpu"]
Dataset = Literal["auto", "fashion-mnist", "fashion-mnist-10k"]
ScheduleName = Literal["linear", "scaled_linear", "quadratic", "cosine", "sigmoid"]
Prediction = Literal["eps", "x_0", "v", "mean"]
Variance = Literal["fixed_small", "fixed_large", "learned_range"]
LossWeighting = Literal["simple", "min_snr"]
LearningRateDecay = Literal["none", "linear", "cosine"]


def require(condition: bool, flag: str, value: object, rule: str) -> None:
    """Raise UserError that says the `rule` for the `value` of a `flag` unless `condition` holds."""
    if not condition:
        raise UserError(f"{flag} {value}: {rule}")


def flag(field_name: str) -> str:
    """The flag of a field: "max_steps" -> "--max-steps"."""
    return "--" + field_name.replace("_", "-")


@dataclass(frozen=True)
class DataConfig:
    """What to learn from."""

    dataset: Dataset = "auto"
    """The full Fashion-MNIST, its subset in the package, or (auto) the full set if it can be had."""
    data_dir: str | None = None
    """A folder with the four IDX files of the full set."""
    horizontal_flip: bool = False
    """Mirror every training image left to right with probability 1/2."""

    def __post_init__(self) -> None:
        choice("dataset", self.dataset, get_args(Dataset))


@dataclass(frozen=True)
class DiffusionConfig:
    """The forward process, and what the network is to say of it."""

    schedule: ScheduleName = "linear"
    """How beta grows with t. scaled_linear (of latent diffusion) and quadratic are one formula: linear in the root."""
    timesteps: int = 1000
    """T, the number of diffusion steps. With other than 1000, look at the betas as well, or see --rescale-betas."""
    beta_start: float = 1e-4
    """beta at t = 0, of every schedule but cosine."""
    beta_end: float = 0.02
    """beta at t = T - 1, of every schedule but cosine."""
    rescale_betas: bool = False
    """Multiply both betas by 1000 / timesteps, so that a process of any length ends in about as much noise."""
    zero_terminal_snr: bool = False
    """Shift the schedule so that nothing of x_0 is left at t = T - 1."""
    prediction: Prediction = "eps"
    """What the network tells: the noise, the image, the velocity v, or the mean of x_prev."""
    variance: Variance = "fixed_small"
    """Of the reverse process: the posterior's, beta, or learned between these two (and the loss is then the hybrid)."""
    loss_weighting: LossWeighting = "simple"
    """How the loss weighs t: equally, or by min(SNR, gamma) as the loss of x_0."""
    min_snr_gamma: float = 5.0
    """gamma of min_snr."""

    def __post_init__(self) -> None:
        for name, kind in DIFFUSION_CHOICES.items():
            choice(name, getattr(self, name), get_args(kind))
        require(self.timesteps >= 2, "--timesteps", self.timesteps, "must be 2 or more")
        require(
            0 < self.beta_start <= self.beta_end < 1,
            "--beta-start, --beta-end",
            (self.beta_start, self.beta_end),
            "must satisfy 0 < start <= end < 1",
        )
        require(
            self.beta_range[1] < 1,
            "--rescale-betas with --timesteps",
            self.timesteps,
            f"makes beta_end {self.beta_range[1]:g}, which must be below 1",
        )
        require(
            not (self.zero_terminal_snr and self.prediction == "eps"),
            "--zero-terminal-snr with --prediction",
            self.prediction,
            "x_t is all noise at t = T - 1, and to tell the noise says nothing of the image; predict v or x_0",
        )
        require(
            0 < self.min_snr_gamma < float("inf"), "--min-snr-gamma", self.min_snr_gamma, "must be positive and finite"
        )

    @property
    def beta_range(self) -> tuple[float, float]:
        """beta_start and beta_end as the schedules use them."""
        factor = 1000 / self.timesteps if self.rescale_betas else 1.0
        return factor * self.beta_start, factor * self.beta_end


DIFFUSION_CHOICES = {
    "schedule": ScheduleName,
    "prediction": Prediction,
    "variance": Variance,
    "loss_weighting": LossWeighting,
}


@dataclass(frozen=True)
class ModelConfig:
    """The U-Net. Level i works at image_size / 2**i (rounded up) with base_channels * channel_mults[i] channels."""

    base_channels: int = 32
    """Channels of the first level."""
    channel_mults: tuple[int, ...] = (1, 2, 4)
    """Channels of each level in units of base-channels."""
    num_res_blocks: int = 1
    """Residual blocks a level on the way down; one more on the way up."""
    attention_resolutions: tuple[int, ...] = (7,)
    """Self-attention follows every residual block that works at one of these sizes."""
    num_groups: int = 2
    """Groups of every GroupNorm. With fewer than 16 channels in a group, PyTorch is several times slower on a CPU."""
    image_size: int = 28
    """Height and width of the images."""
    image_channels: int = 1
    """Channels of the images."""

    def __post_init__(self) -> None:
        require(
            min(self.num_res_blocks, self.num_groups, self.image_size, self.image_channels) >= 1,
            "--num-res-blocks, --num-groups, --image-size, --image-channels",
            (self.num_res_blocks, self.num_groups, self.image_size, self.image_channels),
            "must all be 1 or more",
        )
        require(
            len(self.channel_mults) > 0 and min(self.channel_mults) >= 1,
            "--channel-mults",
            self.channel_mults,
            "needs one positive number a level",
        )
        require(
            self.base_channels >= 4 and self.base_channels % 2 == 0 and self.base_channels % self.num_groups == 0,
            "--base-channels",
            self.base_channels,
            f"must be even, 4 or more and a multiple of --num-groups {self.num_groups}",
        )
        require(
            set(self.attention_resolutions) <= set(self.resolutions),
            "--attention-resolutions",
            self.attention_resolutions,
            f"the levels of this network work at {self.resolutions}",
        )

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Height and width at each level, e.g. (28, 14, 7); an odd size is halved upwards, 7 -> 4."""
        sizes = [self.image_size]
        for _ in self.channel_mults[1:]:
            sizes.append((sizes[-1] + 1) // 2)
        return tuple(sizes)


@dataclass(frozen=True)
class TrainingConfig:
    """How to learn. The defaults are what docs/recipe.md found best for twenty minutes of two cores."""

    epochs: int = 20
    """Passes over the training images."""
    max_steps: int | None = None
    """Stop after this many steps, if that comes before the last epoch's end."""
    batch_size: int = 128
    """Images a step."""
    learning_rate: float = 1e-3
    """Adam's step size after the warm-up."""
    warmup_steps: int = 300
    """Steps over which the learning rate grows linearly from 0."""
    learning_rate_decay: LearningRateDecay = "linear"
    """How the learning rate falls once --decay-start of the run's steps are made."""
    decay_start: float = 0.3
    """The part of the run that comes before the decay."""
    final_learning_rate: float = 0.02
    """What the decay ends at, as a part of --learning-rate."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this global norm."""
    ema_decay: float = 0.999
    """Decay of the exponential moving average of the weights; early on it is (1 + k) / (10 + k) at update k."""
    validation_images: int | None = None
    """How many test images the validation loss is taken over each epoch (default: all)."""
    sample_every: int = 5
    """Draw a grid of samples every so many epochs and at the end; 0: never."""
    sample_images: int = 16
    """Images in that grid."""
    evaluate_every: int = 0
    """Judge samples every so many epochs and at the end, and keep the checkpoint of the best; 0: never."""
    evaluate_images: int = 256
    """Images drawn for it."""
    checkpoint_every: int = 500
    """Write a checkpoint every so many steps and at the end."""
    keep_checkpoints: int = 3
    """How many of the newest checkpoints are kept."""

    def __post_init__(self) -> None:
        choice("learning_rate_decay", self.learning_rate_decay, get_args(LearningRateDecay))
        for name in ("epochs", "batch_size", "sample_images", "checkpoint_every", "keep_checkpoints"):
            require(getattr(self, name) >= 1, flag(name), getattr(self, name), "must be 1 or more")
        for name in ("max_steps", "validation_images"):
            value = getattr(self, name)
            require(value is None or value >= 1, flag(name), value, "must be 1 or more")
        for name in ("warmup_steps", "sample_every", "evaluate_every"):
            require(getattr(self, name) >= 0, flag(name), getattr(self, name), "must be 0 or more")
        require(
            self.evaluate_images >= 128,
            "--evaluate-images",
            self.evaluate_images,
            "must be 128 or more, as many as the judge has features",
        )
        for name in ("learning_rate", "max_grad_norm"):
            value = getattr(self, name)
            require(0 < value < float("inf"), flag(name), value, "must be positive and finite")
        for name in ("ema_decay", "decay_start", "final_learning_rate"):
            require(0 <= getattr(self, name) < 1, flag(name), getattr(self, name), "must be in [0, 1)")

    def num_steps(self, num_images: int) -> int:
        """Training steps of the whole run on `num_images` images; an epoch leaves out what fills no batch."""
        return min(self.epochs * (num_images // self.batch_size), self.max_steps or sys.maxsize)


@dataclass(frozen=True)
class Config:
    """All that decides what a run computes."""

    preset: Preset = "small"
    """The network's size; the flags under `model options` change it further."""
    seed: int = 0
    """Seed of every random draw: initial weights, batches, t and noise."""
    precision: Precision = "fp32"
    """Arithmetic of the network. fp64 is for comparing the frameworks."""
    device: Device = "auto"
    """auto takes the GPU if there is one."""
    threads: int | None = None
    """CPU threads that one operation may use (default: one for each core)."""
    compile: bool = False
    """Put the network through the framework's compiler, torch.compile or XLA: pays in runs of many steps, if at all."""
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        choice("preset", self.preset, get_args(Preset))
        choice("precision", self.precision, get_args(Precision))
        choice("device", self.device, get_args(Device))
        require(self.seed >= 0, "--seed", self.seed, "must be 0 or more")
        require(self.threads is None or self.threads >= 1, "--threads", self.threads, "must be 1 or more")

    @property
    def out_channels(self) -> int:
        """Channels of what the network tells: those of an image, and as many again for a learned variance."""
        return self.model.image_channels * (2 if self.diffusion.variance == "learned_range" else 1)


PRESETS: dict[str, ModelConfig] = {
    "tiny": ModelConfig(
        base_channels=16, channel_mults=(1, 2), num_res_blocks=1, attention_resolutions=(), num_groups=1
    ),
    "small": ModelConfig(),
    "base": ModelConfig(num_res_blocks=2),
    "large": ModelConfig(
        base_channels=64, channel_mults=(1, 2, 4, 8), num_res_blocks=2, attention_resolutions=(4,), num_groups=4
    ),
}


def with_preset(config: Config, preset: str) -> Config:
    """`config` with the network of `preset`. Raises UserError for an unknown one."""
    choice("preset", preset, tuple(PRESETS))
    return dataclasses.replace(config, preset=preset, model=PRESETS[preset])  # type: ignore[arg-type]


def to_dict(config: Config) -> dict[str, Any]:
    """Every value as JSON types, nested as in Config."""
    result: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return result


def _checked(name: str, kind: Any) -> Callable[[object], object]:
    def hook(value: object) -> object:
        choice(name, value, get_args(kind))
        return value

    return hook


_CHOICES = {
    "preset": Preset,
    "precision": Precision,
    "device": Device,
    "dataset": Dataset,
    "learning_rate_decay": LearningRateDecay,
    **DIFFUSION_CHOICES,
}
_HOOKS: Any = {float: float} | {kind: _checked(name, kind) for name, kind in _CHOICES.items()}


def from_dict(values: Mapping[str, Any], source: str) -> Config:
    """The inverse of to_dict; missing keys take their defaults.

    Raises:
        UserError: an unknown key, a value of the wrong type or out of range; `source` is named in the message.
    """
    try:
        if values.get("preset") in tuple(PRESETS):  # its network is what a partial "model" starts from
            preset = dataclasses.asdict(PRESETS[values["preset"]])
            values = {**values, "model": {**preset, **values.get("model", {})}}
        return dacite.from_dict(Config, values, dacite.Config(strict=True, cast=[tuple], type_hooks=_HOOKS))
    except (dacite.DaciteError, TypeError, ValueError) as error:
        raise UserError(f"{source}: {error}") from None


def read(path: str | Path) -> Config:
    """The Config in a JSON file, as `config.json` of a run folder. Raises UserError where it is none."""
    try:
        values = json.loads(Path(path).read_text())
    except OSError as error:
        raise UserError(f"cannot read the configuration {path}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold a JSON object, not {type(values).__name__}")
    return from_dict(values, str(path))
