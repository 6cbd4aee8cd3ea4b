"""Train the network that the judge sees with, shared/src/evaluation/classifier.onnx, on the full Fashion-MNIST.

    python pytorch/tools/train_fashion_classifier.py [--epochs N] [--seed N] [--data-dir DIR] [--out FILE]

A small residual network (He et al. 2015, arXiv:1512.03385) that learns the ten classes. Its features are the 128 means
that its pooling takes, as Inception's are in FID, each scaled to mean 0 and variance 1 over the training images, so
that distances have a unit. What it learns from is moved by up to two pixels and partly erased (Zhong et al. 2017,
arXiv:1708.04896) but never mirrored: every shoe of the data points to the left, and the judge must see one that does
not. Nothing is chosen by the test images; their accuracy is measured once, on the file written.
"""

import hashlib
from pathlib import Path

import numpy as np
import onnxruntime
import torch
import tyro
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the field's name for it)
from tqdm import tqdm

from ddpm_shared import command_line, datasets, streams
from ddpm_shared.datasets import Split
from ddpm_shared.datasets.fashion_mnist import CLASS_NAMES

SHIPPED = Path(__file__).resolve().parents[2] / "shared" / "src" / "evaluation" / "classifier.onnx"
BATCH = 128
SHIFT = 2  # pixels
ERASED = (6, 14)  # height and width of what is erased from every second image, at least and below
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
    """Images [B, 28, 28, 1] uint8 -> features [B, 128] and logits [B, 10]: pixels in, so that all scaling is inside."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            convolution(1, 32),
            nn.ReLU(),
            convolution(32, 64, stride=2),  # 28 -> 14
            nn.ReLU(),
            Residual(64),
            convolution(64, 128, stride=2),  # 14 -> 7
            nn.ReLU(),
            Residual(128),
        )
        self.head = nn.Linear(128, len(CLASS_NAMES))
        self.mean, self.std = nn.Buffer(torch.zeros(128)), nn.Buffer(torch.ones(128))  # of the features

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The network."""
        x = images.permute(0, 3, 1, 2).float() / 127.5 - 1.0
        pooled = self.body(x).mean(dim=(2, 3))
        return (pooled - self.mean) / self.std, self.head(pooled)


def augmented(images: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """Each image of [B, 28, 28, 1] moved, and every second one with a rectangle of noise in it."""
    count, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)))
    moved = np.empty_like(images)
    for i, (top, left) in enumerate(random.integers(0, 2 * SHIFT + 1, (count, 2))):
        moved[i] = padded[i, top : top + height, left : left + width]
    for i in range(0, count, 2):
        h, w = random.integers(*ERASED, 2)
        top, left = random.integers(0, height - h + 1), random.integers(0, width - w + 1)
        moved[i, top : top + h, left : left + w] = random.integers(0, 256, (h, w, 1))
    return moved


def train(split: Split, epochs: int, seed: int) -> Classifier:
    """The classifier after `epochs` passes over the images, by SGD with a one-cycle learning rate."""
    torch.manual_seed(seed)
    model = Classifier().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        model.parameters(), PEAK_LEARNING_RATE, momentum=0.9, nesterov=True, weight_decay=WEIGHT_DECAY
    )
    steps = epochs * (len(split.images) // BATCH)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=steps)
    bar = tqdm(range(steps), desc="classifier", unit="step")
    for step in bar:
        chosen = streams.batch_indices(seed, step, len(split.images), BATCH)
        images = augmented(split.images[chosen], streams.generator(seed, "classifier", step))
        with torch.autocast("cpu", torch.bfloat16):
            _, logits = model(torch.from_numpy(images))
        loss = F.cross_entropy(logits.float(), torch.from_numpy(split.labels[chosen]).long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        cycle.step()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    return model.eval()


@torch.no_grad()
def standardize(model: Classifier, split: Split) -> None:
    """Give the features mean 0 and variance 1 over the images of `split`."""
    batches = torch.from_numpy(split.images).split(500)
    features = torch.cat([model(batch)[0] for batch in tqdm(batches, desc="features", leave=False)])
    model.mean.copy_(features.mean(dim=0))
    model.std.copy_(features.std(dim=0))


def export(model: Classifier, path: Path) -> None:
    """Write the network as ONNX, batch normalisation folded into the convolutions."""
    images = torch.zeros(2, 28, 28, 1, dtype=torch.uint8)
    program = torch.onnx.export(
        model.to(memory_format=torch.contiguous_format),
        (images,),
        input_names=["images"],
        output_names=["features", "logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        dynamo=True,
    )
    assert program is not None
    program.save(path)


def accuracy(path: Path, split: Split) -> float:
    """The share of images that the file at `path` gives their label."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    batches = (split.images[first : first + 500] for first in range(0, len(split.images), 500))
    found = np.concatenate([session.run(["logits"], {"images": batch})[0].argmax(1) for batch in batches])
    return float(np.mean(found == split.labels))


def main(epochs: int = 20, seed: int = 0, data_dir: str | None = None, out: Path = SHIPPED) -> int:
    """Train, write the file, and print its size, its hash and its accuracy.

    Args:
        epochs: passes over the 60,000 training images.
        seed: of initial weights, batches and augmentation.
        data_dir: a folder with the full set; looked up as for training when left out.
        out: the file to write.
    """
    training_split, test_split = datasets.load(datasets.FULL, data_dir)
    model = train(training_split, epochs, seed)
    standardize(model, training_split)
    export(model, out)
    data = out.read_bytes()
    print(f"{out}: {len(data):,} bytes, sha256 {hashlib.sha256(data).hexdigest()}")
    print(f"accuracy: {accuracy(out, test_split):.2%} of the {len(test_split.images):,} test images")
    return 0


if __name__ == "__main__":
    command_line.guard(lambda: tyro.cli(main))
