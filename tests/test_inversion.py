"""DDIM's inversion: from an image to its noise and back, by either framework."""

import json
import os
import signal

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from ddpm_parity.sampling import TRAINED
from ddpm_parity.sides import draw
from ddpm_shared.commands import invert as invert_command
from ddpm_shared.config import Config, DiffusionConfig, ModelConfig
from ddpm_shared.records import checkpoint

ARGV = ["--checkpoint", str(TRAINED), "--dataset", "fashion-mnist-10k", "--device", "cpu"]


def invert(tree, out, *argv):
    return tree.inversion.main([*ARGV, "--out", str(out), *argv])


def found(out):
    """inversion.json, and the arrays of inversion.npz."""
    with np.load(out / "inversion.npz") as archive:
        return json.loads((out / "inversion.json").read_text()), dict(archive)


def test_more_steps_and_more_iterations_bring_back_more(tree, tmp_path, keep_networks):
    """Otherwise the noise is not the image's own, and editing by inversion edits another image."""
    keep_networks(tree)
    errors = {}
    for steps, iterations in ((8, 1), (24, 1), (24, 4)):
        out = tmp_path / f"{steps}-{iterations}"
        flags = ["--num-images", "2", "--steps", str(steps), "--iterations", str(iterations)]
        assert invert(tree, out, *flags) == 0
        errors[steps, iterations] = found(out)[0]["round_trip_rms"]
    assert errors[24, 1] < 0.7 * errors[8, 1]
    assert errors[24, 4] < 0.2 * errors[24, 1]


def test_what_is_written(tree, tmp_path, capsys, keep_networks):
    """Otherwise nobody can tell how far off the images are, or see it."""
    keep_networks(tree)
    assert invert(tree, tmp_path / "out", "--num-images", "3", "--steps", "5", "--batch-size", "2") == 0
    record, arrays = found(tmp_path / "out")
    assert arrays["images"].shape == arrays["noise"].shape == arrays["back"].shape == (3, 28, 28, 1)
    assert record["num_images"] == len(record["round_trip_rms_per_image"]) == 3
    assert record["pixels_equal"] == np.mean(arrays["images"] == arrays["back"])
    assert record["noise_deviation"] == pytest.approx(arrays["noise"].std())
    assert 0.5 < record["noise_deviation"] < 1.5
    assert "5 steps to the noise and 5 back: RMS error" in capsys.readouterr().out
    with Image.open(tmp_path / "out" / "inversion.png") as picture:
        assert_array_equal(picture.size, (3 * 58 + 2, 4 * 58 + 2))  # images, noise, images again, what is off


def test_both_frameworks_find_the_same_noise(both, tmp_path):
    """Otherwise an image has another noise in the other framework."""
    for tree in both:
        assert invert(tree, tmp_path / tree.name, "--num-images", "2", "--steps", "6", "--precision", "fp64") == 0
    ours, theirs = (found(tmp_path / tree.name)[1] for tree in both)
    assert_allclose(ours["noise"], theirs["noise"], atol=1e-9)
    assert_array_equal(ours["back"], theirs["back"])


def test_errors_are_measured_in_units_of_the_image():
    """Otherwise the round-trip error means something else than the documentation says."""
    pixels = np.array([0, 255, 0, 255], np.uint8).reshape(2, 1, 2, 1)
    back = np.array([-1.0, 1.0, -1.0, 0.0]).reshape(2, 1, 2, 1)
    record = invert_command.errors(pixels, draw(2, 1, 2, 1), back)
    assert record["round_trip_rms"] == 0.5
    assert record["round_trip_rms_per_image"] == [0.0, np.sqrt(0.5)]
    assert record["pixels_equal"] == 0.75


def test_an_interruption_is_one_sentence(tree, tmp_path, guarded, monkeypatch):
    """Otherwise Ctrl-C ends in a traceback."""

    class Slow:
        device_name, threads = "cpu", 1

        def there_and_back(self, pixels, on_step, labels=None):
            os.kill(os.getpid(), signal.SIGINT)
            on_step()

    monkeypatch.setattr(tree.sampling, "Inverter", lambda *arguments: Slow())
    code, err = guarded(lambda: invert(tree, tmp_path / "out", "--num-images", "2"))
    assert code == 130
    assert err.rstrip("\n").endswith("interrupted; nothing is written: the same command begins again")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--steps", "0"], "--steps 0: must be 1 or more"),
        (["--steps", "1001"], "--steps 1001: must be at most the 1000 that the model was trained with"),
        (["--iterations", "0"], "--iterations 0: must be 1 or more"),
        (["--num-images", "9999"], "--num-images 9999: fashion-mnist-10k has 2000 test images"),
        (["--prediction", "x_0"], "Unrecognized options: --prediction"),
    ],
)
def test_wrong_flags_are_refused(tree, tmp_path, guarded, argv, message):
    """Otherwise a wrong value ends in a traceback, or inverts something else than it says."""
    code, err = guarded(lambda: invert(tree, tmp_path / "out", *argv))
    assert code == 2
    assert message in " ".join(err.replace("│", " ").split())
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_results_are_overwritten_only_when_told(tree, tmp_path, guarded, keep_networks):
    """Otherwise a repeated command destroys what was found."""
    keep_networks(tree)
    assert invert(tree, tmp_path, "--num-images", "1", "--steps", "2") == 0
    code, err = guarded(lambda: invert(tree, tmp_path, "--num-images", "1", "--steps", "2"))
    assert (code, err) == (
        2,
        f"error: {tmp_path} already holds inversion: choose another --out, or replace them with --overwrite\n",
    )
    assert invert(tree, tmp_path, "--num-images", "1", "--steps", "3", "--overwrite") == 0
    assert found(tmp_path)[0]["steps"] == 3


def test_a_process_that_ends_in_pure_noise_is_not_inverted(tree, tmp_path, guarded):
    """Otherwise the command writes the same image as "noise", since that step has no inverse."""
    config = Config(
        model=ModelConfig(
            base_channels=8, channel_mults=(1,), num_res_blocks=1, attention_resolutions=(), num_groups=4
        ),
        diffusion=DiffusionConfig(prediction="v", zero_terminal_snr=True),
    )
    tensors = tree.learner.Learner(config, 1).tensors()
    path = tmp_path / "zero.safetensors"
    checkpoint.save(path, tensors, framework=tree.framework, step=1, config=config, dataset_sha256="ab" * 32)
    code, err = guarded(lambda: invert(tree, tmp_path / "out", "--checkpoint", str(path)))
    assert code == 2
    assert "its process ends in pure noise, and that step has no inverse" in err
