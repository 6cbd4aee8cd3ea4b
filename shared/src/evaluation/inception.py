"""Features of the Inception network that published FIDs are computed with, for those who have its weights.

    network = load(weights, len(samples))
    a, b = (moments(features(network, images)) for images in (samples, test_images))
    fid = frechet_distance(a, b)

The network is torch-fidelity's (Obukhov et al. 2020), an optional package; its weights are a file of 95 MB. This
module imports PyTorch only to compute features, and only by name: ddpm_shared knows no framework.
"""

import contextlib
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ddpm_shared import reading
from ddpm_shared.cache import Arrays, cached
from ddpm_shared.datasets import Split
from ddpm_shared.errors import UserError
from ddpm_shared.evaluation.judge import Judge
from ddpm_shared.evaluation.metrics import Moments, frechet_distance, moments
from ddpm_shared.evaluation.records import InceptionRecord
from ddpm_shared.images import Pixels

URL = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"  # of that file
AT_MOST = 256 * reading.MIB  # of that file, which has 95 MB
FEATURES = 2048
AT_LEAST = FEATURES  # images; fewer leave the covariance singular
BATCH = 32
PART = 1000  # images whose features are cached together
RULE = (
    "{channels}resized from {height} x {width} to 299 x 299 by the bilinear interpolation of TensorFlow "
    "1 (corners not aligned, no half pixel), scaled to [-1, 1) as (x - 128) / 128; the 2048 features of the last "
    "pooling of torch-fidelity's FeatureExtractorInceptionV3"
)


@contextlib.contextmanager
def bare_package(name: str) -> Iterator[None]:
    """Modules of the package can be imported in the block without its __init__ being run; then all is as before.

    torch_fidelity's __init__ imports torchvision, which its Inception has no use for, and whose ordinary wheel does not
    load beside PyTorch's CPU build ("operator torchvision::nms does not exist").

    Raises:
        ModuleNotFoundError: the package is not installed.
    """

    def loaded() -> dict[str, Any]:
        return {key: module for key, module in sys.modules.items() if key.partition(".")[0] == name}

    spec = importlib.util.find_spec(name)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    before = loaded()
    for key in before:
        del sys.modules[key]
    sys.modules[name] = importlib.util.module_from_spec(spec)  # knows its folder, and has not run
    try:
        yield
    finally:
        for key in loaded():
            del sys.modules[key]
        sys.modules.update(before)


def load(weights: Path, num_images: int) -> Any:
    """The network with its weights, on the CPU: uint8 tensor [B, 3, H, W] -> (float32 tensor [B, 2048],).

    Args:
        weights: the file from URL; only its SHA256 is taken.
        num_images: how many are to be judged.

    Raises:
        UserError: fewer images than features; a missing or other file; PyTorch or torch-fidelity not installed.

    Source: Szegedy et al. 2015 (arXiv:1512.00567) is the network, Heusel et al. 2017 (arXiv:1706.08500) its use.
    """
    if num_images < AT_LEAST:
        raise UserError(
            f"FID by Inception needs {AT_LEAST} images or more, got {num_images}: fewer than its features leave "
            "their covariance singular"
        )
    way_out = f"give the Inception weights, download {URL}"
    digest = hashlib.sha256(reading.read_bytes(weights, way_out, AT_MOST)).hexdigest()
    if digest != SHA256:  # also because torch-fidelity unpickles the file, which can run any code
        raise UserError(f"{weights} has SHA-256 {digest}, not {SHA256} of the Inception weights: download {URL}")
    try:
        with bare_package("torch_fidelity"):
            network = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
    except ModuleNotFoundError as error:
        raise UserError(
            f"FID by Inception needs {error.name}, which is not installed: pip install torch, then "
            "pip install --no-deps torch-fidelity"
        ) from None
    return network.FeatureExtractorInceptionV3("inception", [str(FEATURES)], feature_extractor_weights_path=weights)


def features(network: Any, pixels: Pixels, on_batch: Callable[[int], object] = lambda n: None) -> NDArray[np.float64]:
    """The features of every image, by the RULE.

    Args:
        network: of load().
        pixels: [N, H, W, C] uint8, C 1 or 3.
        on_batch: called with the number of images of each batch, for a progress bar.

    Returns:
        [N, 2048], computed in float32.
    """
    torch = importlib.import_module("torch")
    values = np.empty((len(pixels), FEATURES))
    with torch.inference_mode():
        for start in range(0, len(pixels), BATCH):
            batch = pixels[start : start + BATCH].transpose(0, 3, 1, 2)
            colour = np.ascontiguousarray(np.broadcast_to(batch, (len(batch), 3, *batch.shape[2:])))  # [B, 3, H, W]
            (pooled,) = network(torch.from_numpy(colour))
            values[start : start + BATCH] = pooled.numpy()
            on_batch(len(batch))
    return values


def fid(judge: Judge, pixels: Pixels, network: Any) -> InceptionRecord:
    """FID by Inception of images against the judge's reference, and its floor.

    It takes an hour for 20,000 images on two cores. The features of the reference are cached part by part, so that an
    interrupted run goes on where it was, and the next one is shorter.

    Args:
        judge: the real images.
        pixels: [N, H, W, C] uint8, C 1 or 3, N >= 2048.
        network: of load().

    Returns:
        What stands under `inception` in evaluation.json. The floor is None where fewer than 2,048 real images are left
        for it.
    """

    def of_split(split: Split, count: int) -> Moments:
        parts = []
        with tqdm(total=count, desc=f"Inception, {split.split}", unit="img", leave=False) as bar:
            for first in range(0, count, PART):
                part = split.images[first : first + PART]

                def compute(part: Pixels = part) -> Arrays:
                    return {"features": features(network, part, bar.update)}

                shapes = {"features": (len(part), FEATURES)}
                parts.append(cached("inception", (split.sha256, SHA256, str(first)), compute, shapes)["features"])
                bar.update(min(first + len(part), count) - bar.n)  # of a cached part
        return moments(np.concatenate(parts)[:count])

    with tqdm(total=len(pixels), desc="Inception, images", unit="img", leave=False) as bar:
        of_images = moments(features(network, pixels, bar.update))
    real = of_split(judge.reference, len(judge.reference.images))
    floor_images = min(len(pixels), len(judge.other.images))
    enough = floor_images >= AT_LEAST
    return {
        "fid": frechet_distance(of_images, real),
        "fid_floor": frechet_distance(of_split(judge.other, floor_images), real) if enough else None,
        "floor_images": floor_images,
        "weights_sha256": SHA256,
        "rule": rule(pixels.shape[1:]),
    }


def rule(shape: tuple[int, ...]) -> str:
    """How images [H, W, C] were shown to the network."""
    height, width, channels = shape
    return RULE.format(
        channels="" if channels == 3 else "grey repeated into three channels, ", height=height, width=width
    )
