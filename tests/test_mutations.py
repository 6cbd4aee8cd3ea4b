"""The suite on trial: every planted fault must be noticed, and nothing else may be."""

import importlib
import sys

import pytest

from ddpm_parity.faults import MUTATIONS, Mutation
from ddpm_parity.mutations import catch, planted
from ddpm_parity.suite import QUANTITIES


@pytest.mark.parametrize("mutation", MUTATIONS, ids=str)
def test_a_planted_fault_is_caught(suite, mutation, record_property):
    """Otherwise this fault could live in one of the trees unseen."""
    verdict = catch(suite, mutation)
    assert verdict is not None, f"survived: {mutation.tree}, {mutation.module}.py: {mutation.name}"
    apart = {pair for pair, gap in verdict.gaps.items() if not gap.size <= verdict.tolerance}
    sound = "tf" if mutation.tree == "torch" else "torch"
    assert apart == {(mutation.tree, sound), (mutation.tree, "oracle")}, "the culprit is named"
    largest = max(gap.size for gap in verdict.gaps.values())
    record_property("caught", f"{mutation} | caught by {verdict.quantity} | gap {largest:.1e}")


def test_there_are_enough_faults_in_both_trees():
    """Otherwise the proof covers one tree, or a handful of faults."""
    assert len(set(map(str, MUTATIONS))) == len(MUTATIONS) >= 20
    assert {m.module for m in MUTATIONS} >= {"engine", "networks.layers", "optimizer", "data", "learner"}
    for tree in ("torch", "tf"):
        assert sum(m.tree == tree for m in MUTATIONS) >= 20


@pytest.mark.parametrize("tree", ["torch", "tf"])
def test_a_harmless_edit_survives(suite, tree, monkeypatch):
    """Otherwise the faults are caught by the way they are planted, not by what they do."""
    harmless = Mutation("a comment", tree, "engine", (("return mean, at(", "return mean + 0.0, at("),), "engine")
    monkeypatch.setattr("ddpm_parity.mutations.QUANTITIES", [q for q in QUANTITIES if q.subject == "engine"])
    assert catch(suite, harmless) is None


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
