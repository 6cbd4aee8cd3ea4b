"""Damaged files: every reader refuses them in one sentence, or reads what was there. More of it: campaign.py."""

import json
import random
from pathlib import Path

import campaign
import fuzz
import pytest
from fuzz_readers import READERS

SEED, EACH = 20, 25  # mutations of each reader


@pytest.mark.parametrize("name", READERS)
def test_no_damaged_file_crashes_a_reader_or_passes_for_another(name: str, tmp_path: Path) -> None:
    """Otherwise a file that broke on its way ends in a traceback, or in wrong numbers that nobody doubts."""
    subject = fuzz.Subject(READERS[name], tmp_path / "folder")
    assert subject.judge(subject.good).outcome == "same"
    for number in range(EACH):
        label = f"{SEED}-{name}-{number}"
        kind, data = fuzz.mutate(subject.good, subject.reader.form, random.Random(label))
        verdict = subject.judge(data)
        assert verdict.outcome in ("refused", "same", "accepted"), f"{label}, {kind}: {verdict.reason}"


def test_every_bit_of_a_checkpoint_is_checked(tmp_path: Path) -> None:
    """Otherwise a weight is read that was never trained: of the single bits, 395 of 400 once passed unseen."""
    subject = fuzz.Subject(READERS["checkpoint"], tmp_path / "folder")
    rng = random.Random(SEED)
    for position in rng.sample(range(8 * len(subject.good)), 300):
        data = bytearray(subject.good)
        data[position // 8] ^= 1 << position % 8
        assert subject.judge(bytes(data)).outcome in ("refused", "same"), position
    for number in range(len(subject.good) - 4, len(subject.good)):  # the last bytes are those of a weight
        data = bytearray(subject.good)
        data[number] ^= 1
        assert "is damaged (its SHA-256 is " in subject.judge(bytes(data)).reason


def _naive(path: Path) -> object:
    return json.loads(path.read_bytes())["steps"]


@pytest.mark.parametrize(("strict", "expected"), [(True, "SILENT"), (False, "accepted")])
def test_the_fuzzer_finds_what_a_careless_reader_lets_through(tmp_path: Path, strict: bool, expected: str) -> None:
    """Otherwise it finds nothing because it does nothing."""

    def make(folder: Path) -> Path:
        (folder / "x.json").write_text('{"steps": [1, 2, 3]}')
        return folder / "x.json"

    subject = fuzz.Subject(fuzz.Reader("json", make, _naive, strict), tmp_path / "folder")
    outcomes = set()
    for number in range(200):
        _, data = fuzz.mutate(subject.good, "json", random.Random(number))
        outcomes.add(subject.judge(data).outcome)
    assert outcomes == {"CRASH", "same", expected}


def test_a_message_of_many_lines_is_a_fault(tmp_path: Path) -> None:
    """Otherwise foreign text can fill the user's terminal."""

    def refuse(path: Path) -> object:
        if path.read_bytes() != b"{}":
            raise fuzz.UserError(path.read_text())
        return None

    def make(folder: Path) -> Path:
        (folder / "x").write_bytes(b"{}")
        return folder / "x"

    subject = fuzz.Subject(fuzz.Reader("bytes", make, refuse), tmp_path / "folder")
    for text, outcome in (
        (b"one line", "refused"),
        (b"two\nlines", "CRASH"),
        (b"\x1b[2J", "CRASH"),
        (b"x" * 9999, "CRASH"),
    ):
        assert subject.judge(text).outcome == outcome


def test_the_campaign_says_what_became_of_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Otherwise thousands of mutations run, and nobody learns what they found; or a fault does not fail the command."""
    flags = ["--mutations", "40", "--readers", "config.json", "idx", "--out", str(tmp_path)]
    assert campaign.main(flags) == 0
    heads, *rows = capsys.readouterr().out.splitlines()
    assert heads.split()[1:6] == list(fuzz.OUTCOMES)
    assert [row.split()[0] for row in rows] == ["config.json", "idx", "all"]
    assert sum(map(int, rows[-1].split()[1:6])) == 40
    assert list(tmp_path.iterdir()) == []


def test_a_fault_fails_the_campaign_and_is_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a crash is a number in a table, and cannot be looked at again."""

    def make(folder: Path) -> Path:
        (folder / "x.json").write_text('{"steps": [1, 2, 3]}')
        return folder / "x.json"

    monkeypatch.setitem(READERS, "idx", fuzz.Reader("json", make, _naive))
    assert campaign.main(["--mutations", "20", "--readers", "idx", "--out", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    files = list(tmp_path.iterdir())
    assert files
    assert all(f": {file}" in printed for file in files)
    assert printed.count("CRASH idx (") == len(files)
