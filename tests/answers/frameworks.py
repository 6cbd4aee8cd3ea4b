"""Answers to the exercises of notebook 06, two frameworks."""

import numpy as np

from ddpm_course.exercises import frameworks


def same(size, kernel, stride):
    total = max((int(np.ceil(size / stride)) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def rounded_down(size, kernel, stride):
    total = max((size // stride - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


ANSWERS = {
    frameworks.gap: [
        (lambda a, b: np.abs(a - b).max() / np.abs(b).max(), None),
        (lambda a, b: (a - b).sum() / np.abs(b).max(), "a signed sum"),
        (lambda a, b: (a - b).max() / np.abs(b).max(), "one far below"),
        (lambda a, b: np.abs(a - b).mean() / np.abs(b).max(), "that is a mean"),
        (lambda a, b: np.abs(a - b).max(), "absolute terms"),
        (lambda a, b: np.abs(a - b).max() / b.max(), "by its size"),
    ],
    frameworks.same_padding: [
        (same, None),
        (lambda *case: same(*case)[::-1], "comes after"),
        (lambda size, kernel, stride: (kernel // 2, kernel // 2), "does not look at the stride"),
        (rounded_down, "rounded up"),
        (lambda *case: sum(same(*case)), "return two numbers"),
        (lambda *case: None, "nothing yet"),
    ],
    frameworks.to_keras_kernel: [
        (lambda kernel: kernel.transpose(2, 3, 1, 0), None),
        (lambda kernel: kernel.T, "lies on its side"),
        (lambda kernel: kernel.reshape(4, 5, 3, 2), "reshape keeps"),
        (lambda kernel: kernel.transpose(2, 3, 0, 1), "the shape is [4, 5, 2, 3]"),
    ],
}
