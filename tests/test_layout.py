"""The shape of the repository: what may stand where, and who may import whom."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    "path",
    [
        "pytorch/__init__.py",
        "tensorflow/__init__.py",
        "shared/__init__.py",
        "tests/__init__.py",
        "conftest.py",
    ],
)
def test_no_file_turns_a_folder_into_a_framework(path):
    """Otherwise `import tensorflow`, run in the repository's root, finds our folder instead of TensorFlow."""
    assert not (ROOT / path).exists()


@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
def test_the_real_framework_is_found_from_the_root(framework):
    """Otherwise everything works except from the folder where everybody stands."""
    code = (
        "import importlib.util as u; spec = u.find_spec('FRAMEWORK');"
        "print(spec.origin if spec and spec.origin else 'absent')"
    ).replace("FRAMEWORK", framework)
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    origin = run.stdout.strip()
    if origin == "absent" and not os.environ.get("CI"):
        pytest.skip(f"{framework} is not installed")
    assert "site-packages" in origin


@pytest.mark.parametrize("package", ["ddpm_shared", "ddpm_torch", "ddpm_tf", "ddpm_parity", "ddpm_course"])
def test_packages_come_from_this_checkout(package):
    """Otherwise the tests test another copy."""
    import importlib.util

    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert Path(spec.origin or "").is_relative_to(ROOT)


def imported(path):
    """The full names that a file imports, anywhere in it: a.b and a.b.c of `from a.b import c`."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def within(name, packages):
    """Whether a dotted name is one of the packages or lies inside one."""
    return any(f"{name}.".startswith(f"{package}.") for package in packages)


PROOF = {
    "ddpm_course",
    "ddpm_parity",
    "ddpm_shared.oracle",
}


@pytest.mark.parametrize(
    ("folder", "barred"),
    [
        ("shared/src", {"torch", "tensorflow", "keras", "ddpm_torch", "ddpm_tf", "ddpm_parity", "ddpm_course"}),
        ("pytorch/src", {"tensorflow", "keras", "ddpm_tf", *PROOF}),
        ("tensorflow/src", {"torch", "ddpm_torch", *PROOF}),
    ],
)
def test_imports_keep_to_the_house_rules(folder, barred):
    """Otherwise an agreement test may compare an implementation with itself (lint-imports holds the finer rules)."""
    files = list((ROOT / folder).rglob("*.py"))
    assert files
    for path in files:
        assert not [name for name in imported(path) if within(name, barred)], path
    engine = ROOT / folder / "engine.py"
    if engine.exists():  # the mathematics receives the network as an argument
        assert not [name for name in imported(engine) if {"model", "networks"} & set(name.split("."))]


@pytest.mark.parametrize(
    "line",
    ["import ddpm_x.proof.bound", "from ddpm_x import proof", "from ddpm_x.proof import f", "import ddpm_x.proof as p"],
)
def test_a_package_is_barred_with_all_that_is_inside(tmp_path, line):
    """Otherwise one way of writing an import evades the rule above."""
    (tmp_path / "a.py").write_text(f"def f():\n    {line}\n")
    assert [name for name in imported(tmp_path / "a.py") if within(name, {"ddpm_x.proof"})]
    assert not [name for name in imported(tmp_path / "a.py") if within(name, {"ddpm_x.proo", "ddpm_x.proof.b"})]


def test_shared_works_where_no_framework_is_installed():
    """Otherwise a user with one framework, or a teacher who only looks at results, gets an ImportError."""
    source = ROOT / "shared/src"
    files = [path.relative_to(source).with_suffix("") for path in source.rglob("*.py")]
    modules = sorted(".".join(["ddpm_shared", *path.parts]).removesuffix(".__init__") for path in files)
    assert {"ddpm_shared.streams", "ddpm_shared.compare", "ddpm_shared.evaluation.metrics"} <= set(modules)
    code = (
        "import sys, importlib\n"
        "for name in ('torch', 'tensorflow', 'keras'): sys.modules[name] = None\n"
        f"for name in {modules}: importlib.import_module(name)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
