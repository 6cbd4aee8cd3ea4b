"""Bits per dimension on the command line: the same in both frameworks, in any batches, interrupted or not.

Most tests replace the network by arithmetic (`quick`), since they check which image is evaluated at which t, and what
becomes of the values.
"""

import dataclasses
import errno
import functools
import json
import os
import signal

import numpy as np
import pytest
from matplotlib.figure import Figure
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from ddpm_parity.sampling import TRAINED
from ddpm_shared import datasets, files, streams
from ddpm_shared.commands import bits as bits_command
from ddpm_shared.commands import bits_estimate
from ddpm_shared.config import DiffusionConfig
from ddpm_shared.records import checkpoint
from ddpm_shared.records import folder as run_folders

T = 20
N, STRIDE = 8, 4
FLAGS = ["--num-images", str(N), "--stride", str(STRIDE)]
LOAD = functools.cache(datasets.load)  # the images are unpacked once
TRAIN, TEST = LOAD("fashion-mnist-10k", None)


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
    return tree.bits.main(["--checkpoint", str(source), "--out", str(out), "--device", "cpu", *FLAGS, *argv])


def evaluate(tree, source, out, *argv):
    """What the command line writes."""
    assert command(tree, source, out, *argv) == 0
    return json.loads((out / "bits_per_dim.json").read_text())


# --- The bits of a network ----------------------------------------------------------------------------------

EVALUATED = {}


@pytest.fixture
def evaluated(written, tmp_path_factory):
    """A function: tree -> what its command wrote of the network."""

    def once(tree):
        if tree.name not in EVALUATED:
            EVALUATED[tree.name] = evaluate(tree, written, tmp_path_factory.mktemp(tree.name), "--batch-size", "8")
        return EVALUATED[tree.name]

    return once


def assert_the_same(a, b, rtol):
    for key in ("bits_per_dim", "standard_error", "prior", "decoder", "terms"):
        assert_allclose(a[key], b[key], rtol=rtol, err_msg=key)


def test_both_frameworks_count_the_same_bits(both, evaluated):
    """Otherwise a model is better in one framework than in the other, which it is not.

    Measured 9e-8 of the total and 1.3e-7 of a term.
    """
    torch, tf = (evaluated(tree) for tree in both)
    assert_the_same(torch, tf, rtol=1e-6)
    differ = {"framework", "seconds", "environment", "bits_per_dim", "standard_error", "prior", "decoder", "terms"}
    assert torch.keys() == tf.keys()
    assert all(torch[key] == tf[key] for key in torch.keys() - differ)


def test_bits_do_not_depend_on_the_batch_size(tree, evaluated, written, tmp_path):
    """Otherwise the memory of a machine decides how good a model is. The frameworks' own sums may round otherwise."""
    assert_the_same(evaluate(tree, written, tmp_path / "out", "--batch-size", "3"), evaluated(tree), rtol=1e-6)


# --- Which image at which t ---------------------------------------------------------------------------------


class Arithmetic:
    """In the place of a tree's Bound: every term depends on its image, t and noise. It lists what it evaluated."""

    device_name, threads = "cpu", 1

    def __init__(self, *ignored):
        self.evaluated = []

    def prior(self, pixels):
        """Of each image."""
        return 0.01 * pixels.mean(axis=(1, 2, 3))

    def term(self, arrays, labels=None):
        """Of each image at its t."""
        pixels, t, eps = arrays
        assert (pixels.dtype, t.dtype, eps.dtype) == (np.uint8, np.int32, np.float64)
        assert len(pixels) == len(t) == len(eps)
        self.evaluated += zip(t.tolist(), (image.tobytes() for image in pixels), strict=True)
        return pixels.mean(axis=(1, 2, 3)) / (1 + t) + eps.mean(axis=(1, 2, 3))


def terms_of(stride, first=0, count=12, seed=0, timesteps=T):
    return bits_estimate.terms_of(Arithmetic(), TEST.images[first : first + count], first, seed, stride, timesteps)


@pytest.mark.parametrize("stride", [1, 2, 3, 7, T])
def test_a_group_of_images_is_evaluated_at_every_t_once(stride):
    """Otherwise some terms count twice or not at all, and the sum is no estimate of the bound."""
    bound = Arithmetic()
    bits_estimate.terms_of(bound, TEST.images[: 2 * stride], 0, 0, stride, T)
    assert len({image for _, image in bound.evaluated}) == 2 * stride
    for group in (TEST.images[:stride], TEST.images[stride : 2 * stride]):
        images = {image.tobytes() for image in group}
        assert sorted(t for t, image in bound.evaluated if image in images) == list(range(T))


@pytest.mark.parametrize("stride", [2, 3, 7, T])
def test_a_term_does_not_depend_on_the_stride(stride):
    """Otherwise a cheap estimate and the whole sum are estimates of two things."""
    whole, some = terms_of(1), terms_of(stride)
    assert whole.shape == (12, T)
    assert np.isfinite(whole).all()
    for i, block in np.ndindex(some.shape):
        t = block * stride + i % stride
        assert_array_equal(some[i, block], whole[i, t] if t < T else np.nan)


def test_a_term_depends_on_seed_image_and_t_not_on_the_batch():
    """Otherwise a resumed or a differently batched run draws other noise, or all images share one."""
    whole = terms_of(3)
    assert_array_equal(np.concatenate([terms_of(3, 0, 5), terms_of(3, 5, 1), terms_of(3, 6, 6)]), whole)
    assert not (terms_of(3, seed=1) == whole).any()
    same = bits_estimate.terms_of(Arithmetic(), TEST.images[[0] * 6], 0, 0, 1, T)  # one image: only the noise differs
    assert len(np.unique(same)) == same.size


def test_the_estimate_by_hand():
    """Otherwise a term is counted at another t, or the standard error is that of something else."""
    prior, nan = np.array([1.0, 3.0, 5.0, 7.0]), np.nan
    terms = np.array([[10.0, 30.0], [20.0, nan], [12.0, 32.0], [24.0, nan]])  # at t = 0, 2; 1, -; 0, 2; 1, -
    found = bits_estimate.estimate(prior, terms, stride=2, timesteps=3)
    # The two groups: 2 + 10 + 20 + 30 = 62 and 6 + 12 + 24 + 32 = 74, each 6 from the mean.
    assert_allclose(found.pop("standard_error"), 6.0, rtol=1e-15)
    assert found == {"bits_per_dim": 68.0, "prior": 4.0, "decoder": 11.0, "terms": [11.0, 22.0, 31.0]}
    assert bits_estimate.estimate(prior[:2], terms[:2], stride=2, timesteps=3)["standard_error"] is None


def test_every_estimate_adds_up_to_its_terms():
    """Otherwise the number and the picture under it tell of two models."""
    found = bits_estimate.estimate(np.arange(12.0), terms_of(4), 4, T)
    assert_allclose(found["prior"] + sum(found["terms"]), found["bits_per_dim"], rtol=1e-14)
    assert found["decoder"] == found["terms"][0]


# --- What is written, interruptions and existing files ------------------------------------------------------


@pytest.fixture
def quick(tree, monkeypatch):
    """Arithmetic in the place of the network and its bound, and an empty picture.

    Gives every Arithmetic that was made, and a plan: the signal that it is to send itself, by the number of the call.
    """
    made, plan = [], {}

    class Watched(Arithmetic):
        def __init__(self, *ignored):
            super().__init__()
            made.append(self)
            self.calls = 0

        def term(self, arrays, labels=None):
            """The same, counted."""
            self.calls += 1
            if self.calls in plan:
                os.kill(os.getpid(), plan.pop(self.calls))
            return super().term(arrays, labels)

    monkeypatch.setattr(tree.model, "load", lambda loaded, prefix, config: prefix)
    monkeypatch.setattr(tree.bound, "Bound", Watched)
    monkeypatch.setattr(bits_command, "picture", lambda result: Figure(figsize=(1, 1)))
    return made, plan


def test_what_is_written(tree, written, quick, tmp_path, capfd):
    """Otherwise programs that read the result do not find it, or nobody knows later what it is of."""
    out = tmp_path / "out"
    found = evaluate(tree, written, out, "--seed", "3", "--raw", "--no-clip-x-0")
    printed = capfd.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == ["bits_per_dim.json", "bits_per_dim.png"]
    path = run_folders.latest_checkpoint(written)
    of_the_run = {
        "framework": tree.framework,
        "checkpoint": {"path": str(path), "sha256": checkpoint.load(path).sha256, "step": 9},
        "weights": "model",
        "num_images": N,
        "stride": STRIDE,
        "seed": 3,
        "precision": "fp32",
        "clip_x_0": False,
        "class_conditional": False,
        "dataset": {"name": "fashion-mnist-10k", "split": "test", "sha256": TEST.sha256},
    }
    numbers = {"bits_per_dim", "standard_error", "prior", "decoder", "terms", "classes", "seconds", "environment"}
    assert found.keys() == of_the_run.keys() | numbers
    assert {key: found[key] for key in of_the_run} == of_the_run
    assert len(found["terms"]) == T
    assert found["seconds"] > 0
    assert found["environment"]["packages"][tree.framework] in printed
    assert f"at most {found['bits_per_dim']:.4f} ± {found['standard_error']:.4f} bits per dimension" in printed
    assert "another training set" not in printed
    with Image.open(out / "bits_per_dim.png") as picture:
        picture.verify()


def test_the_bits_are_those_of_the_definition(tree, written, quick, tmp_path):
    """Otherwise the command adds up something else than the prior and the mean of the images evaluated at each t."""
    found, bound = evaluate(tree, written, tmp_path / "out", "--batch-size", "3"), Arithmetic()
    total = bound.prior(TEST.images[:N]).mean()
    for t in range(T):
        chosen = np.arange(t % STRIDE, N, STRIDE)
        eps = [streams.normal(0, streams.BOUND_EPS, t, (1, 28, 28, 1), int(i))[0] for i in chosen]
        total += bound.term((TEST.images[chosen], np.full(len(chosen), t, np.int32), np.array(eps))).mean()
    assert_allclose(found["bits_per_dim"], total, rtol=1e-13)


def test_the_picture_shows_every_term(evaluated, both):
    """Otherwise the one picture of where a model spends its bits leaves some out, or shows them at another t."""
    found = evaluated(both[0])
    above, below = bits_estimate.picture(found).axes
    prior, divergences, decoder = (line.get_xydata() for line in above.lines)
    assert_array_equal(prior[:, 1], found["prior"])
    assert_array_equal(np.concatenate([decoder, divergences]).T, [range(T), found["terms"]])
    sums = below.lines[0].get_xydata()
    assert_allclose(sums[[0, -1]], [[1, found["bits_per_dim"]], [T, found["prior"] + found["terms"][-1]]], rtol=1e-12)
    assert (above.get_yscale(), below.get_xscale()) == ("log", "log")


def test_the_newest_run_is_evaluated_into_a_new_folder(tree, written, quick):
    """Otherwise the shortest command evaluates nothing, or another framework's run."""
    folder = run_folders.RUNS / tree.framework / "20200101T000000Z-tiny"
    folder.parent.mkdir(parents=True)
    folder.symlink_to(written)
    assert tree.bits.main(["--checkpoint", "latest", *FLAGS]) == 0
    (out,) = (run_folders.RUNS / "bits-per-dim").iterdir()
    assert f"Z-{tree.framework}" in out.name
    assert (out / "bits_per_dim.json").exists()


def test_other_training_data_are_told(tree, written, quick, tmp_path, capfd):
    """Otherwise a model is judged on images that it may have learned, and nobody knows."""
    loaded = checkpoint.load(run_folders.latest_checkpoint(written), ("ema",))
    path = tmp_path / "other.safetensors"
    known = {"framework": "torch", "step": 9, "config": loaded.config, "dataset_sha256": "ab" * 32}
    checkpoint.save(path, loaded.tensors, **known)
    evaluate(tree, path, tmp_path / "out")
    assert f"{path} was trained on another training set than that of fashion-mnist-10k\n" in capfd.readouterr().out


def test_an_interrupted_run_goes_on_where_it_stopped(tree, written, quick, tmp_path, guarded, capfd):
    """Otherwise Ctrl-C in the last minute of an hour costs all of it, or changes the number."""
    made, plan = quick
    out, argv = tmp_path / "out", ["--batch-size", "3"]
    whole = evaluate(tree, written, tmp_path / "whole", *argv)
    plan[8] = signal.SIGINT  # a batch is five calls
    code, err = guarded(lambda: command(tree, written, out, *argv))
    assert code == 130
    kept = f"interrupted; 3 finished images are saved: the same command with --out {out} continues"
    assert err.rstrip("\n").rpartition("\n")[2] == kept
    assert [path.name for path in out.iterdir()] == ["bits_per_dim.partial.npz"]
    found = evaluate(tree, written, out, *argv)
    assert made[-1].calls == 10  # the first three images were not evaluated again
    assert "continuing after the 3 images in" in capfd.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == ["bits_per_dim.json", "bits_per_dim.png"]
    changing = ("seconds", "environment")
    assert {k: v for k, v in found.items() if k not in changing} == {
        k: v for k, v in whole.items() if k not in changing
    }


@pytest.mark.parametrize("change", ["--seed=1", "--raw", "--no-clip-x-0", "--precision=fp64", "--stride=2"])
def test_another_command_s_terms_are_not_gone_on_with(tree, written, quick, tmp_path, guarded, change):
    """Otherwise half of the images are evaluated with other weights or noise, or at other times."""
    made, plan = quick
    plan[6] = signal.SIGTERM
    assert guarded(lambda: command(tree, written, tmp_path / "out", "--batch-size", "4"))[0] == 143
    plan[1] = signal.SIGTERM
    code, err = guarded(lambda: command(tree, written, tmp_path / "out", "--batch-size", "4", change))
    assert (code, "interrupted; 0 finished images" in err) == (143, True)
    assert made[-1].evaluated[0] == (0, TEST.images[0].tobytes())


def test_a_broken_partial_file_is_not_gone_on_with(tree, written, quick, tmp_path):
    """Otherwise the rest of a crash keeps a folder from ever being written to."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "bits_per_dim.partial.npz").write_bytes(b"PK\x03\x04")
    evaluate(tree, written, out)
    assert not (out / "bits_per_dim.partial.npz").exists()


def test_a_result_is_overwritten_only_when_told(tree, written, quick, tmp_path, guarded):
    """Otherwise a repeated command destroys an hour's work."""
    made, _ = quick
    out = tmp_path / "out"
    first = evaluate(tree, written, out)
    code, err = guarded(lambda: command(tree, written, out, "--seed", "1"))
    way_out = "choose another --out, or replace them with --overwrite"
    assert (code, err) == (2, f"error: {out} already holds bits per dim: {way_out}\n")
    assert len(made) == 1
    assert evaluate(tree, written, out, "--seed", "1", "--overwrite")["terms"] != first["terms"]


def test_a_full_disk_keeps_what_was_evaluated(tree, written, quick, tmp_path, guarded, monkeypatch):
    """Otherwise a full disk ends in a traceback, or costs the terms that are already there."""
    made, _ = quick
    out, write = tmp_path / "out", files.write_atomically

    def full(path, content):
        if path.name == "bits_per_dim.json":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_atomically", full)
        code, err = guarded(lambda: command(tree, written, out, "--batch-size", "4"))
    assert code == 1
    assert f"error: No space left on device ({out / 'bits_per_dim.json'}): free space or correct the path" in err
    evaluate(tree, written, out, "--batch-size", "4")
    assert made[-1].calls == 5


def test_a_term_that_is_no_number_ends_the_run(tree, written, quick, tmp_path, guarded, monkeypatch):
    """Otherwise a network that overflows ends, after an hour, in a file that is not JSON."""
    broken = lambda self, arrays, labels=None: np.where(arrays[1] == 5, np.nan, 1.0)  # noqa: E731
    monkeypatch.setattr(tree.bound.Bound, "term", broken)
    code, err = guarded(lambda: command(tree, written, tmp_path / "out"))
    assert code == 2
    message = "error: the term at t = 5 is not finite: take another checkpoint, or --precision fp64\n"
    assert err.endswith(message)


# --- Bad input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--stride", "3"], "--num-images 8: must be a multiple of --stride 3"),
        (["--stride", "40", "--num-images", "80"], "step_00000009.safetensors was trained with 20 steps only"),
        (["--num-images", "2004"], "--num-images 2004: fashion-mnist-10k has 2000 test images"),
        (["--dataset", "fashion-mnist", "--data-dir", "nowhere"], "nowhere"),
        (["--checkpoint", "nowhere"], "nowhere holds no checkpoint: give a run folder with checkpoints/latest in it"),
        (["--checkpoint", "latest"], "no run with a checkpoint in runs/"),
    ],
)
def test_what_does_not_fit_is_one_sentence(tree, written, quick, tmp_path, guarded, argv, message):
    """Otherwise the user gets a traceback, or a number of other images or terms than were meant."""
    code, err = guarded(lambda: command(tree, written, tmp_path / "out", *argv))
    assert code == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert quick[0] == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--stride", "0"], "--stride 0: must be 1 or more"),
        (["--num-images", "0"], "--num-images 0: must be 1 or more"),
        (["--batch-size", "-1"], "--batch-size -1: must be 1 or more"),
        (["--seed=-1"], "--seed -1: must be 0 or more"),
        (["--dataset", "cifar"], "fashion-mnist-10k"),
        (["--number", "3"], "Unrecognized options: --number"),
        (["--prediction", "v"], "Unrecognized options: --prediction"),
    ],
)
def test_wrong_flags_are_refused(tree, written, quick, tmp_path, guarded, argv, message):
    """Otherwise a wrong value ends in a traceback, or counts something else than it says."""
    code, err = guarded(lambda: command(tree, written, tmp_path / "out", *argv))
    assert code == 2
    assert message in " ".join(err.split())
    assert "Traceback" not in err
    assert quick[0] == []
