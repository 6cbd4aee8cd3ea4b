"""The samplers where the truth is known, Gaussian data and the perfect network: what is drawn, and the solvers' orders.

tests/benchmarks/convergence.py has the mathematics, and draws docs/convergence.png with it.
"""

import convergence
import pytest

from ddpm_parity.samplers import ON_DDPM
from ddpm_shared.config.samplers import SAMPLER_FACTS, deterministic

# None of the numbers below is random, and rounding is far below them all; both trees gave the same three digits.

# Twice as many steps gain 2^order where the steps are small; here they go from 128 to 256. Seen: ancestral 0.97, ddim
# 1.00, plms 2.01, dpmpp_2m 1.95, dpmpp_2m_sde 2.00, heun 2.00.
STEPS, ORDER_WITHIN = (128, 256), 0.06
# Of the distribution, for whose sake one samples. Along one path of the noise, dpmpp_2m_sde is of order 1.
ORDERS = {name: kind.order for name, kind in SAMPLER_FACTS.items()}
# The error of the whole way in 50 and in 250 steps, in standard deviations of the data. Those of order 2 do not gain 25
# times: the last step, to the clean image, is of order 1.
WHOLE = {
    "ancestral": (0.13, 0.035),  # 0.112 and 0.0284
    "ddim": (0.07, 0.015),  # 0.0572 and 0.0118
    "plms": (2e-3, 5e-4),  # 1.33e-3 and 3.6e-4
    "dpmpp_2m": (2e-3, 3e-4),  # 1.09e-3 and 2.2e-4
    "dpmpp_2m_sde": (0.04, 5e-3),  # 0.0299 and 3.8e-3
    "heun": (0.01, 1.2e-3),  # 8.6e-3 and 9.2e-4
}
# The factor of x_T against the closed form, at each of 256 levels.
PATH = {"ddim": 5e-3, "plms": 7e-6, "dpmpp_2m": 7e-5, "heun": 6e-5}  # 3.2e-3, 4.8e-6, 5.0e-5, 4.3e-5
ROUNDING = 1e-14  # 1.7e-16


@pytest.fixture
def side(side_of):
    return side_of("fp64")


@pytest.mark.parametrize("name", ON_DDPM)
def test_the_error_falls_at_the_solver_s_order(side, name, record_property):
    """Otherwise a step is slightly wrong, as by a weight or the time before, and more steps help less than they should.

    Such a fault is seen in no image and, where the oracle shares it, in no comparison.
    """
    order = convergence.order([convergence.between(side, name, steps) for steps in STEPS])
    record_property(f"order {name}", order)
    assert abs(order - ORDERS[name]) <= ORDER_WITHIN


@pytest.mark.parametrize("name", ON_DDPM)
def test_the_whole_way_draws_the_data(side, name, record_property):
    """Otherwise the images are too pale or too harsh: their mean or their spread is not that of the data."""
    for steps, bound in zip((50, 250), WHOLE[name], strict=True):
        error = convergence.whole(side, name, steps)
        record_property(f"whole {name} {steps}", error)
        assert error <= bound, steps


@pytest.mark.parametrize("name", ON_DDPM)
def test_the_mean_is_right_whatever_the_steps(side, name, record_property):
    """Otherwise few steps make all images darker or brighter, not just less varied.

    The path through the middle, x_t = alpha MEAN, has eps = 0, and every solver stays on it.
    """
    levels = side.processes.make_levels(convergence.FINE, range(999, 10_000, 1500))
    start, _ = convergence.marginal(levels, 6)
    for i, affine in enumerate(convergence.run(side, levels, name)):
        wanted, _ = convergence.marginal(levels, i - 1)
        record_property(f"mean {name}", float(abs(affine.c + affine.a * start - wanted)))
        assert abs(affine.c + affine.a * start - wanted) <= ROUNDING


@pytest.mark.parametrize("name", [name for name in deterministic() if name in ON_DDPM])
def test_without_noise_the_path_is_the_ode_s(side, name, record_property):
    """Otherwise an image without noise on the way is not that of its x_T, though the images as a whole be right.

    x_t = alpha MEAN + (x_T - alpha_T MEAN) std_t / std_T, in closed form; not its mirror image, and without any z.
    """
    visited = range(convergence.FLOOR, convergence.FINE.timesteps, 64)
    levels = side.processes.make_levels(convergence.FINE, visited)
    _, std = convergence.marginal(levels, len(visited) - 1)
    for i, affine in enumerate(convergence.run(side, levels, name)[1:]):
        wanted = convergence.marginal(levels, i)[1] / std
        record_property(f"path {name}", float(abs(affine.a - wanted)))
        assert affine.a == pytest.approx(wanted, abs=PATH[name])
        assert not affine.b.any()
