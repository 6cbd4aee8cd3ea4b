"""A fault, as an edit of the source."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """A fault: what it is, where, and the edits (old text, new text) of that module that plant it."""

    name: str
    tree: str  # "torch", "tf" or "shared"
    module: str
    edits: tuple[tuple[str, str], ...]
    subject: str  # of the suite: asked first

    def __str__(self) -> str:
        return f"{self.tree}: {self.name}"


def fault(name: str, place: str, subject: str, *edits: str) -> Mutation:
    """A fault at "torch.networks.layers", say, by texts and what each becomes: old, new, old, new, ..."""
    tree, module = place.split(".", 1)
    return Mutation(name, tree, module, tuple(zip(edits[::2], edits[1::2], strict=True)), subject)
