"""Settings of the network, and its sizes by name."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import tyro

from ddpm_shared.config.checks import LARGEST_COUNT, is_whole, positive, require, whole
from ddpm_shared.errors import choice

Preset = Literal["tiny", "small", "base", "large", "colour", "score-transformer"]
NetworkName = Literal["unet", "transformer_unet"]

LEVELS = 16  # so many take an image of 2**15 x 2**15 pixels to a single one
CLASSES = 100_000  # the largest data set with labels in common use has 21,841
FOURIER_SCALE = 1e6  # at the largest, an angle keeps ten digits in float64; published networks have 16 to 30
RES_BLOCKS = 100  # in a level; published U-Nets have 2 to 4, and to make thousands takes a framework many minutes


@dataclass(frozen=True)
class ModelConfig:
    """The network. Level i works at size / 2**i (rounded up) with base_channels * channel_mults[i] channels."""

    base_channels: int = 32
    """Channels of the first level."""
    channel_mults: tuple[int, ...] = (1, 2, 4)
    """Channels of each level, as multiples of --base-channels."""
    num_res_blocks: int = 1
    """Residual blocks per level on the way down; one more on the way up. transformer_unet has none."""
    attention_resolutions: tuple[int, ...] = (7,)
    """Sizes (height = width) at which self-attention follows every residual block. In transformer_unet, the sizes of
    the two deepest levels, where its transformers are."""
    num_groups: int = 2
    """Groups of every GroupNorm. With fewer than 16 channels in a group, PyTorch is several times slower on a CPU."""
    network: NetworkName = "unet"
    """Kind of network. unet: Ho et al.'s. transformer_unet: one convolution per level, transformers at the two deepest
    levels, random Fourier features of the time."""
    context_tokens: int = 1
    """Tokens that cross-attention looks at. 1: the class. 2: the class and the null label, so that it has something to
    choose from. For transformer_unet."""
    fourier_scale: float = 30.0
    """Standard deviation of the frequencies of the time's random Fourier features, in periods per unit of time. For
    transformer_unet."""
    image_size: Annotated[int, tyro.conf.Suppress] = 28
    """Height and width of the images. No flag: it comes from the data (config.fitted)."""
    image_channels: Annotated[int, tyro.conf.Suppress] = 1
    """Channels of the images. No flag: they come from the data (config.fitted)."""
    num_classes: Annotated[int, tyro.conf.Suppress] = 0
    """Classes that the network is given as labels; 0 for none. No flag: they come from the data (config.fitted)."""

    def __post_init__(self) -> None:
        choice("network", self.network, get_args(NetworkName))
        counts = (self.num_res_blocks, self.num_groups, self.image_size, self.image_channels)
        require(
            all(is_whole(count) and count >= 1 for count in counts),
            "--num-res-blocks, --num-groups, --image-size, --image-channels",
            counts,
            "must all be 1 or more",
        )
        require(
            len(self.channel_mults) > 0 and all(is_whole(mult) and mult >= 1 for mult in self.channel_mults),
            "--channel-mults",
            self.channel_mults,
            "needs one positive number per level",
        )
        require(
            len(self.channel_mults) <= LEVELS and max(self.channel_mults) <= LARGEST_COUNT,
            "--channel-mults",
            self.channel_mults,
            f"must be {LEVELS} numbers at most, each at most {LARGEST_COUNT:,}: every level halves the images",
        )
        require(
            is_whole(self.base_channels)
            and self.base_channels >= 4
            and self.base_channels % 2 == 0
            and self.base_channels % self.num_groups == 0,
            "--base-channels",
            self.base_channels,
            f"must be even, 4 or more and a multiple of --num-groups {self.num_groups}",
        )
        whole(self, "num_res_blocks", most=RES_BLOCKS)
        whole(self, "base_channels", "num_groups", "image_size", "image_channels")
        whole(self, "num_classes", least=0, most=CLASSES)
        require(
            all(map(is_whole, self.attention_resolutions)) and set(self.attention_resolutions) <= set(self.resolutions),
            "--attention-resolutions",
            self.attention_resolutions,
            f"the levels of this network work at {self.resolutions}",
        )
        whole(self, "context_tokens", most=2)
        positive(self, "fourier_scale", most=FOURIER_SCALE)
        (self._check_unet if self.network == "unet" else self._check_transformer_unet)()

    def _check_unet(self) -> None:
        rule = "is for --network transformer_unet; leave it out, or choose that network"
        require(self.context_tokens == 1, "--context-tokens", self.context_tokens, rule)
        require(self.fourier_scale == 30.0, "--fourier-scale", self.fourier_scale, rule)

    def _check_transformer_unet(self) -> None:
        require(
            self.num_res_blocks == 1,
            "--num-res-blocks",
            self.num_res_blocks,
            "is for --network unet; transformer_unet has one convolution per level: leave it out",
        )
        deepest = self.resolutions[-2:]
        require(
            set(self.attention_resolutions) == set(deepest),
            "--attention-resolutions",
            self.attention_resolutions,
            f"transformer_unet has its transformers at the two deepest levels: give {' '.join(map(str, deepest))}",
        )

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Height and width at each level, e.g. (28, 14, 7); an odd size is halved upwards, 7 -> 4."""
        return _resolutions(self.image_size, len(self.channel_mults))

    def at(self, image_size: int) -> "ModelConfig":
        """The same network for images of another size: attention stays at its levels, e.g. 7 of 28 becomes 8 of 32."""
        resolutions = _resolutions(image_size, len(self.channel_mults))
        levels = (self.resolutions.index(size) for size in self.attention_resolutions)
        attention = tuple(dict.fromkeys(resolutions[level] for level in levels))
        if self.network == "transformer_unet":
            attention = tuple(dict.fromkeys(resolutions[-2:]))
        return dataclasses.replace(self, image_size=image_size, attention_resolutions=attention)


def _resolutions(image_size: int, levels: int) -> tuple[int, ...]:
    sizes = [image_size]
    while len(sizes) < levels:
        sizes.append((sizes[-1] + 1) // 2)
    return tuple(sizes)


PRESETS: dict[str, ModelConfig] = {
    "tiny": ModelConfig(
        base_channels=16, channel_mults=(1, 2), num_res_blocks=1, attention_resolutions=(), num_groups=1
    ),
    "small": ModelConfig(),
    "base": ModelConfig(num_res_blocks=2),
    "large": ModelConfig(
        base_channels=64, channel_mults=(1, 2, 4, 8), num_res_blocks=2, attention_resolutions=(4,), num_groups=4
    ),
    "colour": ModelConfig(attention_resolutions=(8,), image_size=32, image_channels=3),
    "score-transformer": ModelConfig(
        network="transformer_unet", channel_mults=(1, 2, 4, 8), attention_resolutions=(7, 4)
    ),
}
