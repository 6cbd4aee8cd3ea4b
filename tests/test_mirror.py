"""The two trees read side by side: the same modules, public names, arguments and equations, in the same order."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TREES = {"ddpm_torch": ROOT / "pytorch" / "src", "ddpm_tf": ROOT / "tensorflow" / "src"}


def modules(tree):
    """Paths of the tree's modules inside it, those of subpackages too: engine.py, networks/layers.py."""
    return sorted(path.relative_to(TREES[tree]).as_posix() for path in TREES[tree].rglob("*.py"))


MODULES = modules("ddpm_torch")

# What one framework needs and the other does not, each with the reason.
EXTRA_ARGUMENTS = {"device"}  # TensorFlow places tensors itself
EXTRA_NAMES = {
    # PyTorch's names and layouts are the canonical ones: only Keras needs a mapping.
    ("ddpm_tf", "model.py"): {"LEAVES", "Layout", "canonical_shape", "from_canonical", "layouts", "to_canonical"},
    # Keras' GroupNorm, its gradient of SiLU and its building of layers of layers are slow; and it would draw the
    # kernels that model.py then sets.
    ("ddpm_tf", "networks/layers.py"): {
        "Block",
        "Conv2D",
        "Conv2DTranspose",
        "Dense",
        "GroupNorm",
        "LayerNorm",
        "silu",
    },
}
SPELLING = {"forward": "call"}  # the method that a layer of each framework must define
# Keras layers are given their number format, PyTorch modules moved to it; its collectives belong to a strategy.
OWN_ARGUMENTS = {"dtype", "strategy"}


def surface(tree, module):
    """Public names in order: constants, functions and classes, with arguments, methods and Mirror line."""
    found = []
    for node in ast.parse((TREES[tree] / module).read_text()).body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(target, ast.Name):
                found.append((target.id, None))
        elif isinstance(node, ast.FunctionDef):
            found.append((node.name, arguments(node)))
        elif isinstance(node, ast.ClassDef):
            methods = [
                (SPELLING.get(m.name, m.name), arguments(m)) for m in node.body if isinstance(m, ast.FunctionDef)
            ]
            fields = [m.target.id for m in node.body if isinstance(m, ast.AnnAssign) and isinstance(m.target, ast.Name)]
            methods = [(name, args) for name, args in methods if name == "__init__" or not name.startswith("_")]
            found.append((node.name, (methods, fields)))
    extra = EXTRA_NAMES.get((tree, module), set())
    return [(name, rest) for name, rest in found if not name.startswith("_") and name not in extra]


def arguments(function):
    names = [argument.arg for argument in function.args.args]
    defaults = len(function.args.defaults)
    required = set(names[: len(names) - defaults])
    return [(name, name in required) for name in names if name not in EXTRA_ARGUMENTS | OWN_ARGUMENTS]


def test_the_trees_have_the_same_modules():
    """Otherwise a feature exists in one framework only."""
    assert modules("ddpm_tf") == MODULES
    assert {"config.py", "data.py", "model.py", "engine.py", "train.py", "inference.py", "utils.py"} <= set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_modules_have_the_same_surface_in_the_same_order(module):
    """Otherwise a learner who reads the files side by side loses the place, and the contract holds in one tree only."""
    assert surface("ddpm_torch", module) == surface("ddpm_tf", module)


def documented(tree, module):
    """(name, docstring) of the public functions and classes, and of the classes' public methods."""

    def public(nodes, prefix=""):
        for node in nodes:
            name = SPELLING.get(getattr(node, "name", "_"), getattr(node, "name", "_"))
            if name.startswith("_") or prefix + name in EXTRA_NAMES.get((tree, module), set()):
                continue
            yield prefix + name, ast.get_docstring(node) or ""
            if isinstance(node, ast.ClassDef):
                yield from public(node.body, f"{name}.")

    return list(public(ast.parse((TREES[tree] / module).read_text()).body))


@pytest.mark.parametrize("tree", TREES)
@pytest.mark.parametrize("module", MODULES)
def test_mirror_lines_name_what_exists(tree, module):
    """Otherwise the pointer from one tree to the other is missing, or leads nowhere after a renaming."""
    other = next(name for name in TREES if name != tree)
    dotted = ".".join([other, *module.removesuffix(".py").split("/")]).removesuffix(".__init__")
    assert f"Mirror: {dotted}." in (ast.get_docstring(ast.parse((TREES[tree] / module).read_text())) or "")
    for name, docstring in documented(tree, module):
        targets = re.findall(r"Mirror: ([\w.]+?)\.?(?:\s|$)", docstring)
        assert targets == ([] if "." in name or name == "main" else [f"{dotted}.{name}"])


@pytest.mark.parametrize("module", MODULES)
def test_both_trees_are_documented_alike(module):
    """Otherwise the comments of one tree drift from its code, as they do in every copied file."""

    def neutral(docstring):
        docstring = re.sub(r"Mirror: .*|^ *(device|dtype|strategy): .*$", "", docstring, flags=re.M)
        return re.sub(
            r"\[B, (\d?C[^,]*|out_channels), ([^],]+), ([^],]+)]", r"[B, \2, \3, \1]", re.sub(r"\s+", " ", docstring)
        ).strip()

    ours, theirs = [[(name, neutral(docstring)) for name, docstring in documented(tree, module)] for tree in TREES]
    assert ours == theirs
