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
# # 01 · The forward process: from an image to noise
#
# **Afterwards you can** say what $q(x_t \mid x_0)$ is and derive it, jump to any time in one step, read a noise
# schedule by its signal-to-noise ratio, and tell where a schedule wastes its steps.
#
# **Time:** 45 minutes. **You need:** means, variances, NumPy arrays. Nothing here is learnt by a network yet.
#
# Run the cells from top to bottom with Shift-Enter.

# %%
FRAMEWORK = "torch"  # or "tensorflow": everything below works in both

# %%
try:
    from ddpm_course import begin
except ModuleNotFoundError:
    raise SystemExit("ddpm-duet is not installed here: run `make setup`, then `make lab`, in its folder.") from None

import numpy as np
from matplotlib import pyplot as plt

from ddpm_course.exercises import forward as check
from ddpm_course.explore import explore
from ddpm_course.figures import show_images
from ddpm_shared import datasets
from ddpm_shared.config import DiffusionConfig

duet = begin(FRAMEWORK)

# %% [markdown]
# ## The images
#
# Fashion-MNIST: 28 x 28 grey pixels, ten kinds of clothes. The pixels are bytes; a diffusion model wants numbers of
# mean about 0 and size about 1, so that they compare with standard normal noise. We take
# $x_0 = \text{pixels} / 127.5 - 1$, between -1 (black) and 1 (white).

# %%
train, test = datasets.load("fashion-mnist-10k")
pick = [int(np.argmax(test.labels == label)) for label in range(10)]  # one of each kind
pixels = test.images[pick]
x_0 = duet.data.to_array(duet.data.to_images(pixels, duet.utils.dtype("fp64")))  # [10, 28, 28, 1]
show_images(x_0, titles=train.class_names, title="One image of each kind")
print(
    f"smallest value {x_0.min():.2f}, largest {x_0.max():.2f}, mean {x_0.mean():.2f}, standard deviation {x_0.std():.2f}"
)

# %% [markdown]
# ## One small step
#
# A step shrinks the image a little and adds a little noise:
#
# $$x_t = \sqrt{1 - \beta_t}\; x_{t-1} + \sqrt{\beta_t}\; \epsilon_t, \qquad \epsilon_t \sim \mathcal N(0, 1)$$
#
# Why both? If $x_{t-1}$ has variance 1, then $x_t$ has variance $(1 - \beta_t) \cdot 1 + \beta_t \cdot 1 = 1$: nothing
# blows up, however many steps we make. Ho et al. make $T = 1000$, with $\beta$ growing linearly from 0.0001 to 0.02. In
# the code, $\beta_t$ is `betas[t]`, and `t` starts at 0, where the paper's starts at 1.

# %%
schedule = duet.engine.make_schedule(DiffusionConfig(), duet.utils.dtype("fp64"))
betas = schedule.betas.numpy()
print(f"{len(betas)} steps, beta from {betas[0]} to {betas[-1]}")

# %% [markdown]
# > **Predict before you run.** After how many of the 1000 steps can *you* no longer tell the shoe from the shirt: 50,
# > 200, 400, 800? Write your number down.

# %%
rng = np.random.default_rng(0)
x, shown = x_0, {}
for t, beta in enumerate(betas):
    x = np.sqrt(1 - beta) * x + np.sqrt(beta) * rng.standard_normal(x.shape)
    if t + 1 in (1, 50, 100, 200, 300, 400, 600, 1000):
        shown[t + 1] = x[[0, 7, 8]]  # the shirt, the sneaker, the bag

frames = np.stack([x_0[[0, 7, 8]], *shown.values()], axis=1)  # [3, times, 28, 28, 1]
show_images(
    frames.reshape(-1, 28, 28, 1),
    columns=frames.shape[1],
    titles=["0 steps", *map(str, shown)],
    rows=["T-shirt", "sneaker", "bag"],
    title="A thousand small steps",
    limits=(-2, 2),
)

# %% [markdown]
# *What to see:* the fine texture goes first, within 50 steps; the outline survives to 200 or 300; after 400 you may
# guess. The last several hundred steps look alike, and yet each row is another noise, with a last trace of another
# image in it.
#
# ## All steps in one jump
#
# Two steps first. Put the first into the second:
#
# $$x_2 = \sqrt{1-\beta_2}\left(\sqrt{1-\beta_1}\,x_0 + \sqrt{\beta_1}\,\epsilon_1\right) + \sqrt{\beta_2}\,\epsilon_2$$
#
# The two noises are independent and normal, so their sum is normal, and its variance is the sum of the variances:
#
# $$(1-\beta_2)\,\beta_1 + \beta_2 = 1 - (1-\beta_1)(1-\beta_2)$$
#
# With $\alpha_t = 1 - \beta_t$ and $\bar\alpha_t = \alpha_1 \alpha_2 \cdots \alpha_t$ this is $1 - \bar\alpha_2$, and
# the factor of $x_0$ is $\sqrt{\bar\alpha_2}$. The same happens at every further step, so
#
# $$\boxed{\,q(x_t \mid x_0) = \mathcal N\!\left(\sqrt{\bar\alpha_t}\,x_0,\; 1 - \bar\alpha_t\right)\,} \qquad
# x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1 - \bar\alpha_t}\;\epsilon \qquad \text{(Ho et al. 2020, eq. 4)}$$
#
# A thousand steps are one multiplication and one addition. In the code $\bar\alpha$ is `alphas_cumprod`.
#
# **Is it true?** Take one pixel of value 0.8, walk it through the first 300 steps twenty thousand times, and compare.

# %%
walkers, at = np.full(20_000, 0.8), 300
for beta in betas[:at]:
    walkers = np.sqrt(1 - beta) * walkers + np.sqrt(beta) * rng.standard_normal(walkers.shape)

alphas_cumprod = np.cumprod(1 - betas)
mean, deviation = 0.8 * np.sqrt(alphas_cumprod[at - 1]), np.sqrt(1 - alphas_cumprod[at - 1])
figure, axes = plt.subplots()
axes.hist(walkers, bins=80, density=True, color="0.75", label="20,000 walks of 300 steps")
value = np.linspace(-3, 4, 300)
density = np.exp(-(((value - mean) / deviation) ** 2) / 2) / (deviation * np.sqrt(2 * np.pi))
axes.plot(value, density, label="the formula")
axes.set(title="One pixel of 0.8 after 300 steps", xlabel="value of x_t", ylabel="probability density")
axes.legend()
plt.show()
print(f"mean {walkers.mean():.4f}, by the formula {mean:.4f}")
print(f"standard deviation {walkers.std():.4f}, by the formula {deviation:.4f}")

# %% [markdown]
# *What to see:* the curve is the outline of the grey bars, and the numbers agree to about a hundredth, which is as much
# as twenty thousand walks can tell.
#
# The package calls the jump `q_sample`. It takes the noise as an argument, as every function of the engine does: so two
# frameworks can be given the same, and compared.

# %%
eps = rng.standard_normal(x_0.shape)
t = [300] * len(x_0)
x_t = duet.engine.q_sample(schedule, duet.data.to_tensor(x_0), duet.times(t), duet.data.to_tensor(eps))
by_hand = np.sqrt(alphas_cumprod[300]) * x_0 + np.sqrt(1 - alphas_cumprod[300]) * eps
print(
    f"{duet.name}'s q_sample and the line above differ by {np.abs(duet.data.to_array(x_t) - by_hand).max():.1e} at most"
)

# %% [markdown]
# Move the slider, if your notebook is running: the same noise at any time.


# %%
def at_time(t):
    """The images of the top at time t."""
    x_t = duet.engine.q_sample(schedule, duet.data.to_tensor(x_0), duet.times([t] * len(x_0)), duet.data.to_tensor(eps))
    signal, noise = np.sqrt(alphas_cumprod[t]), np.sqrt(1 - alphas_cumprod[t])
    show_images(
        duet.data.to_array(x_t), title=f"t = {t}: {signal:.3f} of the image, {noise:.3f} of the noise", limits=(-2, 2)
    )


explore("t", range(0, 1000, 3), at_time, shown=[30, 150, 450])

# %% [markdown]
# ## Signal and noise
#
# What matters to whoever has to take the noise away again is how much signal there is beside it, the **signal-to-noise
# ratio** $\text{SNR}(t) = \bar\alpha_t / (1 - \bar\alpha_t)$, a ratio of variances. And the names of schedules are
# nothing but ways for this ratio to fall.
#
# > **Predict before you run.** Which schedule keeps the image recognisable for longest, linear or cosine? And which of
# > the two ends in purer noise?

# %%
NAMES = ("linear", "quadratic", "cosine", "sigmoid")
schedules = {
    name: duet.engine.make_schedule(DiffusionConfig(schedule=name), duet.utils.dtype("fp64")) for name in NAMES
}
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6))
for name, dashes in zip(NAMES, ("-", "--", "-.", ":"), strict=True):
    a = schedules[name].alphas_cumprod.numpy()
    left.plot(np.sqrt(a), dashes, label=name)
    right.plot(np.log10(a / (1 - a)), dashes, label=name)
left.set(title="How much of the image is left", xlabel="t", ylabel="sqrt(alphas_cumprod)")
right.axhline(0, color="0.4", linewidth=1)
right.set(title="Signal-to-noise ratio", xlabel="t", ylabel="log10 SNR", ylim=(-6.5, 4.5))
left.legend()
plt.show()

# %% [markdown]
# *What to see:* on the left, linear is below a tenth of the image for the last 330 steps: a third of the work is spent
# in noise that hides almost everything. Cosine (Nichol and Dhariwal 2021) comes down evenly, and then falls off the
# edge at the very end. On the right, the horizontal line is where signal and noise are equal.

# %%
times = [0, 100, 200, 300, 400, 500, 600, 700, 800, 900, 999]
bag, noise = (
    duet.data.to_tensor(np.repeat(x_0[8:9], len(times), 0)),
    duet.data.to_tensor(np.repeat(eps[8:9], len(times), 0)),
)
rows = [duet.data.to_array(duet.engine.q_sample(schedules[name], bag, duet.times(times), noise)) for name in NAMES]
show_images(
    np.concatenate(rows),
    len(times),
    titles=[f"t={t}" for t in times],
    rows=NAMES,
    title="One bag, four schedules",
    limits=(-2, 2),
)

# %% [markdown]
# **Is anything left at the end?** Sampling will begin with pure noise. If the forward process does not end there, the
# network is asked at its first step about something that it never saw.

# %%
for name in NAMES:
    a = schedules[name].alphas_cumprod.numpy()[-1]
    print(f"{name:>10}: {np.sqrt(a):.5f} of the image is left at t = 999, SNR {a / (1 - a):.1e}")

# %% [markdown]
# Quadratic leaves the most here, and all but cosine leave a trace: the average brightness of an image can shine through
# (Lin et al. 2024). `--zero-terminal-snr` shifts a schedule so that nothing is left.
#
# ## Exercises
#
# Each has a check that tells you what is off. Write your answer in place of the dots.
#
# **1 · Write the jump.** (easy) In NumPy, for a batch: `t` is an array [B] of times, the images are [B, H, W, C]. `t`
# is 0-based: at `t = 0` the image has made one step.


# %%
def my_q_sample(alphas_cumprod, x_0, t, eps):
    """Your answer."""
    ...


check.q_sample(my_q_sample)

# %% [markdown]
# **2 · When is it mostly noise?** (medium) The first `t` at which the signal-to-noise ratio is below `snr`.


# %%
def my_first_time_below(alphas_cumprod, snr):
    """Your answer."""
    ...


check.first_time_below(my_first_time_below)

# %% [markdown]
# **3 · Two steps by hand.** (harder) After steps with `beta_1` and `beta_2`, $x_2 = a\,x_0 + s\,\epsilon$. Return
# `(a, s)`. Derive it on paper; the section above has all you need.


# %%
def my_two_steps(beta_1, beta_2):
    """Your answer."""
    ...


check.two_steps(my_two_steps)

# %% [markdown]
# ## Questions
#
# Think first, then unfold.
#
# <details><summary>Why does the forward process shrink the image at all? Adding noise alone would hide it as
# well.</summary>
# It would: that is the variance-exploding process, which score-based models use. Shrinking keeps the variance of x_t
# near 1 at every t, so that one network sees inputs of one size, and sampling can begin with standard normal
# noise.</details>
#
# <details><summary>The background of these images is exactly -1. Is the variance of x_t then really 1 at every
# t?</summary>
# No. 1 is kept if the data have variance 1, and these have less around a mean below 0. The variance grows towards 1,
# and the mean goes from about -0.4 to 0.</details>
#
# <details><summary>x_t at t = 999 looks like pure noise to you. Why can a trained network still use it?</summary>
# Because it knows what images look like on the whole, and where there is a trace of one, however weak, 784 pixels
# together say more than any of them. And where there is none, its best answer is the mean of all images.</details>
#
# ## What you have now
#
# | here | in the code | in Ho et al. 2020 |
# |---|---|---|
# | $\beta_t$ | `schedule.betas[t - 1]` | section 2 |
# | $\bar\alpha_t$ | `schedule.alphas_cumprod[t - 1]` | section 2 |
# | $q(x_t \mid x_0)$ | `engine.q_sample(schedule, x_0, t, eps)` | eq. 4 |
# | $\epsilon$ | `eps` | eq. 9 |
#
# Next: [02, the network](02_network.ipynb) that is to tell the noise.
