"""Counter-based randomness: every draw is a pure function of (seed, stream, step).

Nothing else in the project draws random numbers. So both frameworks get the same batches and the same noise, a resumed
run needs no generator state, and the result does not depend on how the work is split.

The generator is Philox (Salmon et al. 2011): a block cipher of a counter. Seed and stream name form its key. The step
and, where images must not depend on their neighbours, the image index form the high words of its counter, which leaves
2**128 draws to each.
"""

import functools
import hashlib

import numpy as np
from numpy.typing import NDArray

from ddpm_shared.errors import UserError

# The streams in use. A new name is a new, independent stream, and changes no number of the others.
PERMUTATION = "train/permutation"  # step = epoch
FLIP = "train/flip"  # step = training step
LABEL_DROP = "train/drop"  # step = training step
TRAIN_T = "train/t"
TRAIN_EPS = "train/eps"
VALIDATION_T = "validation/t"
VALIDATION_EPS = "validation/eps"
TRAIN_U = "train/u"  # of which a process of continuous time makes t
VALIDATION_U = "validation/u"
SAMPLE_X_T = "sample/x_T"  # step = 0
SAMPLE_Z = "sample/z"  # step = t
SAMPLE_STEP = "sample/step"  # step = i, where t is no whole number
SAMPLE_CORRECTOR = "sample/corrector"  # step = i * steps of the corrector + k
BOUND_EPS = "bound/eps"  # step = t
LIKELIHOOD_PROBE = "likelihood/probe"  # step = number of the probe
LIKELIHOOD_DEQUANTISATION = "likelihood/dequantisation"  # step = 0
EVALUATION_SUBSET = "evaluation/subset"  # of the real images
EVALUATION_KID = "evaluation/kid"  # step = subset
EVALUATION_CORRUPTION = "evaluation/corruption"
PARAMETERS = "parameters/"  # followed by the parameter's name

UNIFORM = 2**52  # so many numbers, and half a step to either end: float64 holds all of them


@functools.lru_cache(maxsize=1024)
def _key(seed: int, stream: str) -> NDArray[np.uint64]:
    digest = hashlib.sha256(f"{seed}:{stream}".encode()).digest()
    return np.frombuffer(digest[:16], dtype="<u8")


def generator(seed: int, stream: str, step: int = 0, index: int = 0) -> np.random.Generator:
    """The generator of one (seed, stream, step, index).

    Args:
        seed: any integer >= 0.
        stream: what is drawn; one of the names above.
        step: number of the draw; >= 0.
        index: the image that it is for; >= 0.

    Raises:
        UserError: a negative seed.
    """
    if seed < 0:
        raise UserError(f"seed must be 0 or more, got {seed}")
    return np.random.Generator(np.random.Philox(key=_key(seed, stream), counter=[0, 0, index, step]))


def normal(seed: int, stream: str, step: int, shape: tuple[int, ...], first: int = 0) -> NDArray[np.float64]:
    """Standard normal numbers for the images first .. first + shape[0] - 1, [*shape].

    Image i gets the same numbers in any batch, so samples do not depend on the batch size, and a worker can draw its
    part of a batch alone. A float32 run rounds these numbers, so it has the same noise as a float64 run.
    """
    out = np.empty(shape)
    for offset in range(shape[0]):
        generator(seed, stream, step, first + offset).standard_normal(out=out[offset])
    return out


def timesteps(seed: int, stream: str, step: int, count: int, num_timesteps: int) -> NDArray[np.int32]:
    """0-based diffusion times, uniform on 0 .. num_timesteps - 1, [count] int32."""
    return generator(seed, stream, step).integers(0, num_timesteps, size=count, dtype=np.int32)


def uniform(seed: int, stream: str, step: int, count: int) -> NDArray[np.float64]:
    """Uniform numbers above 0 and below 1, [count]: never one of the ends, whose quantiles may be infinite."""
    return (generator(seed, stream, step).integers(0, UNIFORM, size=count) + 0.5) / UNIFORM


def uniform_images(seed: int, stream: str, step: int, shape: tuple[int, ...], first: int = 0) -> NDArray[np.float64]:
    """Uniform numbers as those of `uniform`, for the images first .. first + shape[0] - 1, [*shape]: as in `normal`."""
    out = np.empty(shape)
    for offset in range(shape[0]):
        out[offset] = (
            generator(seed, stream, step, first + offset).integers(0, UNIFORM, size=shape[1:]) + 0.5
        ) / UNIFORM
    return out


def signs(seed: int, stream: str, step: int, shape: tuple[int, ...], first: int = 0) -> NDArray[np.float64]:
    """-1 or 1, each with probability 1/2, for the images first .. first + shape[0] - 1, [*shape]: as in `normal`."""
    out = np.empty(shape)
    for offset in range(shape[0]):
        out[offset] = 2 * generator(seed, stream, step, first + offset).integers(0, 2, size=shape[1:]) - 1
    return out


def stratified(u: NDArray[np.float64]) -> NDArray[np.float64]:
    """One number in each of B equal parts of 0 .. 1, from uniform numbers [B]; above 0 and below 1."""
    return np.minimum((np.arange(len(u)) + u) / len(u), np.nextafter(1.0, 0.0))


def flips(seed: int, step: int, count: int) -> NDArray[np.bool_]:
    """Which images of a training batch are mirrored left to right, each with probability 1/2, [count] bool."""
    return generator(seed, FLIP, step).integers(0, 2, size=count, dtype=np.int8).astype(bool)


def drops(seed: int, step: int, count: int, probability: float) -> NDArray[np.bool_]:
    """Which images of a training batch lose their label, each with that probability, [count] bool."""
    return generator(seed, LABEL_DROP, step).random(count) < probability


@functools.lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, num_images: int) -> NDArray[np.int64]:
    return generator(seed, PERMUTATION, epoch).permutation(num_images)


def batch_indices(seed: int, step: int, num_images: int, batch_size: int) -> NDArray[np.int64]:
    """The images of training step `step` (0-based), [batch_size] int64.

    Every epoch is a new permutation of all images, cut into whole batches. The num_images % batch_size images at its
    end are not used in that epoch, so that all batches have the same shape.
    """
    steps_per_epoch = num_images // batch_size
    epoch, position = divmod(step, steps_per_epoch)
    indices = _permutation(seed, epoch, num_images)[position * batch_size : (position + 1) * batch_size]
    return indices.copy()  # since the permutation is cached for the next step
