"""The network that the judge sees a data set with, and its training. The command is train_classifier.py.

A small residual network (He et al. 2015, arXiv:1512.03385) that learns the classes. Its features are the 128 means that
its pooling takes, as Inception's are in FID, each scaled to mean 0 and variance 1 over the training images, so that
distances have a unit. What it learns from is moved by a fourteenth of its size and partly erased (Zhong et al. 2017,
arXiv:1708.04896), but mirrored only where a mirrored image could be one of the data: every shoe of Fashion-MNIST points
to the left, and the judge must see one that does not. Numbers that are lengths are given for 28 pixels, and scaled.
"""

import logging
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the field's name for it)
from tqdm import tqdm

from ddpm_shared import streams
from ddpm_shared.datasets import Split

BATCH, BATCH_PIXELS = 128, 128 * 256 * 256  # images in a batch, of large images fewer: so many pixels
SHIFT = 2  # pixels of 28
ERASED = (6, 14)  # height and width of what is erased from every second image, at least and below, of 28
LARGEST = 48  # pixels of a side after the first layers: images larger than this are halved until they are not
PEAK_LEARNING_RATE = 0.1
WEIGHT_DECAY = 5e-4


def convolution(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolution and batch normalisation, [B, C, H, W] -> [B, C', H / stride, W / stride]."""
    layer = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(out_channels))


class Residual(nn.Module):
    """relu(x + f(x)) with two convolutions in f, [B, C, H, W] -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.f = nn.Sequential(convolution(channels, channels), nn.ReLU(), convolution(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """The block."""
        return F.relu(x + self.f(x))


class Classifier(nn.Module):
    """Images [B, H, W, C] uint8 -> features [B, 128] and logits [B, K]: pixels in, so that all scaling is inside."""

    def __init__(self, height: int, channels: int, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [convolution(channels, 32, 2 if height > LARGEST else 1), nn.ReLU()]
        height = -(-height // 2) if height > LARGEST else height
        while height > LARGEST:
            layers += [convolution(32, 32, stride=2), nn.ReLU()]
            height = -(-height // 2)
        self.body = nn.Sequential(
            *layers,
            convolution(32, 64, stride=2),  # 28 -> 14
            nn.ReLU(),
            Residual(64),
            convolution(64, 128, stride=2),  # 14 -> 7
            nn.ReLU(),
            Residual(128),
        )
        self.head = nn.Linear(128, num_classes)
        self.mean, self.std = nn.Buffer(torch.zeros(128)), nn.Buffer(torch.ones(128))  # of the features

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The network."""
        x = images.permute(0, 3, 1, 2).float() / 127.5 - 1.0
        pooled = self.body(x).mean(dim=(2, 3))
        return (pooled - self.mean) / self.std, self.head(pooled)


def augmented(images: NDArray[np.uint8], random: np.random.Generator, flip: bool) -> NDArray[np.uint8]:
    """Each image of [B, H, W, C] moved, every second one with a rectangle of noise; with `flip`, some mirrored."""
    count, height, width, channels = images.shape
    shift = max(1, round(SHIFT * height / 28))
    padded = np.pad(images, ((0, 0), (shift, shift), (shift, shift), (0, 0)))
    moved = np.empty_like(images)
    for i, (top, left) in enumerate(random.integers(0, 2 * shift + 1, (count, 2))):
        moved[i] = padded[i, top : top + height, left : left + width]
    least, below = (round(bound * height / 28) for bound in ERASED)
    for i in range(0, count, 2):
        h, w = random.integers(least, max(least + 1, below), 2)
        top, left = random.integers(0, height - h + 1), random.integers(0, width - w + 1)
        moved[i, top : top + h, left : left + w] = random.integers(0, 256, (h, w, channels))
    if flip:
        mirrored = random.random(count) < 0.5
        moved[mirrored] = moved[mirrored, :, ::-1]
    return moved


def batch_size(split: Split) -> int:
    """Images in a batch."""
    _, height, width, _ = split.images.shape
    return max(1, min(BATCH, BATCH_PIXELS // (height * width), len(split.images)))


def steps_an_epoch(split: Split) -> int:
    """Whole batches of the training images."""
    return len(split.images) // batch_size(split)


def train(split: Split, epochs: int, seed: int, flip: bool) -> Classifier:
    """The classifier after `epochs` passes over the images, by SGD with a one-cycle learning rate."""
    torch.manual_seed(seed)
    _, height, _, channels = split.images.shape
    model = Classifier(height, channels, len(split.class_names)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        model.parameters(), PEAK_LEARNING_RATE, momentum=0.9, nesterov=True, weight_decay=WEIGHT_DECAY
    )
    steps, batch = epochs * steps_an_epoch(split), batch_size(split)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=steps)
    bar = tqdm(range(steps), desc=f"classifier of {split.name}", unit="step", leave=False)
    for step in bar:
        chosen = streams.batch_indices(seed, step, len(split.images), batch)
        images = augmented(split.images[chosen], streams.generator(seed, "classifier", step), flip)
        with torch.autocast("cpu", torch.bfloat16):
            _, logits = model(torch.from_numpy(images))
        loss = F.cross_entropy(logits.float(), torch.from_numpy(split.labels[chosen].astype(np.int64)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        cycle.step()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    return model.eval()


@torch.no_grad()
def standardize(model: Classifier, split: Split) -> None:
    """Give the features mean 0 and variance 1 over the images of `split`."""
    batches = torch.from_numpy(np.ascontiguousarray(split.images)).split(batch_size(split))
    features = torch.cat([model(batch)[0] for batch in tqdm(batches, desc="features", leave=False)])
    std = features.std(dim=0)
    model.mean.copy_(features.mean(dim=0))
    model.std.copy_(torch.where(std > 0, std, 1.0))  # a feature that is always the same stays 0


def exported(model: Classifier, split: Split) -> bytes:
    """The network as ONNX, batch normalisation folded into the convolutions."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it has not found torchvision
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, of itself
        program = torch.onnx.export(
            model.to(memory_format=torch.contiguous_format),
            (torch.zeros(2, *split.images.shape[1:], dtype=torch.uint8),),
            input_names=["images"],
            output_names=["features", "logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "classifier.onnx"
        program.save(file)
        return file.read_bytes()
