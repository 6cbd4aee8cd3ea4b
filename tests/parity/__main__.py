"""`make parity`: the suite on this machine, as a table to read or to attach to a bug report."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tqdm import tqdm

from ddpm_parity import report, sampling
from ddpm_parity.faults import MUTATIONS
from ddpm_parity.mutations import catch
from ddpm_parity.suite import PRECISIONS, QUANTITIES, Suite
from ddpm_shared import claims, command_line, files, machine
from ddpm_shared.config import Device
from ddpm_shared.errors import choice
from ddpm_shared.records import folder as run_folders

SUBJECTS = tuple(dict.fromkeys(quantity.subject for quantity in QUANTITIES))


@dataclass(frozen=True)
class Command:
    """Compare every number that PyTorch, TensorFlow and the float64 oracle compute; exit 1 if two differ too much."""

    subjects: tuple[str, ...] = SUBJECTS
    """Subjects to compare."""
    device: Device = "cpu"
    """Device of the two frameworks. The GPU has tolerances of its own."""
    checkpoint: str | None = None
    """Checkpoint to sample from, or a run folder (default: the small one in the package)."""
    all: bool = False
    """Compare the large network as well (minutes, some GiB of memory)."""
    mutations: bool = False
    """Plant faults in each tree, one at a time, and check that each is caught."""
    out: str = "runs/parity"
    """Folder for parity.json and parity.md."""


def main(argv: Sequence[str] | None = None) -> int:
    """Compare as the flags say. 0: all agree, every planted fault is caught; 1: not so. Raises UserError, OSError."""
    command = command_line.parse_flags(Command, argv, "ddpm_parity")
    for subject in command.subjects:
        choice("subject", subject, SUBJECTS)
    quantities = [q for q in QUANTITIES if q.subject in command.subjects and (command.all or not q.slow)]
    if command.checkpoint:
        chosen = sampling.quantities(run_folders.latest_checkpoint(Path(command.checkpoint)))
        quantities = [q for q in quantities if q.subject != "sampling"] + chosen
    suite = Suite(command.device)

    verdicts, caught = [], None
    with tqdm(total=len(quantities) * len(PRECISIONS), desc="parity", disable=None) as bar:
        for quantity in quantities:
            for precision in PRECISIONS:
                bar.set_postfix_str(f"{quantity}, {precision}")
                verdicts.append(suite.judge(quantity, precision))
                bar.update()
    if command.mutations:
        faults = tqdm(MUTATIONS, desc="planted faults", disable=None)
        caught = [(mutation, catch(suite, mutation)) for mutation in faults]

    side = suite.sides["fp32"]["torch"]
    device = side.utils.device_name(side.device)
    found = report.record(
        verdicts,
        caught,
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        device=device,
        environment=machine.environment(device, side.utils.threads()),
    )
    out = Path(command.out)
    with claims.writing(out):
        files.write_json(out / "parity.json", found)
        files.write_atomically(out / "parity.md", report.markdown(found).encode())
    print(f"{report.text(found)}\n\n{out / 'parity.md'}, {out / 'parity.json'}")
    return 0 if found["passed"] else 1


if __name__ == "__main__":
    command_line.guard(main)
