"""The benchmark (tests/benchmarks): what it makes of timings, when it refuses, and that its workers work.

No test here times anything: a timing on a machine that runs tests means nothing.
"""

import bench
import machine
import pytest
import results
import rounds
import table
from contenders import Contender, line_up
from crew import Crew
from results import Row

from ddpm_shared.errors import UserError


def row(by, precision, train, *, forward=None, memory=None, host_ms=0.0, **variant):
    """A contender with made-up rates, whose steps of 100 images take 100 / train seconds."""
    return Row(
        Contender(by, precision, batch_size=100, **variant),
        facts={"parameters": 10, "flops": 10**9},
        rates={"train": [train], "forward": [forward or train]},
        peak_memory_mib=memory,
        host_ms={"data": host_ms, "noise": host_ms / 2, "to_batch": 0.0, "logging": 0.0},
    )


ROWS = [
    row("torch", "fp32", 120.0, memory=100.0, host_ms=10.0),
    row("torch", "bf16", 300.0, forward=700.0, memory=90.0, host_ms=20.0),
    row("tensorflow", "fp32", 90.0, memory=140.0),
    row("tensorflow", "bf16", 140.0, forward=250.0, memory=110.0),
    row("diffusers", "fp32", 100.0, memory=50.0, channels_last=True),
    row("diffusers", "fp32", 80.0, forward=400.0, memory=100.0),
    row("diffusers", "bf16", 150.0, forward=350.0, memory=100.0),
]


def reached(rows, startup=None, peers=False):
    """Text of a target -> (figure, verdict)."""
    return {t.what: (t.reached, t.verdict) for t in results.targets(rows, startup or {}, peers)}


def test_the_middle_of_rates_is_their_median_and_quartiles():
    """Otherwise one slow round, a backup starting, would move every figure of the table."""
    rates = [100.0, 101.0, 99.0, 102.0, 5.0]
    assert results.median(rates) == 100.0
    assert results.middle_half(rates) == (99.0, 101.0)
    assert table.spread(rates) == "100 (99 .. 101)"
    assert table.spread([96.4]) == "96.4"
    assert table.spread([]) == "-"


def test_a_ratio_is_against_the_best_precision_and_layout():
    """Otherwise we would win against a competitor that was set up badly."""
    found = reached(ROWS)
    assert found["torch, training in fp32: times the best diffusers"] == (0.8, "falls short")
    assert found["torch, training in bf16: times the best diffusers"] == (2.0, "met")
    assert found["tensorflow, training in fp32: times the best diffusers"] == (0.6, "falls short")
    assert found["torch, forward: times the best diffusers"] == (1.75, "met")
    assert found["tensorflow, forward: times the best diffusers"] == (0.625, "falls short")


def test_memory_is_compared_with_the_default_layout():
    """Otherwise a goal would be measured against another thing than it names."""
    found = reached(ROWS)
    assert found["torch, peak memory in fp32: times diffusers' in its default layout"] == (1.0, "met")
    assert found["tensorflow, peak memory in fp32: times diffusers' in its default layout"] == (1.4, "falls short")


def test_the_share_of_host_work_is_that_of_the_worst_precision():
    """Otherwise the slow fp32 step would hide that data and noise hold up the fast bf16 step."""
    what = "torch: data, noise and logging, % of a training step"
    # 10 ms of 100 / 120 s are 1.2 %; 20 ms of 100 / 300 s are 6 %; the noise is part of the data
    assert reached(ROWS)[what] == (pytest.approx(6.0), "falls short")


def test_what_was_not_measured_is_neither_met_nor_missed():
    """Otherwise a benchmark without the peers, or with a dead worker, would claim victory."""
    found = reached([r for r in ROWS if r.contender.by == "torch"], peers=True)
    compared = [value for what, value in found.items() if "times" in what]
    assert len(compared) > 5
    assert set(compared) == {(None, "not measured")}
    assert not any("smalldiffusion" in what for what in reached(ROWS))


def test_a_framework_imported_for_help_falls_short():
    """Otherwise --help could take seconds again on a slow disk, and nobody would see it in the table."""
    found = reached(ROWS, {"ddpm_tf.train": {"seconds": 0.4, "framework_imported": True}})
    assert found["ddpm_tf.train --help, seconds"][1] == "met"
    assert found["ddpm_tf.train --help: frameworks imported"][1] == "falls short"


def test_the_share_of_the_peak_counts_a_training_step_thrice():
    """Otherwise training would seem to leave the processor idle: backward is two products more for each of forward."""
    assert row("torch", "fp32", 50.0).gflops("train") == 150.0
    assert row("torch", "fp32", 50.0).gflops("forward") == 50.0
    alone = row("tensorflow", "fp32", 50.0)
    del alone.facts["flops"]
    assert alone.gflops("train") is None
    results.share_flops([alone, *ROWS])
    assert alone.gflops("train") == 150.0


def test_the_table_has_a_cell_for_every_contender_and_column():
    """Otherwise the Markdown is no table, or figures stand under the wrong heading."""
    lines = table.contenders(ROWS, {"fp32": {"conv": 720.0}}).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert len(lines) == len(ROWS) + 2
    assert {len(line) for line in lines} == {len(lines[0])}
    assert " ".join(cells[2]) == "ours torch fp32 10 120 0.80 120 0.30 100 1.00 1,000 50 17"


def test_others_are_left_out_where_they_have_no_network_of_that_size():
    """Otherwise tiny would be compared with networks twenty-five times its size."""
    assert {c.by for c in line_up("tiny", 8, layouts=True, compiled=False, peers=True)} == {"torch", "tensorflow"}
    names = [c.name for c in line_up("base", 128, layouts=True, compiled=True, peers=True)]
    assert len(names) == len(set(names)) == 16  # a name is what a worker is known by


STAT = "cpu  {} 0 0 {} 0 0 0 0 0 0\ncpu0 1 2 3 4\n"


def proc(folder, busy, idle, processes):
    """A made-up /proc."""
    folder.mkdir()
    (folder / "stat").write_text(STAT.format(busy, idle))
    for pid, (name, ticks) in processes.items():
        (folder / str(pid)).mkdir()
        (folder / str(pid) / "stat").write_text(f"{pid} ({name}) R {' '.join(['0'] * 10)} {ticks} 0 0 0")
    return machine.read(folder)


def test_a_busy_machine_is_seen_and_its_busiest_process_named(tmp_path):
    """Otherwise a forgotten training run in the background would halve all our figures, or our rivals'."""
    before = proc(tmp_path / "before", 1000, 5000, {7: ("me", 90), 8: ("a (b) c d", 900), 9: ("trainer", 10)})
    after = proc(
        tmp_path / "after",
        1290,
        5310,
        {7: ("me", 150), 8: ("a (b) c d", 924), 9: ("trainer", 190), 10: ("new", 50)},
    )
    found = machine.busy_between(before, after, own=7)
    assert found.share == pytest.approx((290 - 60) / 600)  # our own ticks are not others'
    assert found.by == ("trainer, pid 9: 30%", "new, pid 10: 8%", "a (b) c d, pid 8: 4%")
    with pytest.raises(UserError, match=r"use 38% of the machine \(trainer, pid 9: 30%, .*--busy"):
        machine.require_quiet(found, anyway=False)
    assert "trainer" in machine.require_quiet(found, anyway=True)
    assert machine.require_quiet(machine.Busy(0.09), anyway=False) is None


def test_where_the_load_cannot_be_read_the_report_says_so(tmp_path):
    """Otherwise figures from such a system would look as trustworthy as others."""
    assert machine.read(tmp_path) is None
    still = machine.Reading(0, 0, {})
    assert "cannot be read" in machine.require_quiet(machine.busy_between(still, still, 1), anyway=False)


def test_a_busy_machine_stops_the_command_before_any_work(monkeypatch, guarded):
    """Otherwise minutes go by before a benchmark says that it was for nothing."""
    monkeypatch.setattr(bench.machine, "watch", lambda: machine.Busy(0.5, ("trainer, pid 9: 50%",)))
    monkeypatch.setattr(bench, "Crew", lambda contenders: pytest.fail("workers were started"))
    code, said = guarded(lambda: bench.bench(bench.Options()))
    assert code == 2
    assert "trainer, pid 9" in said


class FakeCrew:
    """Notes who was asked; `dying` answers nothing any more."""

    def __init__(self, dying=None):
        self.asked, self.dying = [], dying

    def ask(self, name, do, **request):
        """As Crew.ask."""
        self.asked.append(name)
        return None if name == self.dying else {"seconds": 2.0}


def test_contenders_take_turns_and_the_dead_are_passed_over():
    """Otherwise a slow minute of the machine would fall on one contender, or a missing package end the benchmark."""
    crew, calls = FakeCrew(dying="b"), [rounds.forward(name, 128) for name in "abc"]
    with rounds.progress(rounds.total_work(calls, 2), "test") as bar:
        found = rounds.run(crew, calls, 2, bar)
        assert bar.n == bar.total
    assert [sorted(crew.asked[first : first + 3]) for first in (0, 3, 6)] == [["a", "b", "c"]] * 3
    assert len({tuple(crew.asked[first : first + 3]) for first in (0, 3, 6)}) == 3  # not always the same neighbour
    assert found == [[64.0, 64.0], [], [64.0, 64.0]]


@pytest.mark.parametrize("tree", ["torch"], indirect=True)
def test_a_real_worker_trains_passes_forward_and_samples(tree):
    """Otherwise `make bench` fails after its first minute, when the trees have changed and the benchmark has not."""
    contender = Contender(tree.name, "bf16", preset="tiny", batch_size=4)
    with Crew([contender]) as crew:
        process = crew.workers[contender.name].process
        assert crew.ask(contender.name, "describe")["parameters"] == 159_697
        assert crew.ask(contender.name, "train", count=1)["seconds"] > 0
        assert crew.ask(contender.name, "memory")["peak_memory_mib"] > 50
        assert crew.ask(contender.name, "forward", count=2)["seconds"] > 0
        assert crew.ask(contender.name, "sample", steps=2, images=2)["seconds"] > 0
        assert set(crew.ask(contender.name, "host")) == {"data", "noise", "to_batch", "logging"}
    assert process.poll() is not None  # no worker outlives its crew


def test_a_worker_that_cannot_start_says_why(monkeypatch, capfd):
    """Otherwise a peer that is not installed would stop the benchmark, or hang it."""
    missing = Contender("nobody", "fp32")
    with Crew([missing]) as crew:
        assert crew.ask(missing.name, "train", count=1) is None
        assert list(crew.lost) == [missing.name]
    assert "nobody fp32 is left out: " in capfd.readouterr().err
