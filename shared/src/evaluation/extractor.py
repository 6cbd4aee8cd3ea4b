"""The judge's feature extractor: a small network as ONNX, run by onnxruntime. spaces.py chooses which.

One network outside both frameworks, so that the same pixels get the same features, and every number made of them is the
same to the last digit, whatever drew the images. pytorch/tools/train_classifier.py made the classifier in the package,
and makes those of other data sets; shared/tools/make_random_features.py drew the untrained network.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tqdm import tqdm

from ddpm_shared import reading
from ddpm_shared.cache import Arrays
from ddpm_shared.datasets import Split
from ddpm_shared.errors import UserError
from ddpm_shared.images import Pixels
from ddpm_shared.reading import name_of, one_line
from ddpm_shared.records.scores import FASHION_FEATURES

SPACE = "128 features of a classifier of Fashion-MNIST, each of variance 1 (not those of Inception on ImageNet)"
SHIPPED = Path(__file__).with_name("classifier.onnx")
SHIPPED_SHA256 = "7e3f2edfa6c2261169f6792daca07ccc70bea580c11ae6fff8c6d6d2e2e23d7b"  # of that file
RANDOM = Path(__file__).with_name("random_features.onnx")
RANDOM_SHA256 = "a81f35f09ad705033bd2a91075bbcc751b88c1c0e369990fbbfcde3e076e1d25"  # of that file
AT_MOST = 512 * reading.MIB  # of such a file
DIMENSIONS, CLASSES = 128, 10  # features of every network here; classes of Fashion-MNIST
OTHER = "give another --extractor, or judge by --features random"
BATCH, PIXELS = 250, 250 * 32 * 32  # images at a time, of large images fewer: so many pixels


@dataclass(frozen=True)
class Extracted:
    """What a network makes of N images: the inputs of its last layer, and the probability of every class."""

    features: NDArray[np.float32]  # [N, 128], each of mean 0 and variance 1 over the training images
    probabilities: NDArray[np.float32]  # [N, K]; K is 0 where the network knows no classes

    def __len__(self) -> int:
        return len(self.features)

    @property
    def classes(self) -> NDArray[np.int64]:
        """The class that each image is taken for, [N]; for K > 0."""
        return self.probabilities.argmax(axis=1)

    @property
    def knows_classes(self) -> bool:
        """Whether the network is a classifier."""
        return self.probabilities.shape[1] > 0

    def take(self, chosen: NDArray[np.int64] | slice) -> "Extracted":
        """Some of the images."""
        return Extracted(self.features[chosen], self.probabilities[chosen])


class Extractor:
    """A network of features, loaded.

    Args:
        path: an ONNX file that turns `images` [N, H, W, C] uint8 into `features` [N, 128] and, if it is a classifier,
            `logits` [N, K] (default: the classifier of Fashion-MNIST in the package). H and W may be left open.
        name: what it is called where its numbers are told (default: by its file).
        way_out: what to do about a file that is no such network.

    Raises:
        UserError: no such file, or another one; also from a call, where the file does not work.
    """

    def __init__(self, path: Path | None = None, name: str = "", way_out: str = "name another file") -> None:
        path = path or SHIPPED
        in_the_package = {SHIPPED: SHIPPED_SHA256, RANDOM: RANDOM_SHA256}
        if path in in_the_package:
            way_out = "the installed package is damaged, install ddpm-duet again"
        self.path, self.way_out = path, way_out
        self.name = name or (FASHION_FEATURES if path == SHIPPED else f"the extractor {one_line(path.name, 80)}")
        data = reading.read_bytes(path, f"it should be the feature extractor, {way_out}", AT_MOST)
        self.file_sha256 = hashlib.sha256(data).hexdigest()
        if self.file_sha256 != in_the_package.get(path, self.file_sha256):
            raise UserError(f"{name_of(path)} has SHA-256 {self.file_sha256}, not {in_the_package[path]}: {way_out}")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what it would print of a bad file is in the exception as well
        try:
            self.session = onnxruntime.InferenceSession(
                data, options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
            ends = {value.name: value.shape[1:] for value in [*self.session.get_inputs(), *self.session.get_outputs()]}
        except Exception as error:  # onnxruntime's own kinds, for what is not ONNX or asks for more than it has
            raise self._refusal(_last_line(error)) from None
        self.shape, self.num_classes = self._ends(ends)  # [H, W, C], where H and W may be names; 0 for no classes
        self.mean, self.std = np.zeros(DIMENSIONS, np.float32), np.ones(DIMENSIONS, np.float32)  # of what it makes
        self.sha256 = self.file_sha256  # of all that the features depend on

    def _ends(self, ends: dict[str, list[int | str]]) -> tuple[list[int | str], int]:
        shape, (classes, *more) = ends.get("images", []), ends.get("logits", [0])
        expected = {"images": ["H", "W", "1 or 3"], "features": [DIMENSIONS], "logits": ["K"]}
        fits = len(shape) == 3 and shape[2] in (1, 3) and ends.get("features") == [DIMENSIONS]
        if not fits or not isinstance(classes, int) or more or not ends.keys() <= expected.keys():
            raise self._refusal(f"it has {ends}, not {expected}")
        return shape, classes

    @property
    def space(self) -> str:
        """The features, in a sentence."""
        if self.sha256 == SHIPPED_SHA256:
            return SPACE
        of = self.name if self.name.startswith("random features") else f"features of {self.name}"
        return f"{DIMENSIONS} {of}, each of variance 1 (not those of Inception on ImageNet)"

    def require_fit(self, split: Split) -> None:
        """Raise UserError if the network is for images of another shape, or for another number of classes."""
        shape, classes = list(split.images.shape[1:]), len(split.class_names)
        open_ends = [size if isinstance(size, int) else known for size, known in zip(self.shape, shape, strict=True)]
        if open_ends != shape and not (self.shape[2] == 3 and open_ends[:2] == shape[:2]):
            raise UserError(
                f"{name_of(self.path)} knows images of the shape {self.shape}, and {split.name} has {shape}: {OTHER}"
            )
        if self.num_classes not in (0, classes):
            raise UserError(
                f"{name_of(self.path)} knows {self.num_classes} classes, and {split.name} has {classes}: {OTHER}"
            )

    def _refusal(self, reason: str) -> UserError:
        return UserError(f"{name_of(self.path)} is not a feature extractor ({one_line(reason, 400)}): {self.way_out}")

    def _run(self, batch: Pixels) -> list[NDArray[np.float32]]:
        """The features [B, 128] and logits [B, K] of a batch."""
        names = ["features", "logits"] if self.num_classes else ["features"]
        try:
            outputs = self.session.run(names, {"images": batch})
        except Exception as error:  # as above: a file of somebody else may be ONNX and yet not work
            raise self._refusal(_last_line(error)) from None
        expected = [(len(batch), DIMENSIONS), (len(batch), self.num_classes)][: len(names)]
        shapes = [np.shape(values) for values in outputs]
        if shapes != expected or not all(np.isfinite(values).all() for values in outputs):
            raise self._refusal(f"it makes arrays of the shapes {shapes}, or numbers that are not finite")
        return outputs

    def raw(self, pixels: Pixels, description: str = "features") -> Arrays:
        """What the network itself makes of images, under a progress bar of that name: `features`, `probabilities`.

        An image's features depend on nothing but the image: batches have one size, the last one being filled up. Grey
        images are repeated into the three channels of a network of colour.
        """
        count, height, width, channels = pixels.shape
        size = max(1, min(BATCH, PIXELS // (height * width)))
        features, logits = (np.empty((count, each), np.float32) for each in (DIMENSIONS, self.num_classes))
        batch = np.zeros((size, height, width, 3 if self.shape[2] == 3 else channels), np.uint8)
        with tqdm(total=count, desc=description, unit="img", leave=False) as bar:
            for first in range(0, count, size):
                part = pixels[first : first + size]
                batch[: len(part)] = part
                for values, made in zip((features, logits), self._run(batch), strict=False):
                    values[first : first + size] = made[: len(part)]
                bar.update(len(part))
        if self.num_classes:
            exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
            logits = exponentials / exponentials.sum(axis=1, keepdims=True)
        return {"features": features, "probabilities": logits}

    def scaled(self, features: NDArray[np.float32], probabilities: NDArray[np.float32]) -> Extracted:
        """What `raw` made, each feature of mean 0 and variance 1 over the training images."""
        unscaled = self.sha256 == self.file_sha256
        return Extracted(features if unscaled else (features - self.mean) / self.std, probabilities)

    def __call__(self, pixels: Pixels, description: str = "features") -> Extracted:
        """Features and classes of images [N, H, W, C] uint8, under a progress bar of that name."""
        return self.scaled(**self.raw(pixels, description))

    def scale_by(self, features: NDArray[np.float32], train: Split) -> None:
        """From now on, give the features mean 0 and variance 1 over those that `raw` made of the training images."""
        self.mean, std = features.mean(axis=0), features.std(axis=0)
        self.std = np.where(std > 0, std, 1).astype(np.float32)  # a feature that is always the same stays 0
        depends_on = f"{self.file_sha256} {train.sha256} {len(train.images)}"
        self.sha256 = hashlib.sha256(depends_on.encode()).hexdigest()


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
