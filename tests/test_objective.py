"""Other objectives, all the way: trained, sampled and bounded by their checkpoint, in both frameworks alike."""

import dataclasses
import json

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from ddpm_shared import datasets
from ddpm_shared.commands import train as train_command

FLAGS = [
    *("--preset", "tiny", "--base-channels", "8", "--channel-mults", "1", "--num-groups", "4"),
    *("--dataset", "fashion-mnist-10k", "--timesteps", "40", "--batch-size", "16", "--max-steps", "4"),
    *("--warmup-steps", "1", "--validation-images", "20", "--sample-every", "0", "--device", "cpu"),
    *("--precision", "fp64"),
]
OBJECTIVES = {
    "v, zero terminal SNR, learned variance": (
        ["--prediction", "v", "--zero-terminal-snr", "--schedule", "cosine", "--variance", "learned_range"]
    ),
    "x_0, min-SNR, large variance": ["--prediction", "x_0", "--loss-weighting", "min_snr", "--variance", "fixed_large"],
    "mean, sigmoid": ["--prediction", "mean", "--schedule", "sigmoid", "--beta-end", "0.3"],
}
# Of losses of four float64 steps, relative; seen: 2e-12, in the hybrid loss.
CLOSE = 1e-10


@pytest.fixture(scope="module", autouse=True)
def _few_images():
    real = datasets.load(datasets.EMBEDDED)
    cut = tuple(dataclasses.replace(split, images=split.images[:64], labels=split.labels[:64]) for split in real)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load", lambda name, data_dir=None, folder=None: cut)
        yield


@pytest.mark.parametrize(
    "objective", [pytest.param(name, marks=[pytest.mark.slow] * (number > 1)) for number, name in enumerate(OBJECTIVES)]
)
def test_both_frameworks_learn_draw_and_bound_the_same(both, tmp_path, objective):
    """Otherwise an option works in one framework, or in training and not where its checkpoint is used."""
    losses, drawn, bits = [], [], []
    for tree in both:
        run, samples, bound = (tmp_path / f"{tree.name}-{kind}" for kind in ("run", "samples", "bound"))
        where = ["--checkpoint", str(tmp_path / "torch-run"), "--device", "cpu", "--precision", "fp64"]
        assert tree.train.main([*FLAGS, *OBJECTIVES[objective], "--run-dir", str(run)]) == 0
        assert tree.inference.main([*where, "--num-images", "2", "--out", str(samples)]) == 0
        assert tree.bits.main([*where, "--num-images", "2", "--stride", "2", "--out", str(bound)]) == 0
        history = json.loads((run / "metrics.json").read_text())["history"]
        losses.append([step["loss"] for step in history["steps"]] + [history["epochs"][-1]["validation_loss"]])
        with np.load(samples / "samples.npz") as archive:
            drawn.append(archive["images"])
        bits.append(json.loads((bound / "bits_per_dim.json").read_text())["terms"])
    assert len(set(losses[0])) == 5
    assert_allclose(losses[0], losses[1], rtol=CLOSE)
    assert_array_equal(drawn[0], drawn[1])
    assert_allclose(bits[0], bits[1], rtol=1e-7)


def test_the_learned_variance_has_channels_of_its_own(tree, tmp_path, monkeypatch):
    """Otherwise the network's image doubles as its variance."""
    monkeypatch.chdir(tmp_path)
    for variance, channels in (("fixed_small", 1), ("learned_range", 2)):
        config = train_command.parse(tree.framework, [*FLAGS, "--variance", variance]).config
        assert tree.learner.Learner(config, 1).tensors()["model/conv_out.bias"].shape == (channels,)
