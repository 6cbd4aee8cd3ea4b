"""Networks that were trained elsewhere in PyTorch: ours computes the same numbers, goes on from them and draws."""

import dataclasses
import functools
import json
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import safetensors.numpy
from conftest import require
from numpy.testing import assert_array_equal

from ddpm_parity.sides import draw
from ddpm_shared import command_line, datasets
from ddpm_shared.config import NetworkName
from ddpm_shared.errors import UserError
from ddpm_shared.exchange import convert, layouts, steps
from ddpm_shared.records import checkpoint

LOAD = functools.cache(datasets.load)  # the images are unpacked once
T = np.array([0, 1, 37, 500, 999])
SIGMAS = np.array([0.02, 0.3, 1.0, 7.0, 50.0])
LABELS = np.array([3, 0, 9, 5, 10])  # 10: none

# Largest gap of an output, in units of the largest output. Measured: 8.7e-15 at most.
EQUAL = 1e-12
WRONG = 1e-3  # a planted fault moves an output by at least so much


def diffusers_unet(flip: bool = False, **changes: Any) -> Any:
    """diffusers' own network, with an embedding of the time that is not rounded to float32."""
    from diffusers import UNet2DModel
    from foreign.times import SinusoidalPositionEmbeddings
    from torch import nn

    settings = {
        "sample_size": 28,
        "in_channels": 1,
        "out_channels": 1,
        "layers_per_block": 2,
        "block_out_channels": (8, 16, 24),
        "norm_num_groups": 4,
        "down_block_types": ("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        "attention_head_dim": None,
        "num_class_embeds": 11,
        "freq_shift": 1,
        "flip_sin_to_cos": flip,
    }
    network = UNet2DModel(**settings | changes)

    class Flipped(SinusoidalPositionEmbeddings):
        def forward(self, time):
            return super().forward(time).roll(self.dim // 2, 1)

    network.time_proj = (Flipped if flip else SinusoidalPositionEmbeddings)(8)

    class Called(nn.Module):
        def forward(self, x, t, y):
            return network(x, t, y).sample

    called = Called()
    called.state_dict, called.parameters = network.state_dict, network.parameters
    return called


class Case(NamedTuple):
    """A network of somebody's, and what is expected of its import."""

    make: Callable[[], Any]
    network: NetworkName
    layout: str
    flags: str = ""
    model: dict[str, Any] = {}  # noqa: RUF012 (never changed)
    labelled: bool = True
    null: bool = True  # whether it can be given the null label
    given: bool = False  # whether --layout must be
    times: Any = T  # what theirs is given
    ours: Any = None  # what ours is given, if that is another


def made(module: str, kind: str, **settings: Any) -> Callable[[], Any]:
    def make() -> Any:
        return getattr(__import__(f"foreign.{module}", fromlist=[kind]), kind)(**settings)

    return make


CASES = {
    "diffusers": Case(
        diffusers_unet,
        "unet",
        "diffusers",
        "--num-groups 4",
        {"base_channels": 8, "channel_mults": (1, 2, 3), "num_res_blocks": 2, "attention_resolutions": (7,)},
    ),
    "diffusers, cosines first": Case(
        functools.partial(diffusers_unet, flip=True, num_class_embeds=None),
        "unet",
        "diffusers-cos-first",
        "--num-groups 4",
        labelled=False,
        given=True,
    ),
    "resnet": Case(
        made("residual_unet", "ResUNet"),
        "residual_unet",
        "resnet",
        "--attention-heads 4",
        {"base_channels": 8, "channel_mults": (1, 2, 3), "attention_blocks": 1, "time_channels": 16},
        labelled=False,
    ),
    "resnet with classes": Case(
        made("residual_unet", "ResUNet", attentions=2, classes=10),
        "residual_unet",
        "resnet",
        "--attention-heads 4",
        {"attention_blocks": 2, "num_classes": 10},
        null=False,
    ),
    "resnet without attention": Case(
        made("residual_unet", "ResUNet", attentions=0, widths=(8, 16)),
        "residual_unet",
        "resnet",
        "",
        {"attention_blocks": 0, "channel_mults": (1, 2)},
        labelled=False,
    ),
    "sketch": Case(
        made("simple_unet", "SimpleUNet"),
        "simple_unet",
        "sketch",
        "",
        {"base_channels": 8, "channel_mults": (1, 2, 3), "time_channels": 12},
        null=False,
    ),
    "sketch, whole times": Case(
        made("simple_unet", "SimpleUNet", whole_time=True, widths=(8, 16)),
        "simple_unet",
        "sketch-whole-time",
        null=False,
        given=True,
    ),
    "two convolutions": Case(
        made("denoise_net", "Sequential"), "denoise_net", "sequential", "", {"uses_time": False}, labelled=False
    ),
    "two convolutions with time": Case(
        made("denoise_net", "WithTime"), "denoise_net", "with-time", "", {"time_channels": 20}, labelled=False
    ),
    "two convolutions with time, alternating": Case(
        made("denoise_net", "WithTime", alternating=True),
        "denoise_net",
        "with-time-alternating",
        "",
        {"time_channels": 22},
        labelled=False,
        given=True,
    ),
    "score notebook": Case(
        made("transformer_unet", "UNetTransformer"),
        "transformer_unet",
        "score-notebook",
        "--process ve_exponential",
        {"base_channels": 8, "channel_mults": (1, 2, 3, 4), "attention_resolutions": (7, 4)},
        null=False,
        times=np.array([0.001, 0.1, 0.3, 0.7, 1.0]),
    ),
    "facebook": Case(
        made("dit", "DiT"),
        "dit",
        "facebook",
        "--attention-heads 3",
        {"base_channels": 24, "depth": 2, "patch_size": 4, "time_channels": 22},
    ),
    "facebook, learned variance": Case(
        made("dit", "DiT", learn_sigma=True, patch=2, depth=1), "dit", "facebook", "--attention-heads 3"
    ),
    "smalldiffusion": Case(
        made("dit", "SmallDiT"),
        "dit",
        "smalldiffusion",
        "--attention-heads 3",
        times=SIGMAS,
        ours=np.log(SIGMAS) / 2,
    ),
}


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "load", LOAD)


@functools.cache
def elsewhere(name):
    """A network of somebody's in float64, with random weights: the zeros of a start would hide whole branches."""
    require("torch")
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        network = CASES[name].make()
        network.eval()
        generator = torch.Generator().manual_seed(1)
        state = network.state_dict()
        with torch.no_grad():
            for key, value in state.items():
                if not value.is_floating_point() or key == "pos_embed":
                    continue
                noise = torch.randn(value.shape, generator=generator)
                if key.endswith("running_var"):
                    value.copy_(0.5 + noise.abs())
                else:
                    scale = 1 / math.sqrt(math.prod(value.shape[1:])) if value.ndim > 1 else 0.3
                    value.copy_(value.ndim == 1 and key.endswith("weight")).add_(noise, alpha=scale)
                if key.endswith(".W"):
                    value.mul_(3)
        arrays = {
            key: value.detach().double().numpy().copy() for key, value in state.items() if value.is_floating_point()
        }
    finally:
        torch.set_default_dtype(before)
    return network, arrays


def saved(path, tensors, **more):
    safetensors.numpy.save_file({**{key: np.ascontiguousarray(value) for key, value in tensors.items()}, **more}, path)
    return path


def flags(name, path, folder, *more):
    case = CASES[name]
    layout = ["--layout", case.layout] if case.given else []
    where = ["--weights", str(path), "--run-dir", str(folder), "--dataset", "fashion-mnist-10k"]
    return [*where, "--network", case.network, *layout, *case.flags.split(), *more]


def theirs(name, x, labels):
    """What their network makes of images [B, H, W, C], as ours gives it."""
    import torch

    network, _ = elsewhere(name)
    y = None if labels is None else torch.from_numpy(labels)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            output = network(torch.from_numpy(x).permute(0, 3, 1, 2), torch.from_numpy(CASES[name].times).double(), y)
    finally:
        torch.set_default_dtype(before)
    return output.permute(0, 2, 3, 1).numpy()


def ours(side, name, x, labels, loaded):
    network = side.model.load(loaded, "ema", loaded.config)
    times = side.times(CASES[name].times if CASES[name].ours is None else CASES[name].ours)
    return side.array(network(side.tensor(x), times, *([] if labels is None else [side.labels(labels)])))


def images(count=len(T)):
    return draw(count, 28, 28, 1)


def gap(a, b):
    assert a.shape == b.shape
    return np.abs(a - b).max() / np.abs(b).max()


# --- The same numbers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_an_imported_network_computes_what_it_computed_elsewhere(tree, side_of, tmp_path, name):
    """Otherwise somebody goes on with a network that is not the one that was trained."""
    case, side = CASES[name], side_of("fp64")
    _, tensors = elsewhere(name)
    counts = {
        f"{key.removesuffix('running_var')}num_batches_tracked": np.int64(7) for key in tensors if "running_var" in key
    }
    path = saved(tmp_path / "x.safetensors", tensors, **{key: np.asarray(value) for key, value in counts.items()})
    assert tree.exchange.main(flags(name, path, tmp_path / "run", "--precision", "fp64")) == 0
    loaded = checkpoint.load(tmp_path / "run" / "checkpoints" / "step_00000000.safetensors")
    assert {key: getattr(loaded.config.model, key) for key in case.model} == case.model
    assert loaded.config.class_conditional == case.labelled
    assert json.loads((tmp_path / "run" / "imported.json").read_text())["layout"] == case.layout
    labels = None if not case.labelled else LABELS if case.null else LABELS % 10
    assert gap(ours(side, name, images(), labels, loaded), theirs(name, images(), labels)) < EQUAL
    if case.labelled and not case.null and case.network != "transformer_unet":  # no label: nothing is added
        assert gap(ours(side, name, images(), None, loaded), theirs(name, images(), None)) < EQUAL
    for key, value in loaded.tensors.items():
        place, _, rest = key.partition("/")
        if place == "model":
            assert_array_equal(value, loaded.tensors[f"ema/{rest}"])
        assert place not in ("adam_m", "adam_v") or not value.any()
