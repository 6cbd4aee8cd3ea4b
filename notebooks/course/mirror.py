"""The same function in both trees, side by side. Neither framework is imported: the sources are read."""

import ast
import html
import importlib.util
from pathlib import Path

from IPython.display import HTML

from ddpm_shared.frameworks import FRAMEWORKS

STYLE = 'style="text-align: left; vertical-align: top; white-space: pre; font-family: monospace"'


def source(framework: str, module: str, name: str) -> str:
    """The source of a function or class, without its docstring, which is the same in both trees.

    Args:
        framework: "torch" or "tensorflow".
        module: e.g. "engine" or "networks/layers".
        name: of the function or class.

    Raises:
        ValueError: there is none of that name.
    """
    package = importlib.util.find_spec(FRAMEWORKS[framework].tree)
    assert package is not None
    assert package.origin is not None
    text = (Path(package.origin).parent / f"{module}.py").read_text("utf-8")
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            lines, first = text.splitlines(), node.body[0]
            code = lines[node.lineno - 1 : node.end_lineno]
            if ast.get_docstring(node) is not None:
                del code[first.lineno - node.lineno : (first.end_lineno or first.lineno) - node.lineno + 1]
            return "\n".join(code)
    raise ValueError(f"{module}.py of {FRAMEWORKS[framework].tree} holds no {name}")


def side_by_side(module: str, name: str) -> HTML:
    """Both trees' `module.name` in a table of two columns."""
    heads = "".join(f"<th style='text-align: left'>{FRAMEWORKS[framework].title}</th>" for framework in FRAMEWORKS)
    cells = "".join(f"<td {STYLE}>{html.escape(source(framework, module, name))}</td>" for framework in FRAMEWORKS)
    return HTML(f"<table><tr>{heads}</tr><tr>{cells}</tr></table>")
