"""What the machine can do at best: one large convolution and one large matrix product, in a worker process."""

from typing import Any

import torch
from contenders import Contender

FLOPS = {  # of one call; a multiply-add is two
    "conv": 2 * 128 * 28 * 28 * 64 * 64 * 3 * 3,
    "gemm": 2 * 2048**3,
}


class Peak:
    """3x3 convolution, 64 -> 64 channels at 28x28, batch 128, channels-last; and a product of 2048x2048 matrices."""

    def __init__(self, contender: Contender) -> None:
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[contender.precision]
        layout = torch.channels_last
        self.x = torch.randn(128, 64, 28, 28, dtype=dtype).to(memory_format=layout)
        self.kernel = torch.randn(64, 64, 3, 3, dtype=dtype).to(memory_format=layout)
        self.matrix = torch.randn(2048, 2048, dtype=dtype)

    def describe(self) -> dict[str, Any]:
        """Facts that are not timed."""
        return {"threads": torch.get_num_threads(), "flops": FLOPS}

    def conv(self) -> None:
        """The convolution."""
        torch.nn.functional.conv2d(self.x, self.kernel, padding=1)

    def gemm(self) -> None:
        """The matrix product."""
        torch.mm(self.matrix, self.matrix)
