"""The settings: shared by both trees, so that they cannot differ. Mirror: ddpm_torch.config."""

from ddpm_shared.config import (
    PRESETS,
    ActivationName,
    Config,
    DataConfig,
    Device,
    DiffusionConfig,
    ModelConfig,
    NetworkName,
    Precision,
    Prediction,
    ProcessName,
    Reduce,
    TrainingConfig,
    with_preset,
)

FRAMEWORK = "tensorflow"

__all__ = [
    "FRAMEWORK",
    "PRESETS",
    "ActivationName",
    "Config",
    "DataConfig",
    "Device",
    "DiffusionConfig",
    "ModelConfig",
    "NetworkName",
    "Precision",
    "Prediction",
    "ProcessName",
    "Reduce",
    "TrainingConfig",
    "with_preset",
]
