"""Real processes that train together: they compute what one computes, and whatever happens to one of them, all end.

What needs no framework is in test_workers.py. Every wait has an end.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from conftest import has_one_thread, require

import ddpm_shared
from ddpm_shared import launch
from ddpm_shared.records import checkpoint
from ddpm_shared.records import folder as run_folders

LIMIT = 300  # seconds for what takes half a minute
KILLED = 30  # seconds within which all have ended when one was killed
# Small, with all that a batch has: flips, labels of which some are dropped, gradients of which some are clipped. The
# learning rate does not fall, so that a run is the beginning of any longer one.
SETTINGS = [
    *("--preset", "tiny", "--base-channels", "8", "--channel-mults", "1", "--num-groups", "4", "--batch-size", "8"),
    *("--max-grad-norm", "0.5", "--learning-rate-decay", "none", "--warmup-steps", "2", "--horizontal-flip"),
    *("--validation-images", "16", "--sample-every", "0", "--checkpoint-every", "5", "--threads", "1"),
]
CLOTHES = [*SETTINGS, "--dataset", "fashion-mnist-10k", "--class-conditional", "--label-drop", "0.3"]
FOR_EVER = ("--max-steps", 1_000_000, "--epochs", 1_000_000)


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TF_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def launched(tree, count, *flags):
    """The command of several workers on this machine."""
    return [sys.executable, "-m", "ddpm_shared.launch", str(count), f"ddpm_{tree.name}.train", *map(str, flags)]


def run(command):
    """Exit code and stderr, in which there is no traceback."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def train(tree, count, *flags):
    code, err = run(launched(tree, count, *flags))
    assert code == 0, err


def last(folder):
    return checkpoint.load(run_folders.latest_checkpoint(folder))


def bits(folder):
    """All state after the last step, to the last bit."""
    return {name: (value.dtype.str, value.shape, value.tobytes()) for name, value in last(folder).tensors.items()}


def assert_same_state(folder, other):
    ours, theirs = bits(folder), bits(other)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text("utf-8"))


def history(folder):
    """What was recorded, without the times."""
    return {
        kind: [{key: value for key, value in each.items() if key not in ("wall_s", "images_per_s")} for each in records]
        for kind, records in metrics(folder)["history"].items()
    }


def files_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# --- One result ---------------------------------------------------------------------------------------------


def test_two_workers_make_what_one_makes(tree, tmp_path, monkeypatch):
    """Otherwise a run on two machines is another run, and a gradient is lost, counted twice or rounded otherwise."""
    one, two = tmp_path / "one", tmp_path / "two"
    flags = [*CLOTHES, "--shards", "2", "--max-steps", "6", "--run-dir"]
    if has_one_thread():  # then no process needs to be started
        monkeypatch.setattr(tree.utils, "set_threads", lambda threads: None)
        assert tree.train.main([*flags, str(one)]) == 0
    else:
        train(tree, 1, *flags, one)
    train(tree, 2, *flags, two)
    assert last(two).step == 6
    assert_same_state(two, one)
    assert history(two) == history(one)
    assert files_in(two) == files_in(one), "and only one of them writes"


def test_shards_that_cannot_be_shared_out_are_refused(tree, tmp_path):
    """Otherwise the workers wait for each other, or a part of each batch is computed by nobody."""
    flags = [*CLOTHES, "--batch-size", 9, "--shards", 3, "--run-dir", tmp_path / "run"]
    code, err = run(launched(tree, 2, *flags))
    assert code == 2
    sentence = "error: --shards 3: cannot be shared out among 2 workers: take a multiple of 2."
    lines = [line.removeprefix("worker 1 of 2: ") for line in err.splitlines()]
    assert lines
    assert all(line.startswith(sentence) for line in lines), err


FORTY = [*CLOTHES, "--shards", 4, "--max-steps", 40]


@pytest.fixture(scope="module")
def forty(tmp_path_factory):
    """A function: tree -> the folder of forty steps in four shards by one worker."""
    made = {}

    def folder(tree):
        if tree.name not in made:
            made[tree.name] = tmp_path_factory.mktemp(tree.name) / "run"
            train(tree, 1, *FORTY, "--run-dir", made[tree.name])
        return made[tree.name]

    return folder


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_any_number_of_workers_makes_the_same(tree, forty, tmp_path, count):
    """Otherwise a result cannot be repeated where there are more machines, or fewer."""
    train(tree, count, *FORTY, "--run-dir", tmp_path / "run")
    assert_same_state(tmp_path / "run", forty(tree))
    assert history(tmp_path / "run") == history(forty(tree))


@pytest.mark.slow
def test_another_number_of_workers_goes_on_with_a_run(tree, forty, tmp_path):
    """Otherwise a run that lost a machine must wait for it, or becomes another run."""
    folder = tmp_path / "run"
    train(tree, 2, *FORTY, "--max-steps", 14, "--run-dir", folder)
    train(tree, 1, "--resume", folder, "--max-steps", 27)
    train(tree, 4, "--resume", folder, "--max-steps", 40)
    assert_same_state(folder, forty(tree))


@pytest.mark.slow
def test_the_library_s_own_sum_differs_by_rounding(tree, forty, tmp_path):
    """Otherwise --reduce fast is not the same mean."""
    train(tree, 4, *FORTY, "--reduce", "fast", "--run-dir", tmp_path / "run")
    ours, theirs = history(tmp_path / "run")["steps"], history(forty(tree))["steps"]
    assert len(ours) == len(theirs) == 40
    for key in ("loss", "grad_norm"):
        np.testing.assert_allclose([each[key] for each in ours], [each[key] for each in theirs], rtol=1e-4)


@pytest.mark.slow
def test_torchrun_starts_the_workers_too(forty, tmp_path):
    """Otherwise what clusters start computes something else: torchrun sets another number of threads, for one."""
    tree = require("torch")
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "ddpm_torch.train"]
    code, err = run([sys.executable, *torchrun, *map(str, FORTY), "--run-dir", str(tmp_path / "run")])
    assert code == 0, err
    assert_same_state(tmp_path / "run", forty(tree))


# --- One of them ends ---------------------------------------------------------------------------------------


class Training:
    """Two workers that train for ever."""

    def __init__(self, tree, folder):
        self.tree, self.folder, self.errors = tree, folder / "run", folder / "stderr"
        command = launched(tree, 2, *CLOTHES, "--shards", 2, *FOR_EVER, "--run-dir", self.folder)
        with self.errors.open("wb") as file:  # a pipe would be full of progress bars
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=file, start_new_session=True
            )
        self.workers = []

    def begin(self):
        """Wait until there is a checkpoint."""
        ends = time.monotonic() + LIMIT
        while not (self.folder / "checkpoints" / "latest").exists():
            assert self.process.poll() is None, self.err
            assert time.monotonic() < ends, self.err
            time.sleep(0.05)
        self.workers = sorted(self.children(), key=lambda child: int(child.environ()["RANK"]))
        assert len(self.workers) == 2

    def children(self):
        """The launcher's processes."""
        return psutil.Process(self.process.pid).children() if self.process.poll() is None else []

    @property
    def err(self):
        """What they said on stderr."""
        return self.errors.read_text("utf-8", errors="replace").replace("\r", "\n")

    def end(self, seconds):
        """The exit code, of which the launcher must have one by then; and nobody is left."""
        code = self.process.wait(seconds)
        assert "Traceback" not in self.err
        assert [worker for worker in self.workers if worker.is_running()] == []
        return code

    def assert_goes_on(self):
        """Every checkpoint is whole, and one worker goes on to what a run that was never stopped comes to."""
        for path in (self.folder / "checkpoints").glob("*.safetensors"):
            checkpoint.load(path)
        steps, whole = last(self.folder).step + 3, self.folder.with_name("whole")
        train(self.tree, 1, "--resume", self.folder, "--max-steps", steps)
        train(self.tree, 1, *CLOTHES, "--shards", 2, *FOR_EVER, "--max-steps", steps, "--run-dir", whole)
        assert last(self.folder).step == steps
        assert_same_state(self.folder, whole)

    def kill(self):
        """Leave nobody behind, whatever the test came to."""
        for each in [*self.workers, *self.children(), self.process]:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        self.process.wait(LIMIT)


@pytest.fixture
def training(tree, tmp_path):
    """A Training of each tree."""
    made = Training(tree, tmp_path)
    try:
        made.begin()
        yield made
    finally:
        made.kill()


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_worker_that_is_killed_ends_all(training, rank):
    """Otherwise the others wait for a dead machine, or the run is lost with it."""
    time.sleep(0.3)  # steps are being made
    training.workers[rank].kill()
    assert training.end(KILLED) in (1, 2)
    lines = [line for line in training.err.splitlines() if line.strip()]
    assert lines[-1] == f"worker {rank} of 2: was ended by signal 9"
    training.assert_goes_on()


@pytest.mark.slow
def test_ctrl_c_stops_all_after_the_same_step(training):
    """Otherwise one worker saves a step that another has not made, or waits for it for ever."""
    training.process.send_signal(signal.SIGINT)
    assert training.end(LIMIT) == 130
    step = last(training.folder).step
    assert f"interrupted at step {step} of" in training.err
    assert "worker 1 of 2" not in training.err
    assert (metrics(training.folder)["status"], metrics(training.folder)["final"]["step"]) == ("interrupted", step)
    training.assert_goes_on()


@pytest.mark.slow
def test_a_signal_to_any_worker_stops_all(training):
    """Otherwise a cluster that takes one machine back ends the run in the middle of a step."""
    training.workers[1].send_signal(signal.SIGTERM)
    assert training.end(LIMIT) == 130
    assert metrics(training.folder)["status"] == "interrupted"
    training.assert_goes_on()


# --- Workers that do not fit together -----------------------------------------------------------------------


def by_hand(tree, *commands, variables=({}, {}), places=None):
    """Exit code and stderr of workers that are started one by one: the flags of each, and its own variables."""
    places = places or launch.environments(2)
    started = [
        subprocess.Popen(
            [sys.executable, *(flags if flags[0] == "-c" else ("-m", f"ddpm_{tree.name}.train", *flags))],
            env=os.environ | places[rank] | variables[rank],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, flags in enumerate(commands)
    ]
    try:
        errors = [process.communicate(timeout=LIMIT)[1] for process in started]
    finally:
        for process in started:
            process.kill()
            process.communicate()
    assert not [err for err in errors if "Traceback" in err]
    return [(process.returncode, err) for process, err in zip(started, errors, strict=True)]


def assert_refused(ended, *parts):
    """Both workers end with the same sentence, which has these parts."""
    for code, err in ended:
        assert code == 2, err
        (sentence,) = (line for line in err.splitlines() if line.startswith("error: "))
        assert sentence.startswith("error: worker 1 would train another run than worker 0: ")
        assert [part for part in parts if part not in sentence] == []
    assert not Path("run/checkpoints").exists()


def flags_of(*others):
    return [*CLOTHES, "--shards", "2", "--max-steps", "4", "--run-dir", "run", *others]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("others", "part"),
    [(("--seed", "2"), "its seed is 2, not 0"), (("--learning-rate", "0.5"), "its training.learning_rate is 0.5, not")],
)
def test_a_worker_with_other_settings_is_refused(tree, others, part):
    """Otherwise gradients of two runs are added."""
    assert_refused(by_hand(tree, flags_of(), flags_of(*others)), part)


def own_images(folder, seed):
    """Four IDX files of images of 12 x 12."""
    folder.mkdir()
    drawn = np.random.default_rng(seed)
    for split, count in (("train", 16), ("t10k", 4)):
        for name, shape in (("images-idx3", (count, 12, 12)), ("labels-idx1", (count,))):
            array = drawn.integers(0, 3 if len(shape) == 1 else 256, shape, np.uint8)
            header = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *shape)
            (folder / f"{split}-{name}-ubyte").write_bytes(header + array.tobytes())
    return str(folder)


@pytest.mark.slow
def test_a_worker_with_other_images_is_refused(tree, tmp_path):
    """Otherwise a machine with an old copy of the data trains on pictures that nobody else has."""
    commands = [
        [
            *SETTINGS,
            "--shards",
            "2",
            "--run-dir",
            "run",
            "--dataset",
            "idx",
            "--data-dir",
            own_images(tmp_path / name, i),
        ]
        for i, name in enumerate("ab")
    ]
    assert_refused(by_hand(tree, *commands), "its data is '")


@pytest.mark.slow
def test_a_worker_with_other_code_is_refused(tree, tmp_path):
    """Otherwise a machine that was not updated changes what all compute."""
    root = Path(ddpm_shared.__file__).parent
    for name, folder in (("ddpm_shared", root), (f"ddpm_{tree.name}", Path(tree.config.__file__).parent)):
        shutil.copytree(folder, tmp_path / "copy" / name, symlinks=False)
    with (tmp_path / "copy" / f"ddpm_{tree.name}" / "learner.py").open("a") as file:
        file.write("# another version\n")
    path = os.pathsep.join([str(tmp_path / "copy"), *filter(None, [os.environ.get("PYTHONPATH")])])
    assert_refused(by_hand(tree, flags_of(), flags_of(), variables=({}, {"PYTHONPATH": path})), "its code is '")


@pytest.mark.slow
def test_a_port_in_use_is_one_sentence(tree):
    """Otherwise two runs on one machine end in a page of a library's own words."""
    places = launch.environments(2)
    address = json.loads(places[0]["TF_CONFIG"])["cluster"]["worker"][0]
    port = places[0]["MASTER_PORT"] if tree.name == "torch" else address.rpartition(":")[2]
    with socket.socket() as taken:
        taken.bind(("", int(port)))
        taken.listen()
        ((code, err),) = by_hand(tree, flags_of(), places=places)
    assert code == 2
    (sentence,) = (line for line in err.splitlines() if line.startswith("error: "))
    assert sentence.startswith("error: worker 0 of 2 cannot join the others at ")
    assert "port is free" in sentence


IMPATIENT = """
import sys
from ddpm_{0} import train
from ddpm_shared import command_line, workers
workers.joining.__wrapped__.__defaults__ = (8.0,)
command_line.guard(train.main)
"""


@pytest.mark.slow
def test_a_worker_that_never_comes_is_waited_for_so_long(tree):
    """Otherwise a machine that does not start holds the others until somebody looks."""
    began = time.monotonic()
    ((code, err),) = by_hand(tree, ["-c", IMPATIENT.format(tree.name), *flags_of()])
    assert code == (2 if tree.name == "torch" else -9), err  # TensorFlow's process can only be killed
    assert "error: worker 0 of 2 has waited 8 seconds for the others: start all of them" in err
    assert time.monotonic() - began < LIMIT / 2


# --- A trap of the library ----------------------------------------------------------------------------------


def test_ddp_does_nothing_for_gradients_that_are_asked_for():
    """Otherwise DistributedDataParallel would do, and this project's own exchange of gradients were needless.

    It sends what arrives at `.grad`. torch.autograd.grad returns gradients and sets no `.grad`: each worker would train
    alone, and nobody would be told.
    """
    require("torch")
    torch = pytest.importorskip("torch")
    dist = torch.distributed
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        sent = []

        def hook(state, bucket):
            sent.append(bucket.buffer().clone())
            done = torch.futures.Future()
            done.set_result(bucket.buffer())
            return done

        network = torch.nn.Linear(3, 2)
        parallel = torch.nn.parallel.DistributedDataParallel(network)
        parallel.register_comm_hook(None, hook)
        for _ in range(2):
            gradients = torch.autograd.grad(parallel(torch.ones(4, 3)).sum(), list(network.parameters()))
        assert [float(gradient.sum()) for gradient in gradients] == [24.0, 8.0]
        assert sent == []
        parallel(torch.ones(4, 3)).sum().backward()
        assert sum(float(buffer.sum()) for buffer in sent) == 32.0
    finally:
        dist.destroy_process_group()
