"""The exercises of notebook 06, two frameworks: what their checks say of right answers and of usual mistakes."""

import numpy as np
import pytest

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


@pytest.mark.parametrize(
    ("check", "answer", "said"),
    [
        pytest.param(check, answer, said, id=f"{check.__name__}-{said or 'right'}")
        for check, answers in ANSWERS.items()
        for answer, said in answers
    ],
)
def test_right_answers_pass_and_usual_mistakes_are_recognised(check, answer, said):
    """Otherwise a right answer is refused, or a wrong one learnt."""
    verdict = check(answer)
    assert verdict.right == (said is None), verdict
    assert (said or "right") in verdict.text


def test_same_padding_is_tensorflow_s():
    """Otherwise the exercise teaches a rule that holds nowhere."""
    tf = pytest.importorskip("tensorflow")
    for size, kernel, stride in [(28, 3, 2), (7, 3, 2), (28, 3, 1), (9, 2, 2), (28, 5, 3)]:
        x, w = np.random.default_rng(0).standard_normal((1, size, 1)), np.arange(1.0, kernel + 1).reshape(kernel, 1, 1)
        padded = np.pad(x, ((0, 0), same(size, kernel, stride), (0, 0)))
        expected = tf.nn.conv1d(x, w, stride, "SAME").numpy()
        np.testing.assert_allclose(tf.nn.conv1d(padded, w, stride, "VALID").numpy(), expected, rtol=1e-12)
