"""Output is decoration: whatever becomes of stdout and stderr, the work is done and its exit code stands."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

LIST = [sys.executable, "-m", "ddpm_shared.datasets", "--dataset", "fashion-mnist-10k"]
TRAIN = "--preset tiny --base-channels 4 --channel-mults 1 --dataset fashion-mnist-10k --batch-size 4"
TRAIN += " --max-steps 3 --validation-images 4 --sample-every 0 --threads 1"
HARD = "Fréchet ± ▏█ 日本 \udce9"
# Prints what many code pages cannot show, shows a bar, and fails in a way of its own.
PRINTS = f"""
import sys
from tqdm import tqdm
from ddpm_shared import command_line
def main():
    for _ in tqdm(range(3), desc={HARD!a}):
        print({HARD!a})
        print({HARD!a}, file=sys.stderr)
        tqdm.write({HARD!a})
    return 7
command_line.guard(main)
"""


def through_shell(command: list[str], redirections: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command with redirections of the shell; its own exit code is the shell's."""
    script = f'"$@" {redirections}'
    return subprocess.run(
        ["bash", "-c", script, "bash", *command],
        capture_output=True,
        env=os.environ | environment,
        timeout=120,
        check=False,
    )


BROKEN = {
    "stdout closed": ">&-",
    "stderr closed": "2>&-",
    "all three closed": "<&- >&- 2>&-",
    "a full disk": ">/dev/full 2>/dev/full",
    "nothing may be written": "1</dev/null 2</dev/null",
    "a reader that went away": "> >(exec true) 2> >(exec true)",
}


@pytest.mark.parametrize("redirections", BROKEN.values(), ids=list(BROKEN))
def test_nothing_that_prints_can_end_the_work(redirections: str) -> None:
    """Otherwise `| head -1` or a full disk ends a run of hours, or turns its exit code into another."""
    done = through_shell([sys.executable, "-c", PRINTS], redirections)
    assert done.returncode == 7, done.stderr
    assert b"Exception ignored" not in done.stderr


def test_a_command_ends_as_ever_without_anybody_to_see_it() -> None:
    """Otherwise a script that throws the output away takes a good end for a bad one."""
    assert [through_shell(LIST, BROKEN[name]).returncode for name in ("all three closed", "a full disk")] == [0, 0]


@pytest.mark.parametrize("encoding", ["ascii", "cp932", "latin-1", "cp1252:strict", "utf-8"])
def test_no_letter_is_an_error(encoding: str) -> None:
    """Otherwise a name or a unit that the terminal's code page lacks ends the work."""
    done = through_shell([sys.executable, "-c", PRINTS], "", PYTHONIOENCODING=encoding, PYTHONUTF8="0", LC_ALL="C")
    assert done.returncode == 7
    assert done.stdout.decode(encoding.split(":")[0]).count("chet") == 6  # in each line, whatever stands for the rest


def test_all_that_can_be_shown_is_shown_in_order() -> None:
    """Otherwise a log file lacks lines, or has them where nobody can tell to what they belong."""
    lines = "import sys\nfrom ddpm_shared import command_line, output\noutput.secure()\n"
    lines += "for i in range(3):\n print('out', i)\n print('err', i, file=sys.stderr)\n"
    lines += "print('x' * 10**6)\nsys.stdout.buffer.write(b'bytes')"
    done = through_shell([sys.executable, "-c", lines], "2>&1")
    expected = "".join(f"out {i}\nerr {i}\n" for i in range(3)) + "x" * 10**6 + "\nbytes"
    assert done.stdout.decode() == expected


def test_a_reader_that_takes_nothing_is_not_waited_for_without_end() -> None:
    """Otherwise a pipe that does not block, and is full, raises in the middle of a bar."""
    lines = "import os\nfrom ddpm_shared import output\noutput.PATIENCE = 0.1\noutput.secure()\n"
    lines += "os.set_blocking(1, False)\nprint('x' * 10**6)\nos._exit(7)"
    read, write = os.pipe()
    process = subprocess.Popen([sys.executable, "-c", lines], stdout=write)
    os.close(write)
    assert process.wait(timeout=60) == 7
    os.close(read)


def test_what_a_library_writes_to_a_closed_stderr_is_in_no_file(tmp_path: Path) -> None:
    """Otherwise the next file that is opened gets number 2, and a message of C++ lands in a checkpoint."""
    lines = "import os\nfrom ddpm_shared import output\noutput.secure()\n"
    lines += f"file = open({str(tmp_path / 'file')!r}, 'wb')\nos.write(2, b'message')\nfile.write(b'content')"
    assert through_shell([sys.executable, "-c", lines], "<&- >&- 2>&-").returncode == 0
    assert (tmp_path / "file").read_bytes() == b"content"


def test_the_streams_of_others_are_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """Otherwise a notebook or a test no longer sees what is printed."""
    from ddpm_shared import output

    before = sys.stdout, sys.stderr
    output.secure()
    assert (sys.stdout, sys.stderr) == before
    print("seen")
    assert capsys.readouterr().out == "seen\n"


def test_a_training_is_completed_without_anybody_to_see_it(tmp_path: Path) -> None:
    """Otherwise a run whose terminal is closed is lost with all its steps."""
    pytest.importorskip("torch")
    from ddpm_shared.records import checkpoint

    train = [sys.executable, "-m", "ddpm_torch.train", *TRAIN.split(), "--run-dir", str(tmp_path / "run")]
    done = through_shell(train, "2>/dev/full | head -c 1; exit ${PIPESTATUS[0]}")
    assert done.returncode == 0
    saved = checkpoint.load(tmp_path / "run" / "checkpoints" / "step_00000003.safetensors")
    assert saved.step == 3
