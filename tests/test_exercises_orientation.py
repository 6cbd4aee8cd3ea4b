"""The exercises of notebook 00, orientation: what their checks say of right answers and of usual mistakes."""

import numpy as np
import pytest

from ddpm_course import mirror
from ddpm_course.exercises import orientation
from ddpm_shared import streams


def noise(seed, stream, step, first):
    return streams.normal(seed, stream, step, (1, 28, 28, 1), first)[0]


ANSWERS = {
    orientation.to_unit_range: [
        (lambda p: p / 127.5 - 1, None),
        (lambda p: 2 * (p.astype(np.float32) / 255) - 1, None),
        (lambda p: p / 255, "from 0 to 1"),
        (lambda p: p / 127 - 1, "1.008"),
        (lambda p: p / 128 - 1, "0.992"),
        (lambda p: 2 * p / 255 - 1, "bytes wrap around"),
    ],
    orientation.to_channels_first: [
        (lambda x: x.transpose(0, 3, 1, 2), None),
        (lambda x: np.moveaxis(x, -1, 1), None),
        (lambda x: x.reshape(x.shape[0], x.shape[3], x.shape[1], x.shape[2]), "mixed up pixels"),
        (lambda x: x.transpose(0, 3, 2, 1), "height and width"),
        (lambda x: x, "the shape is [2, 4, 5, 3], expected [2, 3, 4, 5]"),
    ],
    orientation.noise_of_image: [
        (lambda seed, i: noise(seed, streams.SAMPLE_X_T, 0, i), None),
        (lambda seed, i: streams.normal(seed, streams.SAMPLE_X_T, 0, (i + 1, 28, 28, 1))[i], None),
        (lambda seed, i: noise(seed, streams.SAMPLE_X_T, 0, 0), "image 0's"),
        (lambda seed, i: noise(seed, streams.SAMPLE_X_T, i, 0), "not `step`"),
        (lambda seed, i: noise(seed, streams.SAMPLE_Z, 0, i), "a stream of its own"),
        (lambda seed, i: noise(0, streams.SAMPLE_X_T, 0, i), "another seed's"),
        (lambda seed, i: streams.normal(seed, streams.SAMPLE_X_T, 0, (1, 28, 28, 1), i), "the shape is [1, 28, 28, 1]"),
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


def test_a_function_of_both_trees_stands_side_by_side():
    """Otherwise the first lesson compares a function with itself, or shows a page of docstring."""
    page = mirror.side_by_side("engine", "at").data
    assert "values[t][:, None, None, None]" in page
    assert "tf.gather(values, t)" in page
    assert "Mirror" not in page
    with pytest.raises(ValueError, match=r"engine.py of ddpm_torch holds no q_simple"):
        mirror.side_by_side("engine", "q_simple")
