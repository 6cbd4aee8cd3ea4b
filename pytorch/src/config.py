"""The settings, shared by both trees so that they cannot differ. Mirror: ddpm_tf.config."""

from ddpm_shared.config import (
    PRESETS,
    Config,
    DataConfig,
    DiffusionConfig,
    ModelConfig,
    TrainingConfig,
    with_preset,
)

__all__ = [
    "PRESETS",
    "Config",
    "DataConfig",
    "DiffusionConfig",
    "ModelConfig",
    "TrainingConfig",
    "with_preset",
]
