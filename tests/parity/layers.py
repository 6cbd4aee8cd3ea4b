"""Every kind of layer alone, with its gradients: where a whole network would not say which one is wrong.

Heights and widths are even and odd, and one kernel's two sides differ, so that no transposition hides.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from ddpm_parity.quantities import Arrays, Quantity, of_the_largest
from ddpm_parity.sides import Array, Side, draw, random_parameters
from ddpm_parity.tolerances import LAYERS
from ddpm_shared.config import ModelConfig
from ddpm_shared.oracle.networks import Network, gradients_of

CONFIG = ModelConfig(base_channels=8, num_groups=4)  # two channels a group, or more
D = 4 * CONFIG.base_channels


@dataclass(frozen=True)
class Layer:
    """One layer: how a tree makes it, how the oracle computes it, and the shapes of its inputs."""

    make: Callable[[Any], Any]
    oracle: Callable[..., Any]  # of a Network and the inputs
    inputs: tuple[tuple[int, ...], ...]
    network: Callable[..., Network] = Network
    config: ModelConfig = CONFIG


def _wider(side: Any) -> Any:
    return side.block("ResidualBlock", 8, 12, CONFIG)


KINDS = {
    "Linear": Layer(lambda side: _wider(side).time, lambda n, x: n.linear("layer", x), ((3, D),)),
    "GroupNorm": Layer(lambda side: _wider(side).norm_2, lambda n, x: n.group_norm("layer", x), ((2, 5, 4, 12),)),
    "Conv2d 1x1": Layer(lambda side: _wider(side).skip, lambda n, x: n.convolution("layer", x), ((2, 5, 4, 8),)),
    "Conv2d 3x3": Layer(lambda side: _wider(side).conv_1, lambda n, x: n.convolution("layer", x), ((2, 5, 4, 8),)),
    "Conv2d 3x5": Layer(
        lambda side: side.convolution(3, 4, (3, 5)), lambda n, x: n.convolution("layer", x), ((2, 6, 7, 3),)
    ),
    "Downsample, even sizes": Layer(
        lambda side: side.block("Downsample", 3), lambda n, x: n.downsample("layer", x), ((2, 6, 8, 3),)
    ),
    "Downsample, odd sizes": Layer(
        lambda side: side.block("Downsample", 3), lambda n, x: n.downsample("layer", x), ((2, 7, 5, 3),)
    ),
    "Upsample, even size": Layer(
        lambda side: side.block("Upsample", 3, 8), lambda n, x: n.upsample("layer", x, 8), ((2, 4, 4, 3),)
    ),
    "Upsample, odd size": Layer(
        lambda side: side.block("Upsample", 3, 7), lambda n, x: n.upsample("layer", x, 7), ((2, 4, 4, 3),)
    ),
    "ResidualBlock, equal widths": Layer(
        lambda side: side.block("ResidualBlock", 8, 8, CONFIG),
        lambda n, x, emb: n.residual_block("layer", x, emb),
        ((2, 5, 4, 8), (2, D)),
    ),
    "ResidualBlock, wider": Layer(_wider, lambda n, x, emb: n.residual_block("layer", x, emb), ((2, 5, 4, 8), (2, D))),
    "AttentionBlock": Layer(
        lambda side: side.block("AttentionBlock", 8, CONFIG),
        lambda n, x: n.attention_block("layer", x),
        ((2, 5, 4, 8),),
    ),
    "Stage with attention": Layer(
        lambda side: side.block("Stage", 8, 12, True, CONFIG),
        lambda n, x, emb: n.stage("layer", x, emb),
        ((2, 3, 5, 8), (2, D)),
    ),
}


def output_and_gradients(side: Side, layer: Layer) -> Arrays:
    """Output, and the gradients of a random weighting of it, of the layer's parameters and inputs."""
    inputs = [draw(*shape, seed=seed) for seed, shape in enumerate(layer.inputs)]
    if side.name == "oracle":
        parameters = random_parameters(side.shapes_of(lambda torch: layer.make(torch)))
        arrays = parameters | {f"input {index}": x for index, x in enumerate(inputs)}

        def output_of(arrays: Arrays) -> Array:
            values = {f"layer.{name}": arrays[name] for name in parameters}
            return layer.oracle(
                layer.network(values, layer.config), *(arrays[f"input {i}"] for i in range(len(inputs)))
            )

        weighting = draw(*output_of(arrays).shape, seed=9)
        output, gradients = gradients_of(output_of, arrays, weighting)
        return {"output": output, **gradients}
    module = layer.make(side)
    tensors = [side.tensor(x) for x in inputs]
    output = side.array(module(*tensors))  # Keras makes the weights at the first call
    side.assign(module, random_parameters(side.shapes(module)))
    weighting = side.tensor(draw(*output.shape, seed=9))
    output, _, gradients, of_inputs = side.value_and_gradients(module, tensors, lambda y: side.dot(y, weighting))
    return {"output": output, **gradients, **of_inputs}


QUANTITIES = [
    Quantity("layers", kind, partial(output_and_gradients, layer=layer), LAYERS, of_the_largest)
    for kind, layer in KINDS.items()
]
