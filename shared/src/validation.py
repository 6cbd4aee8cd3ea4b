"""One validator for everything that is read: a JSON value against the schema of its kind.

The schemas are the files <kind>.schema.json beside this one.
"""

import functools
import json
import sys
from collections.abc import Mapping
from importlib import resources
from typing import Any, TypeVar

from ddpm_shared.errors import UserError
from ddpm_shared.reading import name_of, one_line

T = TypeVar("T")

KINDS = ("metrics", "comparison", "checkpoint", "evaluation", "origin", "parity", "pictures")  # the files
# A package that Jupyter brings: jsonschema would import it for a format that no schema here has, and it compiles a
# grammar for half a second.
SLOW = "rfc3987_syntax"


@functools.cache
def schema(kind: str) -> dict[str, Any]:
    """The JSON Schema of a kind of file."""
    return dict(json.loads(resources.files("ddpm_shared").joinpath(f"{kind}.schema.json").read_text("utf-8")))


def checked(value: T, kind: str | Mapping[str, Any], source: str, what: str, way_out: object = "") -> T:
    """`value`, if it is as the schema of its kind says.

    Args:
        value: JSON types, as reading.parse_json returns them.
        kind: a name of KINDS, one with a part of it, as in "metrics#step", or a schema.
        source: what was read; begins the message.
        what: what it should be, e.g. "an evaluation.json".
        way_out: ends the message.

    Raises:
        UserError: a rule that is broken, and where.
    """
    if reason := fault(value, kind):
        raise UserError(f"{name_of(source)} is not {what}: {reason}" + (f"; {way_out}" if way_out else ""))
    return value


def fault(value: object, kind: str | Mapping[str, Any]) -> str | None:
    """What is wrong with a value, and where; None if it is as the schema of its kind says. Arguments as above."""
    jsonschema = _jsonschema()
    validator = _validator(kind) if isinstance(kind, str) else _validator_class()(kind)
    wrong = jsonschema.exceptions.best_match(validator.iter_errors(value))
    if wrong is None:
        return None
    where = wrong.json_path.removeprefix("$").removeprefix(".") or "its top level"
    reason = wrong.message if len(wrong.message) < 200 else f"it breaks the schema's rule {wrong.validator!r}"
    return f"at {one_line(where, 80)}, {one_line(reason)}"


@functools.cache
def _validator(kind: str) -> Any:
    """The validator of a kind of file, or of one of the parts that it defines under $defs."""
    _jsonschema()
    import referencing
    from referencing.jsonschema import DRAFT202012

    # A file that is referred to keeps this validator only if it does not name its own.
    plain = {name: {key: rule for key, rule in schema(name).items() if key != "$schema"} for name in KINDS}
    files = [(f"{name}.schema.json", DRAFT202012.create_resource(rules)) for name, rules in plain.items()]
    registry: Any = referencing.Registry().with_resources(files)
    name, _, part = kind.partition("#")
    whole = schema(name)
    return _validator_class()({**whole["$defs"][part], "$defs": whole["$defs"]} if part else whole, registry=registry)


@functools.cache
def _validator_class() -> Any:
    """JSON Schema takes 1.0 for an integer, which Python does not; true is none to either."""
    jsonschema = _jsonschema()
    known = jsonschema.Draft202012Validator
    types = known.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)
    return jsonschema.validators.extend(known, type_checker=types)


@functools.cache
def _jsonschema() -> Any:
    """The library, imported when something is first checked; `--help` checks nothing."""
    hidden: dict[str, Any] = {} if SLOW in sys.modules else {SLOW: None}  # None: to be found nowhere
    sys.modules.update(hidden)
    try:
        import jsonschema
    finally:
        for name in hidden:
            del sys.modules[name]
    return jsonschema
