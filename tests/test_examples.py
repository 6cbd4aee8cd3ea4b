"""The shortest complete program of each tree: that it learns, draws, and computes what the other one computes."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {"torch": "pytorch", "tf": "tensorflow"}


@pytest.fixture(scope="module")
def ran(both, tmp_path_factory):
    """Losses and picture of each, after 16 steps with a process of twenty."""
    results = {}
    for tree in both:
        spec = importlib.util.spec_from_file_location("minimal", ROOT / FOLDERS[tree.name] / "examples" / "minimal.py")
        example = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(example)
        out = tmp_path_factory.mktemp(tree.name) / "minimal.png"
        losses = example.main(steps=16, timesteps=20, out=out)
        with Image.open(out) as picture:
            results[tree.name] = np.array(losses), np.asarray(picture).astype(int)
    return results


def test_the_example_learns(ran):
    """Otherwise the first program that somebody copies does not work."""
    for losses, picture in ran.values():
        assert losses[-5:].mean() < 0.7 * losses[0]
        assert picture.shape == (4 * 58 + 2, 4 * 58 + 2)
        assert picture.std() > 20


def test_both_examples_compute_the_same(ran):
    """Otherwise a reader who runs both sees two models where the page promises one."""
    (torch_losses, torch_picture), (tf_losses, tf_picture) = ran["torch"], ran["tf"]
    # Keras' Adam adds its epsilon before the bias correction, and Adam amplifies rounding: measured 1.4e-5 in the first
    # three steps, 1.2e-3 in the first twelve, 3.3e-2 in the first forty.
    np.testing.assert_allclose(torch_losses[:3], tf_losses[:3], rtol=1e-4)
    np.testing.assert_allclose(torch_losses[:12], tf_losses[:12], rtol=5e-3)
    np.testing.assert_allclose(torch_losses, tf_losses, rtol=0.1)
    assert np.abs(torch_picture - tf_picture).mean() < 10
