"""The PyTorch tree: NCHW tensors. Mirror: ddpm_tf."""

import ddpm_shared  # noqa: F401 (it sets up the process of a command)
