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
# *What to see:* hardly. `residual_unet` has by far the most parameters, since its deepest level has 512 channels; but
# it uses them at 4 x 4 only. `dit` computes all of its layers for all of its 196 patches, and is the slowest with less
# than half of that. Parameters at a coarse level cost memory, parameters at a fine level cost time.
#
# ## The same steps for all
#
# Train all six, small enough for a notebook: about 150,000 parameters each, but for `dit`, which has 250,000, and the
# two convolutions, which are what they are. `denoise_net` comes twice: as its lecture notes have it, and with the time.
# Same data, same noise, same learning rate, 200 steps of 32 images.
#
# > **Predict before you run.** Which will have the lowest loss after the same number of steps? How much worse will two
# > convolutions be than a U-Net with 250 times their parameters?

# %%
STEPS = 200
SMALL = {
    "unet": {"base_channels": 16, "channel_mults": (1, 2), "attention_resolutions": (), "num_groups": 1},
    "transformer_unet": {"base_channels": 8, "fourier_scale": 0.03},  # why 0.03: see "A plain number" below
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
show_images(
    np.concatenate(drawn), 8, rows=list(zoo), title=f"{duet.name}: drawn after {STEPS} steps, from the same noise"
)

# %% [markdown]
# *What to see:* after so few steps no network draws well, and the order is clear all the same: `unet` is ahead,
# `residual_unet` and `dit` follow. Why? This cell cannot tell, since they differ in ten things at once
# ([08](08_your_own_experiment.ipynb)); the rest of the notebook takes them one by one. In the drawings of `dit` you see
# its patches: inside of one it is smooth, and from one to the next it has not learned to join. The two convolutions
# draw texture. What they cannot see, they cannot draw. (Their 600 parameters are still not *that* far behind in the
# loss: most of a mean loss is easy.)
#
# A mean loss hides where it comes from. So take 64 test images, and measure the error of the noise at one $t$ after
# the other. All comparisons below do.

# %%
TIMES = [5, 20, 50, 100, 200, 300, 400, 500, 600, 700, 800, 900, 990]
shown = test.images[:64] / 127.5 - 1
eps = streams.normal(0, streams.VALIDATION_EPS, 0, shown.shape)
schedule = duet.engine.make_schedule(Config().diffusion)


def noisy(images, noise, times):
    """x_t of images [B, H, W, C] at times [B], as NumPy."""
    x_0, e = (duet.data.to_tensor(part.astype(np.float32)) for part in (images, noise))
    return duet.data.to_array(duet.engine.q_sample(schedule, x_0, duet.times(times), e))


all_300 = [300] * len(shown)
x_300 = noisy(shown, eps, all_300)  # the test images at t = 300


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


ready = {name: rebuilt(name) for name in zoo}
by_time = {name: [loss_at(network, t) for t in TIMES] for name, network in ready.items()}
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
# *What to see:* the error is large at small $t$, where little noise is hidden in much image, and small at large $t$,
# where $x_t$ is nearly the noise itself. So a mean over $t$ is mostly about the left part. The networks differ
# everywhere, and on the right by a factor, which a mean does not show: to draw, all 1000 times are needed, and the
# first steps of drawing are on the right. `dit` is best there, and `unet` next.
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
# *What to see:* not where one might think. At small $t$ two convolutions fail with the time as without it: 5 x 5 pixels
# of a shirt and its noise look alike. From $t = 600$ on it is a factor of about two, and more. There the right output
# is nearly $x_t$ itself, and what is left to know is *by what it has to be multiplied*, which depends on $t$. Without
# the time the network has nearly the same factor for all, and pays with an error that does not go below about 0.05.
# (What was the target at $t = 990$? $x_t / \sqrt{1 - \bar\alpha_t}$, up to a trace of the image.)
#
# ### A plain number, or sinusoids?
#
# `simple_unet` is given $t / 1000$, one number, through two linear layers; `residual_unet` the sinusoids of
# [02](02_network.ipynb), through two linear layers too. What comes out is a vector that is added to all pixels of the
# deepest level. `transformer_unet` has **random Fourier features**, sines and cosines whose frequencies were drawn
# once. Two times that have nearly the same vector are the same time to the network.
#
# The last one has a setting that goes wrong easily. `--fourier-scale 30` is 30 periods *per unit of time*, made for
# processes whose time goes from 0 to 1 ([10](10_continuous_time.ipynb)). Ours goes to 999, so the network above was
# given 0.03, which is 30 periods from end to end. The fourth picture shows the scale of 30 in our process.
#
# > **Predict before you run.** From $t = 0$ to $t = 10$ the noise becomes nearly five times as strong. How far apart
# > are the two vectors, beside those of times that are far apart, in each of the four? And with 30 periods *per step*?

# %%
every = np.arange(0, 1000, 5)
blank = np.zeros((len(every), 28, 28, 1))
deviation = schedule.sqrt_one_minus_alphas_cumprod.numpy()
taken_over = dataclasses.replace(small("transformer_unet").model, fourier_scale=30.0)  # that of its preset
taken_over = duet.model.make_network(dataclasses.replace(small("transformer_unet"), model=taken_over), seed=0)
VECTORS = {
    "a plain number": (ready["simple_unet"], "time_2"),
    "sinusoids": (ready["residual_unet"], "time_2"),
    "random features, scale 0.03": (ready["transformer_unet"], "time"),
    "random features, scale 30": (taken_over, "time"),
}
figure, places = plt.subplots(1, 4, figsize=(10, 3.1))
for place, (habit, (network, layer)) in zip(places, VECTORS.items(), strict=True):
    vectors = inside.activations(duet, network, blank, every)[layer]  # [200, D]
    apart = np.sqrt(((vectors[:, None] - vectors[None]) ** 2).sum(2))
    image = place.imshow(apart / apart.max(), cmap="viridis", vmin=0, vmax=1, extent=(0, 1000, 1000, 0))
    place.set(xlabel="t", xticks=[0, 500, 1000], yticks=[])
    place.set_title(habit.replace(", ", ",\n"), fontsize=10)
    place.grid(False)
    spread = np.linalg.svd(vectors - vectors.mean(0), compute_uv=False)
    directions = int((spread > 0.01 * spread[0]).sum())
    far_apart = np.median(apart[abs(every[:, None] - every[None]) > 300])
    print(
        f"{habit:>27}: from t = 0 to 10 {apart[0, 2] / far_apart:4.0%} of the distance of times that are far apart; "
        f"{directions:>2} directions"
    )
places[0].set(ylabel="t'", yticks=[0, 500, 1000])
figure.colorbar(image, ax=places, label="distance, of the largest", shrink=0.8)
plt.show()
print(f"deviation of the noise: {deviation[0]:.3f} at t = 0, {deviation[10]:.3f} at 10, {deviation[999]:.3f} at 999")

# %% [markdown]
# *What to see:* with a plain number the first ten steps are a fiftieth of the way, and all vectors lie on one line: the
# network knows early from late, and can hardly tell the first times apart, where the noise changes most. (What it would
# have to learn is a steep function; with enough training it can, but slowly.) The sinusoids spread the times in dozens
# of directions: a narrow valley around each time, and wide slopes, so that neighbours are alike and early and late are
# not. The random features of scale 0.03 have the valley, some ten steps wide, and no slopes: all frequencies are of one
# kind. At the scale of 30 per *step* even the valley is gone, each time is equally far from every other: a thousand
# names without an order, and what is learned at one $t$ does not help at the next. No shape is wrong, no error is
# raised.
# **A habit has a unit.**
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
bag = int(np.argmax(test.labels[:64] == 8))
others = np.flatnonzero(np.arange(64) != bag)[:7]
COMPANIES = {
    "others": (np.append(bag, others), [300] * 8),
    "at t = 20": (np.append(bag, others), [300] + [20] * 7),
    "copies": (np.full(8, bag), [300] * 8),
}
answers = {}
for mode in ("in training", "running moments"):
    network = inside.layered(rebuilt("residual_unet"))
    duet.model.set_training(network, mode == "in training")
    for company, (index, times) in COMPANIES.items():
        x_t = noisy(shown[index], eps[index], times)
        answers[mode, company] = x_t[:1], inside.ask(duet, network, x_t, times)[:1]
    first, second, third = (answers[mode, company][1] for company in COMPANIES)
    print(
        f"{mode:>16}: the bag's prediction moves by {np.sqrt(np.mean((second - first) ** 2)):.2f} (root mean square) "
        f"beside images at t = 20, by {np.sqrt(np.mean((third - first) ** 2)):.2f} beside copies of itself"
    )


def image_of(x_t, times, eps_pred):
    """The x_0 that a noise implies, not clipped."""
    x, e = (duet.data.to_tensor(part.astype(np.float32)) for part in (x_t, eps_pred))
    return duet.data.to_array(duet.engine.predict_x_0(schedule, x, duet.times(times), e))


show_images(
    np.concatenate([image_of(x, [300], e) for x, e in answers.values()]),
    3,
    titles=list(COMPANIES),
    rows=["in training", "running moments"],
    title="The same bag at t = 300: x_0 as predicted",
)

# %% [markdown]
# *What to see:* with the running moments nothing changes, not by a bit: all three are the same. In training the bag is
# predicted otherwise in each company. Beside images at $t = 20$ it is ruined: these have other means and deviations,
# and the bag is normalised with them. Nothing here is a bug: it is what BatchNorm *is*. It is why a small batch trains
# otherwise than a large one, and why in training one image has no loss of its own.
#
# ### All times in training, one in drawing
#
# A batch of training holds images at *all* times. A batch of drawing is at *one* time: 999 for all, then 998 for all.
# What are the moments of a channel then?
#
# > **Predict before you run.** There are two ways to draw: with the running moments, or in training mode, with the
# > moments of the batch, all of whose images are at the same $t$. Which is closer to what the network was trained with?

# %%
network = ready["residual_unet"]
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
places[0].set(title="Mean (dashed: the running one)", xlabel="t", ylabel="of a channel before norm_1")
places[1].set(title="Deviation (dashed: the running one)", xlabel="t")
places[1].legend(fontsize=8)
plt.show()

# %%
MIXED = np.random.default_rng(0).permutation(np.linspace(0, 999, 64).astype(int))


def losses_of(mode):
    """The error by t, with one of three kinds of moments."""
    network = rebuilt("residual_unet")
    duet.model.set_training(inside.layered(network), mode != "running moments")
    if mode != "a batch of all t":
        return [loss_at(network, t) for t in TIMES]
    found = []
    for t in TIMES:
        wrong = []
        for turn in np.arange(64).reshape(4, 16):  # 16 images at t, among 48 at other times
            times = MIXED.copy()
            times[turn] = t
            wrong.append((inside.ask(duet, network, noisy(shown, eps, times), times) - eps)[turn])
        found.append(np.mean(np.square(wrong)))
    return found


of_mode = {mode: losses_of(mode) for mode in ("a batch of all t", "running moments", "a batch of one t")}
figure, axes = plt.subplots(figsize=(7.5, 3.2))
for (mode, losses), dashes in zip(of_mode.items(), DASHES, strict=False):
    axes.plot(TIMES, losses, linestyle=dashes, marker=".", label=mode)
    row = ", ".join(f"{loss:.3f}" for t, loss in zip(TIMES, losses, strict=True) if t in (5, 50, 200, 500, 990))
    print(f"{mode:>16}: {row} at t = 5, 50, 200, 500, 990; mean {np.mean(losses):.3f}")
axes.set(title=f"{duet.name}: residual_unet, the error at each t", xlabel="t", ylabel="mean square", yscale="log")
axes.legend()
plt.show()

# %% [markdown]
# *What to see:* the moments of a channel depend on $t$, some by a factor of two; the running ones lie between. (A
# running deviation may lie a little above: it also holds how far the means of different times are apart.) And the
# surprise: they are **the right ones**. In training each image met the moments of all times, and the running ones are
# these: the two lower curves are one. It is the batch of *one* time that the network has never seen: it removes from
# each channel just what showed the network how much noise there is. The error is a quarter larger at small $t$, and
# half as large again at large $t$.
#
# And what does it do to images? The same noise, drawn with the running moments; in training mode, eight at a time; and
# in training mode, each image alone.


# %%
def drawn_by(mode):
    """Eight images by the network as it is after its last step."""
    network, config = rebuilt("residual_unet"), zoo["residual_unet"].config
    duet.model.set_training(inside.layered(network), mode != "running moments")
    sampler = duet.sampling.Sampler(network, config, quick(config.diffusion))
    count = 1 if mode == "training mode, alone" else 8  # at a time
    return np.concatenate([sampler.draw(Draw(0, first, count), lambda i, x: None) for first in range(0, 8, count)])


WAYS = ("running moments", "training mode, eight", "training mode, alone")
drawings = {mode: drawn_by(mode) for mode in WAYS}
show_images(np.concatenate(list(drawings.values())), 8, rows=WAYS, title=f"{duet.name}: the same noise, three times")
for mode, images in drawings.items():
    pixels = images / 127.5 - 1
    print(f"{mode:>20}: mean {pixels.mean():.2f}, deviation {pixels.std():.2f} (training images: ", end="")
    print(f"{(train.images / 127.5 - 1).mean():.2f}, {(train.images / 127.5 - 1).std():.2f})")

# %% [markdown]
# *What to see:* in training mode everything is grey. Each step is a little off in the same direction, and small errors
# of one sign add up to a wrong mean and too small a deviation. Alone, an image looks different again, as it has no
# company to be normalised with. With the running moments the images have black paper and white clothes.
#
# So with BatchNorm: store the buffers, *copy* them into the averaged network (do not average them, they are averages
# already), switch to the running moments before you validate or draw, and do not judge by a batch. Or take a
# normalisation that knows one image only, as `unet` and `dit` do: this is one reason
# why most networks for diffusion do.
#
# ## Checkerboards
#
# The way up doubles the size. A **transposed convolution** of stride 2 does it by letting each pixel add its kernel,
# multiplied with its value, to the output, two pixels further each time. How many kernels meet at a pixel of the
# output? Take a kernel of ones, an image of ones, and count.
#
# > **Predict before you run.** With a kernel of 3 and a stride of 2, along one line: how many kernels reach an even
# > pixel, how many an odd one? And in two dimensions? With a kernel of 4?


# %%
def overlap(count, kernel):
    """How many kernels reach each pixel of a line, where `count` pixels become twice as many."""
    line = np.zeros(2 * count + kernel)
    for i in range(count):
        line[2 * i : 2 * i + kernel] += 1
    return line[1 : 1 + 2 * count]  # what the padding of 1 leaves


COUNT = 8
lines = {"transposed, k3 s2": overlap(COUNT, 3), "transposed, k4 s2": overlap(COUNT, 4)}
maps = {name: np.outer(line, line) for name, line in lines.items()}
ones = np.pad(np.ones(2 * COUNT), 1)  # repeated pixels of ones, with the zeros that a convolution pads
line = ones[:-2] + ones[1:-1] + ones[2:]
maps["repeated, then 3 x 3"] = np.outer(line, line)
figure, places = plt.subplots(1, 3, figsize=(8.5, 3.1))
for place, (name, counts) in zip(places, maps.items(), strict=True):
    image = place.imshow(counts / counts.max(), cmap="viridis", vmin=0, vmax=1)
    place.set(title=name, xticks=[], yticks=[])
    place.grid(False)
    inner = counts[2:-2, 2:-2]
    print(f"{name:>20}: inside, each pixel is a sum of {' or '.join(str(int(n)) for n in np.unique(inner))} terms")
figure.colorbar(image, ax=places, label="terms, of the most", shrink=0.8)
plt.show()

# %% [markdown]
# *What to see:* with k3 s2 every fourth pixel is a sum of four terms, every fourth of one, and the others of two: a
# **checkerboard**, before anything is learned (Odena et al. 2016). A kernel that is a multiple of the stride, k4 s2,
# covers evenly; repeated pixels and a convolution do, too. Both have a dark rim, where the image ends.
#
# A network can learn to balance the terms. Does it? Take the layer that doubles from 14 to 28 in three of the trained
# networks, and look at the mean square of its output, over channels and images, at each pixel; and then at the error of
# the whole network.
#
# > **Predict before you run.** Will the pattern still be there after training? And in the prediction itself, after two
# > or three more convolutions?

# %%
DOUBLING = {
    "residual_unet": ("up.2", "k3 s2"),
    "simple_unet": ("up.1", "k4 s2"),
    "unet": ("up.2", "repeated"),
}


def phases(values):
    """The mean of [28, 28] numbers at even or odd rows and even or odd columns, the rim left out: four numbers."""
    return np.array([values[2 + i : -2 : 2, 2 + j : -2 : 2].mean() for i in (0, 1) for j in (0, 1)])


figure, places = plt.subplots(2, 3, figsize=(8.5, 5.6))
for column, (name, (layer, how)) in enumerate(DOUBLING.items()):
    network = ready[name]
    outputs = {
        "output of the layer": inside.activations(duet, network, x_300, all_300)[layer],
        "error of the prediction": inside.ask(duet, network, x_300, all_300) - eps,
    }
    for place, (what, values) in zip(places[:, column], outputs.items(), strict=True):
        squares = (values**2).mean((0, 3))  # [28, 28]
        four = phases(squares)
        place.imshow(squares / squares.mean(), cmap="viridis", vmin=0, vmax=2.5)
        place.set(title=f"{name}, {how}" if place is places[0, column] else "", xticks=[], yticks=[])
        place.grid(False)
        rows = ", ".join(f"{part:.2f}" for part in four / four.mean())
        print(
            f"{name:>14}, {how:>8}, {what:>23}: {rows}: the largest is {four.max() / four.min():.2f} times the smallest"
        )
for place, what in zip(places[:, 0], outputs, strict=True):
    place.set_ylabel(what)
figure.suptitle("Mean square at each pixel, of its mean (t = 300)")
plt.show()

# %% [markdown]
# *What to see:* the pattern has outlived training. Inside the image, k3 s2 gives one kind of pixel more than twice
# the mean square of another; k4 s2 has a trace of it, repeated pixels none. **But in the prediction it is gone:** the
# numbers are within a few hundredths of 1 for all three. `residual_unet` has three more convolutions at 28 x 28,
# which mend it. Mending costs weights and training, and it can only be done where something follows: a network that
# *ends* in a transposed convolution of k3 s2 shows its checkerboard to everybody. (The bright and dark rims are the
# zeros of the padding.)
#
# ## How far does it look?
#
# Which pixels of $x_t$ have a say in one pixel of the prediction? The gradient of that pixel by all of $x_t$ tells; it
# is zero where there is no way from one to the other. The part where it is not zero is the **receptive field**.
#
# > **Predict before you run.** How many pixels has the field of `denoise_net`? Which networks see the whole image? And
# > of those, which get the most from far away?

# %%
CENTRE = (14, 14)
rows, columns = np.mgrid[:28, :28]
far = np.maximum(abs(rows - CENTRE[0]), abs(columns - CENTRE[1])) > 3  # outside the 7 x 7 around it
SEEING = [name for name in zoo if name != "denoise_net, no time"]
figure, places = plt.subplots(2, 3, figsize=(8.5, 5.6))
for place, name in zip(places.flat, SEEING, strict=True):
    total = np.zeros((28, 28))
    for i in (bag, *others[:3]):
        found = inside.gradient(
            duet, inside.layered(ready[name]), noisy(shown[i : i + 1], eps[i : i + 1], [300]), [300], CENTRE
        )
        total += np.abs(found[0, :, :, 0]) / 4
    image = place.imshow(np.log10(total / total.max() + 1e-12), cmap="viridis", vmin=-4, vmax=0)
    place.set(title=name, xticks=[], yticks=[])
    place.grid(False)
    print(
        f"{name:>16}: {(total > 0).sum():>3} of 784 pixels have a say; outside of 7 x 7 is "
        f"{total[far].sum() / total.sum():.0%} of all"
    )
figure.colorbar(image, ax=places, label="log10 of the gradient, of the largest", extend="min", shrink=0.8)
figure.suptitle("What the pixel in the middle of the prediction depends on, t = 300")
plt.show()

# %% [markdown]
# *What to see:* `denoise_net` sees 5 x 5 pixels and nothing else, the others all 784. But "has a say" is not much: in
# all of them the pixel itself counts most, and its neighbours next. `unet` looks along its row and its column. `dit`
# sees its own patch sharply, and then other patches as wholes; its field has corners. Two levels of stride 2 and a few
# convolutions are enough for `simple_unet` to reach the rim, though faintly.
#
# And BatchNorm in training? Then there is a way from one image to another. Here are two images of a batch, and the
# gradient of *the first image's* pixel by both:

# %%
pair = [bag, int(others[0])]
for mode in ("training", "running moments"):
    network = inside.layered(rebuilt("residual_unet"))
    duet.model.set_training(network, mode == "training")
    found = inside.gradient(duet, network, noisy(shown[pair], eps[pair], [300, 300]), [300, 300], CENTRE)
    own, other = (np.abs(found[i]).sum() for i in (0, 1))
    print(f"{mode:>16}: of the gradient, {other / (own + other):.1%} belongs to the other image")

# %% [markdown]
# ## A transformer of patches
#
# `dit` has no convolution at all. It cuts the image into patches, makes each a **token**, a vector of $D$ numbers, adds
# the place of the patch to it, and lets transformer blocks do the rest. Three things in it are worth a closer look.
#
# ### The order in a patch
#
# A patch of $P \times P$ pixels and $C$ channels is a list of $P P C$ numbers. In which order? A convolution of stride
# $P$ in PyTorch, which many codes use for it, reads $(c, p, q)$; one in Keras reads $(p, q, c)$. Here it is one
# explicit reshape in both trees:

# %%
side_by_side("networks/dit", "patches")

# %% [markdown]
# > **Predict before you run.** The tokens of a colour image are read back in the wrong order. What does one see? And
# > what of a grey image?

# %%
emoji, _ = datasets.load("emoji")  # a colour data set that is in the package
chosen = emoji.images[np.linspace(0, len(emoji.images) - 1, 6).astype(int)] / 127.5 - 1  # [6, 32, 32, 3]
SIDE = 4


def read_back(images, order):
    """Images that were cut into tokens as the trees do, and are put together again in some order."""
    tokens = duet.networks.dit.patches(duet.data.to_tensor(images), SIDE).numpy()  # [B, N, P*P*C]
    count, size, channels = len(images), images.shape[1] // SIDE, images.shape[3]
    if order == "(c, p, q)":
        cut = tokens.reshape(count, size, size, channels, SIDE, SIDE).transpose(0, 1, 4, 2, 5, 3)
    else:
        cut = tokens.reshape(count, size, size, SIDE, SIDE, channels)
        axes = {"(p, q, c)": (0, 1, 3, 2, 4, 5), "(q, p, c)": (0, 1, 4, 2, 3, 5), "patches down": (0, 2, 3, 1, 4, 5)}
        cut = cut.transpose(axes[order])
    return cut.reshape(images.shape)


ORDERS = ("(p, q, c)", "(c, p, q)", "(q, p, c)", "patches down")
show_images(
    np.concatenate([read_back(chosen, order) for order in ORDERS]),
    len(chosen),
    rows=ORDERS,
    title=f"Tokens of {SIDE} x {SIDE} pixels, put together in four orders",
)
for order in ORDERS:
    colour, grey = (np.abs(read_back(images, order) - images).max() for images in (chosen, shown[:6]))
    print(f"{order:>12}: off by {colour:.2f} at most in colour, by {grey:.2f} in grey")

# %% [markdown]
# *What to see:* the wrong $(c, p, q)$ mixes the colours of each patch, and with one channel it is **no mistake at
# all**: whoever tests on Fashion-MNIST finds it when the first colour picture comes. $(q, p, c)$ lays each patch on its
# side: a picture behind ribbed glass. The last has the patches right and their places wrong.
#
# Does a network that is trained with another order learn less? No: the first layer can learn any order as well as any
# other. It matters when **weights** go from one framework to another.
#
# ### The identity at the start
#
# Each block adds two things to its tokens, and each is multiplied by a **gate** that is made of time and label by a
# layer that begins at zero ("adaLN-zero", Peebles and Xie 2023). So before training a block of any depth does nothing:

# %%
fresh = duet.model.make_network(small("dit"), seed=0)
places = duet.networks.dit.positions(7, 7, 64).numpy()
for state, network in (("fresh", fresh), ("trained", ready["dit"])):
    seen = inside.activations(duet, network, x_300, all_300)
    tokens = seen["patch_in"] + places.astype(np.float32)
    for number in range(3):
        after = seen[f"blocks.{number}"]
        change = np.sqrt(np.mean((after - tokens) ** 2) / np.mean(tokens**2))
        print(f"{state:>8}: block {number} changes its tokens by {change:.1%} of their size")
        tokens = after
    print(f"{'':>8}  and the prediction is of size {np.sqrt(np.mean(seen['out'] ** 2)):.2f}")

# %% [markdown]
# *What to see:* a fresh `dit` predicts 0, and its blocks change nothing; after 200 steps each block changes its tokens
# by a good part of their size. A deep network that begins as the identity can be trained from the first step on,
# since the gradient comes through all blocks as if they were not there.
#
# ### The heads
#
# Attention with several **heads** cuts the channels of $q$, $k$ and $v$ into ranges, and lets each range attend on its
# own. Where do the heads of the trained `dit` look? Below, the weights of one token in the middle, on the 7 x 7 patches
# of the bag.

# %%
HEADS = 4
seen = inside.activations(duet, ready["dit"], noisy(shown[bag : bag + 1], eps[bag : bag + 1], [100]), [100])


def head_weights(seen, block, order="heads first"):
    """The attention weights [heads, 49, 49] of a block, the channels cut in one of two orders."""
    q, k = (seen[f"blocks.{block}.attention.{role}"][0] for role in ("query", "key"))  # [49, D]
    if order == "heads first":  # (heads, D / heads): a head's channels stand together
        q, k = (y.reshape(49, HEADS, -1).transpose(1, 0, 2) for y in (q, k))
    else:  # (D / heads, heads): they take turns
        q, k = (y.reshape(49, -1, HEADS).transpose(2, 0, 1) for y in (q, k))
    return networks.softmax(q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[2]))


TOKEN = 24  # in the middle
figure, places = plt.subplots(3, HEADS + 1, figsize=(8.5, 5.4))
for block, line in enumerate(places):
    weights = head_weights(seen, block)
    line[0].imshow(noisy(shown[bag : bag + 1], eps[bag : bag + 1], [100])[0, :, :, 0], cmap="gray", vmin=-1.5, vmax=1.5)
    line[0].set_ylabel(f"block {block}")
    line[0].add_patch(plt.Rectangle((11.5, 11.5), 4, 4, fill=False, edgecolor="C1", linewidth=2))
    for head, place in enumerate(line[1:]):
        image = place.imshow(weights[head, TOKEN].reshape(7, 7), cmap="viridis", vmin=0, vmax=0.1)
        if block == 0:
            place.set_title(f"head {head}", fontsize=10)
    for place in line:
        place.set(xticks=[], yticks=[])
        place.grid(False)
    wrong = head_weights(seen, block, "turns")
    most = ", ".join(f"{m:.3f}" for m in weights.max(2).mean(1))
    print(f"block {block}: a row's largest weight, by head: {most} (equal ones: {1 / 49:.3f})", end="; ")
    print(f"cut in the other order, weights are off by up to {np.abs(wrong - weights).max():.2f}")
figure.colorbar(image, ax=places, label="weight", extend="max", shrink=0.7)
figure.suptitle("Where the patch in the frame looks, t = 100")
plt.show()

# %% [markdown]
# *What to see:* the heads differ. In the first block they look along an edge or at one side; in the second, three
# of four look at the bright body of the bag below the patch, where something can be learned of its edge. No head
# was taught that: each has only its own quarter of the channels.
#
# **Cut the channels in the other order**, so that the heads take turns (head 0 has the channels 0, 4, 8 ...), and every
# shape is right and every weight is wrong. Both orders are in use. A network that is *trained* with either is fine; a
# network that is moved from one to the other is not.
#
# ## What breaks when it is ported
#
# Now be the one who ports. Here are three copies of the trained `residual_unet`, each with one fault that was taken
# from life. They have the right shapes, and all of them run.
#
# * **A**: BatchNorm's epsilon is Keras' 1e-3.
# * **B**: the parameters were copied, the buffers were not: the running moments are those of the start, 0 and 1.
# * **C**: the kernels of the first transposed convolution came over with height and width exchanged.
#
# > **Predict before you run.** Which of them raise the loss so much that one would notice? And at which layer would
# > each be found by comparing with the original, layer by layer?

# %%
layers = duet.networks.layers
kernel = "model/up.0.conv.weight"
started = {
    name: np.zeros_like(value) if name.endswith("mean") else np.ones_like(value)
    for name, value in tensors.items()
    if name.startswith("buffers/")
}
PORTS = {
    "original": ({}, layers.BATCH_NORM_EPS),
    "A: epsilon": ({}, 1e-3),
    "B: buffers": (started, layers.BATCH_NORM_EPS),
    "C: kernel": ({kernel: tensors[kernel].swapaxes(2, 3)}, layers.BATCH_NORM_EPS),
}
answers, losses = {}, {}
ours = layers.BATCH_NORM_EPS
for port, (changed, epsilon) in PORTS.items():
    network = rebuilt("residual_unet", changed)
    layers.BATCH_NORM_EPS = epsilon  # as if the file said so
    try:
        answers[port] = inside.activations(duet, network, x_300, all_300)
        losses[port] = np.mean([loss_at(network, t) for t in TIMES])
    finally:
        layers.BATCH_NORM_EPS = ours

order = list(answers["original"])  # as the layers are computed
figure, axes = plt.subplots(figsize=(8.5, 3.6))
for (port, found), marker in zip(list(answers.items())[1:], "osv", strict=True):
    gaps = {
        name: np.abs(found[name] - answers["original"][name]).max()
        / max(np.abs(answers["original"][name]).max(), 1e-30)
        for name in order
    }
    first = next(name for name in order if gaps[name] > 1e-5)
    before = max(gaps[name] for name in order[: order.index(first)])
    axes.plot(range(len(order)), np.maximum(list(gaps.values()), 1e-8), marker, markersize=4, label=port)
    print(f"{port}: mean loss {losses[port]:.4f} (original {losses['original']:.4f})", end="; ")
    print(f"first gap above 1e-5 at {first}, {gaps[first]:.1e}; before it at most {before:.1e}")
axes.set(
    title="Gap to the original, by layer", xlabel="layer, as they are computed", ylabel="of the largest", yscale="log"
)
axes.legend()
plt.show()

# %% [markdown]
# *What to see:* A has the loss of the original up to the third digit, and no picture would show it. Its gap begins at
# the first BatchNorm, at two thousandths. B is a disaster at once, and begins at the same layer. C costs a tenth of the
# loss; a port that was trained a little further would hide it. Its gap begins exactly at the kernel. **The layer before
# the first gap is the last one that is right**: that is why one compares layers, and not losses. Within one framework
# the layers before are equal to the bit; across two of them they are some 1e-7 apart ([06](06_two_frameworks.ipynb)).
#
# `make parity` does this for every network of this notebook, in float64 and float32, and plants such faults to see
# whether it would notice ([docs/proof.md](../docs/proof.md)). And the networks of this notebook in their own sizes:
#
#     make train-torch ARGS="--preset residual-batchnorm --minutes 40"          # or train-tf
#     make train-torch ARGS="--network dit --minutes 20 --depth 4"
#     make train-torch ARGS="--preset two-convolutions --uses-time --minutes 3"
#
# ## Exercises
#
# Each has a check that tells you what is off.
#
# **1 · What BatchNorm remembers.** (easy) `x` [B, H, W, C] is what a BatchNorm was given in a step of training; `mean`
# and `variance` [C] are its running moments before. Return both after the step, as defined above: `momentum` is the
# weight of the new ones, and the batch's variance is the unbiased one.


# %%
def my_running_moments(x, mean, variance, momentum):
    """Return mean and variance, [C] each."""
    ...


check.running_moments(my_running_moments)

# %% [markdown]
# **2 · There and back.** (medium) Cut `x` [B, H, W, C] into patches of `side` x `side` pixels: tokens [B, N, P P C].
# The patches go along the rows, as one reads; and so do the pixels in a patch, each with its channels. Then the
# inverse, where `rows` says how many patches are above each other. Images need not be square.


# %%
def my_patches(x, side):
    """Return tokens."""
    ...


def my_images(tokens, side, rows):
    """Return images."""
    ...


check.patches((my_patches, my_images))

# %% [markdown]
# **3 · Half a block.** (harder) One half of an adaLN-zero block: $u + \text{gate} \cdot \text{layer}(\text{norm}(u)\,
# (1 + \text{scale}) + \text{shift})$. `tokens` is $u$, [B, N, D]; `shift`, `scale` and `gate` are [B, D], one of each
# for all tokens of an image. The norm is a LayerNorm without weights: each token for itself, with
# $\varepsilon = 10^{-6}$ under the root. `layer` takes and returns [B, N, D].


# %%
def my_block(tokens, shift, scale, gate, layer):
    """Return the tokens after it."""
    ...


check.adaptive_block(my_block)

# %% [markdown]
# ## Questions
#
# Think first, then unfold.
#
# <details><summary>The moving average of the weights is used for drawing. Should BatchNorm's buffers be averaged with
# the same decay?</summary> They are averages already, over the last ten batches or so (momentum 0.1). With a decay of
# 0.999 they would be those of a thousand steps ago, and would fit neither the weights of then nor those of now. Copy
# them. Exactly right would be to let some batches pass through the averaged network and measure its own
# moments.</details>
#
# <details><summary>A batch of one image, in training mode. What is BatchNorm then?</summary>
# The moments of a channel are taken over the pixels of that one image: it is InstanceNorm, a GroupNorm whose groups
# have one channel each. It depends on no other image, but the network was trained with something else.</details>
#
# <details><summary>Why does a sum of unequally many terms not simply disappear, when the kernel can learn?</summary>
# It can: k3 s2 can learn a kernel whose sums are even for a constant image, e.g. (1, 2, 1) / 2, which interpolates. But
# that is one kernel of many, nothing but the data asks for it, and gradients have the same pattern on their way
# back.</details>
#
# <details><summary>`denoise_net` without the time: what would it learn if all images were at the same t?</summary>
# The same as with the time. What it cannot learn is to be one denoiser for each t: its prediction is a mean over all
# the times at which its 5 x 5 pixels might be seen.</details>
#
# <details><summary>The parity suite compares both trees at the start and after a hundred steps. Why is the start alone
# not enough for dit?</summary>
# At the start every gate is 0, so a fault inside a block, say another epsilon or another order of the heads, is
# multiplied by 0 and cannot be seen. Weights must be random or trained.</details>
#
# ## What you have now
#
# | habit | where | what it costs | how to notice | what to do |
# |---|---|---|---|---|
# | BatchNorm | `networks.layers.BatchNorm`, `residual_unet` | an image depends on its batch; buffers; two modes | evaluate one image in two batches | store and copy the buffers, set the mode; or GroupNorm |
# | k3 s2 transposed | `networks.layers.TransposedConvolution` | checkerboards; one pixel off between frameworks | mean square by even and odd pixels | k4 s2, or repeat and convolve; crop by one rule |
# | no time | `denoise_net`, `--no-uses-time` | a factor of two at much noise | error by t | one linear layer |
# | time as a number | `simple_unet` | early times look alike | distances of the time's vectors | sinusoids |
# | random features | `transformer_unet`, `--fourier-scale` | a scale in another unit makes the times names | the same | periods per unit of *your* time |
# | a small field | `denoise_net` | no view of the whole | gradient of one pixel | levels, attention |
# | patches | `networks.dit.patches` | an order that grey images do not show | two channels, not square | one explicit reshape |
# | adaLN-zero | `networks.dit.DiTBlock` | faults that a fresh network hides | random weights | compare trained networks |
# | heads | `networks.layers.MultiHeadAttention` | an order that no shape shows | compare layers | heads first, and say so |
#
# Next: [12, your own pictures](12_your_own_pictures.ipynb): from a folder to samples.
