"""Checks of a setting, whose error message names its flag."""

from ddpm_shared.errors import UserError


def require(condition: bool, flag: str, value: object, rule: str) -> None:
    """Raise UserError with the `flag`, its `value` and the `rule` that it breaks, unless `condition` holds."""
    if not condition:
        raise UserError(f"{flag} {value}: {rule}")


def flag(field_name: str) -> str:
    """The flag of a field: "max_steps" -> "--max-steps"."""
    return "--" + field_name.replace("_", "-")
