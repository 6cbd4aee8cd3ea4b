"""The one exception that means "what the user gave us is wrong"."""


class UserError(ValueError):
    """Bad input. The message is one sentence or two: what is wrong, where, and the way out.

    The command lines print it without a traceback and exit with 2; everything else that is raised is our bug.
    """


def choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Raise UserError naming the allowed values unless `value` is one of them."""
    if value not in allowed:
        raise UserError(f"unknown {name} {value!r}: choose one of {', '.join(allowed)}")
