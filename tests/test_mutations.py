"""The suite on trial: every planted fault must be noticed, and nothing else may be."""

import importlib
import sys

import numpy as np
import pytest

from ddpm_parity import mutations, quantities
from ddpm_parity.faults import MUTATIONS
from ddpm_parity.mutation import Mutation, fault
from ddpm_parity.mutations import catch, planted
from ddpm_parity.quantities import Quantity
from ddpm_parity.suite import QUANTITIES
from ddpm_parity.tolerances import Tolerance
from ddpm_shared.config.sampling import Sampling

RECORD = mutations.recorded()


@pytest.mark.parametrize("mutation", MUTATIONS, ids=str)
def test_a_planted_fault_is_caught(suite, mutation, record_property):
    """Otherwise this fault could live in one of the trees unseen. One comparison is enough: the recorded one."""
    verdict = catch(suite, mutation, RECORD.get(str(mutation)))
    assert verdict is not None, f"survived: {mutation.tree}, {mutation.module}.py: {mutation.name}"
    apart = {pair for pair, gap in verdict.gaps.items() if not gap.size <= verdict.tolerance}
    culprits = {mutation.tree} if mutation.tree in mutations.TREES else set(mutations.TREES)
    assert apart == {pair for pair in verdict.gaps if len(culprits & set(pair)) == 1}, "the culprit is named"
    largest = max(gap.size for gap in verdict.gaps.values())
    record_property("caught", f"{mutation} | caught by {verdict.quantity} | gap {largest:.1e}")


def test_there_are_enough_faults_in_both_trees():
    """Otherwise the proof covers one tree, or a handful of faults."""
    assert len(set(map(str, MUTATIONS))) == len(MUTATIONS) >= 20
    assert {m.module for m in MUTATIONS} >= {"engine", "networks.layers", "optimizer", "data", "learner"}
    for tree in ("torch", "tf"):
        assert sum(m.tree == tree for m in MUTATIONS) >= 20
    assert {m.module for m in MUTATIONS if m.tree == "shared"} >= {"batches", "streams", "config.sampling"}


def test_the_record_has_every_fault_and_every_comparison_in_it_exists():
    """Otherwise a renamed fault is searched for by all comparisons, and the tests take minutes longer.

    If this fails, run python -m ddpm_parity.mutations.
    """
    assert RECORD.keys() == set(map(str, MUTATIONS))
    assert set(RECORD.values()) <= {str(q) for q in QUANTITIES if not q.slow}


@pytest.mark.parametrize("first", [None, "c: third"])
def test_the_recorded_comparison_is_first_and_then_all_others(suite, monkeypatch, first):
    """Otherwise a fault that its recorded comparison no longer sees is said to survive, or all are run for each."""
    tried = []

    def compute(name):
        return lambda side: tried.append((name, side.name)) or {"x": np.array(float(side.name == name == "torch"))}

    monkeypatch.setattr(
        "ddpm_parity.mutations.QUANTITIES",
        [
            Quantity(subject, name, compute(name), Tolerance(0.0, 0.0), quantities.absolute)
            for subject, name in (("a", "first"), ("b", "second"), ("c", "third"), ("d", "torch"), ("e", "not tried"))
        ],
    )
    harmless = Mutation("a comment", "torch", "engine", (("return mean, at(", "return mean + 0.0, at("),), "b")
    verdict = catch(suite, harmless, first)
    assert str(verdict.quantity) == "d: torch"
    rest = ["third", "second"] if first == "c: third" else ["second"]
    of_torch = [name for name, side in tried if side == "torch"]
    assert of_torch == [*rest, *(n for n in ("first", "second", "third", "torch") if n not in rest)]


def test_a_fault_can_be_planted_in_a_subpackage(tmp_path, monkeypatch):
    """Otherwise the faults of networks/layers.py could not be planted, or would be planted elsewhere."""
    doubled = fault("doubled", "torch.networks.layers", "layers", "ONE = 1", "ONE = 2")
    assert (doubled.tree, doubled.module) == ("torch", "networks.layers")
    (tmp_path / "planted_tree" / "networks").mkdir(parents=True)
    for path, text in {"__init__": "", "networks/__init__": "", "networks/layers": "ONE = 1\n"}.items():
        (tmp_path / "planted_tree" / f"{path}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(mutations.TREES["torch"], "tree", "planted_tree")
    sound = importlib.import_module("planted_tree.networks.layers")
    with planted(doubled):
        assert importlib.import_module("planted_tree.networks.layers").ONE == 2
    assert importlib.import_module("planted_tree.networks.layers") is sound
    assert sound.ONE == 1


@pytest.mark.parametrize("tree", ["torch", "tf"])
def test_a_harmless_edit_survives(suite, tree, monkeypatch):
    """Otherwise the faults are caught by the way they are planted, not by what they do."""
    harmless = Mutation("a comment", tree, "engine", (("return mean, at(", "return mean + 0.0, at("),), "engine")
    monkeypatch.setattr("ddpm_parity.mutations.QUANTITIES", [q for q in QUANTITIES if q.subject == "engine"])
    assert catch(suite, harmless) is None


def test_a_fault_of_what_both_trees_share_is_in_both_and_gone_afterwards():
    """Otherwise it is planted in a copy that nobody uses, or all that follows computes with it."""
    edit = ("return self.guidance if within else 1.0", "return -7.0")
    sampling = Sampling(guidance=3.0)
    with planted(Mutation("a scale", "shared", "config.sampling", (edit,), "")):
        assert sampling.guidance_at(0) == -7.0
        assert importlib.import_module("ddpm_torch.sampling").Sampling is Sampling
    assert sampling.guidance_at(0) == 3.0


def test_a_harmless_edit_of_what_both_trees_share_survives(suite, monkeypatch):
    """Otherwise its faults are caught by the way they are planted, not by what they do."""
    edit = ("labels[dropped] = config.model.num_classes", "labels[dropped] = config.model.num_classes + 0")
    monkeypatch.setattr("ddpm_parity.mutations.QUANTITIES", [q for q in QUANTITIES if q.subject == "data"])
    assert catch(suite, Mutation("a sum", "shared", "batches", (edit,), "data")) is None


def test_a_planted_fault_is_gone_afterwards(both):
    """Otherwise the tests after it judge a broken tree, or objects of two copies of one module."""
    before = importlib.import_module("ddpm_torch.networks.layers")
    edit = ("GROUP_NORM_EPS = 1e-5", "GROUP_NORM_EPS = 7.0")
    with planted(Mutation("a name", "torch", "networks.layers", (edit,), "")):
        inside = importlib.import_module("ddpm_torch.networks.layers")
        learner = importlib.import_module("ddpm_torch.learner")
        assert inside.GROUP_NORM_EPS == 7.0
        assert importlib.import_module("ddpm_torch.networks.unet").Upsample is inside.Upsample is not before.Upsample
    assert importlib.import_module("ddpm_torch.networks.layers") is before
    assert before.GROUP_NORM_EPS == 1e-5
    assert sys.modules.get("ddpm_torch.learner") is not learner


def test_an_edit_that_no_longer_fits_the_source_is_an_error(both):
    """Otherwise a fault that was never planted counts as caught by something else, or a survivor as nothing."""
    with (
        planted(Mutation("gone", "torch", "engine", (("no such line", ""),), "")),
        pytest.raises(LookupError, match="'no such line' 0 times"),
    ):
        importlib.import_module("ddpm_torch.engine")
