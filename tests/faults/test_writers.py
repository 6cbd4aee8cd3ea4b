"""Two writers: a run folder, an --out and their results belong to one process at a time."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ddpm_shared import claims, files
from ddpm_shared.commands import base, train
from ddpm_shared.config import Config, to_dict
from ddpm_shared.errors import UserError
from ddpm_shared.records import folder as run_folders

HOLD = """
import sys
from pathlib import Path
from ddpm_shared import claims
claims.claim(Path(sys.argv[1]))
print("claimed", flush=True)
sys.stdin.read()
"""
NEW = "from ddpm_shared.records import folder; print(folder.claim_new('torch', 'tiny')); input()"


@contextmanager
def another_writer(folder: Path) -> "Iterator[subprocess.Popen[str]]":
    """Another process that writes to the folder."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "claimed\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def begun_run(name="a", framework="torch"):
    """A run folder without a checkpoint."""
    folder = run_folders.RUNS / framework / name
    files.write_json(folder / "config.json", to_dict(Config()))
    return folder


def test_a_second_writer_is_refused_and_a_dead_one_is_forgotten(tmp_path):
    """Otherwise two runs mix their records in one folder, or a killed run blocks its folder for ever."""
    folder = tmp_path / "run"
    with another_writer(folder) as process:
        message = f"another process is writing to {folder}: wait until it ends, or choose another folder"
        for again in (lambda: claims.claim(folder), lambda: train.parse("torch", ["--run-dir", str(folder)])):
            with pytest.raises(UserError) as error:
                again()
            assert str(error.value) == message
        process.kill()  # -9
        process.wait()
        assert (folder / claims.LOCK).exists()
        claims.claim(folder)
    claims.release(folder)
    assert not folder.exists()  # nothing was written


def test_one_run_is_not_resumed_twice_at_once(tmp_path):
    """Otherwise every step is recorded twice."""
    folder = begun_run()
    with another_writer(folder):
        with pytest.raises(UserError, match=f"^another process is writing to {folder}: "):
            train.parse("torch", ["--resume", str(folder)])
        with pytest.raises(UserError, match=r"^no run with a checkpoint in runs/torch: "):
            train.parse("torch", ["--resume"])


def test_resume_passes_over_a_run_that_goes_on(capsys):
    """Otherwise --resume without a folder takes the run that another terminal is training."""
    free, running = begun_run("a"), begun_run("b")
    with another_writer(running):
        plan = train.parse("torch", ["--resume"])
    assert plan.folder == free
    assert f"passing over {running}: another process is writing to it\n" in capsys.readouterr().err
    claims.release(free)
    assert train.parse("torch", ["--resume"]).folder == running
    claims.release(running)


def test_results_have_one_writer(tmp_path):
    """Otherwise two commands with one --out overwrite each other's images."""
    out = tmp_path / "out"
    with another_writer(out), pytest.raises(UserError, match=f"^another process is writing to {out}: "):
        base.results_folder("torch", base.NetworkCommand(out=str(out)), "samples", "grid.png")


def test_runs_of_one_second_get_folders_of_their_own(tmp_path):
    """Otherwise both say "done" and one is lost."""
    started = [
        subprocess.Popen([sys.executable, "-c", NEW], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    try:
        names = [process.stdout.readline() for process in started]
    finally:
        for process in started:
            process.communicate("\n")
    assert len(set(names)) == 4
    assert [path for name in names if (path := tmp_path / name.strip()).exists()] == []  # they wrote nothing


def test_a_refused_command_leaves_nothing_behind(tmp_path):
    """Otherwise every typo leaves an empty folder, or a folder that stays locked."""
    with pytest.raises((UserError, SystemExit)):
        train.parse("torch", ["--learning-rate", "-1"])
    folder = begun_run()
    with pytest.raises((UserError, SystemExit)):
        train.parse("torch", ["--resume", str(folder), "--minutes", "-1"])
    assert sorted(path.name for path in folder.iterdir()) == ["config.json"]
    assert list(run_folders.RUNS.rglob("*")) == [folder.parent, folder, folder / "config.json"]


def test_the_files_of_dead_writers_are_removed(tmp_path):
    """Otherwise every kill leaves a temporary file of the size of a checkpoint."""
    ours = [".latest.7.tmp", "checkpoints/.step_00000004.safetensors.123.tmp", "samples/.step_00000004.png.9.tmp"]
    others = [".notes.txt.7.tmp", "x.tmp", ".tmp", "metrics.json"]
    for name in (*ours, *others):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with claims.writing(tmp_path):
        assert [name for name in ours if (tmp_path / name).exists()] == []
        assert [name for name in others if not (tmp_path / name).exists()] == []


MAKE = """
import sys
from pathlib import Path
from ddpm_shared import claims
file = Path(sys.argv[1])
with claims.in_turn(file):
    print("turn", flush=True)
    sys.stdin.readline()
    file.write_text("made")
"""


def test_a_cached_file_is_made_by_one_process_at_a_time(tmp_path):
    """Otherwise thirty students at once compute the same features thirty times."""
    file = tmp_path / "cache" / "features.npz"

    def start():
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([sys.executable, "-c", MAKE, str(file)], text=True, **pipes)

    with start() as first:
        assert first.stdout.readline() == "turn\n"
        (file.parent / ".features.npz.7.tmp").touch()
        with start() as second:
            assert second.stderr.readline() == f"waiting for another process that makes {file}\n"
            assert not file.exists()
            first.communicate("\n")
            assert second.stdout.readline() == "turn\n"
            assert file.read_text() == "made"
            second.communicate("\n")
    assert list(file.parent.iterdir()) == [file]


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file is a file: choose another folder$"):
        claims.claim(tmp_path / "file")


def test_a_run_without_a_checkpoint_begins_again(capsys):
    """Otherwise a run that died early leaves a folder that can neither be used nor be resumed."""
    folder = begun_run()
    (folder / "metrics.jsonl").write_text(json.dumps({"event": "start", "step": 0}) + "\n")
    for argv in (["--resume", str(folder)], ["--run-dir", str(folder)], ["--resume"]):
        plan = train.parse("torch", argv)
        assert (plan.folder, plan.resumed) == (folder, None)
        claims.release(folder)
    assert capsys.readouterr().err.count(f"{folder} has no checkpoint yet: its run begins again at step 0\n") == 2
    (folder / "notes.txt").touch()
    with pytest.raises(UserError, match="already holds files"):
        train.parse("torch", ["--run-dir", str(folder)])
