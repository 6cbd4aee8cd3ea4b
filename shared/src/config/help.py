"""What `--help` prints where a field's docstring and default do not suffice."""

import tyro


def default_is(text: str) -> object:
    """Mark a field, in Annotated, whose default None stands for something: `--help` prints (default: `text`)."""
    return tyro.conf.arg(help_behavior_hint=f"(default: {text})")
