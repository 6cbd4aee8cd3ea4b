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
# # 04 · Training: a model of your own
#
# **Afterwards you can** say what happens in a training step and why in this order, train a small model and watch it
# learn, tell the weights from their average, and read what a run of the command line leaves behind.
#
# **Time:** 45 minutes, a few of them waiting. **You need:** [01](01_forward_process.ipynb) to [03](03_objective.ipynb);
# what a gradient is.

# %%
FRAMEWORK = "torch"  # or "tensorflow": everything below works in both

# %%
try:
    from ddpm_course import begin
except ModuleNotFoundError:
    raise SystemExit("ddpm-duet is not installed here: run `make setup`, then `make lab`, in its folder.") from None

import dataclasses

import numpy as np
from matplotlib import pyplot as plt

from ddpm_course.exercises import training as check
from ddpm_course.figures import show_images
from ddpm_course.live import LiveCurve
from ddpm_shared import batches, datasets
from ddpm_shared.config import Config, TrainingConfig, with_preset

duet = begin(FRAMEWORK)

# %% [markdown]
# ## The plan
#
# Ho et al.'s algorithm 1 fits on a card:
#
# > **repeat**
# > 1. take images $x_0$ from the data, times $t$ uniformly from $0 .. T - 1$, noise $\epsilon \sim \mathcal N(0, 1)$
# > 2. take a gradient step on
# >    $\lVert \epsilon - \epsilon_\theta(\sqrt{\bar\alpha_t}\,x_0 + \sqrt{1 - \bar\alpha_t}\,\epsilon,\ t) \rVert^2$
# >
# > **until** converged
#
# We take the smallest network of the package, `tiny`, on the 10,000 images that come with it, for 400 steps of 64
# images.

# %%
STEPS = 400
training = TrainingConfig(batch_size=64, max_steps=STEPS, warmup_steps=50)
config = dataclasses.replace(with_preset(Config(device="cpu"), "tiny"), training=training)
train, test = datasets.load("fashion-mnist-10k")
learner = duet.learner.Learner(config, STEPS)
print(f"{learner.num_parameters:,} weights, {len(train.images):,} images, {STEPS} steps of {training.batch_size}")

# %% [markdown]
# **What a step is given.** Images, times and noise are a function of the seed and the number of the step (see
# [00](00_orientation.ipynb)): the other framework is given the same.

# %%
batch = batches.training_batch(train, config, 0)
images, t, eps = batch.pixels, batch.t, batch.eps
print(f"step 0: images {images.shape} {images.dtype}, t {t[:8]}..., noise {eps.shape}")
x_t = duet.engine.q_sample(
    learner.schedule,
    duet.data.to_images(images, duet.utils.dtype("fp32")),
    duet.times(t),
    duet.data.to_tensor(eps.astype(np.float32)),
)
show_images(
    duet.data.to_array(x_t)[:10],
    titles=[f"t={i}" for i in t[:10]],
    title="Ten of the 64 examples of step 0",
    limits=(-2, 2),
)

# %% [markdown]
# *What to see:* every image has another t. In one step the network sees everything between an almost clean image and
# pure noise.
#
# ## The learning rate
#
# Adam's steps are about as long as the learning rate, whatever the gradient's size. In the first steps Adam knows
# little about the gradient, so the rate grows from almost nothing (**warm-up**). And at the end long steps only jump
# about around the goal, so it falls (**decay**).

# %%
rates = [duet.optimizer.scheduled_learning_rate(step, STEPS, training) for step in range(STEPS)]
figure, axes = plt.subplots(figsize=(7.5, 2.6))
axes.plot(range(STEPS), rates)
axes.set(title="The learning rate of this run", xlabel="step", ylabel="learning rate", ylim=(0, None))
plt.show()

# %% [markdown]
# ## Learning
#
# > **Predict before you run.** The untrained network says 0, so its loss is the variance of the noise: 1. What will it
# > be after 400 steps: 0.5, 0.1, 0.01? And will the images be good by then?
#
# The cell takes one to three minutes. The curve grows while you wait.

# %%
curve = LiveCurve(f"{duet.name}: the loss of 400 steps of `tiny`", STEPS)
grids, weights = {}, {}
for step in range(STEPS):
    loss, norm, rate = learner.train_step(batches.training_batch(train, config, step), step)
    curve.add(loss)
    if step + 1 in (25, 50, 100, 200, STEPS):
        grids[step + 1] = learner.sample(8, lambda t: None)  # drawn with the averaged weights
        weights[step + 1] = {name: value.copy() for name, value in learner.tensors().items()}
print(
    f"mean loss of the first 20 steps {np.mean(curve.values[:20]):.3f}, of the last 20 {np.mean(curve.values[-20:]):.3f}"
)

# %% [markdown]
# *What to see:* most of the fall is over after a hundred steps. The grey dots never stop jumping: each step has other
# images, and above all other times, and the loss of small t is many times that of large t. That is why one looks at a
# mean.

# %%
show_images(
    np.concatenate(list(grids.values())),
    columns=8,
    rows=[f"{step} steps" for step in grids],
    title="The same noise, drawn by the network as it learns",
)

# %% [markdown]
# *What to see:* after 50 steps the loss is down to a quarter, and the pictures are still noise. After 100 it is below
# 0.1, and there are blobs with an inside and an outside. From there to 400 the curve falls slowly, and edges sharpen.
# Four hundred steps of a network this small make no clothes yet. The model in the package, which drew those of
# [00](00_orientation.ipynb), has 17 times as many weights and was trained for far longer, and its loss is lower by less
# than a half. **The loss is a poor judge of samples**: [07](07_evaluating.ipynb) has better ones.
#
# ## The average of the weights
#
# Each step follows the noise of its batch. Averaged over many steps that noise cancels, so samples are drawn with an
# **exponential moving average** of the weights: $\bar\theta \leftarrow d\,\bar\theta + (1 - d)\,\theta$ after each
# step, $d = 0.999$. Early on, $d$ is smaller, $(1 + k) / (10 + k)$ at update $k$, so that the average forgets the
# untrained start.

# %%
names = [name.removeprefix("ema/") for name in weights[25] if name.startswith("ema/")]
apart = {
    step: np.sqrt(sum(np.sum((w[f"model/{n}"] - w[f"ema/{n}"]) ** 2) for n in names))
    / np.sqrt(sum(np.sum(w[f"model/{n}"] ** 2) for n in names))
    for step, w in weights.items()
}
figure, axes = plt.subplots(figsize=(7.5, 2.6))
axes.plot(list(apart), list(apart.values()), "o-")
axes.set(
    title="How far the weights are from their average",
    xlabel="step",
    ylabel="distance / norm of the weights",
    ylim=(0, None),
)
plt.show()
print({step: round(float(value), 4) for step, value in apart.items()})

# %% [markdown]
# *What to see:* the distance is largest while the network learns fast, since an average lags behind. Towards the end,
# when the rate has fallen, the weights hardly move any more, and the average catches up.
#
# ## The same by the command line
#
# A loop in a notebook is for learning. For a real run there is
#
#     make train-torch ARGS="--minutes 60 --precision bf16"     # or train-tf, with the same flags
#
# which does what you did here, and also keeps checkpoints, can be interrupted and resumed, writes each step's loss to
# `metrics.json`, and draws grids on the way. This notebook's run is
#
#     make train-torch ARGS="--preset tiny --dataset fashion-mnist-10k --batch-size 64 --max-steps 400 --warmup-steps 50"
#
# and its losses are those above, to the last digit, on the same machine. What you get, and how two such runs are
# compared: [06](06_two_frameworks.ipynb).
#
# ## Exercises
#
# **1 · The learning rate.** (easy) At the 0-based `step` of `num_steps`: it grows over `warmup_steps` (step 0 already
# moves), stays, and from `decay_start * num_steps` on falls linearly, to reach `final` times the `rate` at `num_steps`,
# which is no step any more.


# %%
def my_learning_rate(step, num_steps, rate, warmup_steps, decay_start, final):
    """Your answer."""
    ...


check.learning_rate(my_learning_rate)

# %% [markdown]
# **2 · Adam.** (medium) The `k`-th update, $k = 1, 2, ...$, with $\beta_1 = 0.9$, $\beta_2 = 0.999$,
# $\varepsilon = 10^{-8}$:
#
# $$m \leftarrow \beta_1 m + (1 - \beta_1) g \qquad v \leftarrow \beta_2 v + (1 - \beta_2) g^2 \qquad
# p \leftarrow p - \text{rate} \cdot \frac{m / (1 - \beta_1^k)}{\sqrt{v / (1 - \beta_2^k)} + \varepsilon}$$


# %%
def my_adam_step(p, m, v, g, rate, k):
    """Return the new p, m and v."""
    ...


check.adam_step(my_adam_step)

# %% [markdown]
# **3 · The average.** (harder) `values[0]` is where the average begins, `values[k]` the weight after update `k`. Return
# the average after the last update, with the warm-up of the decay.


# %%
def my_average(values, decay):
    """Your answer."""
    ...


check.average(my_average)

# %% [markdown]
# ## Questions
#
# <details><summary>Each example gets one random t. Would it not be better to show every image at all thousand
# times?</summary>
# For the same number of evaluations you would see a thousandth of the images, and a thousand strongly related examples
# of each. Random times make every batch a fair sample of the whole objective.</details>
#
# <details><summary>The gradient is scaled down to norm 1 where it is longer. Why is Adam not protection
# enough?</summary>
# Adam divides by a mean of past squares. One huge gradient enters its numerator at once, and its denominator with a
# thousandth: the step is many times too long, and v remembers it for a thousand steps.</details>
#
# <details><summary>You stop a run at step 200 and resume it. What must have been saved for the losses to be those of an
# uninterrupted run?</summary>
# The weights, their average, Adam's m and v, and the number of the step, from which batches, times, noise and the
# learning rate follow. No generator's state: there is none.</details>
#
# ## What you have now
#
# | here | in the code | source |
# |---|---|---|
# | a training step | `learner.Learner.train_step` | Ho et al. 2020, algorithm 1 |
# | the loss | `objective.training_loss`, `engine.diffusion_loss` | Ho et al. 2020, eq. 14 |
# | warm-up and decay | `optimizer.scheduled_learning_rate` | Goyal et al. 2017 |
# | Adam | `optimizer.Adam` | Kingma and Ba 2015, algorithm 1 |
# | the average | `optimizer.update_ema`, `warmup_ema_decay` | Ho et al. 2020, appendix B |
#
# Next: [05, sampling](05_sampling.ipynb).
