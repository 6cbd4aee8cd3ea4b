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
# # 11 · A zoo of networks: what each habit costs
#
# **Afterwards you can** read six networks that are used for diffusion, and say what their habits cost: BatchNorm,
# transposed convolutions, a time that is a plain number or is missing, patches instead of pixels, attention in several
# heads; and find the layer at which a port of a network goes wrong.
#
# **Time:** 75 minutes, some of them waiting. **You need:** [02, the network](02_network.ipynb) and
# [04, training](04_training.ipynb); [06, two frameworks](06_two_frameworks.ipynb) helps.

# %%
FRAMEWORK = "torch"  # or "tensorflow": everything below works in both

# %%
try:
    from ddpm_course import begin
except ModuleNotFoundError:
    raise SystemExit("ddpm-duet is not installed here: run `make setup`, then `make lab`, in its folder.") from None

import dataclasses
import time
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt

from ddpm_course import inside
from ddpm_course.exercises import networks as check
from ddpm_course.figures import show_images
from ddpm_course.mirror import side_by_side
from ddpm_shared import batches, datasets, streams
from ddpm_shared.config import Config, TrainingConfig, fitted, size, with_network
from ddpm_shared.config.sampling import Draw, quick
from ddpm_shared.oracle import networks
from ddpm_shared.records.checkpoint import Checkpoint

duet = begin(FRAMEWORK)
train, test = datasets.load("fashion-mnist-10k")

# %% [markdown]
# ## Six networks
#
# The mathematics of diffusion does not care what stands in the middle: a function of $x_t$ and $t$ whose output has the
# size of the image. So people put many things there. This package has six of them, under the names by which
# `--network NAME` finds them:
#
# | `--network` | normalisation | how it is given the time | down and up | attention |
# |---|---|---|---|---|
# | `unet` | GroupNorm | sinusoids, into every block | stride 2; pixels repeated, then a convolution | one head, at 7 x 7 |
# | `transformer_unet` | GroupNorm, LayerNorm | random Fourier features, into every level | stride 2; transposed convolutions | at 7 x 7 and 4 x 4 |
# | `residual_unet` | **BatchNorm** | sinusoids, once, at the deepest level | stride 2; **transposed convolutions, k3 s2** | **8 heads**, at 4 x 4 |
# | `simple_unet` | none | **a plain number**, once, at the deepest level | stride 2; transposed convolutions, k4 s2 | none |
# | `denoise_net` | none | **not at all**, or sinusoids, once | no levels: two convolutions | none |
# | `dit` | LayerNorm, set by the time | sinusoids, into every block | **patches** | 6 heads, in every block |
#
# (k3 s2: a kernel of 3 x 3 and a stride of 2.) The first is that of [02](02_network.ipynb). Each of the others is met
# in tutorials, papers or lecture notes, and each has habits that somebody who reads them will take over without a word.
# This notebook asks for each habit: what does it do, what does it cost, and how would you notice?
#
# > **Predict before you run.** How large are they, and how fast, in the sizes of their presets? Does the number of
# > parameters tell the speed?

# %%
NAMES = ("unet", "transformer_unet", "residual_unet", "simple_unet", "denoise_net", "dit")


def of_preset(name):
    """The settings of a network in the size of its preset."""
    return fitted(with_network(Config(device="cpu"), name), train.images.shape[1:])


def fastest(work, times=3):
    """Seconds that `work` takes, the best of a few times, after a first one that does not count."""
    work()
    took = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        took.append(time.perf_counter() - began)
    return min(took)


sixteen = np.random.default_rng(0).standard_normal((16, 28, 28, 1))
for name in NAMES:
    config = of_preset(name)
    network = duet.model.compiled(duet.model.make_network(config, seed=0))
    seconds = fastest(lambda network=network: inside.ask(duet, network, sixteen, [500] * 16))
    print(f"{name:>16}: {size.num_parameters(config):>10,} parameters, {16 / seconds:6.0f} images a second, forward")

# %% [markdown]
# *What to see:* hardly. `residual_unet` has by far the most parameters, since its deepest level has 512 channels; but it
# uses them at 4 x 4 only. `dit` computes all of its layers for all of its 196 patches, and is the slowest with less
# than half of that. Parameters at a coarse level cost memory, parameters at a fine level cost time.
#
# ## The same steps for all
#
# Train all six, small enough for a notebook: about 150,000 parameters each, but for `dit`, which is a little larger,
# and the two convolutions, which are what they are. `denoise_net` comes twice: as its lecture notes have it, and with
# the time. Same data, same noise, same learning rate, 200 steps of 32 images.
#
# > **Predict before you run.** Which will have the lowest loss after the same number of steps? How much worse will two
# > convolutions be than a U-Net with 250 times their parameters?

# %%
STEPS = 200
SMALL = {
    "unet": {"base_channels": 16, "channel_mults": (1, 2), "attention_resolutions": (), "num_groups": 1},
    "transformer_unet": {"base_channels": 8},
    "residual_unet": {"base_channels": 16, "channel_mults": (1, 2, 4), "attention_heads": 4},
    "simple_unet": {"base_channels": 16},
    "dit": {"base_channels": 64, "patch_size": 4, "depth": 3, "attention_heads": 4},
    "denoise_net": {"base_channels": 32, "uses_time": True},
    "denoise_net, no time": {"base_channels": 32, "uses_time": False},
}
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))


def small(name):
    """The settings of a small network and its training."""
    config = of_preset(name.partition(",")[0])
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, **SMALL[name]),
        training=TrainingConfig(batch_size=32, max_steps=STEPS, warmup_steps=20, learning_rate=2e-3),
    )


zoo, curves = {}, {}
for name in SMALL:
    config = small(name)
    learner = zoo[name] = duet.learner.Learner(config, STEPS)
    curves[name] = []
    began = time.perf_counter()
    for step in range(STEPS):
        if step == 5:
            began = time.perf_counter()  # TensorFlow's first step makes its graph
        curves[name].append(learner.train_step(batches.training_batch(train, config, step), step)[0])
    a_step = (time.perf_counter() - began) / (STEPS - 5)
    print(
        f"{name:>20}: {learner.num_parameters:>7,} parameters, {1000 * a_step:5.0f} ms a step, "
        f"loss of the last 50 steps {np.mean(curves[name][-50:]):.3f}"
    )

figure, axes = plt.subplots(figsize=(8, 3.6))
for (name, losses), dashes in zip(curves.items(), DASHES, strict=True):
    smooth = np.convolve(losses, np.ones(20) / 20, mode="valid")
    axes.plot(np.arange(20, STEPS + 1), smooth, linestyle=dashes, label=name)
axes.set(title=f"{duet.name}: the loss, mean of 20 steps", xlabel="step", ylabel="loss", yscale="log")
axes.legend(fontsize=8, ncols=2)
plt.show()

# %%
drawn = [learner.sample(8, lambda i: None) for learner in zoo.values()]
show_images(np.concatenate(drawn), 8, rows=list(zoo), title=f"{duet.name}: drawn after {STEPS} steps, from the same noise")

# %% [markdown]
# *What to see:* PLACEHOLDER-ZOO
#
# A mean loss hides where it comes from. So take 128 test images, and measure the error of the noise at one $t$ after
# the other. All comparisons below do.

# %%
TIMES = [5, 20, 50, 100, 200, 300, 400, 500, 600, 700, 800, 900, 990]
shown = test.images[:128] / 127.5 - 1
eps = streams.normal(0, streams.VALIDATION_EPS, 0, shown.shape)
schedule = duet.engine.make_schedule(Config().diffusion)


def noisy(images, noise, times):
    """x_t of images [B, H, W, C] at times [B], as NumPy."""
    x_0, e = (duet.data.to_tensor(part.astype(np.float32)) for part in (images, noise))
    return duet.data.to_array(duet.engine.q_sample(schedule, x_0, duet.times(times), e))


def loss_at(network, t):
    """The mean square of what is wrong in the prediction of the noise, at one t."""
    times = [t] * len(shown)
    return np.mean((inside.ask(duet, network, noisy(shown, eps, times), times) - eps) ** 2)


def rebuilt(name, changed=None):
    """A trained network as it is after its last step, made anew from its tensors, or from others in their place."""
    learner = zoo[name]
    tensors = {**learner.tensors(), **(changed or {})}
    saved = Checkpoint(Path("zoo"), FRAMEWORK, STEPS, learner.config, "", tensors, "")
    return duet.model.load(saved, "model", learner.config)


by_time = {name: [loss_at(rebuilt(name), t) for t in TIMES] for name in zoo}
figure, axes = plt.subplots(figsize=(8, 3.6))
for (name, losses), dashes in zip(by_time.items(), DASHES, strict=True):
    axes.plot(TIMES, losses, linestyle=dashes, marker=".", label=name)
axes.set(title=f"{duet.name}: the error of the noise at each t", xlabel="t", ylabel="mean square", yscale="log")
axes.legend(fontsize=8, ncols=2)
plt.show()
for name, losses in by_time.items():
    row = ", ".join(f"{loss:.3f}" for t, loss in zip(TIMES, losses, strict=True) if t in (5, 50, 200, 500, 990))
    print(f"{name:>20}: {row} at t = 5, 50, 200, 500, 990")

# %% [markdown]
# *What to see:* PLACEHOLDER-BYT
#
# ## What does the time buy?
#
# The two `denoise_net` differ in nothing but the time, and it costs one linear layer. Divide their errors.
#
# > **Predict before you run.** Where does the time help most: at little noise, in the middle, at much noise? Can a
# > network that sees 5 x 5 pixels tell how noisy they are?

# %%
with_time, without = (np.array(by_time[name]) for name in ("denoise_net", "denoise_net, no time"))
figure, axes = plt.subplots(figsize=(7.5, 2.8))
axes.plot(TIMES, without / with_time, "-o")
axes.axhline(1.0, color="black", linewidth=0.8)
axes.set(title="Error without the time, divided by that with it", xlabel="t", ylabel="ratio")
plt.show()
for t, a, b in zip(TIMES, without, with_time, strict=True):
    print(f"t = {t:>3}: without {a:.4f}, with {b:.4f}, ratio {a / b:.2f}")

# %% [markdown]
# *What to see:* PLACEHOLDER-TIME
#
# ### A plain number, or sinusoids?
#
# `simple_unet` is given $t / 1000$, one number, through two linear layers; `residual_unet` the sinusoids of
# [02](02_network.ipynb), through two linear layers too. What comes out is a vector that is added to all pixels of the
# deepest level. Two times that have nearly the same vector are the same time to the network.
#
# > **Predict before you run.** From $t = 0$ to $t = 10$ the noise becomes six times as strong. How much of its whole way
# > from 0 to 999 does the vector of each network go in these ten steps?

# %%
every = np.arange(0, 1000, 5)
blank = np.zeros((len(every), 28, 28, 1))
deviation = schedule.sqrt_one_minus_alphas_cumprod.numpy()
figure, places = plt.subplots(1, 2, figsize=(8, 3.6))
for place, (name, habit) in zip(
    places, {"simple_unet": "a plain number", "residual_unet": "sinusoids"}.items(), strict=True
):
    vectors = inside.activations(duet, rebuilt(name), blank, every)["time_2"]  # [200, D]
    apart = np.sqrt(((vectors[:, None] - vectors[None]) ** 2).sum(2))
    image = place.imshow(apart / apart.max(), cmap="viridis", extent=(0, 1000, 1000, 0))
    place.set(title=f"{name}: {habit}", xlabel="t", ylabel="t'")
    place.grid(False)
    spread = np.linalg.svd(vectors - vectors.mean(0), compute_uv=False)
    directions = int((spread > 0.01 * spread[0]).sum())
    print(
        f"{name:>14}: from t = 0 to 10 {apart[0, 2] / apart[0, -1]:.1%} of the way from 0 to 995; "
        f"the vectors spread in {directions} directions by a hundredth or more of the first"
    )
figure.colorbar(image, ax=places, label="distance, of the largest", shrink=0.9)
plt.show()
print(f"deviation of the noise: {deviation[0]:.3f} at t = 0, {deviation[10]:.3f} at 10, {deviation[999]:.3f} at 999")

# %% [markdown]
# *What to see:* PLACEHOLDER-NUMBER
#
# ## BatchNorm, told honestly
#
# GroupNorm takes mean and variance over a group of channels of one image. **BatchNorm** (Ioffe and Szegedy 2015) takes
# them over *all images of the batch*, for each channel. That works in training. For drawing there may be one image
# only, so during training it keeps **running moments**, which stand in for those of the batch later:
#
# $$\text{running} \leftarrow (1 - m)\ \text{running} + m\ \text{batch}$$
#
# They are no parameters, since no gradient reaches them: they are **buffers**. A checkpoint that holds the parameters
# alone has lost them. And the two frameworks agree on nothing here:
#
# | default | PyTorch | Keras | this package, both trees |
# |---|---|---|---|
# | momentum | 0.1, the weight of the **new** | 0.99, the weight of the **old** | 0.1, of the new |
# | epsilon | 1e-5 | 1e-3 | 1e-5 |
# | running variance | unbiased, $n / (n - 1)$ | biased | unbiased |
#
# So there is one own layer in each tree, with one definition:

# %%
side_by_side("networks/layers", "BatchNorm")

# %% [markdown]
# ### An image and its company
#
# > **Predict before you run.** Here is a bag at $t = 300$, in three batches of eight: beside other images at the same
# > $t$, beside the same images at $t = 20$, and beside copies of itself. How much will the prediction for the bag
# > change with its company, in training and afterwards?

# %%
bag = int(np.argmax(test.labels[:128] == 8))
others = np.flatnonzero(np.arange(128) != bag)[:7]
COMPANIES = {
    "other images, t = 300": (np.append(bag, others), [300] * 8),
    "other images, t = 20": (np.append(bag, others), [300] + [20] * 7),
    "copies of itself": (np.full(8, bag), [300] * 8),
}
answers = {}
for mode in ("training", "running moments"):
    network = inside.layered(rebuilt("residual_unet"))
    duet.model.set_training(network, mode == "training")
    for company, (index, times) in COMPANIES.items():
        x_t = noisy(shown[index], eps[index], times)
        answers[mode, company] = inside.ask(duet, network, x_t, times)[0]
    first, second, third = (answers[mode, company] for company in COMPANIES)
    print(
        f"{mode:>16}: the bag's prediction moves by {np.sqrt(np.mean((second - first) ** 2)):.1e} beside images at "
        f"t = 20, by {np.sqrt(np.mean((third - first) ** 2)):.1e} beside copies of itself"
    )
show_images(
    np.stack(list(answers.values())),
    3,
    titles=list(COMPANIES),
    rows=["in training", "running moments"],
    title="eps_pred of the same bag at t = 300",
    limits=(-2, 2),
)

# %% [markdown]
# *What to see:* PLACEHOLDER-COMPANY
#
# ### All times in training, one in drawing
#
# A batch of training holds images at *all* times. A batch of drawing is at *one* time: 999 for all, then 998 for all.
# What are the moments of a channel then?
#
# > **Predict before you run.** There are two ways to draw: with the running moments, or in training mode, with the
# > moments of the batch, all of whose images are at the same $t$. Which is closer to what the network was trained with?

# %%
network = rebuilt("residual_unet")
tensors = zoo["residual_unet"].tensors()
means, deviations = [], []
for t in TIMES:
    times = [t] * len(shown)
    before = inside.activations(duet, network, noisy(shown, eps, times), times)["down.0.conv_1"]  # what norm_1 is given
    means.append(before.mean((0, 1, 2)))
    deviations.append(before.std((0, 1, 2)))
stored = {name: tensors[f"buffers/down.0.norm_1.running_{name}"] for name in ("mean", "var")}
channels = np.argsort(np.ptp(means, axis=0))[[-1, -2, -3]]
figure, places = plt.subplots(1, 2, figsize=(8.5, 3.2))
for number, channel in enumerate(channels):
    for place, values, running in (
        (places[0], means, stored["mean"]),
        (places[1], deviations, np.sqrt(stored["var"])),
    ):
        place.plot(TIMES, np.array(values)[:, channel], color=f"C{number}", label=f"channel {channel}, at one t")
        place.axhline(running[channel], color=f"C{number}", linestyle="--", linewidth=1)
places[0].set(title="Mean (dashed: the running one)", xlabel="t")
places[1].set(title="Deviation (dashed: the running one)", xlabel="t")
places[1].legend(fontsize=8)
plt.show()

# %%
mixed = np.random.default_rng(0).permutation(np.linspace(0, 999, 1024).astype(int)).reshape(8, 128)


def losses_of(mode):
    """The error by t: with the running moments, with those of a batch at one t, or of a batch at all of them."""
    network = inside.layered(rebuilt("residual_unet"))
    duet.model.set_training(network, mode != "running moments")
    if mode != "batch at all t":
        return [loss_at(network, t) for t in TIMES]
    found = []
    for t in TIMES:  # 16 images at t, among 112 at other times
        wrong = []
        for times in mixed:
            times = [t] * 16 + list(times[16:])
            x_t = noisy(shown, eps, times)
            wrong.append(np.mean((inside.ask(duet, network, x_t, times) - eps)[:16] ** 2))
        found.append(np.mean(wrong))
    return found


MODES = ("running moments", "batch at one t")
of_mode = {mode: losses_of(mode) for mode in MODES}
figure, axes = plt.subplots(figsize=(7.5, 3.2))
for (mode, losses), dashes in zip(of_mode.items(), DASHES, strict=False):
    axes.plot(TIMES, losses, linestyle=dashes, marker=".", label=mode)
    print(f"{mode:>16}:", ", ".join(f"{loss:.3f}" for loss in losses), f"mean {np.mean(losses):.3f}")
axes.set(title=f"{duet.name}: residual_unet, the error at each t", xlabel="t", ylabel="mean square", yscale="log")
axes.legend()
plt.show()
