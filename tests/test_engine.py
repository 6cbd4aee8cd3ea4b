"""The diffusion mathematics: what each tree's must be by itself. That all compute the same is test_parity.py's."""

import dataclasses

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from ddpm_parity.engine import eps_model
from ddpm_parity.schedule import FIELDS
from ddpm_parity.sides import draw
from ddpm_shared.config import DiffusionConfig
from ddpm_shared.errors import UserError


@pytest.fixture
def side(side_of):
    return side_of("fp64")


def test_schedule_has_the_contract_s_fields_and_cannot_be_changed(side):
    """Otherwise code outside the repository that reads a schedule breaks."""
    schedule = side.engine.make_schedule(DiffusionConfig())
    assert tuple(field.name for field in dataclasses.fields(schedule)) == FIELDS
    assert all(side.array(value).dtype == np.float32 for value in vars(schedule).values())  # unless told otherwise
    with pytest.raises(dataclasses.FrozenInstanceError):
        schedule.betas = None


def test_float32_schedules_are_the_float64_ones_rounded_once(side_of):
    """Otherwise small numbers near t = 0 carry the error of float32 arithmetic, not of one rounding."""
    exact, rounded = (side_of(precision).fields(DiffusionConfig()) for precision in ("fp64", "fp32"))
    for name in FIELDS:
        assert_array_equal(rounded[name], exact[name].astype(np.float32), err_msg=name)


def test_an_unknown_schedule_is_refused_by_name(side):
    """Otherwise a misspelt schedule silently trains the linear one."""
    config = DiffusionConfig()
    object.__setattr__(config, "schedule", "quadratik")  # past DiffusionConfig's own check
    with pytest.raises(ValueError, match=r"schedule 'quadratik'.*linear"):
        side.engine.make_schedule(config)
    with pytest.raises(UserError, match=r"schedule 'quadratik'.*linear"):
        DiffusionConfig(schedule="quadratik")


def test_the_last_step_ignores_the_noise(side):
    """Otherwise every finished sample carries noise, the fault that public code most often has."""
    x_t, t = side.tensor(draw(2, 3, 3, 1)), side.times(np.zeros(2, np.int32))
    steps = [
        side.array(side.engine.p_sample(side.schedule(DiffusionConfig()), eps_model, x_t, t, side.tensor(z)))
        for z in (np.zeros((2, 3, 3, 1)), draw(2, 3, 3, 1, seed=9))
    ]
    assert_array_equal(steps[0], steps[1])


def test_clipping_holds_the_implied_image_in_range(side):
    """Otherwise early steps, where x_0_pred is eps / 0.006, throw the chain out of the data's range."""
    schedule, x_t = side.schedule(DiffusionConfig()), side.tensor(3 * draw(1, 4, 4, 1))
    t, z = side.times(np.array([0], np.int32)), side.tensor(np.zeros((1, 4, 4, 1)))
    clipped, free = (
        side.array(side.engine.p_sample(schedule, lambda x, t: 0 * x, x_t, t, z, clip_x_0=clip))
        for clip in (True, False)
    )
    assert_allclose(np.abs(clipped).max(), 1.0, rtol=1e-12)  # at t = 0 the mean is x_0_pred itself
    assert np.abs(free).max() > 1.0


def test_the_loss_is_a_mean_over_everything(side):
    """Otherwise the loss is 784 times that of the paper, or a vector."""
    x_0, eps = side.tensor(draw(2, 3, 3, 1)), side.tensor(np.full((2, 3, 3, 1), 2.0))
    t = side.times(np.array([0, 999], np.int32))
    schedule = side.schedule(DiffusionConfig())
    loss = side.array(side.engine.diffusion_loss(schedule, lambda x, t: 0 * x, x_0, t, eps))
    assert loss.shape == ()
    assert loss == 4.0
