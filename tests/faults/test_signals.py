"""Signals: one line and the signal's exit code at any moment, or the work's own where it was done already."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ddpm_shared import stopping
from ddpm_shared.commands.interruption import Interrupted, StopSignals

TRAIN = "--preset tiny --dataset fashion-mnist-10k --max-steps 3 --validation-images 128 --sample-every 0 --threads 1"
# Python itself starts for some hundredths of a second before a line of ours can run.
ALIVE = 0.2
SEED = int(os.environ.get("DDPM_DUET_FAULTS_SEED", "0"))
MOMENTS = int(os.environ.get("DDPM_DUET_FAULTS_MOMENTS", "2"))  # of each tree


def ends(process: "subprocess.Popen[str]", number: signal.Signals) -> None:
    """Assert that a process ends as it should after a signal, wherever it was."""
    _, err = process.communicate(timeout=120)
    assert process.returncode in (0, 128 + number), err
    for noise in ("Traceback", "Exception ignored", "terminate called", "Aborted"):
        assert noise not in err
    if process.returncode:
        last = err.splitlines()[-1]
        assert last == "interrupted" or "continue with --resume" in last, err


@pytest.mark.parametrize("moment", range(MOMENTS))
@pytest.mark.parametrize("name", ["torch", "tf"])
def test_a_signal_at_any_moment_is_one_line(tmp_path: Path, name: str, moment: int) -> None:
    """Otherwise Ctrl-C during an import ends in a traceback of a library, or in another error."""
    pytest.importorskip({"torch": "torch", "tf": "tensorflow"}[name])
    chance = random.Random(f"{SEED} {name} {moment}")
    number = chance.choice(stopping.signals())
    command = [sys.executable, "-m", f"ddpm_{name}.train", *TRAIN.split(), "--run-dir", str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(chance.uniform(ALIVE, {"torch": 4, "tf": 8}[name]))
    process.send_signal(number)
    ends(process, number)


def python(lines: str, *arguments: str, check: bool = False) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", lines, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=check)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_where_there_is_nothing_to_save_a_signal_ends_a_command_at_once(tmp_path: Path, number: signal.Signals) -> None:
    """Otherwise what a library makes of an exception in its middle is shown, or the exception is swallowed."""
    lines = f"""
import os, signal, sys
from ddpm_shared import stopping
stopping.at_once()
stopping.on_the_way_out(lambda: open({str(tmp_path / "undone")!r}, "w").close())
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # as while TensorFlow is imported
class Library:
    def __del__(self):
        os.kill(os.getpid(), {int(number)})
        for _ in range(10**6): pass
print("shown", end="")
Library()
print("never")
"""
    done = python(lines)
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "shown", "interrupted\n")
    assert (tmp_path / "undone").exists()


def test_at_its_end_a_command_s_exit_code_stands() -> None:
    """Otherwise Ctrl-C while Python tidies up turns a finished run into an interrupted one, or into a traceback."""
    lines = """
import atexit, os, signal
from ddpm_shared import command_line, stopping
stopping.at_once()
atexit.register(lambda: [os.kill(os.getpid(), number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)])
command_line.guard(lambda: 7)
"""
    done = python(lines)
    assert (done.returncode, done.stderr) == (7, "")


def test_an_interrupt_that_a_library_turned_into_another_error_is_one_line(guarded: Callable[..., object]) -> None:
    """Otherwise Ctrl-C shows `ImportError: numpy._core.multiarray failed to import`."""

    def main() -> int:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise ImportError("failed to import") from None

    assert guarded(main) == (130, "interrupted\n")


@pytest.mark.parametrize("package", ["ddpm_shared", "ddpm_torch", "ddpm_tf", "ddpm_course", "ddpm_parity"])
def test_an_import_changes_no_signal_and_no_setting(package: str) -> None:
    """Otherwise a notebook that imports a package of ours cannot be interrupted, or loses its user's settings."""
    lines = f"""
import os, signal, sys
os.environ["KERAS_BACKEND"] = os.environ["TORCH_LOGS"] = "mine"
def state():
    signals = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    return signals, dict(os.environ), sys.stdout, sys.stderr
before = state()
sys.modules["tensorflow"] = sys.modules["torch"] = None  # which the packages alone do not need
import {package}
assert state() == before
"""
    if package in ("ddpm_course", "ddpm_parity"):
        lines = lines.replace('sys.modules["tensorflow"] = sys.modules["torch"] = None', "pass")
    assert python(lines).stderr == ""


def test_somebody_else_s_command_is_left_alone(tmp_path: Path) -> None:
    """Otherwise `python -m their_program`, which imports a package of ours, is ended by its first Ctrl-C."""
    (tmp_path / "theirs.py").write_text("import signal\nprint(signal.getsignal(signal.SIGINT).__name__)\n", "utf-8")
    package = tmp_path / "their"
    package.mkdir()
    (package / "__init__.py").write_text("import ddpm_shared\n", "utf-8")
    (package / "program.py").write_text((tmp_path / "theirs.py").read_text("utf-8"), "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "their.program"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "default_int_handler\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_between_two_steps_every_signal_is_a_request(number: signal.Signals, capfd: pytest.CaptureFixture[str]) -> None:
    """Otherwise a closed terminal kills a run whose state a Ctrl-C would have saved."""
    with StopSignals() as stop:
        os.kill(os.getpid(), number)
        with pytest.raises(Interrupted):
            stop.check()
    assert stop.exit_code == 128 + number
    assert "stopping after this step" in capfd.readouterr().err


def test_nohup_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise `nohup make train-torch` stops when its user logs out."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            stop.check()
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
