"""Pixels to tensors and back: uint8 [B, H, W, C] outside, floats in [-1, 1] inside. Mirror: ddpm_tf.data."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddpm_shared.batches import Arrays
from ddpm_torch import utils
from ddpm_torch.config import Precision


def to_tensor(array: NDArray[np.generic], device: torch.device | None = None) -> Tensor:
    """NumPy [B, H, W, C] to a tensor in this tree's layout, [B, C, H, W]. Mirror: ddpm_tf.data.to_tensor."""
    return torch.from_numpy(np.ascontiguousarray(array.transpose(0, 3, 1, 2))).to(device)


def to_array(x: Tensor) -> NDArray[np.float64]:
    """The inverse of to_tensor: [B, C, H, W] -> NumPy [B, H, W, C] float64. Mirror: ddpm_tf.data.to_array."""
    return x.permute(0, 2, 3, 1).cpu().to(torch.float64).numpy()


def to_labels(labels: NDArray[np.generic], device: torch.device | None = None) -> Tensor:
    """NumPy [B] classes, or [B, K + 1] weights of labels, to a tensor. Mirror: ddpm_tf.data.to_labels."""
    return torch.from_numpy(labels).to(device)


def to_images(pixels: NDArray[np.uint8], dtype: torch.dtype, device: torch.device | None = None) -> Tensor:
    """Scale pixels to [-1, 1]: x = pixels / 127.5 - 1, in float32, then rounded to `dtype`.

    Args:
        pixels: [B, H, W, C] uint8.
        dtype: of the result.
        device: of the result.

    Returns:
        [B, C, H, W].

    Mirror: ddpm_tf.data.to_images.
    """
    # On the host: a GPU would multiply by 1 / 127.5, which rounds 111 of the 256 values otherwise.
    return (to_tensor(pixels).to(torch.float32) / 127.5 - 1.0).to(device, dtype)


def to_pixels(x: Tensor) -> NDArray[np.uint8]:
    """The inverse of to_images: [B, C, H, W] -> [B, H, W, C] uint8, clipped and rounded to the nearest.

    Mirror: ddpm_tf.data.to_pixels.
    """
    pixels = torch.clamp(torch.round((x + 1.0) * 127.5), 0.0, 255.0).to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).cpu().numpy()


@dataclass(frozen=True)
class Codec:
    """What x_0 is: how pixels become what the network learns, and what was drawn becomes pixels.

    Mirror: ddpm_tf.data.Codec.
    """

    kind: str  # as in a checkpoint's metadata
    encode: Callable[..., Tensor]  # pixels [B, H, W, C] uint8, dtype, device -> x_0 [B, C, H, W]
    decode: Callable[[Tensor], NDArray[np.uint8]]  # x_0 -> pixels
    limits: tuple[float, float] | None  # of every element of x_0, which a sampler may clip to; None: it has none


PIXELS = Codec("pixels", to_images, to_pixels, (-1.0, 1.0))


def to_batch(
    arrays: Arrays, precision: Precision, device: torch.device, codec: Codec = PIXELS
) -> tuple[Tensor, Tensor, Tensor]:
    """What a step is trained or validated on, from ddpm_shared.batches, as tensors.

    Args:
        arrays: images [B, H, W, C] uint8, t [B] int32, eps [B, H, W, C] float64.
        precision: the run's.
        device: of the result.
        codec: makes x_0 of the images.

    Returns:
        x_0 [B, C, H, W], t [B] int32, eps [B, C, H, W].

    Mirror: ddpm_tf.data.to_batch.
    """
    pixels, t, eps = arrays
    dtype = utils.dtype(precision)
    return codec.encode(pixels, dtype, device), torch.from_numpy(t).to(device), to_tensor(eps, device).to(dtype)
