"""UserError: the exception for bad input."""


class UserError(ValueError):
    """Bad input. The message is one or two sentences: what is wrong, where, and the way out.

    The command lines print it without a traceback and exit with code 2. Any other exception is a bug of ours.
    """


def choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Raise UserError naming the allowed values unless `value` is one of them."""
    if value not in allowed:
        raise UserError(f"unknown {name} {value!r}: choose one of {', '.join(allowed)}")
