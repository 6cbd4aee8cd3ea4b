"""`make faults`: campaigns of damage, larger than those in `make test`.

    python tests/faults/campaign.py --mutations 5000 --seed 1

Each mutation changes a good file of one reader, and the file is read. It may be refused in one sentence, be read as
the same, or, where the file has no checksum, be read as another valid one. Anything else is a fault of ours: the
damaged file is saved in --out.
"""

import random
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import fuzz
from fuzz_readers import READERS
from tqdm import tqdm

from ddpm_shared import command_line
from ddpm_shared.config import require
from ddpm_shared.errors import choice
from ddpm_shared.tables import aligned

NAMES = tuple(READERS)


@dataclass(frozen=True)
class Command:
    """Damage files and see what the readers make of them. Exit code 1 if one crashes or is wrong without a word."""

    mutations: int = 0
    """Number of damaged files, over all readers."""
    readers: tuple[str, ...] = NAMES
    """Readers to try."""
    seed: int = 0
    """Seed of the mutations."""
    out: str = "build/faults"
    """Folder for the damaged files that a reader did not survive."""

    def __post_init__(self) -> None:
        require(self.mutations >= 0, "--mutations", self.mutations, "must be 0 or more")
        for name in self.readers:
            choice("reader", name, NAMES)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the campaigns that the flags ask for. Returns 1 if one of them found a fault, else 0."""
    command = command_line.parse_flags(Command, argv, "tests/faults/campaign.py")
    return fuzzed(command)


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
