"""The networks, each a function of x_t, t and labels; ddpm_torch.model builds them. Mirror: ddpm_tf.networks."""

from ddpm_torch.networks import denoise_net as denoise_net
from ddpm_torch.networks import dit as dit
from ddpm_torch.networks import layers as layers
from ddpm_torch.networks import residual_unet as residual_unet
from ddpm_torch.networks import simple_unet as simple_unet
from ddpm_torch.networks import transformer_unet as transformer_unet
from ddpm_torch.networks import unet as unet
