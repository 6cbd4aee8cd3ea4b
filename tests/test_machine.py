"""What a command does before it computes: it reads its flags before it imports a framework, and sets up its process."""

import ctypes
import dataclasses
import json
import os
import platform
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from ddpm_shared import batches
from ddpm_shared.batches import Prefetcher, training_batch
from ddpm_shared.config import Config, TrainingConfig
from ddpm_shared.datasets import Split

COMMANDS = ["train", "inference", "inversion", "bits", "likelihood", "exchange"]
CONFIG = Config(training=TrainingConfig(batch_size=4))
PIXELS = np.arange(40, dtype=np.uint8).repeat(28 * 28).reshape(40, 28, 28, 1)
SPLIT = Split("forty greys", "train", PIXELS, np.arange(40, dtype=np.uint8), "")


def modules(tree, command, *flags):
    """Exit code of a command line, and the modules that it imported."""
    argv = [sys.executable, "-X", "importtime", "-m", f"ddpm_{tree.name}.{command}", *flags]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return done.returncode, {line.rpartition("|")[2].strip() for line in lines}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("flags", "code"), [(["--help"], 0), (["--seed", "-1"], 2), (["--no-such-flag"], 2)])
def test_flags_are_read_before_the_framework_is_imported(tree, command, flags, code):
    """Otherwise `--help`, or news of a mistyped flag, takes as long as the import: four seconds in TensorFlow."""
    returned, imported = modules(tree, command, *flags)
    assert returned == code
    assert f"ddpm_{tree.name}.config" in imported
    assert not imported & {"torch", "tensorflow", "keras", "matplotlib", "requests"}


def import_fake_tensorflow(tmp_path, ending):
    """Exit code and stderr of a process that imports ddpm_tf and a TensorFlow that writes two messages of its own."""
    package = tmp_path / "tensorflow"
    package.mkdir()
    message = "os.write(2, b'a message of TensorFlow\\n')"
    (package / "__init__.py").write_text(
        f"import os\nfrom types import SimpleNamespace\n{message}\n"
        f"config = SimpleNamespace(list_physical_devices=lambda: {message})\n{ending}\n"
    )
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    argv = [sys.executable, "-c", "import os, ddpm_tf, tensorflow; os.write(2, b'later\\n')"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": paths})
    return done.returncode, done.stderr


def test_tensorflow_is_imported_quietly(tmp_path):
    """Otherwise a dozen lines, some of which look like errors, come before every result; or later ones are lost."""
    assert import_fake_tensorflow(tmp_path, "") == (0, "later\n")


def test_a_tensorflow_that_cannot_be_imported_shows_why(tmp_path):
    """Otherwise the messages that name the missing library are lost."""
    code, err = import_fake_tensorflow(tmp_path, "raise ImportError('broken')")
    assert code == 1
    assert err.startswith("a message of TensorFlow\n")
    assert err.endswith("ImportError: broken\n")


def test_the_number_of_threads_is_set(tree, tmp_path):
    """Otherwise thirty runs on one server take each other's cores, and a run's record says what it did not have."""
    flags = "--preset tiny --base-channels 4 --channel-mults 1 --dataset fashion-mnist-10k --max-steps 1 --batch-size 2"
    flags += " --validation-images 2 --sample-every 0 --threads 1 --run-dir run"
    argv = [sys.executable, "-m", f"ddpm_{tree.name}.train", *flags.split()]
    subprocess.run(argv, capture_output=True, check=True, cwd=tmp_path)
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["threads"] == 1


def test_batches_drawn_ahead_are_the_batches():
    """Otherwise a run, resumed or asked for its steps out of order, trains on other images than its seed says."""
    for share in ((0, 1), (1, 3)):
        batch_of = Prefetcher(SPLIT, CONFIG, share)
        for step in (0, 1, 2, 7, 7, 8, 3):
            for ahead, expected in zip(batch_of(step), training_batch(SPLIT, CONFIG, step, share), strict=True):
                assert_array_equal(ahead, expected)


def test_the_next_batch_is_drawn_ahead(monkeypatch):
    """Otherwise the accelerator waits for the noise of every step."""
    drawn, mine = [], dataclasses.replace(SPLIT)

    def counted(split, config, step, share):
        if split is mine:  # not the last batch of an earlier test, which is still being drawn
            drawn.append(step)
        return training_batch(split, config, step, share)

    monkeypatch.setattr(batches, "training_batch", counted)
    batch_of = Prefetcher(mine, CONFIG)
    for step in range(3):
        batch_of(step)
    batch_of.thread.shutdown(wait=True)
    assert drawn == [0, 1, 2, 3]


FAULTS = """
import resource
import numpy as np
from ddpm_shared import machine
if {keep}:
    machine.keep_freed_memory()
for _ in range(3):  # the first two make room
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(2**23)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is a setting of glibc")
def test_freed_memory_is_kept():
    """Otherwise a tenth of a training step goes into page faults."""

    def page_faults(keep):
        argv = [sys.executable, "-c", FAULTS.format(keep=keep)]
        return int(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)

    assert page_faults(False) >= 32  # 64 MiB in pages of 2 MiB, or in more and smaller ones
    assert page_faults(True) < 10


def test_another_c_library_is_left_alone(monkeypatch):
    """Otherwise every command ends in a traceback on a Mac or on Alpine Linux."""
    from ddpm_shared import machine

    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    machine.keep_freed_memory()
