"""The exercises of notebook 04, training: what their checks say of right answers and of usual mistakes."""

import numpy as np
import pytest

from ddpm_course import live
from ddpm_course.exercises import training


def rate(warm=lambda step, n: min(1, (step + 1) / n), start=True, final=True, fall=True, end=0):
    def answer(step, num_steps, rate, warmup_steps, decay_start, low):
        begin = decay_start * start
        p = max(0, (step / (num_steps + end) - begin) / (1 - begin)) * fall
        return rate * warm(step, warmup_steps) * (1 - (1 - low * final) * p)

    return answer


def adam(correct=True, inside=False, epsilon=1e-8, sign=-1, power=2):
    def answer(p, m, v, g, rate, k):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * np.abs(g) ** power
        over, under = (m / (1 - 0.9**k), v / (1 - 0.999**k)) if correct else (m, v)
        return p + sign * rate * over / (np.sqrt(under + epsilon) if inside else np.sqrt(under) + epsilon), m, v

    return answer


def average(decay_of=lambda k, decay: min(decay, (1 + k) / (10 + k)), first=1):
    def answer(values, decay):
        found = values[0]
        for k, value in enumerate(values[1:], start=first):
            found = decay_of(k, decay) * found + (1 - decay_of(k, decay)) * value
        return found

    return answer


ANSWERS = {
    training.learning_rate: [
        (rate(), None),
        (rate(warm=lambda step, n: min(1, step / n)), "step 0 does not move"),
        (rate(final=False), "it falls to 0"),
        (rate(start=False), "from the first step on"),
        (rate(warm=lambda step, n: 1), "the warm-up is missing"),
        (rate(fall=False), "the fall is missing"),
        (rate(end=1), "one step too many"),
        (lambda *arguments: None, "nothing yet"),
    ],
    training.adam_step: [
        (adam(), None),
        (adam(correct=False), "bias corrections"),
        (adam(inside=True), "outside the root"),
        (adam(epsilon=1e-7), "Keras'"),
        (adam(sign=1), "it climbs"),
        (adam(power=1), "squares of the gradients"),
        (lambda p, m, v, g, rate, k: adam()(p, m, v, g, rate, k)[:1], "return three arrays"),
        (lambda *arguments: None, "nothing yet"),
    ],
    training.average: [
        (average(), None),
        (average(lambda k, decay: decay), "the warm-up is missing"),
        (average(first=0), "it is 1 at the first update"),
        (average(lambda k, decay: 1 - min(decay, (1 + k) / (10 + k))), "changed places"),
        (average(lambda k, decay: (1 + k) / (10 + k)), "never ends"),
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


def test_a_live_curve_ends_with_all_its_points(monkeypatch):
    """Otherwise the saved notebook shows a run that stopped early."""
    shown = []

    class Handle:
        def update(self, figure):
            shown.append(figure)

    monkeypatch.setattr(live, "display", lambda figure, display_id: Handle())
    monkeypatch.delenv(live.BUILDING, raising=False)
    curve = live.LiveCurve("loss", total=45, every=20)
    for value in range(1, 46):
        curve.add(float(value))
    assert len(shown) == 3  # after 20, after 40, and the last
    assert curve.dots.get_ydata().tolist() == list(range(1, 46))
    mean = curve.line.get_ydata()
    assert mean[0] == 1
    assert mean[-1] == np.mean(range(26, 46))
