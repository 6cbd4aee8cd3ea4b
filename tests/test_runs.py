"""The run folder: what happened is told once, exactly, and survives whatever ends the run."""

import json
import os
import subprocess
import sys
from datetime import datetime

import jsonschema
import numpy as np
import pytest

from ddpm_shared import compare, machine
from ddpm_shared.config import Config, TrainingConfig, to_dict
from ddpm_shared.datasets import Split
from ddpm_shared.errors import UserError
from ddpm_shared.records import checkpoint
from ddpm_shared.records import folder as run_folders
from ddpm_shared.records import history as run_history
from ddpm_shared.records import run as run_folder

PIXELS = np.zeros((6, 28, 28, 1), np.uint8)
DATA = Split("fashion-mnist-10k", "train", PIXELS, np.zeros(6, np.uint8), "ab" * 32)
CONFIG = Config(training=TrainingConfig(keep_checkpoints=2))
ENVIRONMENT = machine.environment("cpu", 2)
# Not a short decimal, and beyond what three or six digits of it would tell.
LOSS = 0.1 + 0.2


def new_run(folder, resumed=None, framework="torch", config=CONFIG):
    return run_folder.Run(folder, framework, config, ENVIRONMENT, DATA, 123, resumed)


def step_record(step, loss=LOSS):
    return {
        "step": step,
        "epoch": (step - 1) // 2 + 1,
        "images_seen": 3 * step,
        "loss": loss,
        "grad_norm": 1 / 3,
        "learning_rate": 1e-4,
    }


def epoch_record(epoch, loss=LOSS):
    return {"epoch": epoch, "step": 2 * epoch, "train_loss": loss, "validation_loss": loss, "images_per_s": 1 / 7}


SCORES = {
    **{"fid": LOSS, "kid": -1 / 3, "kid_std": 1 / 7, "inception_score": 8.5, "features": "cloth"},
    **{"precision": 0.5, "recall": 0.25, "density": 1.5, "coverage": 1.0, "class_histogram": [256] + 9 * [0]},
}


def evaluation_record(epoch, fid=LOSS, num_images=256, extractor="cd" * 32):
    scores = SCORES | {"num_images": num_images}
    floor = {key: value for key, value in scores.items() if key != "features"}
    made = {"step": 2 * epoch, "epoch": epoch, "extractor_sha256": extractor, "floor": floor}
    return made | scores | {"fid": fid}


def write_steps(run, first, last):
    """Two steps an epoch."""
    for step in range(first, last + 1):
        run.record_step(step_record(step))
        if step % 2 == 0:
            run.record_epoch(epoch_record(step // 2))


def save(run, step):
    return run.save_checkpoint(step, {"model/x": np.full(2, step, np.float32)})


def events(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def best(folder):
    return metrics(folder)["evaluation"]["best"]


def numbers(history):
    """[steps, epochs] by number."""
    return [[record["step"] for record in history["steps"]], [record["epoch"] for record in history["epochs"]]]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "runs" / "torch" / "a"


# --- What is in the folder ----------------------------------------------------------------------------------


def test_a_run_leaves_everything_the_contract_names(folder):
    """Otherwise checks and people outside this repository do not find what a run did."""
    run = new_run(folder)
    assert metrics(folder)["status"] == "running"
    write_steps(run, 1, 4)
    save(run, 4)
    run.finish("completed", 4)
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoints",
        "config.json",
        "environment.json",
        "metrics.json",
        "metrics.jsonl",
    ]
    assert json.loads((folder / "config.json").read_text()) == to_dict(CONFIG)
    assert json.loads((folder / "environment.json").read_text()) == ENVIRONMENT
    assert (folder / "checkpoints" / "latest").read_text() == "step_00000004.safetensors\n"
    loaded = checkpoint.load(run_folders.latest_checkpoint(folder))
    assert (loaded.step, loaded.framework, loaded.config, loaded.dataset_sha256) == (4, "torch", CONFIG, "ab" * 32)
    assert [event["event"] for event in events(folder)] == [
        *("start", "step", "step", "epoch", "step", "step", "epoch", "checkpoint", "end")
    ]


@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
def test_metrics_json_keeps_the_contract(folder, framework):
    """Otherwise the files of the two frameworks, or of two versions, cannot be compared by one program."""
    run = new_run(folder, framework=framework)
    jsonschema.validate(metrics(folder), compare.schema())  # before the first step as well
    write_steps(run, 1, 3)
    run.record_evaluation(evaluation_record(1))
    run.finish("failed", 3, "why")
    found = metrics(folder)
    jsonschema.validate(found, compare.schema())
    assert list(found) == [
        *("schema_version", "framework", "status", "config", "environment", "dataset", "parameters"),
        *("history", "final", "evaluation"),
    ]
    assert found["schema_version"] == 1
    assert (found["framework"], found["status"], found["parameters"]) == (framework, "failed", 123)
    assert found["config"] == to_dict(CONFIG)
    assert found["dataset"] == {
        "name": "fashion-mnist-10k",
        "split": "train",
        "num_images": 6,
        "sha256": "ab" * 32,
    }
    for kind, record in [
        ("steps", step_record(1)),
        ("epochs", epoch_record(1)),
        ("evaluations", evaluation_record(1)),
    ]:
        first = found["history"][kind][0]
        assert first.keys() == record.keys() | {"wall_s"}
        assert {key: first[key] for key in record} == record  # floats to the last bit
    told = {"best": {"step": 2, "fid": LOSS, "checkpoint": None}}
    assert found["evaluation"] == found["history"]["evaluations"][0] | told
    final = found["final"]
    assert {key: final[key] for key in final if key != "wall_s"} == {
        "step": 3,
        "images_seen": 9,
        "loss": LOSS,
        "train_loss": LOSS,
        "validation_loss": LOSS,
        "message": "why",
    }


def test_the_environment_says_what_a_run_ran_on(monkeypatch):
    """Otherwise two runs that differ cannot be told apart by what they ran on."""
    monkeypatch.setattr(sys, "argv", ["train", "--epochs", "3"])
    found = machine.environment("cpu", 2)
    assert found["packages"]["numpy"] == np.__version__
    assert found["packages"].keys() <= set(machine.PACKAGES)
    assert found["argv"] == ["train", "--epochs", "3"]
    assert (found["device"], found["threads"]) == ("cpu", 2)
    assert datetime.fromisoformat(found["started_utc"]).utcoffset().total_seconds() == 0


def test_a_machine_without_git_can_train(monkeypatch, tmp_path):
    """Otherwise a container without git ends every run before its first step."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.environment("cpu", 1)["git_commit"] is None


def test_every_event_is_on_disk_at_once(folder):
    """Otherwise a run that is killed loses the steps that its buffer held."""
    run = new_run(folder)
    run.record_step(step_record(1))
    assert events(folder)[-1]["loss"] == LOSS
    run.record_epoch(epoch_record(1))
    assert numbers(metrics(folder)["history"]) == [[1], [1]]  # metrics.json too, at the end of each epoch


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_is_never_written(folder, bad):
    """Otherwise metrics.json is no JSON, and the one bad number makes the whole record unreadable."""
    run = new_run(folder)
    write_steps(run, 1, 2)
    before = (folder / "metrics.jsonl").read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        run.record_step(step_record(3, bad))
    with pytest.raises(ValueError, match="not JSON compliant"):
        run.record_epoch(epoch_record(2, bad))
    with pytest.raises(ValueError, match="not JSON compliant"):
        run.record_evaluation(evaluation_record(1, bad))
    assert (folder / "metrics.jsonl").read_bytes() == before
    run.finish("failed", 2)  # the good records can still be written
    assert numbers(metrics(folder)["history"]) == [[1, 2], [1]]


# --- Reading it back ----------------------------------------------------------------------------------------


def test_the_log_replays_to_the_same_records(folder):
    """Otherwise a resumed run goes on from another history than the one that was recorded."""
    run = new_run(folder)
    write_steps(run, 1, 5)
    for epoch in (1, 2):
        run.record_evaluation(evaluation_record(epoch))
    assert run_history.read_history(folder, 5) == run.history
    assert numbers(run_history.read_history(folder, 3)) == [[1, 2, 3], [1]]
    assert [record["step"] for record in run_history.read_history(folder, 3)["evaluations"]] == [2]
    assert numbers(run_history.read_history(folder, 0)) == [[], []]
    assert run_history.read_history(folder / "nowhere", 5) == {"steps": [], "epochs": [], "evaluations": []}


def test_a_resumption_takes_back_what_came_after_its_checkpoint(folder):
    """Otherwise the steps between the last checkpoint and the death of the run are counted twice."""
    run = new_run(folder)
    run.began -= 1000  # seconds
    write_steps(run, 1, 2)
    path = save(run, 2)
    write_steps(run, 3, 5)
    run.record_evaluation(evaluation_record(2))  # and then it died

    again = new_run(folder, checkpoint.load(path))
    assert numbers(again.history) == [[1, 2], [1]]
    again.record_step(step_record(3, loss=7.0))
    again.record_step(step_record(4, loss=8.0))
    again.record_epoch(epoch_record(2, loss=9.0))
    again.record_evaluation(evaluation_record(2, fid=6.0))
    again.write_metrics("running")
    history = run_history.read_history(folder, 4)
    assert history == again.history == metrics(folder)["history"]
    assert [record["loss"] for record in history["steps"]] == [LOSS, LOSS, 7.0, 8.0]
    assert [record["train_loss"] for record in history["epochs"]] == [LOSS, 9.0]
    assert [record["fid"] for record in history["evaluations"]] == [6.0]
    # Append-only: what was taken back is still in the log.
    assert [event["step"] for event in events(folder) if event["event"] == "step"] == [1, 2, 3, 4, 5, 3, 4]
    assert {"event": "resume", "step": 2, "checkpoint": str(path), "framework": "torch"} in events(folder)
    assert again.history["steps"][-1]["wall_s"] > run.history["steps"][1]["wall_s"] > 1000  # the clock goes on


@pytest.mark.parametrize("half", [b'{"event": "step", "step": 3, "loss": 0.1', b"{", b'{"event": "step", "step": 3}'])
def test_a_half_written_last_line_is_dropped(folder, half):
    """Otherwise a run that was killed while it wrote cannot be resumed, or its next line continues the broken one."""
    run = new_run(folder)
    write_steps(run, 1, 2)
    path = save(run, 2)
    with (folder / "metrics.jsonl").open("ab") as log:
        log.write(half)
    assert numbers(run_history.read_history(folder, 2)) == [[1, 2], [1]]
    again = new_run(folder, checkpoint.load(path))
    again.record_step(step_record(3))
    assert numbers(run_history.read_history(folder, 3)) == [[1, 2, 3], [1]]
    assert events(folder)[-1]["step"] == 3  # every line is whole


@pytest.mark.parametrize(
    "line",
    [
        b"{not json}",
        b"[]",
        b"7",
        b"{}",
        b'{"event": "step"}',
        b'{"step": 3}',
        b'{"event": "step", "st',  # half a line, but not the last
        b'\xff\xfe{"event": "step", "step": 3}',
    ],
)
def test_a_corrupt_line_is_refused_by_number(folder, line):
    """Otherwise a damaged log is taken over with a hole in it, or ends in a traceback."""
    run = new_run(folder)
    run.record_step(step_record(1))
    with (folder / "metrics.jsonl").open("ab") as log:
        log.write(line + b"\n")
    run.record_step(step_record(2))
    with pytest.raises(UserError) as error:
        run_history.read_history(folder, 9)
    assert str(error.value).startswith(f"{folder / 'metrics.jsonl'}, line 3 is not an event of a run: ")


# --- Going on -----------------------------------------------------------------------------------------------


def test_a_run_that_goes_on_in_a_new_folder_brings_its_history(folder, tmp_path):
    """Otherwise a run that one framework began and the other ended has only half of its losses."""
    run = new_run(folder)
    write_steps(run, 1, 4)
    run.record_evaluation(evaluation_record(1))
    path = save(run, 4)
    write_steps(run, 5, 6)
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}

    branch = tmp_path / "runs" / "tensorflow" / "b"
    new = new_run(branch, checkpoint.load(path), "tensorflow")
    new.record_step(step_record(5, loss=7.0))
    new.finish("completed", 5)
    assert new.history["steps"][:4] == run.history["steps"][:4]
    assert new.history["epochs"] == run.history["epochs"][:2]
    assert new.history["evaluations"] == run.history["evaluations"]
    assert run_history.read_history(branch, 5) == new.history == metrics(branch)["history"]
    assert metrics(branch)["framework"] == "tensorflow"
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before


def test_a_run_that_goes_back_in_place_is_resumed_from_there(folder):
    """Otherwise `--resume` after it takes a later checkpoint than the record reaches, and steps are missing."""
    run = new_run(folder)
    for step in (2, 4):
        write_steps(run, step - 1, step)
        save(run, step)
    new_run(folder, checkpoint.load(folder / "checkpoints" / "step_00000002.safetensors"))
    assert run_folders.latest_checkpoint(folder).name == "step_00000002.safetensors"


def test_only_the_newest_checkpoints_are_kept(folder):
    """Otherwise a long run fills the disk, or `latest` points at a file that is gone."""
    run = new_run(folder)
    for step in (5, 9, 10, 100):
        path = save(run, step)
        assert run_folders.latest_checkpoint(folder) == path
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == [
        "latest",
        "step_00000010.safetensors",
        "step_00000100.safetensors",
    ]
    assert checkpoint.load(path).tensors["model/x"].tolist() == [100, 100]


def test_files_of_later_steps_do_not_push_out_the_new_one(folder):
    """Otherwise a run that went back deletes each checkpoint as it writes it, and cannot be resumed."""
    run = new_run(folder)
    for step in (2, 4):
        write_steps(run, step - 1, step)
        save(run, step)
    only_one = Config(training=TrainingConfig(keep_checkpoints=1))
    again = new_run(folder, checkpoint.load(folder / "checkpoints" / "step_00000002.safetensors"), config=only_one)
    save(again, 3)
    assert checkpoint.load(run_folders.latest_checkpoint(folder)).step == 3
    assert not (folder / "checkpoints" / "step_00000002.safetensors").exists()


# --- The best checkpoint ------------------------------------------------------------------------------------


def keep_best(run, epoch, fid):
    """What training does with an evaluation that is the best so far."""
    run.save_best(2 * epoch, {"model/x": np.full(2, 2 * epoch, np.float32)})
    run.record_evaluation(evaluation_record(epoch, fid))


@pytest.mark.parametrize(
    ("evaluations", "epoch"),
    [
        ([(1, 3.0), (2, 1.0), (3, 2.0)], 2),
        ([(1, 3.0), (2, 3.0)], 1),  # no better than the first
        ([(1, 1.0, 500), (2, 3.0), (3, 2.0, 500), (4, 4.0)], 2),  # more images alone make it smaller
        ([(1, 1.0, 256, "ef" * 32), (2, 3.0)], 2),  # and another network anything
    ],
)
def test_the_best_is_the_lowest_of_those_that_compare(evaluations, epoch):
    """Otherwise the checkpoint that is kept is one that was judged by fewer images, not one that draws better."""
    assert run_history.best_evaluation([evaluation_record(*each) for each in evaluations])["epoch"] == epoch


def test_the_best_checkpoint_outlives_the_others(folder):
    """Otherwise the weights that drew the best samples are gone by the end of the run that tells of them."""
    run = new_run(folder)
    write_steps(run, 1, 5)
    keep_best(run, 1, 2.0)
    for step in (2, 3, 4, 5):
        save(run, step)
    run.record_evaluation(evaluation_record(2, 3.0))
    run.finish("completed", 5)
    assert best(folder) == {"step": 2, "fid": 2.0, "checkpoint": "checkpoints/best.safetensors"}
    loaded = checkpoint.load(folder / "checkpoints" / "best.safetensors")
    assert (loaded.step, loaded.tensors["model/x"].tolist()) == (2, [2, 2])
    assert {"event": "checkpoint", "step": 2, "file": "best.safetensors"} in events(folder)
    assert run_folders.latest_checkpoint(folder).name == "step_00000005.safetensors"

    again = new_run(folder, checkpoint.load(run_folders.latest_checkpoint(folder)))
    assert best(folder)["checkpoint"] == "checkpoints/best.safetensors"
    keep_best(again, 3, 1.0)
    again.finish("completed", 6)
    assert best(folder) == {"step": 6, "fid": 1.0, "checkpoint": "checkpoints/best.safetensors"}


def test_a_run_that_went_back_does_not_call_the_file_of_a_later_step_its_best(folder):
    """Otherwise metrics.json gives one state's score for another's."""
    run = new_run(folder)
    write_steps(run, 1, 2)
    keep_best(run, 1, 2.0)
    path = save(run, 2)
    write_steps(run, 3, 4)
    keep_best(run, 2, 1.0)  # in the place of step 2
    again = new_run(folder, checkpoint.load(path))
    assert best(folder) == {"step": 2, "fid": 2.0, "checkpoint": None}
    assert checkpoint.load(folder / "checkpoints" / "best.safetensors").step == 4  # nothing is lost
    keep_best(again, 2, 1.0)
    again.finish("completed", 4)
    assert best(folder) == {"step": 4, "fid": 1.0, "checkpoint": "checkpoints/best.safetensors"}


def test_a_run_that_goes_on_in_a_new_folder_names_no_file_that_stayed_behind(folder, tmp_path):
    """Otherwise a program that opens the best checkpoint that metrics.json names finds none."""
    run = new_run(folder)
    write_steps(run, 1, 2)
    keep_best(run, 1, 2.0)
    branch = tmp_path / "branch"
    new = new_run(branch, checkpoint.load(folder / "checkpoints" / "best.safetensors"))
    assert numbers(new.history) == [[1, 2], [1]]
    assert best(branch) == {"step": 2, "fid": 2.0, "checkpoint": None}
    keep_best(new, 2, 1.0)
    new.finish("completed", 4)
    assert best(branch)["checkpoint"] == "checkpoints/best.safetensors"


def test_a_damaged_best_checkpoint_is_no_reason_not_to_go_on(folder):
    """Otherwise a file that nothing needs keeps a run from being resumed."""
    run = new_run(folder)
    write_steps(run, 1, 2)
    keep_best(run, 1, 2.0)
    path = save(run, 2)
    (folder / "checkpoints" / "best.safetensors").write_bytes(b"half a file")
    new_run(folder, checkpoint.load(path))
    assert best(folder)["checkpoint"] is None


# --- Folders ------------------------------------------------------------------------------------------------


def test_a_new_folder_is_there_at_once(tmp_path, monkeypatch):
    """Otherwise two runs that start in the same second write into one folder."""
    monkeypatch.chdir(tmp_path)
    folders = [run_folders.claim_new("torch", "tiny") for _ in range(5)]
    assert len(set(folders)) == 5
    for folder in folders:
        assert folder.is_dir()
        assert folder.parent == run_folders.RUNS / "torch"
        assert "Z-tiny" in folder.name


def test_a_folder_in_use_is_refused(tmp_path):
    """Otherwise a new run mixes its records with those of an old one."""
    run_folders.require_free(tmp_path / "new")
    (tmp_path / "empty").mkdir()
    run_folders.require_free(tmp_path / "empty")
    (tmp_path / "file").touch()
    for taken in (tmp_path, tmp_path / "file"):
        with pytest.raises(UserError) as error:
            run_folders.require_free(taken)
        assert str(error.value) == (
            f"{taken} already holds files: choose another --run-dir, or continue the run in it with --resume {taken}"
        )


def test_the_newest_run_is_the_one_last_saved(tmp_path, monkeypatch):
    """Otherwise `--resume` goes on with a run that started later but stopped long ago."""
    monkeypatch.chdir(tmp_path)
    for name, modified in [("20300101T000000Z-tiny", 1000), ("20200101T000000Z-tiny", 2000)]:
        run = new_run(run_folders.RUNS / "torch" / name)
        save(run, 1)
        os.utime(run.folder / "checkpoints" / "latest", (modified, modified))
    (run_folders.RUNS / "torch" / "20400101T000000Z-tiny").mkdir()  # died before its first checkpoint
    assert run_folders.latest_folder("torch").name == "20200101T000000Z-tiny"
    with pytest.raises(UserError, match=r"^no run with a checkpoint in runs/tensorflow: train one first"):
        run_folders.latest_folder("tensorflow")


LIMITED = """
import json, resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_runs
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writes fail with EFBIG, as they would with ENOSPC
run = test_runs.new_run(Path(sys.argv[1]))
test_runs.write_steps(run, 1, 2)
test_runs.save(run, 2)
size = (run.folder / "metrics.jsonl").stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 500, resource.RLIM_INFINITY))
try:
    test_runs.write_steps(run, 3, 9)
except OSError as error:
    print("stopped", error.strerror)
"""


def test_a_log_that_could_not_be_written_is_resumed(folder, tmp_path):
    """Otherwise a full disk leaves a run that cannot go on once there is room again, or half a line within the log."""
    tests = os.path.dirname(__file__)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, folder, tests], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.startswith("stopped"), done.stderr
    assert (folder / "metrics.jsonl").read_text().endswith("}\n")
    again = new_run(folder, checkpoint.load(run_folders.latest_checkpoint(folder)))
    write_steps(again, 3, 4)
    assert numbers(run_history.read_history(folder, 4)) == [[1, 2, 3, 4], [1, 2]]
