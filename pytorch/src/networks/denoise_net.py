"""Two convolutions, the smallest network that can denoise. Mirror: ddpm_tf.networks.denoise_net."""

from typing import ClassVar

from torch import Tensor, nn

from ddpm_torch.config import ModelConfig
from ddpm_torch.networks.layers import ACTIVATIONS, LabelEmbedding, label_of_each, timestep_embedding


class DenoiseNet(nn.Module):
    """The network: conv_out(f(conv_in(x_t) + time(emb) + label)), f the activation.

    Without `uses_time` it does not know how noisy its input is, and has to guess it from 5 x 5 pixels.

    Args:
        config: sizes.
        out_channels: of the output (default: those of an image).

    Source: lecture notes that ask the reader to add the time.
    Mirror: ddpm_tf.networks.denoise_net.DenoiseNet.
    """

    zero_at_start = ("conv_out.weight",)  # so that the first prediction is zero, as UNet's
    normal_at_start: ClassVar[dict[str, float]] = {}  # it has no buffers

    def __init__(self, config: ModelConfig, out_channels: int | None = None) -> None:
        super().__init__()
        self.config = config
        channels = config.base_channels
        self.activation = ACTIVATIONS[config.activation]
        self.time = nn.Linear(config.time_channels, channels) if config.uses_time else None
        self.label = LabelEmbedding(config.num_classes, channels) if config.num_classes else None
        self.conv_in = nn.Conv2d(config.image_channels, channels, 3, padding=1)
        self.conv_out = nn.Conv2d(channels, out_channels or config.image_channels, 3, padding=1)

    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """The prediction at x_t and t, e.g. of the noise.

        Args:
            x_t: [B, C, H, W] noisy images.
            t: [B] times, whole or not.
            labels: [B] integer, 0 .. K - 1, or K for none; or [B, K + 1], weights that mix them. Without labels every
                image has none.

        Returns:
            [B, out_channels, H, W] in the dtype of x_t.

        Raises:
            UserError: labels for a network without classes.
        """
        labels = label_of_each(labels, t, self.config.num_classes)
        h = self.conv_in(x_t)
        if self.time is not None:
            emb = timestep_embedding(t, self.config.time_channels).to(x_t.dtype)  # [B] -> [B, time_channels]
            h = h + self.time(emb)[:, :, None, None]  # [B, C] over all pixels
        if self.label is not None:
            h = h + self.label(labels)[:, :, None, None]
        return self.conv_out(self.activation(h)).to(x_t.dtype)
