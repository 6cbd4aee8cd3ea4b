"""Settings: a run does what its settings say, or one sentence says why not."""

import dataclasses
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from ddpm_shared import claims
from ddpm_shared import config as configs
from ddpm_shared.commands import train as train_command
from ddpm_shared.config import (
    PRESETS,
    Config,
    DataConfig,
    DiffusionConfig,
    FolderConfig,
    ModelConfig,
    TrainingConfig,
)
from ddpm_shared.errors import UserError
from ddpm_shared.records import checkpoint

NAN = float("nan")

# No field as it is by default.
UNUSUAL = Config(
    preset="tiny",
    seed=2**40,
    precision="fp64",
    device="cpu",
    threads=1,
    compile=True,
    tf32=True,
    class_conditional=True,
    data=DataConfig(
        dataset="fashion-mnist-10k",
        data_dir="/data/ä b",
        folder=FolderConfig(image_size=48, channels="grey", test_share=0.25, skip_bad=True),
        horizontal_flip=True,
    ),
    model=ModelConfig(
        base_channels=12,
        channel_mults=(1, 3),
        num_res_blocks=4,
        attention_resolutions=(9, 5),
        num_groups=4,
        image_size=9,
        image_channels=3,
        num_classes=7,
    ),
    diffusion=DiffusionConfig(
        schedule="sigmoid",
        timesteps=900,
        beta_start=(0.1 + 0.2) / 100,
        beta_end=1 / 300,
        rescale_betas=True,
        zero_terminal_snr=True,
        prediction="v",
        variance="learned_range",
        loss_weighting="min_snr",
        min_snr_gamma=0.7,
    ),
    training=TrainingConfig(
        epochs=1,
        max_steps=2,
        batch_size=3,
        learning_rate=1e-300,
        warmup_steps=0,
        learning_rate_decay="cosine",
        decay_start=0.7,
        final_learning_rate=0.9,
        max_grad_norm=2 / 3,
        ema_decay=0.1,
        label_drop=0.3,
        validation_images=5,
        sample_every=0,
        sample_images=7,
        shards=3,
        reduce="fast",
        loss_curve=True,
        evaluate_every=10,
        evaluate_images=200,
        checkpoint_every=8,
        keep_checkpoints=9,
    ),
)
# What ddpm has not, in a process that has most of it; and so without what only ddpm has.
UNUSUAL_CONTINUOUS = dataclasses.replace(
    UNUSUAL,
    model=dataclasses.replace(PRESETS["score-transformer"], context_tokens=2, fourier_scale=1 / 3),
    diffusion=DiffusionConfig(
        process="ve",
        timesteps=900,
        beta_start=(0.1 + 0.2) / 100,
        beta_end=1 / 300,
        prediction="F",
        loss_weighting="edm",
        min_snr_gamma=0.7,
        preconditioning="edm",
        sigma_data=0.7073,
        sigma_min=0.02,
        sigma_max=1e5 / 3,
        time_density="logit_normal",
        density_mean=-0.1,
        density_deviation=1.4,
        density_shift=4.0,
        stratified=True,
        time_scale=1 / 7,
    ),
)
# Networks with settings that neither of these has.
UNUSUAL_NETWORKS = [
    dataclasses.replace(
        UNUSUAL,
        model=ModelConfig(
            network="residual_unet",
            attention_resolutions=(),
            activation="tanh",
            attention_heads=4,
            attention_blocks=3,
            time_channels=10,
            image_size=9,
            num_classes=7,
        ),
    ),
    dataclasses.replace(UNUSUAL, model=dataclasses.replace(PRESETS["two-convolutions"], uses_time=False)),
    dataclasses.replace(UNUSUAL, model=dataclasses.replace(PRESETS["dit-small"], patch_size=7, depth=2)),
]


def flat(values, prefix=""):
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write_json(value, path="settings.json"):
    with open(path, "w") as file:
        json.dump(value, file)
    return path


def parse(*argv, framework="torch"):
    return train_command.parse(framework, argv)


def refused(capsys, *argv):
    """The sentence with which the command line refuses flags; nothing else is printed."""
    with pytest.raises(UserError) as error:
        parse(*argv)
    assert capsys.readouterr() == ("", "")
    assert "\n" not in str(error.value)
    return str(error.value)


# --- JSON ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "scale"),
    [
        (["--preset", "score-transformer"], 30.0),
        (["--network", "transformer_unet"], 0.03),
        (["--network", "transformer_unet", "--process", "vp"], 30.0),
        (["--preset", "score-transformer", "--process", "ddpm"], 0.03),
        (["--network", "transformer_unet", "--fourier-scale", "7"], 7.0),
        (["--network", "dit"], 30.0),
    ],
)
def test_fourier_features_fit_the_times_of_the_process(argv, scale):
    """Otherwise neighbouring steps of a DDPM are as far from each other as any two, and the network learns none."""
    assert parse(*argv).config.model.fourier_scale == pytest.approx(scale)


def test_every_setting_survives_json():
    """Otherwise config.json does not repeat its run, or a resumed run refuses its own settings."""
    every = (UNUSUAL, UNUSUAL_CONTINUOUS, *UNUSUAL_NETWORKS)
    values = [dict(flat(configs.to_dict(config))) for config in every]
    for key, default in flat(configs.to_dict(Config())):
        assert any(each[key] != default for each in values), f"{key} is not tested here"
    for config in every:
        read = configs.read(write_json(configs.to_dict(config)))
        assert read == config
        assert hash(read) == hash(config)  # so lists became tuples again


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_survive_json(preset):
    """Otherwise a run of that preset cannot be resumed."""
    config = configs.with_preset(Config(), preset)
    assert configs.from_dict(configs.to_dict(config), "here") == config


def test_a_file_may_hold_some_settings_only():
    """Otherwise a hand-written --config has to repeat every default."""
    config = configs.read(write_json({"training": {"epochs": 3, "learning_rate": 1}}))
    assert config == dataclasses.replace(Config(), training=TrainingConfig(epochs=3, learning_rate=1.0))
    assert configs.read(write_json({})) == Config()


def test_a_partial_model_starts_from_the_preset_of_its_file():
    """Otherwise {"preset": "tiny", "model": {...}} silently trains most of `base`."""
    config = configs.read(write_json({"preset": "tiny", "model": {"num_res_blocks": 3}}))
    assert config.model == dataclasses.replace(PRESETS["tiny"], num_res_blocks=3)
    assert configs.read(write_json({"preset": "large"})).model == PRESETS["large"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"sed": 1}', "at its top level, Additional properties are not allowed \\('sed' was unexpected\\)"),
        ('{"training": {"bach_size": 1}}', "at training, Additional properties are not allowed \\('bach_size' was"),
        ('{"batch_size": 1}', "at its top level, .* \\('batch_size' was unexpected\\)"),  # it belongs to training
        ('{"model": {"seed": 1}}', "at model, .* \\('seed' was unexpected\\)"),
        ('{"preset": "huge"}', f"unknown preset 'huge': choose one of {', '.join(PRESETS)}"),
        (
            '{"preset": "huge"}',
            "unknown preset 'huge': choose one of tiny, small, base, large, colour, score-transformer, "
            "residual-batchnorm, simple-unet, two-convolutions, dit-small",
        ),
        ('{"preset": ["tiny"]}', r"at preset, \['tiny'\] is not of type 'string'"),
        ('{"precision": "fp8"}', "unknown precision 'fp8': choose one of fp32, bf16, fp64"),
        ('{"device": "cuda"}', "unknown device 'cuda': choose one of auto, cpu, gpu"),
        ('{"data": {"dataset": "minst"}}', "unknown dataset 'minst': choose one of auto, fashion-mnist, fashi"),
        ('{"diffusion": {"schedule": "cosin"}}', "unknown schedule 'cosin': choose one of linear, scaled_linear, qu"),
        ('{"diffusion": {"prediction": "x"}}', "unknown prediction 'x': choose one of eps, x_0, v, mean"),
        ('{"diffusion": {"zero_terminal_snr": 1}}', "at diffusion.zero_terminal_snr, 1 is not of type 'boolean'"),
        ('{"seed": 1.5}', "at seed, 1.5 is not of type 'integer'"),
        ('{"training": {"epochs": "many"}}', "at training.epochs, 'many' is not of type 'integer'"),
        ('{"training": {"learning_rate": "fast"}}', "at training.learning_rate, 'fast' is not of type 'number'"),
        ('{"training": {"learning_rate": NaN}}', "is not JSON with finite numbers: NaN is not finite"),
        ('{"seed": true}', "at seed, True is not of type 'integer'"),
        ('{"seed": 1.0}', "at seed, 1.0 is not of type 'integer'"),
        ('{"training": {"epochs": true}}', "at training.epochs, True is not of type 'integer'"),
        ('{"training": {"epochs": 1e999}}', "1e999 is not finite"),
        ('{"training": {"epochs": 1%s}}' % (30 * "0"), "is greater than the maximum of 9007199254740992"),
        ('{"training": {"epochs": 1%s}}' % (5000 * "0"), "is too long for a number"),
        ('{"seed": 1, "seed": 2}', "it has the key 'seed' twice"),
        ('{"data": %s}' % (5000 * "["), "it is nested more than 32 deep"),
        (
            json.dumps({"model": {"channel_mults": 65 * [1]}}),
            "at model.channel_mults, it breaks the .* 'maxItems'",
        ),
        ('{"training": {"epochs": 0}}', "--epochs 0: must be 1 or more"),
        ('{"model": null}', "at model, None is not of type 'object'"),
        ('{"model": {"channel_mults": [1, 2.5]}}', r"at model.channel_mults\[1\], 2.5 is not of type 'integer'"),
        ("[]", r"is not a configuration: at its top level, \[\] is not of type 'object'"),
        ('{"seed": 1', "is not JSON with finite numbers: Expecting"),
        ("\xff", "is not JSON with finite numbers: "),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path, text, message):
    """Otherwise a misspelt or misplaced setting is ignored, and the run is another than the one asked for."""
    path = tmp_path / "settings.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=message) as error:
        configs.read(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("path", "reason"), [("nowhere.json", "there is no nowhere.json"), (".", ". is a folder, not")]
)
def test_an_unreadable_file_is_refused_by_name(path, reason):
    """Otherwise a mistyped --config ends in a traceback."""
    with pytest.raises(UserError, match=f"^{re.escape(reason)}.*: give a file of settings"):
        configs.read(path)


# --- Presets and ranges -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "channels", "resolutions", "num_res_blocks", "attention"),
    [
        ("tiny", (16, 32), (28, 14), 1, ()),
        ("small", (32, 64, 128), (28, 14, 7), 1, (7,)),
        ("base", (32, 64, 128), (28, 14, 7), 2, (7,)),
        ("large", (64, 128, 256, 512), (28, 14, 7, 4), 2, (4,)),
        ("score-transformer", (32, 64, 128, 256), (28, 14, 7, 4), 1, (7, 4)),
    ],
)
def test_presets_are_those_of_the_design(preset, channels, resolutions, num_res_blocks, attention):
    """Otherwise published results belong to another network."""
    model = PRESETS[preset]
    assert tuple(model.base_channels * mult for mult in model.channel_mults) == channels
    assert model.resolutions == resolutions
    assert model.num_res_blocks == num_res_blocks
    assert model.attention_resolutions == attention
    assert Config().preset == "small"
    assert Config().model == PRESETS["small"]


MODEL_COUNTS = "--num-res-blocks, --num-groups, --image-size, --image-channels"
BETAS = "--beta-start, --beta-end"


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (
            DataConfig,
            {"dataset": "minst"},
            "unknown dataset 'minst': choose one of auto, fashion-mnist, fashion-mnist-10k, emoji, mnist, kmnist, "
            "emnist-letters, emnist-balanced, cifar10, cifar100, idx, folder",
        ),
        (
            DiffusionConfig,
            {"schedule": "cosin"},
            "unknown schedule 'cosin': choose one of linear, scaled_linear, quadratic, cosine, sigmoid",
        ),
        (
            DiffusionConfig,
            {"prediction": "x"},
            "unknown prediction 'x': choose one of eps, x_0, v, mean, score, velocity, F",
        ),
        (
            DiffusionConfig,
            {"variance": "learned"},
            "unknown variance 'learned': choose one of fixed_small, fixed_large, learned_range",
        ),
        (
            DiffusionConfig,
            {"loss_weighting": "snr"},
            "unknown loss_weighting 'snr': choose one of simple, noise, min_snr, likelihood, edm, flow",
        ),
        (DiffusionConfig, {"min_snr_gamma": 0.0}, "--min-snr-gamma 0.0: must be positive and finite"),
        (
            DiffusionConfig,
            {"timesteps": 20, "rescale_betas": True},
            "--rescale-betas with --timesteps 20: makes beta_end 1, which must be below 1",
        ),
        (
            DiffusionConfig,
            {"zero_terminal_snr": True},
            "--zero-terminal-snr with --prediction eps: x_t is pure noise at t = T - 1, and from the noise alone no "
            "image follows; predict v or x_0",
        ),
        (DiffusionConfig, {"timesteps": 1}, "--timesteps 1: must be 2 or more"),
        (DiffusionConfig, {"beta_start": 0.0}, f"{BETAS} (0.0, 0.02): must satisfy 0 < start <= end < 1"),
        (DiffusionConfig, {"beta_end": 1.0}, f"{BETAS} (0.0001, 1.0): must satisfy 0 < start <= end < 1"),
        (DiffusionConfig, {"beta_start": 0.5}, f"{BETAS} (0.5, 0.02): must satisfy 0 < start <= end < 1"),
        (DiffusionConfig, {"beta_start": NAN}, f"{BETAS} (nan, 0.02): must satisfy 0 < start <= end < 1"),
        (ModelConfig, {"num_res_blocks": 0}, f"{MODEL_COUNTS} (0, 2, 28, 1): must all be 1 or more"),
        (ModelConfig, {"num_groups": 0}, f"{MODEL_COUNTS} (1, 0, 28, 1): must all be 1 or more"),
        (ModelConfig, {"image_size": -1}, f"{MODEL_COUNTS} (1, 2, -1, 1): must all be 1 or more"),
        (ModelConfig, {"image_channels": 0}, f"{MODEL_COUNTS} (1, 2, 28, 0): must all be 1 or more"),
        (ModelConfig, {"channel_mults": ()}, "--channel-mults (): needs one positive number per level"),
        (ModelConfig, {"channel_mults": (1, 0)}, "--channel-mults (1, 0): needs one positive number per level"),
        (
            ModelConfig,
            {"base_channels": 36, "num_groups": 8},
            "--base-channels 36: must be even, 4 or more and a multiple of --num-groups 8",
        ),
        (
            ModelConfig,
            {"base_channels": 5, "num_groups": 1},
            "--base-channels 5: must be even, 4 or more and a multiple of --num-groups 1",
        ),
        (
            ModelConfig,
            {"base_channels": 2, "num_groups": 1},
            "--base-channels 2: must be even, 4 or more and a multiple of --num-groups 1",
        ),
        (
            ModelConfig,
            {"attention_resolutions": (7, 8)},
            "--attention-resolutions (7, 8): the levels of this network work at (28, 14, 7)",
        ),
        (TrainingConfig, {"epochs": 0}, "--epochs 0: must be 1 or more"),
        (TrainingConfig, {"batch_size": -4}, "--batch-size -4: must be 1 or more"),
        (TrainingConfig, {"sample_images": 0}, "--sample-images 0: must be 1 or more"),
        (TrainingConfig, {"checkpoint_every": 0}, "--checkpoint-every 0: must be 1 or more"),
        (TrainingConfig, {"keep_checkpoints": 0}, "--keep-checkpoints 0: must be 1 or more"),
        (TrainingConfig, {"max_steps": 0}, "--max-steps 0: must be 1 or more"),
        (TrainingConfig, {"validation_images": 0}, "--validation-images 0: must be 1 or more"),
        (TrainingConfig, {"warmup_steps": -1}, "--warmup-steps -1: must be 0 or more"),
        (TrainingConfig, {"sample_every": -1}, "--sample-every -1: must be 0 or more"),
        (TrainingConfig, {"evaluate_every": -1}, "--evaluate-every -1: must be 0 or more"),
        (TrainingConfig, {"evaluate_images": 0}, "--evaluate-images 0: must be 1 or more"),
        (TrainingConfig, {"learning_rate": 0.0}, "--learning-rate 0.0: must be positive and finite"),
        (TrainingConfig, {"learning_rate": float("inf")}, "--learning-rate inf: must be positive and finite"),
        (TrainingConfig, {"max_grad_norm": NAN}, "--max-grad-norm nan: must be positive and finite"),
        (TrainingConfig, {"ema_decay": 1.0}, "--ema-decay 1.0: must be in [0, 1)"),
        (TrainingConfig, {"ema_decay": -0.1}, "--ema-decay -0.1: must be in [0, 1)"),
        (TrainingConfig, {"decay_start": 1.0}, "--decay-start 1.0: must be in [0, 1)"),
        (TrainingConfig, {"final_learning_rate": NAN}, "--final-learning-rate nan: must be in [0, 1)"),
        (
            TrainingConfig,
            {"learning_rate_decay": "step"},
            "unknown learning_rate_decay 'step': choose one of none, linear, cosine",
        ),
        (Config, {"preset": "huge"}, f"unknown preset 'huge': choose one of {', '.join(PRESETS)}"),
        (
            Config,
            {"preset": "huge"},
            "unknown preset 'huge': choose one of tiny, small, base, large, colour, score-transformer, "
            "residual-batchnorm, simple-unet, two-convolutions, dit-small",
        ),
        (Config, {"precision": "fp16"}, "unknown precision 'fp16': choose one of fp32, bf16, fp64"),
        (Config, {"device": "cuda"}, "unknown device 'cuda': choose one of auto, cpu, gpu"),
        (Config, {"seed": -1}, "--seed -1: must be 0 or more"),
    ],
)
def test_a_value_out_of_range_is_refused(kind, values, message):
    """Otherwise the run fails later, inside a framework, with a message about something else; or trains nonsense."""
    with pytest.raises(UserError) as error:
        kind(**values)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (DiffusionConfig, {"timesteps": 2, "beta_start": 0.02}),
        (ModelConfig, {"base_channels": 4, "num_groups": 4}),
        (ModelConfig, {"channel_mults": (1,), "attention_resolutions": (28,)}),
        (TrainingConfig, {"epochs": 1, "max_steps": 1, "batch_size": 1, "validation_images": 1}),
        (TrainingConfig, {"warmup_steps": 0, "sample_every": 0, "ema_decay": 0.0}),
        (TrainingConfig, {"decay_start": 0.0, "final_learning_rate": 0.0}),
        (TrainingConfig, {"evaluate_every": 0, "evaluate_images": 1}),
    ],
)
def test_the_ends_of_the_ranges_are_allowed(kind, values):
    """Otherwise a setting that works is refused."""
    assert dataclasses.asdict(kind(**values)).items() >= values.items()


# --- The command line ---------------------------------------------------------------------------------------


def test_flags_win_over_the_file_and_the_file_over_the_defaults():
    """Otherwise a run is not the one that its command line names."""
    file = write_json({"seed": 5, "training": {"batch_size": 7, "epochs": 3}, "data": {"horizontal_flip": True}})
    config = parse("--config", file, "--batch-size", "9", "--no-horizontal-flip").config
    assert config.training == TrainingConfig(batch_size=9, epochs=3)
    assert config.seed == 5
    assert config.data.horizontal_flip is False
    assert config.diffusion == DiffusionConfig()


def test_flags_win_over_the_preset():
    """Otherwise --preset tiny --base-channels 8 trains one of the two, depending on their order."""
    for argv in (["--preset", "tiny", "--base-channels", "8"], ["--base-channels=8", "--preset=tiny"]):
        config = parse(*argv).config
        assert config.preset == "tiny"
        assert config.model == dataclasses.replace(PRESETS["tiny"], base_channels=8)
    config = parse("--preset", "large", "--channel-mults", "1", "2", "--attention-resolutions", "14").config
    assert config.model.channel_mults == (1, 2)
    assert config.model.attention_resolutions == (14,)
    assert config.model.base_channels == PRESETS["large"].base_channels


def test_the_preset_flag_wins_over_the_file_and_leaves_its_other_settings():
    """Otherwise --preset with --config gives a run called tiny with the network of base."""
    file = write_json(configs.to_dict(UNUSUAL))
    config = parse("--config", file, "--preset", "base").config
    assert config == dataclasses.replace(UNUSUAL, preset="base", model=PRESETS["base"])
    of_the_data = UNUSUAL.model.at(28)  # attention of its levels, at the sizes that they have for these images
    assert of_the_data.attention_resolutions == (28, 14)
    assert parse("--config", file).config == dataclasses.replace(UNUSUAL, model=of_the_data)


# model.image_size as well: --image-size is that of the pictures of a folder.
FROM_THE_DATA = {"model.image_channels", "model.num_classes"}


def test_every_setting_has_a_flag_but_those_that_come_from_the_data(capsys):
    """Otherwise a value of config.json can be set in a file only, or a flag is offered that the data contradict."""
    with pytest.raises(SystemExit) as stopped:
        parse("--help")
    assert stopped.value.code == 0
    listed = set(re.findall(r"--[\w-]+", capsys.readouterr().out))
    keys = [key for key, _ in flat(configs.to_dict(Config()))]
    without = {key for key in keys if "--" + key.split(".")[-1].replace("_", "-") not in listed}
    assert without == FROM_THE_DATA


def test_the_shape_of_the_images_and_the_number_of_classes_come_from_the_data():
    """Otherwise the network is built for other images, or other classes, than it is given."""
    config = configs.with_preset(UNUSUAL, "tiny")
    model = dataclasses.replace(PRESETS["tiny"], image_size=10, image_channels=4)
    labelled = dataclasses.replace(model, num_classes=6)
    assert configs.fitted(config, (10, 10, 4), 6) == dataclasses.replace(config, model=labelled)
    unconditional = dataclasses.replace(config, class_conditional=False)
    for num_classes in (6, 0):
        fitted = configs.fitted(unconditional, (10, 10, 4), num_classes)
        assert fitted == dataclasses.replace(unconditional, model=model)


def test_a_class_conditional_network_needs_classes():
    """Otherwise it has no table of labels, and draws as if nothing was asked for; or a table that nothing reads."""
    with pytest.raises(UserError) as error:
        configs.fitted(Config(data=DataConfig("fashion-mnist"), class_conditional=True), (28, 28, 1), 0)
    assert str(error.value) == (
        "--class-conditional with --dataset fashion-mnist: its images have no classes; leave the flag out"
    )
    # --config RUN/config.json --no-class-conditional
    assert configs.fitted(Config(model=ModelConfig(num_classes=10)), (28, 28, 1), 10).model.num_classes == 0
    for wrong in (-1, 10**9, 2.5):
        with pytest.raises(UserError, match="--num-classes"):
            ModelConfig(num_classes=wrong)


def test_images_that_are_not_square_are_refused():
    """Otherwise the network is built for squares, and fails at its first batch."""
    with pytest.raises(UserError) as error:
        configs.fitted(Config(data=DataConfig("fashion-mnist")), (28, 32, 1))
    assert str(error.value) == "--dataset fashion-mnist: has images of 28 x 32: they must be square"


def test_attention_stays_at_its_level_for_images_of_another_size():
    """Otherwise attention is silently left out for data of another size, or the preset is refused."""
    model = configs.fitted(Config(), (32, 32, 3)).model
    assert (model.resolutions, model.attention_resolutions, model.image_channels) == ((32, 16, 8), (8,), 3)
    assert configs.fitted(Config(), (28, 28, 1)) == Config()
    assert ModelConfig(channel_mults=(1, 2), attention_resolutions=(14, 28)).at(15).attention_resolutions == (8, 15)
    assert PRESETS["small"].at(32) == dataclasses.replace(PRESETS["colour"], image_channels=1)


@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
def test_a_run_gets_a_folder_of_its_framework_and_preset(framework):
    """Otherwise the runs of both frameworks lie in one folder, and --resume takes the other's."""
    folder = parse("--preset", "tiny", framework=framework).folder
    assert folder.parts[:2] == ("runs", framework)
    assert folder.name.endswith("Z-tiny")
    assert list(folder.iterdir()) == [folder / claims.LOCK]  # nobody else can take it
    assert str(parse("--run-dir", "mine/here", framework=framework).folder) == "mine/here"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--batchsize", "3"], "Unrecognized options: --batchsize"),
        (["--image-channels", "1"], "Unrecognized options: --image-channels"),
        (["--num-classes", "10"], "Unrecognized options: --num-classes"),
        (["--label-drop", "1"], "--label-drop 1.0: must be in [0, 1)"),
        (["--epochs", "0"], "--epochs 0: must be 1 or more"),
        (["--epochs", "many"], "--epochs: invalid literal for int() with base 10: 'many'"),
        (["--precision", "fp8"], "invalid choice 'fp8' for argument '--precision'"),
        (["--preset"], "Missing value for argument '--preset'"),
        (["--preset", "tiny", "--base-channels", "9"], "--base-channels 9: must be even, 4 or more"),
        (["--seed=-1"], "--seed -1: must be 0 or more"),
    ],
)
def test_wrong_flags_are_refused_by_name(capsys, argv, message):
    """Otherwise a typo in a flag starts hours of another run."""
    assert message in refused(capsys, *argv)


def test_an_unknown_preset_is_refused():
    """Otherwise a typo in --preset trains the default network."""
    with pytest.raises(UserError, match=rf"^unknown preset 'huge': choose one of {', '.join(PRESETS)}$"):
        parse("--preset", "huge")


def test_a_folder_with_files_is_not_written_into(tmp_path):
    """Otherwise a second run with the same --run-dir destroys the first."""
    (tmp_path / "mine").mkdir()
    assert parse("--run-dir", "mine").folder.name == "mine"  # empty is free
    (tmp_path / "mine" / "file").touch()
    with pytest.raises(UserError, match=r"^mine already holds files: choose another --run-dir, or continue"):
        parse("--run-dir", "mine")
    with pytest.raises(UserError, match=r"^mine/file is a file: choose another folder$"):
        parse("--run-dir", "mine/file")


# --- Resuming -----------------------------------------------------------------------------------------------

SAVED = dataclasses.replace(configs.with_preset(Config(), "tiny"), seed=11)


def write_run(folder, framework="torch", step=4, age=0.0, config=SAVED):
    """As much of a run as --resume looks at, its checkpoint `age` seconds old."""
    path = Path(folder) / "checkpoints" / f"step_{step:08d}.safetensors"
    checkpoint.save(
        path,
        {"model/x": np.zeros(1)},
        framework=framework,
        step=step,
        config=config,
        dataset_sha256="ab" * 32,
    )
    pointer = path.with_name("latest")
    pointer.write_text(path.name + "\n")
    modified = pointer.stat().st_mtime - age
    os.utime(pointer, (modified, modified))
    return str(folder), str(path)


@pytest.fixture
def written():
    """Two runs of torch, the newer first in the alphabet, and a still newer one of tensorflow."""
    return {
        "old": write_run("runs/torch/z", age=60),
        "new": write_run("runs/torch/a", age=30),
        "other": write_run("runs/tensorflow/b", "tensorflow"),
        "elsewhere": write_run("mine"),
    }


@pytest.mark.parametrize(
    "argv", [["--resume"], ["--resume", "latest"], ["--resume=latest"], ["--resume", "--epochs", "30"]]
)
@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
def test_resume_alone_takes_the_newest_run_of_the_framework(written, framework, argv):
    """Otherwise an older run goes on, or the other framework's."""
    plan = parse(*argv, framework=framework)
    folder, file = written["new" if framework == "torch" else "other"]
    assert str(plan.folder) == folder
    assert str(plan.resumed.path) == file
    assert plan.config == dataclasses.replace(SAVED, training=TrainingConfig(epochs=30 if "30" in argv else 20))


def test_resume_names_a_folder(written):
    """Otherwise a run other than the newest cannot be resumed."""
    for argv in (
        ["--resume", "runs/torch/z"],
        ["--resume=runs/torch/z"],
        ["--epochs", "30", "--resume", "runs/torch/z"],
    ):
        plan = parse(*argv)
        assert (str(plan.folder), str(plan.resumed.path)) == written["old"]


@pytest.mark.parametrize("flag", ["--run-dir", "--run_dir"])
def test_resume_with_a_run_dir_alone_takes_that_run(written, flag):
    """Otherwise `--run-dir X` and later `--run-dir X --resume` are not the same run."""
    for argv in (["--resume", flag, "mine"], [flag, "mine", "--resume"]):
        plan = parse(*argv)
        assert (str(plan.folder), str(plan.resumed.path)) == written["elsewhere"]


@pytest.mark.parametrize(
    ("framework", "resume"),
    [
        ("torch", "runs/torch/z/checkpoints/step_00000004.safetensors"),
        ("torch", "runs/tensorflow/b"),
        ("tensorflow", "mine"),
    ],
)
def test_a_file_or_another_framework_s_run_goes_on_in_a_new_folder(written, framework, resume):
    """Otherwise the record of the first run is overwritten by a branch of it."""
    plan = parse("--resume", resume, framework=framework)
    assert plan.folder.parts[:2] == ("runs", framework)
    assert list(plan.folder.iterdir()) == [plan.folder / claims.LOCK]
    assert plan.resumed.step == 4
    assert str(parse("--resume", resume, "--run-dir", "chosen", framework=framework).folder) == "chosen"
    with pytest.raises(UserError, match=r"^runs/torch/a already holds files"):
        parse("--resume", resume, "--run-dir", "runs/torch/a", framework=framework)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--resume"], "no run with a checkpoint in runs/torch: train one first, or name a folder or file"),
        (
            ["--resume", "nowhere"],
            "nowhere holds no checkpoint: give a run folder with checkpoints/latest in it, or a file",
        ),
        (["--resume", "--run-dir", "nowhere"], "nowhere holds no checkpoint"),
    ],
)
def test_resume_without_a_checkpoint_is_refused(argv, message):
    """Otherwise a mistyped folder starts a new run from step 0."""
    with pytest.raises(UserError, match=f"^{message}"):
        parse(*argv)


def test_resume_where_the_pointed_file_is_gone():
    """Otherwise a run whose checkpoints were deleted by hand ends in a traceback."""
    _, file = write_run("runs/torch/a")
    os.unlink(file)
    with pytest.raises(UserError, match=r"^no run with a checkpoint in runs/torch: "):
        parse("--resume")
    with pytest.raises(UserError, match=r"^runs/torch/a holds no checkpoint: "):
        parse("--resume", "runs/torch/a")


@pytest.mark.parametrize(
    ("argv", "difference"),
    [
        (["--seed", "12"], "seed was 11, now 12"),
        (["--learning-rate", "2e-3"], "training.learning_rate was 0.001, now 0.002"),
        (["--batch-size", "64"], "training.batch_size was 128, now 64"),
        (
            ["--preset", "base"],
            "preset was 'tiny', now 'base'; model.base_channels was 16, now 32; model.channel_mults",
        ),
        (["--timesteps", "10", "--seed", "1"], "seed was 11, now 1; diffusion.timesteps was 1000, now 10"),
        (["--precision", "bf16"], "precision was 'fp32', now 'bf16'"),
        (["--horizontal-flip"], "data.horizontal_flip was False, now True"),
        (["--validation-images", "5"], "training.validation_images was None, now 5"),  # or the losses of one run differ
    ],
)
def test_a_resumed_run_computes_what_it_began(written, argv, difference):
    """Otherwise the second half of a run is another experiment under the first one's name."""
    with pytest.raises(UserError) as error:
        parse("--resume", *argv)
    assert f"a resumed run must keep its settings, but {difference}" in str(error.value)
    assert str(error.value).endswith("Leave these flags out, or start a new run without --resume")


def test_a_resumed_run_may_go_further_and_elsewhere(written):
    """Otherwise a finished run cannot be trained on, and one from a GPU not on a CPU."""
    changes = {
        "--epochs": "30",
        "--max-steps": "9",
        "--device": "cpu",
        "--threads": "1",
        "--compile": "",
        "--tf32": "",
        "--dataset": "fashion-mnist-10k",
        "--data-dir": "/data",
        "--skip-bad": "",
        "--sample-every": "0",
        "--sample-images": "3",
        "--loss-curve": "",
        "--evaluate-every": "2",
        "--evaluate-images": "500",
        "--checkpoint-every": "7",
        "--keep-checkpoints": "1",
    }
    config = parse("--resume", *(word for change in changes.items() for word in change if word)).config
    before, now = dict(flat(configs.to_dict(SAVED))), dict(flat(configs.to_dict(config)))
    changed = {key for key in before if before[key] != now[key]}
    assert {"--" + key.split(".")[-1].replace("_", "-") for key in changed} == set(changes)
    assert changed == configs.CHANGEABLE
    assert parse("--resume", "--preset", "tiny", "--seed", "11").config == SAVED  # as it was: no change


def test_resume_and_config_exclude_each_other(written):
    """Otherwise one of the two is silently ignored."""
    with pytest.raises(UserError, match="--resume takes the settings of the run: leave out --config"):
        parse("--resume", "--config", write_json({}))
