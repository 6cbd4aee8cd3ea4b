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
# # 00 · Orientation: one model, two frameworks
#
# **Afterwards you can** draw images with the model in the package, find the same function in both trees and read the
# two side by side, and say why two frameworks can be given the same noise.
#
# **Time:** 30 minutes. **You need:** Python and NumPy; a little PyTorch *or* TensorFlow helps, both are not needed.
#
# This is the first of ten notebooks. Each runs in PyTorch or in TensorFlow: the next cell says in which. Change it
# whenever you like, choose *Restart kernel and run all cells*, and see what stays the same. To keep your answers, save
# each notebook under a name that begins with `my_` (*File*, *Save Notebook As*): no update touches that.

# %%
FRAMEWORK = "torch"  # or "tensorflow": everything below works in both

# %%
try:
    from ddpm_course import begin
except ModuleNotFoundError:
    raise SystemExit("ddpm-duet is not installed here: run `make setup`, then `make lab`, in its folder.") from None


import numpy as np

from ddpm_course.exercises import orientation as check
from ddpm_course.figures import show_images
from ddpm_course.mirror import side_by_side
from ddpm_shared import datasets, streams
from ddpm_shared.config.sampling import Draw, Sampling

duet = begin(FRAMEWORK)
print(f"This run is {duet.name}'s.")

# %% [markdown]
# ## Images out of noise
#
# The package brings a trained model: a network that was shown 60,000 photographs of clothes, each corrupted by a
# random amount of noise, and learnt to predict the noise. It was never trained to draw. And yet it can:

# %%
network, config = duet.trained()
steps = {}
sampler = duet.sampling.Sampler(network, config, Sampling("dpmpp_2m_sde", steps=20))
drawn = sampler.draw(Draw(seed=0, first=0, count=8), on_step=lambda i, x: steps.update({i: duet.data.to_array(x)}))
show_images(drawn, title=f"Drawn by {duet.name}: eight images of seed 0")

# %% [markdown]
# *What to see:* clothes, bags and shoes, most of which would pass for real ones. None of them is in the data.
#
# It began with noise, and took a little of it away, twenty times. Here is the way of the first three:

# %%
times = [19, 16, 13, 10, 7, 4, 2, 0]
way = np.stack([steps[i][:3] for i in times], axis=1)
show_images(
    way.reshape(-1, 28, 28, 1),
    columns=len(times),
    titles=[f"step {20 - i}" for i in times],
    title="From noise to an image",
    limits=(-2, 2),
)

# %% [markdown]
# *What to see:* first the brightness of regions, then the outline, then the texture; the opposite of the order in which
# noise destroys them. How that works is what the course is about:
#
# | | you learn | you make |
# |---|---|---|
# | 00 | how the house is laid out | eight images |
# | [01](01_forward_process.ipynb) | how noise destroys an image | the jump to any time |
# | [02](02_network.ipynb) | the network that looks at x_t and t | an attention map |
# | [03](03_objective.ipynb) | what it is trained for, and why | the loss over t |
# | [04](04_training.ipynb) | how it is trained | a model of your own |
# | [05](05_sampling.ipynb) | how to draw with it, slowly and fast | chains, interpolations |
# | [06](06_two_frameworks.ipynb) | where two frameworks part, and why | the traps, by stepping into them |
# | [07](07_evaluating.ipynb) | whether the samples are good, and new | a verdict |
# | [08](08_your_own_experiment.ipynb) | to ask a question of your own | an experiment and its report |
# | [09](09_draw_what_i_ask_for.ipynb) | to ask for a class, and to guide | one noise drawn as ten things |
#
# ## Two trees
#
# Everything that computes exists twice: in `pytorch/src` (imported as `ddpm_torch`) and in `tensorflow/src`
# (`ddpm_tf`). The same files, the same functions, in the same order. What needs no framework, such as settings, data
# and noise, exists once, in `shared/src` (`ddpm_shared`).
#
# > **Predict before you run.** The next cell shows how an image is made noisy in both frameworks. Which words will
# > differ?

# %%
side_by_side("engine", "q_sample")

# %% [markdown]
# Only the type's name. Where the code differs, the frameworks do:

# %%
side_by_side("data", "to_images")

# %% [markdown]
# PyTorch keeps the channels before height and width, `[B, C, H, W]`, TensorFlow after them, `[B, H, W, C]`. Here is
# that difference, and the whole of it: outside, an image is always `[B, H, W, C]`, and `data.to_tensor` and
# `data.to_array` stand at the border.

# %%
train, test = datasets.load("fashion-mnist-10k")
x_0 = duet.data.to_images(test.images[:4], duet.utils.dtype("fp32"))
print(f"pixels {test.images[:4].shape}, {test.images.dtype}")
print(f"as {duet.name}'s tensor {tuple(x_0.shape)}, from {float(x_0.numpy().min())} to {float(x_0.numpy().max())}")
print(
    f"and back {duet.data.to_pixels(x_0).shape}, all equal: {np.array_equal(duet.data.to_pixels(x_0), test.images[:4])}"
)

# %% [markdown]
# ## The same noise for both
#
# Two frameworks, given the same seed, draw different random numbers. Then nothing could be compared: not a loss, not a
# picture. Here nobody draws but one small module, `ddpm_shared.streams`, in NumPy. Its numbers are a *function* of a
# seed, of what they are for, and of where in the run they are needed:
#
# $$\epsilon = \text{normal}(\text{seed},\ \text{stream},\ \text{step},\ \text{image})$$
#
# > **Predict before you run.** Image 5 of a batch of eight, and image 5 drawn all alone: is its noise the same?

# %%
batch = streams.normal(0, streams.SAMPLE_X_T, 0, (8, 28, 28, 1))
alone = streams.normal(0, streams.SAMPLE_X_T, 0, (1, 28, 28, 1), first=5)
print(f"equal: {np.array_equal(batch[5], alone[0])}")
print(
    f"of another stream, equal: {np.array_equal(batch[5], streams.normal(0, streams.SAMPLE_Z, 0, (8, 28, 28, 1))[5])}"
)

# %% [markdown]
# So image number 5 of seed 0 is the same picture today and tomorrow, alone or among a thousand, in PyTorch and in
# TensorFlow. Draw it in both and compare: `make demo` does that with 256 images.
#
# ## Where things are
#
# | you look for | in both trees | |
# |---|---|---|
# | the mathematics of the paper | `engine.py` | schedule, `q_sample`, `p_sample`, the loss |
# | how beta grows | `schedules.py` | linear, cosine, ... |
# | the family around it | `processes.py`, `prediction.py`, `guidance.py` | two functions of time, four predictions, labels |
# | the network | `model.py`, `networks/` | the U-Net, and how it is made and loaded |
# | a training step | `learner.py`, `optimizer.py` | Adam, the moving average |
# | drawing | `sampling.py`, `samplers.py` | six samplers |
# | the commands | `train.py`, `inference.py`, ... | what `make` calls |
#
# Every public function says in its docstring which equation it is, what shapes it takes, and what it is called in the
# other tree:

# %%
print(duet.engine.q_sample.__doc__)

# %% [markdown]
# ## Exercises
#
# Each has a check that tells you what is off. Write your answer in place of the dots. All answers are NumPy, so that
# they are the same for both frameworks.
#
# **1 · Bytes to numbers.** (easy) Scale pixels 0 .. 255 to -1 .. 1.


# %%
def my_to_unit_range(pixels):
    """Your answer."""
    ...


check.to_unit_range(my_to_unit_range)

# %% [markdown]
# **2 · The other layout.** (medium) From `[B, H, W, C]` to `[B, C, H, W]`.


# %%
def my_to_channels_first(images):
    """Your answer."""
    ...


check.to_channels_first(my_to_channels_first)

# %% [markdown]
# **3 · The noise of one image.** (harder) Return the noise `x_T`, `[28, 28, 1]`, that image number `i` of `seed` begins
# with. `help(streams.normal)` tells the arguments.


# %%
def my_noise_of_image(seed, i):
    """Your answer."""
    ...


check.noise_of_image(my_noise_of_image)

# %% [markdown]
# ## Questions
#
# Think first, then unfold.
#
# <details><summary>Why is the mathematics written twice, and the noise only once?</summary>
# Two implementations that agree prove something about both; an array that is compared with itself proves nothing. The
# noise is no mathematics of the model: it is what both have to be given for the comparison to mean anything.</details>
#
# <details><summary>Could one seed a framework's own generator instead?</summary>
# Inside one framework, yes. But PyTorch and TensorFlow turn the same seed into different numbers, and a resumed run
# would have to bring the generator's state along. A function of (seed, stream, step) has no state.</details>
#
# ## Symbols
#
# | here | in the code | in Ho et al. 2020 |
# |---|---|---|
# | an image | `x_0` | $x_0$ |
# | the image with noise, at time t | `x_t` | $x_t$ |
# | the time, 0 .. T - 1 | `t` (0-based) | $t$ (from 1) |
# | the number of times | `timesteps` | $T$ |
# | the noise in it, and what the network says of it | `eps`, `eps_pred` | $\epsilon$, $\epsilon_\theta$ |
# | how much noise a step adds | `betas[t]` | $\beta_t$ |
# | what is left of the signal after all steps to t | `alphas_cumprod[t]` | $\bar\alpha_t$ |
# | one step back | `x_prev` | $x_{t-1}$ |
# | the noise that sampling adds on the way | `z` | $z$ |
#
# The whole list, with the functions and the equations of all notebooks: [symbols](../docs/symbols.md).
#
# Next: [01, the forward process](01_forward_process.ipynb).
