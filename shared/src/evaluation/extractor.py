"""The judge's feature extractor: a small classifier of Fashion-MNIST, as ONNX, run by onnxruntime.

One network outside both frameworks, so that the same pixels get the same features, and every number made of them is the
same to the last digit, whatever drew the images. pytorch/tools/train_fashion_classifier.py made the file.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tqdm import tqdm

from ddpm_shared import reading
from ddpm_shared.errors import UserError
from ddpm_shared.images import Pixels
from ddpm_shared.reading import name_of, one_line

SPACE = "128 features of a classifier of Fashion-MNIST, each of variance 1 (not those of Inception on ImageNet)"
SHIPPED = Path(__file__).with_name("classifier.onnx")
SHIPPED_SHA256 = "7e3f2edfa6c2261169f6792daca07ccc70bea580c11ae6fff8c6d6d2e2e23d7b"  # of that file
AT_MOST = 512 * reading.MIB  # of such a file
DIMENSIONS, CLASSES = 128, 10
EXPECTED = {"images": [28, 28, 1], "features": [DIMENSIONS], "logits": [CLASSES]}  # inputs and outputs, of each image
BATCH = 250


@dataclass(frozen=True)
class Extracted:
    """What the classifier makes of N images: the inputs of its last layer, and the probability of every class."""

    features: NDArray[np.float32]  # [N, 128], each of mean 0 and variance 1 over the training images
    probabilities: NDArray[np.float32]  # [N, 10]

    def __len__(self) -> int:
        return len(self.features)

    @property
    def classes(self) -> NDArray[np.int64]:
        """The class that each image is taken for, [N]."""
        return self.probabilities.argmax(axis=1)

    def take(self, chosen: NDArray[np.int64] | slice) -> "Extracted":
        """Some of the images."""
        return Extracted(self.features[chosen], self.probabilities[chosen])


class Extractor:
    """The classifier, loaded.

    Args:
        path: an ONNX file that turns `images` [N, 28, 28, 1] uint8 into `features` [N, 128] and `logits` [N, 10]
            (default: the one in the package).

    Raises:
        UserError: no such file, or another one; also from a call, where the file does not work.
    """

    def __init__(self, path: Path | None = None) -> None:
        way_out = "name another file" if path else "the installed package is damaged, install ddpm-duet again"
        path = path or SHIPPED
        self.path, self.way_out = path, way_out
        data = reading.read_bytes(path, f"it should be the feature extractor, {way_out}", AT_MOST)
        self.sha256 = hashlib.sha256(data).hexdigest()
        if path == SHIPPED and self.sha256 != SHIPPED_SHA256:
            raise UserError(f"{name_of(path)} has SHA-256 {self.sha256}, not {SHIPPED_SHA256}: {way_out}")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what it would print of a bad file is in the exception as well
        try:
            self.session = onnxruntime.InferenceSession(
                data, options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
            ends = {value.name: value.shape[1:] for value in [*self.session.get_inputs(), *self.session.get_outputs()]}
        except Exception as error:  # onnxruntime's own kinds, for what is not ONNX or asks for more than it has
            raise self._refusal(_last_line(error)) from None
        if ends != EXPECTED:
            raise self._refusal(f"it has {ends}, not {EXPECTED}")

    def _refusal(self, reason: str) -> UserError:
        return UserError(f"{name_of(self.path)} is not a feature extractor ({one_line(reason, 400)}): {self.way_out}")

    def _run(self, batch: Pixels) -> list[NDArray[np.float32]]:
        """The features [BATCH, 128] and logits [BATCH, 10] of a batch."""
        try:
            outputs = self.session.run(["features", "logits"], {"images": batch})
        except Exception as error:  # as above: a file of somebody else may be ONNX and yet not work
            raise self._refusal(_last_line(error)) from None
        shapes = [np.shape(values) for values in outputs]
        if shapes != [(BATCH, DIMENSIONS), (BATCH, CLASSES)] or not all(
            np.isfinite(values).all() for values in outputs
        ):
            raise self._refusal(f"it makes arrays of the shapes {shapes}, or numbers that are not finite")
        return outputs

    def __call__(self, pixels: Pixels, description: str = "features") -> Extracted:
        """Features and classes of images [N, 28, 28, 1] uint8, under a progress bar of that name.

        An image's features depend on nothing but the image: batches have one size, the last one being filled up.
        """
        features, logits = (np.empty((len(pixels), size), np.float32) for size in (DIMENSIONS, CLASSES))
        batch = np.zeros((BATCH, *pixels.shape[1:]), np.uint8)
        with tqdm(total=len(pixels), desc=description, unit="img", leave=False) as bar:
            for first in range(0, len(pixels), BATCH):
                part = pixels[first : first + BATCH]
                batch[: len(part)] = part
                rows = slice(first, first + len(part))
                features[rows], logits[rows] = (values[: len(part)] for values in self._run(batch))
                bar.update(len(part))
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        return Extracted(features, exponentials / exponentials.sum(axis=1, keepdims=True))


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
