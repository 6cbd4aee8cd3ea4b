"""A picture of examples of a data set's classes."""

import math

import numpy as np
from PIL import Image

from ddpm_shared import images
from ddpm_shared.datasets.source import Split
from ddpm_shared.images import Pixels

CLASSES, EXAMPLES, SIDE = 26, 8, 128  # classes, images of each, and pixels of an image's side, at most


def drawn(split: Split) -> tuple[Pixels, str]:
    """A picture of the first images of each class, and what it shows in words.

    Of more than CLASSES classes, it has as many, at equal steps. Images of more than SIDE pixels are shrunk.
    """
    labels = split.labels if split.class_names else np.zeros(len(split.images), np.int64)
    present = np.unique(labels)
    shown = present[np.linspace(0, len(present) - 1, min(len(present), CLASSES)).astype(np.int64)]
    each = EXAMPLES if split.class_names else EXAMPLES**2
    chosen = np.concatenate([np.flatnonzero(labels == label)[:each] for label in shown])
    pixels = _shrunk(split.images[chosen])
    if not split.class_names:
        return images.grid(pixels), f"the first {len(chosen)} images"
    number = len(present) if len(shown) == len(present) else f"{len(shown)} of {len(present)}"
    return images.by_class(pixels, labels[chosen], split.class_names), f"the first images of {number} classes"


def _shrunk(pixels: Pixels) -> Pixels:
    factor = math.ceil(max(pixels.shape[1:3]) / SIDE)
    if factor == 1:
        return pixels
    small = [np.asarray(Image.fromarray(image.squeeze()).reduce(factor)) for image in pixels]
    return np.stack(small).reshape(len(small), *small[0].shape[:2], pixels.shape[-1])
