"""How far is a GPU from the float64 oracle? In multiples of the CPU's tolerances, by subject of the parity suite.

    .venv/bin/python tests/gpu/gaps.py --out runs/gpu-gaps

The largest multiple is what GPU_FACTOR in tests/parity/tolerances.py has to cover. TF32 is off, as the suite has it. A
framework that is not installed, or sees no GPU, is left out, and a quantity that fails is reported: whoever borrows a
GPU for some minutes wants to know all else. Writes gaps.json and gaps.md. The exit code is 0 if all was compared and no
gap is beyond GPU_FACTOR, else 1.
"""

import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import tyro
from tqdm import tqdm

from ddpm_parity.quantities import Quantity, judge
from ddpm_parity.sides import Oracle, Side
from ddpm_parity.suite import PRECISIONS, QUANTITIES
from ddpm_parity.tf_side import TensorFlow
from ddpm_parity.tolerances import GPU_FACTOR
from ddpm_parity.torch_side import Torch
from ddpm_shared import command_line, files, machine
from ddpm_shared.config import Precision
from ddpm_shared.errors import UserError
from ddpm_shared.frameworks import FRAMEWORKS, installed
from ddpm_shared.tables import aligned

Row = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """Compare what the GPU computes with the oracle."""

    subjects: tuple[str, ...] = ()
    """Subjects to compare (default: all)."""
    minutes: float = 4.0
    """Time after which no further quantity is begun; the report says how many are missing."""
    out: str = "runs/gpu-gaps"
    """Folder to write to."""


def sides(precision: Precision, oracle: Side) -> dict[str, Side]:
    """The frameworks that see a GPU, and the oracle. Raises UserError if there is none."""
    found: dict[str, Side] = {}
    for name, framework, kind in (("torch", "torch", Torch), ("tf", "tensorflow", TensorFlow)):
        if not installed(framework):
            print(f"{FRAMEWORKS[framework].title} is not installed, and left out", file=sys.stderr)
            continue
        try:
            found[name] = kind(precision, "gpu")
        except UserError as error:
            print(f"left out: {error}", file=sys.stderr)
    if not found:
        raise UserError("no framework here sees a GPU: see that their builds have CUDA, and that nvidia-smi lists one")
    if not installed("torch"):
        raise UserError("PyTorch is not installed, and the oracle takes its parameters' names from it: install it")
    for name, side in found.items():  # whose checkpoint a run goes on from
        others = [other for other_name, other in found.items() if other_name != name]
        side.other = others[0] if others else Torch(precision)
    return found | {"oracle": oracle}


def rows(options: Options) -> tuple[list[Row], machine.Environment]:
    """What was found of each quantity in each precision, until the time is up; and on what."""
    quantities = [q for q in QUANTITIES if not q.slow and (not options.subjects or q.subject in options.subjects)]
    ends, found = time.monotonic() + 60 * options.minutes, []
    oracle = Oracle(Torch("fp64"))  # one for both precisions: it computes everything once
    with tqdm(total=len(quantities) * len(PRECISIONS), desc="gaps", mininterval=2) as bar:
        for precision in reversed(PRECISIONS):  # float32 first: there a GPU has more to show
            compared = sides(precision, oracle)
            for quantity in quantities:
                bar.set_postfix_str(f"{quantity}, {precision}", refresh=False)
                late = time.monotonic() > ends
                found.append(missing(quantity, precision) if late else row(quantity, precision, compared))
                bar.update()
    side: Any = next(iter(compared.values()))
    return found, machine.environment(side.utils.device_name(side.device), side.utils.threads())


def missing(quantity: Quantity, precision: Precision, reason: str = "") -> Row:
    """The row of a quantity that was not compared, for want of time, or because it failed."""
    return {
        "subject": quantity.subject,
        "quantity": quantity.name,
        "precision": precision,
        "multiple": None,
        "where": reason,
    }


def row(quantity: Quantity, precision: Precision, compared: dict[str, Side]) -> Row:
    """The largest gap of a quantity, as a multiple of the CPU's tolerance; None beyond all bounds."""
    try:
        results = {name: side.keep(str(quantity), partial(quantity.compute, side)) for name, side in compared.items()}
    except Exception as error:  # of whatever library: the other quantities are worth knowing all the same
        return missing(quantity, precision, f"{type(error).__name__}: {error}".splitlines()[0])
    gaps = judge(quantity, results, precision).gaps
    (a, b), worst = max(gaps.items(), key=lambda item: item[1].size)
    bound = quantity.tolerance.on("cpu", precision)
    multiple = 0.0 if worst.size == 0 else worst.size / bound if bound else float("inf")
    return missing(quantity, precision, f"{a} against {b}, {worst.where}: {worst.size:.3g}, CPU {bound:.3g}") | {
        "multiple": min(multiple, sys.float_info.max)
    }


def document(found: list[Row]) -> str:
    """The worst of each subject, and what was not compared."""
    done = [each for each in found if each["multiple"] is not None]
    failed = [each for each in found if each["multiple"] is None and each["where"]]
    late = len(found) - len(done) - len(failed)
    cells: list[tuple[Any, ...]] = [("subject", "precision", "x CPU tolerance", "worst quantity", "where")]
    for subject, precision in dict.fromkeys((each["subject"], each["precision"]) for each in done):
        own = [each for each in done if (each["subject"], each["precision"]) == (subject, precision)]
        worst = max(own, key=lambda each: each["multiple"])
        cells.append((subject, precision, worst["multiple"], worst["quantity"], worst["where"]))
    beyond = [each for each in done if each["multiple"] > GPU_FACTOR]
    lines = [
        *aligned(cells, 3),
        f"{len(done)} compared: {sum(each['multiple'] > 1 for each in done)} beyond the CPU's tolerance, {len(beyond)} "
        f"beyond {GPU_FACTOR:g} times it; {len(failed)} failed, {late} not begun for want of time.",
    ]
    lines += [f"beyond: {each['subject']}: {each['quantity']}, {each['precision']}: {each['where']}" for each in beyond]
    lines += [f"failed: {each['subject']}: {each['quantity']}, {each['precision']}: {each['where']}" for each in failed]
    return "\n".join(lines)


def measure(options: Options) -> int:
    """Compare, print and write. Returns the exit code."""
    found, about = rows(options)
    text, out = f"{about['device']}\n{document(found)}", Path(options.out)
    files.write_json(out / "gaps.json", {"environment": about, "factor": GPU_FACTOR, "rows": found})
    files.write_atomically(out / "gaps.md", f"```\n{text}\n```\n".encode())
    print(f"{text}\n{out / 'gaps.md'}")
    return int(any(each["multiple"] is None or each["multiple"] > GPU_FACTOR for each in found))


if __name__ == "__main__":
    command_line.guard(lambda: measure(tyro.cli(Options, prog="tests/gpu/gaps.py")))
