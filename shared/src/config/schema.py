"""The JSON Schema of settings, made of their dataclasses, so that a new field needs no second description."""

import dataclasses
import functools
import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

SIMPLE = {bool: "boolean", float: "number", str: "string", type(None): "null"}
LARGEST = 2**53  # of an integer but a seed, which is only hashed: as far as float64 counts
LEVELS = 64  # of a network, far more than any can have


@functools.cache
def schema(kind: type) -> dict[str, Any]:
    """The schema of a dataclass: an object with some of its fields and no others."""
    hints = get_type_hints(kind)
    fields = {field.name: _field(field.name, hints[field.name]) for field in dataclasses.fields(kind)}
    return {"type": "object", "properties": fields, "additionalProperties": False}


def _field(name: str, kind: Any) -> dict[str, Any]:
    arguments = get_args(kind)
    if dataclasses.is_dataclass(kind):
        assert isinstance(kind, type)
        return schema(kind)
    if kind is int:
        return {"type": "integer"} if name == "seed" else {"type": "integer", "minimum": -LARGEST, "maximum": LARGEST}
    if get_origin(kind) in (Union, types.UnionType):  # X | None
        (inner,) = (_field(name, each) for each in arguments if each is not type(None))
        return inner | {"type": [inner["type"], "null"]}
    if get_origin(kind) is tuple:
        return {"type": "array", "items": _field(name, arguments[0]), "maxItems": LEVELS}
    if get_origin(kind) is Literal:  # the sentence that names the choices comes from errors.choice
        return {"type": "string"}
    return {"type": SIMPLE[kind]}
