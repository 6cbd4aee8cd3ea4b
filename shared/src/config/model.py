"""Settings of the network, and its sizes by name."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import tyro

from ddpm_shared.config.checks import LARGEST_COUNT, flag, is_whole, positive, require, whole
from ddpm_shared.errors import choice

Preset = Literal[
    "tiny",
    "small",
    "base",
    "large",
    "colour",
    "score-transformer",
    "residual-batchnorm",
    "simple-unet",
    "two-convolutions",
    "dit-small",
]
NetworkName = Literal["unet", "transformer_unet", "residual_unet", "simple_unet", "denoise_net", "dit"]
ActivationName = Literal["silu", "relu", "gelu", "tanh"]

LEVELS = 16  # so many take an image of 2**15 x 2**15 pixels to a single one
CLASSES = 100_000  # the largest data set with labels in common use has 21,841
FOURIER_SCALE = 30.0  # for times from 0 to 1
LARGEST_FOURIER_SCALE = 1e6  # at the largest, an angle keeps ten digits in float64; published networks have 16 to 30
BLOCKS = 100  # in a level, or of a transformer; published ones have 2 to 28, and thousands take many minutes to make

# The settings that are not for every network, with the networks that they are for.
SETTINGS_OF: dict[str, tuple[NetworkName, ...]] = {
    "channel_mults": ("unet", "transformer_unet", "residual_unet", "simple_unet"),
    "num_res_blocks": ("unet",),
    "attention_resolutions": ("unet", "transformer_unet"),
    "num_groups": ("unet", "transformer_unet"),
    "context_tokens": ("transformer_unet",),
    "fourier_scale": ("transformer_unet",),
    "activation": ("residual_unet", "simple_unet", "denoise_net"),
    "attention_heads": ("residual_unet", "dit"),
    "attention_blocks": ("residual_unet",),
    "time_channels": ("residual_unet", "simple_unet", "denoise_net", "dit"),
    "uses_time": ("denoise_net",),
    "patch_size": ("dit",),
    "depth": ("dit",),
}
# Settings that runs of older versions do not state: theirs are the defaults.
LATER_SETTINGS = (
    "network",
    "num_classes",
    "context_tokens",
    "fourier_scale",
    "activation",
    "attention_heads",
    "attention_blocks",
    "time_channels",
    "uses_time",
    "patch_size",
    "depth",
)
# What they are where they are not used, if that is not their default.
UNUSED: dict[str, object] = {"channel_mults": (1,), "attention_resolutions": ()}


@dataclass(frozen=True)
class ModelConfig:
    """The network. Level i works at size / 2**i (rounded up) with base_channels * channel_mults[i] channels."""

    base_channels: int = 32
    """Channels of the first level."""
    channel_mults: tuple[int, ...] = (1, 2, 4)
    """Channels of each level, as multiples of --base-channels."""
    num_res_blocks: int = 1
    """Residual blocks per level on the way down; one more on the way up. For unet."""
    attention_resolutions: tuple[int, ...] = (7,)
    """Sizes (height = width) at which self-attention follows every residual block. In transformer_unet, the sizes of
    the two deepest levels, where its transformers are. The other networks have none."""
    num_groups: int = 2
    """Groups of every GroupNorm. With fewer than 16 channels in a group, PyTorch is several times slower on a CPU."""
    network: NetworkName = "unet"
    """Kind of network. unet: Ho et al.'s. transformer_unet: one convolution per level, transformers at the two deepest
    levels, random Fourier features of the time. residual_unet: BatchNorm, and attention at the deepest level.
    simple_unet: convolutions alone, the time a plain number. denoise_net: two convolutions. dit: a transformer of
    patches. Their sizes are presets."""
    context_tokens: int = 1
    """Tokens that cross-attention looks at. 1: the class. 2: the class and the null label, so that it has something to
    choose from. For transformer_unet."""
    fourier_scale: float = FOURIER_SCALE
    """Standard deviation of the frequencies of the time's random Fourier features, in periods per unit of time. For
    transformer_unet."""
    activation: ActivationName = "silu"
    """Function between the layers. For residual_unet, simple_unet and denoise_net."""
    attention_heads: int = 1
    """Heads of every attention. For residual_unet and dit."""
    attention_blocks: int = 1
    """Blocks of attention at the deepest level; 0 for none. For residual_unet."""
    time_channels: int = 128
    """Numbers that the time becomes first. For residual_unet, simple_unet, denoise_net and dit."""
    uses_time: bool = True
    """Give the network the time. For denoise_net."""
    patch_size: int = 2
    """Height and width of the patches that an image is cut into. For dit."""
    depth: int = 6
    """Transformer blocks. For dit."""
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
        whole(self, "num_res_blocks", "depth", most=BLOCKS)
        whole(self, "attention_blocks", least=0, most=BLOCKS)
        whole(self, "base_channels", "num_groups", "image_size", "image_channels", "attention_heads", "patch_size")
        whole(self, "num_classes", least=0, most=CLASSES)
        require(
            all(map(is_whole, self.attention_resolutions)) and set(self.attention_resolutions) <= set(self.resolutions),
            "--attention-resolutions",
            self.attention_resolutions,
            f"the levels of this network work at {self.resolutions}",
        )
        whole(self, "context_tokens", most=2)
        positive(self, "fourier_scale", most=LARGEST_FOURIER_SCALE)
        choice("activation", self.activation, get_args(ActivationName))
        require(
            is_whole(self.time_channels) and 4 <= self.time_channels <= LARGEST_COUNT and self.time_channels % 2 == 0,
            "--time-channels",
            self.time_channels,
            f"must be even, from 4 to {LARGEST_COUNT:,}",
        )
        self._check_unused()
        self._check_network()

    def _check_unused(self) -> None:
        defaults = {field.name: field.default for field in dataclasses.fields(self)} | UNUSED
        for name, networks in SETTINGS_OF.items():
            value = getattr(self, name)
            require(
                self.network in networks or value == defaults[name],
                flag(name),
                value,
                f"is for --network {' or '.join(networks)}, and this is {self.network}; leave it out, or take one of "
                "its presets",
            )

    def _check_network(self) -> None:
        deepest = self.channels_at(-1)
        if self.network == "transformer_unet":
            sizes = self.resolutions[-2:]
            require(
                set(self.attention_resolutions) == set(sizes),
                "--attention-resolutions",
                self.attention_resolutions,
                f"transformer_unet has its transformers at the two deepest levels: give {' '.join(map(str, sizes))}",
            )
        if self.network in SETTINGS_OF["attention_heads"]:
            require(
                deepest % self.attention_heads == 0,
                "--attention-heads",
                self.attention_heads,
                f"must divide the {deepest} channels of the attention",
            )
        if self.network == "dit":
            require(
                self.image_size % self.patch_size == 0,
                "--patch-size",
                self.patch_size,
                f"must divide the size of the images, {self.image_size}",
            )
            require(
                self.base_channels % 4 == 0 and self.base_channels >= 8,
                "--base-channels",
                self.base_channels,
                "must be a multiple of 4, and 8 or more, for the positions of dit",
            )

    def channels_at(self, level: int) -> int:
        """Channels of a level, counted from 0, or from -1 backwards."""
        return self.base_channels * self.channel_mults[level]

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
    "residual-batchnorm": ModelConfig(
        network="residual_unet",
        base_channels=64,
        channel_mults=(1, 2, 4, 8),
        attention_resolutions=(),
        activation="relu",
        attention_heads=8,
    ),
    "simple-unet": ModelConfig(
        network="simple_unet",
        base_channels=64,
        attention_resolutions=(),
        time_channels=100,
        image_size=32,
        image_channels=3,
    ),
    "two-convolutions": ModelConfig(
        network="denoise_net",
        base_channels=64,
        channel_mults=(1,),
        attention_resolutions=(),
        activation="relu",
        uses_time=False,
    ),
    "dit-small": ModelConfig(
        network="dit",
        base_channels=192,
        channel_mults=(1,),
        attention_resolutions=(),
        attention_heads=6,
        time_channels=256,
    ),
}

# The preset that shows a network, whose sizes --network alone takes.
PRESET_OF: dict[NetworkName, Preset] = {
    "unet": "small",
    "transformer_unet": "score-transformer",
    "residual_unet": "residual-batchnorm",
    "simple_unet": "simple-unet",
    "denoise_net": "two-convolutions",
    "dit": "dit-small",
}
