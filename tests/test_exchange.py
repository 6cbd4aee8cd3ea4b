"""Networks that were trained elsewhere in PyTorch: ours computes the same numbers, goes on from them and draws."""

import functools
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import pytest
import safetensors.numpy
from conftest import require
from numpy.testing import assert_array_equal

from ddpm_parity.sides import draw
from ddpm_parity.torch_side import Torch
from ddpm_shared import datasets, validation
from ddpm_shared.config import NetworkName
from ddpm_shared.errors import UserError
from ddpm_shared.exchange import layouts, steps
from ddpm_shared.records import checkpoint

ROOT = Path(__file__).resolve().parent.parent
LOAD = functools.cache(datasets.load)  # the images are unpacked once
T = np.array([0, 1, 37, 500, 999])
SIGMAS = np.array([0.02, 0.3, 1.0, 7.0, 50.0])
LABELS = np.array([3, 0, 9, 5, 10])  # 10: none

# Largest gap of an output, in units of the largest output, in float64. Measured: 4.8e-15 at most, of the embedding in
# turns, whose frequencies are computed in another way.
EQUAL = 1e-13
WRONG = 1e-3  # a planted fault moves an output by at least so much; measured: 1.9e-2 at least


def diffusers_unet(flip: bool = False, **changes: Any) -> Any:
    """UNet2DModel of diffusers, with an embedding of the time that is not rounded to float32."""
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
    data: str = "fashion-mnist-10k"


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
    "facebook, colour": Case(
        made("dit", "DiT", channels=3, size=32, classes=9),
        "dit",
        "facebook",
        "--attention-heads 3",
        {"image_channels": 3, "image_size": 32, "patch_size": 4, "num_classes": 9},
        data="emoji",
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
    where = ["--weights", str(path), "--run-dir", str(folder), "--dataset", case.data]
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


def labels_of(name):
    case, classes = CASES[name], 9 if CASES[name].data == "emoji" else 10
    if not case.labelled:
        return None
    return np.minimum(LABELS, classes) if case.null else LABELS % classes


def images(name):
    size, channels = (32, 3) if CASES[name].data == "emoji" else (28, 1)
    return draw(len(T), size, size, channels)


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
    labels = labels_of(name)
    assert gap(ours(side, name, images(name), labels, loaded), theirs(name, images(name), labels)) < EQUAL
    if case.labelled and not case.null and case.network != "transformer_unet":  # no label: nothing is added
        assert gap(ours(side, name, images(name), None, loaded), theirs(name, images(name), None)) < EQUAL
    for key, value in loaded.tensors.items():
        place, _, rest = key.partition("/")
        if place == "model":
            assert_array_equal(value, loaded.tensors[f"ema/{rest}"])
        assert place not in ("adam_m", "adam_v") or not value.any()


def imported(side, tmp_path, name, tensors=None, *more):
    """The checkpoint that the PyTorch tree makes of a case, in float64."""
    path = saved(tmp_path / "x.safetensors", elsewhere(name)[1] if tensors is None else tensors)
    folder = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
    assert side.exchange.main(flags(name, path, folder, "--precision", "fp64", *more)) == 0
    return checkpoint.load(folder / "checkpoints" / "step_00000000.safetensors")


# --- Faults of a mapping, planted ---------------------------------------------------------------------------


def rewritten(change):
    """A fault: the mapping files say what `change` makes of their text."""

    def plant(patch):
        packaged = layouts._packaged
        patch.setattr(layouts, "_packaged", lambda network: json.loads(change(json.dumps(packaged(network)))))

    return plant


def text(old, new):
    """A fault: `old` stands as `new` in the mapping files."""
    return rewritten(lambda mapping: mapping.replace(old, new))


def exchanged(first, second):
    """A fault: two places of the mapping files, the one for the other."""
    return rewritten(lambda mapping: mapping.replace(first, "@").replace(second, first).replace("@", second))


def dropped(folded, pattern):
    """A fault: a bias is dropped instead of taken into a running mean."""

    def plant(patch):
        text(f'"less_bias_of": "{folded}"', '"less_bias_of": "nothing"')(patch)
        text('"dropped": {', f'"dropped": {{"{pattern}": "planted", ')(patch)

    return plant


def step(name):
    """A fault: another function stands for a step."""
    return lambda wrong: lambda patch: patch.setitem(steps.STEPS, name, wrong)


def patches_in_order(*axes):
    return lambda value, *_: value.transpose(axes).reshape(len(value), -1) if value.ndim == 4 else value


def zeros_before_the_rows(value, wanted, source):
    (rows, columns), (all_rows, all_columns) = value.shape + (0,) * (2 - value.ndim), wanted + (0,) * (2 - value.ndim)
    ends = [(all_rows - rows, 0), (0, all_columns - columns)]
    return np.pad(value, ends[: value.ndim])


def zeros_at_the_lowest_index(value, wanted, source):
    right = steps.time_columns(value, wanted, source)
    return np.roll(right, 1, axis=1) if value.ndim == 2 else right


QKV, HEADS = '["blocks.{n}.attn.qkv", %d, 3]', '["attention.{n}.mha.in_proj_", %d, 3]'
SCALE_SHIFT = '["blocks.{n}.norm1.modulation.proj.1", %d, 2]'
FAULTS = {
    "query and key exchanged": ("resnet", exchanged(HEADS % 0, HEADS % 1)),
    "key and value exchanged": ("facebook", exchanged(QKV % 1, QKV % 2)),
    "patches (c, p, q)": ("facebook, colour", step("patches")(patches_in_order(0, 1, 2, 3))),
    "patches (q, p, c)": ("facebook", step("patches")(patches_in_order(0, 3, 2, 1))),
    "bias before BatchNorm dropped": ("resnet", dropped("encoder.{level}.conv1", "encoder.*.conv1.bias")),
    "bias before the shortcut's BatchNorm dropped": (
        "resnet without attention",
        dropped("decoder.{step}.shortcut.0", "decoder.*.shortcut.0.bias"),
    ),
    "kernel not turned round": (
        "score notebook",
        step("as_convolution")(lambda value, *_: value.transpose(1, 0, 2, 3) if value.ndim == 4 else value),
    ),
    "zeros before the feed-forward part": ("score notebook", step("pad")(zeros_before_the_rows)),
    "cosines taken for sines": ("diffusers, cosines first", text('"cos_sin, half - 1"', '"sin_cos, half - 1"')),
    "sines and cosines in turn taken for halves": (
        "two convolutions with time, alternating",
        text('"alternating, half"', '"sin_cos, half"'),
    ),
    "frequencies moved by one": ("facebook", step("time_columns")(zeros_at_the_lowest_index)),
    "the row taken for the column": ("facebook", step("swap_halves")(lambda value, *_: value)),
    "shift taken for scale": ("smalldiffusion", exchanged(SCALE_SHIFT % 0, SCALE_SHIFT % 1)),
    "gates exchanged": ("smalldiffusion", exchanged('scale_modulation.proj.1", 0', 'scale_modulation.proj.1", 1')),
    "the time in another unit": ("sketch", text('["time_unit", "t / T"]', '["time_unit", "t"]')),
    "the null label first": (
        "sketch",
        step("null_row")(lambda value, *_: np.pad(value, ((1, 0), (0, 0))) if value.ndim == 2 else value),
    ),
    "a table without its silu": (
        "smalldiffusion",
        step("through_silu")(
            lambda value, _, source, name: value @ source.take(f"{name}.weight").T + source.take(f"{name}.bias")
        ),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_mapping_is_noticed(tmp_path, monkeypatch, fault):
    """Otherwise the comparison above would pass with weights in the wrong places."""
    require("torch")
    name, plant = FAULTS[fault]
    plant(monkeypatch)
    side = Torch("fp64")
    labels = labels_of(name)
    output = ours(side, name, images(name), labels, imported(side, tmp_path, name))
    assert gap(output, theirs(name, images(name), labels)) > WRONG


def test_patches_are_those_of_the_convolution():
    """Otherwise the order within a patch is right for grey images alone."""
    torch = pytest.importorskip("torch")
    from ddpm_torch.networks.dit import patches

    kernel, x = draw(6, 3, 4, 4), torch.from_numpy(draw(2, 3, 8, 8, seed=1))
    convolved = torch.nn.functional.conv2d(x, torch.from_numpy(kernel), stride=4).flatten(2).mT
    weight = torch.from_numpy(steps.patches(kernel, (6, 48), None))
    assert gap((patches(x, 4) @ weight.T).numpy(), convolved.numpy()) < EQUAL


# --- Going on, and drawing ----------------------------------------------------------------------------------

SHORT = ["--batch-size", "4", "--max-steps", "2", "--epochs", "1", "--validation-images", "4", "--sample-every", "0"]


@pytest.mark.parametrize("name", ["resnet with classes", "facebook"])
def test_either_framework_goes_on_from_an_import_and_draws(both, tmp_path, name):
    """Otherwise the run folder looks like one, and --resume or --checkpoint refuses it; or Adam starts from something.

    What PyTorch imports TensorFlow resumes, and the other way round: both make the same two steps.
    """
    path = saved(tmp_path / "x.safetensors", elsewhere(name)[1])
    losses = []
    for tree, other in (both, both[::-1]):
        folder, went_on = tmp_path / f"import-{tree.name}", tmp_path / f"run-{other.name}"
        assert tree.exchange.main(flags(name, path, folder, *SHORT)) == 0
        assert other.train.main(["--resume", str(folder), "--run-dir", str(went_on)]) == 0
        metrics = json.loads((went_on / "metrics.json").read_text())
        assert metrics["status"] == "completed"
        losses.append([record["loss"] for record in metrics["history"]["steps"]])
        assert len(losses[-1]) == 2
        drawn = tmp_path / f"drawn-{tree.name}"
        drawing = ["--checkpoint", str(folder), "--num-images", "2", "--steps", "2", "--sampler", "ddim"]
        assert tree.inference.main([*drawing, "--out", str(drawn)]) == 0
        assert np.load(drawn / "samples.npz")["images"].shape == (2, 28, 28, 1)
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    one, other = (np.load(tmp_path / f"drawn-{tree.name}" / "samples.npz")["images"] for tree in both)
    assert np.abs(one.astype(int) - other).max() <= 1


def test_a_run_in_its_own_folder_goes_on_too(tmp_path):
    """Otherwise --resume needs --run-dir, and the folder of the import stays half a run."""
    tree = require("torch")
    path = saved(tmp_path / "x.safetensors", elsewhere("sketch")[1])
    assert tree.exchange.main(flags("sketch", path, tmp_path / "run", *SHORT)) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["status"] == "interrupted"
    assert metrics["final"]["step"] == 0
    assert tree.train.main(["--resume", str(tmp_path / "run")]) == 0
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["final"]["step"] == 2


# --- Files of PyTorch's own ---------------------------------------------------------------------------------


def test_a_state_dict_of_torch_save_is_read(tmp_path):
    """Otherwise the most common file of all is not."""
    tree = require("torch")
    import torch

    network, tensors = elsewhere("resnet")
    wrapped = {f"module.{key}": value for key, value in network.state_dict().items()}
    optimizer = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-3}]}
    torch.save({"epoch": 3, "model": wrapped, "optimizer": optimizer}, tmp_path / "x.pt")
    assert tree.exchange.main(flags("resnet", tmp_path / "x.pt", tmp_path / "a", "--precision", "fp64")) == 0
    loaded = checkpoint.load(tmp_path / "a" / "checkpoints" / "step_00000000.safetensors")
    assert_array_equal(loaded.tensors["model/conv_in.weight"], tensors["conv_in.weight"])

    halves = {key: value.half() if value.is_floating_point() else value for key, value in wrapped.items()}
    torch.save({"model": wrapped, "ema": halves}, tmp_path / "two.pt")
    argv = flags("resnet", tmp_path / "two.pt", tmp_path / "b")
    assert "holds tensors in several places: choose one by --part model, ema" in refusal(tree.exchange.main, argv)
    assert tree.exchange.main([*argv, "--part", "ema"]) == 0
    loaded = checkpoint.load(tmp_path / "b" / "checkpoints" / "step_00000000.safetensors")
    wanted = tensors["conv_in.weight"].astype(np.float16).astype(np.float32)
    assert_array_equal(loaded.tensors["ema/conv_in.weight"], wanted)


class Malicious:
    """What writes a file when it is unpickled."""

    def __reduce__(self):
        return open, ("harm", "w")


def test_a_pickle_with_a_program_in_it_is_not_run(tmp_path):
    """Otherwise whoever offers weights runs what they like on a learner's machine."""
    tree = require("torch")
    import torch

    torch.save({"conv.weight": Malicious()}, tmp_path / "x.pt")
    message = refusal(tree.exchange.main, flags("resnet", tmp_path / "x.pt", tmp_path / "run"))
    assert "holds more than tensors, and to read that would run a program of whoever made it" in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.pt"]


def test_tensorflow_says_how_a_pickle_comes_in(tmp_path):
    """Otherwise somebody without a way on gives up, or unpickles by hand."""
    tree = require("tf")
    (tmp_path / "x.pt").write_bytes(b"anything")
    message = refusal(tree.exchange.main, flags("resnet", tmp_path / "x.pt", tmp_path / "run"))
    assert message.endswith("import it by make import-torch, and go on from that run here with --resume")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.pt"]


# --- Refusals -----------------------------------------------------------------------------------------------


def refusal(main, argv):
    """What a command says when it refuses: one line."""
    with pytest.raises(UserError) as refused:
        main(argv)
    message = str(refused.value)
    assert "\n" not in message
    return message


def without(key):
    return lambda tensors: {name: value for name, value in tensors.items() if name != key}


def changed(key, change):
    return lambda tensors: {**tensors, key: change(tensors[key])}


def added(**more):
    return lambda tensors: tensors | more


# Of a case: what happens to the tensors, more flags, and what is said.
REFUSED = {
    "a name is missing": (
        "resnet",
        without("decoder.0.bn2.weight"),
        "",
        "missing decoder.0.bn2.weight (our up.1.norm_2.weight)",
    ),
    "a name is unknown": ("resnet", added(head=np.zeros(3)), "", "unknown head"),
    "a shape is wrong": (
        "resnet",
        changed("time_mlp.2.weight", lambda value: value[:, :20]),
        "",
        "of another shape time_mlp.2.weight (24, 20) for our time_2.weight (24, 24)",
    ),
    "a packed map cannot be cut": (
        "facebook",
        changed("blocks.1.attn.qkv.weight", lambda value: value[:-1]),
        "",
        "of another shape blocks.1.attn.qkv.weight (71, 24) for our blocks.1.attention.query.weight (24, 24)",
    ),
    "NaN": (
        "resnet",
        changed("conv_out.bias", lambda value: value * np.nan),
        "",
        "with NaN or infinite values conv_out.bias",
    ),
    "too large for float32": (
        "resnet",
        changed("conv_out.bias", lambda value: value * 1e300),
        "",
        "numbers in conv_out.bias that --precision fp32 cannot hold",
    ),
    "another network": (
        "facebook",
        added(),
        "--network simple_unet",
        "has the names of dit (facebookresearch/DiT, models.py",
    ),
    "another layout": (
        "facebook",
        added(),
        "--layout smalldiffusion",
        "x_embed.proj.weight is not there, and layout smalldiffusion takes a size from it",
    ),
    "no such layout": (
        "facebook",
        added(),
        "--layout lucid",
        "--layout lucid: choose one of facebook, smalldiffusion, or give a mapping file",
    ),
    "names of nothing": (
        "sketch",
        lambda _: {"a.b": np.zeros(3)},
        "",
        "holds a.b, and no layout has these names: known are sketch (simple_unet)",
    ),
    "no tensors": ("sketch", lambda _: {}, "", "holds no weights"),
    "lucidrains": (
        "diffusers",
        lambda _: {"mid_block1.block1.proj.weight": np.zeros((2, 2))},
        "",
        "which no network of ours computes: its blocks normalise after a convolution",
    ),
    "another data set": ("facebook", added(), "--dataset emoji", "its images have 3 channels, and the network in"),
    "other classes": (
        "facebook",
        changed("y_embedder.embedding_table.weight", lambda value: value[:7]),
        "",
        "it has 10 classes, and the table in",
    ),
    "no table": ("resnet", added(), "--class-conditional", "its network has no table of classes"),
    "heads": ("facebook", added(), "--attention-heads 5", "--attention-heads 5: must divide the 24 channels"),
    "sizes by hand": (
        "facebook",
        added(),
        "--depth 3",
        "missing blocks.2.adaLN_modulation.1.weight (our blocks.2.modulation.weight)",
    ),
    "learned positions": (
        "facebook",
        changed("pos_embed", lambda value: value + 0.1),
        "",
        "is not the fixed embedding that our network has",
    ),
    "another grid": (
        "facebook",
        changed("pos_embed", lambda value: value[:, :-1]),
        "",
        "pos_embed (1, 48, 24) is not the fixed embedding",
    ),
    "widths": (
        "sketch",
        changed("down.1.weight", lambda value: value[:13]),
        "",
        "its levels have (8, 13, 24) channels, and ours have multiples",
    ),
    "a part of safetensors": ("sketch", added(), "--part ema", "--part ema: is for a .pt file"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_does_not_fit_is_named_and_nothing_is_written(tmp_path, why):
    """Otherwise a network is half imported, or the message is a traceback, or the folder is in the way next time."""
    tree = require("torch")
    name, change, more, message = REFUSED[why]
    path = saved(tmp_path / "x.safetensors", change(elsewhere(name)[1]))
    given = dict(zip(more.split()[::2], more.split()[1::2], strict=False))
    argv = flags(name, path, tmp_path / "run")
    for flag, value in given.items():  # a flag is given once
        if flag in argv:
            argv[argv.index(flag) + 1] = value
        else:
            argv += [flag, value]
    argv += more.split() if len(more.split()) == 1 else []
    assert message in refusal(tree.exchange.main, argv)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["x.safetensors"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-7]), r"is not a whole safetensors file \(it has "),
        (lambda path: path.write_bytes(b"\x80\x04."), r"is not a whole safetensors file"),
        (lambda path: path.unlink(), r"there is no .*x.safetensors: give the state_dict"),
        (lambda path: path.rename(path.with_suffix(".npz")), r"there is no "),
    ],
)
def test_damaged_files_are_refused(tree, tmp_path, damage, message):
    """Otherwise a broken download ends in a traceback."""
    path = saved(tmp_path / "x.safetensors", elsewhere("sketch")[1])
    damage(path)
    assert re.search(message, refusal(tree.exchange.main, flags("sketch", path, tmp_path / "run")))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"\x80\x04K\x01.", b"\x80\x02}q\x00."])
def test_damaged_pickles_are_refused(tmp_path, content):
    """Otherwise they end in one of the many kinds of exceptions that torch.load has."""
    tree = require("torch")
    (tmp_path / "x.pth").write_bytes(content)
    message = refusal(tree.exchange.main, flags("sketch", tmp_path / "x.pth", tmp_path / "run"))
    assert "x.pth" in message
    assert not (tmp_path / "run").exists()


def test_the_weights_must_be_named_and_known_by_their_ending(tmp_path):
    """Otherwise a forgotten flag is a traceback, and any file is read as anything."""
    main = require("torch").exchange.main
    assert "--weights: name the file of the weights" in refusal(main, [])
    assert "its name must end in .safetensors, or in .pt" in refusal(main, ["--weights", "x.npz"])
    assert "--seed -1" in refusal(main, ["--seed", "-1"])


def test_network_and_layout_are_found_by_the_names(tmp_path):
    """Otherwise --network must be known before anything is, and a forgotten flag is a refusal."""
    path = saved(tmp_path / "x.safetensors", elsewhere("resnet")[1])
    argv = ["--weights", str(path), "--run-dir", str(tmp_path / "run"), "--dataset", "fashion-mnist-10k"]
    assert require("torch").exchange.main(argv) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["model"]["network"] == "residual_unet"
    assert config["preset"] == "residual-batchnorm"


def test_what_no_shape_shows_is_printed(tmp_path, capsys):
    """Otherwise eight heads are taken for four, every shape fits, and nobody is told what to look at."""
    path = saved(tmp_path / "x.safetensors", elsewhere("resnet")[1])
    assert require("torch").exchange.main(flags("resnet", path, tmp_path / "run")) == 0
    printed = capsys.readouterr().out
    assert "--activation relu; --attention-heads 4; the decoder joins torch.cat([upsampled, skip], dim=1)" in printed


def test_the_time_of_a_score_model_is_its_own(tmp_path):
    """Otherwise random frequencies that were drawn for t are given 999 t, as the U-Net's embedding is."""
    path = saved(tmp_path / "x.safetensors", elsewhere("score notebook")[1])
    argv = [*flags("score notebook", path, tmp_path / "run"), "--sigma-max", "25"]
    assert require("torch").exchange.main(argv) == 0
    diffusion = json.loads((tmp_path / "run" / "config.json").read_text())["diffusion"]
    assert (diffusion["time_scale"], diffusion["preconditioning"], diffusion["sigma_max"]) == (1.0, "score_sde", 25.0)


def test_a_taken_folder_is_left_alone(tmp_path):
    """Otherwise an import replaces a training of days."""
    main = require("torch").exchange.main
    argv = flags("sketch", saved(tmp_path / "x.safetensors", elsewhere("sketch")[1]), tmp_path / "run")
    assert main(argv) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert "already holds files" in refusal(main, argv)
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}


# --- What stands beside the weights, and mappings of one's own ----------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"freq_shift": 0}, "says freq_shift = 0, and ours would have 1: its frequencies are"),
        ({"flip_sin_to_cos": True}, "give --layout diffusers-cos-first"),
        ({"attention_head_dim": 8}, "its attention has several heads"),
        ({"norm_eps": 1e-6}, "an epsilon cannot be moved into weights"),
    ],
)
def test_settings_beside_the_weights_are_compared(tmp_path, values, message):
    """Otherwise a network of other frequencies is imported, fits by every shape, and draws noise."""
    path = saved(tmp_path / "x.safetensors", elsewhere("diffusers")[1])
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert message in refusal(require("torch").exchange.main, flags("diffusers", path, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_settings_beside_the_weights_are_taken(tmp_path):
    """Otherwise the number of groups, which no shape shows, is the preset's."""
    path = saved(tmp_path / "x.safetensors", elsewhere("diffusers")[1])
    (tmp_path / "config.json").write_text(json.dumps({"norm_num_groups": 4, "freq_shift": 1, "act_fn": "silu"}))
    argv = flags("diffusers", path, tmp_path / "run")
    argv = [each for each in argv if each not in ("--num-groups", "4")]
    assert require("torch").exchange.main(argv) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["model"]["num_groups"] == 4


def mapping_of_ones_own(tmp_path, change=lambda text: text):
    values = json.loads(change(json.dumps(layouts._packaged("simple_unet"))))
    values["layouts"] = {"mine": values["layouts"]["sketch"]}
    (tmp_path / "mine.json").write_text(json.dumps(values))
    return str(tmp_path / "mine.json")


def test_a_mapping_of_ones_own_gives_other_names(tmp_path):
    """Otherwise whoever calls `down` the encoder has to rename it in Python."""
    tree, side = require("torch"), Torch("fp64")
    tensors = {key.replace("down.", "encoder."): value for key, value in elsewhere("sketch")[1].items()}
    path = saved(tmp_path / "x.safetensors", tensors)
    theirs_only = re.compile(r'(?<=": ")down\.|(?<="of": ")down\.|(?<="each": ")down\.')
    mine = mapping_of_ones_own(tmp_path, lambda text: theirs_only.sub("encoder.", text))
    argv = [*flags("sketch", path, tmp_path / "run"), "--layout", mine, "--precision", "fp64"]
    assert tree.exchange.main(argv) == 0
    loaded = checkpoint.load(tmp_path / "run" / "checkpoints" / "step_00000000.safetensors")
    x, labels = images("sketch"), labels_of("sketch")
    assert gap(ours(side, "sketch", x, labels, loaded), theirs("sketch", x, labels)) < EQUAL


def test_convolutions_of_one_pixel_are_linear_maps(tmp_path):
    """Otherwise attention that is written with nn.Conv2d(C, C, 1), as often, does not come in."""
    tree, side, part = require("torch"), Torch("fp64"), re.compile(r"to_(q|k|v|out\.0)\.weight$")
    tensors = elsewhere("diffusers")[1]
    tensors = {key: value[:, :, None, None] if part.search(key) else value for key, value in tensors.items()}
    assert sum(value.shape[2:] == (1, 1) for key, value in tensors.items() if part.search(key)) == 4 * 6
    values = layouts._packaged("unet")
    maps = re.compile(r'("[^"]*\.attention\.(?:query|key|value|project)"): ("[^"]*")')
    mine = json.loads(maps.sub(r'\1: {"from": \2, "steps": [["matrix"]]}', json.dumps(values["layouts"]["diffusers"])))
    (tmp_path / "mine.json").write_text(json.dumps({"network": "unet", "layouts": {"mine": mine}}))
    path = saved(tmp_path / "x.safetensors", tensors)
    argv = [*flags("diffusers", path, tmp_path / "run"), "--precision", "fp64"]
    assert "of another shape" in refusal(tree.exchange.main, argv)
    assert tree.exchange.main([*argv, "--layout", str(tmp_path / "mine.json")]) == 0
    loaded = checkpoint.load(tmp_path / "run" / "checkpoints" / "step_00000000.safetensors")
    x, labels = images("diffusers"), labels_of("diffusers")
    assert gap(ours(side, "diffusers", x, labels, loaded), theirs("diffusers", x, labels)) < EQUAL


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("time_unit", "time_travel"), "has steps that there are not, time_travel"),
        (lambda text: text.replace('"levels - 1"', '"levels / 2"'), "a layout counts by 'levels / 2': write a sum or"),
        (lambda text: text.replace('"levels - 1"', '"exit()"'), "a layout counts by 'exit()'"),
        (lambda text: text.replace('"groups"', '"group"'), "is not a mapping of names"),
        (lambda text: text.replace('"levels - 1"', '"1000000 * levels"'), "a layout repeats its names 3,000,000 times"),
        (
            lambda text: text.replace('"middle.0"', '"middle.7"'),
            "missing any name for our middle.0.weight in the layout",
        ),
        (
            lambda text: text.replace('"axis": 1', '"axis": 7'),
            "has the shape (8, 1, 3, 3), and layout mine takes a size",
        ),
        (lambda text: text.replace('"activation": "silu"', '"colour": "red"'), "is not a mapping of names"),
        (lambda text: text.replace('"simple_unet"', '"unet"'), "is for unet: leave out --network simple_unet"),
    ],
)
def test_a_wrong_mapping_is_refused(tmp_path, change, message):
    """Otherwise a slip in a file that is written by hand is a traceback of ours."""
    path = saved(tmp_path / "x.safetensors", elsewhere("sketch")[1])
    argv = [*flags("sketch", path, tmp_path / "run"), "--layout", mapping_of_ones_own(tmp_path, change)]
    assert message in refusal(require("torch").exchange.main, argv)
    assert not (tmp_path / "run").exists()


STRANGERS = [
    (network, stranger["sign"], stranger["why"])
    for network in get_args(NetworkName)
    for stranger in layouts._packaged(network).get("strangers", ())
]


@pytest.mark.parametrize(("network", "sign", "why"), STRANGERS, ids=lambda value: str(value)[:20])
def test_what_ours_cannot_compute_is_refused_with_the_reason(tmp_path, network, sign, why):
    """Otherwise somebody renames tensors for an hour, and the pictures are noise."""
    path = saved(tmp_path / "x.safetensors", {sign: np.zeros((2, 2)), "a.b": np.zeros(1)})
    argv = ["--weights", str(path), "--network", network, "--run-dir", str(tmp_path / "run")]
    message = refusal(require("torch").exchange.main, argv)
    assert message.endswith(f"which no network of ours computes: {why}")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("network", get_args(NetworkName))
def test_every_mapping_of_the_package_is_one(network):
    """Otherwise those that people copy break the rules that theirs must keep."""
    mapping = layouts._packaged(network)
    assert mapping["network"] == network
    assert validation.fault(mapping, layouts.MAPPING) is None
    cases = {case.layout for case in CASES.values() if case.network == network}
    assert cases == set(mapping["layouts"])  # each is held against a network of that layout


def test_the_page_names_every_layout():
    """Otherwise somebody does not find that theirs is there."""
    page = (ROOT / "docs" / "exchange.md").read_text()
    for network in get_args(NetworkName):
        for name in layouts.known(network):
            assert f"`{name}`" in page, name
