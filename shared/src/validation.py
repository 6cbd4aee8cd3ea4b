"""One validator for everything that is read: a JSON value against the schema of its kind.

The schemas are the files <kind>.schema.json beside this one.
"""

import functools
import json
from collections.abc import Mapping
from importlib import resources
from typing import Any, TypeVar

import jsonschema
import referencing
from referencing.jsonschema import DRAFT202012

from ddpm_shared.errors import UserError
from ddpm_shared.reading import name_of, one_line

T = TypeVar("T")

KINDS = ("metrics", "comparison", "checkpoint", "evaluation", "origin", "parity")  # the files

# JSON Schema takes 1.0 for an integer, which Python does not; true is none to either.
_TYPES = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)
_extended: Any = jsonschema.validators.extend
_Validator = _extended(jsonschema.Draft202012Validator, type_checker=_TYPES)


@functools.cache
def schema(kind: str) -> dict[str, Any]:
    """The JSON Schema of a kind of file."""
    return dict(json.loads(resources.files("ddpm_shared").joinpath(f"{kind}.schema.json").read_text("utf-8")))


@functools.cache
def _validator(kind: str, part: str | None) -> Any:
    """The validator of a kind of file, or of `part`, which is defined there under $defs."""
    files = [(f"{name}.schema.json", DRAFT202012.create_resource(schema(name))) for name in KINDS]
    pointer = f"#/$defs/{part}" if part else ""
    registry: Any = referencing.Registry().with_resources(files)
    return _Validator({"$ref": f"{kind}.schema.json{pointer}"}, registry=registry)


def checked(value: T, kind: str | Mapping[str, Any], source: str, what: str, way_out: object = "") -> T:
    """`value`, if it is as the schema of its kind says.

    Args:
        value: JSON types, as reading.parse_json returns them.
        kind: a name of KINDS, one with a part of it, as in "metrics#step", or a schema.
        source: what was read; begins the message.
        what: what it should be, e.g. "an evaluation.json".
        way_out: ends the message.

    Raises:
        UserError: the first rule that is broken, and where.
    """
    if isinstance(kind, str):
        name, _, part = kind.partition("#")
        validator = _validator(name, part or None)
    else:
        validator = _Validator(kind)
    wrong = jsonschema.exceptions.best_match(validator.iter_errors(value))
    if wrong is None:
        return value
    where = wrong.json_path.removeprefix("$").removeprefix(".") or "its top level"
    reason = wrong.message if len(wrong.message) < 200 else f"it breaks the schema's rule {wrong.validator!r}"
    end = f"; {way_out}" if way_out else ""
    raise UserError(f"{name_of(source)} is not {what}: at {one_line(where, 80)}, {one_line(reason)}{end}")
