"""Likelihood by the ODE: right on data whose density is known, the same in both frameworks, any batch and after Ctrl-C.

The tests of the command replace the network by arithmetic (`quick`); that both frameworks and the oracle agree on
networks in every process is test_parity.py's.
"""

import dataclasses
import functools
import json
import os
import signal

import numpy as np
import pytest
from matplotlib.figure import Figure
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from ddpm_parity import likelihood as parity
from ddpm_parity.processes import config_of
from ddpm_parity.sampling import TRAINED
from ddpm_shared import datasets, streams
from ddpm_shared.commands import likelihood as command_module
from ddpm_shared.commands import likelihood_estimate
from ddpm_shared.config import DiffusionConfig
from ddpm_shared.oracle.gaussian import make_gaussian
from ddpm_shared.records import checkpoint

PROCESSES = ("ddpm", "vp", "sub_vp", "ve", "ve_exponential", "edm", "flow")
T = 20
N = 6
FLAGS = ["--num-images", str(N), "--steps", "4", "--batch-size", "4"]
LOAD = functools.cache(datasets.load)  # the images are unpacked once
TRAIN, TEST = LOAD("fashion-mnist-10k", None)


# --- The density of Gaussian data, which is known -----------------------------------------------------------

SHAPE = (2, 4, 4, 1)
DEVIATIONS = np.geomspace(0.05, 1.5, 16)
DATA = make_gaussian(np.linspace(-0.8, 0.8, 16), DEVIATIONS**2)


def errors(side, process, steps):
    """Of the log-density per dimension, with the best denoiser; the prior is that of the ODE, no better or worse."""
    config = config_of(process)
    levels = side.ode.ode_levels(config, steps, "log_snr")
    sizes = list(zip(levels.alpha, levels.sigma, strict=True))
    deviation = side.processes.prior_scale(config, process)
    spread = np.sqrt(sizes[0][0] ** 2 * DATA.variances + sizes[0][1] ** 2)
    x = (sizes[0][0] * DATA.mean + spread * np.random.default_rng(0).standard_normal((SHAPE[0], 16))).reshape(SHAPE)

    def eps(x, i):
        return side.tensor(DATA.predict(side.array(x), *sizes[i]).eps)

    def divergence(x, i):
        alpha, sigma = sizes[i]
        trace = (sigma / (alpha**2 * DATA.variances + sigma**2)).sum()
        return eps(x, i), side.times(np.repeat(trace, SHAPE[0]))

    found = side.array(side.ode.log_density(levels, eps, divergence, side.tensor(x), deviation))
    end = DATA.travel(x, sizes[0], sizes[-1]).reshape(len(x), -1)
    growth = np.log(np.sqrt(sizes[-1][0] ** 2 * DATA.variances + sizes[-1][1] ** 2) / spread)
    exact = -(end**2 / deviation**2 + np.log(2 * np.pi * deviation**2)).sum(1) / 2 + growth.sum()
    return np.abs(found - exact) / 16


@pytest.mark.parametrize("process", PROCESSES)
def test_the_density_of_gaussian_data_is_found_with_the_square_of_the_step(side_of, process):
    """Otherwise the number is not a likelihood, and more steps do not mend it."""
    side = side_of("fp64")
    few, more, many = (errors(side, process, steps).max() for steps in (40, 80, 160))
    assert many < 1e-3
    assert 3.5 < few / more < 4.3
    assert (2.0 if process == "ddpm" else 3.8) < more / many < 4.2  # between whole times there are no more levels


def test_the_levels_of_ddpm_are_whole_times_even_in_log_snr(tree):
    """Otherwise the ODE leaps over the little noise, where the bits are, or is evaluated between two times."""
    levels = tree.ode.ode_levels(DiffusionConfig(), 100, "log_snr")
    assert_array_equal(levels.times, np.round(levels.times))
    assert (levels.times[0], levels.times[-1], len(levels)) == (0, 999, 100)
    assert np.array_equal(levels.times[:5], range(5))
    steps = np.diff(np.log(levels.sigma / levels.alpha))[20:]
    assert steps.max() < 1.5 * steps.mean()
    assert len(tree.ode.ode_levels(DiffusionConfig(), 1000, "log_snr")) == 1000


def test_the_exact_trace_is_the_mean_of_many_probes(side_of):
    """Otherwise one of the two is the trace of something else."""
    side = side_of("fp64")
    likelihood = parity._make_likelihood(side, "ddpm")
    x = parity._float64(side, 0.5 * np.random.default_rng(0).standard_normal(parity.IMAGES))
    probes = [streams.signs(0, streams.LIKELIHOOD_PROBE, k, parity.IMAGES) for k in range(400)]
    single = np.array([side.array(likelihood.divergence(x, 2, [parity._float64(side, v)])[1]) for v in probes])
    _, exact = likelihood.divergence(x, 2, None)
    error = single.std(axis=0, ddof=1) / np.sqrt(len(probes))
    assert (np.abs(single.mean(axis=0) - side.array(exact)) < 4 * error).all()
    assert (error < 0.2 * np.abs(side.array(exact))).all()


# --- The numbers of each image ------------------------------------------------------------------------------


class Arithmetic:
    """In the place of a tree's Likelihood: the bits depend on the image and on all its random numbers."""

    device_name, threads, smallest_noise = "cpu", 1, 0.01

    def __init__(self, *ignored):
        self.calls = 0

    def bits(self, pixels, u, probes, labels=None, on_products=lambda count: None):
        """Of each image."""
        self.calls += 1
        assert (pixels.dtype, u.dtype, u.shape) == (np.uint8, np.float64, pixels.shape)
        assert ((u > 0) & (u < 1)).all()
        on_products(len(pixels))
        weights = 1 + np.arange(784.0).reshape(28, 28, 1) / 784
        bits = ((pixels / 255 + u) * weights).mean(axis=(1, 2, 3))
        if probes is not None:
            assert probes.shape[1:] == pixels.shape
            assert_array_equal(np.abs(probes), 1.0)
            scales = (2.0 ** np.arange(len(probes)))[:, None, None, None, None]  # the order of the probes counts
            bits = bits + (scales * probes * weights).mean(axis=(0, 2, 3, 4))
        return bits


def bits_of(first=0, count=N, seed=0, probes=2, pixels=None):
    pixels = TEST.images[first : first + count] if pixels is None else pixels
    return likelihood_estimate.bits_of(Arithmetic(), pixels, first, seed, probes)


def test_the_bits_of_an_image_do_not_depend_on_its_batch():
    """Otherwise the memory of a machine decides how likely an image is, or all images share a probe."""
    whole = bits_of()
    assert_array_equal(np.concatenate([bits_of(0, 1), bits_of(1, 4), bits_of(5, 1)]), whole)
    assert not (bits_of(seed=1) == whole).any()
    assert not (bits_of(probes=1) == whole).any()
    same = np.repeat(TEST.images[:1], N, axis=0)
    assert len(np.unique(bits_of(pixels=same))) == N


def test_the_new_streams_are_even():
    """Otherwise the dequantised images are off their bins, or the estimate of the trace is biased."""
    signs = streams.signs(0, streams.LIKELIHOOD_PROBE, 0, (40, 28, 28, 1))
    assert abs(signs.mean()) < 4 / np.sqrt(signs.size)
    u = streams.uniform_images(0, streams.LIKELIHOOD_DEQUANTISATION, 0, (40, 28, 28, 1))
    assert abs(u.mean() - 0.5) < 4 / np.sqrt(12 * u.size)
    assert abs(u.var() - 1 / 12) < 1e-3


def test_the_estimate_by_hand():
    """Otherwise mean and error are those of other numbers, or of other classes."""
    bits = np.array([1.0, 3.0, 5.0, 7.0])
    found = likelihood_estimate.estimate(bits)
    assert_allclose(found.pop("standard_error"), np.sqrt(20 / 3) / 2)
    assert found == {"bits_per_dim": 4.0, "per_image": [1.0, 3.0, 5.0, 7.0]}
    assert likelihood_estimate.estimate(bits[:1])["standard_error"] is None
    of = likelihood_estimate.of_classes(bits, np.array([0, 2, 0, 0]), ("a", "b", "c"))
    assert [(each["num_images"], each["bits_per_dim"]) for each in of] == [(3, 13 / 3), (0, None), (1, 3.0)]
    assert_allclose(of[0]["standard_error"], np.std([1, 5, 7], ddof=1) / np.sqrt(3))
    assert of[2]["standard_error"] is None


# --- The command --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A run folder with one checkpoint: the small trained network, used for a process of T steps."""
    loaded = checkpoint.load(TRAINED, ("ema",))
    config = dataclasses.replace(loaded.config, diffusion=DiffusionConfig(timesteps=T, beta_end=0.5))
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, dataset="fashion-mnist-10k"))
    weights = {name.replace("ema/", "model/"): 0.9 * value for name, value in loaded.tensors.items()}
    path = tmp_path_factory.mktemp("run") / "checkpoints" / "step_00000009.safetensors"
    known = {"framework": "torch", "step": 9, "config": config, "dataset_sha256": TRAIN.sha256}
    checkpoint.save(path, loaded.tensors | weights, **known)
    path.with_name("latest").write_text(path.name + "\n")
    return path.parent.parent


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "load", LOAD)


def command(tree, source, out, *argv):
    """The exit code of the command line."""
    return tree.likelihood.main(["--checkpoint", str(source), "--out", str(out), "--device", "cpu", *FLAGS, *argv])


def evaluate(tree, source, out, *argv):
    """What the command line writes."""
    assert command(tree, source, out, *argv) == 0
    return json.loads((out / "likelihood.json").read_text())


@pytest.fixture
def quick(tree, monkeypatch):
    """Arithmetic in the place of the network, and an empty picture.

    Gives every Arithmetic that was made, and a plan: the signal that it is to send itself, by the number of the call.
    """
    made, plan = [], {}

    class Watched(Arithmetic):
        def __init__(self, *ignored):
            super().__init__()
            made.append(self)

        def bits(self, *args):
            """The same, with a signal on the way."""
            if self.calls + 1 in plan:
                os.kill(os.getpid(), plan.pop(self.calls + 1))
            return super().bits(*args)

    monkeypatch.setattr(tree.model, "load", lambda loaded, prefix, config: prefix)
    monkeypatch.setattr(tree.ode, "Likelihood", Watched)
    monkeypatch.setattr(command_module, "picture", lambda result: Figure(figsize=(1, 1)))
    return made, plan


def test_both_frameworks_compute_the_same_bits_of_a_network(both, written, tmp_path, capfd):
    """Otherwise a model is better in one framework than in the other, or nobody learns what was computed."""
    torch, tf = (evaluate(tree, written, tmp_path / tree.name) for tree in both)
    assert_allclose(torch["per_image"], tf["per_image"], rtol=1e-5)
    differ = {"framework", "seconds", "environment", "bits_per_dim", "standard_error", "per_image", "classes"}
    assert torch.keys() == tf.keys()
    assert all(torch[key] == tf[key] for key in torch.keys() - differ)
    assert {
        key: torch[key] for key in ("process", "steps", "grid", "rho", "trace", "probes", "num_images", "seed")
    } == {
        "process": "ddpm",
        "steps": 4,
        "grid": None,
        "rho": None,
        "trace": "hutchinson",
        "probes": 1,
        "num_images": N,
        "seed": 0,
    }
    assert_allclose(torch["smallest_noise"], 0.01)
    assert torch["dataset"] == {"name": "fashion-mnist-10k", "split": "test", "sha256": TEST.sha256}
    assert_allclose(torch["bits_per_dim"], np.mean(torch["per_image"]))
    for tree in both:
        assert sorted(path.name for path in (tmp_path / tree.name).iterdir()) == ["likelihood.json", "likelihood.png"]
        with Image.open(tmp_path / tree.name / "likelihood.png") as picture:
            picture.verify()
    printed = capfd.readouterr().out
    assert f'make bits-torch ARGS="--checkpoint {written}"' in printed
    assert f'make bits-tf ARGS="--checkpoint {written}"' in printed


def test_an_interrupted_run_goes_on_where_it_stopped(tree, written, quick, tmp_path, guarded, capfd):
    """Otherwise Ctrl-C in the last minute of an hour costs all of it, or changes the number."""
    made, plan = quick
    out, whole = tmp_path / "out", evaluate(tree, written, tmp_path / "whole")
    plan[2] = signal.SIGINT
    code, err = guarded(lambda: command(tree, written, out))
    assert code == 130
    kept = f"interrupted; 4 finished images are saved: the same command with --out {out} continues"
    assert err.rstrip("\n").rpartition("\n")[2] == kept
    assert [path.name for path in out.iterdir()] == ["likelihood.partial.npz"]
    found = evaluate(tree, written, out)
    assert made[-1].calls == 1  # the first four images were not computed again
    assert "continuing after the 4 images in" in capfd.readouterr().out
    assert found["per_image"] == whole["per_image"]


@pytest.mark.parametrize("change", ["--seed=1", "--raw", "--steps=5", "--probes=3", "--precision=fp64"])
def test_another_command_s_bits_are_not_gone_on_with(tree, written, quick, tmp_path, guarded, change):
    """Otherwise half of the images have other steps, weights or probes."""
    made, plan = quick
    plan[2] = signal.SIGTERM
    assert guarded(lambda: command(tree, written, tmp_path / "out"))[0] == 143
    evaluate(tree, written, tmp_path / "out", change)
    assert made[-1].calls == 2


def test_bits_that_are_no_numbers_end_the_run(tree, written, quick, tmp_path, guarded, monkeypatch):
    """Otherwise a network that overflows ends, after an hour, in a file that is not JSON."""
    broken = lambda self, pixels, *others: np.where(np.arange(len(pixels)) == 3, np.nan, 1.0)  # noqa: E731
    monkeypatch.setattr(tree.ode.Likelihood, "bits", broken)
    code, err = guarded(lambda: command(tree, written, tmp_path / "out"))
    assert code == 2
    assert "error: the bits of image 3 are not finite: take more --steps, another checkpoint, or" in err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--steps", "21"], "step_00000009.safetensors was trained with 20 times only"),
        (["--steps", "1"], "--steps 1: must be 2 or more"),
        (["--grid", "karras"], "--grid karras: the network was trained at whole times"),
        (["--rho", "5"], "--rho 5.0: is an option of --grid karras"),
        (["--probes", "0"], "--probes 0: must be 1"),
        (["--exact-trace", "--probes", "2"], "--probes 2: --exact-trace needs none: leave one out"),
        (["--num-images", "2004"], "--num-images 2004: fashion-mnist-10k has 2000 test images"),
        (["--clip-x-0"], "Unrecognized options: --clip-x-0"),
    ],
)
def test_what_does_not_fit_is_refused(tree, written, quick, tmp_path, guarded, argv, message):
    """Otherwise the user gets a traceback, or a number of something else than was meant."""
    code, err = guarded(lambda: command(tree, written, tmp_path / "out", *argv))
    assert code == 2
    assert message in " ".join(err.split())
    assert "Traceback" not in err
    assert quick[0] == []
    assert not (tmp_path / "out").exists()


def test_the_exact_trace_of_large_images_is_refused(tree, written, quick, tmp_path, guarded, monkeypatch):
    """Otherwise a command that takes days looks like one that takes minutes."""
    monkeypatch.setattr(command_module, "EXACT", 783)
    code, err = guarded(lambda: command(tree, written, tmp_path / "out", "--exact-trace"))
    assert code == 2
    assert "an image of 784 numbers takes as many products at each level, and 783 are the most: leave it out" in err
