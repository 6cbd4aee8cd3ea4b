"""No dead ends: whatever a death or a damaged disk left in a run folder, there is a command that goes on from it."""

import json
import shutil

import pytest
import test_runs
from test_runs import events, metrics, new_run, numbers, save, write_steps

from ddpm_shared import config, files
from ddpm_shared.commands import train
from ddpm_shared.errors import UserError
from ddpm_shared.records import checkpoint, history
from ddpm_shared.records import folder as run_folders

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + 64 * b"a" + b"\nsize 27\n"


@pytest.fixture
def folder(tmp_path):
    """A run of four steps, with checkpoints after 2 and 4."""
    folder = tmp_path / "runs" / "torch" / "a"
    run = new_run(folder)
    for step in (2, 4):
        write_steps(run, step - 1, step)
        save(run, step)
    return folder


@pytest.mark.parametrize(
    "pointer",
    [
        None,
        b"",
        b"step_00000",
        b"step_00000099.safetensors\n",
        b"../../b/checkpoints/step_00000004.safetensors\n",
        "step_00000004.safetensors\n".encode("utf-16"),
        LFS,
        b"\xff\x00" * 5000,
    ],
)
def test_the_newest_whole_checkpoint_stands_in_for_a_bad_pointer(folder, pointer, capsys):
    """Otherwise a torn `latest` makes all checkpoints of a run useless."""
    latest = folder / "checkpoints" / "latest"
    if pointer is None:
        latest.unlink()
    else:
        latest.write_bytes(pointer)
    assert run_folders.latest_checkpoint(folder).name == "step_00000004.safetensors"
    assert capsys.readouterr().err == (
        f"{latest} names no checkpoint there: taking the newest whole one, step_00000004.safetensors\n"
    )
    (folder / "checkpoints" / "step_00000004.safetensors").write_bytes(b"torn")
    assert run_folders.latest_checkpoint(folder).name == "step_00000002.safetensors"
    plan = train.parse("torch", ["--resume", str(folder)])
    assert (plan.folder, plan.resumed.step) == (folder, 2)


def test_a_folder_without_any_whole_checkpoint_says_so(folder):
    for file in (folder / "checkpoints").iterdir():
        file.write_bytes(b"")
    with pytest.raises(UserError, match="holds no checkpoint: give a run folder"):
        run_folders.latest_checkpoint(folder)


def test_a_damaged_log_is_given_up_on_request_only(folder):
    """Otherwise a torn log makes the whole checkpoints beside it useless, or disappears without a word."""
    log = folder / "metrics.jsonl"
    damaged = log.read_bytes().replace(b"{", b"\0", 2)
    log.write_bytes(damaged)
    resumed = checkpoint.load(run_folders.latest_checkpoint(folder))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=r"--without-history"):
        new_run(folder, resumed)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before

    again = test_runs.run_folder.Run(
        folder, "torch", test_runs.CONFIG, test_runs.ENVIRONMENT, test_runs.DATA, 123, resumed, without_history=True
    )
    write_steps(again, 5, 6)
    assert (folder / "metrics.jsonl.1").read_bytes() == damaged
    assert numbers(history.read_history(folder, 6)) == numbers(metrics(folder)["history"]) == [[5, 6], [3]]
    assert events(folder)[0]["event"] == "resume"


def test_without_history_is_for_resume(folder):
    with pytest.raises(UserError, match=r"^--without-history is for --resume"):
        train.parse("torch", ["--without-history"])
    assert train.parse("torch", ["--resume", str(folder), "--without-history"]).without_history


def test_a_run_that_begins_anew_mixes_nothing_with_the_old_one(tmp_path):
    """Otherwise the records or pictures of a run that died early are taken for those of the new one."""
    folder = tmp_path / "run"
    old = new_run(folder)
    write_steps(old, 1, 3)
    old.save_best(2, {"model/x": test_runs.np.zeros(2, test_runs.np.float32)})
    files.write_atomically(folder / "samples" / "step_00000002.png", b"old")
    log = (folder / "metrics.jsonl").read_bytes()
    shutil.copy(folder / "metrics.jsonl", tmp_path)
    run_folders.require_free(folder)
    new = new_run(folder)
    assert [event["event"] for event in events(folder)] == ["start"]
    assert (folder / "metrics.jsonl.1").read_bytes() == log
    assert list((folder / "samples").iterdir()) == list((folder / "checkpoints").iterdir()) == []
    assert metrics(folder)["history"] == new.history == {"steps": [], "epochs": [], "evaluations": []}
    run_folders.require_free(folder)


def test_a_folder_whose_settings_are_damaged_too_says_how_to_begin(tmp_path):
    folder = tmp_path / "run"
    files.write_json(folder / "config.json", config.to_dict(config.Config(seed=7)))
    assert train.parse("torch", ["--resume", str(folder)]).config.seed == 7
    (folder / "config.json").write_text(json.dumps({"seed": "x"}))
    with pytest.raises(UserError) as error:
        train.parse("torch", ["--resume", str(folder)])
    assert "\n" not in str(error.value)
    assert train.parse("torch", ["--run-dir", str(folder)]).folder == folder
