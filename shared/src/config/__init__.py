"""Every setting of a run: frozen dataclasses, the presets, validation, and JSON both ways.

One file a subject: data, model, diffusion, training, sampling. The field docstrings are what `--help` prints.
"""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import dacite

from ddpm_shared import reading, validation
from ddpm_shared.config.checks import LARGEST_SEED, MOST_THREADS, flag, require, whole
from ddpm_shared.config.data import Channels, DataConfig, Dataset, FolderConfig, RealImages
from ddpm_shared.config.diffusion import (
    CONTINUOUS_SETTINGS,
    DIFFUSION_CHOICES,
    DiffusionConfig,
    LossWeighting,
    Prediction,
    ScheduleName,
    Variance,
    with_process,
)
from ddpm_shared.config.help import default_is
from ddpm_shared.config.model import (
    FOURIER_SCALE,
    LATER_SETTINGS,
    PRESET_OF,
    PRESETS,
    ActivationName,
    ModelConfig,
    NetworkName,
    Preset,
)
from ddpm_shared.config.processes import PROCESS_FACTS, ProcessName
from ddpm_shared.config.schema import schema
from ddpm_shared.config.training import LearningRateDecay, Reduce, TrainingConfig
from ddpm_shared.errors import UserError, choice

__all__ = [
    "CHANGEABLE",
    "DIFFUSION_CHOICES",
    "LATER",
    "PRESETS",
    "PRESET_OF",
    "PROCESS_FACTS",
    "RECIPES",
    "ActivationName",
    "Config",
    "DataConfig",
    "Dataset",
    "Device",
    "DiffusionConfig",
    "FolderConfig",
    "LearningRateDecay",
    "LossWeighting",
    "ModelConfig",
    "NetworkName",
    "Precision",
    "Prediction",
    "Preset",
    "ProcessName",
    "RealImages",
    "Reduce",
    "ScheduleName",
    "TrainingConfig",
    "Variance",
    "differences",
    "fitted",
    "flag",
    "from_dict",
    "read",
    "require",
    "to_dict",
    "with_network",
    "with_preset",
    "with_process",
    "with_unit_of_time",
]

Precision = Literal["fp32", "bf16", "fp64"]
Device = Literal["auto", "cpu", "gpu"]

SIZE_AT_MOST = reading.MIB  # of a file of settings

# What a resumed run may change: how far and where it runs, never what it computes.
CHANGEABLE = {
    "device",
    "threads",
    "compile",
    "tf32",
    "data.dataset",  # its hash is compared instead
    "data.data_dir",
    "data.folder.skip_bad",  # so is what is read
    "training.epochs",
    "training.max_steps",
    "training.sample_every",
    "training.sample_images",
    "training.loss_curve",
    "training.evaluate_every",
    "training.evaluate_images",
    "training.checkpoint_every",
    "training.keep_checkpoints",
}

# Settings that runs of older versions do not state, with what these runs did.
LATER = {
    "class_conditional": False,
    "data.folder": dataclasses.asdict(FolderConfig()),
    **{f"diffusion.{name}": getattr(DiffusionConfig(), name) for name in CONTINUOUS_SETTINGS},
    **{f"model.{name}": getattr(ModelConfig(), name) for name in LATER_SETTINGS},
    "training.label_drop": 0.1,
    "training.loss_curve": False,
    "training.reduce": "exact",
    "training.shards": 1,
    "tf32": False,
}


@dataclass(frozen=True)
class Config:
    """Everything that decides what a run computes."""

    preset: Preset = "small"
    """Size of the network. The flags under `settings.model options` change it further."""
    seed: int = 0
    """Seed of every random draw: initial weights, batches, t and noise."""
    precision: Precision = "fp32"
    """Number format of the network's arithmetic. fp64 is for comparing the frameworks."""
    device: Device = "auto"
    """Device to compute on. auto takes the GPU if there is one."""
    threads: Annotated[int | None, default_is("one for each core")] = None
    """CPU threads that one operation may use."""
    compile: bool = False
    """Compile the network with torch.compile or XLA. It pays off only in long runs, if at all."""
    tf32: bool = False
    """Round the factors of products to 10 bits (TensorFloat-32): faster on an NVIDIA GPU, and other numbers."""
    class_conditional: bool = False
    """Give the network the class of each image, so that a class can be asked for when it draws."""
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        choice("preset", self.preset, get_args(Preset))
        choice("precision", self.precision, get_args(Precision))
        choice("device", self.device, get_args(Device))
        whole(self, "seed", least=0, most=LARGEST_SEED)
        whole(self, "threads", most=MOST_THREADS)

    @property
    def out_channels(self) -> int:
        """Channels of the network's output: those of an image, and as many again for a learned variance."""
        return self.model.image_channels * (2 if self.diffusion.variance == "learned_range" else 1)


# Presets that bring more than a network: whether it is given classes, a process, and settings.
RECIPES: dict[str, dict[str, Any]] = {
    "score-transformer": {
        "class_conditional": True,
        "process": "ve_exponential",
        "diffusion": {"time_scale": 1.0},
    },
    "residual-batchnorm": {
        "diffusion": {"schedule": "linear"},
        "training": {
            "epochs": 50,
            "batch_size": 32,
            "learning_rate": 1e-4,
            "warmup_steps": 0,
            "learning_rate_decay": "none",
            "sample_every": 10,
            "loss_curve": True,
        },
    },
}


def with_preset(config: Config, preset: str) -> Config:
    """`config` with the network of `preset`, and with all that the preset brings beside it.

    Raises UserError for an unknown one.
    """
    choice("preset", preset, tuple(PRESETS))
    recipe = RECIPES.get(preset, {})
    diffusion = with_process(config.diffusion, recipe["process"]) if "process" in recipe else config.diffusion
    return dataclasses.replace(
        config,
        preset=preset,  # type: ignore[arg-type] # checked above
        model=PRESETS[preset],
        class_conditional=recipe.get("class_conditional", config.class_conditional),
        diffusion=dataclasses.replace(diffusion, **recipe.get("diffusion", {})),
        training=dataclasses.replace(config.training, **recipe.get("training", {})),
    )


def with_network(config: Config, network: str) -> Config:
    """`config` with the network of the preset that shows `network`, and nothing else of the preset.

    Raises UserError for an unknown one.
    """
    choice("network", network, get_args(NetworkName))
    preset = PRESET_OF[network]  # type: ignore[index] # checked above
    return dataclasses.replace(config, preset=preset, model=PRESETS[preset])


def with_unit_of_time(config: Config, network: str) -> Config:
    """`config` with times in the unit that `network` is made for, where it is not that of its process.

    The Fourier features of transformer_unet are for times from 0 to 1: at 30 periods from one whole time of a DDPM to
    the next, no two times would be near. simple_unet takes thousandths, and EDM's times are from -2 to 1.
    """
    diffusion, model = config.diffusion, config.model
    whole = diffusion.process == "ddpm"
    if network == "transformer_unet" and not whole:
        diffusion = dataclasses.replace(diffusion, time_scale=1.0)
    if network == "simple_unet" and diffusion.process == "edm":
        diffusion = dataclasses.replace(diffusion, time_scale=1000.0)
    if network == model.network == "transformer_unet" and whole and model.fourier_scale == FOURIER_SCALE:
        model = dataclasses.replace(model, fourier_scale=FOURIER_SCALE / diffusion.timesteps)
    return dataclasses.replace(config, diffusion=diffusion, model=model)


def fitted(
    config: Config, image_shape: tuple[int, ...], num_classes: int = 0, sigma_data: float | None = None
) -> Config:
    """`config` for the images of a data set: their shape and classes come from the data, never from the user.

    Args:
        config: the user's.
        image_shape: height, width, channels.
        num_classes: classes of the data set; 0 if its images have no labels.
        sigma_data: deviation of its pixels in [-1, 1], where the user does not state one.

    Raises:
        UserError: images that are not square; a class-conditional network for images without classes.
    """
    height, width, channels = image_shape
    require(height == width, "--dataset", config.data.dataset, f"has images of {height} x {width}: they must be square")
    require(
        num_classes > 0 or not config.class_conditional,
        "--class-conditional with --dataset",
        config.data.dataset,
        "its images have no classes; leave the flag out",
    )
    model = dataclasses.replace(
        config.model.at(height),
        image_channels=channels,
        num_classes=num_classes if config.class_conditional else 0,
    )
    diffusion = config.diffusion
    if diffusion.needs_sigma_data and diffusion.sigma_data is None:
        diffusion = dataclasses.replace(diffusion, sigma_data=sigma_data)
    return dataclasses.replace(config, model=model, diffusion=diffusion)


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
    "network": NetworkName,
    "activation": ActivationName,
    "precision": Precision,
    "device": Device,
    "dataset": Dataset,
    "channels": Channels,
    "learning_rate_decay": LearningRateDecay,
    "reduce": Reduce,
    **DIFFUSION_CHOICES,
}
_HOOKS: Any = {float: float} | {kind: _checked(name, kind) for name, kind in _CHOICES.items()}


def from_dict(values: Any, source: str) -> Config:
    """The inverse of to_dict; missing keys get their defaults.

    Raises:
        UserError: an unknown key, or a value of the wrong type or out of range. The message begins with `source`.
    """
    validation.checked(values, schema(Config), source, "a configuration")
    try:
        if values.get("preset") in tuple(PRESETS):  # its network is what a partial "model" starts from
            preset = dataclasses.asdict(PRESETS[values["preset"]])
            values = {**values, "model": {**preset, **values.get("model", {})}}
        process = values.get("diffusion", {}).get("process", "ddpm")
        if process in tuple(PROCESS_FACTS) and process != "ddpm":  # so are its settings
            own = dataclasses.asdict(with_process(DiffusionConfig(), process))
            values = {**values, "diffusion": {**own, **values["diffusion"]}}
        return dacite.from_dict(Config, values, dacite.Config(strict=True, cast=[tuple], type_hooks=_HOOKS))
    except (dacite.DaciteError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{reading.name_of(source)}: {reading.one_line(error)}") from None


def read(path: str | Path) -> Config:
    """The Config in a JSON file, such as config.json of a run folder. Raises UserError if the file is not one."""
    way_out = "give a file of settings, such as the config.json of a run"
    return from_dict(reading.read_json(Path(path), way_out, SIZE_AT_MOST), str(path))


def differences(a: dict[str, Any], b: dict[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """The dotted keys where two nested dicts differ, with both values (None for a missing key)."""
    result: dict[str, tuple[Any, Any]] = {}
    for key in dict.fromkeys([*a, *b]):
        old, new = a.get(key), b.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            result |= differences(old, new, f"{prefix}{key}.")
        elif old != new:
            result[prefix + key] = (old, new)
    return result
