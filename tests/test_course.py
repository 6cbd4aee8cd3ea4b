"""The notebooks: that they run, say what to do where they cannot, and that their exercises' checks can be trusted."""

import dataclasses
import subprocess
import sys

import nbformat
import numpy as np
import pytest

from ddpm_course import begin, begin_both, build, explore, inside, live, mirror, parts
from ddpm_course import tree as trees
from ddpm_shared import batches, datasets
from ddpm_shared.config import Config, TrainingConfig, with_preset
from ddpm_shared.errors import UserError
from ddpm_shared.oracle import networks
from ddpm_shared.records import checkpoint

SOURCES = build.sources()


# --- Running them -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "tree"),
    [
        pytest.param(source, name, id=f"{source.stem}-{name}", marks=[pytest.mark.slow] * (number > 0))
        for number, (source, name) in enumerate((source, name) for source in SOURCES for name in ("torch", "tf"))
    ],
    indirect=["tree"],
)
def test_a_notebook_runs_and_shows_pictures(source, tree, tmp_path):
    """Otherwise a learner's first error is ours."""
    assert build.build(build.Options((source.stem,), (tree.framework,), str(tmp_path))) == 0
    (file,) = tmp_path.rglob("*.ipynb")
    assert file.stat().st_size < 2e6
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [output for output in outputs if output.get("name") == "stderr"]


@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_the_saved_notebook_is_that_of_its_source(source, framework):
    """Otherwise what is shown on a code-hosting page is the lesson of last month."""
    file = build.target(source, framework)
    assert file.stat().st_size < 2e6
    assert not build.edited(file), f"somebody has written in {file}: rename it, e.g. to my_{file.name}; git checkout it"
    saved = nbformat.read(file, as_version=4)
    assert [cell.source for cell in saved.cells] == [cell.source for cell in build.read(source, framework).cells]
    assert all(cell.execution_count for cell in saved.cells if cell.cell_type == "code")


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_notebook_opens_as_promised(source):
    """Otherwise a learner does not know what it is for, or it cannot be switched to the other framework."""
    notebook = build.read(source, "tensorflow")
    assert notebook.cells[1].source.startswith('FRAMEWORK = "tensorflow"')
    head = notebook.cells[0].source
    promised = f"# {source.stem[:2]} · ", "**Afterwards you can**", "**Time:**", "**You need:**"
    assert all(told in head for told in promised)
    text = "\n".join(cell.source for cell in notebook.cells)
    assert "Predict before you run" in text
    assert text.count("<details>") == text.count("</details>") >= 2
    assert text.count("check.") >= 3  # graded exercises


def test_a_source_without_its_parameter_is_refused(tmp_path):
    """Otherwise it is executed twice for the same framework, and nobody notices."""
    source = tmp_path / "00_none.py"
    source.write_text("# %%\nprint(1)\n")
    with pytest.raises(UserError, match="0 cells hold FRAMEWORK"):
        build.read(source, "torch")


def test_an_unknown_notebook_is_refused():
    """Otherwise a typo executes nothing and says that all is well."""
    with pytest.raises(UserError, match="unknown notebook 'forward': choose one of "):
        build.chosen(build.Options(("forward",)))


def test_what_somebody_wrote_is_not_overwritten(tmp_path, monkeypatch):
    """Otherwise `make notebooks` takes a learner's answers away."""
    (tmp_path / "00_mine.py").write_text('# %%\nFRAMEWORK = "torch"\n\n# %%\nanswer = ...\n')
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    options = build.Options((), ("torch",), str(tmp_path))
    file = tmp_path / "00_mine.ipynb"
    build.build(options)
    seen = nbformat.read(file, as_version=4)
    seen.cells.append(nbformat.v4.new_code_cell())  # as JupyterLab does behind the last cell
    nbformat.write(seen, file)
    build.build(options)
    for mine in (file.read_text().replace("answer = ...", "answer = 42"), "notes"):
        file.write_text(mine)
        with pytest.raises(UserError, match=r"somebody has written in it; rename it, e\.g\. to my_00_mine\.ipynb"):
            build.build(options)
        assert file.read_text() == mine


def test_a_cell_that_fails_is_named(tmp_path, monkeypatch):
    """Otherwise the notebook is saved half, over the one that was whole."""
    (tmp_path / "00_wrong.py").write_text('# %%\nFRAMEWORK = "torch"\n\n# %%\n1 / 0\n')
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    with pytest.raises(UserError, match="00_wrong, PyTorch: a cell stops with ZeroDivisionError: division by zero"):
        build.build(build.Options((), ("torch",), str(tmp_path)))
    assert not list(tmp_path.glob("*.ipynb"))


def test_a_cell_that_hangs_is_given_up(tmp_path, monkeypatch):
    """Otherwise `make notebooks` waits all night, or blames the disk."""
    (tmp_path / "00_slow.py").write_text('# %%\nFRAMEWORK = "torch"\n\n# %%\nimport time\ntime.sleep(600)\n')
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    monkeypatch.setattr(build, "SECONDS_A_CELL", 3)
    with pytest.raises(UserError, match="00_slow, PyTorch: a cell is not done after 3 s"):
        build.build(build.Options((), ("torch",), str(tmp_path)))


# --- Where something is missing -----------------------------------------------------------------------------


def test_without_the_package_it_says_what_to_do():
    """Otherwise the first thing that a newcomer sees is a traceback."""
    for source in SOURCES:
        code = build.read(source, "torch").cells[2].source
        blocked = f"import sys; sys.modules['ddpm_course'] = None\n{code}"
        run = subprocess.run([sys.executable, "-c", blocked], capture_output=True, text=True, check=False)
        assert run.returncode == 1
        assert run.stderr == "ddpm-duet is not installed here: run `make setup`, then `make lab`, in its folder.\n"


def test_with_one_framework_it_names_the_other(monkeypatch):
    """Otherwise a learner with PyTorch alone believes that nothing works."""
    monkeypatch.setattr(trees, "installed", lambda framework: False)
    with pytest.raises(SystemExit, match='TensorFlow is not installed here: set FRAMEWORK = "torch"'):
        begin("tensorflow")
    with pytest.raises(SystemExit, match="compares two frameworks, and PyTorch is not installed here"):
        begin_both()
    with pytest.raises(SystemExit, match='choose "torch" or "tensorflow"'):
        begin("jax")


def test_a_tree_is_the_framework_s(tree):
    """Otherwise the notebook of TensorFlow teaches PyTorch."""
    duet = begin(tree.framework)
    assert duet.engine is tree.engine
    x = np.arange(24.0).reshape(1, 4, 6, 1)
    np.testing.assert_array_equal(duet.data.to_array(duet.data.to_tensor(x)), x)
    assert duet.times([3, 4]).numpy().tolist() == [3, 4]


def test_a_slider_has_pictures_where_nobody_can_move_it(monkeypatch):
    """Otherwise the page on a code-hosting site has a gap."""
    drawn = []
    monkeypatch.setenv(explore.BUILDING, "1")
    explore.explore("t", range(10), drawn.append, shown=[2, 7])
    assert drawn == [2, 7]


def test_a_slider_draws_what_it_is_moved_to(monkeypatch):
    """Otherwise it is an ornament."""
    drawn, shown = [], []
    monkeypatch.delenv(explore.BUILDING, raising=False)
    monkeypatch.setattr(explore, "display", shown.append)
    explore.explore("t", range(10), drawn.append, shown=[2])
    (interactive,) = shown
    interactive.children[0].value = 5
    interactive.update()
    assert drawn[-1] == 5


# --- What they show -----------------------------------------------------------------------------------------


def test_a_function_of_both_trees_stands_side_by_side():
    """Otherwise the first lesson compares a function with itself, or shows a page of docstring."""
    page = mirror.side_by_side("engine", "at").data
    assert "values[t][:, None, None, None]" in page
    assert "tf.gather(values, t)" in page
    assert "Mirror" not in page
    assert "tf.one_hot(labels, num_classes + 1" in mirror.side_by_side("networks/layers", "one_hot").data
    with pytest.raises(ValueError, match=r"engine.py of ddpm_torch holds no q_simple"):
        mirror.side_by_side("engine", "q_simple")


def test_the_look_inside_sees_what_the_oracle_computes(tree):
    """Otherwise the notebook shows shapes, maps and weights of something else."""
    duet = begin(tree.framework)
    loaded = checkpoint.load(checkpoint.BOXED, ("ema",))
    trained, config = duet.trained()
    parameters = {name.removeprefix("ema/"): value for name, value in loaded.tensors.items()}
    assert inside.shapes(duet, trained) == {name: value.shape for name, value in parameters.items()}

    x_t, t = np.random.default_rng(0).standard_normal((2, 28, 28, 1)).astype(np.float32), [3, 700]
    oracle = networks.Network(parameters, config.model)
    eps_pred = oracle(x_t, np.array(t))
    for _ in range(2):  # what was watched once is as it was
        seen = inside.activations(duet, trained, x_t, t)
        assert set(seen) == set(oracle.activations)
        for name, output in oracle.activations.items():
            assert seen[name].shape == output.shape
            size = np.abs(output).max()
            np.testing.assert_allclose(seen[name] / size, output / size, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(inside.ask(duet, trained, x_t, t), eps_pred, atol=5e-5)


def test_a_gradient_is_the_slope_of_the_oracle(tree):
    """Otherwise the notebook shows the receptive field of another pixel, of another image, or of none."""
    duet = begin(tree.framework)
    trained, config = duet.trained()
    parameters = {
        name.removeprefix("ema/"): value.astype(np.float64)
        for name, value in checkpoint.load(checkpoint.BOXED, ("ema",)).tensors.items()
    }
    oracle = networks.Network(parameters, config.model)
    x_t, t = np.random.default_rng(1).standard_normal((2, 28, 28, 1)), [3, 700]
    found = inside.gradient(duet, inside.layered(trained), x_t, t, (9, 17))
    assert found.shape == x_t.shape
    assert np.abs(found[1]).max() == 0  # no network with GroupNorm looks at another image
    x_t = x_t.astype(np.float32).astype(np.float64)
    for place in ((9, 17), (10, 15), (9, 22)):
        ends = []
        for step in (1e-4, -1e-4):
            moved = x_t.copy()
            moved[(0, *place, 0)] += step
            ends.append(oracle(moved, np.array(t))[0, 9, 17, 0])
        slope = (ends[0] - ends[1]) / 2e-4
        np.testing.assert_allclose(found[(0, *place, 0)], slope, atol=2e-5 * np.abs(found).max())


def test_the_gradients_of_shards_are_those_of_a_step(tree):
    """Otherwise the notebook sends and adds what no worker computes."""
    duet = begin(tree.framework)
    training = TrainingConfig(batch_size=8, max_steps=2, warmup_steps=1, shards=2)
    config = dataclasses.replace(with_preset(Config(device="cpu"), "tiny"), training=training)
    train, _ = datasets.load(datasets.EMBEDDED)
    learner = duet.learner.Learner(config, 2)
    of_shard = parts.gradients(duet, learner)
    first, batch = (batches.training_batch(train, config, step) for step in range(2))
    learner.train_step(first, 0)  # at the start, only the last layer has a gradient
    before = {name: value.copy() for name, value in learner.tensors().items()}
    shards = [[part.numpy().astype(np.float64) for part in of_shard(shard)] for shard in batch.shards(2)]
    for name, value in learner.tensors().items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
    assert not np.array_equal(shards[0][0], shards[1][0])
    mean_loss, *means = [(a + b) / 2 for a, b in zip(*shards, strict=True)]
    assert [mean.shape for mean in means] == [tuple(parameter.shape) for parameter in learner.parameters]
    loss, norm, _ = learner.train_step(batch, 1)
    np.testing.assert_allclose(loss, mean_loss, rtol=1e-6)
    np.testing.assert_allclose(norm, np.sqrt(sum(np.sum(mean**2) for mean in means)), rtol=1e-5)


def test_a_live_curve_ends_with_all_its_points(monkeypatch):
    """Otherwise the saved notebook shows a run that stopped early."""
    shown = []

    class Handle:
        def update(self, figure):
            shown.append(figure)

    monkeypatch.setattr(live, "display", lambda figure, display_id: Handle())
    monkeypatch.delenv(live.BUILDING, raising=False)
    curve = live.LiveCurve("loss", total=45, every=20)
    for value in range(1, 46):
        curve.add(float(value))
    assert len(shown) == 3  # after 20, after 40, and the last
    assert curve.dots.get_ydata().tolist() == list(range(1, 46))
    mean = curve.line.get_ydata()
    assert mean[0] == 1
    assert mean[-1] == np.mean(range(26, 46))
