"""Pixels to tensors and back: uint8 [B, H, W, C] outside, floats in [-1, 1] inside. Mirror: ddpm_torch.data."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ddpm_shared.batches import Arrays
from ddpm_tf import utils
from ddpm_tf.config import Precision


def to_tensor(array: NDArray[np.generic]) -> tf.Tensor:
    """NumPy [B, H, W, C] to a tensor in this tree's layout, [B, H, W, C]. Mirror: ddpm_torch.data.to_tensor."""
    return tf.convert_to_tensor(array)


def to_array(x: tf.Tensor) -> NDArray[np.float64]:
    """The inverse of to_tensor: [B, H, W, C] -> NumPy [B, H, W, C] float64. Mirror: ddpm_torch.data.to_array."""
    return x.numpy().astype(np.float64)


def to_labels(labels: NDArray[np.generic]) -> tf.Tensor:
    """NumPy [B] classes, or [B, K + 1] weights of labels, to a tensor. Mirror: ddpm_torch.data.to_labels."""
    return tf.convert_to_tensor(labels)


def to_images(pixels: NDArray[np.uint8], dtype: tf.DType) -> tf.Tensor:
    """Scale pixels to [-1, 1]: x = pixels / 127.5 - 1, in float32, then rounded to `dtype`.

    Args:
        pixels: [B, H, W, C] uint8.
        dtype: of the result.

    Returns:
        [B, H, W, C].

    Mirror: ddpm_torch.data.to_images.
    """
    return tf.cast(tf.cast(to_tensor(pixels), tf.float32) / 127.5 - 1.0, dtype)


def to_pixels(x: tf.Tensor) -> NDArray[np.uint8]:
    """The inverse of to_images: [B, H, W, C] -> [B, H, W, C] uint8, clipped and rounded to the nearest.

    Mirror: ddpm_torch.data.to_pixels.
    """
    pixels = tf.clip_by_value(tf.round((x + 1.0) * 127.5), 0.0, 255.0)
    return tf.cast(pixels, tf.uint8).numpy()


@dataclass(frozen=True)
class Codec:
    """What x_0 is: how pixels become what the network learns, and what was drawn becomes pixels.

    Mirror: ddpm_torch.data.Codec.
    """

    kind: str  # as in a checkpoint's metadata
    encode: Callable[..., tf.Tensor]  # pixels [B, H, W, C] uint8, dtype -> x_0 [B, H, W, C]
    decode: Callable[[tf.Tensor], NDArray[np.uint8]]  # x_0 -> pixels
    limits: tuple[float, float] | None  # of every element of x_0, which a sampler may clip to; None: it has none


PIXELS = Codec("pixels", to_images, to_pixels, (-1.0, 1.0))


def to_batch(arrays: Arrays, precision: Precision, codec: Codec = PIXELS) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """What a step is trained or validated on, from ddpm_shared.batches, as tensors.

    Args:
        arrays: images [B, H, W, C] uint8, t [B] int32, eps [B, H, W, C] float64.
        precision: the run's.
        codec: makes x_0 of the images.

    Returns:
        x_0 [B, H, W, C], t [B] int32, eps [B, H, W, C].

    Mirror: ddpm_torch.data.to_batch.
    """
    pixels, t, eps = arrays
    dtype = utils.dtype(precision)
    return codec.encode(pixels, dtype), tf.convert_to_tensor(t), tf.cast(to_tensor(eps), dtype)
