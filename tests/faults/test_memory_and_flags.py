"""Limits before work: what cannot fit, and absurd flags, are refused at once by one sentence; nothing is written."""

import dataclasses
import errno
import functools
import json
import re
import subprocess
import sys

import numpy as np
import psutil
import pytest

from ddpm_shared import datasets, memory
from ddpm_shared.commands import bits, invert, likelihood, sample, train
from ddpm_shared.config import PRESETS, Config, DiffusionConfig, ModelConfig, TrainingConfig, size
from ddpm_shared.config.sampling import Sampling
from ddpm_shared.errors import UserError
from ddpm_shared.evaluation import corruptions

GIB = 2**30
LOAD = functools.cache(datasets.load)  # the images are unpacked once
TINY = ["--preset", "tiny", "--dataset", "fashion-mnist-10k"]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "load", LOAD)


@pytest.fixture
def room(monkeypatch):
    """A function: from here on, the machine has so many bytes of memory, and no GPU."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return lambda number: monkeypatch.setattr(memory, "total", lambda: number)


def nothing_is_written(folder):
    return not [path for path in folder.rglob("*") if path.is_file()]


def refusal(main, *argv):
    """What a command says when it refuses: one line."""
    with pytest.raises(UserError) as refused:
        main(argv)
    message = str(refused.value)
    assert "\n" not in message
    return message


PARSERS = {
    "train": lambda argv: train.parse("torch", [*TINY, *argv]),
    "inference": lambda argv: sample.parse("torch", list(argv)),
    "inversion": lambda argv: invert.parse("torch", ["--dataset", "fashion-mnist-10k", *argv]),
    "bits": lambda argv: bits.parse("torch", ["--dataset", "fashion-mnist-10k", *argv]),
    "likelihood": lambda argv: likelihood.parse("torch", ["--dataset", "fashion-mnist-10k", *argv]),
    "corruptions": lambda argv: corruptions.main(["--dataset", "fashion-mnist-10k", *argv]),
}

# Flag -> the smallest and the largest value that is no nonsense (None: that depends on the data or the checkpoint).
MANY = 10**12
WHOLE = {
    "train": {
        "--seed": (0, 2**64 - 1),
        "--threads": (1, 256),
        "--epochs": (1, MANY),
        "--max-steps": (1, MANY),
        "--batch-size": (1, None),
        "--warmup-steps": (0, MANY),
        "--validation-images": (1, MANY),
        "--sample-every": (0, MANY),
        "--sample-images": (1, 10_000),
        "--evaluate-every": (0, MANY),
        "--evaluate-images": (1, 1_000_000),
        "--shards": (1, 128),
        "--checkpoint-every": (1, MANY),
        "--keep-checkpoints": (1, MANY),
        "--timesteps": (2, None),
        "--num-res-blocks": (1, 100),
        "--num-groups": (1, None),
        "--base-channels": (4, None),
        "--channel-mults": (1, None),
        "--attention-resolutions": (14, 28),
        "--context-tokens": (1, 2),
        "--attention-heads": (1, None),
        "--attention-blocks": (0, 100),
        "--time-channels": (4, None),
        "--patch-size": (1, None),
        "--depth": (1, None),
        "--image-size": (4, 1024),
    },
    "inference": {
        "--seed": (0, 2**64 - 1),
        "--threads": (1, 256),
        "--num-images": (1, None),
        "--batch-size": (1, MANY),
        "--steps": (1, 1000),
        "--interpolate": (2, 1000),
        "--interpolate-labels": (2, 1000),
        "--guidance-from": (0, 999),
        "--guidance-to": (0, 1_000_000),
        "--corrector-steps": (1, None),  # pc, whose option it is, takes no network of whole times
    },
    "inversion": {
        "--num-images": (1, 2000),
        "--batch-size": (1, MANY),
        "--steps": (1, 1000),
        "--iterations": (1, 1000),
    },
    "bits": {"--num-images": (10, 2000), "--stride": (1, 500)},
    "likelihood": {
        "--num-images": (1, 2000),
        "--batch-size": (1, MANY),
        "--steps": (2, 1000),
        "--probes": (1, 1000),
    },
    "corruptions": {"--num-images": (None, None)},
}
REAL = {
    "train": {
        "--learning-rate": ("1e-320", "1e38"),
        "--test-share": ("1e-320", "0.9999999999999999"),
        "--max-grad-norm": ("1e-320", "1e38"),
        "--min-snr-gamma": ("1e-320", "1e38"),
        "--ema-decay": ("0", "0.9999999999999999"),
        "--decay-start": ("0", "0.9999999999999999"),
        "--label-drop": ("0", "0.9999999999999999"),
        "--final-learning-rate": ("0", "0.9999999999999999"),
        "--beta-start": ("1e-12", "0.02"),
        "--beta-end": ("1e-4", "0.15"),
        "--fourier-scale": ("1e-320", "1e6"),
        "--sigma-data": ("1e-6", "1e6"),
        "--sigma-min": ("1e-6", "49"),
        "--sigma-max": ("1.01", "1e6"),
        "--density-mean": ("-100", "100"),
        "--density-deviation": ("1e-3", "1e3"),
        "--density-shift": ("1e-3", "1e3"),
        "--time-scale": ("1e-320", "1e6"),
        "--minutes": ("1e-320", "525600"),
        "--stop-after": ("1e-320", "525600"),
    },
    "inference": {
        "--eta": (None, None),
        "--dynamic-threshold": ("1e-320", "1"),
        "--guidance": ("0", "1000"),
        # A network that was trained at whole times has neither grids nor churn.
        "--rho": (None, None),
        "--shift": (None, None),
        "--churn": ("0", None),
        "--churn-from": ("0", "1e6"),
        "--churn-to": ("0", "1e6"),
        "--churn-noise": ("1e-3", "1e3"),
        "--corrector-snr": (None, None),
    },
    "likelihood": {"--rho": ("7", "7")},
}
TRANSFORMERS = ["--network", "transformer_unet", "--attention-resolutions", "28", "14"]
BESIDE = {  # what a flag cannot be given without
    "--context-tokens": TRANSFORMERS,
    "--fourier-scale": TRANSFORMERS,
    "--attention-heads": ["--preset", "dit-small"],
    "--attention-blocks": ["--preset", "residual-batchnorm"],
    "--time-channels": ["--preset", "dit-small"],
    "--patch-size": ["--preset", "dit-small"],
    "--depth": ["--preset", "dit-small"],
    "--interpolate": ["--sampler", "ddim"],
    "--sigma-data": ["--process", "edm"],
    "--time-scale": ["--process", "vp"],
    **{flag: ["--sampler", "heun"] for flag in ("--churn-from", "--churn-to", "--churn-noise")},
    "--guidance-from": ["--guidance", "2"],
    "--guidance-to": ["--guidance", "2"],
}
ABSURD_WHOLE = ["-1", str(10**30), "1e308"]
ABSURD_REAL = ["-1", "1e308", "nan", "inf"]
FLAGS = [(command, flag, ends, ABSURD_WHOLE) for command, flags in WHOLE.items() for flag, ends in flags.items()]
FLAGS += [(command, flag, ends, ABSURD_REAL) for command, flags in REAL.items() for flag, ends in flags.items()]


def test_every_flag_that_takes_a_number_is_listed_here(capsys):
    """Otherwise a new flag has no limits, and nobody notices."""
    for command in ("train", "inference", "inversion", "bits", "likelihood"):
        with pytest.raises(SystemExit):
            PARSERS[command](["--help"])
        numbers = set(re.findall(r"(--[\w-]+) (?:\{None\}\|)?\[?(?:INT|FLOAT)", capsys.readouterr().out))
        known = {flag for flags in (*WHOLE.values(), *REAL.values()) for flag in flags}
        assert len(numbers) > 2
        assert numbers <= known


@pytest.mark.parametrize(("command", "flag", "ends", "absurd"), FLAGS, ids=lambda value: str(value)[:22])
def test_absurd_values_are_refused_by_name(tmp_path, command, flag, ends, absurd):
    """Otherwise they end in a traceback, in hours of nothing, or in a run of something else."""
    for value in absurd if flag != "--density-mean" else absurd[1:]:  # a mean may be below 0
        message = refusal(PARSERS[command], f"{flag}={value}")
        assert flag in message
    for end, beyond in zip(ends, (-1, 1), strict=True):
        if isinstance(end, int):
            assert flag in refusal(PARSERS[command], f"{flag}={end + beyond}")
    assert nothing_is_written(tmp_path)


@pytest.mark.parametrize(("command", "flag", "ends", "absurd"), FLAGS, ids=lambda value: str(value)[:22])
def test_the_ends_of_the_ranges_are_accepted(command, flag, ends, absurd):
    """Otherwise a setting that works is refused."""
    for end in ends:
        if end is not None:
            PARSERS[command]([f"{flag}={end}", *BESIDE.get(flag, [])])


@pytest.mark.parametrize("flag", ["--seed", "--learning-rate", "--channel-mults"])
@pytest.mark.parametrize("value", ["-" + "1" * 5000, "-inf", "true", "null", "0x10", ""])
def test_what_is_no_number_is_refused_by_name(flag, value):
    """Otherwise it is a traceback."""
    assert flag in refusal(PARSERS["train"], f"{flag}={value}")


LONG = ["1"] * 5000


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--channel-mults", *["1"] * 60], ["--channel-mults (1, 1, 1", "...", "16 numbers at most"]),
        (["--channel-mults", *LONG], ["--channel-mults (1, 1, 1", "...", "16 numbers at most"]),
        (["--channel-mults"], ["--channel-mults"]),
        (["--attention-resolutions", *LONG], ["--attention-resolutions (1, 1", "...", "(28, 14)"]),
        (["--timesteps", str(10**9)], ["--timesteps 1000000000", "must be at most 1,000,000"]),
        (["--timesteps", "100000"], ["--timesteps 100000", "leaves 10**-220 of the image", "--rescale-betas"]),
        (["--timesteps", "9000", "--variance", "learned_range"], ["--timesteps 9000", "leaves 10**-20"]),
        (["--timesteps", "9000", "--loss-weighting", "min_snr"], ["--timesteps 9000", "leaves 10**-20"]),
        (["--timesteps", "90000", "--prediction", "v"], ["--timesteps 90000", "leaves 10**-198"]),
        (["--beta-end", "0.9"], ["--timesteps 1000: leaves 10**-162", "lower it or --beta-end 0.9"]),
        (["--beta-start", "1e-13"], ["--beta-start 1e-13", "1e-12 or more"]),
        (["--timesteps", "1000000", "--rescale-betas", "--beta-start", "1e-10"], ["--beta-start 1e-10", "1e-13"]),
        (["--minutes", "1e300"], ["--minutes 1e+300", "must be at most 525600"]),
        (["--learning-rate", "1e39"], ["--learning-rate 1e+39", "must be at most 1e+38"]),
        (["--threads", "1000"], ["--threads 1000", "must be at most 256"]),
        (["--sample-images", str(10**8)], ["--sample-images 100000000", "must be at most 10,000"]),
        (["--context-tokens", "2"], ["--context-tokens 2: is for --network transformer_unet"]),
        (["--fourier-scale", "16"], ["--fourier-scale 16.0: is for --network transformer_unet"]),
        (["--network", "transformer_unet"], ["--attention-resolutions (): transformer_unet", "levels: give 28 14"]),
        ([*TRANSFORMERS, "--num-res-blocks", "2"], ["--num-res-blocks 2: is for --network unet"]),
        (["--network", "vit"], ["'vit'", "--network", "'unet', 'transformer_unet'"]),
        (["--patch-size", "4"], ["--patch-size 4: is for --network dit, and this is unet"]),
        (["--preset", "dit-small", "--patch-size", "5"], ["--patch-size 5: must divide the size of the images, 28"]),
        (["--preset", "dit-small", "--attention-heads", "5"], ["--attention-heads 5: must divide the 192 channels"]),
        (["--preset", "dit-small", "--channel-mults", "1", "2"], ["--channel-mults (1, 2): is for --network unet or"]),
    ],
)
def test_what_is_absurd_in_training(tmp_path, argv, words):
    """Otherwise it fails within a framework, or draws and trains for ever."""
    message = refusal(PARSERS["train"], *argv)
    for word in words:
        assert word in message
    assert nothing_is_written(tmp_path)


@pytest.mark.parametrize(
    "diffusion",
    [
        {"timesteps": 10_000, "rescale_betas": True},
        {"timesteps": 10_000},
        {"timesteps": 8000, "variance": "learned_range"},
        {"timesteps": 60_000, "variance": "learned_range", "loss_weighting": "min_snr", "prediction": "v"},
        {"timesteps": 1_000_000, "schedule": "cosine"},
        {"timesteps": 2},
    ],
)
def test_long_and_short_processes_that_work_are_accepted(diffusion):
    """Otherwise a process of the literature cannot be had."""
    assert DiffusionConfig(**diffusion).timesteps == diffusion["timesteps"]


@pytest.mark.parametrize(("kind", "field"), [(Config, "seed"), (TrainingConfig, "epochs"), (Sampling, "steps")])
@pytest.mark.parametrize("value", [True, 1.5, "1"])
def test_a_boolean_is_no_number(kind, field, value):
    """Otherwise {"epochs": true} in a file trains one epoch."""
    with pytest.raises(UserError, match=f"^--{field} {value}: must be a whole number$"):
        kind(**{field: value})


@pytest.mark.parametrize(
    "values",
    [{"channel_mults": (True, 2)}, {"num_groups": True}, {"attention_resolutions": (True,), "image_size": 4}],
)
def test_a_boolean_is_no_number_in_a_network(values):
    """Otherwise a network is made of what was no number."""
    with pytest.raises(UserError, match="True"):
        ModelConfig(**values)


def test_limits_hold_in_files_too(tmp_path):
    """Otherwise --config and a checkpoint bring in what the flags refuse."""
    file = tmp_path / "settings.json"
    for values in ({"training": {"epochs": 10**13}}, {"model": {"num_res_blocks": 101}}, {"threads": 10**6}):
        file.write_text(json.dumps(values))
        assert "must be at most" in refusal(PARSERS["train"], "--config", str(file))


# --- Memory: the size of a network --------------------------------------------------------------------------

ODD = [
    ModelConfig(4, (1,), 1, (), 1),
    ModelConfig(4, (1, 1), 1, (28, 14), 4),
    ModelConfig(12, (1, 3), 2, (9, 5), 4, image_size=9, image_channels=3),
    ModelConfig(6, (3, 1, 2), 1, (4,), 3, image_size=7),
    ModelConfig(8, (1, 2, 2), 3, (7, 28), 2),
    ModelConfig(8, (2, 2, 2, 2), 1, (), 8, image_size=5, image_channels=2),
    ModelConfig(8, (1,), 1, (), 4, num_classes=11),
    ModelConfig(8, (1,), 1, (28,), 2, network="transformer_unet"),
    ModelConfig(8, (3, 1, 2), 1, (5, 3), 2, image_size=10, image_channels=3, num_classes=4, network="transformer_unet"),
    ModelConfig(6, (1, 2), 1, (9, 5), 3, image_size=9, network="transformer_unet", context_tokens=2),
    ModelConfig(8, (1, 2, 3), 1, (), network="residual_unet", attention_heads=3, attention_blocks=2, image_size=9),
    ModelConfig(6, (2,), 1, (), network="residual_unet", attention_blocks=0, image_channels=3, num_classes=4),
    ModelConfig(6, (1, 3), 1, (), network="simple_unet", time_channels=10, image_size=7, num_classes=2),
    ModelConfig(10, (1,), 1, (), network="denoise_net", image_channels=3, num_classes=5, image_size=5),
    ModelConfig(10, (1,), 1, (), network="denoise_net", uses_time=False),
    ModelConfig(12, (1,), 1, (), network="dit", depth=3, attention_heads=4, patch_size=3, image_size=9, num_classes=2),
    ModelConfig(8, (1,), 1, (), network="dit", depth=1, patch_size=1, image_size=4, image_channels=2),
]


def described(model, variance="fixed_small"):
    return Config(
        model=model, class_conditional=model.num_classes > 0, diffusion=DiffusionConfig(variance=variance), device="cpu"
    )


@pytest.mark.parametrize("number", range(len(ODD)))
def test_the_formula_counts_the_parameters(tree, number):
    """Otherwise what fits is refused, or what does not is tried."""
    model, variance = ODD[number], "learned_range" if number % 2 else "fixed_small"
    network = tree.model.make_network(described(model, variance))
    counted = sum(int(np.prod(tuple(value.shape))) for value in tree.model.named_parameters(network).values())
    assert size.num_parameters(described(model, variance)) == counted


@pytest.mark.parametrize("preset", PRESETS)
def test_the_formula_counts_the_presets(preset):
    """Otherwise what fits is refused; the numbers are those of docs/guide.md."""
    expected = {"tiny": 159_697, "small": 2_734_433, "base": 3_938_625, "large": 61_827_457, "colour": 2_735_587}
    expected |= {"score-transformer": 2_301_665, "residual-batchnorm": 10_323_201, "simple-unet": 2_367_115}
    expected |= {"two-convolutions": 1_217, "dit-small": 4_159_684}
    assert size.num_parameters(described(PRESETS[preset])) == expected[preset]


USED = r"""
import dataclasses, re
from pathlib import Path
from ddpm_shared.config import Config, TrainingConfig, size, with_preset
from ddpm_shared import datasets
from ddpm_shared.batches import training_batch
from ddpm_torch.learner import Learner
from ddpm_shared.config.sampling import Draw, Sampling
from ddpm_torch.sampling import Sampler

config = with_preset(Config(device="cpu", threads=1), "tiny")
config = dataclasses.replace(config, training=TrainingConfig(batch_size=256))
batch = training_batch(datasets.load("fashion-mnist-10k")[0], config, 0)
# Not getrusage, which begins with the peak of the process that started this one.
peak = lambda: 1024 * int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text("utf-8"))[1])
before = peak()
learner = Learner(config, 10)
Sampler(learner.ema_network, config, Sampling("ddim", 1)).draw(Draw(0, 0, 256))
drawn = peak()
learner.train_step(batch, 0)
print(sum(size.drawing(config, 256, 256)) / (drawn - before), sum(size.training(config)) / (peak() - before))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
def test_no_more_is_asked_for_than_is_used(both):
    """Otherwise a run is refused that would have fitted. Seen: 0.5 of what drawing uses, and 0.6 of a training step."""
    done = subprocess.run([sys.executable, "-c", USED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for share in map(float, done.stdout.split()):
        assert 0.2 < share < 0.9


# --- Memory: refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "argv", "words"),
    [
        ("train", ["--base-channels", "100000"], ["a network of 6,150,014,100,001 parameters", "--base-channels"]),
        ("train", ["--base-channels", str(10**11)], ["e+", "GiB", "--base-channels"]),
        ("train", ["--channel-mults", "1", str(10**9)], ["GiB", "--channel-mults"]),
        ("train", ["--batch-size", "60000", "--preset", "large"], ["60,000 images a step", "--batch-size"]),
        ("train", ["--batch-size", str(10**9)], ["1,000,000,000 images a step", "--batch-size"]),
        ("inference", ["--num-images", str(10**9)], ["1,000,000,000 images", "1,46", "GiB", "--num-images"]),
        ("inference", ["--num-images", "1000000", "--batch-size", "1000000"], ["1,000,000 at a time", "--batch-size"]),
        ("bits", ["--num-images", str(10**12)], ["GiB", "--num-images"]),
        ("inversion", ["--num-images", str(10**12)], ["GiB", "--num-images"]),
    ],
)
def test_what_cannot_fit_is_refused(room, tmp_path, command, argv, words):
    """Otherwise the system kills the process, or another one, without a word."""
    room(24 * GIB)
    message = refusal(PARSERS[command], *argv)
    for word in [*words, "of memory or more, and there are 24.0 GiB: lower --"]:
        assert word in message
    assert nothing_is_written(tmp_path)


def test_the_room_decides(room):
    """Otherwise the check refuses what fits, or lets through what does not."""
    config = described(PRESETS["small"])
    need = sum(size.training(config))
    room(need)
    memory.require_room_to_train(config)
    room(need - 1)
    with pytest.raises(
        UserError, match=r"training a network of 2,734,433 parameters on 128 images a step takes 0.8 GiB"
    ):
        memory.require_room_to_train(config)


def test_samples_to_evaluate_need_room_too(room):
    """Otherwise a run is killed at the end of its first epoch."""
    training = TrainingConfig(batch_size=1, evaluate_every=1, evaluate_images=1_000_000)
    config = dataclasses.replace(described(PRESETS["tiny"]), training=training)
    room(GIB)
    with pytest.raises(UserError, match=r"1,000,000 images .* lower --evaluate-images"):
        memory.require_room_to_train(config)
    unused = dataclasses.replace(training, evaluate_every=0)
    memory.require_room_to_train(dataclasses.replace(config, training=unused))


def test_where_there_may_be_a_gpu_the_host_s_share_counts_alone(monkeypatch, tmp_path):
    """Otherwise a batch that fits a GPU of 80 GB is refused on a computer of 64."""
    monkeypatch.setattr(memory, "GPU_DRIVERS", (tmp_path,))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(memory, "total", lambda: GIB // 4)
    config = described(PRESETS["small"])
    for device in ("auto", "gpu"):
        memory.require_room_to_train(dataclasses.replace(config, device=device))
    with pytest.raises(UserError, match="lower --batch-size"):
        memory.require_room_to_train(config)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(UserError, match="lower --batch-size"):
        memory.require_room_to_train(dataclasses.replace(config, device="auto"))


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        ("0::/job/step\n", {"job/memory.max": "max", "memory.max": str(4 * GIB)}, 4 * GIB),
        ("0::/job/step\n", {"job/step/memory.max": str(2 * GIB), "job/memory.max": str(4 * GIB)}, 2 * GIB),
        ("0::/as/named/outside\n", {"memory.max": str(3 * GIB)}, 3 * GIB),
        ("7:cpu:/x\n5:memory:/box\n", {"memory/box/memory.limit_in_bytes": str(GIB)}, GIB),
        ("5:memory:/\n0::/\n", {"memory/memory.limit_in_bytes": str(2**63 - 4096)}, None),
        ("0::/\n", {"memory.max": "max"}, None),
        ("0::/\n", {}, None),
    ],
)
def test_a_container_s_limit_counts(monkeypatch, tmp_path, groups, files, limit):
    """Otherwise a process in a container is killed by its limit, though the machine has room."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    (tmp_path / "cgroup").write_text(groups)
    monkeypatch.setattr(memory, "CGROUPS", tmp_path)
    monkeypatch.setattr(memory, "OWN_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "_process_limits", list)
    swap = psutil.swap_memory().total
    machine = psutil.virtual_memory().total + swap
    assert memory.total() == (machine if limit is None else min(machine, limit + swap))


TREES = ["ddpm_torch", "ddpm_tf"]


@pytest.mark.skipif(sys.platform != "linux", reason="ulimit -v")
@pytest.mark.parametrize("tree_name", TREES)
def test_a_process_limit_counts_and_no_framework_is_imported(tmp_path, tree_name):
    """Otherwise `ulimit -v` ends in a framework's traceback, and a refusal takes as long as the framework's import."""
    code = f"import sys; sys.argv = ['train', *sys.argv[1:]]\nfrom {tree_name}.train import main\n" + (
        "from ddpm_shared.command_line import guard\n"
        "import atexit; atexit.register(lambda: print(*[m for m in ('torch', 'tensorflow') if m in sys.modules]))\n"
        "guard(main)\n"
    )
    command = f'ulimit -v {4 * 2**20} && exec {sys.executable} -c "$0" "$@"'
    argv = [*TINY, "--batch-size", "10000", "--device", "cpu", "--run-dir", "run"]
    done = subprocess.run(["bash", "-c", command, code, *argv], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (2, "")
    assert re.fullmatch(
        r"error: training a network of 159,697 parameters on 10,000 images a step takes [\d.]+ GiB of memory or more, "
        r"and there are 4\.0 GiB: lower --batch-size, .*\n",
        done.stderr,
    )
    assert nothing_is_written(tmp_path)


# --- Memory: what fails nevertheless ------------------------------------------------------------------------


def test_numpy_s_and_the_system_s_lack_of_memory_is_one_sentence():
    """Otherwise a full memory is a traceback."""
    with pytest.raises(MemoryError) as failed:
        np.empty(2**55)
    assert "(Unable to allocate 256. PiB" in str(memory.out_of_memory(failed.value))
    system = OSError(errno.ENOMEM, "Cannot allocate memory")
    assert "lower --batch-size or --num-images" in str(memory.out_of_memory(system))
    assert str(memory.out_of_memory(MemoryError())).startswith("the memory does not suffice: lower")


def test_pytorch_s_lack_of_memory_is_one_sentence(both):
    """Otherwise a full memory is a traceback."""
    import torch

    with pytest.raises(RuntimeError) as failed:
        torch.empty(2**50)
    others = torch.OutOfMemoryError("CUDA out of memory.\nmore"), RuntimeError("could not create a primitive")
    for error in (failed.value, *others):
        message = str(memory.out_of_memory(error))
        assert message.startswith("the memory does not suffice (")
        assert "\n" not in message
        assert len(message) < 300


def test_tensorflow_s_lack_of_memory_is_one_sentence(both):
    """Otherwise a full memory is a traceback."""
    import tensorflow as tf

    error = tf.errors.ResourceExhaustedError(None, None, "{{function_node x}} OOM when allocating tensor\n\nHint")
    assert "suffice (OOM when allocating tensor): lower" in str(memory.out_of_memory(error))


@pytest.mark.parametrize(
    "error",
    [ValueError("no"), KeyError("memory"), KeyboardInterrupt(), OSError(28, "No space"), UserError("out of memory")],
)
def test_other_errors_are_no_lack_of_memory(error):
    """Otherwise a fault of ours is shown as the user's."""
    assert memory.out_of_memory(error) is None
