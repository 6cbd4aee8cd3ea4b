"""The command `ddpm-duet`, which does what make does, and what is said where a framework is missing."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ddpm_shared import __main__ as duet
from ddpm_shared import frameworks, launch
from ddpm_shared.demo import whole
from ddpm_shared.errors import UserError
from ddpm_shared.verbs import ONE_THREAD, ROOT, VERBS

OF_MAKE_ALONE = {"help", "setup", "format", "lint", "types", "bench-peers", "clean"}


def ran(*argv, cwd=ROOT, path=None):
    """Exit code, stdout and stderr of `python -m ddpm_shared` with these arguments."""
    paths = [str(path), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | ({"PYTHONPATH": os.pathsep.join(paths)} if path else {})
    command = [sys.executable, "-m", "ddpm_shared", *argv]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def commands(monkeypatch):
    """What main() would have run: (command, environment that differs)."""
    found = []
    monkeypatch.setattr(duet, "_run", lambda command, verb: found.append((command, verb)) or 0)
    return found


def test_make_and_the_command_have_the_same_verbs():
    """Otherwise somebody without make lacks a command, or make runs another one than the page says."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = {name for line in re.findall(r"^\.PHONY: (.+)$", makefile, re.MULTILINE) for name in line.split()}
    assert targets - OF_MAKE_ALONE == VERBS.keys()
    for name in VERBS:
        assert re.search(rf"^{name}: .*##.*\n(?:\t@.*\n)?\t\$\(DUET\) {name} ", makefile, re.MULTILINE), name


def test_every_verb_runs_something_that_exists():
    """Otherwise a name leads nowhere."""
    for name, verb in VERBS.items():
        assert verb.file.is_file() if verb.file else importlib.util.find_spec(verb.target), name
    shared_out = {verb.target for verb in VERBS.values() if verb.workers}
    assert shared_out == {*launch.COMMANDS}


def test_flags_go_on_as_they_are(commands):
    """Otherwise a flag is lost, or a default of the verb wins over it."""
    assert duet.main(["sample-tf", "--labels", "a b", "--sampler", "ddim"]) == 0
    assert duet.main(["--workers", "2", "train-torch", "--shards", "4"]) == 0
    assert duet.main(["judge", "--dataset", "mnist"]) == 0
    sample, train, judge = (command for command, _ in commands)
    assert sample[1:] == [
        *("-m", "ddpm_tf.inference", "--sampler", "dpmpp_2m_sde", "--labels", "a b", "--sampler", "ddim")
    ]
    assert train[1:] == ["-m", "ddpm_shared.launch", "2", "ddpm_torch.train", "--shards", "4"]
    assert judge[1:] == [str(ROOT / "pytorch" / "tools" / "train_classifier.py"), "--dataset", "mnist"]
    assert sample[0] == sys.executable


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["trian-torch"], "trian-torch is no verb of ddpm-duet: did you mean train-torch?"),
        (["xyzzy"], "xyzzy is no verb of ddpm-duet: `ddpm-duet` alone lists all."),
        (["--workers"], "nothing is no verb"),
        (["--workers", "2", "compare", "a"], "--workers 2: compare runs in one process; leave --workers out"),
    ],
)
def test_what_cannot_be_run_is_one_sentence(commands, capsys, argv, sentence):
    """Otherwise a typing mistake is a traceback, or runs something else."""
    assert duet.main(argv) == 2
    assert not commands
    said = capsys.readouterr().err
    assert said.startswith(f"error: {sentence}")
    assert said.count("\n") == 1


def test_what_is_not_here_is_named(monkeypatch, capsys, tmp_path):
    """Otherwise a package without the repository, or without an extra, ends in a traceback."""
    monkeypatch.setattr("ddpm_shared.verbs.ROOT", tmp_path)
    assert duet.main(["bench"]) == 2
    assert "error: bench needs tests/benchmarks/bench.py, a file of the repository: clone it" in capsys.readouterr().err
    monkeypatch.setattr(duet.importlib.util, "find_spec", lambda name: None)
    assert duet.main(["lab"]) == 2
    assert "error: lab needs jupyterlab, which is not installed here" in capsys.readouterr().err


def test_the_exit_code_and_the_output_are_the_command_s(tmp_path):
    """Otherwise a script that trusts them goes on after a failure."""
    code, out, err = ran("train-torch", "--no-such-flag", cwd=tmp_path)
    assert (code, out) == (2, "")
    assert "no-such-flag" in err
    assert "Traceback" not in err
    code, out, _ = ran("compare", "--help", cwd=tmp_path)
    assert code == 0
    assert "usage" in out


def test_the_list_of_verbs_has_every_one():
    """Otherwise nobody finds it."""
    code, out, err = ran()
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines() if line.startswith("  ")] == list(VERBS)


def test_several_test_processes_have_a_thread_each(monkeypatch):
    """Otherwise each takes all cores, and the tests are many times slower."""
    called = {}

    def execute(file, command, environment):
        called.update(command=command, environment=environment)

    monkeypatch.setattr(duet.os, "execve", execute)
    monkeypatch.setattr(duet.os, "chdir", lambda folder: called.update(folder=folder))
    monkeypatch.setattr(duet.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0))
    monkeypatch.setattr(duet.signal, "signal", lambda *_: None)
    duet.main(["test", "-x"])
    assert called["command"][1:] == ["-m", "pytest", "-n", "2", "--no-loadscope-reorder", "-m", "not slow", "-x"]
    assert called["folder"] == ROOT
    assert called["environment"].items() >= ONE_THREAD.items()


# --- One framework alone ------------------------------------------------------------------------------------


@pytest.fixture
def without(tmp_path):
    """A function: framework -> a folder for PYTHONPATH in which it is not installed."""

    def hide(framework):
        lines = [
            "import importlib.machinery",
            "find = importlib.machinery.PathFinder.find_spec",
            f"hidden = lambda name, *rest: None if name == {framework!r} else find(name, *rest)",
            "importlib.machinery.PathFinder.find_spec = hidden",
        ]
        (tmp_path / "sitecustomize.py").write_text("\n".join(lines))
        return tmp_path

    return hide


@pytest.mark.parametrize(("verb", "framework"), [("train-torch", "torch"), ("train-tf", "tensorflow")])
def test_a_missing_framework_is_one_sentence(without, tmp_path, verb, framework):
    """Otherwise it is a traceback; or the repository's own folder tensorflow/ is imported in the framework's place."""
    flags = [
        "--preset",
        "tiny",
        "--dataset",
        "fashion-mnist-10k",
        "--max-steps",
        "1",
        "--run-dir",
        str(tmp_path / "run"),
    ]
    code, _, err = ran(verb, *flags, path=without(framework))
    title = frameworks.FRAMEWORKS[framework].title
    (sentence,) = (line for line in err.splitlines() if line.startswith("error: "))
    assert sentence.startswith(f'error: {title} is not installed: pip install -c constraints.txt -e ".[{framework}]"')
    assert code == 2
    assert "Traceback" not in err


def test_a_folder_of_the_name_is_no_framework(tmp_path):
    """Otherwise `import tensorflow` in the repository finds tensorflow/, and the first use of it is a traceback."""
    (tmp_path / "emptylib").mkdir()
    lines = (
        "from contextlib import nullcontext\nfrom ddpm_shared import frameworks, importing\n"
        "importing.within('emptylib', nullcontext)\nassert not frameworks.installed('emptylib')\nimport emptylib\n"
    )
    done = subprocess.run([sys.executable, "-c", lines], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'emptylib'"


def test_another_missing_module_is_not_taken_for_a_framework():
    """Otherwise the wrong package is installed."""
    assert frameworks.missing(ModuleNotFoundError("No module named 'x'", name="x")) is None
    assert frameworks.missing(ImportError("libcuda", name="torch")) is None


# --- The demo -----------------------------------------------------------------------------------------------


class Done:
    """In the place of subprocess.run: the commands, of which some fail."""

    def __init__(self, failing=""):
        self.failing, self.commands = failing, []

    def __call__(self, command, check):
        """It is called as it."""
        self.commands.append(command[2:])
        return subprocess.CompletedProcess(command, 3 if command[2] == self.failing else 0)


def demo_of(monkeypatch, names, failing="", flags=()):
    """The commands of the demo, its exit code, and the folders whose page is made."""
    done, pages = Done(failing), []
    monkeypatch.setattr(whole.subprocess, "run", done)
    monkeypatch.setattr(whole, "installed", names.__contains__)
    monkeypatch.setattr(whole.command, "main", lambda argv: pages.append(argv) or 0)
    return whole.run(flags), done.commands, pages


def test_the_demo_draws_judges_trains_and_compares(monkeypatch, capsys):
    """Otherwise a part of it is left out, or the page is that of another folder."""
    code, commands, ((folder,),) = demo_of(monkeypatch, ("torch", "tensorflow"), flags=["--seed", "4"])
    assert code == 0
    assert [command[0] for command in commands] == [
        *("ddpm_torch.inference", "ddpm_tf.inference", "ddpm_shared.evaluation", "ddpm_torch.train", "ddpm_tf.train"),
        *("ddpm_torch.inference", "ddpm_tf.inference", "ddpm_shared.compare"),
    ]
    made = [
        command[command.index(flag) + 1] for command in commands for flag in ("--out", "--run-dir") if flag in command
    ]
    assert {Path(each).parent for each in made} == {Path(folder)}
    assert [Path(each).name for each in made] == [
        *("boxed-torch", "boxed-tensorflow", "torch", "tensorflow", "samples-torch", "samples-tensorflow", "compare")
    ]
    assert [command[0] for command in commands if "--seed" in command] == ["ddpm_torch.train", "ddpm_tf.train"]
    said = capsys.readouterr().out.splitlines()
    assert [line[:6] for line in said if " of 5: " in line] == [f"{i} of 5" for i in range(1, 6)]


@pytest.mark.parametrize(("name", "missing"), [("torch", "TensorFlow"), ("tensorflow", "PyTorch")])
def test_the_demo_of_one_framework_says_what_is_missing(monkeypatch, capsys, name, missing):
    """Otherwise a student with one framework gets nothing."""
    code, commands, pages = demo_of(monkeypatch, (name,))
    assert (code, pages) == (0, [])
    tree = frameworks.FRAMEWORKS[name].tree
    assert [command[0] for command in commands] == [
        *(f"{tree}.inference", "ddpm_shared.evaluation", f"{tree}.train", f"{tree}.inference")
    ]
    assert f"{missing} is not installed, so there is nothing to compare" in capsys.readouterr().out


def test_the_demo_ends_where_a_command_fails(monkeypatch):
    """Otherwise the failure is buried under what follows."""
    code, commands, pages = demo_of(monkeypatch, ("torch", "tensorflow"), failing="ddpm_shared.evaluation")
    assert (code, len(commands), pages) == (3, 3, [])
    with pytest.raises(UserError, match="neither PyTorch nor TensorFlow is installed"):
        demo_of(monkeypatch, ())
