"""`make faults`: campaigns of damage, larger than those in `make test`.

    make faults                                  # 5,000 damaged files
    make faults ARGS="--kills 200 --seed 1"      # and 200 trainings killed, half of them in each framework

Each mutation changes a good file of one reader, and the file is read. It may be refused in one sentence, be read as
the same, or, where the file has no checksum, be read as another valid one. Anything else is a fault of ours: the
damaged file is saved in --out. Each kill ends a training at a random moment; what it leaves must be whole, and the
run that goes on from there must end as the one that was never killed: kills.py.
"""

import random
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import fuzz
import kills
from fuzz_readers import READERS
from tqdm import tqdm

from ddpm_shared import command_line
from ddpm_shared.config import require
from ddpm_shared.errors import choice
from ddpm_shared.frameworks import FRAMEWORKS
from ddpm_shared.tables import aligned

NAMES = tuple(READERS)


@dataclass(frozen=True)
class Command:
    """Damage files, kill trainings, and count what comes of it. Exit code 1 if anything is lost or believed."""

    mutations: int = 5000
    """Number of damaged files, over all readers."""
    readers: tuple[str, ...] = NAMES
    """Readers to try."""
    kills: int = 0
    """Number of trainings to kill, over all frameworks."""
    frameworks: tuple[str, ...] = tuple(FRAMEWORKS)
    """Frameworks to train with."""
    seed: int = 0
    """Seed of the mutations and of the moments of the kills."""
    out: str = "build/faults"
    """Folder for the damaged files that a reader did not survive."""

    def __post_init__(self) -> None:
        require(self.mutations >= 0, "--mutations", self.mutations, "must be 0 or more")
        require(self.kills >= 0, "--kills", self.kills, "must be 0 or more")
        for name in self.frameworks:
            choice("framework", name, tuple(FRAMEWORKS))
        for name in self.readers:
            choice("reader", name, NAMES)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the campaigns that the flags ask for. Returns 1 if one of them found a fault, else 0."""
    command = command_line.parse_flags(Command, argv, "tests/faults/campaign.py")
    results = [fuzzed(command)] if command.mutations else []
    results += [killed(command)] if command.kills else []
    return max(results, default=0)


def killed(command: Command) -> int:
    """The campaign of kills: a table of their moments, and the faults one by one."""
    made = []
    bar = tqdm(total=command.kills, desc="kills", unit="kill", disable=None)
    with tempfile.TemporaryDirectory() as folder, bar:
        for index, framework in enumerate(command.frameworks):
            share = (command.kills + index) // len(command.frameworks)
            place = Path(folder) / framework
            place.mkdir()
            campaign = kills.Campaign(framework)
            for _ in kills.run(campaign, place, share, command.seed):
                bar.update(campaign.kills - (bar.n - sum(each.kills for each in made)))
            made.append(campaign)
    heads = ["killed", *kills.MOMENTS, "kills", "runs", "faults"]
    rows = [
        [each.framework, *(each.moments[moment] for moment in kills.MOMENTS), each.kills, each.runs, len(each.faults)]
        for each in made
    ]
    faults = [f"{each.framework}: {fault}" for each in made for fault in each.faults]
    print("\n".join([*aligned([heads, *rows], digits=2), *faults]))
    return 1 if faults else 0


def fuzzed(command: Command) -> int:
    """The campaign against the readers: a table of what became of the files, and the faults one by one."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in command.readers}
    slowest, faults = dict.fromkeys(command.readers, 0.0), []
    with tempfile.TemporaryDirectory() as folder:
        subjects = {name: fuzz.Subject(READERS[name], Path(folder) / name) for name in command.readers}
        for number in tqdm(range(command.mutations), desc="mutations", unit="file", disable=None):
            name = command.readers[number % len(command.readers)]
            label = f"{command.seed}-{name}-{number}"
            kind, data = fuzz.mutate(subjects[name].good, subjects[name].reader.form, random.Random(label))
            verdict = subjects[name].judge(data)
            counts[name][verdict.outcome] += 1
            slowest[name] = max(slowest[name], verdict.seconds)
            if verdict.outcome in ("CRASH", "SILENT"):
                file = Path(command.out) / label.replace("/", "")
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)
                faults.append(f"{verdict.outcome} {name} ({kind}): {verdict.reason}: {file}")
    rows = [[name, *(counts[name][each] for each in fuzz.OUTCOMES), slowest[name]] for name in command.readers]
    total = [sum(counts[name][each] for name in command.readers) for each in fuzz.OUTCOMES]
    heads = ["reader", *fuzz.OUTCOMES, "slowest, s"]
    print("\n".join([*aligned([heads, *rows, ["all", *total, max(slowest.values())]], digits=2), *faults]))
    return 1 if faults else 0


if __name__ == "__main__":
    command_line.guard(main)
