"""The classes that a command draws or evaluates: what the user asks for, and the true labels of images."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ddpm_shared.config import Config, require
from ddpm_shared.datasets import Split
from ddpm_shared.errors import UserError

Labels = NDArray[np.int64]

ALL = "all"
SHOWN = 20  # classes in a message, at most


def asked_for(text: str, class_names: Sequence[str]) -> Labels:
    """The classes that --labels names, in its order.

    Args:
        text: "all", or numbers and names of classes with commas between them, e.g. "8,trouser". Upper case, spaces and
            signs in a name do not matter, and the beginning of a word is enough where only one class has it: "boot".
        class_names: those of the network, by label.

    Returns:
        [n], n >= 1, each 0 .. K - 1.

    Raises:
        UserError: a class that is not there, or a beginning that several classes have.
    """
    if text.strip().casefold() == ALL:
        return np.arange(len(class_names))
    return np.array([_class(part.strip(), class_names) for part in text.split(",")], np.int64)


def _class(part: str, class_names: Sequence[str]) -> int:
    if part.isascii() and part.isdigit() and len(part) <= 9 and int(part) < len(class_names):
        return int(part)
    name, ends = "".join(_words(part)), [_ends(each) for each in class_names]
    fitting = [i for i, each in enumerate(ends) if each[0] == name] or [
        i for i, each in enumerate(ends) if name and any(end.startswith(name) for end in each)
    ]
    if len(fitting) == 1:
        return fitting[0]
    shown = [name if name == str(i) else f"{i} {name}" for i, name in enumerate(class_names[:SHOWN])]
    known = ", ".join(shown + (["..."] if len(class_names) > SHOWN else []))
    several = " or ".join(class_names[i] for i in fitting)
    wrong = f"{part!r} may be {several}" if several else f"there is no class {part!r}"
    raise UserError(f"--labels: {wrong}; this network has {known}")


def _words(name: str) -> list[str]:
    return re.findall(r"[^\W_]+", name.casefold())


def _ends(name: str) -> list[str]:
    """The name, then what is left of it from its second word on, and so forth: Ankle boot -> ankleboot, boot."""
    words = _words(name)
    return ["".join(words[i:]) for i in range(max(1, len(words)))]


def names_of(class_names: Sequence[str], num_classes: int) -> tuple[str, ...]:
    """The names of a network's classes: those of its checkpoint, or their numbers where it has none."""
    return tuple(class_names) or tuple(str(label) for label in range(num_classes))


def true_labels(split: Split, config: Config, count: int) -> Labels | None:
    """The labels of the first `count` images of a split, for a class-conditional network; None for any other.

    Raises:
        UserError: the data set has other classes than the network.
    """
    classes = config.model.num_classes
    if not classes:
        return None
    require(
        len(split.class_names) == classes,
        "--dataset",
        split.name,
        f"has {len(split.class_names)} classes, and the network {classes}: take the data set that it was trained on",
    )
    return split.labels[:count].astype(np.int64)
