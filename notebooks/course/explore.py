"""Sliders that degrade: a saved notebook shows pictures of a few values, a running one lets you choose."""

import os
from collections.abc import Callable, Sequence

from IPython.display import display

BUILDING = "DDPM_DUET_BUILDING"  # set while the notebooks are executed without anybody watching


def explore(name: str, values: Sequence[int], draw: Callable[[int], None], shown: Sequence[int]) -> None:
    """Draw each of the values `shown`, and below them a slider over all `values` where somebody can move it.

    Args:
        name: what the slider changes, e.g. "t".
        values: its positions.
        draw: shows the figure of one value.
        shown: the values whose figures stand in the saved notebook.
    """
    for value in shown:
        draw(value)
    if os.environ.get(BUILDING):
        return
    try:
        import ipywidgets
    except ModuleNotFoundError:
        print("A slider would stand here: `pip install ipywidgets`, and restart the kernel.")
        return
    slider = ipywidgets.SelectionSlider(options=values, value=shown[0], description=name, continuous_update=False)
    display(ipywidgets.interactive(lambda value: draw(value), value=slider))
