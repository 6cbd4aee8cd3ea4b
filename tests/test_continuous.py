"""Processes of continuous time through the command line: trained, resumed, drawn; and what does not go together.

That the equations are right is tests/parity's.
"""

import dataclasses
import json

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from ddpm_shared import config as configs
from ddpm_shared import datasets
from ddpm_shared.config import DiffusionConfig, with_process
from ddpm_shared.config.samplers import CONTINUOUS
from ddpm_shared.config.sampling import Sampling
from ddpm_shared.errors import UserError
from ddpm_shared.records import checkpoint

FLAGS = [
    *("--preset", "tiny", "--base-channels", "8", "--channel-mults", "1", "--num-groups", "4", "--class-conditional"),
    *("--dataset", "fashion-mnist-10k", "--batch-size", "16", "--max-steps", "4", "--warmup-steps", "1"),
    *("--validation-images", "20", "--sample-every", "0", "--checkpoint-every", "2", "--keep-checkpoints", "9"),
    *("--device", "cpu", "--precision", "fp64"),
]
# A sampler beside that of the process, and a process beside that of the network.
DRAWN = {
    "vp": [["--sampler", "pc"], ["--process", "flow", "--sampler", "ddim"]],
    "ve": [["--sampler", "dpmpp_2m"]],
    "edm": [["--sampler", "heun", "--churn", "3"], ["--process", "vp", "--sampler", "euler"]],
    "flow": [["--sampler", "rk4", "--grid", "uniform"]],
    "sub_vp": [["--sampler", "ancestral"]],
    "ve_exponential": [["--sampler", "heun_t"]],
}
SLOW = ("sub_vp", "ve_exponential")
CLOSE = 1e-11  # of the losses of four float64 steps, relative; seen: 3e-15
NEEDED = {"sigma_data": 0.7}


@pytest.fixture(scope="module")
def few_clothes():
    real = datasets.load(datasets.EMBEDDED)
    cut = tuple(dataclasses.replace(split, images=split.images[:64], labels=split.labels[:64]) for split in real)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load", lambda name, data_dir=None, folder=None: cut)
        yield cut


@pytest.fixture(scope="module")
def trained(both, few_clothes, tmp_path_factory):
    """A function: process -> the folders of four steps in PyTorch and in TensorFlow, trained once."""
    runs = {}

    def folders(process):
        if process not in runs:
            where = tmp_path_factory.mktemp(process)
            runs[process] = [where / tree.name for tree in both]
            for tree, folder in zip(both, runs[process], strict=True):
                assert tree.train.main([*FLAGS, "--process", process, "--run-dir", str(folder)]) == 0
        return runs[process]

    return folders


def drawn(tree, folder, out, *argv):
    told = ["--checkpoint", str(folder), "--device", "cpu", "--precision", "fp64", "--num-images", "3", *argv]
    assert tree.inference.main([*told, "--steps", "4", "--out", str(out)]) == 0
    with np.load(out / "samples.npz") as archive:
        return archive["images"]


def processes(names, slow=()):
    return [pytest.param(name, marks=[pytest.mark.slow] * (name in (*SLOW, *slow))) for name in names]


@pytest.mark.parametrize("process", processes(CONTINUOUS, ("vp", "ve")))
def test_both_frameworks_learn_the_same(trained, few_clothes, process):
    """Otherwise a process is another in one framework, or its settings are lost between the flags and the loss."""
    records = [json.loads((folder / "metrics.json").read_text()) for folder in trained(process)]
    losses = [
        [step["loss"] for step in record["history"]["steps"]] + [record["history"]["epochs"][-1]["validation_loss"]]
        for record in records
    ]
    assert len(set(losses[0])) == 5
    assert_allclose(losses[0], losses[1], rtol=CLOSE)
    assert records[0].keys() == records[1].keys()
    for record in records:
        own = with_process(DiffusionConfig(), process)
        expected = dataclasses.asdict(own) | {"sigma_data": record["config"]["diffusion"]["sigma_data"]}
        assert record["config"]["diffusion"] == expected
    measured = records[0]["config"]["diffusion"]["sigma_data"]
    if own.needs_sigma_data:  # of the pixels that it was trained on
        assert measured == pytest.approx((few_clothes[0].images / 127.5 - 1).std(), rel=1e-12)
    else:
        assert measured is None


@pytest.mark.parametrize("process", processes(CONTINUOUS, ("vp", "ve")))
def test_both_frameworks_draw_the_same(both, trained, tmp_path, process):
    """Otherwise a checkpoint is worth another thing in each framework. Of a network with classes, guided."""
    folder, images = trained(process)[0], []
    for number, argv in enumerate([[], *DRAWN[process]]):
        pair = [
            drawn(tree, folder, tmp_path / f"{tree.name}-{number}", "--guidance", "2", "--labels", "1,7", *argv)
            for tree in both
        ]
        assert pair[0].std() > 0
        assert_array_equal(*pair)
        images.append(pair[0])
    for other in images[1:]:
        assert not np.array_equal(images[0], other)


@pytest.mark.parametrize("process", processes(("edm", "flow"), ("flow",)))
def test_a_resumed_run_is_the_uninterrupted_one(tree, both, trained, tmp_path, process):
    """Otherwise the draws of t depend on where a run was cut, and no resumed number can be trusted."""
    folder = trained(process)[both.index(next(each for each in both if each.name == tree.name))]
    half, end = (folder / "checkpoints" / f"step_0000000{step}.safetensors" for step in (2, 4))
    assert tree.train.main(["--resume", str(half), "--run-dir", str(tmp_path / "rest")]) == 0
    again = checkpoint.load(tmp_path / "rest" / "checkpoints" / end.name)
    whole = checkpoint.load(end)
    assert again.config == whole.config
    for name, value in whole.tensors.items():
        assert_array_equal(again.tensors[name], value, err_msg=name)


@pytest.mark.parametrize("process", ["vp", "ve", "edm", "flow"])
def test_the_boxed_model_draws_its_images_in_any_process(tree, tmp_path, process, keep_networks):
    """Otherwise the processes are not one family: without retraining, x differs by a factor alone."""
    keep_networks(tree)
    told = ["--num-images", "4", "--steps", "5", "--sampler", "ddim", "--device", "cpu"]
    images = []
    for name, argv in (("ddpm", []), (process, ["--process", process])):
        out = tmp_path / name
        assert tree.inference.main([*told, *argv, "--out", str(out)]) == 0
        with np.load(out / "samples.npz") as archive:
            images.append(archive["images"].astype(int))
    apart = np.abs(images[0] - images[1])  # some processors round a value that is nearly half of a grey level otherwise
    assert apart.max() <= 1
    assert np.mean(apart > 0) < 0.01


# --- What does not go together ------------------------------------------------------------------------------


def settings_of(process, **more):
    return dataclasses.replace(with_process(DiffusionConfig(), process), **more)


@pytest.mark.parametrize(
    ("process", "more", "message"),
    [
        ("vp", {"schedule": "cosine"}, "--process vp with --schedule cosine: is an option of --process ddpm"),
        ("ve", {"rescale_betas": True}, "--process ve with --rescale-betas True: is an option of --process ddpm"),
        (
            "flow",
            {"zero_terminal_snr": True},
            "--process flow with --zero-terminal-snr True: is an option of --process ddpm",
        ),
        (
            "edm",
            {"variance": "learned_range"},
            "--process edm with --variance learned_range: is an option of --process",
        ),
        (
            "vp",
            {"prediction": "mean"},
            "--process vp with --prediction mean: the mean of x_prev is of a chain of steps",
        ),
        ("ddpm", {"preconditioning": "edm"}, "--process ddpm with --preconditioning edm: is an option of the other"),
        ("ddpm", {"sigma_data": 0.5}, "--process ddpm with --sigma-data 0.5: is an option of the other processes"),
        (
            "ddpm",
            {"time_density": "uniform", "stratified": True},
            "--process ddpm with --stratified True: is an option",
        ),
        ("ddpm", {"time_scale": 2.0}, "--process ddpm with --time-scale 2.0: is an option of the other processes"),
        ("ddpm", {"time_density": "shifted"}, "--process ddpm with --time-density shifted: is an option of the other"),
        ("ddpm", {"loss_weighting": "likelihood"}, "--process ddpm with --loss-weighting likelihood: is an option of"),
        ("ddpm", {"loss_weighting": "edm"}, "--process ddpm with --loss-weighting edm: is an option of the other"),
        (
            "ddpm",
            {"zero_terminal_snr": True, "prediction": "score"},
            "--zero-terminal-snr with --prediction score: x_t is pure noise at t = T - 1",
        ),
        ("flow", {"prediction": "eps"}, "--process flow with --prediction eps: x_t is pure noise at t = 1"),
        ("flow", {"prediction": "score"}, "--process flow with --prediction score: x_t is pure noise at t = 1"),
        ("flow", {"loss_weighting": "likelihood"}, "--process flow with --loss-weighting likelihood: it is g^2, which"),
        (
            "flow",
            {"preconditioning": "edm", "prediction": "x_0"},
            r"--process flow with --preconditioning edm: it gives the network log(sigma / alpha), which is infinite",
        ),
        ("edm", {"time_density": "logit_normal"}, "--process edm with --time-density logit_normal: edm's t is a devia"),
        ("vp", {"time_density": "log_normal"}, "--process vp with --time-density log_normal: edm's t is a deviation"),
        ("edm", {"prediction": "eps"}, "--preconditioning edm with --prediction eps: it makes x_0 of the output"),
        (
            "ve",
            {"prediction": "eps"},
            "--preconditioning score_sde with --prediction eps: it divides the output by sig",
        ),
        ("ve", {"sigma_min": 50.0}, "--sigma-min, --sigma-max (50.0, 50.0): the first must be below the second"),
        (
            "ve_exponential",
            {"sigma_max": 1.0},
            "--sigma-max 1.0: is s of ve_exponential, whose noise grows as s^t: it must be above 1",
        ),
        ("ve", {"sigma_max": 1e7}, "--sigma-max 10000000.0: must be"),
        ("edm", {"density_deviation": 0.0}, "--density-deviation 0.0: must be a number from 0.001 to 1000"),
        ("flow", {"density_shift": -1.0}, "--density-shift -1.0: must be a number from 0.001 to 1000"),
        ("flow", {"density_mean": float("nan")}, "--density-mean nan: must be a number from -100 to 100"),
        ("vp", {"time_scale": 0.0}, "--time-scale 0.0: must be positive and finite"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(process, more, message):
    """Otherwise a run trains something else than its settings say, or NaN; and nobody says what to do instead."""
    with pytest.raises(UserError) as error:
        settings_of(process, **more)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("process", "sampling", "message"),
    [
        ("ddpm", {"sampler": "euler"}, "--sampler euler with --process ddpm: it integrates over t, and takes vp, sub"),
        ("flow", {"sampler": "pc"}, "--sampler pc with --process flow: it integrates over t, the reverse SDE, and tak"),
        ("ve", {"sampler": "euler_maruyama", "process": "flow"}, "--sampler euler_maruyama with --process flow: it"),
        (
            "ddpm",
            {"sampler": "heun", "churn": 1.0},
            "--churn 1.0: it evaluates the network between the times of the steps",
        ),
        ("ddpm", {"sampler": "heun", "churn": 1.0, "process": "edm"}, "--churn 1.0: it evaluates the network between"),
        ("ddpm", {"grid": "karras"}, "--grid karras: the network was trained at whole times, which --spacing chooses"),
        (
            "ddpm",
            {"sampler": "rk4", "process": "vp"},
            "--sampler rk4: it evaluates the network between the times of the steps",
        ),
        ("edm", {"process": "ddpm"}, "--process ddpm: the network was trained in edm"),
        ("vp", {"spacing": "leading"}, "--spacing leading: is for the whole times of ddpm; with vp take --grid"),
        (
            "vp",
            {"guidance": 2.0, "guidance_from": 3},
            "--guidance-from, --guidance-to (3, None): are whole times of ddpm, and the network was trained in vp",
        ),
        ("flow", {"process": "edm", "grid": "shifted"}, "--grid shifted with --process edm: it is for times from 0"),
    ],
)
def test_samplers_that_do_not_go_with_the_process_are_refused(process, sampling, message):
    """Otherwise the pictures are noise, or the network is evaluated at times that it was never trained at."""
    diffusion = settings_of(process)
    with pytest.raises(UserError) as error:
        Sampling(**sampling).resolved_for(diffusion)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ({"churn": 1.0}, "--churn 1.0: is an option of heun, not of ancestral"),
        ({"sampler": "heun", "churn": -1.0}, "--churn -1.0: must be a number from 0 to 1e+06"),
        ({"sampler": "heun_t", "churn_noise": 1.1}, "--churn-noise 1.1: is an option of heun, not of heun_t"),
        ({"sampler": "heun", "corrector_snr": 0.2}, "--corrector-snr 0.2: is an option of pc, not of heun"),
        ({"sampler": "pc", "corrector_steps": 0}, "--corrector-steps 0: must be 1 or more"),
        ({"rho": 0.0}, "--rho 0.0: must be a number from 0.1 to 1000"),
        ({"shift": float("inf")}, "--shift inf: must be a number from 0.001 to 1000"),
        ({"grid": "even"}, "unknown grid 'even': choose one of uniform, log_snr, karras, shifted"),
        (
            {"process": "cosine"},
            "unknown process 'cosine': choose one of ddpm, vp, sub_vp, ve, ve_exponential, edm, fl",
        ),
    ],
)
def test_options_of_other_samplers_are_refused(sampling, message):
    """Otherwise an option does nothing, and two pictures that should differ do not."""
    with pytest.raises(UserError) as error:
        Sampling(**sampling)
    assert str(error.value).startswith(message)


def test_a_process_brings_its_settings_and_leaves_no_other_s():
    """Otherwise --process vp after a file of edm trains vp with EDM's preconditioning."""
    edm = with_process(DiffusionConfig(timesteps=500), "edm")
    assert with_process(edm, "vp") == with_process(DiffusionConfig(timesteps=500), "vp")
    assert with_process(edm, "ddpm") == DiffusionConfig(timesteps=500)
    read = configs.from_dict({"diffusion": {"process": "edm", "sigma_max": 50.0}}, "here").diffusion
    assert read == dataclasses.replace(with_process(DiffusionConfig(), "edm"), sigma_max=50.0)


@pytest.mark.parametrize("process", CONTINUOUS)
def test_the_loss_is_finite_at_both_ends(tree, side_of, process):
    """Otherwise one unlucky number in a million steps ends a run in NaN."""
    side, config = side_of("fp32"), settings_of(process, sigma_data=0.7)
    u = np.array([2.0**-53, 1 - 2.0**-53])
    x_0, eps = (side.tensor(np.random.default_rng(seed).standard_normal((2, 4, 4, 1))) for seed in range(2))
    loss = tree.objective.training_loss(side.schedule(config), lambda x, t: 0.3 * x, x_0, side.times(u), eps, config)
    assert np.isfinite(side.array(loss))
