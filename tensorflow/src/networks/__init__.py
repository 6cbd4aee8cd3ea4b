"""The networks, each a function of x_t, t and labels; ddpm_tf.model builds them. Mirror: ddpm_torch.networks."""

from ddpm_tf.networks import denoise_net as denoise_net
from ddpm_tf.networks import dit as dit
from ddpm_tf.networks import layers as layers
from ddpm_tf.networks import residual_unet as residual_unet
from ddpm_tf.networks import simple_unet as simple_unet
from ddpm_tf.networks import transformer_unet as transformer_unet
from ddpm_tf.networks import unet as unet
