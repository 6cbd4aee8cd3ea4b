# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 06 · Two frameworks, one model
#
# **Afterwards you can** tell rounding from a mistake when two programs disagree, say why equal programs part at all,
# and name the four traps that most ports between PyTorch and TensorFlow fall into, because you have stepped into them.
#
# **Time:** 60 minutes. **You need:** [04](04_training.ipynb), and *both* frameworks installed.

# %%
FRAMEWORK = "torch"  # or "tensorflow": which of the two is called A

# %%
try:
    from ddpm_course import begin_both
except ModuleNotFoundError:
    raise SystemExit("ddpm-duet is not installed here: run `make setup`, then `make lab`, in its folder.") from None

import dataclasses

import numpy as np
from matplotlib import pyplot as plt

from ddpm_course.exercises import frameworks as check
from ddpm_course.figures import show_images
from ddpm_shared import batches, datasets
from ddpm_shared.config import Config, TrainingConfig, with_preset

in_torch, in_tf = begin_both()
a, b = (in_torch, in_tf) if FRAMEWORK == "torch" else (in_tf, in_torch)
print(f"A is {a.name}, B is {b.name}")

# %% [markdown]
# ## The same start
#
# The initial weights are a function of a seed, a parameter's name and its shape, computed in NumPy. So both networks
# begin with the same numbers, and one step of training is given the same images, times and noise in both.

# %%
STEPS = 40
settings = TrainingConfig(batch_size=16, max_steps=STEPS, warmup_steps=10)
config = dataclasses.replace(with_preset(Config(device="cpu"), "tiny"), training=settings)
train, _ = datasets.load("fashion-mnist-10k")
first, second = a.learner.Learner(config, STEPS), b.learner.Learner(config, STEPS)


def apart(one, other):
    """The largest difference of two sets of tensors."""
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


print(f"initial weights differ by {apart(first.tensors(), second.tensors())}")
batch = batches.training_batch(train, config, 0)
loss_a, norm_a, _ = first.train_step(batch, 0)
loss_b, norm_b, _ = second.train_step(batch, 0)
print(f"loss of step 0:     A {loss_a:.9f}, B {loss_b:.9f}, apart by {abs(loss_a - loss_b):.1e}")
print(f"gradient of step 0: A {norm_a:.9f}, B {norm_b:.9f}, apart by {abs(norm_a - norm_b):.1e}")

# %% [markdown]
# Nearly the same, but not quite: in float32 there are seven digits, and the last one or two differ.
#
# > **Predict before you run.** After 40 steps, will the gap of the losses be as small as now, somewhat larger, or will
# > the two have nothing to do with each other? And what if both compute in float64, with sixteen digits?


# %%
def losses(tree, precision):
    """The loss of every step of a run."""
    learner = tree.learner.Learner(dataclasses.replace(config, precision=precision), STEPS)
    return np.array([learner.train_step(batches.training_batch(train, config, step), step)[0] for step in range(STEPS)])


runs = {(tree.name, precision): losses(tree, precision) for precision in ("fp32", "fp64") for tree in (a, b)}
gaps = {
    precision: np.abs(runs[a.name, precision] - runs[b.name, precision]) / runs[b.name, precision]
    for precision in ("fp32", "fp64")
}
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
left.plot(runs[a.name, "fp32"], linewidth=5, alpha=0.4, label=f"A: {a.name}")
left.plot(runs[b.name, "fp32"], label=f"B: {b.name}")
left.set(title="The losses, float32", xlabel="step", ylabel="loss")
left.legend()
for (precision, gap), marker in zip(gaps.items(), ("o", "s"), strict=True):
    right.plot(np.maximum(gap, 1e-17), marker, markersize=4, label=precision)
right.set(title="The gap between them", xlabel="step", ylabel="gap / loss", yscale="log")
right.legend()
plt.show()
print({precision: f"{gap.max():.1e} at most" for precision, gap in gaps.items()})

# %% [markdown]
# *What to see:* the two losses are one line. Their gap is some last digits, in float32 of seven, in float64 of sixteen;
# where a mark is at the lower edge there is none at all. **That is the test:** a mistake does not become smaller when
# you compute more digits, rounding does.
#
# ## Why do they differ at all?
#
# Because adding up is not what it is in books. Each addition rounds, and the order decides how:

# %%
numbers = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
forwards = np.add.accumulate(numbers)[-1]
backwards = np.add.accumulate(numbers[::-1])[-1]
pairwise = numbers.sum()
exact = numbers.astype(np.float64).sum()
for name, value in (("forwards", forwards), ("backwards", backwards), ("in pairs", pairwise), ("in float64", exact)):
    print(f"{name:>10}: {value:.6f}")

# %% [markdown]
# Same numbers, same operation, other last digits; none is wrong. A convolution is a sum of hundreds of products, and
# every library adds in another order, by the width of the processor's vectors and the number of threads. Training then
# carries the difference on: each step starts where the last one ended, and at high learning rates a gap can grow from
# step to step, as it does in a real run ([docs/divergence.md](../docs/divergence.md)).
#
# ## Four traps
#
# Now for real differences. Each of these is a default that a port takes over without a word, and each passes every test
# of shapes.
#
# ### 1 · Padding
#
# A convolution of stride 2 halves an image of 28 pixels. PyTorch's usual `padding=1` puts a zero on both sides;
# TensorFlow's `padding="same"` puts as few as possible, and the odd one *after*.

# %%
import keras
import tensorflow as tf
import torch

rng = np.random.default_rng(1)
kernel = rng.standard_normal((1, 1, 3, 3)).astype(np.float32)  # [out, in, height, width]


def by_torch(x):
    """A convolution of stride 2 with a zero on each side, [B, H, W, 1]."""
    y = torch.nn.functional.conv2d(
        torch.from_numpy(x.transpose(0, 3, 1, 2)), torch.from_numpy(kernel), stride=2, padding=1
    )
    return y.numpy().transpose(0, 2, 3, 1)


def by_keras(x):
    """The same with padding "same"."""
    return tf.nn.conv2d(x, kernel.transpose(2, 3, 1, 0), strides=2, padding="SAME").numpy()


for size in (28, 14, 7):
    x = rng.standard_normal((1, size, size, 1)).astype(np.float32)
    one, other = by_torch(x), by_keras(x)
    print(f"{size:>2} x {size:<2} -> {one.shape[1:3]} and {other.shape[1:3]}: apart by {np.abs(one - other).max():.2g}")

# %% [markdown]
# *What to see:* the shapes agree, the numbers do not; and at 7 x 7 they do, so that a test with a small odd image finds
# nothing. Here is what it does to a picture: every second pixel is taken, but not the same ones.

# %%
image = (train.images[:1] / np.float32(127.5) - 1).astype(np.float32)
blur = np.full((1, 1, 3, 3), 1 / 9, np.float32)
kernel = blur
one, other = by_torch(image), by_keras(image)
show_images(
    np.concatenate([one, other, one - other]),
    titles=["padding=1", '"same"', "difference"],
    title="Halved by a mean of 3 x 3",
    limits=(-1, 1),
)

# %% [markdown]
# The way out: pad by hand, then convolve without padding. In this package `Downsample` does (`networks/layers.py` of both
# trees).
#
# ### 2 · The epsilon of a normalisation
#
# GroupNorm divides by $\sqrt{\text{variance} + \varepsilon}$. PyTorch takes $\varepsilon = 10^{-5}$ unless told
# otherwise, Keras $10^{-3}$.
#
# > **Predict before you run.** For inputs of standard deviation 1 that hardly matters. For which does it?

# %%
x = rng.standard_normal((2, 8, 8, 4)).astype(np.float32)
for scale in (1.0, 0.1, 0.01):
    scaled = (scale * x).astype(np.float32)
    ours = (
        torch.nn.functional.group_norm(torch.from_numpy(scaled.transpose(0, 3, 1, 2)), 2).numpy().transpose(0, 2, 3, 1)
    )
    theirs = keras.layers.GroupNormalization(2)(scaled).numpy()
    told = keras.layers.GroupNormalization(2, epsilon=1e-5)(scaled).numpy()
    print(
        f"standard deviation {scale:<4}: apart by {np.abs(ours - theirs).max():.1e}, with the same epsilon by {np.abs(ours - told).max():.1e}"
    )

# %% [markdown]
# *What to see:* the smaller the input, the larger the gap. A network whose activations are of size 1 hides it; an early
# layer after a careful initialisation does not.
#
# ### 3 · Adam
#
# The same name, two formulas: PyTorch corrects the second moment and then adds $\varepsilon = 10^{-8}$, as the paper
# says; Keras adds $10^{-7}$ before the correction. For gradients of usual size nobody notices. Diffusion models have
# parameters with tiny ones.

# %%
start = rng.standard_normal(1000).astype(np.float32)
for size in (1e-1, 1e-4, 1e-7):
    gradients = (size * rng.standard_normal((100, 1000))).astype(np.float32)
    p = torch.nn.Parameter(torch.from_numpy(start.copy()))
    adam_a = torch.optim.Adam([p], lr=1e-3)
    q = keras.Variable(start)
    adam_b = keras.optimizers.Adam(learning_rate=1e-3)
    for g in gradients:
        p.grad = torch.from_numpy(g)
        adam_a.step()
        adam_b.apply([tf.constant(g)], [q])
    moved = np.abs(p.detach().numpy() - start).max()
    gap = np.abs(p.detach().numpy() - q.numpy()).max()
    print(f"gradients of size {size:g}: weights moved by up to {moved:.3f}, and are apart by up to {gap:.1e}")

# %% [markdown]
# *What to see:* from gradients of 1e-7 on, the two optimizers are two algorithms. The way out: write the update down.
# It is one screen (`optimizer.py`), and you have written it yourself in [04](04_training.ipynb).
#
# ### 4 · Layouts
#
# A kernel is `[out, in, height, width]` in PyTorch and `[height, width, in, out]` in Keras. Turned by `.T`, height and
# width change places as well, and with square kernels every shape is right. Here is an image that two networks with
# "the same" weights see:

# %%
kernel = np.zeros((1, 1, 3, 3), np.float32)
kernel[0, 0, 0], kernel[0, 0, 2] = -1, 1  # what is dark above and bright below
x = tf.constant(image)
right = tf.nn.conv2d(x, kernel.transpose(2, 3, 1, 0), strides=1, padding="SAME").numpy()
wrong = tf.nn.conv2d(x, kernel.T, strides=1, padding="SAME").numpy()
show_images(
    np.concatenate([image, right, wrong]),
    titles=["image", "(2, 3, 1, 0)", ".T"],
    title="A kernel that finds horizontal edges",
    limits=(-3, 3),
)

# %% [markdown]
# *What to see:* on the right it finds vertical ones. Nothing complains, and after some training the network will have
# learnt around it; only weights that come from the other framework are ruined.
#
# ## Whole runs, side by side
#
# What you did with 40 steps, `make compare` does with whole runs: it takes two `metrics.json`, lays their losses over
# each other, says in words when and how they part, and shows the samples of both. `make parity` compares every layer,
# gradient and sampler, and plants 130 faults of the kind above to see whether it would have noticed.
#
# ## Exercises
#
# **1 · A gap that cannot hide anything.** (easy) The largest difference of two arrays, as a part of the largest number
# of `b` (by size).


# %%
def my_gap(a, b):
    """Your answer."""
    ...


check.gap(my_gap)

# %% [markdown]
# **2 · How much padding?** (medium) With "same", the output has `ceil(size / stride)` numbers. How many zeros does that
# take, and how many of them come before and after? Return both. (As few as possible; the odd one after.)


# %%
def my_same_padding(size, kernel, stride):
    """Return the zeros before and after."""
    ...


check.same_padding(my_same_padding)

# %% [markdown]
# **3 · The other layout.** (harder than it looks) From PyTorch's kernel to Keras'.


# %%
def my_to_keras_kernel(kernel):
    """[out, in, height, width] -> [height, width, in, out]."""
    ...


check.to_keras_kernel(my_to_keras_kernel)

# %% [markdown]
# ## Questions
#
# <details><summary>Your port's loss is 0.3 % away from the original's after a thousand steps. A mistake, or
# rounding?</summary>
# You cannot tell from that number. Look at step 0 with the same weights and the same batch: rounding is about 1e-7
# there, a mistake usually far more. Then compute both in float64: rounding shrinks to 1e-16, a mistake stays.</details>
#
# <details><summary>Why not simply seed both frameworks alike?</summary>
# Their generators are different algorithms; a seed makes each repeatable, and not both equal. The noise has to come
# from one place, or be passed in.</details>
#
# <details><summary>A helper for comparing returns whether all is close, and a test calls it. Where is the
# catch?</summary>
# If nobody asserts what it returns, the test cannot fail. Use comparisons that raise, and plant a mistake now and then
# to see that they do.</details>
#
# ## What you have now
#
# | trap | PyTorch | Keras | way out |
# |---|---|---|---|
# | stride-2 padding | `padding=1`, both sides | `"same"`, the odd zero after | pad by hand |
# | epsilon of GroupNorm | 1e-5 | 1e-3 | pass it |
# | Adam | 1e-8 after the correction | 1e-7 before it | write the update |
# | kernels | out, in, height, width | height, width, in, out | `transpose(2, 3, 1, 0)`, tested on kernels that are not square |
#
# Next: [07, evaluating samples](07_evaluating.ipynb).
