"""kill -9 at some random moments; `make faults ARGS="--kills 200"` makes more."""

import kills
import pytest


@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
def test_a_killed_run_ends_as_if_it_had_not_been(tmp_path, framework):
    """Otherwise a power cut spoils a checkpoint, or changes the numbers of a run."""
    campaign = kills.Campaign(framework)
    for _ in kills.run(campaign, tmp_path, kills=2, seed=20):
        pass
    assert campaign.kills == 2
    assert campaign.faults == []
