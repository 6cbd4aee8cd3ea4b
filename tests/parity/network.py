"""The whole U-Net of every preset at random weights: each layer's output, the loss, every parameter's gradient."""

from functools import partial
from typing import Any

import numpy as np

from ddpm_parity.quantities import Arrays, Measure, Quantity, of_the_gradient, of_the_largest
from ddpm_parity.sides import Side, draw, random_parameters
from ddpm_parity.tolerances import FORWARD, GRADIENTS, LOSS, Tolerance
from ddpm_shared.config import PRESETS, ModelConfig
from ddpm_shared.oracle.networks import Network, loss_and_gradients

ODD = ModelConfig(  # 28 -> 14 -> 7 -> 4 and back, as in `large`, with three image channels
    base_channels=8,
    channel_mults=(1, 2, 2, 3),
    num_res_blocks=1,
    attention_resolutions=(4,),
    num_groups=4,
    image_channels=3,
)
COLOUR = ModelConfig(  # the least network, for what is drawn and trained in colour
    base_channels=8,
    channel_mults=(1,),
    num_res_blocks=1,
    attention_resolutions=(),
    num_groups=4,
    image_size=8,
    image_channels=3,
)
NETWORKS = {name: model for name, model in PRESETS.items() if model.network == "unet"} | {"odd": ODD}
SLOW = ("large", "colour")
T = np.array([0, 999], np.int32)
# The last map of every residual branch and of the network, written again beside the trees' UNet.zero_at_start.
ZERO_AT_START = ("conv_2.weight", "project.weight", "conv_out.weight")


def _run(side: Side, network: str) -> dict[str, Arrays]:
    """Everything of one network, computed once for its three quantities."""
    config = NETWORKS[network]
    shape = (len(T), config.image_size, config.image_size, config.image_channels)
    x_t, eps = draw(*shape, seed=1), draw(*shape, seed=2)
    if side.name == "oracle":
        parameters = random_parameters(side.shapes_of(lambda torch: torch.network(config)))
        oracle = Network(parameters, config)
        oracle(x_t, T)
        loss, gradients = loss_and_gradients(config, parameters, x_t, T, eps)
        activations: Any = oracle.activations
    else:
        model = side.network(config)
        side.assign(model, random_parameters(side.shapes(model)))
        activations = side.watch(model)
        target = side.tensor(eps)
        _, loss, gradients, _ = side.value_and_gradients(
            model, [side.tensor(x_t), side.times(T)], lambda eps_pred: side.mean_square(target - eps_pred)
        )
    return {
        "layers": activations,
        "loss": {"loss": np.array(loss)},
        "gradients": gradients,
    }


def _part(side: Side, network: str, part: str) -> Arrays:
    return side.keep(("network", network), lambda: _run(side, network))[part]


def _quantity(network: str, name: str, part: str, tolerance: Tolerance, measure: Measure) -> Quantity:
    compute = partial(_part, network=network, part=part)
    return Quantity("network", f"{network}: {name}", compute, tolerance, measure, slow=network in SLOW)


QUANTITIES = [
    quantity
    for network in NETWORKS
    for quantity in (
        _quantity(network, "output of every layer", "layers", FORWARD, of_the_largest),
        _quantity(network, "loss", "loss", LOSS, of_the_largest),
        _quantity(network, "gradient of every parameter", "gradients", GRADIENTS, of_the_gradient),
    )
]
