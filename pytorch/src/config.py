"""The settings: shared by both trees, so that they cannot differ. Mirror: ddpm_tf.config."""

from ddpm_shared.config import (
    PRESETS,
    Config,
    DataConfig,
    Device,
    DiffusionConfig,
    ModelConfig,
    Precision,
    Prediction,
    ProcessName,
    TrainingConfig,
    with_preset,
)

FRAMEWORK = "torch"

__all__ = [
    "FRAMEWORK",
    "PRESETS",
    "Config",
    "DataConfig",
    "Device",
    "DiffusionConfig",
    "ModelConfig",
    "Precision",
    "Prediction",
    "ProcessName",
    "TrainingConfig",
    "with_preset",
]
