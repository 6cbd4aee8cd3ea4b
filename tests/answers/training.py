"""Answers to the exercises of notebook 04, training."""

import numpy as np

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
