"""The PyTorch tree: NCHW tensors. Mirror: ddpm_tf."""
