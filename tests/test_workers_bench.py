"""Several workers measured (tests/benchmarks/workers.py) and written of (docs/workers.md).

What is made of timings, what is measured again, the arithmetic for many GPUs, and that the page says what the code
does.
No test here times anything: a timing on a machine that runs tests means nothing.
"""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import workers as bench
import workers_model
import workers_process
import workers_report
import workers_team
from crew import Crew
from workers_model import Cluster
from workers_team import Team, Together

from ddpm_shared import launch
from ddpm_shared import workers as shared_workers
from ddpm_shared.config import Config, size, with_preset
from ddpm_shared.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "workers.md"
LARGE = workers_model.numbers_of("large")


# --- The model of many GPUs ----------------------------------------------------------------------------------

# Round numbers: a GPU computes a step of 10 images in 1 s, memory and messages take no time.
ROUND = Cluster(
    images_per_gpu=10, tflops=1.0, peak_share=0.3, memory_gb=16.0, memory_gb_s=1e12, link_share=1.0, latency_us=1e-9
)
FLOPS = 1e10


def test_the_parts_of_a_step_add_up():
    """Otherwise the table recommends links and GPUs by a slip of a factor."""
    assert workers_model.computing(ROUND, FLOPS) == pytest.approx(1.0)
    # 10^9 parameters are 4 GB: of 8 workers each receives 28 GB, or by a ring 7 GB; 8 Gbit/s are a gigabyte a second.
    for reduce, gigabytes in (("exact", 28), ("fast", 7)):
        assert workers_model.received(reduce, 8, 10**9) == pytest.approx(gigabytes * 1e9)
        assert workers_model.exchanging(ROUND, reduce, 8, 10**9, 8.0) == pytest.approx(gigabytes)
    slow = dataclasses.replace(ROUND, latency_us=1e6, memory_gb_s=4.0)
    # And a second for each message to the next one, 7 or 14; and 8 * 8 + 3 or 14 times 4 GB through the memory.
    assert workers_model.exchanging(slow, "exact", 8, 10**9, 8.0) == pytest.approx(28 + 7 + 67)
    assert workers_model.exchanging(slow, "fast", 8, 10**9, 8.0) == pytest.approx(7 + 14 + 14)


def test_two_workers_receive_as_much_either_way_and_one_nothing():
    """Otherwise the page says that exact costs more where it does not."""
    assert workers_model.received("exact", 2, 1000) == workers_model.received("fast", 2, 1000) == 4000
    assert workers_model.exchanging(ROUND, "exact", 1, 10**9, 8.0) == 0.0


def test_from_where_on_fast_is_needed():
    """Otherwise somebody waits for the exact sum, or gives it up, where the other would do."""
    # A step of 1 + 4 (W - 1) s is more than 1.5 times as long as 1 + 8 (W - 1) / W: 9 to 6.3 for W = 3, 13 to 7 for 4.
    assert workers_model.needed_from(ROUND, FLOPS, 10**9, 8.0) == 4
    assert workers_model.needed_from(ROUND, FLOPS, 10**9, 8e9) is None
    # Two vectors of 4 GB for each worker, in half of 16 GB.
    assert workers_model.most_that_fit(ROUND, 10**9) == 1


def test_the_table_of_the_model_says_what_does_not_fit():
    """Otherwise a time is promised for a step that ends for want of memory."""
    found = workers_model.model(ROUND, "large", 10**8, FLOPS)
    text = workers_model.document(ROUND, found)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:3] == "| 6"]
    # 64 workers x 100 M floats are held twice: 51 GB, of 16.
    assert [row[3] for row in rows] == ["does not fit"] * 3
    assert "Arithmetic, not measured" in text
    assert "10 images a GPU" in text


def test_the_page_has_the_model_of_the_code():
    """Otherwise the page keeps the table of a network or of assumptions that have changed."""
    text = PAGE.read_text()
    flops = 1e6 * int(re.search(r"parameters and ([\d,]+) MFLOP an image", text)[1].replace(",", ""))
    assert f"{LARGE:,} parameters" in text
    cluster = Cluster()
    assert workers_model.document(cluster, workers_model.model(cluster, "large", LARGE, flops)) in text
    many = dataclasses.replace(cluster, images_per_gpu=1024)
    assert f"with 1,024, computing is {1e3 * workers_model.computing(many, flops):.0f} ms" in re.sub(r"\s+", " ", text)
    assert workers_model.needed_from(many, flops, LARGE, 400.0) == 8  # "up to seven GPUs"
    assert round(LARGE / workers_model.numbers_of("small")) == 23


# --- What is measured ----------------------------------------------------------------------------------------


def options(out, **changes):
    """A measurement of nothing but fakes."""
    return bench.Options(**{"stages": ("scaling", "gather", "shards"), "repeats": 2, "out": str(out)} | changes)


class FakeCrew:
    """Answers as teams would: a step takes half a second for each shard, a process of two threads half of that."""

    asked: list

    def __init__(self, teams, start):
        assert start is Together
        self.teams, self.lost = {team.name: team for team in teams}, {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def ask(self, name, do, **request):
        """As Crew.ask."""
        self.asked.append((name, do, request))
        team = self.teams[name]
        if do == "describe":
            return {"threads": team.threads}
        if do == "traffic":
            return {"bytes": 1e6}
        if do == "exchange":
            return {"seconds": request["count"] * (0.2 if request["reduce"] == "exact" else 0.1)}
        return {"seconds": 0.5 * request["shards"] / team.threads / team.workers}


@pytest.fixture
def asked(monkeypatch):
    """What is asked of a fake crew, on a machine that is quiet."""
    monkeypatch.setattr(FakeCrew, "asked", [], raising=False)
    monkeypatch.setattr(bench, "Crew", FakeCrew)
    monkeypatch.setattr(bench, "installed", lambda framework: True)
    monkeypatch.setattr(bench.machine, "watch", lambda: bench.machine.Busy(0.0))
    return FakeCrew.asked


def cells(table, first):
    """The cells of the row that begins so."""
    (row,) = (line for line in table.splitlines() if line.startswith(f"| {first}"))
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_ratios_are_within_a_framework_and_against_one_process(asked, tmp_path):
    """Otherwise two workers win against another framework, or against a process of one thread that is called two."""
    assert bench.measured(options(tmp_path)) == 0
    report = json.loads((tmp_path / "workers.json").read_text())
    tables = workers_report.tables(report)
    # 128 images in 0.25 s by two threads, in 0.5 s by one; in two shards twice as long.
    assert cells(tables["scaling"], "PyTorch, 1 process of 2 threads, 1 shard ")[1:] == [
        "512 (512 .. 512)",
        "1.00",
        "2.00",
    ]
    assert cells(tables["scaling"], "PyTorch, 1 process of 1 thread,")[1:] == ["256 (256 .. 256)", "0.50", "1.00"]
    assert cells(tables["scaling"], "TensorFlow, 1 process of 2 threads, 2 shards")[2:] == ["0.50", "1.00"]
    assert cells(tables["scaling"], "TensorFlow, 2 processes of 1 thread, 2 shards")[2:] == ["0.50", "1.00"]
    assert cells(tables["shards"], "4 ") == ["4", "128 (128 .. 128)", "0.25", "128 (128 .. 128)", "0.25"]
    # 200 ms and 100 ms an exchange, of a calculated 4 bytes a number, and a megabyte by the fake counter.
    small = f"{workers_model.numbers_of('small'):,}", "10.9", "1.0", "200.0", "10.9", "1.0", "100.0", "2.00"
    assert cells(tables["gather"], "PyTorch, small") == ["PyTorch, small", *small]
    assert "Medians of 2 rounds" in tables["gather"]


def test_what_is_finished_is_not_measured_again(asked, tmp_path):
    """Otherwise an hour is lost with an interruption, or figures of two settings stand in one table."""
    bench.measured(options(tmp_path, stages=("scaling",)))
    first = len(asked)
    bench.measured(options(tmp_path, stages=("scaling",)))
    assert len(asked) == first
    bench.measured(options(tmp_path, stages=("scaling",), sizes=("tiny",)))  # of the gather alone
    assert len(asked) == first
    bench.measured(options(tmp_path, stages=("scaling",), repeats=3))
    assert len(asked) > first


def test_an_interruption_leaves_what_was_finished(asked, monkeypatch, tmp_path):
    """Otherwise Ctrl-C in the last framework costs the first one's hour."""
    measure = bench.measure

    def interrupted(unit, options, bar):
        if unit.framework == "tensorflow":
            raise KeyboardInterrupt
        return measure(unit, options, bar)

    monkeypatch.setattr(bench, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bench.measured(options(tmp_path, stages=("shards",)))
    assert list(json.loads((tmp_path / "workers.json").read_text())["units"]) == ["shards torch"]
    monkeypatch.setattr(bench, "measure", measure)
    asked.clear()
    bench.measured(options(tmp_path, stages=("shards",)))
    assert {name for name, *_ in asked} == {"TensorFlow, 1 process of 2 threads"}


def test_a_team_that_died_is_no_row_without_figures(asked, monkeypatch, tmp_path):
    """Otherwise a table with a hole is kept for finished, and never filled."""

    class Dying(FakeCrew):
        def ask(self, name, do, **request):
            self.lost[name] = f"{name} is left out: killed by signal 9"

    monkeypatch.setattr(bench, "Crew", Dying)
    with pytest.raises(UserError, match=r"scaling torch could not be measured: .*killed by signal 9"):
        bench.measured(options(tmp_path, stages=("scaling",)))
    assert not (tmp_path / "workers.json").exists()


def test_a_busy_machine_is_refused_before_any_work(asked, monkeypatch, tmp_path):
    """Otherwise two workers look slow beside somebody's compiler."""
    monkeypatch.setattr(bench.machine, "watch", lambda: bench.machine.Busy(0.5, ("trainer, pid 9: 50%",)))
    with pytest.raises(UserError, match=r"trainer, pid 9.*--busy"):
        bench.measured(options(tmp_path))
    assert not asked
    bench.measured(options(tmp_path, stages=("shards",), busy=True))
    assert "**measured on a busy machine" in (tmp_path / "workers.md").read_text()


def test_a_batch_that_cannot_be_shared_out_is_refused(tmp_path):
    """Otherwise a process ends in the middle of the measurement, with a traceback."""
    with pytest.raises(UserError, match="--workers and --shards 3: must divide --batch-size 128"):
        options(tmp_path, shards=(1, 3))


# --- The page ------------------------------------------------------------------------------------------------


def test_tables_go_to_their_places_and_nowhere_else(tmp_path):
    """Otherwise a second measurement stands beside the first, or eats the text around it."""
    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text())
    workers_report.put(page, {"scaling": "A", "model": "B"})
    once = page.read_text()
    workers_report.put(page, {"scaling": "A", "model": "B"})
    assert page.read_text() == once
    assert "<!-- scaling: written by tests/benchmarks/workers.py -->\nA\n<!-- end of scaling -->" in once

    def around(text):
        return re.sub(r"(?s)(<!-- \w+: written by .*? -->).*?(<!-- end of)", r"\1\2", text)

    assert around(once) == around(PAGE.read_text())


def test_a_page_without_a_place_is_refused_before_measuring(asked, tmp_path):
    """Otherwise an hour of measuring ends in an error."""
    page = tmp_path / "page.md"
    page.write_text("nothing\n")
    with pytest.raises(UserError, match="it has no place for scaling"):
        bench.measured(options(tmp_path / "out", page=str(page)))
    assert not asked
    assert page.read_text() == "nothing\n"


def test_messages_on_the_page_are_those_of_the_code():
    """Otherwise somebody looks for a sentence that no command says any more."""
    files = ["shared/src/workers.py", "shared/src/launch.py", "shared/src/config/training.py"]
    files += ["pytorch/src/workers.py", "tensorflow/src/workers.py"]
    code = "\n".join((ROOT / file).read_text() for file in files)
    code = re.sub(r"[\"']\s*\n\s*f?[\"']", "", code)  # a string over several lines
    code = re.sub(r"\{[^{}\"]*\}", "...", code)
    (table,) = re.findall(r"\| message \| way out \|\n\|[-|]+\|\n((?:\|.*\n)+)", PAGE.read_text())
    messages = re.findall(r"^\| `(.+?)` \|", table, re.MULTILINE)
    assert len(messages) == len(table.splitlines()) > 10
    for message in messages:
        assert message in code, message


def test_the_list_of_addresses_for_slurm_is_one_that_the_trees_read(monkeypatch):
    """Otherwise a job waits in the queue for a night and then ends with a sentence about TF_CONFIG."""
    (program,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    slurm = {"HOSTS": "node-a,node-b", "SLURM_NTASKS_PER_NODE": "4"}
    for rank in (0, 5):
        found = subprocess.run(
            [sys.executable, "-c", program],
            env=slurm | {"SLURM_PROCID": str(rank)},
            capture_output=True,
            text=True,
            check=True,
        )
        monkeypatch.setenv("TF_CONFIG", found.stdout.strip())
        assert shared_workers.place("tensorflow") == shared_workers.Place(rank, 8, rank % 4, 4)


def test_the_sum_on_the_page_is_what_float32_makes_of_it():
    """Otherwise the first thing that a student tries contradicts the page."""
    import numpy as np

    big, one = np.float32(16_777_216), np.float32(1)
    assert f"(16,777,216 + 1) + 1 = {int(big + one + one):,}" in PAGE.read_text()
    assert f"16,777,216 + (1 + 1) = {int(big + (one + one)):,}" in PAGE.read_text()


# --- Teams ---------------------------------------------------------------------------------------------------


def test_every_process_has_a_place_of_its_own(monkeypatch):
    """Otherwise two processes wait for each other until the time is over, or train apart."""
    for count in (1, 3):
        variables = launch.environments(count)
        for framework in ("torch", "tensorflow"):
            places = []
            for own in variables:
                with monkeypatch.context() as patch:
                    patch.delenv("TF_CONFIG", raising=False)
                    for name, value in own.items():
                        patch.setenv(name, value)
                    places.append(shared_workers.place(framework))
            assert places == [shared_workers.Place(rank, count, rank, count) for rank in range(count)]


def test_all_processes_are_told_before_one_is_waited_for(monkeypatch):
    """Otherwise the first waits for the second, which has not been told, for ever."""
    seen = []

    class FakeWorker:
        def __init__(self, team, script, variables):
            self.rank = int(variables["RANK"])

        def tell(self, do, **request):
            seen.append(("tell", self.rank, do, request))

        def read(self):
            seen.append(("read", self.rank))
            return {"seconds": 1.0 + self.rank}

        def end(self):
            seen.append(("end", self.rank))

    monkeypatch.setattr(workers_team, "Worker", FakeWorker)
    together = Together(Team("torch", 2, 1))
    assert together.ask("train", shards=2) == {"seconds": 1.0}
    assert seen == [("tell", 0, "train", {"shards": 2}), ("tell", 1, "train", {"shards": 2}), ("read", 0), ("read", 1)]
    together.end()
    assert seen[4:] == [("end", 0), ("end", 1)]


def test_the_loopback_is_counted_where_there_is_one(tmp_path):
    """Otherwise the bytes of the page are those of another interface."""
    table = tmp_path / "dev"
    assert workers_process.loopback_bytes(table) is None
    table.write_text("Inter-| Receive\n face |bytes packets\n  lo: 4300 68 0\n eth0: 9476 19 0\n")
    assert workers_process.loopback_bytes(table) == 4300
    table.write_text("Inter-| Receive\n face |bytes packets\n eth0: 9476 19 0\n")
    assert workers_process.loopback_bytes(table) is None


@pytest.mark.parametrize("tree", ["torch"], indirect=True)
def test_two_real_processes_train_and_exchange(tree):
    """Otherwise the benchmark fails after its first minute, when the trees have changed and it has not."""
    team = Team(tree.framework, 2, 1, "tiny", batch_size=4)
    with Crew([team], Together) as crew:
        processes = [each.process for each in crew.workers[team.name].processes]
        assert crew.ask(team.name, "train", shards=2, count=1)["seconds"] > 0
        assert crew.ask(team.name, "describe") == {"threads": 1}
        for reduce in ("exact", "fast"):
            assert crew.ask(team.name, "exchange", preset="tiny", reduce=reduce, count=1)["seconds"] > 0
            sent = crew.ask(team.name, "traffic", preset="tiny", reduce=reduce)
            needed = workers_model.received(reduce, 2, size.num_parameters(with_preset(Config(), "tiny")))
            assert not sent or sent["bytes"] >= needed  # more, if another test uses the loopback
    assert all(process.poll() is not None for process in processes)  # none outlives its crew


def test_a_process_that_dies_ends_its_team(monkeypatch, capfd):
    """Otherwise the others wait for it, and the benchmark for them."""
    nobody = dataclasses.replace(Team("torch", 2, 1), framework="nobody")
    monkeypatch.setitem(workers_team.FRAMEWORKS, "nobody", workers_team.FRAMEWORKS["torch"])
    with Crew([nobody], Together) as crew:
        assert crew.ask(nobody.name, "train", shards=2, count=1) is None
        assert list(crew.lost) == [nobody.name]
    assert "is left out: " in capfd.readouterr().err
