"""What the machine can do at best: one large convolution and one large matrix product, in a worker process."""

from typing import Any, NamedTuple

import torch
from contenders import Contender, Device

SIZE = 28  # of the images of the convolution, as of ours


class Sizes(NamedTuple):
    """Of a convolution and a product that are long against the clock."""

    images: int
    channels: int
    rows: int

    @property
    def flops(self) -> dict[str, int]:
        """Of one call; a multiply-add is two."""
        return {"conv": 2 * self.images * SIZE**2 * self.channels**2 * 3 * 3, "gemm": 2 * self.rows**3}


SIZES: dict[Device, Sizes] = {"cpu": Sizes(128, 64, 2048), "gpu": Sizes(512, 256, 8192)}


class Peak:
    """A 3x3 convolution of images of 28x28, channels-last, and a product of square matrices."""

    def __init__(self, contender: Contender) -> None:
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[contender.precision]
        layout, self.sizes = torch.channels_last, SIZES[contender.device]
        options = {"dtype": dtype, "device": "cuda" if contender.device == "gpu" else "cpu"}
        images, channels, rows = self.sizes
        self.x = torch.randn(images, channels, SIZE, SIZE, **options).to(memory_format=layout)
        self.kernel = torch.randn(channels, channels, 3, 3, **options).to(memory_format=layout)
        self.matrix = torch.randn(rows, rows, **options)

    def describe(self) -> dict[str, Any]:
        """Facts that are not timed."""
        return {"threads": torch.get_num_threads(), "flops": self.sizes.flops}

    def conv(self) -> None:
        """The convolution."""
        torch.nn.functional.conv2d(self.x, self.kernel, padding=1)
        self.wait()

    def gemm(self) -> None:
        """The matrix product."""
        torch.mm(self.matrix, self.matrix)
        self.wait()

    def wait(self) -> None:
        """Until a GPU has done it."""
        if self.x.is_cuda:
            torch.cuda.synchronize()
