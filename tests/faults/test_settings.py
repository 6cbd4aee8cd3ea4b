"""Settings of other programs, of the terminal and of the network: they change no number and end in no traceback."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from ddpm_shared import command_line, files, images, machine, pages, surroundings
from ddpm_shared.commands import bits, invert, sample, train
from ddpm_shared.compare import command as compare_command
from ddpm_shared.demo import command as demo_command
from ddpm_shared.errors import UserError
from ddpm_shared.evaluation import command as evaluation_command
from ddpm_shared.frameworks import FRAMEWORKS

ROOT = Path(__file__).resolve().parents[2]

# Each would change a number, or end in a traceback or an abort, if it reached the library that it is meant for.
HOSTILE = {
    "torch": {
        "ATEN_CPU_CAPABILITY": "default",
        "LRU_CACHE_CAPACITY": "nonsense",
        "ONEDNN_DEFAULT_FPMATH_MODE": "BF16",
        "ONEDNN_VERBOSE": "1",
        "PYTORCH_JIT": "0",
        "TORCH_LOGS": "nonsense",
        "TORCH_DEVICE_BACKEND_AUTOLOAD": "nonsense",
    },
    "tf": {
        "KERAS_BACKEND": "torch",
        "KERAS_MAX_EPOCHS": "nonsense",
        "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "nonsense",
        "TF_ENABLE_ONEDNN_OPTS": "0",
        "TF_SET_ONEDNN_FPMATH_MODE": "BF16",
        "TF_USE_LEGACY_KERAS": "1",
        "TF_XLA_FLAGS": "--nonsense",
        "XLA_FLAGS": "--nonsense",
    },
    "both": {
        "COLUMNS": "1",
        "LC_ALL": "C",
        "MPLBACKEND": "nonsense",
        "NPY_DISABLE_CPU_FEATURES": "nonsense",
        "NPY_ENABLE_CPU_FEATURES": "nonsense",
        "OMP_NUM_THREADS": "nonsense",
        "OMP_SCHEDULE": "nonsense",
        "PILLOW_BLOCKS_MAX": "nonsense",
        "PYTHONIOENCODING": "ascii",
        "PYTHONUTF8": "0",
        "PYTHONWARNINGS": "error",
        "PYTHON_TYRO_BACKEND": "nonsense",
        "TF_NUM_INTRAOP_THREADS": "-3",
        "TMPDIR": "/nonexistent",
        "TQDM_BAR_FORMAT": "{nonsense}",
        "TQDM_NCOLS": "nonsense",
    },
}
KERAS_JSON = {"floatx": "float16", "epsilon": 0.01, "backend": "torch", "image_data_format": "channels_first"}


def drawn(name: str, out: Path, redirections: str = "", **environment: str) -> bytes:
    """The images that a command draws."""
    argv = ["--num-images", "2", "--steps", "2", "--threads", "1", "--out", str(out)]
    done = subprocess.run(
        ["bash", "-c", f'"$@" {redirections}', "bash", sys.executable, "-m", f"ddpm_{name}.inference", *argv],
        env=os.environ | environment,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    assert b"Traceback" not in done.stderr
    with np.load(out / "samples.npz") as arrays:
        return arrays["images"].tobytes()


@pytest.mark.parametrize("name", ["torch", "tf"])
def test_settings_of_other_programs_change_no_pixel(tmp_path: Path, name: str) -> None:
    """Otherwise two people with one checkpoint and one seed get different images, or one of them a traceback."""
    pytest.importorskip({"torch": "torch", "tf": "tensorflow"}[name])
    (tmp_path / "keras.json").write_text(json.dumps(KERAS_JSON), "utf-8")
    hostile = HOSTILE[name] | HOSTILE["both"] | {"KERAS_HOME": str(tmp_path), "HOME": "/nonexistent"}
    # TensorFlow writes to the number of stderr, so here is nobody to read that either.
    closed = "<&- >&- 2>&-" if name == "tf" else ""
    assert drawn(name, tmp_path / "a", closed, **hostile) == drawn(name, tmp_path / "b")


def in_a_command(lines: str, cwd: Path | None = None, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run lines in a process that is set up as that of a command."""
    lines = f"from ddpm_shared import surroundings\nsurroundings.shut_out()\n{lines}"
    return subprocess.run(
        [sys.executable, "-c", lines],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_every_kind_of_setting_is_shut_out_and_what_steers_the_machine_stays() -> None:
    """Otherwise a list has a hole, or a user who shares a server can no longer choose threads and a GPU."""
    kept = dict.fromkeys(surroundings.KEPT, "3") | {"CUDA_VISIBLE_DEVICES": "0", "HTTPS_PROXY": "http://proxy:1"}
    kept |= {"DDPM_DUET_CACHE": "/cache", "OMP_NUM_THREADS": "2,1", "XLA_FLAGS": "--xla_gpu_cuda_data_dir=/cuda"}
    foreign = {(name if name[-1] != "_" else f"{name}ANYTHING"): "1" for name in surroundings.FOREIGN}
    del foreign["PYTHONWARNINGS"]  # Python itself reads it
    foreign.pop("XLA_FLAGS", None)
    lines = "import json, os; print(json.dumps(dict(os.environ)))"
    done = in_a_command(lines, **foreign, **kept)
    after = json.loads(done.stdout)
    assert not after.keys() & foreign.keys()
    assert {name: after.get(name) for name in kept} == kept
    assert done.stderr == ""


@pytest.mark.parametrize("value", ["abc", "0", "-1", "1.5", "", "1e9", "100000"])
def test_a_number_of_threads_that_is_none_is_told_and_not_used(value: str) -> None:
    """Otherwise OpenMP aborts, or each library makes something else of it."""
    done = in_a_command("import os; print('OMP_NUM_THREADS' in os.environ)", OMP_NUM_THREADS=value)
    assert done.stdout == "False\n"
    assert done.stderr == f"note: OMP_NUM_THREADS={value} is not used: it is no number of threads from 1 to 999\n"


@pytest.mark.parametrize(
    ("where", "content"),
    [
        ("here", b"text.usetex: True\nfont.size: 30\n"),
        ("here", "text.usetex: True\n".encode("utf-16")),
        ("MATPLOTLIBRC", b"text.usetex: True\nfont.size: 30\n"),
        ("MPLCONFIGDIR", b"text.usetex: True\nfont.size: 30\n"),
    ],
    ids=["here", "damaged", "MATPLOTLIBRC", "MPLCONFIGDIR"],
)
def test_matplotlib_is_as_it_comes(tmp_path: Path, where: str, content: bytes) -> None:
    """Otherwise a report looks different, or needs LaTeX, where its maker's own figures do."""
    (tmp_path / "matplotlibrc").write_bytes(content)
    named = {} if where == "here" else {where: str(tmp_path)}
    lines = "import os, matplotlib as m\nprint(os.getcwd(), m.rcParams['text.usetex'], m.rcParams['font.size'])"
    done = in_a_command(lines, tmp_path if where == "here" else ROOT, MPLBACKEND="nonsense", **named)
    assert done.stdout == f"{tmp_path if where == 'here' else ROOT} False 10.0\n", done.stderr


def test_no_folder_for_matplotlib_is_no_line(tmp_path: Path) -> None:
    """Otherwise every report of a user with a full or foreign home folder begins with a warning."""
    done = in_a_command("import matplotlib", DDPM_DUET_CACHE="/dev/null/x", MPLCONFIGDIR="/dev/null/y")
    assert (done.returncode, done.stderr) == (0, "")


# --- Keras --------------------------------------------------------------------------------------------------


def test_a_notebook_gets_keras_with_tensorflow_below_it(tmp_path: Path) -> None:
    """Otherwise whoever has set up Keras for another framework sees 36 lines of an error in a module of ours."""
    pytest.importorskip("tensorflow")
    (tmp_path / "keras.json").write_text(json.dumps(KERAS_JSON), "utf-8")
    lines = "import os, ddpm_tf, keras; c = keras.config\n"
    lines += "print(c.backend(), c.floatx(), c.image_data_format(), os.environ['KERAS_BACKEND'])"
    hostile = os.environ | {"KERAS_HOME": str(tmp_path), "KERAS_BACKEND": "torch", "KERAS_MAX_EPOCHS": "nonsense"}
    done = subprocess.run([sys.executable, "-c", lines], env=hostile, capture_output=True, text=True, check=False)
    assert done.stdout == "tensorflow float32 channels_last torch\n", done.stderr


def test_keras_with_another_framework_is_one_sentence() -> None:
    """Otherwise the network of the tree is made of another framework's layers."""
    lines = "import sys, types\nkeras = sys.modules['keras'] = types.ModuleType('keras')\n"
    lines += "keras.config = types.SimpleNamespace(backend=lambda: 'jax')\nimport ddpm_tf"
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].endswith(
        "Keras is here already, with jax below it: import ddpm_tf before it, or set KERAS_BACKEND=tensorflow"
    )


# --- Notebooks ----------------------------------------------------------------------------------------------

NOTEBOOK = """# %%
FRAMEWORK = "torch"

# %%
import matplotlib
print("ours", matplotlib.rcParams["text.usetex"])
"""


def test_notebooks_are_executed_without_anybody_s_settings(tmp_path: Path) -> None:
    """Otherwise the saved notebooks show what one user's Jupyter does, or another kernel's packages."""
    theirs = {
        "data/kernels/python3/kernel.json": '{"argv": ["false"], "display_name": "theirs", "language": "python"}',
        "ipython/profile_default/startup/00.py": "print('theirs')",
        "ipython/profile_default/ipython_config.py": "c.InteractiveShellApp.exec_lines = ['print(\"theirs\")']",
        "startup.py": "print('theirs')",
        "matplotlib/matplotlibrc": "text.usetex: True",
        "notebooks/00_tiny.py": NOTEBOOK,
    }
    for name, content in theirs.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, "utf-8")
    hostile = {
        "HOME": "/nonexistent",
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "JUPYTER_DATA_DIR": str(tmp_path / "data"),
        "JUPYTER_PATH": str(tmp_path / "data"),
        "JUPYTER_RUNTIME_DIR": "/nonexistent",
        "MPLBACKEND": "nonsense",
        "MPLCONFIGDIR": str(tmp_path / "matplotlib"),
        "NBFORMAT_VALIDATOR": "nonsense",
        "PYTHONSTARTUP": str(tmp_path / "startup.py"),
        "PYZMQ_BACKEND": "nonsense",
    }
    folder = tmp_path / "notebooks"
    lines = f"from pathlib import Path\nfrom ddpm_course import build\nbuild.FOLDER = Path({str(folder)!r})\n"
    done = in_a_command(f"{lines}build.build(build.Options((), ('torch',), {str(folder)!r}))", **hostile)
    assert done.returncode == 0, done.stderr
    saved = (folder / "00_tiny.ipynb").read_text("utf-8")
    assert "ours False" in saved
    assert "theirs" not in saved


# --- git ----------------------------------------------------------------------------------------------------


def git(*arguments: str, cwd: Path) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    env = surroundings.without("GIT_")
    done = subprocess.run(["git", *who, *arguments], cwd=cwd, env=env, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def another_repository(tmp_path: Path) -> Path:
    """A repository of somebody's, with one commit."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    git("init", "-q", cwd=folder)
    (folder / "file").write_text("theirs", "utf-8")
    git("add", "file", cwd=folder)
    git("commit", "-qm", "theirs", cwd=folder)
    return folder


def test_the_commit_is_this_repository_s(another_repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a run that is started from a hook of git records the commit of another repository."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    ours = git("rev-parse", "HEAD", cwd=ROOT)
    monkeypatch.setenv("GIT_DIR", str(another_repository / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(another_repository))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(ROOT))
    assert machine.environment("cpu", 1)["git_commit"] == ours


@pytest.mark.parametrize("tracked", [False, True])
def test_an_installed_copy_has_no_commit(
    another_repository: Path, monkeypatch: pytest.MonkeyPatch, tracked: bool
) -> None:
    """Otherwise a run in an environment inside somebody's own project records that project's commit."""
    copy = another_repository / "venv" / "ddpm_shared" / "machine.py"
    copy.parent.mkdir(parents=True)
    copy.write_text("", "utf-8")
    if tracked:
        git("add", str(copy), cwd=another_repository)
        git("commit", "-qm", "all of it", cwd=another_repository)
    monkeypatch.setattr(machine, "__file__", str(copy))
    assert machine.environment("cpu", 1)["git_commit"] is None


# --- The cache ----------------------------------------------------------------------------------------------

HOMELESS = """
import os, pwd, sys
def nobody(uid):
    raise KeyError("no such user")
pwd.getpwuid = nobody
del os.environ["HOME"]
from ddpm_shared import files
folder = files.cache_dir("x")
folder.mkdir()
assert files.cache_dir("x") == folder
print(folder)
"""


def test_without_a_home_folder_nothing_stays_cached_and_all_works() -> None:
    """Otherwise a container with a number for a user ends in a traceback, or makes a folder of the name ~."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("DDPM_DUET_CACHE", "XDG_CACHE_HOME")
    }
    done = subprocess.run([sys.executable, "-c", HOMELESS], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr.count("\n") == 1
    assert "set DDPM_DUET_CACHE to a folder" in done.stderr
    folder = Path(done.stdout.strip())
    assert folder.is_absolute()
    assert not folder.parent.exists()


def test_a_cache_in_the_home_of_nobody_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a typing error in a shell's settings is a traceback."""
    monkeypatch.setenv("DDPM_DUET_CACHE", "~nobody-of-this-name/cache")
    with pytest.raises(UserError, match=r"DDPM_DUET_CACHE=~nobody-of-this-name/cache names no folder"):
        files.cache_dir("x")


# --- Words and letters --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Flags:
    """Flags."""

    out: str | None = None
    """Folder."""
    numbers: tuple[int, ...] = ()
    """Numbers."""


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["--out", ""], "--out"),
        (["--out="], "--out"),
        (["--out", "  "], "--out"),
        (["--out= "], "--out"),
        ([""], "an argument"),
        (["--numbers", "1", ""], "an argument"),
    ],
)
def test_an_empty_text_is_refused(argv: list[str], named: str) -> None:
    """Otherwise `--resume "$RUN"` with a misspelt variable begins a new run, or one in the current folder."""
    with pytest.raises(UserError, match=f"^{named} is an empty text: give it a value, or leave it out$"):
        command_line.parse_flags(Flags, argv, "x")


def test_every_command_refuses_an_empty_text(guarded: Callable[..., tuple[int, str]]) -> None:
    """Otherwise one of them was forgotten."""
    commands: list[Callable[[list[str]], object]] = [
        *(partial(module.parse, framework) for module in (train, sample, invert, bits) for framework in FRAMEWORKS),
        *(module.main for module in (compare_command, demo_command, evaluation_command)),
    ]
    for command in commands:
        code, told = guarded(lambda command=command: command(["--out", ""]))
        assert (code, told) == (2, "error: --out is an empty text: give it a value, or leave it out\n")


def test_train_refuses_an_empty_run(guarded: Callable[..., tuple[int, str]]) -> None:
    """Otherwise `--resume "$RUN"` begins a new run, after an hour of which the old one is missed."""
    for flag in ("--resume", "--run-dir", "--config", "--preset"):
        code, told = guarded(lambda flag=flag: train.parse("torch", [flag, ""]))
        assert (code, told.startswith("error: "), told.count("\n")) == (2, True, 1)


@pytest.mark.parametrize("name", ["$x", "$\\frac{", "_a_", "a\\b", "100 % $", "\udcff", "日本"])
def test_a_name_in_a_picture_is_no_formula(tmp_path: Path, name: str) -> None:
    """Otherwise a folder's name ends the comparison of its run, or stands there as another."""
    figure = Figure()
    axes = figure.subplots()
    axes.plot([1, 10], [1, 100], label=f"A: {name}")
    axes.set_yscale("log")
    axes.set_title(name)
    axes.legend()
    images.write_figure(tmp_path / "figure.png", figure)
    with Image.open(tmp_path / "figure.png") as picture:
        picture.load()
    shown = name.encode("utf-8", "backslashreplace").decode()
    assert [axes.get_title(), axes.get_legend().get_texts()[0].get_text()] == [shown, f"A: {shown}"]
    assert any(label.get_parse_math() for label in axes.get_yticklabels())  # 10 to the power of 2


def test_a_page_is_written_whatever_stands_in_it() -> None:
    """Otherwise a folder whose name is no UTF-8 ends a command after all its work."""
    assert pages.to_bytes("Fréchet \udcff") == "Fréchet \\udcff".encode()


def text_files(path: Path) -> Iterator[tuple[int, bool]]:
    """The lines that open a text file, and whether each says that it is UTF-8."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        call = ast.unparse(node)
        name = ast.unparse(node.func).rpartition(".")[2]
        binary = any(f"'{mode}'" in call for mode in ("rb", "wb", "ab", "xb"))
        if name in ("read_text", "write_text") or (
            name == "open" and not binary and not call.startswith(("Image.", "archive.", "gzip.", "lzma.", "tarfile."))
        ):
            yield node.lineno, "'utf-8'" in call or call.startswith("os.open")


@pytest.mark.parametrize("folder", ["shared/src", "pytorch/src", "tensorflow/src", "tests/parity", "notebooks/course"])
def test_every_text_is_utf_8(folder: str) -> None:
    """Otherwise a file that one machine wrote is another text, or an error, on a machine with another code page."""
    for path in (ROOT / folder).rglob("*.py"):
        assert [line for line, utf_8 in text_files(path) if not utf_8] == [], path
