"""Notebook 02, the network: what its exercises' checks say, and that the look inside sees what is there."""

import dataclasses

import numpy as np
import pytest

from ddpm_course import begin, inside
from ddpm_course.exercises import network
from ddpm_shared import checkpoint, reference_model


def waves(t, frequencies):
    angles = t[:, None] * frequencies
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def embedding(t, dim):
    return waves(t, np.geomspace(1, 1e-4, dim // 2))


def taking_turns(t, dim):
    both = np.empty((len(t), dim))
    both[:, 0::2], both[:, 1::2] = np.split(embedding(t, dim), 2, axis=1)
    return both


def linear(a, b):
    return a * b + b


def block(a, b, d, skip=True):
    kept = 2 * a + linear(9 * a, b) + linear(d, b) + 2 * b + linear(9 * b, b)
    return kept + (linear(a, b) if skip and a != b else 0)


def softmax(scores, axis=-1, safe=True):
    powers = np.exp(scores - scores.max(axis, keepdims=True) if safe else scores)
    return powers / powers.sum(axis, keepdims=True)


def scores(q, k):
    return np.einsum("bic,bjc->bij", q, k) / np.sqrt(q.shape[2])


ANSWERS = {
    network.timestep_embedding: [
        (embedding, None),
        (lambda t, dim: embedding(t, dim).astype(np.float32), None),
        (lambda t, dim: np.roll(embedding(t, dim), dim // 2, axis=1), "the cosines come second"),
        (taking_turns, "sines and cosines take turns"),
        (lambda t, dim: waves(t, 1e4 ** (-np.arange(dim // 2) / (dim // 2))), "not by half"),
        (lambda t, dim: waves(t, 1e4 ** (-np.arange(dim // 2) / (dim - 1))), "where half is dim / 2"),
        (lambda t, dim: waves(t, np.geomspace(1, 1e4, dim // 2)), "the frequencies rise"),
        (lambda t, dim: embedding(t / 1000, dim), "t is divided by T"),
        (lambda t, dim: embedding(t, 2 * dim), "the shape is [4, 64], expected [4, 32]"),
    ],
    network.residual_parameters: [
        (block, None),
        (lambda a, b, d: block(a, b, d) - 3 * b - b * (a != b), "the biases are missing"),
        (lambda a, b, d: block(a, b, d) - 2 * a - 2 * b, "the GroupNorms are missing"),
        (
            lambda a, b, d: 4 * a + 2 * linear(9 * a, b) + linear(d, b) + linear(a, b) * (a != b),
            "and so is the second convolution",
        ),
        (lambda a, b, d: block(a, b, d) - 2 * b + 2 * a, "on the output's channels"),
        (lambda a, b, d: block(a, b, d, skip=False) + linear(a, b), "there is no skip convolution"),
        (lambda a, b, d: block(a, b, d, skip=False), "the skip is missing"),
        (lambda a, b, d: block(a, b, d) - linear(d, b), "the time is missing"),
        (lambda a, b, d: block(a, b, d) - 8 * (a * b + b * b), "3 x 3 weights"),
    ],
    network.attention: [
        (lambda q, k, v: softmax(scores(q, k)) @ v, None),
        (lambda q, k, v: np.stack([softmax(q[i] @ k[i].T / 2) @ v[i] for i in range(2)]), None),
        (lambda q, k, v: softmax(scores(q, k), axis=1) @ v, "over the wrong axis"),
        (lambda q, k, v: np.exp(s := scores(q, k)) / np.exp(s).sum() @ v, "over the whole batch"),
        (lambda q, k, v: softmax(2 * scores(q, k)) @ v, "the scale is missing"),
        (lambda q, k, v: softmax(scores(q, k) / 2) @ v, "divide by its root"),
        (lambda q, k, v: softmax(scores(q, k) * 2 / 3) @ v, "of the number of pixels"),
        (lambda q, k, v: softmax(scores(k, q)) @ v, "have changed places"),
        (lambda q, k, v: scores(q, k) @ v, "not a softmax"),
        (lambda q, k, v: np.exp(scores(q, k)) @ v, "the division by the sum is missing"),
        (lambda q, k, v: softmax(scores(q, k)).transpose(0, 2, 1) @ v, "are transposed"),
        (lambda q, k, v: softmax(scores(q, k), safe=False) @ v, "exp overflows"),
        (lambda q, k, v: softmax(scores(q, k)), "the shape is [2, 9, 9]"),
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


def test_the_look_inside_sees_what_the_oracle_computes(tree):
    """Otherwise the notebook shows shapes, maps and weights of something else."""
    duet = begin(tree.framework)
    loaded = checkpoint.load(checkpoint.BOXED, ("ema",))
    config = dataclasses.replace(loaded.config, precision="fp32", device="cpu")
    trained = duet.sampling.load_model(loaded, "ema", config)
    parameters = {name.removeprefix("ema/"): value for name, value in loaded.tensors.items()}
    assert inside.shapes(duet, trained) == {name: value.shape for name, value in parameters.items()}

    x_t, t = np.random.default_rng(0).standard_normal((2, 28, 28, 1)).astype(np.float32), [3, 700]
    oracle = reference_model.Network(parameters, config.model)
    eps_pred = oracle(x_t, np.array(t))
    for _ in range(2):  # what was watched once is as it was
        seen = inside.activations(duet, trained, x_t, t)
        assert set(seen) == set(oracle.activations)
        for name, output in oracle.activations.items():
            assert seen[name].shape == output.shape
            size = np.abs(output).max()
            np.testing.assert_allclose(seen[name] / size, output / size, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(inside.ask(duet, trained, x_t, t), eps_pred, atol=5e-5)
