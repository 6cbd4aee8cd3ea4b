"""Several workers, without a framework: their places, what they say to each other, their launcher and their loop.

Where several talk, they are threads of one process here. Real processes that train are in test_worker_processes.py.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from ddpm_shared import datasets, frameworks, launch, stopping, workers
from ddpm_shared.commands import train as train_command
from ddpm_shared.config import Config, TrainingConfig
from ddpm_shared.errors import UserError
from ddpm_shared.records import checkpoint
from ddpm_shared.records import folder as run_folders
from ddpm_shared.workers import ALONE, Place, WorkerLost

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
PATIENCE = 60  # seconds for what takes one or two


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    """No variables of a launcher above the tests."""
    for name in (*TORCHRUN, "TF_CONFIG"):
        monkeypatch.delenv(name, raising=False)


# --- The place of a worker ----------------------------------------------------------------------------------


@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
def test_without_a_launcher_a_process_is_alone(framework, monkeypatch):
    """Otherwise a plain training waits for workers that nobody started."""
    monkeypatch.setenv("TF_CONFIG", "")
    assert workers.place(framework) == ALONE == Place(0, 1, 0, 1)
    assert ALONE.chief
    assert ALONE.share == (0, 1)


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        (("3", "4", "1", "2"), Place(3, 4, 1, 2)),
        (("1", "2", None, None), Place(1, 2, 0, 1)),  # as some clusters set them: each on a machine of its own
        (("0", "1", "0", "1"), ALONE),
    ],
)
def test_torchrun_s_variables_give_the_place(monkeypatch, variables, place):
    """Otherwise workers of torchrun all train as the first one, or all alone."""
    for name, value in zip(TORCHRUN, variables, strict=True):
        if value is not None:
            monkeypatch.setenv(name, value)
    assert workers.place("torch") == place
    assert (place.chief, place.share) == (place.rank == 0, (place.rank, place.count))
    assert workers.place("tensorflow") == ALONE


@pytest.mark.parametrize(
    "variables",
    [
        ("2", "2", "0", "1"),  # counted from 1
        ("-1", "2", "0", "1"),
        ("0", "0", "0", "1"),
        ("0", "2", "1", "1"),
        ("0", "2", "0", "3"),
        ("1", "two", "0", "1"),
        ("1", "", "0", "1"),
        ("1.0", "2", "0", "1"),
    ],
)
def test_torchrun_s_variables_that_are_no_place_are_named(monkeypatch, variables):
    """Otherwise two workers take one part of each batch, and no one the other."""
    for name, value in zip(TORCHRUN, variables, strict=True):
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="are no place among workers: start with torchrun, or unset them") as refused:
        workers.place("torch")
    assert f"RANK={variables[0]}, WORLD_SIZE={variables[1]}," in str(refused.value)


HOSTS = ["a:1", "b:1", "a:2"]


def tf_config(cluster, kind, index):
    return json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})


@pytest.mark.parametrize(
    ("config", "place"),
    [
        (tf_config({"worker": HOSTS}, "worker", 0), Place(0, 3, 0, 2)),
        (tf_config({"worker": HOSTS}, "worker", 1), Place(1, 3, 0, 1)),
        (tf_config({"worker": HOSTS}, "worker", "2"), Place(2, 3, 1, 2)),
        (tf_config({"worker": HOSTS, "chief": ["c:1"]}, "chief", 0), Place(0, 4, 0, 1)),
        (tf_config({"worker": HOSTS, "chief": ["c:1"]}, "worker", 2), Place(3, 4, 1, 2)),
        (tf_config({"worker": HOSTS, "ps": ["c:1"]}, "worker", 1), Place(1, 3, 0, 1)),
        (tf_config({"worker": ["[::1]:1", "[::1]:2"]}, "worker", 1), Place(1, 2, 1, 2)),
        (tf_config({"worker": ["a:1"]}, "worker", 0), ALONE),
    ],
)
def test_tf_config_gives_the_place(monkeypatch, config, place):
    """Otherwise workers of a cluster train as the first one; its chief comes before its workers, as in TensorFlow."""
    monkeypatch.setenv("TF_CONFIG", config)
    assert workers.place("tensorflow") == place
    assert workers.place("torch") == ALONE


@pytest.mark.parametrize(
    "config",
    [
        "{",
        "[]",
        "7",
        "{}",
        "[" * 100_000,
        '{"cluster": null, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1"]}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker"}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1e999}}',
        tf_config({}, "worker", 0),
        tf_config({"worker": 2}, "worker", 0),
        tf_config({"worker": [2]}, "worker", 0),
        tf_config({"worker": "a:1"}, "worker", 0),  # not three machines, of a letter each
        tf_config({"worker": HOSTS}, "worker", 3),
        tf_config({"worker": HOSTS}, "worker", -1),
        tf_config({"worker": HOSTS}, "worker", "first"),
        tf_config({"worker": HOSTS}, "chief", 0),
        tf_config({"worker": HOSTS, "evaluator": ["c:1"]}, "evaluator", 0),  # does not train
    ],
)
def test_a_tf_config_that_is_no_place_is_refused(monkeypatch, config):
    """Otherwise a wrong line in a cluster's settings ends in a traceback."""
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(UserError, match="the variable TF_CONFIG is no place among workers, such as"):
        workers.place("tensorflow")


@pytest.mark.parametrize(
    ("place", "stated", "cores", "threads"),
    [
        (ALONE, None, 8, None),
        (ALONE, 3, 8, 3),
        (Place(0, 4, 0, 4), None, 8, 2),
        (Place(0, 4, 0, 4), None, 6, 1),
        (Place(0, 4, 0, 4), None, 2, 1),
        (Place(0, 4, 0, 4), None, None, 1),
        (Place(0, 4, 0, 1), None, 8, None),  # each on a machine of its own
        (Place(0, 4, 0, 4), 3, 8, 3),
    ],
)
def test_workers_of_one_machine_share_its_cores(monkeypatch, place, stated, cores, threads):
    """Otherwise each worker takes all cores, and all wait for each other; or a number that was asked for is changed."""
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert workers.threads_of(place, stated) == threads


def test_every_worker_has_as_many_shards():
    """Otherwise some shards of a batch are computed by nobody, or a worker waits for what no other gives."""
    config = Config(training=TrainingConfig(batch_size=8, shards=4))
    for count in (1, 2, 4):
        workers.require_divisible(Place(0, count), config)
    for count in (3, 8):
        with pytest.raises(UserError, match=f"--shards 4: cannot be shared out among {count} workers: take a multiple"):
            workers.require_divisible(Place(0, count), config)


# --- What they say to each other ----------------------------------------------------------------------------


class Room:
    """A worker among others that are threads: what they give is handed to all once all are there."""

    def __init__(self, place, given, barrier):
        self.place, self.given, self.barrier = place, given, barrier

    def gather(self, words):
        """As workers.Workers.gather."""
        self.given[self.place.rank] = words.copy()
        self.barrier.wait()
        rows = np.stack(self.given)
        self.barrier.wait()
        return rows


def together(count, act):
    """The results of act(worker) of `count` workers that are there at once, or the errors that it raises."""
    given, barrier, results = [None] * count, threading.Barrier(count, timeout=10), [None] * count

    def run(rank):
        try:
            results[rank] = act(Room(Place(rank, count), given, barrier))
        except Exception as error:
            results[rank] = error

    threads = [threading.Thread(target=run, args=(rank,), name=f"worker {rank}") for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.parametrize(
    "array",
    [
        np.array([1, 2, 250], np.uint8),  # three bytes: no whole word
        np.array([True]),
        np.array([[0.1, -0.0], [np.nan, np.inf]]),
        np.arange(6, dtype=np.float32).reshape(2, 3).T,
        np.array(7, np.int64),
        np.zeros((0, 4), np.float32),
    ],
)
def test_arrays_of_any_type_and_shape_are_gathered(array):
    """Otherwise bytes are lost, or turned round, on the way from one worker to the others."""

    def act(room):
        return workers.gather(room, array if room.place.rank == 1 else np.zeros_like(array))

    for rows in together(3, act):
        assert isinstance(rows, np.ndarray)
        assert (rows.shape, rows.dtype) == ((3, *array.shape), array.dtype)
        assert rows[1].tobytes() == array.tobytes()
        assert not rows[0].any()
        assert not rows[2].any()


def test_values_of_any_length_are_gathered():
    """Otherwise a worker whose settings are longer than the others' ends the run in a traceback, or is cut off."""
    values = [{"a": [1, None, "é" * 99]}, "", 0.1]
    assert together(3, lambda room: workers.gather_json(room, values[room.place.rank])) == [values] * 3


@pytest.mark.parametrize("stops", [[], [0], [1], [0, 2]])
def test_all_go_on_or_none_does(stops):
    """Otherwise one worker waits for ever in a step that the others do not make."""
    assert together(3, lambda room: workers.proceed(room, room.place.rank in stops)) == [not stops] * 3


def test_a_worker_alone_asks_nobody():
    """Otherwise every step of every run waits for a message that is not sent."""
    assert workers.proceed(Room(ALONE, None, None))


def refused(count, of_worker):
    """What each of the workers raises, of whom the last has other facts: of_worker(is it the last) gives them."""

    def act(room):
        workers.require_same(room, "torch", *of_worker(room.place.rank == count - 1))

    return together(count, act)


@pytest.mark.parametrize(
    ("config", "sha256", "begin", "what"),
    [
        (Config(seed=2), "d", "", "its seed is 2, not 1"),
        (Config(seed=1, precision="fp64"), "d", "", "its precision is 'fp64', not 'fp32'"),
        (
            Config(seed=1, training=TrainingConfig(learning_rate=0.5)),
            "d",
            "",
            "its training.learning_rate is 0.5, not 0.001",
        ),
        (Config(seed=1), "e", "", "its data is 'e', not 'd'"),
        (Config(seed=1), "d", "c", "its checkpoint is 'c', not ''"),
        (Config(seed=2), "e", "", "its seed is 2, not 1; its data is 'e', not 'd'"),
    ],
)
def test_a_worker_that_would_train_another_run_is_named(config, sha256, begin, what):
    """Otherwise gradients of two runs are mixed, and the result is none of anybody's."""
    errors = refused(3, lambda last: (config, sha256, begin) if last else (Config(seed=1), "d", ""))
    message = f"worker 2 would train another run than worker 0: {what}. Start all with one command"
    assert [(type(error), str(error)) for error in errors] == [(UserError, message)] * 3


def test_a_worker_with_other_code_is_named(monkeypatch):
    """Otherwise one machine that was not updated changes what all compute."""
    monkeypatch.setattr(workers, "code_sha256", lambda tree: f"{tree} {threading.current_thread().name == 'worker 1'}")
    errors = refused(2, lambda last: (Config(), "d", ""))
    assert str(errors[0]) == str(errors[1])
    assert "its code is 'ddpm_torch True', not 'ddpm_torch False'" in str(errors[0])


def test_where_its_files_are_is_a_worker_s_own():
    """Otherwise machines with their data in different folders could not train together."""
    config = Config()
    elsewhere = dataclasses.replace(config, data=dataclasses.replace(config.data, data_dir="/mnt/b"))
    assert refused(2, lambda last: (elsewhere if last else config, "d", "")) == [None, None]


def test_the_code_s_hash_changes_with_any_source_file(tmp_path, monkeypatch):
    """Otherwise workers with two versions of a file pass for equal; a compiled file, though, is no difference."""
    package = tmp_path / "a_tree"
    (package / "part").mkdir(parents=True)
    for name in ("__init__.py", "part/__init__.py", "part/a.py"):
        (package / name).write_text("A = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    seen = [workers.code_sha256("a_tree")]
    assert workers.code_sha256("a_tree") == seen[0]
    (package / "part" / "a.py").write_text("A = 2\n")
    seen.append(workers.code_sha256("a_tree"))
    (package / "part" / "a.py").rename(package / "part" / "b.py")
    seen.append(workers.code_sha256("a_tree"))
    (package / "c.py").write_text("")
    seen.append(workers.code_sha256("a_tree"))
    assert len(set(seen)) == 4
    (package / "c.pyc").write_bytes(b"compiled")
    assert workers.code_sha256("a_tree") == seen[-1]
    assert workers.code_sha256("ddpm_torch") != workers.code_sha256("ddpm_tf")


def python(lines, *arguments, **options):
    command = [sys.executable, "-c", lines, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False, **options)


def test_a_worker_that_waits_in_vain_ends_with_a_sentence():
    """Otherwise a machine that does not start holds all others for ever."""
    lines = (
        "import time; from ddpm_shared.workers import Place, joining\nwith joining(Place(1, 2), 0.2): time.sleep(50)"
    )
    done = python(lines)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: worker 1 of 2 has waited 0.2 seconds for the others: start all of them")


def test_the_time_to_join_ends_when_all_are_there():
    """Otherwise a training ends two minutes after its start."""
    lines = """
import time
from pathlib import Path
from ddpm_shared.workers import Place, joining
with joining(Place(0, 2), 0.5):
    pass
time.sleep(1.0)
print("done")
"""
    done = python(lines)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


# --- The launcher -------------------------------------------------------------------------------------------

# The launcher of a module "act", in the current folder, with little patience.
LAUNCH = """
from ddpm_shared import command_line, launch
launch.COMMANDS, launch.GRACE, launch.LAST_GRACE = ("act",), 1.5, 0.5
command_line.guard(launch.main)
"""
ACT = """
import json, os, signal, sys, time
from pathlib import Path
rank = int(os.environ["RANK"])
"""


@pytest.fixture
def act(tmp_path):
    """A function: the lines of "act", which know their rank, and the number of workers -> the launcher, begun."""
    started = []

    def start(lines, count=2, *flags, **variables):
        (tmp_path / "act.py").write_text(ACT + lines)
        command = [sys.executable, "-c", LAUNCH, str(count), "act", *flags]
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env=os.environ | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def end(process):
    """Exit code, stdout, stderr."""
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing is no number of workers from 1 to 64"),
        ([""], "nothing is no number of workers"),
        (["0", "ddpm_torch.train"], "0 is no number"),
        (["65", "ddpm_torch.train"], "65 is no number"),
        (["-1", "ddpm_torch.train"], "-1 is no number"),
        (["1.5", "ddpm_torch.train"], "1.5 is no number"),
        (["²", "ddpm_torch.train"], "² is no number"),
        (["9" * 5000, "ddpm_torch.train"], "is no number"),
        (["ddpm_torch.train", "2"], "ddpm_torch.train is no number"),
        (["2"], "nothing is no command that several workers can do"),
        (["2", "os"], "os is no command"),
        (["2", "ddpm_torch.learner"], "ddpm_torch.learner is no command"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    """Otherwise a misspelt command is started many times over, or none is and nobody says so."""
    with pytest.raises(UserError) as refused:
        launch.main(arguments)
    assert message in str(refused.value)
    assert "python -m ddpm_shared.launch COUNT MODULE [FLAGS ...]" in str(refused.value)


def test_help_is_shown(capsys):
    """Otherwise a user must read the source to start two workers."""
    with pytest.raises(SystemExit) as stopped:
        launch.main(["--help"])
    assert not stopped.value.code
    assert "usage: python -m ddpm_shared.launch COUNT MODULE" in capsys.readouterr().out


TELL = """
from ddpm_shared import workers
places = {name: vars(workers.place(name)) for name in ("torch", "tensorflow")}
environment = {name: os.environ.get(name) for name in ("MASTER_ADDR", "MASTER_PORT", "TF_CONFIG", "OTHER")}
Path(f"{rank}.json").write_text(json.dumps([places, environment, sys.argv[1:], sys.stdin.read()]))
print("out", rank)
print("err", rank, file=sys.stderr)
"""


def test_each_worker_gets_its_place_and_only_the_chief_is_heard(act, tmp_path):
    """Otherwise two workers think that they are one, or a user reads everything three times."""
    assert end(act(TELL, 3, "--a", "b c", OTHER="mine")) == (0, "out 0\n", "err 0\n")
    told = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(3)]
    for rank, (places, environment, flags, stdin) in enumerate(told):
        assert places == dict.fromkeys(("torch", "tensorflow"), vars(Place(rank, 3, rank, 3)))
        assert (flags, stdin, environment["OTHER"]) == (["--a", "b c"], "", "mine")
        assert json.loads(environment["TF_CONFIG"])["task"] == {"type": "worker", "index": rank}
    meeting = {(environment["MASTER_ADDR"], environment["MASTER_PORT"]) for _, environment, _, _ in told}
    hosts = {tuple(json.loads(environment["TF_CONFIG"])["cluster"]["worker"]) for _, environment, _, _ in told}
    assert len(meeting) == len(hosts) == 1, "all are told the same"
    ports = [int(host.removeprefix("localhost:")) for host in hosts.pop()] + [int(meeting.pop()[1])]
    assert len(set(ports)) == 4


def test_one_worker_is_alone_whatever_was_set_before(act, tmp_path):
    """Otherwise WORKERS=1 on a machine of a cluster waits for the others of that cluster."""
    assert end(act(TELL, 1, TF_CONFIG=tf_config({"worker": HOSTS}, "worker", 1), WORLD_SIZE="9"))[0] == 0
    places, *_ = json.loads((tmp_path / "0.json").read_text())
    assert places == dict.fromkeys(("torch", "tensorflow"), vars(ALONE))


WAIT = "time.sleep(50)\n"


@pytest.mark.parametrize(
    ("lines", "code", "sentence"),
    [
        # one that fails while the chief waits for it
        ("if rank == 1: print('so', 'error: no disk', sep='\\n', file=sys.stderr); sys.exit(3)\n" + WAIT, 1,
         "worker 1 of 3: error: no disk"),
        ("if rank == 1: sys.exit(3)\n" + WAIT, 1, "worker 1 of 3: ended with code 3"),
        ("if rank == 1: os.write(2, b'\\xff no text'); sys.exit(3)\n" + WAIT, 1, "worker 1 of 3: \ufffd no text"),
        ("if rank == 2: os.kill(os.getpid(), signal.SIGKILL)\n" + WAIT, 1, "worker 2 of 3: was ended by signal 9"),
        # and the chief, which says why itself, unless it cannot
        ("if rank == 0: os.kill(os.getpid(), signal.SIGKILL)\n" + WAIT, 1, "worker 0 of 3: was ended by signal 9"),
        ("if rank == 0: print('error: a typo', file=sys.stderr); sys.exit(2)\n" + WAIT, 2, "error: a typo"),
        # it notices that another one is gone
        ("if rank == 1: Path('gone').touch(); os.kill(os.getpid(), signal.SIGKILL)\n"
         "while not Path('gone').exists(): time.sleep(0.02)\ntime.sleep(0.3); sys.exit(2)\n", 2,
         "worker 1 of 3: was ended by signal 9"),
    ],
)  # fmt: skip
def test_if_one_worker_fails_all_end_and_it_is_said_why(act, lines, code, sentence):
    """Otherwise the others wait for it for ever, or a user learns only that something went wrong."""
    began = time.monotonic()
    ended, out, err = end(act(lines, 3))
    assert (ended, out, err.removeprefix("\n")) == (code, "", sentence + "\n")  # the chief may leave a line open
    assert time.monotonic() - began < 30


def test_no_worker_is_left_over(act, tmp_path):
    """Otherwise a worker that hangs holds its GPU until somebody finds it."""
    lines = """
Path(f"{os.getpid()}.pid").touch()
if rank == 0:
    while len(list(Path().glob("*.pid"))) < 3: time.sleep(0.05)
    sys.exit(0)
if rank == 1:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(50)
"""
    code, _, err = end(act(lines, 3))
    assert (code, err) == (0, ""), "the chief's work is done"
    pids = [int(path.stem) for path in tmp_path.glob("*.pid")]
    assert len(pids) == 3
    assert not [pid for pid in pids if psutil.pid_exists(pid)]


COUNT_SIGNALS = """
seen = []
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda number, frame: seen.append(number))
Path(f"{rank}.ready").touch()
ends = time.monotonic() + 40
while not seen and time.monotonic() < ends:
    time.sleep(0.02)
time.sleep(0.7 if rank == 0 else 0.1)  # the chief saves, for longer than the launcher's patience with a failure
Path(f"{rank}.seen").write_text(json.dumps(seen))
print("stopping after this step", file=sys.stderr)
sys.exit(128 + seen[0])
"""


@pytest.mark.parametrize("number", stopping.signals())
def test_a_signal_goes_to_each_worker_once(act, tmp_path, number):
    """Otherwise a Ctrl-C counts twice and nothing is saved, or stops the chief alone; and stopping is no failure."""
    process = act(COUNT_SIGNALS, 3)
    while len(list(tmp_path.glob("*.ready"))) < 3:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    assert end(process) == (128 + number, "", "stopping after this step\n")
    assert [json.loads((tmp_path / f"{rank}.seen").read_text()) for rank in range(3)] == [[number]] * 3


def test_a_terminal_s_ctrl_c_does_not_reach_the_workers_by_itself(act, tmp_path):
    """Otherwise each gets it twice, from the terminal and from the launcher: the second one acts at once."""
    process = act("Path(f'{rank}.group').write_text(str(os.getpgid(0)))", 2)
    assert end(process)[0] == 0
    groups = {int((tmp_path / f"{rank}.group").read_text()) for rank in range(2)}
    assert len(groups) == 2
    assert os.getpgid(0) not in groups


# --- The loop -----------------------------------------------------------------------------------------------

STEPS = 8
FLAGS = [
    *("--preset", "tiny", "--dataset", "fashion-mnist-10k", "--batch-size", "16", "--epochs", "2", "--shards", "4"),
    *("--checkpoint-every", "3", "--validation-images", "20", "--sample-every", "0", "--device", "cpu"),
]


class Other:
    """This worker among two, of whom the other says what this one says, stops before a step, or is lost there."""

    def __init__(self, place, stops=None, lost=None):
        self.place, self.stops, self.lost = place, stops, lost
        self.said = []  # by this one, before each step: whether it stops

    def gather(self, words):
        """As workers.Workers.gather; a single word is that of proceed."""
        other = words.copy()
        if len(words) == 1:
            if self.lost == len(self.said):
                raise WorkerLost("worker 1 of 2 has ended")
            other[:] |= self.stops == len(self.said)
            self.said.append(bool(words[0]))
        return np.stack([words, other])


class Fake:
    """A learner of one number. `at` is what to call in the step of that number, or the loss that it has."""

    device_name, threads, num_parameters, whole = "cpu", 1, 1, True

    def __init__(self, at):
        self.at, self.images = at, []
        self.state = {f"{prefix}/x": np.zeros(1) for prefix in checkpoint.PREFIXES}

    def train_step(self, batch, step):
        """One more."""
        assert step == len(self.images)
        self.images.append(len(batch.pixels))
        self.state["model/x"] += 1
        planned = self.at.get(step)
        if callable(planned):
            planned()
        return planned if isinstance(planned, float) else 0.5, 0.5, 1e-4

    def validation_losses(self, batches):
        """As Learner.validation_losses."""
        yield sum(len(batch.pixels) for batch in batches), 0.5

    def tensors(self):
        """As Learner.tensors."""
        return self.state


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """A function: rank, what happens -> exit code or error, the worker, its learner; the chief writes into run/."""
    if not frameworks.installed("torch"):
        pytest.skip("torch is not installed")  # its version is in the records of a run
    cut = [
        dataclasses.replace(split, images=split.images[:64], labels=split.labels[:64])
        for split in datasets.load(datasets.EMBEDDED)
    ]
    monkeypatch.setattr(datasets, "load", lambda name, data_dir=None, folder=None: cut)
    monkeypatch.chdir(tmp_path)

    def run(rank, at=None, flags=(), **other):
        for name, value in zip(TORCHRUN, (rank, 2, rank, 2), strict=True):
            monkeypatch.setenv(name, str(value))
        made, learner = [], Fake(at or {})

        def join(place, config):
            made.append(Other(place, **other))
            return made[0]

        plan = train_command.parse("torch", [*FLAGS, *flags, "--run-dir", "run"])
        try:
            code = train_command.run(plan, join, lambda config, num_steps, workers: learner)
        except Exception as error:
            code = error
        return code, made[0] if made else None, learner

    return run


def saved():
    return checkpoint.load(run_folders.latest_checkpoint(Path("run"))).step


def status():
    with open("run/metrics.json") as file:
        return json.load(file)["status"]


def test_the_chief_tells_the_others_that_the_run_is_done(trained):
    """Otherwise they wait for a step that never comes."""
    code, worker, learner = trained(0)
    assert (code, status(), saved()) == (0, "completed", STEPS)
    assert worker.said == [False] * STEPS + [True]
    assert learner.images == [8] * STEPS, "its share of each batch of 16"


def test_where_another_worker_is_stopped_the_chief_saves(trained, capfd):
    """Otherwise a signal to one worker of a cluster costs the steps since the last checkpoint."""
    code, worker, _ = trained(0, stops=5)
    assert (code, status(), saved()) == (130, "interrupted", 5)
    assert worker.said == [False] * 6, "and nobody is asked again"
    assert "interrupted at step 5 of 8; continue with --resume run" in capfd.readouterr().err


def test_a_signal_to_the_chief_stops_all_after_the_same_step(trained):
    """Otherwise the others go on to a step that the chief does not make."""
    code, worker, _ = trained(0, at={4: lambda: os.kill(os.getpid(), signal.SIGTERM)})
    assert (code, status(), saved()) == (143, "interrupted", 5)
    assert worker.said == [False] * 5 + [True]


def test_where_another_worker_is_lost_the_chief_saves_and_waits_for_nobody(trained):
    """Otherwise a dead machine costs the steps since the last checkpoint, or the chief waits for it while it saves."""
    code, worker, _ = trained(0, lost=5)
    assert isinstance(code, WorkerLost)
    assert (status(), saved()) == ("failed", 5)
    assert worker.said == [False] * 5


@pytest.mark.parametrize("at", [{4: float("nan")}, {4: lambda: 1 / 0}], ids=["a loss of NaN", "a bug"])
def test_a_chief_that_fails_lets_the_others_go(trained, at):
    """Otherwise they hang until somebody kills them."""
    code, worker, _ = trained(0, at=at)
    assert code == 1 or isinstance(code, ZeroDivisionError)
    assert status() == "failed"
    assert worker.said[-1] is True
    assert worker.said.count(True) == 1


def test_a_follower_makes_the_chief_s_steps_and_writes_nothing(trained, tmp_path, capfd):
    """Otherwise two workers write one run folder, and each reports the run as its own."""
    code, worker, learner = trained(1, stops=STEPS)
    assert (code, learner.images) == (0, [8] * STEPS)
    assert worker.said == [False] * (STEPS + 1)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().out == ""


def test_a_signal_to_a_follower_is_told_before_the_next_step(trained):
    """Otherwise it leaves at once, and the others wait for it in the middle of a step."""
    code, worker, learner = trained(1, at={2: lambda: os.kill(os.getpid(), signal.SIGINT)})
    assert (code, len(learner.images)) == (0, 3)  # the chief says how it ended
    assert worker.said == [False, False, False, True]


def test_a_follower_without_its_chief_ends(trained):
    """Otherwise workers of a dead chief stay for ever."""
    code, _, learner = trained(1, lost=2)
    assert isinstance(code, WorkerLost)
    assert len(learner.images) == 2


@pytest.mark.parametrize("rank", [0, 1])
def test_shards_that_cannot_be_shared_out_are_refused_before_anybody_is_waited_for(trained, rank):
    """Otherwise all workers start, wait and import a framework, for a typo."""
    error, worker, learner = trained(rank, flags=("--shards", "1"))
    assert isinstance(error, UserError)
    assert str(error).startswith("--shards 1: cannot be shared out among 2 workers: take a multiple of 2.")
    assert worker is None
    assert learner.images == []
