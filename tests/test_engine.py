"""The diffusion mathematics: PyTorch, TensorFlow and the float64 oracle, pairwise.

In float64 the trees agree with the oracle to a few roundings; what is left is that 1 - alphas_cumprod loses digits
near t = 0, where the oracle takes another route. In float32 the arrays are those numbers rounded once.
"""

import dataclasses

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from ddpm_shared import reference
from ddpm_shared.config import DiffusionConfig
from ddpm_shared.errors import UserError

CONFIGS = [DiffusionConfig(), DiffusionConfig(timesteps=50, beta_start=1e-3, beta_end=0.3)]
FIELDS = [
    "betas",
    "alphas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef_x_0",
    "posterior_mean_coef_x_t",
]

# Relative. Seen: 3.2e-13 in the schedule, by the digits that 1 - alphas_cumprod loses near t = 0.
SCHEDULE_FLOAT64 = 1e-12
# Relative to the largest value. Seen: 2.8e-13 in p_sample, which inherits that; 1.1e-7 in float32, one rounding.
ARITHMETIC_FLOAT64 = 1e-12
ARITHMETIC_FLOAT32 = 1e-6

T = np.array([0, 1, 2, 499, 998, 999], np.int32)  # both ends, where off-by-one faults live


def oracle(config):
    return reference.linear_schedule(config.timesteps, config.beta_start, config.beta_end)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def schedule_of(tree, config, precision):
    return tree.engine.make_schedule(config, tree.utils.dtype(precision))


def tensor(tree, array, precision="fp64"):
    """A NumPy [B, H, W, C] array in the tree's layout and precision."""
    dtype = np.float64 if precision == "fp64" else np.float32
    return tree.data.to_tensor(array.astype(dtype))


def times(tree, t):
    return tree.data.torch.from_numpy(t) if tree.name == "torch" else t


def eps_model(x_t, t):
    """A stand-in for the network that any array library can compute: depends on x_t and on t."""
    return 0.3 * x_t + 0.2 * x_t**3 * 0.01


@pytest.mark.parametrize("config", CONFIGS, ids=["default", "short"])
@pytest.mark.parametrize("field", FIELDS)
def test_schedule_equals_the_oracle(tree, config, field):
    """Otherwise the tree trains and samples another process than the one it documents."""
    want = oracle(config)[field]
    got = tree.array(getattr(schedule_of(tree, config, "fp64"), field))
    assert got.shape == (config.timesteps,)
    assert_allclose(got, want, rtol=SCHEDULE_FLOAT64, atol=0, err_msg=f"{tree.name} against the oracle: {field}")
    rounded = tree.array(getattr(schedule_of(tree, config, "fp32"), field))
    assert rounded.dtype == np.float32
    np.testing.assert_array_max_ulp(rounded, want.astype(np.float32), maxulp=1)


@pytest.mark.parametrize("config", CONFIGS, ids=["default", "short"])
@pytest.mark.parametrize("field", FIELDS)
def test_schedules_of_the_trees_agree(both, config, field):
    """Otherwise every loss of the two frameworks differs from the first step on."""
    for precision in ("fp64", "fp32"):
        a, b = (tree.array(getattr(schedule_of(tree, config, precision), field)) for tree in both)
        if precision == "fp32":
            np.testing.assert_array_max_ulp(a, b, maxulp=1)
        else:
            assert_allclose(a, b, rtol=SCHEDULE_FLOAT64, atol=0, err_msg=f"torch against tf: {field}")


def test_schedule_has_the_contract_s_fields_and_cannot_be_changed(tree):
    """Otherwise code outside the repository that reads a schedule breaks."""
    schedule = schedule_of(tree, DiffusionConfig(), "fp32")
    assert [field.name for field in dataclasses.fields(schedule)] == FIELDS
    with pytest.raises(dataclasses.FrozenInstanceError):
        schedule.betas = None


def test_an_unknown_schedule_is_refused_by_name(tree):
    """Otherwise a misspelt schedule silently trains the linear one."""
    config = DiffusionConfig()
    object.__setattr__(config, "schedule", "quadratik")  # past DiffusionConfig's own check
    with pytest.raises(ValueError, match=r"schedule 'quadratik'.*linear"):
        tree.engine.make_schedule(config)
    with pytest.raises(UserError, match=r"schedule 'quadratik'.*linear"):
        DiffusionConfig(schedule="quadratik")


def call(engine, name, schedule, t, x_0, eps, x_t, z):
    """One function of an engine, the oracle's included, as a list of its results."""
    functions = {
        "q_sample": lambda: engine.q_sample(schedule, x_0, t, eps),
        "predict_x_0": lambda: engine.predict_x_0(schedule, x_t, t, eps),
        "q_posterior": lambda: engine.q_posterior(schedule, x_0, x_t, t),
        "p_sample": lambda: engine.p_sample(schedule, eps_model, x_t, t, z),
        "p_sample unclipped": lambda: engine.p_sample(schedule, eps_model, x_t, t, z, clip_x_0=False),
        "diffusion_loss": lambda: engine.diffusion_loss(schedule, eps_model, x_0, t, eps),
    }
    result = functions[name]()
    return list(result if isinstance(result, tuple) else (result,))


def compute(tree, name, precision):
    schedule = schedule_of(tree, DiffusionConfig(), precision)
    images = (tensor(tree, draw(len(T), 5, 4, 2, seed=seed), precision) for seed in range(4))
    return [tree.array(part) for part in call(tree.engine, name, schedule, times(tree, T), *images)]


def compute_reference(name):
    return call(reference, name, oracle(DiffusionConfig()), T, *(draw(len(T), 5, 4, 2, seed=seed) for seed in range(4)))


FUNCTIONS = ["q_sample", "predict_x_0", "q_posterior", "p_sample", "p_sample unclipped", "diffusion_loss"]


def agree(got, want, precision, pair):
    for a, b in zip(got, want, strict=True):
        b = np.asarray(b)
        assert a.shape == b.shape, pair
        tolerance = ARITHMETIC_FLOAT64 if precision == "fp64" else ARITHMETIC_FLOAT32
        assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max(), err_msg=pair)


@pytest.mark.parametrize("precision", ["fp64", "fp32"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_engine_equals_the_oracle(tree, name, precision):
    """Otherwise the equation in the docstring is not the one in the code."""
    got = compute(tree, name, precision)
    assert got[0].dtype == (np.float64 if precision == "fp64" else np.float32)
    agree(got, compute_reference(name), precision, f"{tree.name} against the oracle: {name}, {precision}")


@pytest.mark.parametrize("precision", ["fp64", "fp32"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_engines_of_the_trees_agree(both, name, precision):
    """Otherwise a model moved between the frameworks samples other pictures."""
    a, b = (compute(tree, name, precision) for tree in both)
    agree(a, b, precision, f"torch against tf: {name}, {precision}")


def test_the_last_step_ignores_the_noise(tree):
    """Otherwise every finished sample carries noise, the fault that public code most often has."""
    schedule = schedule_of(tree, DiffusionConfig(), "fp64")
    x_t = tensor(tree, draw(2, 3, 3, 1))
    t = times(tree, np.zeros(2, np.int32))
    steps = [
        tree.array(tree.engine.p_sample(schedule, eps_model, x_t, t, tensor(tree, z)))
        for z in (np.zeros((2, 3, 3, 1)), draw(2, 3, 3, 1, seed=9))
    ]
    assert_array_equal(steps[0], steps[1])


def test_clipping_holds_the_implied_image_in_range(tree):
    """Otherwise early steps, where x_0_pred is eps / 0.006, throw the chain out of the data's range."""
    schedule = schedule_of(tree, DiffusionConfig(), "fp64")
    x_t = tensor(tree, 3 * draw(1, 4, 4, 1))
    t, z = times(tree, np.array([0], np.int32)), tensor(tree, np.zeros((1, 4, 4, 1)))
    clipped, free = (
        tree.array(tree.engine.p_sample(schedule, lambda x, t: 0 * x, x_t, t, z, clip_x_0=clip))
        for clip in (True, False)
    )
    assert_allclose(np.abs(clipped).max(), 1.0, rtol=SCHEDULE_FLOAT64)  # at t = 0 the mean is x_0_pred itself
    assert np.abs(free).max() > 1.0


def test_the_loop_is_the_step_repeated_from_the_last_t_down_to_zero(tree):
    """Otherwise the chain skips a step, runs one twice or gives a step another step's noise."""
    config = DiffusionConfig(timesteps=7)
    schedule = schedule_of(tree, config, "fp64")
    noise = {t: draw(2, 3, 3, 1, seed=t) for t in range(7)}
    start = draw(2, 3, 3, 1, seed=100)
    seen = list(tree.engine.p_sample_loop(schedule, eps_model, tensor(tree, start), lambda t: tensor(tree, noise[t])))
    assert [t for t, _ in seen] == [6, 5, 4, 3, 2, 1, 0]
    x = start
    for t, got in seen:
        x = reference.p_sample(oracle(config), eps_model, x, np.full(2, t), noise[t])
        assert_allclose(tree.array(got), x, rtol=0, atol=1e-12)  # of order 1


def test_the_loss_is_a_mean_over_everything(tree):
    """Otherwise the loss is 784 times that of the paper, or a vector."""
    schedule = schedule_of(tree, DiffusionConfig(), "fp64")
    x_0, eps = tensor(tree, draw(2, 3, 3, 1)), tensor(tree, np.full((2, 3, 3, 1), 2.0))
    loss = tree.array(tree.engine.diffusion_loss(schedule, lambda x, t: 0 * x, x_0, times(tree, T[:2]), eps))
    assert loss.shape == ()
    assert loss == 4.0
