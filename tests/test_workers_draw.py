"""Several workers draw, and compute bits: one result, the same bytes as one worker's, interrupted or not.

In most tests the workers are threads of this process, which gather by a list, and arithmetic takes the network's place.
What it makes of an image depends on the image's batch, so that another cut of the batches is seen. At the end, real
processes draw with a small network.
"""

import dataclasses
import functools
import json
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from conftest import has_one_thread
from matplotlib.figure import Figure

from ddpm_parity.sampling import TRAINED
from ddpm_shared import datasets, files, frameworks, workers
from ddpm_shared.commands import batchwise, bits, likelihood, rounds, sample
from ddpm_shared.commands.interruption import StopSignals
from ddpm_shared.config import DiffusionConfig
from ddpm_shared.errors import UserError
from ddpm_shared.records import checkpoint
from ddpm_shared.workers import Place, WorkerLost

FRAMEWORK = next(name for name in frameworks.FRAMEWORKS if frameworks.installed(name))
T = 20
N, BATCH, STEPS = 10, 3, 4
WHOLE = [(0, 3), (3, 3), (6, 3), (9, 1)]  # first image and number of images of the batches
LIMIT = 60.0  # seconds that a worker waits at most
LOAD = functools.cache(datasets.load)  # the images are unpacked once
TRAIN, TEST = LOAD("fashion-mnist-10k", None)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A checkpoint: the small trained network, used for a process of T steps."""
    loaded = checkpoint.load(TRAINED, ("ema",))
    config = dataclasses.replace(loaded.config, diffusion=DiffusionConfig(timesteps=T, beta_end=0.5))
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, dataset="fashion-mnist-10k"))
    weights = {name.replace("ema/", "model/"): 0.9 * value for name, value in loaded.tensors.items()}
    path = tmp_path_factory.mktemp("run") / "network.safetensors"
    known = {"framework": "torch", "step": 9, "config": config, "dataset_sha256": TRAIN.sha256}
    checkpoint.save(path, loaded.tensors | weights, **known)
    return path


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "load", LOAD)


# --- Workers that are threads -------------------------------------------------------------------------------


class Team:
    """What workers that are threads have said, by rank, and which of them have ended."""

    def __init__(self, count):
        self.said, self.ended = [[] for _ in range(count)], set()
        self.changed = threading.Condition()

    def end(self, rank):
        """This one says nothing any more."""
        with self.changed:
            self.ended.add(rank)
            self.changed.notify_all()


class Member:
    """In the place of a tree's Workers."""

    def __init__(self, team, rank):
        self.team = team
        self.place = Place(rank, len(team.said), rank, len(team.said))

    def gather(self, words):
        """[n] -> [count, n]; np.stack refuses workers that do not call it with the same n."""
        team, said = self.team, self.team.said
        with team.changed:
            said[self.place.rank].append(words.copy())
            team.changed.notify_all()
            turn = len(said[self.place.rank])

            def silent():
                return [rank for rank, each in enumerate(said) if len(each) < turn]

            team.changed.wait_for(lambda: not silent() or team.ended & {*silent()}, LIMIT)
            if silent():
                raise WorkerLost(f"worker {self.place.rank} cannot reach another one any more: it has ended")
            return np.stack([each[turn - 1] for each in said])


def together(count, work):
    """What `work` returns, or raises, in each of `count` workers, which are given to it."""
    team = Team(count)

    def one(rank):
        try:
            return work(Member(team, rank))
        except Exception as error:
            return error
        finally:
            team.end(rank)

    with ThreadPoolExecutor(count) as pool:
        others = [pool.submit(one, rank) for rank in range(1, count)]
        return [one(0), *(other.result() for other in others)]  # the chief in this thread, which has claimed the folder


class Switch(StopSignals):
    """StopSignals for threads, to which the system sends none: a test says which signal this one has received."""

    of_thread = threading.local()

    def __enter__(self):
        self.of_thread.switch = self
        return self

    def __exit__(self, *_):
        pass


def receive(number=signal.SIGINT):
    """The worker that calls it has received a signal."""
    Switch.of_thread.switch.received = int(number)


class Bar:
    """In the place of tqdm: what is shown."""

    shown = []  # noqa: RUF012 (one list for all, emptied before every test)

    def __init__(self, total, initial, disable, **_):
        self.total, self.n = total, initial
        if not disable:
            self.shown.append(self)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def update(self, n):
        """So much further."""
        self.n += n


@pytest.fixture(autouse=True)
def _workers_may_be_threads(monkeypatch):
    """No signals of the system and no bar on the terminal; real processes are not changed."""
    Bar.shown.clear()
    monkeypatch.setattr(rounds, "StopSignals", Switch)
    monkeypatch.setattr(rounds, "tqdm", Bar)
    for command in (bits, likelihood):
        monkeypatch.setattr(command, "picture", lambda result: Figure(figsize=(1, 1)))


@pytest.fixture
def plans(monkeypatch):
    """A function: command, number of workers, its flags -> the plan of each worker, as it reads the flags itself."""

    def parsed(command, count, argv):
        found = []
        for rank in reversed(range(count)):  # the chief, who makes folders, as the last
            monkeypatch.setattr(workers, "place", lambda framework, rank=rank: Place(rank, count, rank, count))
            found.append(command.parse(FRAMEWORK, [str(each) for each in argv]))
        return found[::-1]

    return parsed


# --- Drawing ------------------------------------------------------------------------------------------------


class Ramp:
    """In the place of a tree's Sampler: an image holds its seed, index, batch and label.

    Args:
        events: first image of a batch -> what happens while it is drawn.
        late: the same, but once all its steps are made.
    """

    device_name, threads = "cpu", 1

    def __init__(self, events, late):
        self.events, self.late, self.batches = events, late, []

    def draw(self, draw, on_step):
        """As a tree's."""
        self.batches.append((draw.first, draw.count))
        pixels = np.zeros((draw.count, 28, 28, 1), np.uint8)
        labels = np.zeros(draw.count) if draw.labels is None else 1.0 + draw.labels
        for k, (image, label) in enumerate(zip(pixels, labels, strict=True)):
            image[0, :5, 0] = draw.seed, draw.first + k, draw.first, draw.count, draw.columns or 0
            image[1, : np.size(label), 0] = 10 * label  # one number, or a weight for each class
        for left in reversed(range(STEPS)):
            if left == 1:
                self.events.get(draw.first, lambda: None)()
            on_step(left, pixels + np.uint8(left))
        self.late.get(draw.first, lambda: None)()
        return pixels

    def to_pixels(self, x):
        """As a tree's."""
        return x


@pytest.fixture
def drawing(plans, network):
    """A function: number of workers, folder, flags -> what each worker's command returned or raised, and its batches.

    `events` and `late` as in Ramp; `change` is what a worker's plan gets instead, by rank.
    """

    def draw(count, out, *argv, events=None, late=None, change=None, source=network):
        flags = ["--checkpoint", source, "--out", out, "--num-images", N, "--batch-size", BATCH]
        all_plans = plans(sample, count, [*flags, "--seed", 7, "--steps", STEPS, "--sampler", "ddim", *argv])
        for rank, command in (change or {}).items():
            plan = all_plans[rank]
            all_plans[rank] = dataclasses.replace(plan, command=dataclasses.replace(plan.command, **command))
        samplers = [Ramp(events or {}, late or {}) for _ in all_plans]

        def work(member):
            rank = member.place.rank
            return sample.run(all_plans[rank], samplers[rank], member)

        return together(count, work), [sampler.batches for sampler in samplers]

    return draw


def contents(folder):
    """The bytes of the files in a folder, by name."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}


KINDS = {
    "plain": [],
    "movie": ["--gif"],
    "between noises": ["--interpolate", "4", "--gif"],
    "of classes": ["--labels", "trouser,bag"],
    "between classes": ["--interpolate-labels", "4"],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [2, 3, 5])
def test_any_number_of_workers_writes_the_same_bytes(drawing, network, tmp_path, count, kind):
    """Otherwise a sample depends on the machines that it was drawn on."""
    flags, source = KINDS[kind], "boxed-conditional" if "classes" in kind else network
    assert drawing(1, tmp_path / "one", *flags, source=source) == ([0], [WHOLE])
    codes, batches = drawing(count, tmp_path / "several", *flags, source=source)
    assert codes == [0] * count
    assert batches == [WHOLE[rank::count] for rank in range(count)]  # no batch is cut; round by round
    expected = {"samples.npz", "grid.png", *(["denoising.gif"] if "--gif" in flags else [])}
    assert contents(tmp_path / "one").keys() == expected
    assert contents(tmp_path / "several") == contents(tmp_path / "one")


def test_only_the_chief_claims_writes_and_prints(drawing, plans, network, tmp_path, capfd):
    """Otherwise two workers of one command refuse each other the folder, or each says everything again."""
    plans(sample, 3, ["--checkpoint", network])  # the chief makes a folder for itself
    assert len(list(Path("runs/samples").iterdir())) == 1
    capfd.readouterr()
    assert drawing(3, tmp_path / "out")[0] == [0, 0, 0]
    printed = capfd.readouterr()
    assert printed.out.count(f"{STEPS} steps") == 1
    assert printed.out.count("10 images: ") == 1
    assert len(printed.out.splitlines()) == 2
    assert printed.err == ""


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_one_bar_shows_the_work_of_all(drawing, tmp_path, count):
    """Otherwise the time that is left is that of one worker's share, or of one worker alone."""
    drawing(count, tmp_path / "out")
    (bar,) = Bar.shown
    assert bar.total == N * STEPS
    assert bar.n == pytest.approx(bar.total)


# Where a signal comes: events, late, and how many images are saved then, of two workers.
STOPS = {
    "both are stopped in the second round": ({6: receive, 9: receive}, {}, 6),
    "the chief is stopped": ({6: receive}, {}, 6),
    "the other one is stopped": ({9: receive}, {}, 6),
    "the other one is stopped in the first round": ({3: receive}, {}, 0),
    "the other one has just made its batch": ({}, {3: receive}, 6),
    "the chief has just made its batch": ({}, {0: receive}, 6),
}


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("then", [1, 2, 3])
def test_what_two_workers_left_any_number_finishes(drawing, tmp_path, capfd, stop, then):
    """Otherwise Ctrl-C costs the images that are there, changes them, or binds the user to so many workers."""
    events, late, count = STOPS[stop]
    out = tmp_path / "out"
    codes, _ = drawing(2, out, events=events, late=late)
    assert codes == [130, 0]  # the chief says how it ended
    expected = f"interrupted; {count} finished images are saved: the same command with --out {out} continues\n"
    assert capfd.readouterr().err == expected
    assert out.exists() == (count > 0)  # an empty folder is removed
    assert [file.name for file in out.glob("*")] == ["samples.partial.npz"] * (count > 0)
    codes, batches = drawing(then, out)
    assert codes == [0] * then
    made = sorted(batch for of_worker in batches for batch in of_worker)
    assert made == [batch for batch in WHOLE if batch[0] >= count]
    drawing(1, tmp_path / "whole")
    assert contents(out) == contents(tmp_path / "whole")


def test_what_one_worker_left_two_finish(drawing, tmp_path, capfd):
    """Otherwise a drawing that takes too long cannot be given a second process."""
    out = tmp_path / "out"
    assert drawing(1, out, events={3: lambda: receive(signal.SIGTERM)})[0] == [143]
    assert "interrupted; 3 finished images are saved" in capfd.readouterr().err
    assert drawing(2, out) == ([0, 0], [[(3, 3), (9, 1)], [(6, 3)]])
    assert "continuing after the 3 images in" in capfd.readouterr().out
    drawing(1, tmp_path / "whole")
    assert contents(out) == contents(tmp_path / "whole")


def test_a_signal_in_the_last_round_changes_nothing_that_is_done(drawing, tmp_path):
    """Otherwise a finished command ends as an interrupted one, and leaves no result."""
    assert drawing(4, tmp_path / "out", late={9: receive})[0] == [0, 0, 0, 0]
    drawing(1, tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def refuse():
    """What a sampler does whose images are not finite."""
    raise UserError("--sampler ddim: the images are not finite")


@pytest.mark.parametrize("first", [6, 9])
def test_a_refusal_of_any_worker_is_the_chief_s(drawing, tmp_path, first):
    """Otherwise the user reads that a worker has ended, and not why."""
    (raised, code), _ = drawing(2, tmp_path / "out", events={first: refuse})
    assert (type(raised), str(raised), code) == (UserError, "--sampler ddim: the images are not finite", 0)
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["samples.partial.npz"]


def crash():
    """What ends a worker without a word to the others."""
    raise MemoryError


def test_a_worker_that_is_lost_costs_its_round_only(drawing, tmp_path):
    """Otherwise the others wait for ever, or what was drawn is lost with it."""
    out = tmp_path / "out"
    (raised, crashed), _ = drawing(2, out, events={9: crash})
    assert (type(raised), type(crashed)) == (WorkerLost, MemoryError)
    kept = f"it has ended; 6 finished images are saved: the same command with --out {out} continues"
    assert str(raised).endswith(kept)
    (crashed, raised), _ = drawing(2, out, events={6: crash})
    assert (type(crashed), type(raised)) == (MemoryError, WorkerLost)
    assert "--out" not in str(raised)  # it knows of no folder
    assert drawing(2, out)[0] == [0, 0]
    drawing(1, tmp_path / "whole")
    assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("change", "stated"),
    [
        ({"seed": 8}, "its seed is 8, not 7"),
        ({"batch_size": 4}, "its batch_size is 4, not 3"),
        ({"num_images": 11}, "its num_images is 11, not 10"),
        ({"interpolate": 5}, "its interpolate is 5, not None"),
        ({"precision": "fp64"}, "its precision is 'fp64', not 'fp32'"),
    ],
)
def test_workers_of_two_commands_are_refused_by_name(drawing, tmp_path, change, stated):
    """Otherwise half of the images are those of another seed, or of other weights."""
    raised, batches = drawing(3, tmp_path / "out", change={2: change})
    message = f"worker 2 would compute another result than worker 0: {stated}. Start all with one command"
    assert [str(each) for each in raised] == [message] * 3
    assert batches == [[], [], []]


def test_workers_of_one_machine_share_its_cores(plans, network, monkeypatch):
    """Otherwise two workers on two cores take four threads, and are slower than one."""
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    assert [plan.config.threads for plan in plans(sample, 3, ["--checkpoint", network, "--out", "a"])] == [2, 2, 2]
    assert [plan.config.threads for plan in plans(sample, 1, ["--checkpoint", network, "--out", "b"])] == [None]
    flags = ["--checkpoint", network, "--out", "c", "--threads", 1]
    assert [plan.config.threads for plan in plans(sample, 3, flags)] == [1, 1, 1]


# --- Bits per dimension and likelihood ----------------------------------------------------------------------


class Bound:
    """In the place of a tree's Bound: the terms depend on the images, on t, on the noise and on the batch."""

    device_name, threads = "cpu", 1

    def prior(self, pixels):
        """Of each image."""
        return 0.01 * pixels.mean(axis=(1, 2, 3)) + len(pixels)

    def term(self, arrays, labels=None):
        """Of each image at its t."""
        pixels, t, eps = arrays
        return pixels.mean(axis=(1, 2, 3)) / (1 + t) + eps.mean(axis=(1, 2, 3)) + len(pixels)


class Likelihood:
    """In the place of a tree's Likelihood: the bits depend on the images, on their random numbers and on the batch."""

    device_name, threads, smallest_noise = "cpu", 1, 0.01

    def bits(self, pixels, u, probes, labels=None, on_products=lambda count: None):
        """Of each image."""
        for _ in range(4):
            on_products(len(pixels))
        return (pixels / 255 + u).mean(axis=(1, 2, 3)) + (u * probes).mean(axis=(0, 2, 3, 4)) + len(pixels)


# Command, flags, what computes, result. At --stride 3, the last of the terms are NaN for some images.
EVALUATIONS = {
    "bits": (bits, ["--num-images", 9, "--stride", 3, "--batch-size", 2], Bound, "bits_per_dim"),
    "likelihood": (likelihood, ["--num-images", 9, "--steps", 4, "--batch-size", 2], Likelihood, "likelihood"),
}


@pytest.fixture(params=EVALUATIONS)
def evaluating(request, plans, network):
    """A function: number of workers, folder -> codes, and what was written but for time and machine."""
    command, flags, evaluator, name = EVALUATIONS[request.param]

    def evaluate(count, out):
        all_plans = plans(command, count, ["--checkpoint", network, "--out", out, *flags])
        codes = together(count, lambda member: command.run(all_plans[member.place.rank], evaluator(), member))
        result = json.loads((out / f"{name}.json").read_text())
        assert result.pop("seconds") > 0
        del result["environment"]
        return codes, result

    return evaluate


@pytest.mark.parametrize("count", [2, 4, 6])
def test_any_number_of_workers_computes_the_same_bits(evaluating, tmp_path, capfd, count):
    """Otherwise how good a model is depends on the machines that judge it."""
    alone = evaluating(1, tmp_path / "one")
    assert alone[0] == [0]
    lines = len(capfd.readouterr().out.splitlines())
    assert evaluating(count, tmp_path / "several") == ([0] * count, alone[1])
    assert contents(tmp_path / "several").keys() == contents(tmp_path / "one").keys()
    assert len(capfd.readouterr().out.splitlines()) == lines
    assert all(bar.n == pytest.approx(bar.total, rel=0.2) for bar in Bar.shown)  # at --stride 3, 20 terms are 6.7 each


def test_an_interrupted_likelihood_goes_on_with_another_number_of_workers(plans, network, tmp_path):
    """Otherwise the bits of hours are computed again, or are other ones."""
    flags = ["--checkpoint", network, "--num-images", 9, "--steps", 4, "--batch-size", 2, "--out"]
    called = []

    class Stopped(Likelihood):
        def bits(self, pixels, *args, **kwargs):
            """The same, with a signal to the worker that has the images 6 and 7."""
            called.append(first := pixels[0].tobytes())
            if first == TEST.images[6].tobytes() and called.count(first) == 1:
                receive()
            return super().bits(pixels, *args, **kwargs)

    def run(count, out):
        all_plans = plans(likelihood, count, [*flags, out])
        return together(count, lambda member: likelihood.run(all_plans[member.place.rank], Stopped(), member))

    assert run(2, tmp_path / "out") == [130, 0]
    nothing = {"bits": np.empty(0)}
    origin = str(files.read_npz(tmp_path / "out" / likelihood.PARTIAL)["origin"])
    assert batchwise.finished(tmp_path / "out" / likelihood.PARTIAL, origin, nothing).count == 4
    assert run(3, tmp_path / "out") == [0, 0, 0]
    assert len(called) == 4 + 3  # two rounds of two; then images 4 to 8, in three batches
    assert run(1, tmp_path / "whole") == [0]
    two, one = (json.loads((tmp_path / name / likelihood.RESULT).read_text()) for name in ("out", "whole"))
    assert two["per_image"] == one["per_image"]


# --- Real processes -----------------------------------------------------------------------------------------


def started(tree, count, command, *argv):
    """A process: the command in `count` workers of one thread each, by the launcher if there are several."""
    module = f"ddpm_{tree.name}.{command}"
    start = ["ddpm_shared.launch", str(count), module] if count > 1 else [module]
    flags = [str(each) for each in (*argv, "--device", "cpu", "--threads", 1)]
    return subprocess.Popen(
        [sys.executable, "-m", *start, *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def done(process, seconds=240):
    """Its (exit code, stdout, stderr). One that takes longer is ended, and its workers with it."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.terminate()
        _, err = process.communicate(timeout=LIMIT)
        pytest.fail(f"it has not ended in {seconds:g} seconds: {err}")
    return process.returncode, out, err


def test_two_processes_draw_what_one_draws(tree, network, tmp_path, monkeypatch):
    """Otherwise `make sample-torch WORKERS=2` draws other images, or does not draw at all."""
    flags = ["--checkpoint", network, "--num-images", 5, "--batch-size", 2, "--steps", 3, "--gif", "--out"]
    if has_one_thread():  # then no process needs to be started
        monkeypatch.setattr(tree.utils, "set_threads", lambda threads: None)
        alone = [*map(str, flags), str(tmp_path / "1"), "--device", "cpu", "--threads", "1"]
        assert tree.inference.main(alone) == 0
    else:
        assert done(started(tree, 1, "inference", *flags, tmp_path / "1"))[0] == 0
    code, out, err = done(started(tree, 2, "inference", *flags, tmp_path / "2"))
    assert code == 0, err
    assert out.count("5 images: ") == 1
    assert "Traceback" not in err
    assert contents(tmp_path / "1").keys() == {"samples.npz", "grid.png", "denoising.gif"}
    assert contents(tmp_path / "2") == contents(tmp_path / "1")


@pytest.mark.slow
@pytest.mark.parametrize(("command", "result"), [("bits", "bits_per_dim.json"), ("likelihood", "likelihood.json")])
def test_two_processes_compute_the_bits_that_one_computes(tree, network, tmp_path, command, result):
    """Otherwise how good a model is depends on the machines that judge it."""
    own = ["--stride", 5] if command == "bits" else ["--steps", 4]
    flags = ["--checkpoint", network, "--num-images", 10, "--batch-size", 2, *own, "--out"]
    found = []
    for count in (1, 2):
        code, _, err = done(started(tree, count, command, *flags, tmp_path / str(count)))
        assert code == 0, err
        record = json.loads((tmp_path / str(count) / result).read_text())
        found.append({key: value for key, value in record.items() if key not in ("seconds", "environment")})
    assert found[0] == found[1]


def partial_of(out):
    """samples.partial.npz, once it is there."""
    file, ends = out / sample.PARTIAL, time.monotonic() + 240
    while not file.exists():
        assert time.monotonic() < ends
        time.sleep(0.02)
    return file


@pytest.mark.slow
def test_ctrl_c_stops_two_processes_and_one_goes_on(tree, network, tmp_path):
    """Otherwise a terminal's Ctrl-C ends the workers one by one, with an error, or leaves one behind."""
    out = tmp_path / "out"
    flags = ["--checkpoint", network, "--batch-size", 2, "--num-images"]
    process = started(tree, 2, "inference", *flags, 4000, "--out", out)
    partial = partial_of(out)
    process.send_signal(signal.SIGINT)
    code, _, err = done(process)
    saved = len(files.read_npz(partial)["images"])
    assert (code, saved % 4) == (130, 0), err
    kept = f"interrupted; {saved} finished images are saved: the same command with --out {out} continues"
    assert err.rstrip().rpartition("\n")[2] == kept
    number = saved + 3
    assert done(started(tree, 1, "inference", *flags, number, "--out", out))[0] == 0
    assert done(started(tree, 1, "inference", *flags, number, "--out", tmp_path / "whole"))[0] == 0
    assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_worker_ends_all_with_a_sentence(tree, network, tmp_path, rank):
    """Otherwise a worker that the system kills leaves the others waiting, or costs what they drew."""
    out = tmp_path / "out"
    process = started(
        tree, 2, "inference", "--checkpoint", network, "--batch-size", 2, "--num-images", 4000, "--out", out
    )
    partial_of(out)
    of_launcher = sorted(psutil.Process(process.pid).children(), key=psutil.Process.create_time)
    assert len(of_launcher) == 2
    of_launcher[rank].kill()
    began = time.monotonic()
    code, _, err = done(process)
    assert time.monotonic() - began < 30
    assert code in (1, 2)
    assert f"worker {rank} of 2: was ended by signal 9" in err
    assert "Traceback" not in err
    assert not any(each.is_running() for each in of_launcher)
    assert len(files.read_npz(out / sample.PARTIAL)["images"]) % 4 == 0
