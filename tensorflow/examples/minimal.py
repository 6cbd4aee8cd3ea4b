"""DDPM in forty lines: `python tensorflow/examples/minimal.py`, then copy it. Mirror: pytorch/examples/minimal.py.

It trains on the images in the package, draws sixteen, and writes minimal-tensorflow.png: five minutes on a laptop. Both
frameworks are given the same numbers, so their losses begin equal and stay close.
"""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from ddpm_shared import datasets, images
from ddpm_shared.config import Config, DiffusionConfig, with_preset
from ddpm_tf import data
from ddpm_tf.engine import diffusion_loss, make_schedule, p_sample
from ddpm_tf.model import make_network


def main(steps: int = 1000, timesteps: int = 1000, out: Path = Path("minimal-tensorflow.png")) -> list[float]:
    """Train, draw, and return the loss of every step."""
    # 1. The data, the forward process, the network and its optimizer.
    train, _ = datasets.load("fashion-mnist-10k")  # images [N, 28, 28, 1] uint8
    schedule = make_schedule(DiffusionConfig(timesteps=timesteps))
    network = make_network(with_preset(Config(), "tiny"), seed=0)
    optimizer = keras.optimizers.Adam(2e-3, epsilon=1e-8)  # Keras' own epsilon is 1e-7
    random = np.random.default_rng(0)

    def noise(count: int) -> tf.Tensor:
        return data.to_tensor(random.standard_normal((count, 28, 28, 1), np.float32))  # [B, 28, 28, 1]

    # 2. Training, algorithm 1 of the paper: predict the noise in a corrupted image. As a graph: Keras is slow without.
    @tf.function(autograph=False)
    def train_step(x_0: tf.Tensor, t: tf.Tensor, eps: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = diffusion_loss(schedule, network, x_0, t, eps)
        variables = network.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    losses = []
    for step in range(steps):
        x_0 = data.to_images(train.images[random.integers(len(train.images), size=64)], tf.float32)
        t = tf.constant(random.integers(timesteps, size=64))
        losses.append(float(train_step(x_0, t, noise(64))))
        if step % 50 == 0:
            print(f"step {step} of {steps}: loss {losses[-1]:.4f}", flush=True)

    # 3. Sampling, algorithm 2: from noise, one step after the other towards an image.
    x, sample_step = noise(16), tf.function(lambda *given: p_sample(schedule, network, *given), autograph=False)
    for t in reversed(range(timesteps)):
        x = sample_step(x, tf.fill([16], tf.constant(t, tf.int64)), noise(16))
    images.write_png(out, images.grid(data.to_pixels(x)))
    print(f"sixteen images: {out}")
    return losses


if __name__ == "__main__":
    main()
