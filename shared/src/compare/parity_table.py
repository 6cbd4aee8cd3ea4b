"""parity.json, the same functions of both trees checked number by number, as the report shows it."""

from pathlib import Path
from typing import cast

from ddpm_shared import reading, validation
from ddpm_shared.compare.records import Parity, ParityRow

DEFAULT = Path("runs/parity/parity.json")

WAY_OUT = "--parity names a parity.json"
AT_MOST = 64 * reading.MIB
ROW = ("subject", "quantity", "precision", "torch_oracle", "tf_oracle", "torch_tf", "tolerance", "passed")


def read(path: Path) -> Parity:
    """A parity.json, as comparison.json states it.

    Returns:
        JSON types: path, created_utc, device; rows, each with the keys of ROW, null being what was not computed;
        how many rows there are and how many of them agree; and how many faults were planted and how many of them
        caught, null where none was.

    Raises:
        UserError: no such file, not JSON, or not as parity.schema.json says.
    """
    parity = reading.read_json(path, WAY_OUT, AT_MOST)
    validation.checked(parity, "parity", str(path), "a parity.json", WAY_OUT)
    rows = cast("list[ParityRow]", [{key: row[key] for key in ROW} for row in parity["rows"]])
    planted = parity.get("mutations")
    return {
        "path": str(path),
        "created_utc": parity["created_utc"],
        "device": parity["device"],
        "quantities": len(rows),
        "agreeing": sum(row["passed"] for row in rows),
        "planted_faults": None if planted is None else len(planted),
        "caught_faults": None if planted is None else sum(bool(fault.get("caught_by")) for fault in planted),
        "rows": rows,
    }
