"""Inception's features: torch-fidelity's network with random weights, shown our images as RULE says."""

import hashlib
import importlib
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from ddpm_shared.errors import UserError
from ddpm_shared.evaluation import inception
from ddpm_shared.frameworks import installed

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 28, 28, 1), dtype=np.uint8)


@pytest.fixture(scope="module")
def network() -> Any:
    """torch-fidelity's module of the network."""
    for name in ("torch", "torch_fidelity"):
        if not installed(name):
            (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{name} is not installed")
    with inception.bare_package("torch_fidelity"):
        return importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")


@pytest.fixture(scope="module")
def random_weights(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file like the one of the release, with weights that keep the size of what flows through them."""

    class Unloaded(network.FeatureExtractorInceptionV3):
        def load_state_dict(self, state_dict: Any) -> None:
            pass

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "load_state_dict_from_url", lambda *_, **__: {})
        state = Unloaded("inception", ["2048"]).state_dict()
    random = np.random.default_rng(1)
    for tensor in state.values():
        if tensor.ndim == 4:
            fan_in = tensor[0].numel()
            tensor.copy_(network.torch.from_numpy(random.standard_normal(tensor.shape) * np.sqrt(2 / fan_in)))
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    network.torch.save(state, path)
    return path


@pytest.fixture
def weights(random_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That file, in a world where it is the one to take, and where few images are enough."""
    monkeypatch.setattr(inception, "SHA256", hashlib.sha256(random_weights.read_bytes()).hexdigest())
    monkeypatch.setattr(inception, "AT_LEAST", 1)
    return random_weights


def resized_by_tensorflow_1(image: np.ndarray) -> np.ndarray:
    """[28, 28] -> [299, 299]: row i is taken at i * 28 / 299 between the two rows there, the last one repeated."""
    for axis in (0, 1):
        place = np.arange(299) * 28 / 299
        low = place.astype(int)
        share = (place - low).reshape((-1, 1) if axis == 0 else (1, -1))
        high = np.minimum(low + 1, 27)
        image = (1 - share) * image.take(low, axis) + share * image.take(high, axis)
    return image


def test_the_network_is_shown_what_the_rule_says(weights: Path, network: Any) -> None:
    """Otherwise evaluation.json would state one rule, and the FID follow another, which nobody notices."""
    shown: list[np.ndarray] = []

    def spy(module: Any, arguments: tuple[Any, ...]) -> None:
        if not shown and isinstance(module, network.torch.nn.Conv2d):
            shown.append(arguments[0].numpy().copy())

    hook = network.torch.nn.modules.module.register_module_forward_pre_hook(spy)
    try:
        inception.features(inception.load(weights, 2048), IMAGES)
    finally:
        hook.remove()
    expected = [[(resized_by_tensorflow_1(image[..., 0].astype(float)) - 128) / 128] * 3 for image in IMAGES]
    assert_allclose(shown[0], expected, rtol=0, atol=5e-6)  # in float32 there
    assert -1 <= shown[0].min() < -0.95
    assert 0.95 < shown[0].max() < 1


def test_the_features_are_those_of_the_last_pooling(weights: Path, network: Any) -> None:
    """Otherwise it would be another layer's FID, or one of images in another order."""
    told: list[int] = []
    got = inception.features(inception.load(weights, 2048), IMAGES, told.append)
    assert got.shape == (5, 2048)
    assert got.dtype == np.float64
    assert told == [5]
    assert (got >= 0).all(), "means after a rectifier"
    assert np.unique(got.round(6), axis=0).shape == got.shape, "an image has its own"
    layer = network.FeatureExtractorInceptionV3("inception", ["768", "2048"], feature_extractor_weights_path=weights)
    grey = network.torch.from_numpy(IMAGES[..., 0])
    earlier, last = layer(network.torch.stack([grey, grey, grey], dim=1))
    assert earlier.shape == (5, 768)
    assert_array_equal(got, last.numpy())


def test_batches_do_not_matter(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise images at the end of a batch would be lost, repeated or put in another's place."""
    at_once = inception.features(inception.load(weights, 2048), IMAGES)
    monkeypatch.setattr(inception, "BATCH", 2)
    told: list[int] = []
    in_batches = inception.features(inception.load(weights, 2048), IMAGES, told.append)
    assert told == [2, 2, 1]
    assert_allclose(in_batches, at_once, rtol=0, atol=1e-5 * at_once.max())


def test_a_broken_torchvision_is_no_obstacle(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise nobody with the CPU build of PyTorch could compute FID."""
    (tmp_path / "torchvision.py").write_text('raise RuntimeError("operator torchvision::nms does not exist")\n')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    assert inception.features(inception.load(weights, 2048), IMAGES[:1]).any()


def test_a_package_is_bare_for_the_block_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise who uses torch-fidelity beside us would find it without its contents, or with half of ours."""
    folder = tmp_path / "guarded"
    folder.mkdir()
    (folder / "__init__.py").write_text('raise ImportError("has run")\n')
    (folder / "number.py").write_text("NUMBER = 7\n")
    (folder / "part.py").write_text("from guarded.number import NUMBER\n")
    monkeypatch.syspath_prepend(tmp_path)

    def use() -> Any:
        with inception.bare_package("guarded"):
            return importlib.import_module("guarded.part")

    def loaded() -> dict[str, Any]:
        return {name: module for name, module in sys.modules.items() if name.startswith("guarded")}

    assert use().NUMBER == 7
    assert loaded() == {}
    (folder / "__init__.py").write_text("")
    mine = importlib.import_module("guarded.number")
    before = loaded()
    assert before.keys() == {"guarded", "guarded.number"}
    assert use().NUMBER == 7
    assert loaded() == before
    (folder / "number.py").unlink()
    with pytest.raises(ModuleNotFoundError, match=r"guarded\.number"):
        use()
    assert loaded() == before
    assert sys.modules["guarded.number"] is mine


# --- Refusals -----------------------------------------------------------------------------------------------


def test_importing_the_module_imports_no_framework() -> None:
    """Otherwise every evaluation would wait for PyTorch, and fail without it."""
    line = (
        "import sys; from ddpm_shared.evaluation import inception; print({'torch', 'torch_fidelity'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_fewer_images_than_features_are_refused() -> None:
    """Otherwise a singular covariance would give an FID that is rounding, after half an hour of waiting."""
    assert inception.AT_LEAST == inception.FEATURES == 2048
    with pytest.raises(UserError, match="needs 2048 images or more, got 2047"):
        inception.load(Path("absent.pth"), 2047)


def test_a_missing_file_and_another_file_are_refused(tmp_path: Path) -> None:
    """Otherwise a half download would end in a traceback, or a file of malice be unpickled."""
    path = tmp_path / "weights.pth"
    way_out = re.escape(f"download {inception.URL}")
    with pytest.raises(UserError, match=rf"there is no .*weights.pth: give the Inception weights, {way_out}"):
        inception.load(path, 2048)
    path.write_bytes(b"other")
    found = hashlib.sha256(b"other").hexdigest()
    with pytest.raises(UserError, match=rf"has SHA-256 {found}, not {inception.SHA256} .*: {way_out}"):
        inception.load(path, 2048)
    assert inception.SHA256.startswith(inception.URL[-12:-4]), "its name says how it begins"


@pytest.mark.parametrize("missing", ["torch", "torch_fidelity"])
def test_a_package_that_is_not_installed_is_named(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the way out, which must leave torchvision alone, would have to be found in the README."""
    path = tmp_path / "weights.pth"
    path.write_bytes(b"weights")
    monkeypatch.setattr(inception, "SHA256", hashlib.sha256(b"weights").hexdigest())
    if missing == "torch":
        if not installed("torch_fidelity"):
            pytest.skip("torch_fidelity is not installed")
        monkeypatch.setitem(sys.modules, "torch", None)
    else:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=f"needs {missing}, which is not installed: .* --no-deps torch-fidelity"):
        inception.load(path, 2048)
