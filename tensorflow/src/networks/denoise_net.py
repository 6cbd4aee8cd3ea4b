"""Two convolutions, the smallest network that can denoise. Mirror: ddpm_torch.networks.denoise_net."""

from typing import ClassVar

import keras
import tensorflow as tf

from ddpm_tf.config import ModelConfig
from ddpm_tf.networks.layers import ACTIVATIONS, Conv2D, Dense, LabelEmbedding, label_of_each, timestep_embedding


class DenoiseNet(keras.Model):
    """The network: conv_out(f(conv_in(x_t) + time(emb) + label)), f the activation.

    Without `uses_time` it does not know how noisy its input is, and has to guess it from 5 x 5 pixels.

    Args:
        config: sizes.
        out_channels: of the output (default: those of an image).
        dtype: a Keras dtype policy.

    Source: lecture notes that ask the reader to add the time.
    Mirror: ddpm_torch.networks.denoise_net.DenoiseNet.
    """

    zero_at_start = ("conv_out.weight",)  # so that the first prediction is zero, as UNet's
    normal_at_start: ClassVar[dict[str, float]] = {}  # it has no buffers

    def __init__(self, config: ModelConfig, out_channels: int | None = None, dtype: str = "float32") -> None:
        super().__init__(dtype=dtype, autocast=False)  # x_t keeps its precision up to conv_in, and t all the way
        self.built = True  # as of a Block
        self.config = config
        channels = config.base_channels
        self.activation = ACTIVATIONS[config.activation]
        self.time = Dense(channels, dtype=dtype) if config.uses_time else None
        self.label = LabelEmbedding(config.num_classes, channels, dtype) if config.num_classes else None
        self.conv_in = Conv2D(channels, 3, padding="same", dtype=dtype)
        self.conv_out = Conv2D(out_channels or config.image_channels, 3, padding="same", dtype=dtype)

    def call(self, x_t: tf.Tensor, t: tf.Tensor, labels: tf.Tensor | None = None) -> tf.Tensor:
        """The prediction at x_t and t, e.g. of the noise.

        Args:
            x_t: [B, H, W, C] noisy images.
            t: [B] times, whole or not.
            labels: [B] integer, 0 .. K - 1, or K for none; or [B, K + 1], weights that mix them. Without labels every
                image has none.

        Returns:
            [B, H, W, out_channels] in the dtype of x_t.

        Raises:
            UserError: labels for a network without classes.
        """
        labels = label_of_each(labels, t, self.config.num_classes)
        h = self.conv_in(x_t)
        if self.time is not None:
            emb = tf.cast(timestep_embedding(t, self.config.time_channels), x_t.dtype)  # [B] -> [B, time_channels]
            h = h + self.time(emb)[:, None, None, :]  # [B, C] over all pixels
        if self.label is not None:
            h = h + self.label(labels)[:, None, None, :]
        return tf.cast(self.conv_out(self.activation(h)), x_t.dtype)
