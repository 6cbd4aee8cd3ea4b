"""The parity table for people (text, Markdown) and for programs (JSON)."""

import math
from collections.abc import Sequence
from typing import Any

from ddpm_parity.mutation import Mutation
from ddpm_parity.quantities import Verdict
from ddpm_parity.tolerances import GPU_FACTOR

Record = dict[str, Any]
PAIRS = (("torch", "oracle"), ("tf", "oracle"), ("torch", "tf"))
HEADER = ("quantity", "precision", "torch - oracle", "tf - oracle", "torch - tf", "tolerance", "verdict")


def record(
    verdicts: Sequence[Verdict], caught: Sequence[tuple[Mutation, Verdict | None]] | None, **about: Any
) -> Record:
    """parity.json: a gap that is not finite is null, `faults` say why; `mutations` is null where none was tried."""
    rows = [
        {
            "subject": verdict.quantity.subject,
            "quantity": verdict.quantity.name,
            "precision": verdict.precision,
            "measure": verdict.quantity.measure.__name__,
            **{f"{a}_{b}": _finite(verdict.gaps[a, b].size) for a, b in PAIRS},
            "tolerance": verdict.tolerance,
            "passed": not verdict.faults,
            "faults": verdict.faults,
        }
        for verdict in verdicts
    ]
    mutations = None if caught is None else [_caught(mutation, verdict) for mutation, verdict in caught]
    passed = all(row["passed"] for row in rows) and all(m["caught_by"] for m in mutations or [])
    return {"schema_version": 1, **about, "passed": passed, "rows": rows, "mutations": mutations}


def _finite(size: float) -> float | None:
    return size if math.isfinite(size) else None


def _caught(mutation: Mutation, verdict: Verdict | None) -> Record:
    largest = max((gap.size for gap in verdict.gaps.values()), default=0.0) if verdict else 0.0
    return {
        "fault": mutation.name,
        "tree": mutation.tree,
        "module": mutation.module,
        "edits": [list(edit) for edit in mutation.edits],
        "caught_by": str(verdict.quantity) if verdict else None,
        "gap": _finite(largest) if verdict else None,
        "tolerance": verdict.tolerance if verdict else None,
    }


def summary(found: Record) -> list[str]:
    """The verdict in a few lines."""
    rows, mutations = found["rows"], found["mutations"]
    failed = [row for row in rows if not row["passed"]]
    lines = [f"{len(rows) - len(failed)} of {len(rows)} comparisons agree on {found['device']}."]
    if found["device"] != "cpu":
        lines.append(f"Tolerances are {GPU_FACTOR:g} times the CPU's; TF32 is off.")
    if mutations is not None:
        survivors = [m for m in mutations if not m["caught_by"]]
        lines.append(f"{len(mutations)} faults planted, {len(survivors)} survived.")
        lines += [f"  survived: {m['tree']}, {m['module']}.py: {m['fault']}" for m in survivors]
    return lines + [f"  {fault}" for row in failed for fault in row["faults"]]


def _cells(found: Record) -> list[tuple[str, ...]]:
    return [
        (
            f"{row['subject']}: {row['quantity']}",
            row["precision"],
            *("inf" if row[f"{a}_{b}"] is None else f"{row[f'{a}_{b}']:.1e}" for a, b in PAIRS),
            f"{row['tolerance']:.0e}",
            "agree" if row["passed"] else "DIFFER",
        )
        for row in found["rows"]
    ]


def _mutation_cells(found: Record) -> list[tuple[str, ...]]:
    return [
        (
            f"{m['tree']}: {m['fault']}",
            m["caught_by"] or "NOTHING",
            "inf" if m["gap"] is None else f"{m['gap']:.1e}",
        )
        for m in found["mutations"] or []
    ]


MUTATION_HEADER = ("planted fault", "caught by", "gap")


def text(found: Record) -> str:
    """Aligned columns for a terminal."""
    blocks = [_aligned([HEADER, *_cells(found)])]
    if found["mutations"] is not None:
        blocks.append(_aligned([MUTATION_HEADER, *_mutation_cells(found)]))
    return "\n\n".join([*blocks, "\n".join(summary(found))])


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def markdown(found: Record) -> str:
    """What a user attaches to a bug report."""
    machine = found["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    blocks = [
        "# Parity of the two frameworks",
        "\n".join(summary(found)),
        f"{found['created_utc']}, {machine['platform']}, {machine['threads']} threads, {versions}",
        _piped(HEADER, _cells(found)),
    ]
    if found["mutations"] is not None:
        blocks += ["## Planted faults", _piped(MUTATION_HEADER, _mutation_cells(found))]
    return "\n\n".join(blocks) + "\n"


def _piped(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows))
