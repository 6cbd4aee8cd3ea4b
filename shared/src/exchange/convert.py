"""The weights of another implementation as those of ours: every name is accounted for, or nothing is taken."""

import fnmatch
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ddpm_shared.config import Config
from ddpm_shared.errors import UserError
from ddpm_shared.exchange.layouts import Layout, Module
from ddpm_shared.exchange.steps import FIXED, STEPS, Array, Source
from ddpm_shared.reading import listed, name_of, one_line

Tensors = Mapping[str, NDArray[np.floating]]
SHOWN = 5  # faults of a kind in a message
CLOSE = 1e-5  # a fixed embedding that was rounded to float32 is off by 6e-8


class Conversion:
    """One pass over the tensors of a file.

    Args:
        layout: whose names they have.
        config: of our network.
        tensors: those of the file.
    """

    def __init__(self, layout: Layout, config: Config, tensors: Tensors) -> None:
        self.layout, self.tensors = layout, tensors
        model = config.model
        counts = {"levels": len(model.channel_mults), "blocks": model.num_res_blocks, "depth": model.depth}
        self.modules = layout.modules(counts | {"attentions": model.attention_blocks})
        time = layout.values.get("time", "sin_cos, half - 1")
        self.source = Source(time, config.diffusion.timesteps, self._take)
        self.used: set[str] = set()
        self.missing: list[str] = []
        self.wrong: list[str] = []

    def _take(self, name: str) -> Array:
        if name not in self.tensors:
            raise KeyError(name)
        self.used.add(name)
        return self.tensors[name].astype(np.float64)

    def all(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
        """Ours by name, each of the shape that the network has. What is wrong is noted in `missing` and `wrong`."""
        values = {}
        for name, shape in shapes.items():
            module, _, leaf = name.rpartition(".")
            if module not in self.modules:
                self.missing.append(f"any name for our {name} in the layout")
                continue
            try:
                value = self._value(self.modules[module], leaf, shape)
            except KeyError as absent:
                self.missing.append(f"{absent.args[0]} (our {name})")
                continue
            except (ValueError, IndexError, TypeError):
                value = None
            if value is None or value.shape != shape:
                theirs = [self._name(piece, leaf) for piece, _, _ in self.modules[module].pieces]
                held = ", ".join(f"{each} {self.tensors[each].shape}" for each in dict.fromkeys(theirs))
                gives = (
                    "" if value is None or value.shape == self.tensors[theirs[0]].shape else f"gives {value.shape}, "
                )
                self.wrong.append(f"{held} {gives}for our {name} {shape}")
                continue
            values[name] = value
        return values

    def _value(self, module: Module, leaf: str, shape: tuple[int, ...]) -> Array:
        parts = []
        for piece, part, count in module.pieces:
            name = self._name(piece, leaf)
            if leaf == "bias" and module.bias_may_be_absent and name not in self.tensors:
                return np.zeros(shape)  # a map without a bias adds nothing
            whole = self._take(name)
            parts.append(np.split(whole, count)[part])  # ValueError: it cannot be cut into so many
        value = np.concatenate(parts) if len(parts) > 1 else parts[0]
        for name, *arguments in module.steps:
            value = STEPS[name](value, shape, self.source, *arguments)
        bias = f"{module.less_bias_of}.bias"
        if leaf == "running_mean" and bias in self.tensors:
            # norm(x + b) with the mean m is norm(x) with the mean m - b: the convolution before it needs no bias.
            value = value - self._take(bias)
        return value

    @staticmethod
    def _name(piece: str, leaf: str) -> str:
        """The tensor of a piece: conv -> conv.weight, mha.in_proj_ -> mha.in_proj_weight, =time.W -> time.W."""
        if piece.startswith("="):
            return piece[1:]
        return f"{piece}{leaf}" if piece.endswith("_") else f"{piece}.{leaf}"

    def check_fixed(self) -> None:
        """Compare what the file holds of fixed embeddings with those that our network computes."""
        for name, kind in self.layout.values.get("fixed", {}).items():
            if name not in self.tensors:
                continue
            self.used.add(name)
            value = self.tensors[name]
            tokens, dim = value.shape[-2:] if value.ndim >= 2 else (1, 4)
            wanted = FIXED[kind](tokens, dim)
            if value.size != wanted.size or np.abs(value.reshape(wanted.shape) - wanted).max() > CLOSE:
                self.wrong.append(f"{name} {value.shape} is not the fixed embedding that our network has in its place")

    def unknown(self) -> list[str]:
        """Names in the file that nothing of ours takes, and that the layout does not drop."""
        patterns = self.layout.values.get("dropped", {})
        left = (name for name in self.tensors if name not in self.used)
        return sorted(name for name in left if not any(fnmatch.fnmatchcase(name, each) for each in patterns))


def converted(
    layout: Layout, config: Config, tensors: Tensors, shapes: Mapping[str, tuple[int, ...]], source: str
) -> dict[str, Array]:
    """Our weights and buffers by canonical name, float64.

    Args:
        layout: whose names the tensors have.
        config: of our network.
        tensors: those of the file.
        shapes: canonical names and shapes of our network's parameters and buffers.
        source: the file, for messages.

    Raises:
        UserError: names that are missing or unknown, wrong shapes, numbers that are not finite; all of them are listed.
    """
    conversion = Conversion(layout, config, tensors)
    values = conversion.all(shapes)
    conversion.check_fixed()
    faults = []
    if conversion.missing:
        faults.append(f"missing {_listed(conversion.missing)}")
    if unknown := conversion.unknown():
        faults.append(f"unknown {listed(unknown)}")
    if conversion.wrong:
        faults.append(f"of another shape {_listed(conversion.wrong)}")
    if broken := sorted(name for name in conversion.used if not np.isfinite(tensors[name]).all()):
        faults.append(f"with NaN or infinite values {listed(broken)}")
    if faults:
        raise UserError(
            f"{name_of(source)} does not fit {config.model.network} as layout {one_line(layout.name, 60)} names it: "
            f"{'; '.join(faults)}. Give the flags of its sizes, or another --layout"
        )
    return values


def _listed(faults: list[str]) -> str:
    """As reading.listed, for a name of theirs, one of ours and their shapes."""
    more = f" and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
    return ", ".join(one_line(fault) for fault in faults[:SHOWN]) + more
