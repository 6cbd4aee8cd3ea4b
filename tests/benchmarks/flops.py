"""How much arithmetic a network of PyTorch does."""

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def flops_per_image(network: nn.Module) -> int:
    """Floating-point operations of the matrix products and convolutions for one image, forward: a multiply-add is two.

    A training step takes three times as many: backward, each product has one for its input and one for its weight.
    """
    device = next(network.parameters()).device
    x, t = torch.zeros(1, 1, 28, 28, device=device), torch.zeros(1, dtype=torch.int32, device=device)
    # The counter knows no fused attention on a CPU; as plain products, attention is counted.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network(x, t)
    return int(counter.get_total_flops())
