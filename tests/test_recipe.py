"""The search for a recipe (tests/benchmarks/recipe.py): each changes one thing, and is trained, drawn and judged."""

import importlib
import json

import pytest

from ddpm_shared import config as configs
from ddpm_shared.commands import train as train_command
from ddpm_shared.config import to_dict
from ddpm_shared.errors import UserError

SMALL = {
    **{"preset": "tiny", "base_channels": 8, "channel_mults": "1", "num_groups": 4, "num_res_blocks": 1},
    **{"dataset": "fashion-mnist-10k", "timesteps": 20, "batch_size": 16, "device": "cpu"},
}


@pytest.fixture
def recipe(few_images):
    """The script, on few images."""
    return importlib.import_module("recipe")


def test_a_recipe_changes_one_thing(recipe):
    """Otherwise the table says of one change what several did."""

    def config(name):
        return train_command.parse("torch", recipe.flags(name)).config

    reference = to_dict(config("reference"))
    for name, changes in recipe.CHANGES.items():
        differences = configs.differences(reference, to_dict(config(name)))
        assert {key.rpartition(".")[2] for key in differences} == set(changes)


@pytest.mark.slow
@pytest.mark.parametrize("tree", ["torch"], indirect=True)
def test_recipes_are_trained_drawn_judged_and_kept(tree, recipe, tmp_path, monkeypatch):
    """Otherwise the table holds images of another run, or an interruption costs hours."""
    monkeypatch.setattr(recipe, "REFERENCE", SMALL)
    monkeypatch.setattr(recipe, "CHANGES", {"reference": {}, "v": {"prediction": "v"}})
    out = tmp_path / "out"
    told = {"names": ("reference", "v"), "images": 128, "out": str(out)}
    with pytest.raises(UserError, match="`speed` must settle its steps first"):
        recipe.run(recipe.Options("train", **told))
    out.mkdir()
    steps = {"steps": 3, "minutes": 20.0, "parameters": 1234}
    (out / "recipe.json").write_text(json.dumps({"steps": {"reference": steps, "v": steps}}))
    assert recipe.run(recipe.Options("train", **told)) == 0
    drawn = {path: path.read_bytes() for path in out.rglob("samples.npz")}
    assert len(drawn) == 4
    assert recipe.run(recipe.Options("train", **told)) == 0
    assert {path: path.read_bytes() for path in out.rglob("samples.npz")} == drawn  # nothing is done twice
    assert recipe.run(recipe.Options("report", **told | {"seeds": (0, 1)})) == 0  # of what is there
    found = json.loads((out / "recipe.json").read_text())
    assert found["runs"].keys() == {"reference", "v"}
    assert {each["0"]["final"]["step"] for each in found["runs"].values()} == {3}
    fids = [each["0"]["averaged"]["fid_fashion"] for each in found["runs"].values()]
    assert min(fids) > found["floor"]["fid_fashion"]  # of noise, and of real images
    table = (out / "recipe.md").read_text()
    assert all(f"{fid:.3g}" in table for fid in fids)
    assert (out / "recipe.png").is_file()


def test_an_unknown_recipe_is_refused(recipe):
    """Otherwise a typo ends hours later in a traceback."""
    with pytest.raises(UserError, match="unknown recipe 'w'"):
        recipe.Options("train", names=("w",))
