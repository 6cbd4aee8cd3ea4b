"""The exercises of the notebooks: what their checks say of right answers and of usual mistakes."""

import importlib
import inspect
import pkgutil

import numpy as np
import pytest

from answers import frameworks
from ddpm_course import exercises
from ddpm_course.exercises.checking import compare, exercise

MODULES = [module.name for module in pkgutil.iter_modules(exercises.__path__) if module.name != "checking"]
ANSWERS = {
    check: answers for name in MODULES for check, answers in importlib.import_module(f"answers.{name}").ANSWERS.items()
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


@pytest.mark.parametrize("name", MODULES)
def test_every_exercise_has_answers(name):
    """Otherwise a check is trusted that nobody has tried."""
    module = importlib.import_module(f"ddpm_course.exercises.{name}")
    checks = {value for value in vars(module).values() if inspect.isfunction(value) and hasattr(value, "__wrapped__")}
    assert checks
    assert checks <= set(ANSWERS)


def test_same_padding_is_tensorflow_s():
    """Otherwise the exercise teaches a rule that holds nowhere."""
    tf = pytest.importorskip("tensorflow")
    for size, kernel, stride in [(28, 3, 2), (7, 3, 2), (28, 3, 1), (9, 2, 2), (28, 5, 3)]:
        x, w = np.random.default_rng(0).standard_normal((1, size, 1)), np.arange(1.0, kernel + 1).reshape(kernel, 1, 1)
        padded = np.pad(x, ((0, 0), frameworks.same(size, kernel, stride), (0, 0)))
        expected = tf.nn.conv1d(x, w, stride, "SAME").numpy()
        np.testing.assert_allclose(tf.nn.conv1d(padded, w, stride, "VALID").numpy(), expected, rtol=1e-12)


def test_a_check_says_what_is_off():
    """Otherwise the learner is told that it is wrong, and no more."""

    @exercise
    def square(answer):
        compare(answer(3.0), 9.0, {"that is twice the number": 6.0})

    assert square(lambda x: x * x).right
    assert repr(square(lambda x: x * x)) == "✓ right"
    for answer, said in (
        (lambda x: 2 * x, "that is twice the number"),
        (lambda x: None, "nothing yet"),
        (lambda x: [9.0], r"the shape is [1], expected a single number"),
        (lambda x: "9 apples", "that is a str, expected numbers"),
        (lambda x: float("nan"), "not a finite number"),
        (lambda x: x / 0, "your code stops with ZeroDivisionError"),
        (lambda x: 9.1, "not yet: 9.1, expected 9"),
    ):
        verdict = square(answer)
        assert not verdict.right
        assert said in verdict.text
