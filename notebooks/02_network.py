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
# # 02 · The network: a U-Net that knows the time
#
# **Afterwards you can** say what the network of a diffusion model is given and what it answers, walk an image through
# it from level to level, say what each of its parts is for and how many parameters it has, and read its attention.
#
# **Time:** 60 minutes. **You need:** [01, the forward process](01_forward_process.ipynb); what a convolution and a
# layer are.
#
# How a network is *trained* to its task is the matter of [03](03_objective.ipynb) and [04](04_training.ipynb). Here we
# take one that is trained already, the one in the package, and look at it from outside, and then inside.

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

from ddpm_course import inside
from ddpm_course.exercises import network as check
from ddpm_course.explore import explore
from ddpm_course.figures import show_images
from ddpm_shared import datasets
from ddpm_shared.config import PRESETS
from ddpm_shared.oracle import networks
from ddpm_shared.records import checkpoint

duet = begin(FRAMEWORK)

# %% [markdown]
# ## From outside
#
# The network is a function of a noisy image and its time, and its answer has the size of the image:
#
# $$\epsilon_\text{pred} = \epsilon_\theta(x_t, t), \qquad \epsilon_\theta:\ [B, 28, 28, 1] \times [B] \to [B, 28, 28, 1]$$
#
# One network for all times. It is to tell the noise $\epsilon$ that is in $x_t$. With a noise the image is told as
# well: $x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1 - \bar\alpha_t}\,\epsilon$ is solved for $x_0$ (`engine.predict_x_0`;
# Ho et al. 2020, eq. 15).

# %%
network, config = duet.trained()
schedule = duet.engine.make_schedule(config.diffusion)

_, test = datasets.load("fashion-mnist-10k")
pick = [int(np.argmax(test.labels == label)) for label in (8, 7, 0)]  # a bag, a sneaker, a T-shirt
bag, sneaker, shirt = duet.data.to_array(duet.data.to_images(test.images[pick], duet.utils.dtype("fp32")))
rng = np.random.default_rng(0)
eps = rng.standard_normal((1, 28, 28, 1))


def tensor(images):
    """NumPy [B, H, W, C] as a float32 tensor of the framework."""
    return duet.data.to_tensor(images.astype(np.float32))


def noisy(image, times):
    """An image [28, 28, 1] at several times, with the same noise: x_t, [B, 28, 28, 1]."""
    many = tensor(np.repeat(image[None], len(times), 0)), tensor(np.repeat(eps, len(times), 0))
    return duet.data.to_array(duet.engine.q_sample(schedule, many[0], duet.times(times), many[1]))


def image_of(x_t, times, eps_pred):
    """The x_0 that a noise implies, not clipped."""
    return duet.data.to_array(duet.engine.predict_x_0(schedule, tensor(x_t), duet.times(times), tensor(eps_pred)))


# %% [markdown]
# > **Predict before you run.** Below, a bag with more and more noise. Up to which $t$ will the network's $x_0$ be a
# > good bag? And is $\epsilon_\text{pred}$ closer to the truth at small $t$, where the image is clear, or at large $t$?

# %%
times = [0, 50, 100, 200, 300, 400, 600, 800, 999]
x_t = noisy(bag, times)
eps_pred = inside.ask(duet, network, x_t, times)
x_0_pred = image_of(x_t, times, eps_pred)
show_images(
    np.concatenate([x_t, np.repeat(eps, len(times), 0), eps_pred, x_0_pred]),
    len(times),
    titles=[f"t={t}" for t in times],
    rows=["x_t, given", "eps, in it", "eps_pred", "x_0 implied"],
    title="What the network says of a noisy bag",
    limits=(-2, 2),
)
for t, e, x in zip(times, eps_pred, x_0_pred, strict=True):
    error, off = np.sqrt(np.mean((e - eps[0]) ** 2)), np.sqrt(np.mean((x - bag) ** 2))
    print(f"t = {t:>3}: eps_pred is off by {error:.3f} (root mean square), the implied x_0 by {off:.3f}")

# %% [markdown]
# *What to see:* the noise is told ever better as $t$ grows, and the image ever worse. No contradiction: at large $t$
# nearly all of $x_t$ is noise, and to say $x_t$ again is a good guess of it; but what is still wrong is divided by a
# small $\sqrt{\bar\alpha_t}$. Up to $t = 300$ the image is this bag, with ever less detail; at 400 it is another bag, at
# 600 a blur, at 800 a stain; at 999 it is no image, only a small error of the noise, made large.
# [03](03_objective.ipynb) is about these errors.
#
# ## Why a U-Net
#
# The answer has to be right in each pixel: noise does not go on from one pixel to the next. But what is noise and what
# is cloth can only be told from further off: the same grey may belong on a bag and not beside it. So we want a network
# that looks at the image **coarsely** and **finely**. What is there to gain by looking coarsely? Average each 2 x 2
# pixels, and again: noise of standard deviation $s$ becomes $s / 2$ and $s / 4$, as independent numbers cancel; the
# image stays, as neighbours in it are alike.


# %%
def halved(images):
    """The mean of each 2 x 2 pixels: [B, H, W, C] -> [B, H/2, W/2, C]."""
    count, height, width, channels = images.shape
    return images.reshape(count, height // 2, 2, width // 2, 2, channels).mean((2, 4))


at = 300
a = float(schedule.alphas_cumprod.numpy()[at])
stack = np.stack([bag, noisy(bag, [at])[0], np.sqrt(a) * bag, np.sqrt(1 - a) * eps[0]])
levels = [stack, halved(stack), halved(halved(stack))]
large = [level.repeat(28 // level.shape[1], 1).repeat(28 // level.shape[2], 2) for level in levels]
show_images(
    np.stack([level[i] for i in (0, 1) for level in large]),
    3,
    titles=["28 x 28", "14 x 14", "7 x 7"],
    rows=["x_0", f"x_t, t = {at}"],
    title="Coarser and coarser",
    limits=(-1.5, 1.5),
)
for level in levels:
    image, noise = level[2].std(), level[3].std()
    print(
        f"{level.shape[1]:>2} x {level.shape[1]:<2}: standard deviation of the image in x_t {image:.2f}, "
        f"of the noise {noise:.2f}"
    )

# %% [markdown]
# *What to see:* at 28 x 28 the noise is stronger than the image, at 7 x 7 the image is stronger than the noise, and the
# dark and bright parts of the bag are left. Coarsely the network finds out *what* it sees; it needs the 28 x 28 to say
# *where* the noise is. Therefore (Ronneberger et al. 2015, and Ho et al. 2020, appendix B):
#
#     28 x 28   conv_in  down.0  ---------------- skips --------------->  up.5  up.6  up.7  conv_out
#     14 x 14        down.1  down.2  ------------ skips ----------->  up.2  up.3  up.4
#      7 x 7              down.3  down.4  ------- skips ------->  up.0  up.1
#                                     middle.0  middle.1
#
# On the way **down** images become smaller and channels more; on the way **up** it is the reverse; and at each size,
# what was computed on the way down is handed across to the way up, a **skip**: there it is laid beside, as further
# channels. Read the drawing down its left side and up its right: a U. These are the package's names of the parts, in
# both frameworks.
#
# ## The time
#
# A pixel that is 0.3 brighter than its neighbours belongs to the image at $t = 10$, and is most likely noise at
# $t = 300$ (the next cell prints how strong the noise is). So the network has to know $t$. But one number between 0 and
# 999 is a poor input: neighbouring times differ by a thousandth of its range. So it is spread out over $2n$ numbers,
# sines and cosines of rising wavelength (Vaswani et al. 2017), here $n = 16$:
#
# $$\text{emb}_i(t) = \sin(\omega_i t), \quad \text{emb}_{n + i}(t) = \cos(\omega_i t), \qquad \omega_i = 10000^{-i / (n - 1)},
# \quad i = 0 .. n - 1$$

# %%
every = np.arange(1000)
emb = duet.networks.layers.timestep_embedding(duet.times(every), config.model.base_channels).numpy()  # [1000, 32]
figure, axes = plt.subplots(figsize=(8, 3.8))
shown = axes.imshow(emb.T, aspect="auto", cmap="RdBu", vmin=-1, vmax=1, interpolation="nearest")
axes.axhline(15.5, color="black", linewidth=1)
axes.set(title="The timestep embedding: a time is a column", xlabel="t", ylabel="wave")
axes.set(yticks=[0, 8, 16, 24], yticklabels=["sine 0", "sine 8", "cosine 0", "cosine 8"])
axes.grid(False)
figure.colorbar(shown, label="value")
plt.show()
half = emb.shape[1] // 2
omega = 10000.0 ** (-np.arange(half) / (half - 1))
deviation = schedule.sqrt_one_minus_alphas_cumprod.numpy()
print(f"standard deviation of the noise: {deviation[10]:.2f} at t = 10, {deviation[300]:.2f} at t = 300")
print("wavelengths in steps:", " ".join(f"{2 * np.pi / w:.0f}" for w in omega))

# %% [markdown]
# *What to see:* the first waves flicker, one of them once in 6 steps, and tell neighbours apart; those in the middle
# turn a few times in 1000 steps, and tell early from late; the last ones hardly move, as their wavelengths go up to
# sixty thousand. Fast ones and slow ones, like the digits of a number, but without a digit's jumps.
#
# How far apart are two times for the network? The squared distance of two embeddings is a sum over the waves,
#
# $$\lVert \text{emb}(t) - \text{emb}(t') \rVert^2 = \sum_i 2 - 2 \cos\big(\omega_i (t - t')\big) ,$$
#
# so it depends on $t - t'$ alone.

# %%
distance = np.sqrt(((emb[:, None] - emb[None]) ** 2).sum(2))  # [1000, 1000]
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6))
near = slice(440, 601)
for t, dashes in ((480, "-"), (500, "--"), (560, ":")):
    left.plot(every[near], distance[t, near], dashes, label=f"from t = {t}")
left.set(title="How far other times are", xlabel="t'", ylabel="distance of the embeddings", ylim=(0, 6.5))
left.legend(loc="lower left", fontsize=9)
right.plot(every[1:], distance[0, 1:])
right.set(title="The same by the difference", xlabel="|t - t'|", xscale="log", ylim=(0, 6.5))
plt.show()
formula = np.sqrt((2 - 2 * np.cos(omega * every[:, None])).sum(1))
print(f"the formula and the measured distances from t = 0 differ by {np.abs(formula - distance[0]).max():.0e} at most")
print("distance of t = 0 from", ", ".join(f"{t}: {distance[0, t]:.2f}" for t in (1, 10, 100, 999)))

# %% [markdown]
# *What to see:* every time has a narrow valley of its own, the same for all: one step off is already clearly apart, ten
# steps are three times as far. From there on the distance ripples, as the fast waves come round again, and still rises
# slowly on the whole: the slow waves go on to tell early from late. And the valley has slopes: neighbouring times look
# alike to the network, so what it learns at one helps at the next.
#
# Two linear layers, `time_1` and `time_2`, then make 128 numbers of the 32. Every block of the network makes of these,
# by a linear layer of its own, one number for each of its channels, and adds it.
#
# **Does the network believe what it is told?** Take the shirt at $t = 300$, and lie about the time.
#
# > **Predict before you run.** Told that it is $t = 100$, so that there is little noise, what will the network leave in
# > the image? And told $t = 900$, what will it take away with the noise?

# %%
truth, told = 300, [10, 100, 200, 300, 400, 600, 900]
x_t = np.repeat(noisy(shirt, [truth]), len(told), 0)
eps_pred = inside.ask(duet, network, x_t, told)
rest = image_of(x_t, [truth] * len(told), eps_pred)  # the noise that was told, taken away as it should be
show_images(
    np.concatenate([eps_pred, rest]),
    len(told),
    titles=[f"told {t}" for t in told],
    rows=["eps_pred", "x_0 by it"],
    title=f"A shirt at t = {truth}, and lies about the time",
    limits=(-2, 2),
)
for t, e in zip(told, eps_pred, strict=True):
    error = np.sqrt(np.mean((e - eps[0]) ** 2))
    print(f"told t = {t:>3}: eps_pred is off by {error:.2f}")

# %% [markdown]
# *What to see:* it believes us. Told an early time, it takes the finest grain for noise, and the stains for a pattern
# of the shirt: they stay. Told a late one, it takes the shirt for noise as well: you see the shirt in `eps_pred`, and
# what is left of it is pale. The error is smallest where we told the truth, and grows to both sides.
#
# ## From level to level
#
# Now inside. `inside.activations` asks the network once more, and keeps what every layer answers. (PyTorch has hooks
# for this; Keras has none, so there the layers' `call` is replaced for a while: [inside.py](course/inside.py).) The
# network is that of the preset `small`.

# %%
seen = inside.activations(duet, network, noisy(bag, [at]), [at])
sizes = {name: int(np.prod(shape)) for name, shape in inside.shapes(duet, network).items()}
PARTS = {
    "conv_in": "convolution",
    "down.0": "residual block",
    "down.1": "convolution of stride 2",
    "down.2": "residual block",
    "down.3": "convolution of stride 2",
    "down.4": "residual block, attention",
    "middle.0": "residual block, attention",
    "middle.1": "residual block",
    "up.0": "residual block, attention",
    "up.1": "residual block, attention",
    "up.2": "pixels repeated, convolution",
    "up.3": "residual block",
    "up.4": "residual block",
    "up.5": "pixels repeated, convolution",
    "up.6": "residual block",
    "up.7": "residual block",
    "conv_out": "convolution",
}
kept = [name for name in PARTS if name.startswith(("conv_in", "down"))]  # what is handed across, in this order
handed = dict(zip((up for up in PARTS if up.startswith("up") and "residual" in PARTS[up]), reversed(kept), strict=True))
print(f"{'part':<10}{'what it is':<30}{'beside it':<11}{'answer':<16}{'numbers':>8}{'parameters':>12}")
for name, what in PARTS.items():
    shape = seen[name].shape[1:]
    weights = sum(size for parameter, size in sizes.items() if parameter.startswith(f"{name}."))
    size = " x ".join(map(str, shape))
    print(f"{name:<10}{what:<30}{handed.get(name, ''):<11}{size:<16}{np.prod(shape):>8,}{weights:>12,}")

# %% [markdown]
# Read the column *answer*: height x width x channels. Half the size is a quarter of the pixels, and the channels are
# doubled only: so the coarse parts hold fewer numbers on the whole. They have far more parameters, as a convolution has
# a kernel for every *pair* of channels, whatever the size of the image. The column *beside it* says whose answer is
# laid beside a block's input on the way up.
#
# The same as a drawing. It is made from a trace of the network, which is equal in both frameworks; `make graph` draws
# any network, and those of other kinds are on [their page](../docs/networks.md).
#
# ![A U of three levels, with a bridge from each box on the way down to one on the way up, and attention at the lowest level.](../docs/network-small.svg)


# %%
SHOWN = ["conv_in", "down.0", "down.2", "down.4", "middle.1", "up.1", "up.4", "up.7"]
maps = []
for name in SHOWN:
    channels = seen[name][0].transpose(2, 0, 1)  # [C, H, W]
    for channel in channels[:: len(channels) // 8][:8]:
        scaled = (channel - channel.mean()) / (2 * channel.std())
        maps.append(scaled.repeat(28 // len(scaled), 0).repeat(28 // len(scaled), 1)[..., None])
show_images(
    np.stack(maps), 8, rows=SHOWN, title=f"A bag at t = {at}: eight channels of each, black and white at two deviations"
)

# %% [markdown]
# *What to see:* the first two rows have all the grain; each channel keeps another part of it, upright or lying or
# slanted strokes, and in some you see the bag. The second is much like the first, as a block adds to its input. In the
# rows of 7 x 7 the grain is gone: each channel marks some region of the scene. On the way up detail comes back, and the
# last row is fine strokes again, from which `conv_out` puts the noise together.
#
# ## What the skips are for
#
# Is it the skips that carry the fine part? Cut them: set to zero the weights by which the blocks on the way up read
# what was handed across, at one level at a time. Nothing else is changed, and nothing is trained again, so this shows
# what *this* network relies on, not what one without skips could learn.
#
# > **Predict before you run.** Which cut is worst for the answer, at 28 x 28, at 14 x 14 or at 7 x 7? And what will
# > $\epsilon_\text{pred}$ look like without the finest ones?


# %%
loaded = checkpoint.load(checkpoint.BOXED, ("ema",))


def without_skips(size):
    """The trained network, with nothing handed across at the level of this size."""
    tensors = dict(loaded.tensors)
    for name, source in handed.items():
        if seen[name].shape[1] == size:
            width = seen[source].shape[3]  # these come last
            for layer in ("conv_1", "skip"):
                key = f"ema/{name}.residual.{layer}.weight"
                tensors[key] = tensors[key].copy()  # [out, in, height, width]
                tensors[key][:, -width:] = 0
    return duet.model.load(dataclasses.replace(loaded, tensors=tensors), "ema", config)


times = [50, 200, 400, 600, 800]
x_t = noisy(bag, times)
answers = {"none cut": inside.ask(duet, network, x_t, times)}
answers |= {f"cut at {size} x {size}": inside.ask(duet, without_skips(size), x_t, times) for size in (7, 14, 28)}
show_images(
    np.concatenate(list(answers.values())),
    len(times),
    titles=[f"t={t}" for t in times],
    rows=list(answers),
    title="eps_pred with and without skips",
    limits=(-2, 2),
)
for name, answer in answers.items():
    errors = np.sqrt(np.mean((answer - eps) ** 2, axis=(1, 2, 3)))
    print(f"{name:>13}: off by", ", ".join(f"{e:.2f} at t = {t}" for t, e in zip(times, errors, strict=True)))

# %% [markdown]
# *What to see:* without the skips at 28 x 28 there is no grain in the answer at all: all grain went that way. What
# comes from below is smooth: at small $t$ the bag, dark where it is bright, as noise is what is left when the image is
# taken away from $x_t$. So the coarse part says what to subtract, and the skip brings what to subtract it from. The cut
# at 14 x 14 costs far less, and the one at 7 x 7 hardly anything: down there, the way through the middle has the same
# size, and can carry the same.
#
# ## The parts
#
# ### The residual block
#
# $$h = \text{conv}_1(\text{silu}(\text{norm}_1(x))) + \text{time}(\text{emb}), \qquad
# y = \text{skip}(x) + \text{conv}_2(\text{silu}(\text{norm}_2(h)))$$
#
# Two convolutions of 3 x 3, each after a normalisation and the activation $\text{silu}(x) = x\,\sigma(x)$; between them
# the time is added, the same 32, 64 or 128 numbers (one a channel) in every pixel. The input itself is added at the end
# (through a 1 x 1 convolution where the number of channels changes), so the block has to learn only what is to be
# *changed* in $x$. And it starts by changing nothing:

# %%
fresh = duet.model.make_network(config, seed=0)
start = inside.activations(duet, fresh, noisy(bag, [at]), [at])
for block, given in (("down.0", "conv_in"), ("middle.1", "middle.0")):
    untrained = np.abs(start[f"{block}.residual"] - start[given]).max()
    trained = np.sqrt(np.mean((seen[f"{block}.residual"] - seen[given]) ** 2) / np.mean(seen[given] ** 2))
    print(f"{block}: untrained, it changes its input by {untrained} at most; trained, by {trained:.0%} of its size")
print(f"the untrained network's answer: {start['conv_out'].min():.0f} to {start['conv_out'].max():.0f}")

# %% [markdown]
# The last convolution of every block, and of the network, begins at zero (Ho et al.'s code does the same). So the
# untrained network answers 0, whatever it is given, and training sets out from there.
#
# ### GroupNorm
#
# Layers learn best if their inputs have about mean 0 and variance 1. GroupNorm (Wu and He 2018) makes them so: it takes
# a group of channels of *one* image, over all pixels, subtracts their mean and divides by their standard deviation;
# then each channel is scaled and shifted by a learnt number. No other image of the batch matters, so an image's answer
# does not depend on its company. By hand, for the first one:

# %%
x, groups = seen["conv_in"], config.model.num_groups  # [1, 28, 28, 32]
split = x.reshape(1, 28 * 28, groups, -1)
mean, variance = split.mean((1, 3), keepdims=True), split.var((1, 3), keepdims=True)
normal = ((split - mean) / np.sqrt(variance + duet.networks.layers.GROUP_NORM_EPS)).reshape(x.shape)
scale, shift = (loaded.tensors[f"ema/down.0.residual.norm_1.{name}"] for name in ("weight", "bias"))
by_hand = normal * scale + shift
deviation = np.sqrt(variance)
print(f"before: means of the {groups} groups {mean.ravel().round(2)}, standard deviations {deviation.ravel().round(2)}")
print(f"normalised: mean {normal.mean():.3f}, standard deviation {normal.std():.3f}")
gap = np.abs(by_hand - seen["down.0.residual.norm_1"]).max()
print(f"by hand and in {duet.name}: {gap:.0e} apart")

# %% [markdown]
# ### Attention at 7 x 7
#
# A convolution sees its neighbours. Attention lets every pixel look at *every* other, and choose at whom (Vaswani et
# al. 2017, eq. 1). Each of the 49 coarse pixels has 128 channels, and makes three vectors of them, each by a linear
# layer after a GroupNorm: a query $q$, what it looks for; a key $k$, by which it is found; a value $v$, what it tells.
#
# $$w_{ij} = \text{softmax}_j\!\left(\frac{q_i \cdot k_j}{\sqrt C}\right), \qquad
# y_i = x_i + \text{project}\Big(\sum_j w_{ij}\, v_j\Big)$$
#
# Row $i$ of $w$ says how pixel $i$ spreads its attention, and sums to 1. At 28 x 28 there would be 784 x 784 of these
# weights, at 7 x 7 there are 49 x 49: one more reason to do it where the image is small. Here are the rows of some
# pixels, in each of the four places where this network attends.

# %%
ATTENDING = [name for name, what in PARTS.items() if "attention" in what]


def attention(seen, name):
    """The weights w [49, 49] in one of the blocks."""
    q, k = (seen[f"{name}.attention.{role}"][0] for role in ("query", "key"))  # [49, 128]
    return networks.softmax(q @ k.T / np.sqrt(q.shape[1]))


looked = inside.activations(duet, network, noisy(sneaker, [150]), [150])


def at_pixel(pixel):
    """Whom one of the 49 pixels of the sneaker attends to."""
    row, column = divmod(pixel, 7)
    figure, axes = plt.subplots(1, 5, figsize=(9, 2.2))
    axes[0].imshow(noisy(sneaker, [150])[0, ..., 0], cmap="gray", vmin=-1.5, vmax=1.5)
    axes[0].set_title("x_t, t = 150")
    for place, name in zip(axes[1:], ATTENDING, strict=True):
        shown = place.imshow(attention(looked, name)[pixel].reshape(7, 7), cmap="viridis", vmin=0, vmax=0.15)
        place.set_title(name)
    for place, size in zip(axes, (4, 1, 1, 1, 1), strict=True):
        corner = column * size - 0.5, row * size - 0.5
        place.add_patch(plt.Rectangle(corner, size, size, fill=False, edgecolor="C1", linewidth=2))
        place.set(xticks=[], yticks=[])
        place.grid(False)
    figure.colorbar(shown, ax=axes, label="weight", extend="max", shrink=0.8)
    figure.suptitle(f"Whom pixel ({row}, {column}) looks at")
    plt.show()


explore("pixel", range(49), at_pixel, shown=[3, 30, 38])
for name in ATTENDING:
    w = attention(looked, name)
    print(
        f"{name:>8}: a row's largest weight {w.max(1).mean():.3f} on average (equal ones: {1 / 49:.3f}), "
        f"its own {np.diag(w).mean():.3f}"
    )

# %% [markdown]
# *What to see:* the pixel at the top, above the shoe, looks along the top in the first block, and in the second at the
# bottom, across the whole image; one at the lower edge of the sole looks along that edge; one below the shoe looks at
# the background above it first, and then mostly along its own row. No convolution of 3 x 3 does that in one step. And
# they choose: a row's largest weight is nine to eighteen times what equal ones would be. (A weight says where a pixel
# looks, not what it makes of it.) If your notebook is running, move the slider.
#
# ## How far one pixel reaches
#
# Change one pixel of $x_t$, in the middle, by 1, and see what moves inside. A convolution of 3 x 3 carries the change
# one pixel further; so after `conv_in` it can have reached 3 x 3 pixels, after `down.0`, with two more convolutions, 7
# x 7.
#
# > **Predict before you run.** Will *anything* outside the 7 x 7 pixels have moved after `down.0`?

# %%
before = noisy(bag, [at])
after = before.copy()
after[0, 14, 14, 0] += 1.0
PLACES = ["conv_in", "down.0", "down.2", "down.4.residual", "down.4", "conv_out"]
changed = inside.activations(duet, network, after, [at])
figure, axes = plt.subplots(1, len(PLACES), figsize=(9.5, 2.3))
for place, name in zip(axes, PLACES, strict=True):
    moved = np.abs(changed[name] - seen[name])[0].max(2)  # [H, W], the channel that moves most
    moved /= moved.max()
    shown = place.imshow(np.log10(moved + 1e-9), cmap="viridis", vmin=-4, vmax=0, extent=(0, 28, 28, 0))
    place.set(title=name, xticks=[0, 14, 28], yticks=[])
    place.title.set_size(10)
    place.grid(False)
    tenth, thousandth = (int((moved > part).sum()) for part in (0.1, 0.001))
    print(
        f"{name:>15}: of {moved.size} pixels, {tenth} move by a tenth of the most or more, {thousandth} by a thousandth"
    )
    if name == "down.0":
        beyond = moved.copy()
        beyond[11:18, 11:18] = 0
        print(f"{'':>15}  outside the 7 x 7 pixels, by {beyond.max():.4f} of the most at most")
most = divmod(int(moved.argmax()), 28)
print(f"the pixel of the answer that moves most: {most}")
axes[0].set(ylabel="row of x_t", yticks=[0, 14, 28])
figure.supxlabel("column of x_t", fontsize=11)
figure.colorbar(shown, ax=axes, label="log10, of the most", shrink=0.8, extend="min")
figure.suptitle("What moves when the pixel in the middle does")
plt.show()

# %% [markdown]
# *What to see:* after `conv_in` exactly 3 x 3 pixels. After `down.0`, 7 x 7 bright ones, and around them everything has
# moved a little: that is GroupNorm, whose mean and deviation are taken over all pixels. At 7 x 7 about half of the
# pixels move by a tenth of the most or more, and all of them by a thousandth: two steps down, a kernel of 3 x 3 covers
# 12 x 12 pixels of the image. The answer as a whole is another matter: no pixel of it moves by a tenth as much as the
# changed one itself; a cross and a scatter around it move far less. So the noise of a pixel is told by that pixel first
# of all, and a little by everybody else.
#
# ## Where the parameters are
#
# > **Predict before you run.** Of the 2.7 million parameters of `small`, what share do you expect in the convolutions,
# > in attention, in all that concerns the time?


# %%
def kind(name):
    """What a parameter is for."""
    if "attention" in name:
        return "attention"
    if "time" in name:
        return "time"
    return "GroupNorm" if "norm" in name else "convolutions"


KINDS = ("convolutions", "attention", "time", "GroupNorm")
counts = {}
for preset in ("tiny", "small", "base", "large"):
    model = PRESETS[preset]
    found = inside.shapes(duet, duet.model.make_network(dataclasses.replace(config, model=model)))
    counts[preset] = {which: sum(int(np.prod(s)) for n, s in found.items() if kind(n) == which) for which in KINDS}
    total = sum(counts[preset].values())
    shares = ", ".join(f"{which} {count / total:.1%}" for which, count in counts[preset].items())
    print(f"{preset:>6}: {total:>10,} parameters: {shares}")

sizes_of = {28: "28 x 28", 14: "14 x 14", 7: "7 x 7"}
held, owned = dict.fromkeys(sizes_of, 0), dict.fromkeys(sizes_of, 0)
for name in PARTS:
    held[seen[name].shape[1]] += seen[name].size
    owned[seen[name].shape[1]] += sum(size for parameter, size in sizes.items() if parameter.startswith(f"{name}."))

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
bottom = np.zeros(len(counts))
for which, hatch in zip(KINDS, ("", "//", "..", "xx"), strict=True):
    share = np.array([counts[preset][which] / sum(counts[preset].values()) for preset in counts])
    left.bar(list(counts), share, bottom=bottom, label=which, hatch=hatch, edgecolor="white")
    bottom += share
left.set(title="Parameters by what they are for", ylabel="share of the parameters", axisbelow=True)
left.legend(loc="lower left", fontsize=9, framealpha=1)
middles = np.arange(len(sizes_of))
for shift, (what, values), hatch in zip(
    (-0.2, 0.2), (("parameters", owned), ("numbers in the answers", held)), ("", "//"), strict=True
):
    share = [values[size] / sum(values.values()) for size in sizes_of]
    right.bar(middles + shift, share, 0.4, label=what, hatch=hatch, edgecolor="white")
    print(f"{what}:", ", ".join(f"{part:.0%} at {name}" for part, name in zip(share, sizes_of.values(), strict=True)))
right.set(title="Preset small: where they are", ylabel="share", axisbelow=True)
right.set_xticks(middles, sizes_of.values())
right.legend(fontsize=9)
plt.show()

# %% [markdown]
# *What to see:* about six parameters in seven are in convolutions, in every preset; GroupNorm's are too few to be seen.
# Right: most parameters are at 7 x 7, and most of the numbers that the network computes are at 28 x 28. Memory and time
# go to the fine levels, knowledge has its room in the coarse ones.
#
# ## Exercises
#
# Each has a check that tells you what is off. Write your answer in place of the dots.
#
# **1 · The embedding of a time.** (easy) In NumPy: `t` is an array [B], the result is [B, dim], first the sines, then
# the cosines.


# %%
def my_timestep_embedding(t, dim):
    """Your answer."""
    ...


check.timestep_embedding(my_timestep_embedding)

# %% [markdown]
# **2 · The parameters of a residual block.** (medium) Count them by the formula of the block, above. All three
# convolutions and the linear map of the time, from `time_channels` numbers, have biases; skip is there only if the
# number of channels changes; a GroupNorm has a scale and a shift for each channel. The check asks for every kind of
# block in the trained network.


# %%
def my_residual_parameters(in_channels, out_channels, time_channels):
    """Your answer."""
    ...


check.residual_parameters(my_residual_parameters)

# %% [markdown]
# **3 · Attention.** (harder) One head, in NumPy: `q`, `k` and `v` are [B, N, C], N pixels of B images, and so is the
# result, $\sum_j w_{ij} v_j$. Write the softmax yourself, and so that it holds for scores of a thousand. The answer is
# compared with the float64 oracle of this repository.


# %%
def my_attention(q, k, v):
    """Your answer."""
    ...


check.attention(my_attention)

# %% [markdown]
# ## Questions
#
# Think first, then unfold.
#
# <details><summary>Why is there no attention at 28 x 28?</summary>
# Every pixel looks at every other: 784 x 784 = 614,656 weights for each image, against 49 x 49 = 2,401 at 7 x 7, that
# is 256 times as many. And what is worth finding far away, such as the other end of a sole, is there at 7 x 7 as
# well.</details>
#
# <details><summary>The keys have no bias, the queries have one. Why does a bias of the keys change nothing?</summary>
# It would add q_i · b to every score of row i, the same number for all j, and a softmax does not see what is added to
# all. Its gradient would be rounding noise, which Adam would divide by its own size: the bias would wander, differently
# in each framework.</details>
#
# <details><summary>What would go wrong with BatchNorm instead of GroupNorm?</summary>
# It takes mean and variance over the images of a batch. In training these have all kinds of t, in sampling all the same
# t, and so other means; and an image's answer would depend on which others are drawn with it.</details>
#
# <details><summary>Could the same weights work on images of 32 x 32?</summary>
# They would fit: convolutions, GroupNorm, and attention have no parameter for a size, and 32 halves to 16 and 8. (The
# package's network fixes the sizes on the way up by its config.) Whether the answer is any good is another matter, as
# it has only seen images of 28 x 28.</details>
#
# ## What you have now
#
# | here | in the code | in Ho et al. 2020 |
# |---|---|---|
# | $\epsilon_\theta(x_t, t)$ | `networks.unet.UNet`, called with `(x_t, t)` | $\epsilon_\theta$, section 3.2 |
# | the $x_0$ that it implies | `engine.predict_x_0(schedule, x_t, t, eps_pred)` | eq. 15 |
# | $\text{emb}(t)$ | `networks.layers.timestep_embedding(t, dim)` | appendix B; Vaswani et al. 2017 |
# | the residual block, with the time | `networks.layers.ResidualBlock` | appendix B |
# | attention | `networks.layers.AttentionBlock` | appendix B, at 16 x 16 |
# | the sizes | `config.ModelConfig`, `config.PRESETS` | appendix B |
#
# Next: [03, the objective](03_objective.ipynb): what it is trained to, and why.
