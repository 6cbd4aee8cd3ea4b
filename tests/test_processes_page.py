"""docs/processes.md: that its formulas and its names are those of the code."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from ddpm_shared.config import DiffusionConfig, with_process
from ddpm_shared.config.diffusion import DEFAULTS
from ddpm_shared.config.processes import PROCESS_FACTS
from ddpm_shared.config.sampling import PROCESS_SAMPLING, SAMPLER_FACTS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "processes.md"
TIMES = np.array([0.07, 0.3, 0.55, 0.91])
FLAGS = ("prediction", "preconditioning", "loss_weighting", "time_density")


def rows(head):
    """The cells of each row of the table whose head begins so."""
    (table,) = re.findall(rf"^\| {re.escape(head)}.*\n\|[-|]+\|\n((?:\|.*\n)+)", PAGE.read_text(), re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|\n").split("|")] for line in table.splitlines()]


def value(formula, names):
    """A formula of the page as a number: "2 log(s)" is a product, "s^2" a power, and a comma ends it."""
    code = re.split(r", | which ", formula)[0] if not formula.startswith("min") else formula
    code = re.sub(r"(?<=[\w)]) (?=[\w(])", " * ", code.replace("^", "**").replace("lambda", "log_snr"))
    functions = {"exp": np.exp, "log": np.log, "sqrt": np.sqrt, "sinh": np.sinh, "min": np.minimum}
    return eval(code, {"__builtins__": {}}, functions | names) * np.ones_like(TIMES)


def names_of(config, levels, t):
    """What the letters of the page stand for, in a continuous process."""
    beta_min, beta_max = (config.timesteps * beta for beta in config.beta_range)
    return {
        "t": t,
        "B": beta_min * t + (beta_max - beta_min) * t**2 / 2,
        "beta": beta_min + (beta_max - beta_min) * t,
        "s": config.sigma_data or config.sigma_max,
        "alpha": levels.alpha,
        "sigma": levels.sigma,
        "log_snr": 2 * np.log(levels.alpha / levels.sigma),
        "sigma_min": config.sigma_min,
        "sigma_max": config.sigma_max,
    }


def config_of(process):
    return with_process(DiffusionConfig(), process)


@pytest.mark.parametrize("process", [name for name in PROCESS_FACTS if name != "ddpm"])
def test_the_formulas_of_a_process(tree, process):
    """Otherwise the page defines another process than the one that is trained."""
    config = config_of(process)
    levels = tree.processes.make_levels(config, TIMES, process)
    names = names_of(config, levels, TIMES)
    (sizes,) = (row for row in rows("`--process` | alpha") if row[0] == f"`{process}`")
    (rates,) = (row for row in rows("| f | g^2") if row[0] == f"`{process}`")
    f = levels.alpha_rate / levels.alpha
    squared = 2 * levels.sigma * (levels.sigma_rate - f * levels.sigma)
    prior = tree.processes.prior_scale(config, process)
    for formula, expected in (
        (sizes[1], levels.alpha),
        (sizes[2], levels.sigma),
        (sizes[4], names["log_snr"]),
        (sizes[5], prior * np.ones_like(TIMES)),
        (rates[1], f),
        (rates[2], squared),
        (rates[3], -squared / levels.sigma**2),
    ):
        np.testing.assert_allclose(value(formula, names), expected, rtol=1e-9, atol=1e-12, err_msg=formula)


def test_every_process_and_sampler_is_there():
    """Otherwise somebody chooses among six, and the seventh was the one."""
    for head in ("`--process` | alpha", "`--process` | `--prediction`"):
        assert [row[0].strip("`") for row in rows(head)] == list(PROCESS_FACTS)
    assert [row[0].strip("`") for row in rows("`--sampler`")] == list(SAMPLER_FACTS)


@pytest.mark.parametrize("process", PROCESS_FACTS)
def test_what_a_process_brings(process):
    """Otherwise a run is described that nobody gets."""
    (row,) = (row for row in rows("`--process` | `--prediction`") if row[0] == f"`{process}`")
    config, (sampler, grid) = config_of(process), PROCESS_SAMPLING[process]
    own = [getattr(config, name) for name in FLAGS]
    expected = [*own[:3], "", sampler, ""] if process == "ddpm" else [*own, sampler, grid]
    assert row[1:7] == expected
    further = {name: f"{each:g}" for name, each in PROCESS_FACTS[process].settings if name not in FLAGS}
    assert dict(item.split(" ") for item in row[7].split(", ") if item) == further
    assert set(further) <= set(DEFAULTS)


def test_the_facts_of_the_samplers():
    """Otherwise the page counts other evaluations than the user pays."""
    kinds = {6: "all but ddpm", 7: "all"}
    for name, (row, facts) in zip(
        SAMPLER_FACTS, zip(rows("`--sampler`"), SAMPLER_FACTS.values(), strict=True), strict=True
    ):
        noise = {"ddim": "with `--eta`", "heun": "with `--churn`"}.get(name, "yes" if facts.noisy else "no")
        processes = kinds.get(len(facts.processes), ", ".join(facts.processes))
        assert row[1:] == [facts.over, str(facts.evaluations), str(facts.order), noise, processes]


@pytest.mark.parametrize("process", ["vp", "sub_vp", "ve", "flow"])
def test_the_formulas_of_the_weights(tree, process):
    """Otherwise two losses are compared by weights that neither has."""
    base = dataclasses.replace(config_of(process), sigma_data=0.7, preconditioning="none")
    t = tree.data.to_labels(TIMES)
    level = tree.prediction.level_at(base, t, tree.utils.dtype("fp64"))
    levels = tree.processes.make_levels(base, TIMES, process)
    names = names_of(base, levels, TIMES) | {"gamma": base.min_snr_gamma}
    f = levels.alpha_rate / levels.alpha
    names["g"] = np.sqrt(2 * levels.sigma * (levels.sigma_rate - f * levels.sigma))
    seen = 0
    for name, of_x_0, of_eps, _ in rows("`--loss-weighting`"):
        if name.startswith("`simple`"):
            continue  # the head of the rows that follow
        kind, prediction = ("simple", name.split()[-1]) if name.startswith("...") else (name.split("`")[1], "velocity")
        if process == "flow" and (prediction in ("eps", "score") or kind == "likelihood"):
            continue  # refused
        config = dataclasses.replace(base, loss_weighting=kind, prediction=prediction)
        weight = np.asarray(tree.objective.error_weight(level, config, t)).ravel()
        d = np.asarray(tree.prediction.direction(prediction, level).d).ravel()
        for formula, size in ((of_x_0, levels.sigma), (of_eps, levels.alpha)):
            expected = weight * (d / size) ** 2
            np.testing.assert_allclose(value(formula, names), expected, rtol=1e-9, err_msg=f"{name}: {formula}")
        seen += 1
    assert seen >= 8
