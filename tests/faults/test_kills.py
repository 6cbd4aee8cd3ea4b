"""kill -9 at some random moments; `make faults ARGS="--kills 200"` makes more."""

import kills
import pytest


@pytest.mark.parametrize(("framework", "number"), [("torch", 1), pytest.param("tensorflow", 1, marks=pytest.mark.slow)])
def test_a_killed_run_ends_as_if_it_had_not_been(tmp_path, framework, number):
    """Otherwise a power cut spoils a checkpoint, or changes the numbers of a run."""
    campaign = kills.Campaign(framework)
    for _ in kills.run(campaign, tmp_path, kills=number, seed=20):
        pass
    assert campaign.kills == number
    assert campaign.faults == []
