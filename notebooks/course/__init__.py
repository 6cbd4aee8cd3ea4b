"""What the notebooks in the folder above stand on: a framework at choice, figures, sliders, and checks of exercises.

begin("torch") or begin("tensorflow") is the first thing that a notebook calls.
"""

import ddpm_shared  # noqa: F401 (first: it sets up the process of a command)
from ddpm_course.tree import Tree, begin, begin_both

__all__ = ["Tree", "begin", "begin_both"]
