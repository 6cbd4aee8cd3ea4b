"""parity.json, the same functions of both trees checked number by number, as the report shows it."""

import json
from pathlib import Path
from typing import Any, cast

import jsonschema

from ddpm_shared.compare.records import Parity, ParityRow
from ddpm_shared.compare.run_records import finite
from ddpm_shared.errors import UserError

DEFAULT = Path("runs/parity/parity.json")

_NUMBER = {"type": ["number", "null"]}
_ROW = {
    "subject": {"type": "string"},
    "quantity": {"type": "string"},
    "precision": {"type": "string"},
    "torch_oracle": _NUMBER,
    "tf_oracle": _NUMBER,
    "torch_tf": _NUMBER,
    "tolerance": {"type": "number"},
    "passed": {"type": "boolean"},
}
# Only what the report needs: the file may hold more.
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["schema_version", "created_utc", "device", "rows"],
    "properties": {
        "schema_version": {"const": 1},
        "created_utc": {"type": "string"},
        "device": {"type": "string"},
        "rows": {"type": "array", "items": {"type": "object", "required": list(_ROW), "properties": _ROW}},
        "mutations": {"type": ["array", "null"], "items": {"type": "object"}},
    },
}


def read(path: Path) -> Parity:
    """A parity.json, as comparison.json states it.

    Returns:
        JSON types: path, created_utc, device; rows, each with the keys of _ROW, null being what was not computed;
        how many rows there are and how many of them agree; and how many faults were planted and how many of them
        caught, null where none was.

    Raises:
        UserError: no such file, not JSON, or not as SCHEMA says.
    """
    try:
        parity = json.loads(path.read_bytes(), parse_float=finite, parse_constant=finite)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; --parity names a parity.json") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON with finite numbers: {error}; --parity names a parity.json") from None
    wrong = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(SCHEMA).iter_errors(parity))
    if wrong is not None:
        where = wrong.json_path.removeprefix("$").removeprefix(".") or "its top level"
        raise UserError(f"{path} is not a parity.json: at {where}, {wrong.message[:200]}")
    rows = cast("list[ParityRow]", [{key: row[key] for key in _ROW} for row in parity["rows"]])
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
