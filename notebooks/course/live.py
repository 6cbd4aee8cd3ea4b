"""A curve that grows while something runs; in a saved notebook its last state stays."""

import os
from typing import Any

import numpy as np
from IPython.display import display
from matplotlib import pyplot as plt

from ddpm_course.explore import BUILDING


class LiveCurve:
    """A loss over the steps, drawn again every so many.

    Args:
        title: of the figure.
        total: steps that are to come, so that the axis does not jump.
        every: steps between two drawings.
    """

    def __init__(self, title: str, total: int, every: int = 25) -> None:
        self.total, self.every = total, every
        self.values: list[float] = []
        self.figure, self.axes = plt.subplots(figsize=(7.5, 3.2))
        plt.close(self.figure)  # it is shown by its handle alone
        self.axes.set(title=title, xlabel="step", ylabel="loss", yscale="log", xlim=(0, total))
        (self.dots,) = self.axes.plot([], [], ".", color="0.75", markersize=3, label="each step")
        (self.line,) = self.axes.plot([], [], label="mean of the last 20")
        self.axes.legend()
        self.handle: Any = display(self.figure, display_id=True)

    def add(self, value: float) -> None:
        """The loss of the next step."""
        self.values.append(value)
        finished = len(self.values) == self.total
        if finished or (len(self.values) % self.every == 0 and not os.environ.get(BUILDING)):
            self._draw()

    def _draw(self) -> None:
        steps, values = np.arange(1, len(self.values) + 1), np.array(self.values)
        sums = np.cumsum(np.append(0.0, values))
        width = np.minimum(steps, 20)
        self.dots.set_data(steps, values)
        self.line.set_data(steps, (sums[steps] - sums[steps - width]) / width)
        self.axes.relim()
        self.axes.autoscale_view()
        self.handle.update(self.figure)
