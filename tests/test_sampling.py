"""Sampling: one checkpoint, one seed, one set of pictures, whatever the framework, the batch size or an interruption.

The network is a small one with random weights everywhere. It draws noise, but every part of it has its say, which a
network fresh from its initialisation, or after a few steps, would not give it.
"""

import dataclasses
import errno
import itertools
import json
import math
import os
import signal
from typing import get_args

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from ddpm_shared import files, images, streams
from ddpm_shared.config import Config, DataConfig, DiffusionConfig, ModelConfig
from ddpm_shared.config.samplers import SAMPLER_FACTS, SamplerName, Spacing
from ddpm_shared.config.sampling import Draw, Sampling, times
from ddpm_shared.errors import UserError
from ddpm_shared.records import checkpoint
from ddpm_shared.records import folder as run_folders

T = 10
N = 4
OF_WHOLE_TIMES = [name for name, facts in SAMPLER_FACTS.items() if "ddpm" in facts.processes]
CONFIG = Config(
    preset="tiny",
    data=DataConfig(dataset="fashion-mnist-10k"),
    model=ModelConfig(
        base_channels=8, channel_mults=(1, 2), num_res_blocks=1, attention_resolutions=(14,), num_groups=4
    ),
    diffusion=DiffusionConfig(timesteps=T, beta_end=0.5),  # from noise to image in 10 steps
)


def random_weights(shapes):
    rng = np.random.default_rng(0)
    values = {}
    for name, shape in sorted(shapes.items()):
        scale = 1 / math.sqrt(math.prod(shape[1:])) if len(shape) > 1 else 0.1
        values[name] = (rng.standard_normal(shape) * scale).astype(np.float32)
        if len(shape) == 1 and name.endswith("weight"):  # of a GroupNorm
            values[name] += 1
    return values


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A function: tree -> a run folder with one checkpoint, written by that tree."""
    made = {}

    def write(tree):
        if tree.name not in made:
            made[tree.name] = folder = tmp_path_factory.mktemp(tree.name)
            path = folder / "checkpoints" / "step_00000009.safetensors"
            learner = tree.learner.Learner(CONFIG, 9)
            shapes = {name: value.shape for name, value in learner.tensors().items()}
            known = {"framework": tree.framework, "step": 9, "config": CONFIG, "dataset_sha256": "ab" * 32}
            checkpoint.save(path, random_weights(shapes), **known)
            learner.load(checkpoint.load(path))
            checkpoint.save(path, learner.tensors(), **known)
            path.with_name("latest").write_text(path.name + "\n")
        return made[tree.name]

    return write


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def command(tree, source, out, *argv):
    """The exit code of the command line."""
    return tree.inference.main(["--checkpoint", str(source), "--out", str(out), "--device", "cpu", *argv])


def sample(tree, source, out, *argv):
    assert command(tree, source, out, *argv) == 0
    return load(out)


def load(out):
    with np.load(out / "samples.npz") as archive:
        return archive["images"]


def levels_apart(a, b):
    return np.abs(a.astype(int) - b.astype(int))


# --- The pictures -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn(tree, written, tmp_path_factory):
    """The folder of the first images of seed 0 drawn at once, with --gif."""
    out = tmp_path_factory.mktemp("drawn") / "out"
    sample(tree, written(tree), out, "--num-images", str(N), "--gif")
    return out


def test_what_is_written(drawn):
    """Otherwise programs outside this repository do not find the samples, or people not the picture."""
    assert sorted(path.name for path in drawn.iterdir()) == ["denoising.gif", "grid.png", "samples.npz"]
    pixels = load(drawn)
    assert pixels.shape == (N, 28, 28, 1)
    assert pixels.dtype == np.uint8
    # Images that say something: not one value, not only black and white, no two alike.
    assert len(np.unique(pixels)) > 200
    assert len({image.tobytes() for image in pixels}) == N
    with Image.open(drawn / "grid.png") as picture:
        assert_array_equal(np.asarray(picture)[..., None], images.grid(pixels))
    with Image.open(drawn / "denoising.gif") as movie:
        assert movie.n_frames == T  # one a step, where there are no more than 50
        movie.seek(0)
        first = np.asarray(movie.convert("L"))
        movie.seek(T - 1)
        last = np.asarray(movie.convert("L"))
    assert_array_equal(last[..., None], images.grid(pixels))
    assert levels_apart(first, last).mean() > 10


@pytest.mark.parametrize("batch_size", ["1", "3"])
def test_an_image_does_not_depend_on_the_batch_size(tree, written, drawn, tmp_path, batch_size):
    """Otherwise the memory of a machine decides what a seed draws.

    The noise is the same to the last bit. What may differ is the order in which a framework sums up a convolution;
    here neither does so by the batch: no pixel is seen to differ. One level in one pixel of a thousand is allowed.
    """
    pixels = sample(tree, written(tree), tmp_path / "out", "--num-images", str(N), "--batch-size", batch_size)
    apart = levels_apart(pixels, load(drawn))
    assert apart.max() <= 1
    assert apart.mean() <= 1e-3


def test_more_images_begin_with_the_fewer(tree, written, drawn, tmp_path):
    """Otherwise a larger sample of the same seed is another sample."""
    pixels = sample(tree, written(tree), tmp_path / "out", "--num-images", "2")
    apart = levels_apart(pixels, load(drawn)[:2])
    assert apart.max() <= 1
    assert apart.mean() <= 1e-3


def test_the_same_command_draws_the_same_images(tree, written, drawn, tmp_path):
    """Otherwise no sample can be repeated."""
    assert_array_equal(sample(tree, written(tree), tmp_path / "out", "--num-images", str(N)), load(drawn))


@pytest.mark.parametrize(
    "flags",
    [
        ["--seed", "1"],
        ["--raw"],
        ["--no-clip-x-0"],
        ["--dynamic-threshold", "0.5"],
        ["--steps", "4"],
        *(["--sampler", name] for name in OF_WHOLE_TIMES if name != "ancestral"),
        ["--sampler", "ddim", "--eta", "0.5"],
        ["--sampler", "euler", "--process", "vp"],
        ["--sampler", "euler_maruyama", "--process", "sub_vp"],
    ],
)
def test_flags_that_change_the_images_do(tree, written, drawn, tmp_path, keep_networks, flags):
    """Otherwise a flag is ignored: every seed draws the same, or the average of the weights is never used."""
    keep_networks(tree)
    pixels = sample(tree, written(tree), tmp_path / "out", "--num-images", str(N), *flags)
    assert levels_apart(pixels, load(drawn)).mean() > 5


def test_raw_are_the_weights_and_the_default_their_average(tree, written, drawn, tmp_path):
    """Otherwise --raw and its absence are exchanged, which nobody would see in the pictures."""
    loaded = checkpoint.load(run_folders.latest_checkpoint(written(tree)))
    averages = {name.replace("ema/", "model/"): v for name, v in loaded.tensors.items() if name.startswith("ema/")}
    path = tmp_path / "a.safetensors"
    checkpoint.save(path, averages, framework=tree.framework, step=9, config=CONFIG, dataset_sha256="ab" * 32)
    assert_array_equal(sample(tree, path, tmp_path / "out", "--num-images", str(N), "--raw"), load(drawn))


def test_both_trees_write_the_same_weights(both, written):
    """Otherwise a name or a layout differs, and each framework's checkpoint is another network to the other."""
    torch_file, tf_file = (checkpoint.load(run_folders.latest_checkpoint(written(tree))) for tree in both)
    assert torch_file.tensors.keys() == tf_file.tensors.keys()
    for name, value in random_weights({name: value.shape for name, value in torch_file.tensors.items()}).items():
        assert_array_equal(torch_file.tensors[name], value)
        assert_array_equal(tf_file.tensors[name], value)


def test_images_of_one_row_have_the_same_noise(tree):
    """Otherwise between two classes the noise changes too, and nobody sees what the label does."""
    sampler = tree.sampling.Sampler(lambda x_t, t, labels=None: x_t, CONFIG, Sampling())

    def noise(stream, first, count, same_noise):
        values = sampler._noise_of(Draw(3, first, count, same_noise=same_noise), stream, 0)
        return tree.data.to_array(values)

    for stream in (streams.SAMPLE_X_T, streams.SAMPLE_Z):
        own = noise(stream, 0, 4, 1)
        assert len(np.unique(own)) == own.size
        # Rows of three, the first and the last one cut.
        assert_array_equal(noise(stream, 2, 8, 3), own[[0, 1, 1, 1, 2, 2, 2, 3]])


@pytest.mark.parametrize(("precision", "allowed"), [("fp32", 6), ("fp64", 0)])
def test_both_frameworks_draw_the_same_images(both, written, tmp_path, precision, allowed):
    """Otherwise a checkpoint of one framework means something else in the other.

    Rounding in float32 pushes a pixel over the edge between two levels now and then: 1 of 25,088 was seen to be off,
    by one level, and on another processor it may be some more. In float64 none is.
    """
    torch_pixels, tf_pixels = (
        sample(tree, written(both[0]), tmp_path / tree.name, "--num-images", "32", "--precision", precision)
        for tree in both
    )
    apart = levels_apart(torch_pixels, tf_pixels)
    assert apart.max() <= 1
    assert np.count_nonzero(apart) <= allowed


# --- Other samplers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OF_WHOLE_TIMES)
def test_both_frameworks_draw_the_same_images_by_any_sampler(both, written, tmp_path, keep_networks, name):
    """Otherwise a sampler of one framework means something else in the other."""
    keep_networks(*both)
    flags = ["--num-images", "8", "--sampler", name, "--steps", "6", "--precision", "fp64"]
    torch_pixels, tf_pixels = (sample(tree, written(both[0]), tmp_path / tree.name, *flags) for tree in both)
    assert_array_equal(torch_pixels, tf_pixels)


def test_ancestral_sampling_in_all_steps_is_the_engine_s(side_of, written, tree):
    """Otherwise the sampler of the paper is not the one that its page of code shows."""
    side = side_of("fp64")
    config = side.configured(CONFIG)
    loaded = checkpoint.load(run_folders.latest_checkpoint(written(tree)), ("ema",))
    network = tree.model.load(loaded, "ema", config)
    x = side.tensor(streams.normal(3, streams.SAMPLE_X_T, 0, (2, 28, 28, 1)))
    for t in reversed(range(T)):
        z = side.tensor(streams.normal(3, streams.SAMPLE_Z, t, (2, 28, 28, 1)))
        x = side.tensor(
            side.array(
                side.engine.p_sample(
                    side.schedule(CONFIG.diffusion), network, x, side.times(np.full(2, t, np.int32)), z
                )
            )
        )
    assert_array_equal(tree.sampling.sample(network, config, Sampling(), 3, 2), tree.data.to_pixels(x))


def test_interpolation_begins_and_ends_at_images_of_the_seed(tree, written, tmp_path, keep_networks):
    """Otherwise the ends of a row are strangers, or the row jumps back and forth."""
    keep_networks(tree)
    flags = ["--sampler", "ddim", "--steps", "5"]
    alone = sample(tree, written(tree), tmp_path / "alone", "--num-images", "4", *flags)
    rows = sample(tree, written(tree), tmp_path / "rows", "--num-images", "10", "--interpolate", "5", *flags)
    for row in range(2):
        ends = rows[[5 * row, 5 * row + 4]]
        assert levels_apart(ends, alone[2 * row : 2 * row + 2]).max() <= 1
        steps = [levels_apart(rows[5 * row + k], rows[5 * row + k + 1]).mean() for k in range(4)]
        assert max(steps) < levels_apart(*ends).mean()
    with Image.open(tmp_path / "rows" / "grid.png") as picture:
        assert_array_equal(np.asarray(picture)[..., None], images.grid(rows, 5))


def test_few_steps_make_a_short_movie(tree, written, tmp_path):
    """Otherwise --gif fails, or shows nothing, where there are fewer steps than frames."""
    sample(tree, written(tree), tmp_path / "out", "--num-images", "2", "--sampler", "heun", "--steps", "3", "--gif")
    with Image.open(tmp_path / "out" / "denoising.gif") as movie:
        assert movie.n_frames == 3


@pytest.mark.parametrize("prediction", ["x_0", "v"])
def test_a_checkpoint_knows_what_it_predicts(tree, written, tmp_path, keep_networks, prediction):
    """Otherwise a network that predicts v is sampled as if it predicted the noise, which gives noise."""
    keep_networks(tree)
    loaded = checkpoint.load(run_folders.latest_checkpoint(written(tree)))
    config = dataclasses.replace(CONFIG, diffusion=dataclasses.replace(CONFIG.diffusion, prediction=prediction))
    path = tmp_path / "other.safetensors"
    checkpoint.save(path, loaded.tensors, framework=tree.framework, step=9, config=config, dataset_sha256="ab" * 32)
    flags = ["--num-images", "2", "--sampler", "ddim"]
    pixels = sample(tree, path, tmp_path / "a", *flags)
    assert levels_apart(pixels, sample(tree, written(tree), tmp_path / "b", *flags)).mean() > 5


def test_images_that_are_not_finite_are_refused(tree, written, tmp_path, guarded, monkeypatch):
    """Otherwise a chain that blew up is written as grey levels that mean nothing."""
    monkeypatch.setattr(tree.model, "load", lambda *plan: lambda x_t, t: x_t * np.inf)
    code, err = guarded(lambda: command(tree, written(tree), tmp_path / "out", "--no-clip-x-0", "--steps", "3"))
    assert code == 2
    assert err.rpartition("error: ")[2].startswith("--sampler ancestral --steps 3: the images are not finite; take")
    assert not (tmp_path / "out" / "samples.npz").exists()


@pytest.mark.parametrize("spacing", get_args(Spacing))
def test_times_are_visited_once_and_in_order(spacing):
    """Otherwise a step goes nowhere, and divides by a beta of 0."""
    for timesteps in (2, 10, 333, 1000):
        for steps in range(1, timesteps + 1):
            found = times(timesteps, steps, spacing)
            assert len(found) == steps
            assert found[0] >= 0
            assert found[-1] < timesteps
            assert all(a < b for a, b in itertools.pairwise(found))
            if spacing != "leading":
                assert found[-1] == timesteps - 1
        assert times(timesteps, timesteps, spacing) == list(range(timesteps))


def test_every_sampler_of_the_table_is_in_both_trees(both):
    """Otherwise a name is promised that a tree cannot draw with."""
    for tree in both:
        assert list(tree.samplers.SAMPLERS) == list(SAMPLER_FACTS)
    assert set(SAMPLER_FACTS) == set(get_args(SamplerName))


# --- Interruptions and existing files -----------------------------------------------------------------------


@pytest.fixture
def quick(tree, keep_networks, monkeypatch):
    """The tree's sampler replaced by one that draws image i of a seed as the constant 10 seed + i.

    Gives its calls, as (first, number of images), and a plan: the signal that it is to send itself in a call.
    """
    calls, plan = [], {}

    def constants(self, draw, on_step):
        calls.append((draw.first, draw.count))
        if calls[-1] in plan:
            os.kill(os.getpid(), plan.pop(calls[-1]))
        for i in reversed(range(self.sampling.steps)):
            on_step(i, tree.data.to_tensor(np.zeros((draw.count, 28, 28, 1), np.float32)))
        levels = (10 * draw.seed + np.arange(draw.first, draw.first + draw.count)).astype(np.uint8)
        return np.broadcast_to(levels[:, None, None, None], (draw.count, 28, 28, 1))

    keep_networks(tree)
    monkeypatch.setattr(tree.sampling.Sampler, "draw", constants)
    return calls, plan


def test_an_interrupted_run_goes_on_where_it_stopped(tree, written, tmp_path, guarded, capfd, monkeypatch):
    """Otherwise Ctrl-C in the last minute of a thousand images costs all of them, or changes them."""
    real, calls, out = tree.sampling.Sampler.draw, [], tmp_path / "out"

    def stopped(self, draw, on_step):
        calls.append((draw.first, draw.count))
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return real(self, draw, on_step)

    monkeypatch.setattr(tree.sampling.Sampler, "draw", stopped)
    argv = ["--num-images", str(N), "--batch-size", "3"]
    code, err = guarded(lambda: command(tree, written(tree), out, *argv))
    assert code == 130
    kept = f"interrupted; 3 finished images are saved: the same command with --out {out} continues"
    assert err.rstrip("\n").rpartition("\n")[2] == kept
    assert [path.name for path in out.iterdir()] == ["samples.partial.npz"]
    pixels = sample(tree, written(tree), out, *argv)
    assert calls == [(0, 3), (3, 1), (3, 1)]  # the first three were not drawn again
    assert "continuing after the 3 images in" in capfd.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == ["grid.png", "samples.npz"]
    assert_array_equal(pixels, sample(tree, written(tree), tmp_path / "whole", *argv))


@pytest.mark.parametrize(
    "change",
    [
        ["--seed", "1"],
        ["--raw"],
        ["--no-clip-x-0"],
        ["--precision", "fp64"],
        ["--sampler", "ddim"],
        ["--steps", "5"],
        ["--spacing", "leading", "--steps", "10"],
    ],
)
def test_the_images_of_another_command_are_not_gone_on_with(tree, written, quick, tmp_path, guarded, change):
    """Otherwise half of the images are those of another seed or other weights."""
    calls, plan = quick
    argv = ["--num-images", "4", "--batch-size", "2"]
    plan[2, 2] = signal.SIGINT
    assert guarded(lambda: command(tree, written(tree), tmp_path / "out", *argv))[0] == 130
    calls.clear()
    sample(tree, written(tree), tmp_path / "out", *argv, *change)
    assert calls == [(0, 2), (2, 2)]


def test_a_broken_partial_file_is_not_gone_on_with(tree, written, quick, tmp_path):
    """Otherwise the rest of a crash keeps a folder from ever being sampled into."""
    out = tmp_path / "out"
    out.mkdir()
    for content in (b"", b"PK\x03\x04", b"anything"):
        (out / "samples.partial.npz").write_bytes(content)
        assert sample(tree, written(tree), out, "--num-images", "2", "--overwrite").max() == 1
        assert not (out / "samples.partial.npz").exists()


def test_a_movie_that_an_interruption_cost_is_told(tree, written, quick, tmp_path, guarded, capfd):
    """Otherwise the user looks for a denoising.gif that is not there."""
    _, plan = quick
    argv = ["--num-images", "4", "--batch-size", "2", "--gif"]
    plan[2, 2] = signal.SIGTERM
    assert guarded(lambda: command(tree, written(tree), tmp_path / "out", *argv))[0] == 143
    sample(tree, written(tree), tmp_path / "out", *argv)
    assert "no denoising.gif: its images were drawn before the interruption" in capfd.readouterr().out
    assert not (tmp_path / "out" / "denoising.gif").exists()


def test_samples_are_overwritten_only_when_told(tree, written, quick, tmp_path):
    """Otherwise a repeated command destroys hours of sampling."""
    calls, _ = quick
    out = tmp_path / "out"
    sample(tree, written(tree), out, "--num-images", "2")
    with pytest.raises(UserError) as error:
        sample(tree, written(tree), out, "--num-images", "3")
    assert str(error.value) == (f"{out} already holds samples: choose another --out, or replace them with --overwrite")
    assert calls == [(0, 2)]
    assert len(load(out)) == 2
    assert len(sample(tree, written(tree), out, "--num-images", "3", "--overwrite")) == 3


@pytest.mark.parametrize("lost", [["grid.png"], ["grid.png", "denoising.gif"], ["grid.png", "samples.npz"]])
def test_a_command_that_was_killed_between_its_files_is_finished_by_itself(tree, written, quick, tmp_path, lost):
    """Otherwise a folder with samples.npz but without grid.png can neither be finished nor be drawn into."""
    calls, _ = quick
    out, argv = tmp_path / "out", ["--num-images", "4", "--batch-size", "2", "--gif"]
    whole = sample(tree, written(tree), out, *argv)
    pictures = {name: (out / name).read_bytes() for name in ("grid.png", "denoising.gif")}
    for name in lost:
        (out / name).unlink()
    calls.clear()
    if "samples.npz" not in lost:  # they are those of another command
        for other in (["--seed", "1"], ["--num-images", "3"]):
            with pytest.raises(UserError, match="already holds samples: choose another --out"):
                command(tree, written(tree), out, *argv, *other)
    assert_array_equal(sample(tree, written(tree), out, *argv), whole)
    assert calls == ([(0, 2), (2, 2)] if "samples.npz" in lost else [])
    assert (out / "grid.png").read_bytes() == pictures["grid.png"]


def test_a_full_disk_keeps_what_was_drawn(tree, written, quick, tmp_path, guarded, monkeypatch):
    """Otherwise a full disk ends in a traceback, or costs the images that are already there."""
    calls, _ = quick
    out, argv = tmp_path / "out", ["--num-images", "4", "--batch-size", "2"]
    write = files.write_atomically

    def full(path, content):
        if path.name == "samples.npz":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_atomically", full)
        code, err = guarded(lambda: command(tree, written(tree), out, *argv))
    assert code == 1
    assert f"error: No space left on device ({out / 'samples.npz'}): free space or correct the path" in err
    assert "Traceback" not in err
    calls.clear()
    assert sample(tree, written(tree), out, *argv)[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert calls == [(2, 2)]


def test_a_place_that_cannot_be_written_to_is_found_before_the_drawing(tree, written, quick, tmp_path, guarded):
    """Otherwise hours of sampling end with: not a folder."""
    calls, _ = quick
    (tmp_path / "file").touch()
    code, err = guarded(lambda: command(tree, written(tree), tmp_path / "file"))
    assert code == 2
    assert err == f"error: {tmp_path / 'file'} is a file: choose another folder\n"
    assert calls == []


# --- What to sample -----------------------------------------------------------------------------------------


def test_the_newest_run_is_sampled_into_a_new_folder(tree, written, quick):
    """Otherwise the shortest command samples nothing, or another framework's run."""
    folder = run_folders.RUNS / tree.framework / "20200101T000000Z-tiny"
    folder.parent.mkdir(parents=True)
    folder.symlink_to(written(tree))
    assert tree.inference.main(["--checkpoint", "latest", "--num-images", "2"]) == 0
    assert tree.inference.main(["--checkpoint", "latest", "--num-images", "2"]) == 0
    first, second = sorted((run_folders.RUNS / "samples").iterdir())
    assert f"Z-{tree.framework}" in first.name
    assert len(load(first)) == len(load(second)) == 2


def test_the_samples_say_where_they_come_from(tree, written, quick, tmp_path):
    """Otherwise nobody can tell later which weights and seed a file of images was drawn with."""
    sample(tree, written(tree), tmp_path / "out", "--num-images", "2", "--seed", "3", "--raw", "--steps", str(T))
    with np.load(tmp_path / "out" / "samples.npz") as archive:
        origin = json.loads(str(archive["origin"]))
    path = run_folders.latest_checkpoint(written(tree))
    assert origin == {
        "checkpoint": checkpoint.load(path).sha256,
        "weights": "model",
        "seed": 3,
        "sampler": "ancestral",
        "steps": T,
        "eta": 0.0,
        "spacing": "trailing",
        "clip_x_0": True,
        "dynamic_threshold": None,
        "interpolate": None,
        "precision": "fp32",
        "compile": False,
        "framework": tree.framework,
    }


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--sampler", "dimm"], "invalid choice 'dimm' for argument '--sampler'. Expected one of"),
        (["--spacing", "log"], "invalid choice 'log' for argument '--spacing'. Expected one of"),
        (["--steps", "0"], "--steps 0: must be 1 or more"),
        (["--steps", "11"], "error: --steps 11: must be at most the 10 that the model was trained with"),
        (["--sampler", "ddim", "--eta=-0.1"], "--eta -0.1: must be in [0, 1]"),
        (["--sampler", "ddim", "--eta", "1.1"], "--eta 1.1: must be in [0, 1]"),
        (["--sampler", "heun", "--eta", "0.5"], "--eta 0.5: is an option of ddim, not of heun"),
        (["--dynamic-threshold", "0"], "--dynamic-threshold 0.0: must be in (0, 1]"),
        (["--prediction", "v"], "Unrecognized options: --prediction"),
        (["--sampler", "ddim", "--interpolate", "1"], "--interpolate 1: must be 2 or more"),
        (["--interpolate", "3"], "--interpolate with --sampler ancestral: it draws noise on the way, which hides the"),
        (
            ["--sampler", "ddim", "--eta", "1", "--interpolate", "3"],
            "--interpolate with --sampler ddim --eta 1.0: it d",
        ),
        (["--num-images", "0"], "--num-images 0: must be 1 or more"),
        (["--batch-size", "-1"], "--batch-size -1: must be 1 or more"),
        (["--seed=-1"], "--seed -1: must be 0 or more"),
        (["--number", "3"], "Unrecognized options: --number"),
    ],
)
def test_wrong_flags_are_refused(tree, written, quick, tmp_path, guarded, argv, message):
    """Otherwise a wrong value ends in a traceback, or draws something else than it says."""
    code, err = guarded(lambda: command(tree, written(tree), tmp_path / "out", *argv))
    assert code == 2
    assert message in " ".join(err.replace("│", " ").split())
    assert "Traceback" not in err
    assert quick[0] == []
    assert not (tmp_path / "out").exists()


def broken_checkpoints(folder, written):
    """Name -> (what is given as --checkpoint, the message)."""
    good = run_folders.latest_checkpoint(written)
    empty = folder / "empty"
    empty.mkdir()
    cut = folder / "cut.safetensors"
    cut.write_bytes(good.read_bytes()[:-100])
    loaded = checkpoint.load(good)
    known = {"framework": "torch", "step": 9, "config": CONFIG, "dataset_sha256": "ab" * 32}
    nan = folder / "nan.safetensors"
    checkpoint.save(nan, loaded.tensors | {"ema/conv_in.bias": np.full(8, np.nan)}, **known)
    lacking = folder / "lacking.safetensors"
    checkpoint.save(lacking, {k: v for k, v in loaded.tensors.items() if k != "ema/conv_in.bias"}, **known)
    return {
        "no run": (folder / "nowhere", "nowhere holds no checkpoint: give a run folder with checkpoints/latest in it"),
        "a run without checkpoint": (empty, "empty holds no checkpoint: give a run folder with checkpoints/latest"),
        "newest of none": ("latest", "no run with a checkpoint in runs/"),
        "truncated": (cut, "cut.safetensors is not a whole safetensors file"),
        "not finite": (nan, "holds NaN or infinite values in ema/conv_in.bias: there is no other whole"),
        "another network": (lacking, "do not fit the network: missing conv_in.bias. Use the checkpoint with"),
    }


@pytest.mark.parametrize(
    "fault", ["no run", "a run without checkpoint", "newest of none", "truncated", "not finite", "another network"]
)
def test_a_checkpoint_that_cannot_be_sampled_is_one_sentence(tree, written, quick, tmp_path, guarded, fault):
    """Otherwise the user gets a traceback, or images of a network with some random weights."""
    source, message = broken_checkpoints(tmp_path, written(tree))[fault]
    code, err = guarded(lambda: command(tree, source, tmp_path / "out"))
    assert code == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert quick[0] == []
