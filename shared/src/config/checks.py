"""Checks of a setting, whose error message names its flag.

True and False are no numbers here, although Python adds and compares them as 1 and 0.
"""

from numbers import Integral, Real

from ddpm_shared.errors import UserError

LARGEST_COUNT = 10**12  # at a thousand steps a second, so many take thirty years
LARGEST_NUMBER = 1e38  # float32 ends at 3.4e38
LARGEST_SEED = 2**64 - 1  # other programs hold a seed in 64 bits
MOST_THREADS = 256  # of one operation; more of them only wait for each other
SHOWN = 80  # characters of a value in a message


def require(condition: bool, flag: str, value: object, rule: str) -> None:
    """Raise UserError with the `flag`, its `value` and the `rule` that it breaks, unless `condition` holds."""
    if not condition:
        text = str(value)
        raise UserError(f"{flag} {text if len(text) <= SHOWN else text[: SHOWN - 3] + '...'}: {rule}")


def flag(field_name: str) -> str:
    """The flag of a field: "max_steps" -> "--max-steps"."""
    return "--" + field_name.replace("_", "-")


def is_whole(value: object) -> bool:
    """Whether a value is a whole number."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_real(value: object) -> bool:
    """Whether a value is a number."""
    return isinstance(value, Real) and not isinstance(value, bool)


def whole(settings: object, *names: str, least: int = 1, most: int = LARGEST_COUNT) -> None:
    """Raise UserError unless each of these fields is None or a whole number from `least` to `most`."""
    for name in names:
        value = getattr(settings, name)
        if value is not None:
            require(is_whole(value), flag(name), value, "must be a whole number")
            require(value >= least, flag(name), value, f"must be {least} or more")
            require(value <= most, flag(name), value, f"must be at most {most:,}")


def positive(settings: object, *names: str, most: float = LARGEST_NUMBER) -> None:
    """Raise UserError unless each of these fields is None or a number above 0, up to `most`."""
    for name in names:
        value = getattr(settings, name)
        if value is not None:
            require(is_real(value) and 0 < value < float("inf"), flag(name), value, "must be positive and finite")
            require(value <= most, flag(name), value, f"must be at most {most:g}")


def fraction(settings: object, *names: str) -> None:
    """Raise UserError unless each of these fields is a number from 0 to below 1."""
    for name in names:
        value = getattr(settings, name)
        require(is_real(value) and 0 <= value < 1, flag(name), value, "must be in [0, 1)")


def between(settings: object, least: float, most: float, *names: str) -> None:
    """Raise UserError unless each of these fields is None or a number from `least` to `most`."""
    for name in names:
        value = getattr(settings, name)
        if value is not None:
            require(
                is_real(value) and least <= value <= most,
                flag(name),
                value,
                f"must be a number from {least:g} to {most:g}",
            )
