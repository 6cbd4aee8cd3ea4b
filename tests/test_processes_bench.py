"""Continuous time measured (tests/benchmarks: processes.py, score_transformer.py): what is drawn, kept and shown.

The networks have hardly learned, so the distances are those of noise; that they are the right ones is the matter here.
"""

import dataclasses
import json

import machine
import numpy as np
import processes
import processes_order
import pytest
import score_transformer
import score_transformer_report
from PIL import Image
from processes_cells import SOLVERS, Cell, cells_of

from ddpm_shared import files
from ddpm_shared.config.processes import PROCESS_FACTS
from ddpm_shared.config.samplers import PROCESS_SAMPLING, SAMPLER_FACTS
from ddpm_shared.config.sampling import Draw, Sampling
from ddpm_shared.errors import UserError
from ddpm_shared.records import checkpoint, folder

RUN = {
    **{"preset": "tiny", "base-channels": 8, "channel-mults": 1, "num-groups": 4, "num-res-blocks": 1},
    **{"dataset": "fashion-mnist-10k", "batch-size": 16, "max-steps": 3, "device": "cpu", "seed": 3, "threads": 1},
    **{"validation-images": 16, "sample-every": 0, "ema-decay": 0},
}


@pytest.fixture(scope="module")
def runs(both, few_images, tmp_path_factory):
    """A folder with a run of three processes, and one of edm under the name of ve."""
    made = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "watch", lambda: machine.Busy(0.0))
        for name, process in {"ddpm": "ddpm", "edm": "edm", "flow": "flow", "ve": "edm"}.items():
            told = [word for key, value in RUN.items() for word in (f"--{key}", str(value))]
            assert both[0].train.main([*told, "--process", process, "--run-dir", str(made / name)]) == 0
        yield made


def options(runs, out, **changes):
    few = {"processes": ("ddpm", "edm", "flow"), "samplers": ("ddim", "heun", "pc"), "evaluations": (4, 2)}
    few |= {"images": 128, "batch_size": 64, "precision": "fp32", "device": "cpu", "threads": 1}
    return processes.Options(**few | {"dataset": "fashion-mnist-10k", "runs": str(runs), "out": str(out)} | changes)


@pytest.fixture(scope="module")
def measured(runs, tmp_path_factory):
    """The folder of a small measurement."""
    out = tmp_path_factory.mktemp("measured")
    assert processes.run(options(runs, out, stages=("draw", "report"))) == 0
    return out


@pytest.fixture(scope="module")
def drawn(measured):
    """The records of all cells, by name."""
    return {file.stem: json.loads(file.read_text()) for file in measured.glob("cells/*.json")}


@pytest.mark.parametrize("process", PROCESS_FACTS)
@pytest.mark.parametrize("sampler", SOLVERS)
def test_a_cell_costs_what_it_says(both, sampler, process):
    """Otherwise a solver of the table has more evaluations than its neighbour, and seems better for it."""
    if process not in SAMPLER_FACTS[sampler].processes:
        return
    sampling, config = both[0].sampling, processes.configs.Config()
    diffusion = processes.configs.with_process(config.diffusion, process)
    if process == "edm":
        diffusion = dataclasses.replace(diffusion, sigma_data=0.7)
    config = dataclasses.replace(config, diffusion=diffusion, device="cpu", threads=1)
    calls = []

    def network(x_t, t):
        calls.append(t)
        return 0.5 * x_t

    grids = [None] if process == "ddpm" else [PROCESS_SAMPLING[process][1], "log_snr", "uniform"]
    for grid in grids:
        for budget in (1, 2, 10, 11):
            cell = Cell("torch", process, sampler, grid, budget)
            for steps in (cell.steps, cell.steps + 1) if cell.steps else ():
                calls.clear()
                chosen = dataclasses.replace(cell.sampling, steps=steps)
                sampling.Sampler(network, config, chosen).draw(Draw(0, 0, 1))
                assert len(calls) == cell.cost(steps)
                assert (len(calls) <= budget) == (steps == cell.steps)


def test_what_a_solver_does_not_take_is_no_cell():
    """Otherwise the whole drawing ends in the middle with a refusal."""
    cells = cells_of("torch", ("ddpm", "edm", "flow"), SOLVERS, (10,), ("karras", "shifted"))
    found = [(cell.process, cell.sampler, cell.grid) for cell in cells]
    assert len(found) == len(set(found))
    assert {grid for process, _, grid in found if process == "ddpm"} == {None}
    assert {grid for process, _, grid in found if process == "edm"} == {"karras"}
    assert {grid for process, _, grid in found if process == "flow"} == {"shifted", "karras"}
    assert ("flow", "euler_maruyama", "karras") not in found
    assert ("ddpm", "rk4", None) not in found


@pytest.mark.parametrize(
    ("process", "sampler", "expected"),
    [
        *[("ddpm", "ddim", 1), ("ve", "ddim", 1), ("vp", "euler", 1), ("edm", "euler_maruyama", 1)],
        *[("ddpm", "heun", 2), ("vp", "heun_t", 2), ("flow", "heun_t", 2), ("ve", "dpmpp_2m", 2)],
        *[("edm", "dpmpp_2m_sde", 2), ("ve", "rk4", 4), ("flow", "rk4", 4)],
    ],
)
def test_the_order_is_seen(side_of, process, sampler, expected):
    """Otherwise the table's orders are those of a wrong reference, and a faulty solver looks sound."""
    assert abs(processes_order.order(side_of("fp64"), process, sampler) - expected) < 0.1


@pytest.mark.slow
def test_the_corrector_has_an_error_of_its_own(side_of):
    """Otherwise pc seems to converge. Its Langevin steps are as large at each level, however many levels there are.

    In the limit their stationary variance is 1 / (1 - r^2) times what it should be, r = 0.16: 1.3 % of a deviation.
    Seen: 0.5 % in 64 steps, 0.7 % in 128, 1.0 % in 256, 1.1 % in 512; chance makes 0.3 %.
    """
    levels = processes_order.make_levels(side_of("fp64"), "edm", 1)
    _, std = processes_order.drawn(side_of("fp64"), "edm", "pc", 256)
    assert 1.005 < std / processes_order.marginal(levels, 0)[1] < 1.018


def test_a_solver_that_does_not_take_a_process_has_no_order(side_of):
    """Otherwise the table shows a number where there is no solver."""
    assert processes_order.order(side_of("fp64"), "flow", "euler_maruyama") is None


@pytest.mark.slow
def test_every_cell_has_its_numbers(drawn):
    """Otherwise a cell of the table is another solver's, or has more evaluations than its column says."""
    expected = {
        **{("ddpm", name, n): m for name, n, m in (("ddim", 2, 2), ("ddim", 4, 4), ("heun", 2, 1), ("heun", 4, 3))},
        **{("edm", name, n): m for name, n, m in (("ddim", 2, 2), ("ddim", 4, 4), ("heun", 2, 1), ("heun", 4, 3))},
        **{("edm", "pc", n): n for n in (2, 4)},
        # A step of Heun's from pure noise is one of DDIM.
        **{("flow", name, n): m for name, n, m in (("ddim", 2, 2), ("ddim", 4, 4), ("heun", 2, 2), ("heun", 4, 4))},
    }
    assert {(c["process"], c["sampler"], c["budget"]): c["evaluations"] for c in drawn.values()} == expected
    assert all(cell["settings"]["images"] == cell["num_images"] == 128 for cell in drawn.values())


@pytest.mark.slow
def test_a_cell_holds_what_the_command_draws(both, runs, measured):
    """Otherwise the table judges images that nobody gets who asks for this solver."""
    loaded = checkpoint.load(folder.latest_checkpoint(runs / "edm"), ("ema",))
    config = dataclasses.replace(loaded.config, precision="fp32", device="cpu", threads=1)
    network = both[0].model.load(loaded, "ema", config)
    expected = both[0].sampling.sample(network, config, Sampling("heun", 2), 0, 128)
    found = files.read_npz(measured / "images" / "torch-edm-heun-karras-4.npz")["images"]
    assert np.abs(found.astype(int) - expected).max() <= 1


@pytest.mark.slow
def test_the_other_framework_draws_the_same_cells(runs, measured, tmp_path_factory):
    """Otherwise the table of the one framework is of other noise, or of other levels, than that of the other."""
    told = {"stages": ("draw", "report"), "processes": ("edm",), "samplers": ("heun",), "framework": "tf"}
    told |= {"threads": None}  # TensorFlow can set them before its first operation only
    assert processes.run(options(runs, measured, **told)) == 0
    ours, theirs = (
        files.read_npz(measured / "images" / f"{name}-edm-heun-karras-4.npz")["images"] for name in ("torch", "tf")
    )
    assert np.abs(ours.astype(int) - theirs).max() <= 1
    assert "| edm, heun, 3 evaluations |" in (measured / "processes.md").read_text()


@pytest.mark.slow
def test_the_table_and_the_pictures_show_all(measured):
    """Otherwise the measurement ends with nothing to look at, or a solver is missing."""
    text = (measured / "processes.md").read_text()
    for row in ("| ddim ", "| heun ", "| pc "):
        assert row in text
    for name in ("processes.png", "processes-sheet.png"):
        with Image.open(measured / name) as picture:
            assert min(picture.size) > 150
            assert len(picture.convert("L").getcolors()) > 20  # something is drawn


@pytest.mark.slow
def test_what_is_finished_is_not_drawn_again(runs, measured, monkeypatch):
    """Otherwise an interruption costs hours, or one more grid costs a run of all."""
    calls = []

    def draw(make_sampler, network, sampling, *_):
        calls.append((sampling.sampler, sampling.grid))
        raise processes.Interrupted

    monkeypatch.setattr(processes.quality, "draw", draw)
    assert processes.run(options(runs, measured, stages=("draw",))) == 0
    assert calls == []
    processes.run(options(runs, measured, stages=("draw",), grids=("log_snr",)))
    assert calls == [("ddim", "log_snr")]


@pytest.mark.slow
def test_other_settings_and_other_networks_are_refused(runs, measured, guarded):
    """Otherwise distances of 128 and of 129 images, or of two networks, stand in one table."""
    code, said = guarded(lambda: processes.run(options(runs, measured, stages=("draw",), images=129)))
    assert code == 2
    assert "is of other settings (images was 128, now 129): choose another --out" in said
    with pytest.raises(UserError, match="was trained in edm, and must be of ve"):
        options(runs, measured).run_of("ve")


# --- The conditional score model (tests/benchmarks/score_transformer.py) --------------------------------------


@pytest.mark.parametrize("sigma", [10.0, 25.0, 50.0])
def test_the_prior_is_that_of_the_process(both, sigma):
    """Otherwise the mismatch is told in deviations of another noise than that which the drawing begins with."""
    config = processes.configs.DiffusionConfig(process="ve_exponential", sigma_max=sigma)
    expected = both[0].processes.prior_scale(config, "ve_exponential")
    assert score_transformer.prior_deviation(sigma) == pytest.approx(expected, rel=1e-12)


def test_the_mismatch_is_that_of_the_mean_image(few_images):
    """Otherwise a sigma seems large enough that is not. Here every mean is seen from the pixels themselves."""
    (found,) = score_transformer.mismatches(score_transformer.Options(data=("fashion",), sigmas=(25.0,)))
    pixels = few_images[0].images.reshape(300, -1).astype(np.float64)
    drawn = (pixels / 127.5 - 1.0).sum(0) / 300
    assert found["symmetric"] * found["deviation"] == pytest.approx(np.sqrt((drawn**2).sum()), rel=1e-12)
    assert found["unit"] * found["deviation"] == pytest.approx(np.sqrt((((drawn + 1.0) / 2.0) ** 2).sum()), rel=1e-12)


@pytest.mark.slow
def test_the_score_model_is_trained_drawn_judged_and_shown(few_images, tmp_path, monkeypatch):
    """Otherwise an hour's measurement ends with an error, or with a model of another sigma or other tokens."""
    for module in (score_transformer, score_transformer_report):
        monkeypatch.setattr(module, "STEPS", (2, 3))
    told = {"data": ("fashion",), "sigmas": (10.0, 25.0), "context_tokens": (1, 2), "train_steps": 1, "steps": 2}
    options = score_transformer.Options(**told, images=128, threads=1, out=str(tmp_path))
    assert score_transformer.run(options) == 0
    for model in options.models:
        settings = json.loads((tmp_path / model.name / "config.json").read_text())
        assert settings["diffusion"]["process"] == "ve_exponential"
        assert settings["diffusion"]["sigma_max"] == model.sigma
        assert settings["model"]["context_tokens"] == model.tokens
        drawn = files.read_npz(tmp_path / model.name / "all" / "samples.npz")
        assert drawn["labels"][:11].tolist() == [*range(10), 0]
        assert files.read_npz(tmp_path / model.name / "steps-3" / "samples.npz")["labels"].tolist() == [7] * 4
    assert "| fashion, s = 25, 2 tokens |" in (tmp_path / "score_transformer.md").read_text()
    for name in ("classes", "steps"):
        with Image.open(tmp_path / f"score-transformer-fashion-{name}.png") as picture:
            assert min(picture.size) > 150
    monkeypatch.setattr(score_transformer.Options, "command", lambda *_: pytest.fail("it was finished"))
    assert score_transformer.run(options) == 0
